use serde_json::{Value, json};

use super::*;
use crate::config::ConsulConfig;
use crate::forward::consul::tests::one_answer;
use crate::forward::instances::tests::{instances, upstream_config};

fn at(host: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, host], 8080))
}

/// Names that are addresses, each with the port 8080; not all can be resolved.
fn listing(names: &[(u8, bool)]) -> Listing {
    let name = |&(host, is_resolved): &(u8, bool)| {
        let found = if is_resolved { Ok(vec![at(host)]) } else { Err("try again".to_owned()) };
        ((at(host).ip().to_string(), 8080), found)
    };
    Listing { names: names.iter().map(name).collect(), index: Some(7) }
}

/// A Consul that lists hosts, each with the port 8080.
async fn consul(hosts: &[&str]) -> ConsulConfig {
    let entry = |host: &&str| {
        let service = json!({ "Address": host, "Port": 8080 });
        json!({ "Node": { "Address": "" }, "Service": service })
    };
    let entries: Vec<Value> = hosts.iter().map(entry).collect();
    one_answer("", &Value::from(entries).to_string()).await
}

/// With a catalogue and no name.
fn with(consul: &ConsulConfig) -> UpstreamConfig {
    let (consul, upstreams) = (Some(consul.clone()), Vec::new());
    UpstreamConfig { upstreams, consul, ..upstream_config() }
}

fn published(instances: &Instances) -> Vec<SocketAddr> {
    let found = instances.found_by(CONSUL).unwrap_or_default();
    found.into_iter().map(|(address, _)| address).collect()
}

#[test]
fn a_list_with_a_name_that_is_not_resolved_is_adopted_without_it() {
    let instances = instances(false);
    let generation = instances.generation();
    for (second, expected, is_soon) in [
        (false, vec![at(1)], false),
        (true, vec![at(1), at(2)], false),
        (false, vec![at(1), at(2)], true),
    ] {
        let has_kept = adopt(&instances, generation, listing(&[(1, true), (2, second)]));
        assert_eq!((published(&instances), has_kept), (expected, is_soon));
    }
}

// The catalogue is read again at the start and after each reload. A name server that fails at that moment must not
// remove an instance.
#[tokio::test]
async fn names_that_fail_keep_what_they_had_at_the_start_and_over_a_reload() {
    let instances = Arc::new(instances(false));
    let one_fails = || listing(&[(1, true), (2, false)]);
    let before = with(&consul(&["127.0.0.1", "127.0.0.2"]).await);
    resolve(&instances, &before).await;
    assert_eq!(published(&instances), [at(1), at(2)]);
    assert!(adopt(&instances, instances.generation(), one_fails()));
    assert_eq!(published(&instances), [at(1), at(2)]);

    let interval = 2 * before.resolve_interval;
    let next = UpstreamConfig { resolve_interval: interval, ..before.clone() };
    let found = find(&instances, &before, &next).await.unwrap();
    instances.adopt(found);
    assert_eq!(published(&instances), [at(1), at(2)]);
    assert!(adopt(&instances, instances.generation(), one_fails()));
    assert_eq!(published(&instances), [at(1), at(2)]);
}

// Another catalogue's names are others, though they may be called the same.
#[tokio::test]
async fn what_is_known_of_names_is_forgotten_with_their_catalogue_and_not_before() {
    let instances = Arc::new(instances(false));
    let both = || listing(&[(1, true), (2, true)]);
    let one_fails = || listing(&[(1, true), (2, false)]);
    let before = with(&consul(&["127.0.0.1", "127.0.0.2"]).await);
    resolve(&instances, &before).await;

    // One that lists nothing is not used.
    let refused = find(&instances, &before, &with(&consul(&[]).await)).await;
    assert_eq!(refused.err().map(|faults| faults[0].0), Some("upstream.consul_service"));
    let generation = instances.generation();
    assert!(adopt(&instances, generation, one_fails()));
    assert_eq!(published(&instances), [at(1), at(2)]);

    // Nor is one that finds instances, if the reload fails for another reason after that.
    let next = with(&consul(&["127.0.0.1", "nowhere\0"]).await);
    let found = find(&instances, &before, &next).await.unwrap();
    assert!(adopt(&instances, generation, one_fails()));
    assert_eq!(published(&instances), [at(1), at(2)]);

    instances.adopt(found);
    assert_eq!(published(&instances), [at(1)]);
    // A reading of the old one that ends only now.
    assert!(!adopt(&instances, generation, both()));
    assert!(!adopt(&instances, instances.generation(), one_fails()));
    assert_eq!(published(&instances), [at(1)]);

    // None.
    let found = find(&instances, &next, &upstream_config()).await.unwrap();
    instances.adopt(found);
    assert_eq!(instances.found_by(CONSUL), None);
}

// A reload may wait for a key set or a database between its look-ups and its use.
#[tokio::test]
async fn a_change_of_the_catalogue_during_a_reload_is_not_undone() {
    let instances = Arc::new(instances(false));
    let before = with(&consul(&["127.0.0.1", "127.0.0.2"]).await);
    // Known before the look-ups or only after them.
    for is_known in [true, false] {
        if is_known {
            resolve(&instances, &before).await;
        } else {
            instances.adopt(find(&instances, &before, &upstream_config()).await.unwrap());
        }
        let found = find(&instances, &before, &before).await.unwrap();
        adopt(&instances, instances.generation(), listing(&[(1, true), (3, true)]));
        instances.adopt(found);
        assert_eq!(published(&instances), [at(1), at(3)], "{is_known}");
        assert!(adopt(&instances, instances.generation(), listing(&[(1, true), (3, false)])));
        assert_eq!(published(&instances), [at(1), at(3)], "{is_known}");
    }
}

// `http://mimir` and `https://mimir`.
#[tokio::test]
async fn a_name_with_another_port_is_another_source() {
    let instances = Arc::new(instances(false));
    let before = upstream_config();
    resolve(&instances, &before).await;
    let mut next = before.clone();
    (next.upstreams[0].port, next.upstreams[0].is_https) = (443, true);
    instances.adopt(find(&instances, &before, &next).await.unwrap());
    let ports: Vec<u16> =
        instances.current().iter().map(|instance| instance.address.port()).collect();
    assert_eq!(ports, [443]);
}

// The task of a configuration may get its first turn when the next one is already used.
#[tokio::test(start_paused = true)]
async fn a_task_that_begins_after_its_configuration_has_ended_finds_nothing() {
    let instances = Arc::new(instances(false));
    let config = upstream_config();
    let some_time = 10 * config.resolve_interval;
    let late = resolve_forever(Arc::clone(&instances), config, CancellationToken::new());
    instances.replace(BTreeMap::new(), Names::default(), false);
    assert!(timeout(some_time, late).await.is_err());
    assert!(instances.is_empty());
}
