//! What must be true of every document that rows become, and of its parts.

use std::net::IpAddr;

use serde_json::Value;
use url::Host;
use uuid::Uuid;

use super::document::Observed;
use super::spec::{
    ChannelRow, Desired, Omissions, Operator, RouteRow, Rows, State, channel, desired, matcher,
    targets,
};
use crate::config::{DashboardUrl, EmailRelay, Secret};
use crate::fuzzing::{broken, columns};
use crate::store::Excess;
use crate::tenancy::OrganisationId;
use crate::yaml::{Kind, Node};

fn operator() -> Operator {
    let relay = EmailRelay {
        smarthost: "relay.internal:25".to_owned(),
        from: "alerts@example.com".to_owned(),
        hello: None,
        require_tls: true,
    };
    Operator {
        dashboard_url: DashboardUrl::parse("https://app.example.org/{organisation_id}/alerts").ok(),
        email: Some(relay),
        pagerduty_url: None,
        opsgenie_url: None,
        telegram_url: None,
        allow_private_targets: false,
        min_group_interval: std::time::Duration::from_secs(10),
        max_channels: 5,
        max_routes: 5,
    }
}

/// The rows of an input, `change` applied to each secret.
fn rows(data: &[u8], change: &dyn Fn(&str) -> String) -> Option<Rows> {
    let organisation = OrganisationId::parse("acme").ok()?;
    let mut rows = Rows::default();
    for (at, row) in data.split(|byte| *byte == 0x1d).take(12).enumerate() {
        let number = at as u128 + 1;
        match row.split_first() {
            Some((b'c', row)) => {
                let [kind, settings, secrets, enabled, is_default] = columns(row);
                rows.channels.push(ChannelRow {
                    id: Uuid::from_u128(number),
                    organisation: organisation.clone(),
                    name: None,
                    kind,
                    settings,
                    secrets: secrets.map(|secrets| Secret::new(&changed(&secrets, change))),
                    enabled,
                    is_default,
                    created_at_micros: Some(1),
                    excess: Excess::None,
                });
            }
            Some((b'r', row)) => {
                let [channel, position, matchers, group_by, wait, interval, repeat, mute, on] =
                    columns(row);
                // A digit is the channel of that row.
                let id = channel.as_deref().and_then(|text| text.parse::<u8>().ok());
                rows.routes.push(RouteRow {
                    id: Uuid::from_u128(1000 + number),
                    organisation: organisation.clone(),
                    channel: id.map(|id| Uuid::from_u128(id.into()).to_string()).or(channel),
                    position,
                    matchers,
                    group_by,
                    group_wait: wait,
                    group_interval: interval,
                    repeat_interval: repeat,
                    mute_times: mute,
                    continue_matching: on,
                    enabled: None,
                    created_at_micros: Some(2),
                    excess: Excess::None,
                });
            }
            _ => {}
        }
    }
    Some(rows)
}

fn changed(secrets: &str, change: &dyn Fn(&str) -> String) -> String {
    match serde_json::from_str(secrets) {
        Ok(Value::Object(mut object)) => {
            for value in object.values_mut() {
                if let Value::String(text) = value {
                    *text = change(text);
                }
            }
            Value::Object(object).to_string()
        }
        _ => secrets.to_owned(),
    }
}

/// Rows of channels and routes. What is written is read back to the last byte, names the live channels and
/// nothing else, and what is shown of it does not depend on the secrets.
pub fn channels(data: &[u8]) {
    let operator = operator();
    let read = |change: &dyn Fn(&str) -> String| -> Option<(Rows, Desired)> {
        let rows = rows(data, change)?;
        let organisation = OrganisationId::parse("acme").ok()?;
        let desired = desired(&rows, &operator, &organisation, &Omissions::new());
        Some((rows, desired))
    };
    let Some((rows, asked)) = read(&str::to_owned) else { return };
    assert_eq!(
        (asked.channels.len(), asked.routes.len()),
        (rows.channels.len(), rows.routes.len())
    );
    let is_live = |state: &(State, String)| state.0 == State::Live;
    let live = asked.channels.values().filter(|state| is_live(state)).count();
    assert!(live <= 5 && asked.routes.values().filter(|state| is_live(state)).count() <= 5);
    for (state, why) in asked.channels.values().chain(asked.routes.values()) {
        assert_eq!(
            matches!(state, State::Live | State::Disabled) && !why.starts_with("channel_id"),
            why.is_empty(),
            "{state:?} {why}"
        );
    }
    let Some(document) = asked.document else { return assert_eq!(live, 0) };
    let observed = Observed::parse(&document.body());
    assert!(observed.as_ref().is_ok_and(|observed| document.is(observed)), "{}", document.body());
    assert_eq!(document.live().channels.len(), live);
    let Ok(observed) = observed else { return };
    assert_eq!(observed.live().as_ref(), Some(document.live()));
    assert_eq!(document.redacted(), observed.redacted());
    check(observed.config(), live);
    let secrets: Vec<_> =
        rows.channels.iter().filter_map(|row| channel::parse(row, &operator).ok()?).collect();
    // Of those in the document: Mimir does not know the others.
    let live = |channel: &&channel::Channel| document.live().channels.contains(&channel.id);
    for secret in secrets.iter().filter(live).flat_map(|channel| channel.kind.secrets()) {
        let text = document.scrubbed(&format!("before {} after", secret.expose()));
        assert!(
            secret.expose().len() < 4 || !text.contains(&format!(" {} ", secret.expose())),
            "{text}"
        );
    }
    // Other secrets, that are as valid.
    let Some((_, other)) = read(&|text| format!("{text}Z")) else { return };
    if let Some(other) = other.document.filter(|other| other.live() == document.live()) {
        assert_eq!(document.redacted(), other.redacted());
        assert_eq!(document.digest(), other.digest());
    }
}

