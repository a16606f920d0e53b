use super::*;
use crate::tenancy::OrganisationId;
use proptest::prelude::*;

fn policy(probes: bool) -> HealthConfig {
    HealthConfig {
        max_in_flight: 100,
        ready_interval: if probes { Duration::from_secs(5) } else { Duration::ZERO },
        ready_timeout: Duration::from_secs(2),
        eject_after: 3,
        eject_min: Duration::from_secs(2),
        eject_max: Duration::from_secs(60),
        panic_percent: 50,
        slow_start: Duration::from_secs(10),
        tls: None,
    }
}

fn share(health: &Health, now: Millis, policy: &HealthConfig) -> Share {
    health.word(policy).share(now, policy)
}

fn requester(number: u32) -> Requester {
    Requester::of(&[OrganisationId::parse(&format!("org-{number}")).unwrap()])
}

/// Fails requests, each of another organisation.
fn fail(health: &mut Health, evidence: InstanceFault, times: u32, policy: &HealthConfig) {
    for number in 0..times {
        health.failed(evidence, requester(number), false, 1000, policy, 0.5);
    }
}

#[test]
fn consecutive_failures_eject_and_a_success_resets_them() {
    let policy = policy(false);
    for evidence in [InstanceFault::Unreachable, InstanceFault::Timeout, InstanceFault::Broken] {
        let mut health = Health::default();
        fail(&mut health, evidence, 2, &policy);
        assert!(health.word(&policy).is_troubled());
        health.answered(1000);
        assert!(health.word(&policy).is_plain());
        fail(&mut health, evidence, 2, &policy);
        assert_eq!(share(&health, 1000, &policy), Share::Whole);
        fail(&mut health, evidence, 1, &policy);
        assert!(matches!(share(&health, 1000, &policy), Share::Ejected | Share::Unreachable));
        assert_eq!(health.ejected(), Some(evidence));
    }
}

// A head only shows that the instance is reachable; a complete response shows that it works.
#[test]
fn truncated_responses_eject() {
    let policy = policy(false);
    let mut health = Health::default();
    for number in 0..3 {
        health.answered(1000);
        health.failed(InstanceFault::BrokenBody, requester(number), false, 1000, &policy, 0.5);
    }
    assert_eq!(health.ejected(), Some(InstanceFault::BrokenBody));
}

// A Mimir with a broken ring answers 500 everywhere: ejecting instances does not help.
#[test]
fn a_status_of_all_instances_ejects_none() {
    let policy = policy(false);
    let mut health = Health::default();
    for number in 0..50 {
        let failed =
            health.failed(InstanceFault::ServerError, requester(number), true, 1000, &policy, 0.5);
        assert_eq!(failed, None);
    }
    let alone = health.failed(InstanceFault::ServerError, requester(0), false, 1000, &policy, 0.5);
    assert!(matches!(alone, Some(Change::Ejected(InstanceFault::ServerError, _))));
}

// A tenant's own remote reads, 12 concurrent ones, had one of three instances ejected.
#[test]
fn failures_of_one_organisation_eject_no_instance() {
    let policy = policy(false);
    for evidence in [InstanceFault::ServerError, InstanceFault::BrokenBody, InstanceFault::Timeout]
    {
        let mut health = Health::default();
        for _ in 0..100 {
            assert_eq!(health.failed(evidence, requester(1), false, 1000, &policy, 0.5), None);
        }
        // The same failure for another organisation makes it evidence.
        let other = health.failed(evidence, requester(2), false, 1000, &policy, 0.5);
        assert!(matches!(other, Some(Change::Ejected(..))), "{evidence:?}");
    }
}

#[test]
fn a_probed_instance_returns_only_when_it_is_ready() {
    let policy = policy(true);
    let mut health = Health::default();
    fail(&mut health, InstanceFault::Unreachable, 3, &policy);
    assert_eq!(share(&health, 1_000_000, &policy), Share::Unreachable);
    assert_eq!(health.probed(Probed::NotReady, 1_000_000, &policy, 0.5), None);
    assert_eq!(share(&health, 1_000_000, &policy), Share::Ejected);
    assert_eq!(health.probed(Probed::Ready, 1_000_001, &policy, 0.5), Some(Change::Returned));
    assert_eq!(share(&health, 1_000_001, &policy), Share::Part(FIRST_PART));
    assert_eq!(share(&health, 1_005_001, &policy), Share::Part(0.5));
    assert_eq!(share(&health, 1_010_001, &policy), Share::Due);
    assert_eq!(health.settle(1_010_001, &policy), None);
    assert!(health.word(&policy).is_plain());
}

#[test]
fn a_ready_instance_still_waits_for_the_end_of_its_ejection() {
    let policy = policy(true);
    let mut health = Health::default();
    fail(&mut health, InstanceFault::ServerError, 3, &policy); // until 3000
    assert_eq!(health.probed(Probed::Ready, 1500, &policy, 0.5), None);
    assert_eq!(share(&health, 2999, &policy), Share::Ejected);
    assert_eq!(share(&health, 3000, &policy), Share::Due);
    assert_eq!(health.settle(3000, &policy), Some(Change::Returned));
}

#[test]
fn a_successful_request_ends_the_ejection_of_an_unreachable_instance() {
    let policy = policy(true);
    let mut health = Health::default();
    fail(&mut health, InstanceFault::Unreachable, 3, &policy);
    assert_eq!(health.answered(1001), Some(Change::Returned));
    fail(&mut health, InstanceFault::ServerError, 3, &policy);
    assert_eq!(health.answered(1002), None);
    assert_eq!(share(&health, 1002, &policy), Share::Ejected);
}

