//! Random sequences of events, also impossible ones, against a checker that knows only the rules at the
//! top of the module and keeps its own books.

use proptest::prelude::*;

use super::*;
use crate::rules::plan::vanishing::tests::losing;

const ORGANISATIONS: u8 = 6;

fn org(number: u8) -> OrganisationId {
    OrganisationId::parse(&format!("org-{number}")).unwrap()
}

fn machine() -> FullResync {
    let interval = Duration::from_secs(300);
    FullResync::new(GuardConfig::default(), interval, None, RuleKeys::new())
}

/// What a reconcile of a tenant ends with.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Unchanged,
    Applied,
    /// Would delete so many of 40 rules, with or without tombstones.
    Deferred(u8, bool),
    Failed,
}

#[derive(Clone, Debug)]
enum Step {
    Request,
    Due,
    /// Organisations by a bit mask.
    List(u8),
    Read(u8),
    Gone(u8),
    Unreadable(u8),
    ReadFailed,
    ReadAll,
    Skip(u8),
    Answer(u8, Answer),
    /// A trigger's reconcile of any organisation ends.
    Triggered(u8, Answer, bool),
    /// An answer to [`Command::Judge`]: whether it succeeds, what is confirmed, and who is gone.
    Judge(bool, u8, u8),
    Purged(u8),
    /// The step, but as an answer to an earlier full resync.
    Late(Box<Step>),
    /// The leadership ends, and the next leader gets late answers of this one.
    LeaderChange,
    /// An honest environment does so many things that the machine waits for.
    Honest(u8),
}

/// What is true of the current full resync, by the events that were delivered.
#[derive(Default)]
struct Books {
    listed: Option<HashSet<OrganisationId>>,
    accounted: HashSet<OrganisationId>,
    unreadable: HashSet<OrganisationId>,
    is_read: bool,
    is_failed: bool,
    /// Reconciles of the first phase without an answer.
    open: HashSet<OrganisationId>,
    deferred: HashMap<OrganisationId, Vanishing>,
    judging: bool,
    is_judged: bool,
    gone: HashSet<OrganisationId>,
    /// Deletions without an answer.
    deleting: HashSet<OrganisationId>,
    held: Option<HashSet<OrganisationId>>,
}

struct World {
    machine: FullResync,
    /// The current full resync, and how many there were.
    current: Option<ResyncId>,
    books: Books,
    asked: Vec<Uuid>,
    answered: Vec<Uuid>,
    next_request: u128,
    is_due: bool,
    finished: usize,
    log: Vec<String>,
    /// A fault that is put into the machine after every event.
    fault: fn(&mut FullResync),
}

fn members(mask: u8) -> impl Iterator<Item = OrganisationId> {
    (0..ORGANISATIONS).filter(move |number| mask & (1 << number) != 0).map(org)
}

fn vanishing(answer: Answer) -> (OutcomeKind, Vanishing, usize) {
    match answer {
        Answer::Unchanged => (OutcomeKind::Unchanged, losing(0, 0, 40), 0),
        Answer::Applied => (OutcomeKind::Applied, losing(1, 0, 40), 1),
        Answer::Deferred(count, true) => {
            (OutcomeKind::Deferred, losing(usize::from(count), 0, 40), 0)
        }
        Answer::Deferred(count, false) => {
            (OutcomeKind::Deferred, losing(0, usize::from(count), 40), 0)
        }
        Answer::Failed => (OutcomeKind::Failed, Vanishing::default(), 0),
    }
}

impl World {
    fn new() -> Self {
        Self {
            machine: machine(),
            current: None,
            books: Books::default(),
            asked: Vec::new(),
            answered: Vec::new(),
            next_request: 0,
            is_due: false,
            finished: 0,
            log: Vec::new(),
            fault: |_| {},
        }
    }

