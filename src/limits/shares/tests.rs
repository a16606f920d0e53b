use std::time::Duration;

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn shares(most: usize, percent: usize) -> Arc<Shares> {
    Arc::new(Shares::new(most, percent, Box::new(|| usize::MAX)))
}

fn organisation() -> Holders {
    Holders { first: Arc::default(), others: Vec::new() }
}

fn held(organisation: &Holders) -> usize {
    organisation.first.0.load(SeqCst)
}

fn waiting(shares: &Shares) -> usize {
    shares.waiting.iter().map(|one| one.load(SeqCst)).sum()
}

/// Takes slots until none is left.
fn fill(shares: &Arc<Shares>, organisation: &Holders) -> Vec<Share> {
    std::iter::from_fn(|| shares.try_enter(organisation, Priority::Write)).collect()
}

// 2,256 slow bodies of two organisations filled every slot; all others got 503.
#[test]
fn two_organisations_leave_room_for_others() {
    let shares = shares(2000, 33);
    let (one, two, three) = (organisation(), organisation(), organisation());
    let _first = fill(&shares, &one);
    assert_eq!(held(&one), 660, "a third");
    let _second = fill(&shares, &two);
    assert!(shares.taken() < 2000 * 6 / 10, "{}", shares.taken());
    let third = fill(&shares, &three);
    assert!(third.len() > 250, "{}", third.len());
}

#[test]
fn one_alone_may_have_all_if_it_is_set_so() {
    let (shares, one) = (shares(100, 100), organisation());
    let all = fill(&shares, &one);
    assert_eq!(all.len(), 100);
    drop(all);
    assert_eq!((shares.taken(), held(&one)), (0, 0));
}

// The instances' capacity counts, if it is lower.
#[test]
fn slots_are_bounded_by_the_instances_capacity() {
    let upstream = Arc::new(AtomicUsize::new(10));
    let seen = Arc::clone(&upstream);
    let shares = Arc::new(Shares::new(1000, 100, Box::new(move || seen.load(SeqCst))));
    let all = fill(&shares, &organisation());
    assert_eq!(all.len(), 10);
    // An instance was ejected: no slot is freed until enough requests have ended.
    upstream.store(5, SeqCst);
    assert!(shares.try_enter(&organisation(), Priority::Write).is_none());
    drop(all);
    assert!(shares.try_enter(&organisation(), Priority::Write).is_some());
}

