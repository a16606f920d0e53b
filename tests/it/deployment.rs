//! Deployment: the samples for Fly.io agree with the programs that they start.

use std::path::Path;
use std::time::Duration;

use mimir_tenant_proxy::config::{Config, Environment};
use toml::{Table, Value};

mod compose;
mod image;
mod profiles;
mod quick;
mod release;

fn repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn sample(path: &str) -> Table {
    std::fs::read_to_string(repository(path)).unwrap().parse().unwrap()
}

/// A duration in Fly's format.
fn seconds(value: &Value) -> u64 {
    value.as_str().unwrap().strip_suffix('s').unwrap().parse().unwrap()
}

fn environment(sample: &Table) -> Vec<(String, String)> {
    let pairs = sample["env"].as_table().unwrap().iter();
    pairs.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
}

// Fly's longest kill_timeout is 300 s; requests in flight are cut off after it.
#[test]
fn the_kill_timeouts_cover_the_drains() {
    let fly = sample("fly.toml");
    let mut environment = environment(&fly);
    environment.retain(|(name, _)| name != "MTP__AUTH__ISSUER"); // a project has to be put in
    environment
        .push(("MTP__AUTH__ISSUER".to_owned(), "https://project.supabase.co/auth/v1".to_owned()));
    // These are secrets of the app.
    let secret = "0123456789abcdef";
    environment.push(("MTP__ALERT_EVENTS__SECRET".to_owned(), secret.to_owned()));
    let database = "postgres://postgres:word@db.project.supabase.co:5432/postgres";
    environment.push(("MTP__DATABASE__URL".to_owned(), database.to_owned()));
    let config = Config::load(None, &Environment::from_vars(environment)).unwrap();
    let drain = config.shutdown.drain_delay + config.shutdown.drain_timeout;
    let patience = Duration::from_secs(seconds(&fly["kill_timeout"]));
    assert!(drain < patience, "a drain takes up to {drain:?}, Fly waits {patience:?}");
    assert!(config.shutdown.drain_timeout >= config.upstream.response_timeout);
    for file in ["fly.toml", "config/fly/mimir.toml", "config/fly/memcached.toml"] {
        let sample = sample(file);
        assert!(seconds(&sample["kill_timeout"]) <= 300, "{file}");
        assert_eq!(sample["kill_signal"].as_str(), Some("SIGTERM"), "{file}");
    }
}

// Mimir and memcached have no authentication, and neither has the proxy's private port.
#[test]
fn nothing_but_the_proxys_public_port_is_a_service() {
    for file in ["config/fly/mimir.toml", "config/fly/memcached.toml"] {
        let sample = sample(file);
        assert!(!sample.contains_key("services") && !sample.contains_key("http_service"), "{file}");
    }
    let fly = sample("fly.toml");
    assert!(!fly.contains_key("http_service"));
    let services = fly["services"].as_array().unwrap();
    assert_eq!(services.len(), 1);
    assert_eq!(services[0]["internal_port"].as_integer(), Some(8080));
    assert_eq!(fly["metrics"]["port"].as_integer(), Some(9090));
    assert_eq!(fly["checks"]["ready"]["port"].as_integer(), Some(9090));
}

// Memcached rejects an item larger than its -I, and Mimir counts a failure each time.
#[test]
fn memcached_takes_the_largest_item_that_mimir_sends() {
    let memcached = sample("config/fly/memcached.toml");
    let command = memcached["processes"]["app"].as_str().unwrap();
    let largest = command.split_once("-I ").unwrap().1.split('m').next().unwrap();
    let largest: u64 = largest.parse::<u64>().unwrap() * 1024 * 1024;
    let profile = std::fs::read_to_string(repository("config/mimir/mimir-3.yaml")).unwrap();
    let items = profile.lines().filter_map(|line| line.trim().strip_prefix("max_item_size: "));
    let items: Vec<u64> = items.map(|item| item.parse().unwrap()).collect();
    assert_eq!(items.len(), 4, "each of the four caches has one");
    assert!(items.iter().all(|item| *item <= largest), "{items:?} and {largest}");
}
