//! Whether alerts reach an Alertmanager.

use super::{Finding, Profile};

const URLS: [&str; 2] =
    ["limits.ruler_alertmanager_client_config.alertmanager_url", "ruler.alertmanager_url"];

/// Rules without an Alertmanager: they are evaluated and fire, and no one is notified.
pub(super) fn nowhere(profile: &Profile) -> Vec<Finding> {
    let ruler = profile.get("ruler").map_or(&[][..], |ruler| ruler.entries());
    let has_rules = profile.assumptions.ours.is_some_and(|ours| ours.rules)
        || profile.get("ruler_storage").is_some()
        || ruler.iter().any(|entry| !["ring", "tenant_federation"].contains(&entry.key.as_str()));
    let is_told = URLS.iter().any(|key| profile.text(key).is_some());
    let runs = profile.targets("all") || profile.targets("ruler") || profile.targets("backend");
    if !has_rules || is_told || !runs {
        return Vec::new();
    }
    let wrong = "is missing, so rules fire and no one is notified";
    let right = "the address of an Alertmanager, or of this Mimir's own behind target: \
                 all,alertmanager: http://127.0.0.1:8080/alertmanager";
    vec![profile.warning("alerts-nowhere", URLS[0], wrong, right)]
}

/// Mimir's own Alertmanager without a configuration for tenants that have none: it answers 412, and
/// their alerts are lost.
pub(super) fn without_fallback(profile: &Profile) -> Vec<Finding> {
    let key = "alertmanager.fallback_config_file";
    if !profile.targets("alertmanager") || profile.get(key).is_some() {
        return Vec::new();
    }
    let wrong = "is missing, so the alerts of a tenant without a configuration of its own are lost";
    let right =
        "a file with a route and a receiver, such as config/mimir/alertmanager-fallback.yaml";
    vec![profile.warning("alertmanager-without-fallback", key, wrong, right)]
}
