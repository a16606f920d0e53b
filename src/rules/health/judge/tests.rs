use super::*;
use crate::rules::health::read::wanted;
use proptest::prelude::*;

const ID: Uuid = Uuid::from_u128(1);
const INTERVAL: PromDuration = PromDuration::from_millis(60_000);

fn moment(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000 + seconds).unwrap()
}

/// One rule, over time.
struct One {
    statuses: RuleStatuses,
    memory: Memory,
    start: Instant,
    reach: Option<bool>,
}

impl One {
    fn new() -> Self {
        let status = RuleStatus::in_mimir(None, "v1".to_owned());
        let mut memory = Memory::default();
        memory.rules.entry(ID).or_default().interval = INTERVAL;
        Self {
            statuses: RuleStatuses::from([(ID, status)]),
            memory,
            start: Instant::now(),
            reach: None,
        }
    }

    fn status(&self) -> &RuleStatus {
        &self.statuses[&ID]
    }

    fn state(&self) -> (RuleState, &str) {
        (self.status().state, &self.status().reason)
    }

    fn see(&mut self, seconds: u64, seen: Seen) -> Judged {
        let now = self.start + Duration::from_secs(seconds);
        let reach = self.reach;
        let judged = judge(&self.statuses, &mut self.memory, &seen, now, &|labels| {
            assert_eq!(labels["alertname"], "A");
            reach
        });
        self.statuses = judged.statuses.clone();
        judged
    }

    /// The row was edited, and the new version written.
    fn edit(&mut self, hash: &str) {
        let before = self.statuses.get(&ID).cloned();
        self.statuses.insert(ID, RuleStatus::in_mimir(before.as_ref(), hash.to_owned()));
    }
}

fn nothing(at: i64) -> Seen {
    Seen { at: moment(at), is_switched_off: false, rules: HashMap::new() }
}

fn seen(at: i64, rules: Vec<SeenRule>) -> Seen {
    Seen { rules: HashMap::from([(ID, rules)]), ..nothing(at) }
}

fn good(version: &str, last: i64) -> SeenRule {
    SeenRule {
        interval: INTERVAL,
        took: PromDuration::ZERO,
        shown: format!("shown {version}"),
        version: Version::Is(version.to_owned()),
        labels: BTreeMap::from([("alertname".to_owned(), "A".to_owned())]),
        health: RuleHealth::Good,
        last_error: String::new(),
        last_evaluation: Some(moment(last)),
    }
}

fn bad(error: &str, last: i64) -> SeenRule {
    SeenRule { health: RuleHealth::Bad, last_error: error.to_owned(), ..good("v1", last) }
}

fn other(last: i64) -> SeenRule {
    SeenRule { version: Version::Other, ..good("v0", last) }
}

fn unknown() -> SeenRule {
    SeenRule { health: RuleHealth::Unknown, last_evaluation: None, ..good("v1", 0) }
}

#[tokio::test(start_paused = true)]
async fn a_rule_is_stored_until_its_version_was_evaluated() {
    let mut one = One::new();
    assert_eq!(one.state(), (RuleState::Stored, NOT_YET));
    assert!(one.see(2, nothing(2)).is_waiting);
    assert_eq!(one.state(), (RuleState::Stored, NOT_YET));
    one.see(4, seen(4, vec![unknown()]));
    assert_eq!(one.state(), (RuleState::Stored, NOT_YET));
    let judged = one.see(8, seen(8, vec![good("v1", 7)]));
    assert_eq!((one.state(), judged.is_waiting), ((RuleState::Live, ""), false));
    assert_eq!(one.status().evaluated_at, Some(moment(7)));

    one.edit("v2");
    assert_eq!((one.state(), one.status().evaluated_at), ((RuleState::Stored, NOT_YET), None));
    one.see(10, seen(10, vec![other(9)]));
    assert_eq!(one.state(), (RuleState::Stored, words::EARLIER_VERSION));
    one.see(20, seen(20, vec![other(9), good("v2", 19)]));
    assert_eq!(one.state(), (RuleState::Live, ""));
}