    fn step(&mut self, step: Step) {
        self.log.push(format!("{step:?}"));
        match step {
            Step::Request => {
                self.next_request += 1;
                let request = Uuid::from_u128(self.next_request);
                self.asked.push(request);
                self.send(Event::Requested(vec![request]));
            }
            Step::Due => self.send(Event::Due),
            Step::Triggered(number, answer, by_confirmation) => {
                self.answer(org(number % ORGANISATIONS), None, answer, by_confirmation);
            }
            Step::LeaderChange => {
                assert!(self.deliver(Event::LeadershipEnded).is_empty());
                // Whatever still arrives has no effect.
                for event in [
                    Event::Due,
                    Event::Requested(Vec::new()),
                    Event::ReadAll { id: self.machine.last },
                    Event::Judge {
                        id: self.machine.last,
                        confirmed: Ok(HashMap::new()),
                        gone: vec![(org(0), 1)],
                    },
                ] {
                    let commands = self.deliver(event);
                    assert!(commands.is_empty(), "acts without the leadership: {commands:?}");
                }
                let (hold, held) = (self.machine.hold.clone(), self.machine.held.clone());
                self.machine =
                    FullResync::new(GuardConfig::default(), Duration::from_secs(300), hold, held);
                let held = self.books.held.take();
                self.books = Books { held, ..Books::default() };
                self.current = None;
                // The next leader reads the requests that are not answered.
                let asked = self.asked.clone();
                self.is_due = false;
                self.send(Event::Requested(asked));
                self.send(Event::Ready);
            }
            Step::Honest(count) => {
                for _ in 0..count {
                    self.honest();
                }
            }
            Step::Late(step) => self.respond(*step, true),
            step => self.respond(step, false),
        }
    }

    /// Delivers a step as an answer to the current full resync, or to an earlier one.
    #[expect(clippy::too_many_lines, reason = "one arm for each step")]
    fn respond(&mut self, step: Step, is_late: bool) {
        let current = self.current.or(Some(self.machine.last)).unwrap_or_default();
        let id = if is_late { ResyncId(current.0.wrapping_sub(1)) } else { current };
        // Only events of the current full resync go into the books.
        let counts = !is_late && self.current.is_some();
        let books = &mut self.books;
        let unaccounted = |books: &Books, organisation: &OrganisationId| {
            let is_listed =
                books.listed.as_ref().is_some_and(|listed| listed.contains(organisation));
            is_listed && !books.accounted.contains(organisation)
        };
        let is_reading = counts && !books.is_read && !books.is_failed;
        match step {
            Step::List(mask) => {
                let organisations: HashSet<OrganisationId> = members(mask).collect();
                if is_reading && books.listed.is_none() {
                    books.listed = Some(organisations.clone());
                }
                self.send(Event::Listed { id, organisations });
            }
            Step::Read(mask) => {
                let organisations: Vec<OrganisationId> = members(mask).collect();
                if counts {
                    for organisation in &organisations {
                        if unaccounted(books, organisation) {
                            books.accounted.insert(organisation.clone());
                        }
                    }
                }
                self.send(Event::Read { id, organisations, gone: Vec::new() });
            }
            Step::Gone(mask) => {
                let gone: Vec<OrganisationId> = members(mask).collect();
                if counts {
                    for organisation in &gone {
                        if unaccounted(books, organisation) {
                            books.accounted.insert(organisation.clone());
                        }
                    }
                }
                self.send(Event::Read { id, organisations: Vec::new(), gone });
            }
            Step::Unreadable(number) => {
                let organisation = org(number % ORGANISATIONS);
                if counts && unaccounted(books, &organisation) {
                    books.accounted.insert(organisation.clone());
                    books.unreadable.insert(organisation.clone());
                }
                self.send(Event::Unreadable { id, organisation });
            }
            Step::ReadFailed => {
                books.is_failed |= is_reading;
                self.send(Event::ReadFailed { id, problem: "away".to_owned() });
            }
            Step::ReadAll => {
                if is_reading {
                    let listed = books.listed.as_ref();
                    let is_whole = listed.is_some_and(|listed| listed.is_subset(&books.accounted));
                    (books.is_read, books.is_failed) = (is_whole, !is_whole);
                }
                self.send(Event::ReadAll { id });
            }
            Step::Skip(number) => {
                let organisation = org(number % ORGANISATIONS);
                if counts {
                    books.open.remove(&organisation);
                    books.deleting.remove(&organisation);
                }
                self.send(Event::Skipped { id, organisation, is_failing: false });
            }
            Step::Answer(number, answer) => {
                self.answer(org(number % ORGANISATIONS), Some(id), answer, false);
            }
            Step::Judge(is_ok, confirmed, gone) => {
                let deferred = &books.deferred;
                let of = |organisation: OrganisationId| {
                    let keys = deferred.get(&organisation)?.keys().cloned().collect();
                    Some((organisation, keys))
                };
                let confirmed: HashMap<OrganisationId, HashSet<String>> =
                    members(confirmed).filter_map(of).collect();
                let confirmed = if is_ok { Ok(confirmed) } else { Err("away".to_owned()) };
                let gone: Vec<(OrganisationId, usize)> =
                    members(gone).map(|organisation| (organisation, 40)).collect();
                if counts && books.judging {
                    books.judging = false;
                    (books.is_judged, books.is_failed) = (is_ok, !is_ok);
                    books.gone =
                        gone.iter().map(|(organisation, _)| organisation.clone()).collect();
                }
                self.send(Event::Judge { id, confirmed, gone });
            }
            Step::Purged(number) => {
                let organisation = org(number % ORGANISATIONS);
                if counts {
                    books.open.remove(&organisation);
                    books.deleting.remove(&organisation);
                }
                self.send(Event::Purged { id, organisation });
            }
            Step::Request | Step::Due | Step::Triggered(..) | Step::LeaderChange => {}
            Step::Honest(_) | Step::Late(_) => {}
        }
    }