// A federated read counts once for each of its organisations, and once in total.
#[test]
fn a_federated_read_counts_for_each_organisation() {
    let shares = shares(100, 33);
    let (one, two) = (organisation(), organisation());
    let both = Holders { first: Arc::clone(&one.first), others: vec![Arc::clone(&two.first)] };
    let share = shares.try_enter(&both, Priority::Write).unwrap();
    assert_eq!((held(&one), held(&two), shares.taken()), (1, 1, 1));
    let _filled = fill(&shares, &two);
    assert!(shares.try_enter(&both, Priority::Write).is_none(), "one of them holds its share");
    drop(share);
    assert_eq!(held(&one), 0);
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_has_waited_and_is_told_why() {
    let (shares, one, began) = (shares(4, 50), organisation(), Instant::now());
    let own = fill(&shares, &one);
    assert_eq!(own.len(), 2);
    let refused = shares.enter(one.clone(), Priority::Write, began + MS).await.err();
    assert_eq!((refused, began.elapsed()), (Some(NoShare::Own), MS));
    let _others: Vec<_> =
        (0..2).map(|_| shares.try_enter(&organisation(), Priority::Write).unwrap()).collect();
    let refused = shares.enter(organisation(), Priority::Write, Instant::now() + MS).await.err();
    assert_eq!(refused, Some(NoShare::All));
    assert_eq!(waiting(&shares), 0);
}

// Neither an organisation with many waiting requests nor a newcomer goes first.
#[tokio::test(start_paused = true)]
async fn places_go_to_those_who_wait_in_turns() {
    let shares = shares(1, 100);
    let holder = shares.try_enter(&organisation(), Priority::Write).unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    let (many, few) = (organisation(), organisation());
    for (name, holders) in [("many", &many), ("many", &many), ("many", &many), ("few", &few)] {
        let (shares, holders, order) = (Arc::clone(&shares), holders.clone(), Arc::clone(&order));
        tasks.spawn(async move {
            let _share = shares
                .enter(holders, Priority::Write, Instant::now() + 1000 * MS)
                .await
                .ok()
                .unwrap();
            order.lock().push(name);
            tokio::time::sleep(MS).await;
        });
        tokio::task::yield_now().await;
    }
    drop(holder);
    // A newcomer joins the queue.
    let newcomer = shares.enter(organisation(), Priority::Write, Instant::now() + 1000 * MS).await;
    order.lock().push("newcomer");
    drop(newcomer);
    while tasks.join_next().await.is_some() {}
    let order = order.lock().clone();
    assert_eq!(order, ["many", "few", "many", "newcomer", "many"], "{order:?}");
    assert_eq!((shares.taken(), waiting(&shares)), (0, 0));
}

// A slot given to a request that has just gone away is passed on.
#[tokio::test(start_paused = true)]
async fn who_goes_away_leaves_the_line() {
    let shares = shares(1, 100);
    let holder = shares.try_enter(&organisation(), Priority::Write).unwrap();
    let deadline = Instant::now() + 1000 * MS;
    let mut gone = Box::pin(shares.enter(organisation(), Priority::Write, deadline));
    assert!(futures_util::poll!(&mut gone).is_pending());
    let mut next = Box::pin(shares.enter(organisation(), Priority::Write, deadline));
    assert!(futures_util::poll!(&mut next).is_pending());
    let mut last = Box::pin(shares.enter(organisation(), Priority::Write, deadline));
    assert!(futures_util::poll!(&mut last).is_pending());
    drop(last);
    drop(holder);
    drop(gone);
    let share = next.await;
    assert!(share.is_ok());
    assert_eq!((shares.taken(), waiting(&shares)), (1, 0));
}

// When slots run out, the last ones are for writes, and those before them not for lists.
#[test]
fn the_last_slots_are_for_what_comes_first() {
    let shares = shares(100, 100);
    let fill = |priority| {
        std::iter::from_fn(|| shares.try_enter(&organisation(), priority)).collect::<Vec<_>>()
    };
    let lists = fill(Priority::List);
    let reads = fill(Priority::Read);
    let writes = fill(Priority::Write);
    assert_eq!((lists.len(), reads.len(), writes.len()), (80, 10, 10));
    drop(lists);
    let counts = Priority::ALL.iter().map(|priority| fill(*priority).len()).collect::<Vec<_>>();
    assert_eq!(counts, [80, 70, 60]);
    // So few that none can be kept.
    let one = self::shares(1, 100);
    assert!(one.try_enter(&organisation(), Priority::List).is_some());
}

// Whoever waits longest comes first only among its like.
#[tokio::test(start_paused = true)]
async fn writes_are_served_before_reads_and_reads_before_lists() {
    let shares = shares(1, 100);
    let holder = shares.try_enter(&organisation(), Priority::Write).unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    for priority in [Priority::List, Priority::Read, Priority::Write, Priority::Read] {
        let (shares, order) = (Arc::clone(&shares), Arc::clone(&order));
        tasks.spawn(async move {
            let deadline = Instant::now() + 1000 * MS;
            let _share = shares.enter(organisation(), priority, deadline).await.ok().unwrap();
            order.lock().push(priority);
            tokio::time::sleep(MS).await;
        });
        tokio::task::yield_now().await;
    }
    drop(holder);
    while tasks.join_next().await.is_some() {}
    let wanted = [Priority::Write, Priority::Read, Priority::Read, Priority::List];
    assert_eq!(*order.lock(), wanted);
    assert_eq!((shares.taken(), waiting(&shares)), (0, 0));
}

// More slots serve those who wait; fewer take none back.
#[tokio::test(start_paused = true)]
async fn the_number_of_slots_can_change() {
    let shares = shares(1, 100);
    let _holder = shares.try_enter(&organisation(), Priority::Write).unwrap();
    let deadline = Instant::now() + 1000 * MS;
    let mut next = Box::pin(shares.enter(organisation(), Priority::Write, deadline));
    assert!(futures_util::poll!(&mut next).is_pending());
    shares.resize(2, 100);
    let share = next.await;
    assert!(share.is_ok());
    shares.resize(1, 100);
    drop(share);
    assert!(shares.try_enter(&organisation(), Priority::Write).is_none());
    assert_eq!(shares.taken(), 1);
}

// The queue is bounded.
#[tokio::test(start_paused = true)]
async fn only_so_many_wait() {
    let shares = shares(3, 100);
    let _all = fill(&shares, &organisation());
    let deadline = Instant::now() + 10 * MS;
    let waiting = (0..100).map(|_| async {
        let began = Instant::now();
        assert!(shares.enter(organisation(), Priority::Write, deadline).await.is_err());
        began.elapsed()
    });
    let waited = futures_util::future::join_all(waiting).await;
    assert_eq!(waited.iter().filter(|waited| waited.is_zero()).count(), 36, "{waited:?}");
}

// Seen: organisations that held their shares took all the room to wait, and every other one was refused although
// slots were free.
#[tokio::test(start_paused = true)]
async fn organisations_that_want_more_than_their_share_leave_others_room_to_wait() {
    let shares = shares(100, 33);
    let greedy: Vec<Holders> = (0..5).map(|_| organisation()).collect();
    let _held: Vec<Share> = greedy.iter().flat_map(|one| fill(&shares, one)).collect();
    assert!(shares.taken() < 100);
    let deadline = Instant::now() + 10 * MS;
    let mut floods = Vec::new();
    for one in greedy.iter().cycle().take(500) {
        let mut flood = Box::pin(shares.enter(one.clone(), Priority::Write, deadline));
        if let std::task::Poll::Ready(refused) = futures_util::poll!(&mut flood) {
            assert_eq!(refused.err(), Some(NoShare::Own));
        } else {
            floods.push(flood);
        }
    }
    assert!((80..100).contains(&waiting(&shares)), "{}", waiting(&shares));
    let began = Instant::now();
    let newcomer = shares.enter(organisation(), Priority::Read, deadline).await;
    assert!(newcomer.is_ok());
    assert_eq!(began.elapsed(), Duration::ZERO);
    // Nor does one alone take all of it.
    drop(floods);
    let floods = (0..500).map(|_| shares.enter(greedy[0].clone(), Priority::List, deadline));
    let mut floods: Vec<_> = floods.map(Box::pin).collect();
    for flood in &mut floods {
        let _ = futures_util::poll!(flood);
    }
    assert_eq!(waiting(&shares), 50);
    // Its lists hold up no write of its own.
    let mut write = Box::pin(shares.enter(greedy[0].clone(), Priority::Write, deadline));
    assert!(futures_util::poll!(&mut write).is_pending());
    assert_eq!(waiting(&shares), 51);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Enter(usize),
    Leave(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0usize..6).prop_map(Step::Enter),
        1 => (0usize..1000).prop_map(Step::Leave),
    ]
}

