use super::*;
use proptest::prelude::*;

const MINUTE: Duration = Duration::from_secs(60);

fn named(number: usize) -> OrganisationId {
    OrganisationId::parse(&format!("org-{number}")).unwrap()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Reads what is due until `until`, each reading ending at once; returns when each was read.
fn read(
    table: &mut Timetable,
    until: Instant,
    is_waiting: impl Fn(&OrganisationId) -> bool,
) -> Vec<(Instant, OrganisationId)> {
    let mut read = Vec::new();
    while let Some(at) = table.next_time().filter(|at| *at < until) {
        let Some(organisation) = table.next(at) else { continue };
        table.finish(&organisation, is_waiting(&organisation), at);
        read.push((at, organisation));
    }
    read
}

#[tokio::test(start_paused = true)]
async fn a_written_rule_is_read_soon_and_then_with_growing_pauses() {
    let start = Instant::now();
    let mut table = Timetable::new(MINUTE, 1000, start);
    table.reconciled(&named(1), true, true, start);
    let at = read(&mut table, start + seconds(320), |_| true);
    let at: Vec<u64> = at.iter().map(|(at, _)| at.duration_since(start).as_secs()).collect();
    assert_eq!(at, [2, 4, 8, 16, 31, 46, 61, 76, 91, 106, 121, 136, 151, 211, 271]);
    // Evaluated: once in each interval. Written again: soon.
    let now = start + seconds(331);
    assert_eq!(table.next(now), Some(named(1)));
    table.finish(&named(1), false, now);
    assert_eq!(table.next_time(), Some(now + MINUTE));
    table.reconciled(&named(1), false, false, now);
    assert_eq!(table.next_time(), Some(now + MINUTE), "an unchanged reconcile is no reason");
    table.reconciled(&named(1), true, true, now);
    assert_eq!(table.next_time(), Some(now + FIRST));
}

#[tokio::test(start_paused = true)]
async fn a_write_during_a_reading_leads_to_another_one() {
    let start = Instant::now();
    let mut table = Timetable::new(MINUTE, 1000, start);
    table.reconciled(&named(1), true, true, start);
    let now = start + FIRST;
    assert_eq!(table.next(now), Some(named(1)));
    table.reconciled(&named(1), true, true, now);
    assert_eq!(table.next_time(), None, "it is being read");
    table.finish(&named(1), false, now);
    assert_eq!(table.next_time(), Some(now + FIRST));
    table.forget(&named(1));
    assert_eq!(table.next_time(), None);
}

// Their places stayed taken, and after eight of them no tenant was read any more.
#[tokio::test(start_paused = true)]
async fn a_tenant_that_is_left_out_makes_room_for_others() {
    let start = Instant::now();
    let mut table = Timetable::new(MINUTE, 1000, start);
    for number in 0..=MOST_RUNNING {
        table.reconciled(&named(number), true, true, start);
    }
    let now = start + MINUTE;
    let mut read = Vec::new();
    for second in 0..20 {
        read.extend(table.next(now + seconds(second)));
    }
    assert_eq!(read.len(), MOST_RUNNING);
    for organisation in &read {
        table.leave_out(organisation);
    }
    let last = table.next(now + MINUTE).unwrap();
    assert!(!read.contains(&last));
    table.finish(&last, false, now + MINUTE);
    assert_eq!((table.running, table.tenants.len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_does_not_read_all_tenants_at_once() {
    let start = Instant::now();
    let mut table = Timetable::new(MINUTE, 1000, start);
    for number in 0..600 {
        table.reconciled(&named(number), false, false, start);
    }
    let read = read(&mut table, start + MINUTE, |_| false);
    let early = read.iter().filter(|(at, _)| *at < start + MINUTE / 4).count();
    assert!((75..225).contains(&early), "{early} of {} in the first quarter", read.len());
}

// 5000 tenants at 10 requests per second: the interval stretches, and a rule that was just written does not
// wait for all of them.
#[tokio::test(start_paused = true)]
async fn neither_the_waiting_nor_the_others_starve() {
    let start = Instant::now();
    let mut table = Timetable::new(MINUTE, 10, start);
    for number in 0..5000 {
        table.reconciled(&named(number), false, false, start);
    }
    let _ = read(&mut table, start + 5 * MINUTE, |_| false);
    let now = start + 5 * MINUTE;
    for number in 0..50 {
        table.reconciled(&named(number), true, true, now);
    }
    let written: Vec<OrganisationId> = (0..50).map(named).collect();
    let read = read(&mut table, now + seconds(20), |organisation| written.contains(organisation));
    let first = read.iter().find(|(_, organisation)| *organisation == named(7));
    assert!(first.is_some_and(|(at, _)| *at <= now + seconds(15)), "{first:?}");
    let others = read.iter().filter(|(_, organisation)| !written.contains(organisation)).count();
    assert!(others > 50, "{others}");
}

proptest! {
    // Whatever happens: never more requests than the rate allows, never more at once than bounded, and no
    // tenant is read twice at the same time or forgotten.
    #[test]
    fn the_bound_on_requests_holds(
        ops in proptest::collection::vec((0_usize..7, 0_usize..5, 0_u64..3000, any::<bool>()), 1..200),
        rate in 1_usize..20,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _inside = runtime.enter();
        let start = Instant::now();
        let mut now = start;
        let mut table = Timetable::new(seconds(10), rate, start);
        let (mut reading, mut requests) = (Vec::<OrganisationId>::new(), 0_u32);
        for (op, number, ms, flag) in ops {
            now += Duration::from_millis(ms);
            match op {
                0 => table.reconciled(&named(number), flag, flag, now),
                1 => table.reconciled(&named(number), true, true, now),
                2 if !reading.is_empty() => {
                    let organisation = reading.remove(number % reading.len());
                    table.finish(&organisation, flag, now);
                }
                3 => { table.charge(2, now); requests += 2; }
                4 if !reading.is_empty() => {
                    table.leave_out(&reading.remove(number % reading.len()));
                }
                _ => while let Some(organisation) = table.next(now) {
                    prop_assert!(!reading.contains(&organisation));
                    reading.push(organisation);
                    requests += 1;
                },
            }
            prop_assert!(reading.len() <= MOST_RUNNING);
        }
        // What was charged afterwards delays what follows.
        let spent = f64::from(requests) / f64::from(u32::try_from(rate).unwrap());
        let free = table.free_at.duration_since(start).as_secs_f64();
        prop_assert!(free + 1e-6 >= spent - 1e-3 || free >= spent * 0.999);
        for organisation in reading {
            table.finish(&organisation, false, now);
        }
        prop_assert_eq!(table.running, 0);
        for (organisation, entry) in &table.tenants {
            prop_assert!(entry.due.is_some(), "{organisation} is forgotten");
        }
    }
}