    fn answer(
        &mut self,
        organisation: OrganisationId,
        by: Option<ResyncId>,
        answer: Answer,
        by_confirmation: bool,
    ) {
        self.answer_as(organisation, by, answer, by_confirmation, false);
    }

    fn answer_as(
        &mut self,
        organisation: OrganisationId,
        by: Option<ResyncId>,
        answer: Answer,
        by_confirmation: bool,
        is_absent: bool,
    ) {
        let (kind, vanishing, removed) = vanishing(answer);
        let books = &mut self.books;
        if books.open.remove(&organisation) && kind == OutcomeKind::Deferred {
            books.deferred.insert(organisation.clone(), vanishing.clone());
        }
        books.deleting.remove(&organisation);
        self.send(Event::Reconciled(ReconcileEnd {
            organisation,
            by,
            kind,
            is_absent,
            vanishing,
            removed,
            by_confirmation,
            in_mimir: 240,
        }));
    }

    fn deliver(&mut self, event: Event) -> Vec<Command> {
        let commands = self.machine.on(event);
        (self.fault)(&mut self.machine);
        commands
    }

    fn send(&mut self, event: Event) {
        let commands = self.deliver(event);
        for command in commands {
            self.log.push(format!("    {command:?}"));
            self.check(command);
        }
        // A reconcile by a trigger must not delete what is held, either.
        let Some(held) = &self.books.held else { return };
        for organisation in held {
            let watched = self.machine.watch(organisation, 240).held;
            let is_watched = watched.is_some_and(|rules| !rules.is_empty());
            assert!(is_watched, "forgets what is held of {organisation:?}: {:#?}", self.log);
        }
    }