proptest! {
    // Never more slots than there are, never more for one organisation than its part, and an
    // organisation without a slot gets one while any is free.
    #[test]
    fn no_organisation_has_more_than_its_share(
        most in 1usize..300,
        percent in 1usize..=100,
        steps in proptest::collection::vec(step(), 0..800),
    ) {
        let shares = shares(most, percent);
        let organisations: Vec<Holders> = (0..6).map(|_| organisation()).collect();
        let mut taken: Vec<Share> = Vec::new();
        for step in steps {
            match step {
                Step::Leave(at) => {
                    if !taken.is_empty() {
                        taken.swap_remove(at % taken.len());
                    }
                }
                Step::Enter(at) => {
                    let (one, free) = (&organisations[at], most - shares.taken());
                    let held = held(one);
                    let share = shares.try_enter(one, Priority::Write);
                    prop_assert!(share.is_some() || held > 0 || free == 0);
                    if let Some(share) = share {
                        prop_assert!(held * (100 - percent) < free * percent);
                        taken.push(share);
                    }
                    // At most its part of all, rounded up to a whole slot.
                    prop_assert!(self::held(one) * 100 <= most * percent + 100);
                }
            }
            prop_assert_eq!(shares.taken(), taken.len());
            prop_assert!(shares.taken() <= most);
            prop_assert_eq!(organisations.iter().map(held).sum::<usize>(), taken.len());
        }
        drop(taken);
        prop_assert_eq!(shares.taken(), 0);
    }

    // Organisations that all take as much as they can hold the same number, and a newcomer still
    // gets a slot.
    #[test]
    fn greedy_organisations_get_equal_shares(
        most in 200usize..2000,
        percent in 1usize..=60,
        greedy in 1usize..20,
    ) {
        let shares = shares(most, percent);
        let organisations: Vec<Holders> = (0..greedy).map(|_| organisation()).collect();
        let mut taken = Vec::new();
        loop {
            let before = taken.len();
            taken.extend(organisations.iter().filter_map(|one| shares.try_enter(one, Priority::Write)));
            if taken.len() == before {
                break;
            }
        }
        let all: Vec<usize> = organisations.iter().map(held).collect();
        let (least, largest) = (all.iter().min().unwrap(), all.iter().max().unwrap());
        prop_assert!(largest - least <= 1, "{all:?}");
        prop_assert!(shares.try_enter(&organisation(), Priority::Write).is_some(), "{all:?} of {most}");
    }

    // Concurrent tasks on a real runtime: every slot is freed, and no request waits for ever.
    #[test]
    fn every_slot_is_freed(
        most in 1usize..8,
        percent in 20usize..=100,
        pauses in proptest::collection::vec((0usize..4, 0usize..3, 0u64..5, 0u64..8), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2).enable_time().build().unwrap();
        let shares = shares(most, percent);
        let organisations: Vec<Holders> = (0..4).map(|_| organisation()).collect();
        runtime.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for (at, priority, pause, patience) in pauses {
                let priority = Priority::ALL[priority];
                let [pause, patience] = [pause, patience].map(Duration::from_millis);
                let (shares, one) = (Arc::clone(&shares), organisations[at].clone());
                tasks.spawn(async move {
                    let share = shares.enter(one, priority, Instant::now() + patience).await;
                    if share.is_ok() {
                        tokio::time::sleep(pause).await;
                    }
                });
            }
            while tasks.join_next().await.is_some() {}
        });
        prop_assert_eq!((shares.taken(), waiting(&shares)), (0, 0));
        let queues = shares.queues();
        prop_assert!(queues.iter().all(|one| one.lines.is_empty() && one.turns.is_empty()));
        prop_assert!(organisations.iter().all(|one| held(one) == 0));
    }
}