#[tokio::test(start_paused = true)]
async fn a_failed_evaluation_is_told_until_one_succeeds() {
    let mut one = One::new();
    one.see(2, seen(2, vec![bad("many-to-many", 1)]));
    assert_eq!(one.state(), (RuleState::Failing, "the last evaluation failed: many-to-many"));
    assert_eq!(one.status().evaluated_at, Some(moment(1)));
    one.see(62, seen(62, vec![good("v1", 61)]));
    assert_eq!(one.state(), (RuleState::Live, ""));
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_no_ruler_loads_is_written_again_and_failing() {
    let mut one = One::new();
    one.see(0, nothing(0));
    assert!(one.see(210, nothing(210)).write_again.is_empty(), "three intervals and a grace");
    assert_eq!(one.state(), (RuleState::Stored, NOT_YET));
    assert_eq!(one.see(211, nothing(211)).write_again, [ID]);
    assert_eq!(one.state(), (RuleState::Failing, words::NEVER_LOADED));
    assert!(one.see(3800, nothing(3800)).write_again.is_empty(), "not again within an hour");
    assert_eq!(one.see(3811, nothing(3811)).write_again, [ID]);
    one.see(3900, seen(3900, vec![good("v1", 3890)]));
    assert_eq!(one.state(), (RuleState::Live, ""));
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_never_loaded_is_failing_although_the_earlier_one_is_evaluated() {
    let mut one = One::new();
    one.see(0, seen(0, vec![good("v1", 0)]));
    one.edit("v2");
    one.see(10, seen(10, vec![other(9)]));
    let judged = one.see(300, seen(300, vec![other(290)]));
    assert_eq!(one.state(), (RuleState::Failing, words::NEVER_LOADED_VERSION));
    assert_eq!(judged.write_again, [ID]);
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_is_not_evaluated_any_more_says_since_when() {
    let mut one = One::new();
    one.see(0, seen(0, vec![good("v1", 0)]));
    // A restart: nothing is loaded for a while.
    one.see(60, nothing(60));
    one.see(200, seen(200, vec![unknown()]));
    assert_eq!(one.state(), (RuleState::Live, ""));
    let judged = one.see(211, nothing(211));
    assert_eq!(one.state().0, RuleState::Failing);
    assert!(one.state().1.contains("since 2027-01-15T08:00:00Z"), "{:?}", one.state());
    assert_eq!(judged.write_again, [ID]);
    // Loaded, but its ruler does not come to evaluate it.
    let stuck = SeenRule { took: PromDuration::from_millis(100_000), ..good("v1", 300) };
    one.see(500, seen(500, vec![stuck.clone()]));
    assert_eq!(one.state(), (RuleState::Live, ""), "a slow group skips evaluations");
    let judged = one.see(900, seen(900, vec![stuck]));
    assert_eq!((one.state().0, judged.write_again), (RuleState::Failing, Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn evaluation_that_is_switched_off_is_told_and_nothing_is_written() {
    let mut one = One::new();
    one.see(0, seen(0, vec![good("v1", 0)]));
    for at in [10, 10_000] {
        let judged = one.see(at, Seen { is_switched_off: true, ..nothing(10) });
        assert_eq!(one.state(), (RuleState::Failing, words::SWITCHED_OFF));
        assert!(judged.write_again.is_empty());
    }
    one.see(10_060, seen(10_060, vec![unknown()]));
    assert_ne!(one.state(), (RuleState::Failing, words::SWITCHED_OFF));
    one.see(10_120, seen(10_120, vec![good("v1", 10_100)]));
    assert_eq!(one.state(), (RuleState::Live, ""));
}

const AHEAD: i64 = 36_000;

// A clock that was once hours ahead kept rules live for as long, whoever led.
#[tokio::test(start_paused = true)]
async fn an_evaluation_counts_as_one_of_now_while_a_rulers_clock_is_ahead() {
    let mut one = One::new();
    for at in [2, 302, 602, 902] {
        let now = i64::try_from(at).unwrap();
        one.see(at, seen(now, vec![good("v1", AHEAD + now)]));
        assert_eq!(one.state(), (RuleState::Live, ""), "it evaluates");
    }
    assert_eq!(one.memory.rules[&ID].evaluated_at, Some(moment(902)));
    assert_eq!(one.status().evaluated_at, Some(moment(602)), "written now and then");
    // The clock is right again, and the group is not evaluated any more.
    one.see(962, seen(962, vec![good("v1", 905)]));
    assert_eq!(one.state(), (RuleState::Live, ""));
    one.see(1200, seen(1200, vec![good("v1", 905)]));
    assert_eq!(one.state().0, RuleState::Failing);
    assert!(one.state().1.contains("since 2027-01-15T08:15:05Z"), "{:?}", one.state());
}

#[tokio::test(start_paused = true)]
async fn an_evaluation_that_is_still_to_come_counts_once_however_often_it_is_shown() {
    let mut one = One::new();
    for at in [2, 62, 212] {
        let now = i64::try_from(at).unwrap();
        one.see(at, seen(now, vec![good("v1", AHEAD)]));
        assert_eq!(one.state(), (RuleState::Live, ""));
    }
    one.see(213, seen(213, vec![good("v1", AHEAD)]));
    assert_eq!(one.state().0, RuleState::Failing);
    one.see(273, seen(273, vec![good("v1", AHEAD + 60)]));
    assert_eq!(one.state(), (RuleState::Live, ""), "another one");
    one.edit("v2");
    one.see(283, seen(283, vec![good("v2", AHEAD + 60)]));
    assert_eq!(one.state(), (RuleState::Live, ""), "another version");
}

#[tokio::test(start_paused = true)]
async fn a_time_that_an_earlier_leader_wrote_and_that_is_still_to_come_is_put_right() {
    let mut one = One::new();
    let status = one.statuses.get_mut(&ID).unwrap();
    *status = RuleStatus {
        evaluated_at: Some(moment(AHEAD)),
        ..RuleStatus::new(RuleState::Live, "", Some("v1".to_owned()))
    };
    one.see(10, nothing(10));
    assert_eq!(one.state(), (RuleState::Live, ""));
    assert_eq!(one.status().evaluated_at, Some(moment(10)));
    one.see(221, nothing(221));
    assert_eq!(one.state().0, RuleState::Failing);
}

// What we cannot read is no evidence: never `failing`.
#[tokio::test(start_paused = true)]
async fn a_tenant_that_cannot_be_read_is_unknown_after_a_while() {
    let mut one = One::new();
    one.see(0, seen(0, vec![good("v1", 0)]));
    let at = |seconds| one.start + Duration::from_secs(seconds);
    let (first, later) = (at(299), at(301));
    for _ in 0..10 {
        assert!(unread(&one.statuses, &mut one.memory, first).is_none());
    }
    one.statuses = unread(&one.statuses, &mut one.memory, later).unwrap();
    assert_eq!(one.state(), (RuleState::Stored, words::UNKNOWN));
    assert_eq!(one.status().evaluated_at, Some(moment(0)));
    one.see(400, seen(400, vec![good("v1", 390)]));
    assert_eq!(one.state(), (RuleState::Live, ""));
    // One attempt after a long pause is not enough.
    let much_later = one.start + Duration::from_secs(100_000);
    assert!(unread(&one.statuses, &mut one.memory, much_later).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_notifies_nobody_is_live_and_says_so() {
    let mut one = One::new();
    one.reach = Some(false);
    one.see(2, seen(2, vec![good("v1", 1)]));
    assert_eq!(one.state(), (RuleState::Live, words::NOTIFIES_NOBODY));
    assert_eq!(one.status().notifies, Some(false));
    one.reach = Some(true);
    one.see(62, seen(62, vec![good("v1", 61)]));
    assert_eq!((one.state(), one.status().notifies), ((RuleState::Live, ""), Some(true)));
    // A restarting ruler says nothing about it.
    one.see(70, nothing(70));
    assert_eq!(one.status().notifies, Some(true));
}

// Every evaluation would be a write of every status each minute.
#[tokio::test(start_paused = true)]
async fn the_time_of_an_evaluation_is_written_now_and_then() {
    let mut one = One::new();
    let mut written = 0;
    for minute in 0..60_u32 {
        let before = one.statuses.clone();
        let at = i64::from(minute) * 60;
        one.see(u64::from(minute) * 60, seen(at, vec![good("v1", at)]));
        written += usize::from(before != one.statuses);
    }
    assert_eq!(written, 6);
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_leader_saw_evaluated_is_trusted_and_nothing_else() {
    let mut one = One::new();
    assert_eq!(wanted(&one.statuses, &one.memory).len(), 1);
    one.see(2, seen(2, vec![good("v1", 1)]));
    let versions = format!("{:?}", wanted(&one.statuses, &Memory::default()));
    assert!(versions.contains("is_trusted: true"), "{versions}");
    let versions = format!("{:?}", wanted(&one.statuses, &one.memory));
    assert!(versions.contains("shown v1") && versions.contains("is_trusted: false"));
    one.edit("v2");
    for memory in [&one.memory, &Memory::default()] {
        let versions = format!("{:?}", wanted(&one.statuses, memory));
        assert!(versions.contains("shown: None, is_trusted: false"), "{versions}");
    }
}

fn any_seen() -> impl Strategy<Value = Option<Seen>> {
    let version = prop_oneof![
        Just(Version::Is("v1".to_owned())),
        Just(Version::Is("v2".to_owned())),
        Just(Version::Other),
        Just(Version::Unclear)
    ];
    let health =
        prop_oneof![Just(RuleHealth::Good), Just(RuleHealth::Bad), Just(RuleHealth::Unknown)];
    let last = proptest::option::of(0_i64..2000);
    let rule = (version, health, last).prop_map(|(version, health, last)| SeenRule {
        version,
        health,
        last_error: if health == RuleHealth::Bad { "no".to_owned() } else { String::new() },
        last_evaluation: last.map(moment),
        ..good("v1", 0)
    });
    let rules = proptest::collection::vec(rule, 0..3);
    let is_off = proptest::bool::weighted(0.1);
    let one = (rules, is_off, 0_i64..2000)
        .prop_map(|(rules, is_switched_off, at)| Some(Seen { is_switched_off, ..seen(at, rules) }));
    prop_oneof![4 => one, 1 => Just(None)]
}

proptest! {
    // `live` says that this version was seen evaluated, well and not long ago; `failing` is never said without
    // an answer; and neither changes what Mimir has.
    #[test]
    fn a_state_is_what_was_seen(
        steps in proptest::collection::vec((any_seen(), 0_u64..400, any::<bool>()), 1..30),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _inside = runtime.enter();
        let mut one = One::new();
        let mut now = 0;
        for (seen, pause, is_edited) in steps {
            now += pause;
            if is_edited {
                let next = if one.status().rule_hash.as_deref() == Some("v1") { "v2" } else { "v1" };
                one.edit(next);
                prop_assert_eq!(one.status().state, RuleState::Stored);
            }
            let before = one.status().clone();
            let Some(seen) = seen else {
                let at = one.start + Duration::from_secs(now);
                if let Some(statuses) = unread(&one.statuses, &mut one.memory, at) {
                    one.statuses = statuses;
                    prop_assert_eq!(one.status().state, RuleState::Stored);
                }
                continue;
            };
            let judged = one.see(now, seen.clone());
            let status = one.status();
            prop_assert_eq!(&status.rule_hash, &before.rule_hash);
            prop_assert!(status.state.is_in_mimir());
            prop_assert!(status.evaluated_at.is_none_or(|at| at <= seen.at));
            prop_assert_eq!(status.evaluated_at.is_none(), one.memory.rules[&ID].evaluated_at.is_none());
            if status.state == RuleState::Live {
                let at = one.memory.rules[&ID].evaluated_at;
                prop_assert!(at.is_some_and(|at| seen.at - at <= Duration::from_secs(210)));
                prop_assert!(!seen.is_switched_off);
            }
            if seen.is_switched_off {
                prop_assert!(judged.write_again.is_empty());
            }
            prop_assert_eq!(status.reason.is_empty(), status.state == RuleState::Live);
        }
    }
}
