//! Isolation between tenants.

use super::{Finding, Profile};
use crate::yaml::Node;

pub(super) fn checks(profile: &Profile) -> Vec<Finding> {
    let mut findings = Vec::new();
    if profile.is("multitenancy_enabled", false) {
        let wrong = "is off, so Mimir ignores X-Scope-OrgID and every tenant sees all data";
        let key = "multitenancy_enabled";
        findings.push(profile.error("multitenancy-off", key, wrong, "leave it on"));
    }
    // A federated group names other tenants in source_tenants and reads them.
    if profile.is("ruler.tenant_federation.enabled", true) {
        let key = "ruler.tenant_federation.enabled";
        let wrong = "is on, so one tenant's rules may read other tenants";
        findings.push(profile.warning("ruler-federation", key, wrong, "leave it off"));
    }
    for key in ["limits.ruler_max_rules_per_rule_group", "limits.ruler_max_rule_groups_per_tenant"]
    {
        if profile.get(key).and_then(Node::number) == Some(0) {
            let wrong = "is 0, so one tenant can overload all rulers";
            let right = "a limit; Mimir's own are 20 rules a group and 70 groups";
            findings.push(profile.warning("ruler-unlimited", key, wrong, right));
        }
    }
    findings.extend(profile.assumptions.ours.and_then(|ours| federation(profile, ours.federation)));
    findings
}

fn federation(profile: &Profile, ours: usize) -> Option<Finding> {
    let (check, key) = ("federation-mismatch", "tenant_federation.enabled");
    let theirs = profile.get(key).map_or(Some(false), Node::switch)?;
    let wrong =
        "is off while our tenancy.federation is on: reads of several organisations end in 422";
    match (ours > 1, theirs) {
        (true, false) => Some(profile.error(check, key, wrong, "set both to the same")),
        (false, true) => {
            let wrong =
                "is on while our tenancy.federation is off: it cannot be used through the proxy";
            Some(profile.warning(check, key, wrong, "set both to the same"))
        }
        (true, true) => {
            let key = "tenant_federation.max_tenants";
            let most = profile.get(key).and_then(Node::number).filter(|most| *most > 0)?;
            let is_less = usize::try_from(most).is_ok_and(|most| most < ours);
            is_less.then(|| {
                let wrong = format!("is {most} while our tenancy.federation_max is {ours}");
                profile.warning(check, key, &wrong, "at least as many as ours")
            })
        }
        (false, false) => None,
    }
}