    fn check(&mut self, command: Command) {
        let log = &self.log;
        let books = &mut self.books;
        let current = self.current;
        match command {
            Command::BeginWithin(_) => self.is_due = true,
            Command::StartReading { id } => {
                assert!(current.is_none(), "one at a time: {log:#?}");
                self.current = Some(id);
                let held = books.held.take();
                *books = Books { held, ..Books::default() };
                self.is_due = false;
            }
            Command::Reconcile { id, organisation, mode: Mode::Deferring, .. } => {
                assert_eq!(Some(id), current);
                assert!(books.accounted.contains(&organisation), "{log:#?}");
                assert!(!books.unreadable.contains(&organisation), "{log:#?}");
                books.open.insert(organisation);
            }
            Command::Reconcile { id, organisation, mode: Mode::Guarded(watch), .. } => {
                assert_eq!(Some(id), current);
                books.check_deletion(log);
                let deferred = books.deferred.get(&organisation);
                let deferred = deferred.unwrap_or_else(|| panic!("not asked for: {log:#?}"));
                assert!(!books.unreadable.contains(&organisation), "{log:#?}");
                // What is held is watched for, whatever the tenant's own guard thinks.
                match &books.held {
                    Some(held) => {
                        let watched = watch.held.unwrap_or_default();
                        assert_eq!(deferred.meets(&watched), held.contains(&organisation));
                    }
                    None => assert!(watch.held.is_none(), "{log:#?}"),
                }
                books.deleting.insert(organisation);
            }
            Command::Judge { id, listed } => {
                assert_eq!(Some(id), current);
                assert_eq!(Some(&*listed), books.listed.as_ref());
                books.judging = true;
            }
            Command::Hold { held, rules } => {
                let organisations = rules.into_iter().map(|(organisation, _)| organisation);
                books.held = held.map(|_| organisations.collect());
            }
            Command::Purge { id, organisation } => {
                assert_eq!(Some(id), current);
                books.check_deletion(log);
                assert!(books.gone.contains(&organisation), "{log:#?}");
                let listed = books.listed.as_ref();
                assert!(listed.is_some_and(|listed| !listed.contains(&organisation)), "{log:#?}");
                let is_held = books.held.as_ref().is_some_and(|held| held.contains(&organisation));
                assert!(!is_held, "{log:#?}");
                books.deleting.insert(organisation);
            }
            Command::ReportProgress { done, total, .. } => assert!(done <= total, "{log:#?}"),
            Command::Finish(end) => {
                assert!(current.is_some(), "{log:#?}");
                let unanswered = || books.open.union(&books.deleting);
                assert!(
                    unanswered().next().is_none(),
                    "ends before {:?} answered: {log:#?}",
                    unanswered().collect::<Vec<_>>()
                );
                assert_eq!(end.outcome.problem.is_some(), books.is_failed, "{log:#?}");
                assert!(end.done <= end.total.max(books.accounted.len()), "{log:#?}");
                for request in end.requests {
                    assert!(!self.answered.contains(&request), "answered once: {log:#?}");
                    self.asked.retain(|asked| *asked != request);
                    self.answered.push(request);
                }
                self.current = None;
                self.finished += 1;
            }
        }
    }

    /// Does one of the things that the machine waits for; returns whether there was one.
    fn honest(&mut self) -> bool {
        if self.current.is_none() {
            if self.is_due {
                self.send(Event::Due);
            }
            return self.is_due || self.current.is_some();
        }
        let books = &self.books;
        let number = |organisation: &OrganisationId| {
            (0..ORGANISATIONS).find(|number| org(*number) == *organisation).unwrap()
        };
        let step = if let Some(organisation) = books.open.iter().min() {
            Step::Answer(number(organisation), Answer::Deferred(1, true))
        } else if let Some(organisation) = books.deleting.iter().min() {
            Step::Answer(number(organisation), Answer::Applied)
        } else if books.judging {
            Step::Judge(true, 0, 0b11_1111)
        } else if let Some(listed) = &books.listed {
            match listed.difference(&books.accounted).min() {
                Some(organisation) => Step::Read(1 << number(organisation)),
                None => Step::ReadAll,
            }
        } else {
            Step::List(0b01_0111)
        };
        self.respond(step, false);
        true
    }
}

impl Books {
    /// The promise: nothing is deleted before everything was read and judged.
    fn check_deletion(&self, log: &[String]) {
        assert!(!self.is_failed, "deletes after a failed reading: {log:#?}");
        assert!(self.is_read, "deletes before everything was read: {log:#?}");
        assert!(self.open.is_empty(), "deletes before {:?} answered: {log:#?}", self.open);
        assert!(self.is_judged, "deletes unjudged: {log:#?}");
    }
}

