//! Replication factors against the number of instances (`--mimir-instances`).

use super::{Finding, Profile};

/// Mimir's own default of every replication factor.
const DEFAULT: i64 = 3;

pub(super) fn against_instances(profile: &Profile) -> Vec<Finding> {
    let check = "replication-factor";
    let Some(instances) = profile.assumptions.instances.map(i64::from) else { return Vec::new() };
    let factor = |key: &str| match profile.get(key) {
        None => Some(DEFAULT),
        Some(node) => node.number(),
    };
    let mut findings = Vec::new();
    let key = "ingester.ring.replication_factor";
    if let Some(copies) = factor(key) {
        let quorum = copies / 2 + 1;
        if quorum > instances {
            let wrong = format!("is {copies}: a write needs {quorum} of {instances} instances");
            let right = format!("at most {instances}, or more instances");
            findings.push(profile.error(check, key, &wrong, &right));
        } else if quorum == instances && instances > 1 {
            let wrong = format!("is {copies}: with {instances} instances none may fail");
            let right = "3 with three instances; with two, 1 costs no more availability";
            findings.push(profile.warning(check, key, &wrong, right));
        } else if copies == 1 && instances > 1 {
            let wrong = "is 1: what an instance has not yet uploaded is lost with its disk";
            findings.push(profile.warning(check, key, wrong, "3 with three instances or more"));
        }
    }
    let alertmanager = "alertmanager.sharding_ring.replication_factor";
    if profile.targets("alertmanager") && factor(alertmanager).is_some_and(|n| n > instances) {
        let wrong = format!("is more than the {instances} instances");
        let right = format!("at most {instances}");
        findings.push(profile.warning(check, alertmanager, &wrong, &right));
    }
    findings
}
