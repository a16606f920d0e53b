//! Where the ruler sends alerts: to an Alertmanager, and to the proxy's private port.

use super::expansion::is_unknown;
use super::{Finding, MimirVersion, Profile};

/// The list of addresses, separated by commas, each of which gets every alert.
const URLS: &str = "limits.ruler_alertmanager_client_config.alertmanager_url";
/// Its name before 2.17.
const DEPRECATED: &str = "ruler.alertmanager_url";

/// Rules without an Alertmanager: they are evaluated and fire, and no one is notified.
pub(super) fn nowhere(profile: &Profile) -> Vec<Finding> {
    let ruler = profile.get("ruler").map_or(&[][..], |ruler| ruler.entries());
    let has_rules = profile.assumptions.ours.is_some_and(|ours| ours.rules)
        || profile.get("ruler_storage").is_some()
        || ruler.iter().any(|entry| !["ring", "tenant_federation"].contains(&entry.key.as_str()));
    if !has_rules || urls(profile).is_some() || !runs_rulers(profile) {
        return Vec::new();
    }
    let wrong = "is missing, so rules fire and no one is notified";
    let right = "the address of an Alertmanager, or of this Mimir's own behind target: \
                 all,alertmanager: http://127.0.0.1:8080/alertmanager";
    vec![profile.warning("alerts-nowhere", key(profile), wrong, right)]
}

/// The key that 2.17 replaced. It still works, and where both are set it is the only one that does
/// (`initRuntimeConfig` in Mimir's `modules.go`).
pub(super) fn deprecated_key(profile: &Profile) -> Vec<Finding> {
    let Some(old) = profile.text(DEPRECATED).filter(|_| knows_the_new_key(profile)) else {
        return Vec::new();
    };
    let check = "alertmanager-url-deprecated";
    match profile.text(URLS) {
        Some(new) if new != old && !is_unknown(new) && !is_unknown(old) => {
            let wrong = format!("replaces {URLS}, which is set too and has no effect");
            vec![profile.error(check, DEPRECATED, &wrong, "leave it out")]
        }
        _ => {
            let right = format!("{URLS}, with the same value");
            vec![profile.warning(check, DEPRECATED, "is deprecated since Mimir 2.17", &right)]
        }
    }
}

/// The proxy waits for alerts on its private port, where the ruler must show the secret of
/// `alert_events.secret`.
pub(super) fn events(profile: &Profile) -> Vec<Finding> {
    let is_on = profile.assumptions.ours.is_some_and(|ours| ours.alert_events);
    let Some(list) = urls(profile).filter(|_| is_on && runs_rulers(profile)) else {
        // Without any address there is a finding already.
        return Vec::new();
    };
    // Credentials of the client hold for every address of the list.
    let of_all = "limits.ruler_alertmanager_client_config.basic_auth_password";
    let addresses: Vec<_> = list.split(',').map(credentials).collect();
    // A variable may hold whole addresses, but in the place of a password it is one.
    let is_known = addresses.iter().all(|(_, rest)| !is_unknown(rest));
    if !is_known || profile.text(of_all).is_some() {
        return Vec::new();
    }
    let check = "alert-events-receiver";
    let right = "a second address, of the proxy's private port, with alert_events.secret as its \
                 password: http://mimir:<secret>@<proxy>:9090/alertmanager";
    if addresses.iter().any(|(credentials, _)| has_password(credentials)) {
        return Vec::new();
    }
    let wrong = if addresses.len() > 1 {
        "has no address with a password while our alert_events is on: the proxy refuses its alerts"
    } else {
        "has no second address while our alert_events is on: no alert becomes a row"
    };
    vec![profile.error(check, key(profile), wrong, right)]
}

/// An Alertmanager's address is that of its prefix: Mimir adds the rest of the path.
pub(super) fn paths(profile: &Profile) -> Vec<Finding> {
    let Some(list) = urls(profile) else { return Vec::new() };
    let is_whole = |url: &str| url.trim_end_matches('/').ends_with("/api/v2/alerts");
    if !list.split(',').any(is_whole) {
        return Vec::new();
    }
    let wrong = "ends with /api/v2/alerts, which Mimir adds: the Alertmanager answers 404";
    let right = "the address up to and with /alertmanager";
    vec![profile.error("alertmanager-url-path", key(profile), wrong, right)]
}

fn knows_the_new_key(profile: &Profile) -> bool {
    profile.assumptions.mimir >= MimirVersion(2, 17)
}

/// The list that Mimir uses.
fn urls(profile: &Profile) -> Option<&str> {
    profile.text(DEPRECATED).or_else(|| profile.text(URLS))
}

/// The key of that list; if there is none, the one to set.
fn key(profile: &Profile) -> &'static str {
    let is_old = profile.text(DEPRECATED).is_some() || !knows_the_new_key(profile);
    if is_old { DEPRECATED } else { URLS }
}

fn runs_rulers(profile: &Profile) -> bool {
    ["all", "ruler", "backend"].iter().any(|target| profile.targets(target))
}

/// The user information of an address, and what follows it.
fn credentials(url: &str) -> (&str, &str) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.rfind('@') {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => ("", rest),
    }
}

fn has_password(credentials: &str) -> bool {
    credentials.split_once(':').is_some_and(|(_, password)| !password.is_empty())
}
