//! The members of each ring are in Consul, under a key of that ring alone.

use std::time::Duration;

use harness::{RINGS, wait_until};

use crate::system::System;
use crate::{chapter, fact};

pub async fn are_apart(system: &System) {
    chapter("Rings on Consul, with a token that reaches one prefix");
    let (consul, prefix) = (&system.backing.consul, &system.backing.prefix);
    let mut keys = consul.keys("").await;
    keys.sort();
    let expected = RINGS.map(|ring| format!("{prefix}/{ring}"));
    assert_eq!(keys, expected, "the keys in Consul");
    for key in &keys {
        wait_until(&format!("three are active in {key}"), Duration::from_secs(60), async || {
            let ring = consul.ring(key).await;
            ring.len() == 3 && ring.values().all(|member| member.is_active)
        })
        .await;
        let ring = consul.ring(key).await;
        for mimir in &system.mimirs {
            let address = format!("127.0.0.1:{}", mimir.grpc_port());
            assert_eq!(ring[mimir.id()].address, address, "{} in {key}", mimir.id());
        }
        fact(format!("{key}: {}", ring.keys().cloned().collect::<Vec<_>>().join(", ")));
    }
    let connection = &system.backing.connection;
    let inside = consul.write_as(connection, &format!("{prefix}/probe")).await;
    let outside = consul.write_as(connection, "somebody-else/ring").await;
    assert_eq!((inside, outside), (200, 403));
    fact(format!("the token writes {prefix}/probe: {inside}, somebody-else/ring: {outside}"));
}
