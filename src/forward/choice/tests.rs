use super::*;
use proptest::prelude::*;

const BOUNDS: Bounds = Bounds { max_in_flight: 10, panic_percent: 50 };

pub(in crate::forward) struct Seeded(fastrand::Rng);

impl Chance for Seeded {
    fn below(&mut self, bound: usize) -> usize {
        self.0.usize(..bound)
    }

    fn fraction(&mut self) -> f64 {
        self.0.f64()
    }
}

pub(in crate::forward) fn chance() -> Seeded {
    Seeded(fastrand::Rng::with_seed(7))
}

fn with(in_flight: u32, share: Share) -> Candidate {
    Candidate { in_flight, share, on_trial: false }
}

fn pick(all: &[Candidate], tried: &Tried, chance: &mut Seeded) -> Result<Chosen, NoChoice> {
    choose(all.len(), |at| all[at], tried, BOUNDS, chance)
}

/// How often each candidate is chosen in 10,000 tries.
fn counts(all: &[Candidate]) -> Vec<usize> {
    let (mut counts, mut chance) = (vec![0; all.len()], chance());
    for _ in 0..10_000 {
        if let Ok(Chosen::Normal(at)) = pick(all, &Tried::default(), &mut chance) {
            counts[at] += 1;
        }
    }
    counts
}

#[test]
fn equal_instances_get_equal_shares() {
    for count in counts(&[with(3, Share::Whole); 4]) {
        assert!((2300..2700).contains(&count), "{count}");
    }
}

// Of two random instances the less loaded is chosen, so never the most loaded of all.
#[test]
fn the_most_loaded_gets_nothing_and_the_least_loaded_the_most() {
    let counts = counts(&[with(9, Share::Whole), with(5, Share::Whole), with(0, Share::Whole)]);
    assert_eq!(counts[0], 0);
    assert!((6300..7000).contains(&counts[2]), "{counts:?}");
}

#[test]
fn a_returning_instance_gets_a_part_of_its_share() {
    let counts = counts(&[with(0, Share::Part(0.1)), with(0, Share::Whole), with(0, Share::Whole)]);
    assert!((100..900).contains(&counts[0]), "{counts:?}");
    assert!(counts[1].abs_diff(counts[2]) < 500, "{counts:?}");
}

#[test]
fn ejected_instances_get_nothing_while_enough_are_left() {
    let (well, ejected) = (with(1, Share::Whole), with(0, Share::Ejected));
    assert_eq!(counts(&[well, ejected])[1], 0);
    assert_eq!(counts(&[well, well, ejected])[2], 0);
    // Ejecting two of three would triple the load of the last.
    let panicking = counts(&[well, ejected, ejected]);
    assert!(panicking.iter().all(|count| *count > 0), "{panicking:?}");
    assert_eq!(counts(&[ejected]), [10_000], "the only one");
}

// Found by reading: two machines that are not ready join one that is. They answer 503 at once, look less loaded, and got
// most requests.
#[test]
fn new_instances_get_nothing_while_any_other_is_left() {
    let (well, ejected, gone) =
        (with(9, Share::Whole), with(0, Share::Ejected), with(0, Share::Unreachable));
    let (new, new_and_gone) =
        (with(0, Share::New { reachable: true }), with(0, Share::New { reachable: false }));
    assert_eq!(counts(&[well, new, new]), [10_000, 0, 0]);
    assert_eq!(counts(&[well, new_and_gone, new]), [10_000, 0, 0]);
    // They are no reason to use an ejected one, and do not hide one.
    assert_eq!(counts(&[well, ejected, new, new_and_gone]), [10_000, 0, 0, 0]);
    let panicking = counts(&[well, ejected, ejected, new]);
    assert!(panicking[1] > 0 && panicking[2] > 0 && panicking[3] == 0, "{panicking:?}");
    assert_eq!(counts(&[ejected, new, new]), [10_000, 0, 0]);
    // Nothing else is left.
    let all_new = counts(&[new, new, new_and_gone, gone]);
    assert!(all_new[0] > 0 && all_new[1] > 0 && all_new[2..] == [0, 0], "{all_new:?}");
    let full = with(10, Share::Whole);
    assert_eq!(pick(&[full, new], &Tried::default(), &mut chance()), Err(NoChoice::Full));
    // A resend: the other one has been tried.
    let mut tried = Tried::default();
    tried.add(0);
    assert_eq!(pick(&[well, new], &tried, &mut chance()), Ok(Chosen::Normal(1)));
    assert_eq!(pick(&[well, new_and_gone], &tried, &mut chance()), Ok(Chosen::Trial(1)));
}