fn any_answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        Just(Answer::Unchanged),
        Just(Answer::Applied),
        (1_u8..30, any::<bool>()).prop_map(|(count, explained)| Answer::Deferred(count, explained)),
        Just(Answer::Failed),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let mask = || 0_u8..(1 << ORGANISATIONS);
    let number = || 0..ORGANISATIONS;
    let one = prop_oneof![
        2 => mask().prop_map(Step::List),
        4 => mask().prop_map(Step::Read),
        1 => mask().prop_map(Step::Gone),
        2 => number().prop_map(Step::Unreadable),
        1 => Just(Step::ReadFailed),
        3 => Just(Step::ReadAll),
        2 => number().prop_map(Step::Skip),
        6 => (number(), any_answer()).prop_map(|(number, answer)| Step::Answer(number, answer)),
        4 => (any::<bool>(), mask(), mask()).prop_map(|(is_ok, confirmed, gone)| {
            Step::Judge(is_ok, confirmed, gone)
        }),
        2 => number().prop_map(Step::Purged),
    ]
    .boxed();
    prop_oneof![
        1 => Just(Step::Request),
        4 => Just(Step::Due),
        12 => one.clone(),
        3 => one.prop_map(|step| Step::Late(Box::new(step))),
        2 => (number(), any_answer(), any::<bool>()).prop_map(|(number, answer, confirmed)| {
            Step::Triggered(number, answer, confirmed)
        }),
        1 => Just(Step::LeaderChange),
        8 => (1_u8..12).prop_map(Step::Honest),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(1000)))]

    // Readings that fail, tenants that change or go meanwhile, late answers, changes of the leader,
    // confirmations: whatever happens, nothing is deleted before everything was read and judged, what is
    // held stays, and it always ends. The checks are in `World::check`.
    #[test]
    fn nothing_is_deleted_before_everything_was_read_and_it_always_ends(
        steps in proptest::collection::vec(any_step(), 0..80),
    ) {
        run(steps, |_| {});
    }
}

fn run(steps: Vec<Step>, fault: fn(&mut FullResync)) {
    let mut world = World { fault, ..World::new() };
    world.send(Event::Ready);
    for step in steps {
        world.step(step);
    }
    // An honest environment brings it to its end, and every request is answered.
    let finished = world.finished;
    for _ in 0..200 {
        if world.finished > finished && world.asked.is_empty() {
            break;
        }
        assert!(world.honest(), "stuck: {:#?}", world.log);
    }
    assert!(world.finished > finished, "does not end: {:#?}", world.log);
    assert!(world.asked.is_empty(), "unanswered: {:#?}", world.log);
}

// The checks find each of these faults, so they would find a change that makes one of them.
#[test]
fn the_checks_find_a_machine_that_deletes_too_early() {
    type Fault = fn(&mut FullResync);
    let faults: [(&str, Fault, &str); 5] = [
        (
            "does not wait for tenants",
            |machine| {
                if let Some(run) = machine.run.as_mut() {
                    run.outstanding.clear();
                }
            },
            "answered",
        ),
        (
            "counts what was not read as read",
            |machine| {
                if let Some(run) = machine.run.as_mut() {
                    run.unread.clear();
                }
            },
            "",
        ),
        (
            "forgets that the reading failed",
            |machine| {
                if let Some(run) = machine.run.as_mut() {
                    run.problem = None;
                }
            },
            "",
        ),
        ("goes on without the leadership", |machine| machine.is_leader = true, "leadership"),
        ("forgets what is held", |machine| machine.held.clear(), "forgets"),
    ];
    for (what, fault, words) in faults {
        let config = ProptestConfig {
            cases: 40_000,
            failure_persistence: None,
            max_shrink_iters: 0,
            ..ProptestConfig::default()
        };
        let steps = proptest::collection::vec(any_step(), 0..80);
        let found = proptest::test_runner::TestRunner::new(config).run(&steps, |steps| {
            run(steps, fault);
            Ok(())
        });
        let Err(proptest::test_runner::TestError::Fail(reason, _)) = found else {
            panic!("a machine that {what} is not found: {found:?}");
        };
        let reason = reason.message().lines().next().unwrap_or_default().to_owned();
        assert!(reason.contains(words), "{what}: {reason}");
    }
}

