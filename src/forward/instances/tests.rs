use std::time::Duration;

use super::*;
use crate::config::{Config, Environment, UpstreamConfig};
use crate::forward::choice::tests::chance;
use crate::forward::choice::{Bounds, Chosen, Tried, choose};
use crate::forward::evidence::Requester;
use crate::forward::health::Probed;
use crate::labels::InstanceFault;
use crate::tenancy::OrganisationId;

pub(in crate::forward) fn instances(probes: bool) -> Instances {
    let config = HealthConfig {
        max_in_flight: 10,
        ready_interval: if probes { Duration::from_secs(3600) } else { Duration::ZERO },
        ready_timeout: Duration::from_secs(1),
        eject_after: 3,
        eject_min: Duration::from_secs(60),
        eject_max: Duration::from_secs(60),
        panic_percent: 50,
        slow_start: Duration::ZERO,
        tls: None,
    };
    Instances::new(config, Arc::new(Metrics::register()))
}

/// With `http://127.0.0.1` and all defaults.
pub(in crate::forward) fn upstream_config() -> UpstreamConfig {
    let text = "[auth]\nissuer = \"https://ref.supabase.co/auth/v1\"\n\
                [upstream]\nurls = [\"http://127.0.0.1\"]";
    Config::read(text, &Environment::default()).unwrap().upstream
}

fn at(last: u8) -> (SocketAddr, HeaderValue) {
    (SocketAddr::from(([127, 0, 0, last], 1)), HeaderValue::from_static("mimir:1"))
}

pub(in crate::forward) fn requester(organisation: &str) -> Requester {
    Requester::of(&[OrganisationId::parse(organisation).unwrap()])
}

/// Fails a request of an organisation.
fn fail(instance: &Arc<Instance>, fault: InstanceFault, organisation: &str) {
    instance.enter(requester(organisation), false).unwrap().failed(fault);
}

fn addresses(instances: &Instances) -> Vec<SocketAddr> {
    instances.current().iter().map(|instance| instance.address).collect()
}

#[test]
fn sources_add_up_and_each_changes_only_its_own() {
    let instances = instances(false);
    instances.publish(0, 0, vec![at(2), at(1)]);
    instances.publish(0, 1, vec![at(2), at(3)]);
    assert_eq!(addresses(&instances), [at(1).0, at(2).0, at(3).0]);
    instances.publish(0, 0, vec![at(4)]);
    assert_eq!(addresses(&instances), [at(2).0, at(3).0, at(4).0]);
}

// A name of the old configuration that is still being looked up must not come back.
#[test]
fn sources_that_were_replaced_publish_nothing_any_more() {
    let instances = instances(false);
    instances.publish(0, 0, vec![at(1), at(2)]);
    let removed = Arc::clone(&instances.current()[0]);
    let by_source = [(0, vec![at(2)]), (1, vec![at(3)])].into();
    let generation = instances.replace(by_source, Names::default(), true);
    assert_eq!(addresses(&instances), [at(2).0, at(3).0]);
    assert!(removed.is_gone() && !instances.current()[0].is_gone());
    instances.publish(0, 0, vec![at(1)]);
    assert_eq!(addresses(&instances), [at(2).0, at(3).0]);
    instances.publish(generation, 1, vec![at(4)]);
    assert_eq!(addresses(&instances), [at(2).0, at(4).0]);
}

#[test]
fn health_is_judged_anew_without_losing_what_is_known() {
    let instances = instances(false);
    instances.publish(0, 0, vec![at(1), at(2), at(3)]);
    for organisation in ["a", "b", "c"] {
        fail(&instances.current()[0], InstanceFault::Timeout, organisation);
    }
    assert_eq!(instances.capacity(), 20);
    let config = HealthConfig { max_in_flight: 7, ..(*instances.watch.config()).clone() };
    instances.set_health(config);
    assert_eq!((instances.capacity(), instances.most_in_flight()), (14, 7));
    assert!(instances.current()[0].is_ejected());
}

#[test]
fn an_instance_keeps_its_state_while_others_change() {
    let instances = instances(false);
    instances.publish(0, 0, vec![at(1), at(2), at(3)]);
    for organisation in ["a", "b", "c"] {
        fail(&instances.current()[0], InstanceFault::Timeout, organisation);
    }
    instances.publish(0, 0, vec![at(1), at(4)]);
    let ejected: Vec<_> = instances.states().into_iter().map(|state| state.ejected).collect();
    assert_eq!(ejected, [Some("timeout"), None]);
}

// Several Mimirs may be behind one address, which a balancer tells apart by name.
#[test]
fn an_instance_with_another_name_is_another_one() {
    let instances = instances(false);
    let named = |name| (at(1).0, HeaderValue::from_static(name));
    instances.publish(0, 0, vec![named("mimir-old:1"), at(2)]);
    let before = instances.current();
    instances.publish(0, 0, vec![named("mimir-new:1"), at(2)]);
    let now = instances.current();
    assert!(before[0].is_gone() && !now[0].is_gone());
    assert_ne!(before[0].id, now[0].id);
    assert!(Arc::ptr_eq(&before[1], &now[1]) && !now[1].is_gone());
}

#[test]
fn the_same_addresses_change_nothing() {
    let instances = instances(false);
    instances.publish(0, 0, vec![at(1), at(2)]);
    let before = instances.current();
    instances.publish(0, 0, vec![at(2), at(1)]);
    assert!(Arc::ptr_eq(&before, &instances.current()));
}