#[test]
fn a_new_instance_gets_nothing_until_it_is_ready() {
    let policy = policy(true);
    let mut health = Health::of_newcomer(5000, &policy);
    assert_eq!(share(&health, 9000, &policy), Share::New { reachable: true });
    assert_eq!(health.probed(Probed::Unreachable, 9000, &policy, 0.5), None);
    assert_eq!(share(&health, 9000, &policy), Share::New { reachable: false });
    assert_eq!(health.probed(Probed::NotReady, 9000, &policy, 0.5), None);
    assert_eq!(share(&health, 9000, &policy), Share::New { reachable: true });
    assert_eq!(health.probed(Probed::Ready, 9000, &policy, 0.5), Some(Change::Returned));
    // From now on it is one of them.
    fail(&mut health, InstanceFault::ServerError, 3, &policy);
    assert_eq!(share(&health, 1000, &policy), Share::Ejected);
    let unprobed = self::policy(false);
    let health = Health::of_newcomer(5000, &unprobed);
    assert_eq!(share(&health, 5000, &unprobed), Share::Part(FIRST_PART));
}

#[test]
fn probes_alone_eject_what_is_not_ready() {
    let policy = policy(true);
    let mut health = Health::default();
    assert_eq!(health.probed(Probed::NotReady, 10, &policy, 0.5), None);
    assert_eq!(health.probed(Probed::Ready, 20, &policy, 0.5), None);
    assert_eq!(health.probed(Probed::NotReady, 30, &policy, 0.5), None);
    let ejected = health.probed(Probed::NotReady, 40, &policy, 0.5);
    assert!(matches!(ejected, Some(Change::Ejected(InstanceFault::NotReady, _))));
}

#[derive(Clone, Debug)]
enum Event {
    Failed(InstanceFault, u32, bool),
    Answered,
    Completed,
    Probed(Probed),
    Passes(Millis),
}

fn event() -> impl Strategy<Value = Event> {
    let evidence = prop_oneof![
        Just(InstanceFault::Unreachable),
        Just(InstanceFault::Timeout),
        Just(InstanceFault::Broken),
        Just(InstanceFault::BrokenBody),
        Just(InstanceFault::ServerError)
    ];
    let found = prop_oneof![Just(Probed::Ready), Just(Probed::NotReady), Just(Probed::Unreachable)];
    prop_oneof![
        4 => (evidence, 0u32..3, any::<bool>()).prop_map(|(evidence, by, shared)| Event::Failed(evidence, by, shared)),
        1 => Just(Event::Answered),
        1 => Just(Event::Completed),
        2 => found.prop_map(Event::Probed),
        2 => (0u64..20_000).prop_map(Event::Passes),
    ]
}

proptest! {
    #[test]
    fn ejections_are_bounded_counted_and_end(
        events in proptest::collection::vec(event(), 0..200),
        probes: bool,
        jitter in 0.0f64..1.0,
    ) {
        let policy = policy(probes);
        let (mut health, mut now) = (Health::default(), 1000);
        let mut is_out = false;
        for event in events {
            let change = match event {
                Event::Failed(evidence, by, shared) => {
                    health.failed(evidence, requester(by), shared, now, &policy, jitter)
                }
                Event::Answered => health.answered(now),
                Event::Completed => { health.completed(); None }
                Event::Probed(found) if probes => health.probed(found, now, &policy, jitter),
                Event::Probed(_) => None,
                Event::Passes(time) => { now += time; health.settle(now, &policy) }
            };
            match change {
                Some(Change::Ejected(_, wait)) => {
                    prop_assert!(!is_out, "ejected twice");
                    prop_assert!(wait >= policy.eject_min.mul_f64(0.8));
                    prop_assert!(wait <= policy.eject_max.mul_f64(1.2));
                    is_out = true;
                }
                Some(Change::Returned) => {
                    prop_assert!(is_out, "returned without having been away");
                    is_out = false;
                }
                None => {}
            }
            prop_assert_eq!(health.ejected().is_some(), is_out);
            let used = matches!(share(&health, now, &policy), Share::Whole | Share::Part(_));
            prop_assert!(!(used && is_out));
        }
        // Whatever happened: an instance that is ready again and works gets its full share again.
        health.probed(Probed::Ready, now, &policy, jitter);
        now += 72_000;
        health.settle(now, &policy);
        now += 10_000;
        health.settle(now, &policy);
        prop_assert!(matches!(share(&health, now, &policy), Share::Whole));
    }

    // While all failures that a request can cause are of one organisation, and there are no others,
    // nothing is ejected.
    #[test]
    fn one_organisation_alone_never_ejects(
        events in proptest::collection::vec(event(), 0..200),
        eject_after in 1u32..20,
    ) {
        let policy = HealthConfig { eject_after, ..policy(false) };
        let (mut health, mut now) = (Health::default(), 1000);
        for event in events {
            match event {
                Event::Failed(evidence, _, shared) if can_be_provoked(evidence) => {
                    health.failed(evidence, requester(1), shared, now, &policy, 0.5);
                }
                Event::Answered => drop(health.answered(now)),
                Event::Completed => health.completed(),
                Event::Passes(time) => now += time,
                Event::Failed(..) | Event::Probed(_) => {}
            }
            prop_assert_eq!(health.ejected(), None);
        }
    }

    #[test]
    fn back_off_doubles_within_its_bounds(ejections in 0u32..1000, jitter in 0.0f64..1.0) {
        let policy = policy(false);
        let wait = back_off(ejections, &policy, jitter);
        let next = back_off(ejections + 1, &policy, jitter);
        prop_assert!(wait <= next && next <= policy.eject_max.mul_f64(1.2));
        if ejections < 4 {
            // Each is rounded to a nanosecond separately.
            prop_assert!(next.abs_diff(wait * 2) <= Duration::from_nanos(2));
        }
    }
}