fn run_to_judging(world: &mut World, answers: &[(u8, Answer)]) {
    world.send(Event::Due);
    let mask = answers.iter().fold(0, |mask, (number, _)| mask | (1 << number));
    world.step(Step::List(mask));
    world.step(Step::Read(mask));
    world.step(Step::ReadAll);
    for (number, answer) in answers {
        world.step(Step::Answer(*number, *answer));
    }
}

// Each tenant's own guard lets 19 of 40 rules pass.
const MUCH_OF_ALL: [(u8, Answer); 6] = [
    (0, Answer::Deferred(19, true)),
    (1, Answer::Deferred(19, true)),
    (2, Answer::Deferred(19, true)),
    (3, Answer::Deferred(19, true)),
    (4, Answer::Deferred(19, true)),
    (5, Answer::Deferred(19, true)),
];

#[test]
fn much_from_all_together_is_held_until_it_is_confirmed() {
    let mut world = World::new();
    run_to_judging(&mut world, &MUCH_OF_ALL);
    world.step(Step::Judge(true, 0, 0));
    let held = world.books.held.clone();
    assert_eq!(held.map(|held| held.len()), Some(4), "two deletions are few enough to pass");
    world.step(Step::Honest(6));
    assert!(world.current.is_none());

    run_to_judging(&mut world, &MUCH_OF_ALL);
    world.step(Step::Judge(true, 0b11_1111, 0));
    assert!(world.books.held.is_none() && world.machine.hold.is_none());
}

// What the last leader held is recorded. It does not pass as small at the next one.
#[test]
fn a_new_leader_knows_what_is_held() {
    let mut world = World::new();
    run_to_judging(&mut world, &MUCH_OF_ALL);
    world.step(Step::Judge(true, 0, 0));
    world.step(Step::LeaderChange);
    assert!(world.machine.hold.is_some());
    assert!(world.machine.watch(&org(5), 240).held.is_some_and(|held| held.len() == 19));
}

#[test]
fn a_database_without_organisations_purges_nobody() {
    let mut world = World::new();
    world.send(Event::Due);
    world.step(Step::List(0));
    world.step(Step::ReadAll);
    world.step(Step::Judge(true, 0, 0b11_1111));
    assert_eq!(world.books.held.as_ref().map(HashSet::len), Some(6));
    assert!(world.current.is_none(), "and it ends");
}

// Seen: a truncated table was held, its rows came back, the old hold could still be confirmed, and the
// next loss of the same rules then passed.
#[test]
fn a_hold_ends_when_all_its_organisations_have_their_rules_again() {
    let mut world = World::new();
    world.send(Event::Ready);
    run_to_judging(&mut world, &MUCH_OF_ALL);
    world.step(Step::Judge(true, 0, 0));
    let held = world.books.held.clone().unwrap_or_default();
    assert!(held.len() > 1, "{:#?}", world.log);
    for organisation in &held {
        assert!(world.books.held.is_some(), "ended before {organisation:?}: {:#?}", world.log);
        world.answer(organisation.clone(), None, Answer::Unchanged, false);
    }
    assert!(world.books.held.is_none(), "{:#?}", world.log);
    assert!(world.machine.watch(&org(0), 240).held.is_none());
}

// Seen: the organisations of a hold were deleted. Nothing was compared for them, which was taken for rules that
// are there again, and the hold ended.
#[test]
fn a_hold_does_not_end_because_its_organisations_are_gone() {
    let mut world = World::new();
    world.send(Event::Ready);
    run_to_judging(&mut world, &MUCH_OF_ALL);
    world.step(Step::Judge(true, 0, 0));
    let held = world.books.held.clone().unwrap_or_default();
    for organisation in &held {
        world.answer_as(organisation.clone(), None, Answer::Unchanged, false, true);
    }
    assert!(world.books.held.is_some(), "{:#?}", world.log);
    for organisation in &held {
        world.answer(organisation.clone(), None, Answer::Unchanged, false);
    }
    assert!(world.books.held.is_none(), "{:#?}", world.log);
}