// Machines appear in Fly's DNS before Mimir on them is ready.
#[tokio::test(start_paused = true)]
async fn a_machine_that_joins_waits_until_it_is_ready() {
    let instances = instances(true);
    instances.publish(0, 0, vec![at(1)]);
    instances.publish(0, 0, vec![at(1), at(2)]);
    let list = instances.current();
    assert_eq!((list[0].is_ejected(), list[1].is_ejected()), (false, true));
    list[1].probed(Probed::Ready);
    assert!(!list[1].is_ejected());
}

/// How often each instance is chosen in 10,000 tries.
fn choices(instances: &Instances) -> Vec<usize> {
    let list = instances.current();
    let bounds = Bounds { max_in_flight: 10, panic_percent: 50 };
    let (mut counts, mut chance) = (vec![0; list.len()], chance());
    for _ in 0..10_000 {
        let view = |at: usize| list[at].candidate();
        let chosen = choose(list.len(), view, &Tried::default(), bounds, &mut chance);
        if let Ok(Chosen::Normal(at)) = chosen {
            counts[at] += 1;
        }
    }
    counts
}

// Found by reading: one instance becomes three, of which two are not ready. These were taken for ejected ones, and so
// many ejected ones are used all the same.
#[tokio::test(start_paused = true)]
async fn machines_that_join_get_nothing_until_they_are_ready_however_many_they_are() {
    for (before, after) in [(1, 3), (2, 5), (3, 7)] {
        let (instances, all) = (instances(true), (1..=after).map(at).collect());
        instances.publish(0, 0, (1..=before).map(at).collect());
        instances.publish(0, 0, all);
        let list = instances.current();
        let (known, new) = list.split_at(usize::from(before));
        // They have requests in flight, and the new ones have none.
        let held: Vec<_> =
            known.iter().filter_map(|one| one.enter(requester("a"), false)).collect();
        new[0].probed(Probed::NotReady);
        new[1].probed(Probed::Unreachable);
        let counts = choices(&instances);
        assert_eq!(counts.iter().sum::<usize>(), 10_000);
        assert!(counts[usize::from(before)..].iter().all(|count| *count == 0), "{counts:?}");
        new[0].probed(Probed::Ready);
        assert!(choices(&instances)[usize::from(before)] > 0);
        drop(held);
    }
}

// Of those that were ready, too many are ejected: the ejected ones are used, and the new one is not.
#[tokio::test(start_paused = true)]
async fn new_instances_do_not_count_when_too_many_are_ejected() {
    let instances = instances(true);
    instances.publish(0, 0, vec![at(1), at(2), at(3)]);
    instances.publish(0, 0, vec![at(1), at(2), at(3), at(4)]);
    let list = instances.current();
    let eject = |instance| {
        for organisation in ["a", "b", "c"] {
            fail(instance, InstanceFault::Timeout, organisation);
        }
    };
    eject(&list[0]);
    let counts = choices(&instances);
    assert!(counts[0] == 0 && counts[3] == 0, "two of three are enough: {counts:?}");
    eject(&list[1]);
    let counts = choices(&instances);
    assert!(counts[..3].iter().all(|count| *count > 0) && counts[3] == 0, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn with_new_instances_alone_these_are_used() {
    let instances = instances(true);
    instances.publish(0, 0, vec![at(1)]);
    instances.publish(0, 0, vec![at(2), at(3)]);
    let counts = choices(&instances);
    assert!(counts.iter().all(|count| *count > 4000), "{counts:?}");
}

// Seen by reading: who switched probes off, because a balancer's /ready is not Mimir's, kept all ejected instances out
// until the next start.
#[tokio::test(start_paused = true)]
async fn who_is_ejected_comes_back_when_probes_are_switched_off() {
    let instances = instances(true);
    instances.publish(0, 0, vec![at(1)]);
    instances.publish(0, 0, vec![at(1), at(2)]);
    let list = instances.current();
    assert!(list[1].is_ejected());
    let config = HealthConfig {
        ready_interval: Duration::ZERO,
        ..instances.watch.config().as_ref().clone()
    };
    instances.set_health(config);
    tokio::time::advance(Duration::from_secs(3600)).await;
    list[1].candidate();
    assert!(!list[1].is_ejected());
}

// Three names are three sources; instances in the first result of each are not new.
#[tokio::test(start_paused = true)]
async fn instances_of_a_sources_first_result_are_not_new() {
    let instances = instances(true);
    (1..4).for_each(|last| instances.publish(0, usize::from(last), vec![at(last)]));
    assert!(instances.current().iter().all(|instance| !instance.is_ejected()));
}

// Half of the others fail in the same way: it is not this instance's fault.
#[test]
fn a_status_counts_against_an_instance_only_if_others_do_better() {
    let instances = instances(false);
    instances.publish(0, 0, vec![at(1), at(2), at(3)]);
    let list = instances.current();
    for organisation in ["a", "b", "c"].into_iter().cycle().take(20) {
        for instance in list.iter() {
            fail(instance, InstanceFault::ServerError, organisation);
        }
    }
    assert!(list.iter().all(|instance| !instance.is_ejected()));
    for other in &list[1..] {
        other.completed();
    }
    fail(&list[0], InstanceFault::ServerError, "a");
    assert!(list[0].is_ejected());
}

#[test]
fn one_request_at_a_time_tries_an_unreachable_instance() {
    let instances = instances(false);
    instances.publish(0, 0, vec![at(1)]);
    let instance = &instances.current()[0];
    let trial = instance.enter(requester("a"), true).unwrap();
    assert!(instance.enter(requester("a"), true).is_none());
    drop(trial);
    let mut trial = instance.enter(requester("a"), true).unwrap();
    trial.end_trial();
    assert!(instance.enter(requester("a"), true).is_some());
    assert_eq!(instance.counts().0, 1);
}