/// The configuration is one YAML document with the receivers of the live channels, each with one
/// integration, and with no key that reads a file or follows a redirection.
fn check(config: &str, live: usize) {
    let Ok(documents) = Node::read_all(config) else { broken(config) };
    let [root] = documents.as_slice() else { broken(config) };
    assert!(root.repeated().is_empty(), "{config}");
    let keys: Vec<&str> = root.entries().iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["global", "route", "receivers", "time_intervals", "templates"], "{config}");
    let receivers = root.entry("receivers").map(|entry| &entry.value.kind);
    let Some(Kind::List(receivers)) = receivers else { broken(config) };
    assert_eq!(receivers.len(), live + 1, "{config}");
    assert!(receivers.iter().all(|receiver| receiver.entries().len() <= 2), "{config}");
    check_keys(root, config);
}

fn check_keys(node: &Node, config: &str) {
    for entry in node.entries() {
        let is_free =
            !entry.key.ends_with("_file") && !matches!(&*entry.key, "proxy_url" | "tls_config");
        assert!(is_free && entry.key.bytes().all(|byte| byte.is_ascii_graphic()), "{config}");
        if entry.key == "follow_redirects" {
            assert_eq!(entry.value.text(), Some("false"), "{config}");
        }
        check_keys(&entry.value, config);
    }
    if let Kind::List(items) = &node.kind {
        for item in items {
            check_keys(item, config);
        }
    }
}

/// A matcher. What is written for it is read as the same one.
pub fn matcher(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let room = || matcher::MOST_PATTERN_WEIGHT;
    let Ok(matchers) = matcher::parse(text, &mut room()) else { return };
    assert!(!matchers.is_empty());
    for one in matchers {
        let again = matcher::parse(&one.to_string(), &mut room());
        assert_eq!(again.as_deref(), Ok([one.clone()].as_slice()));
        let _ = one.pattern();
    }
}

/// An address that a channel names. One that is taken is of the public internet, in whatever spelling, and
/// stays as it is when it is read again.
pub fn address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(url) = targets::parse(text, false) else {
        if let Err(problem) = targets::parse(text, true) {
            assert!(!problem.is_empty());
        }
        return;
    };
    assert!(
        matches!(url.scheme(), "http" | "https")
            && url.username().is_empty()
            && url.password().is_none()
    );
    // It may have become longer than what is read.
    let again = targets::parse(url.as_str(), false);
    assert!(again.as_ref() == Ok(&url) || url.as_str().len() > 2048, "{again:?}");
    match url.host() {
        Some(Host::Ipv4(ip)) => assert!(is_public(ip.into()), "{url}"),
        Some(Host::Ipv6(ip)) => assert!(is_public(ip.into()), "{url}"),
        Some(Host::Domain(name)) => {
            // No name is an address in disguise.
            let last = name.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
            assert!(!last.is_empty() && !last.bytes().all(|byte| byte.is_ascii_digit()), "{url}");
            assert!(!matches!(last, "localhost" | "internal" | "local" | "localdomain"), "{url}");
            assert!(name.contains('.') && name.parse::<IpAddr>().is_err(), "{url}");
        }
        None => broken(url),
    }
}

fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let is_shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified())
                && !(ip.is_broadcast() || ip.is_documentation() || ip.is_multicast() || is_shared)
        }
        IpAddr::V6(ip) => {
            let is_special = ip.is_loopback() || ip.is_unspecified() || ip.is_multicast();
            let is_special = is_special || ip.is_unique_local() || ip.is_unicast_link_local();
            !is_special && ip.to_ipv4().is_none_or(|ip| is_public(ip.into()))
        }
    }
}