// A request to an unreachable instance takes no load off the others.
#[test]
fn unreachable_instances_get_nothing_while_others_exist() {
    let gone = with(0, Share::Unreachable);
    assert_eq!(counts(&[with(9, Share::Whole), gone, gone]), [10_000, 0, 0]);
    assert_eq!(counts(&[with(0, Share::Ejected), gone, gone]), [10_000, 0, 0]);
}

#[test]
fn each_unreachable_instance_is_tried_by_one_request_at_a_time() {
    let gone = with(0, Share::Unreachable);
    let busy = Candidate { on_trial: true, ..gone };
    let none = Tried::default();
    assert_eq!(pick(&[busy, gone, busy], &none, &mut chance()), Ok(Chosen::Trial(1)));
    assert_eq!(pick(&[busy, busy], &none, &mut chance()), Err(NoChoice::Open));
}

#[test]
fn a_bound_on_requests_is_a_bound() {
    let (full, room) = (with(10, Share::Whole), with(9, Share::Whole));
    assert_eq!(pick(&[full, full], &Tried::default(), &mut chance()), Err(NoChoice::Full));
    assert_eq!(counts(&[full, full, full, room]), [0, 0, 0, 10_000]);
}

fn candidate() -> impl Strategy<Value = Candidate> {
    let share = prop_oneof![
        3 => Just(Share::Whole),
        1 => (0.1f64..1.0).prop_map(Share::Part),
        2 => Just(Share::Ejected),
        2 => Just(Share::Unreachable),
        2 => any::<bool>().prop_map(|reachable| Share::New { reachable })
    ];
    (0u32..13, share, any::<bool>()).prop_map(|(in_flight, share, on_trial)| Candidate {
        in_flight,
        share,
        on_trial,
    })
}

fn is_reachable(one: &Candidate) -> bool {
    !matches!(one.share, Share::Unreachable | Share::New { reachable: false })
}

proptest! {
    #[test]
    fn a_choice_keeps_all_rules(
        all in proptest::collection::vec(candidate(), 0..8),
        already in proptest::collection::vec(0usize..8, 0..3),
        seed: u64,
    ) {
        let mut tried = Tried::default();
        for at in already {
            tried.add(at);
        }
        let mut chance = Seeded(fastrand::Rng::with_seed(seed));
        let untried: Vec<&Candidate> =
            all.iter().enumerate().filter(|(at, _)| !tried.contains(*at)).map(|(_, one)| one).collect();
        match pick(&all, &tried, &mut chance) {
            Ok(Chosen::Normal(at)) => {
                prop_assert!(!tried.contains(at));
                prop_assert!(all[at].in_flight < BOUNDS.max_in_flight);
                prop_assert!(is_reachable(&all[at]));
                let is_ready = |one: &&Candidate| one.share.is_used() || one.share == Share::Ejected;
                prop_assert!(!all[at].share.is_new() || !untried.iter().any(is_ready));
            }
            Ok(Chosen::Trial(at)) => {
                prop_assert!(!tried.contains(at) && !all[at].on_trial);
                prop_assert!(!untried.iter().any(|one| is_reachable(one)));
            }
            Err(NoChoice::None) => prop_assert!(untried.is_empty() || tried.is_full()),
            Err(NoChoice::Open) => prop_assert!(
                untried.iter().all(|one| !is_reachable(one) && one.on_trial)
            ),
            Err(NoChoice::Full) => prop_assert!(
                untried.iter().any(|one| one.in_flight >= BOUNDS.max_in_flight)
            ),
        }
    }

    // Whatever the state of the others: an instance that is reachable and has room is used.
    #[test]
    fn an_instance_that_is_reachable_and_has_room_is_used(all in proptest::collection::vec(candidate(), 1..8), seed: u64) {
        let mut chance = Seeded(fastrand::Rng::with_seed(seed));
        let chosen = pick(&all, &Tried::default(), &mut chance);
        if all.iter().any(is_reachable) {
            prop_assert!(matches!(chosen, Ok(Chosen::Normal(_)) | Err(NoChoice::Full)));
        }
    }
}
