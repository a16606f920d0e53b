//! Mimir's own Alertmanager: what it does for tenants without a configuration, what a tenant may use
//! up or reach, and where its state is.

use std::time::Duration;

use super::expansion::is_unknown;
use super::{Finding, Profile, values};

/// Mimir's own fallback is a receiver that does nothing, which no one sees (`ComputeFallbackConfig` in
/// Mimir's `multitenant.go`).
pub(super) fn without_fallback(profile: &Profile) -> Vec<Finding> {
    let key = "alertmanager.fallback_config_file";
    if !profile.runs_alertmanager() || profile.text(key).is_some() {
        return Vec::new();
    }
    let wrong =
        "is missing, so the alerts of a tenant without a configuration of its own notify no one";
    let right =
        "a file with a route and a receiver, such as config/mimir/alertmanager-fallback.yaml";
    vec![profile.warning("alertmanager-without-fallback", key, wrong, right)]
}

/// Limits that are off by default: one tenant can fill the memory of every instance that has its
/// alerts, or send mail in the operator's name without end.
pub(super) fn unlimited(profile: &Profile) -> Vec<Finding> {
    const LIMITS: [(&str, &str, &str, &str); 7] = [
        (
            "silences-unlimited",
            "limits.alertmanager_max_silences_count",
            "is 0 or missing, so one tenant can keep any number of silences",
            "a limit, such as 500; silences that expired count for five days",
        ),
        (
            "silences-unlimited",
            "limits.alertmanager_max_silence_size_bytes",
            "is 0 or missing, so one silence can be of any size",
            "a limit, such as 10240",
        ),
        (
            "notifications-unlimited",
            "limits.alertmanager_notification_rate_limit",
            "is 0 or missing, so one tenant can send any number of notifications",
            "a limit per second and integration, such as 5",
        ),
        (
            "alertmanager-unlimited",
            "limits.alertmanager_max_config_size_bytes",
            "is 0 or missing, so one tenant's configuration can be of any size",
            "a limit, such as 524288: 100 channels and 200 routes take some 200 KiB",
        ),
        (
            "alertmanager-unlimited",
            "limits.alertmanager_max_alerts_count",
            "is 0 or missing, so one tenant can keep any number of alerts in memory",
            "a limit, such as 5000",
        ),
        (
            "alertmanager-unlimited",
            "limits.alertmanager_max_alerts_size_bytes",
            "is 0 or missing, so one tenant's alerts can take any amount of memory",
            "a limit, such as 10485760",
        ),
        (
            "alertmanager-unlimited",
            "limits.alertmanager_max_dispatcher_aggregation_groups",
            "is 0 or missing, so one tenant can have any number of groups of alerts",
            "a limit, such as 1000",
        ),
    ];
    if !profile.runs_alertmanager() {
        return Vec::new();
    }
    let finding = |(check, key, wrong, right): (&'static str, &str, &str, &str)| {
        let is_off = match profile.get(key) {
            None => true,
            Some(node) => node.text().is_some_and(|text| text.parse::<f64>() == Ok(0.0)),
        };
        is_off.then(|| profile.warning(check, key, wrong, right))
    };
    LIMITS.into_iter().filter_map(finding).collect()
}

/// `all` does not include the Alertmanager, which keeps the documents that our channels become.
pub(super) fn missing(profile: &Profile) -> Vec<Finding> {
    let is_needed =
        profile.assumptions.ours.is_some_and(|ours| ours.channels && !ours.alertmanager_apart);
    if !is_needed || !profile.targets("all") || profile.runs_alertmanager() {
        return Vec::new();
    }
    let wrong = "does not include the Alertmanager while our channels is on: no channel can be \
                 written, and the proxy's /alertmanager answers 404";
    vec![profile.error("alertmanager-off", "target", wrong, "set it to all,alertmanager")]
}

/// Receivers are URLs that tenants choose: a webhook can be sent to any address that Mimir reaches.
pub(super) fn firewall(profile: &Profile) -> Vec<Finding> {
    let key = "limits.alertmanager_receivers_firewall_block_private_addresses";
    let is_on = match profile.get(key) {
        None => false,
        // A variable may be anything.
        Some(node) => node.switch() == Some(true) || node.text().is_some_and(is_unknown),
    };
    let ours = profile.assumptions.ours;
    if !profile.runs_alertmanager() || is_on || ours.is_some_and(|ours| ours.private_targets) {
        return Vec::new();
    }
    let wrong = "is not on, so a tenant's receiver can be any address of the private network";
    let right = "set it to true; e-mail is not subject to it, so a relay can be private";
    vec![profile.warning("receivers-firewall-off", key, wrong, right)]
}

/// With `channels.allow_private_targets` the proxy accepts what Mimir then refuses to connect to.
pub(super) fn firewall_mismatch(profile: &Profile) -> Vec<Finding> {
    let key = "limits.alertmanager_receivers_firewall_block_private_addresses";
    let is_allowed = profile.assumptions.ours.is_some_and(|ours| ours.private_targets);
    if !is_allowed || !profile.runs_alertmanager() || !profile.is(key, true) {
        return Vec::new();
    }
    let wrong = "is on while our channels.allow_private_targets is on: notifications to private \
                 addresses fail";
    let right = "set both to the same";
    vec![profile.warning("receivers-firewall-mismatch", key, wrong, right)]
}

/// State and configurations that only one instance sees, or that cannot be written.
pub(super) fn state(profile: &Profile) -> Vec<Finding> {
    let key = "alertmanager_storage.backend";
    let backend = profile.text(key);
    if !profile.runs_alertmanager() {
        return Vec::new();
    }
    if backend == Some("local") {
        let wrong = "is local, which Mimir only reads: no tenant's configuration can be written, and \
                     a restart forgets silences";
        let right = "set it to s3";
        return vec![profile.error("alertmanager-state-local", key, wrong, right)];
    }
    // Where blocks are in an object store, `storage-on-disk` says the same.
    let common = profile.text("common.storage.backend");
    let blocks = profile.text("blocks_storage.backend").or(common);
    let is_on_disk = matches!(backend.or(common), None | Some("filesystem"));
    let has_several = profile.assumptions.instances.is_some_and(|instances| instances > 1);
    if !is_on_disk || !has_several || blocks == Some("s3") {
        return Vec::new();
    }
    let wrong =
        "is the file system of one machine: each instance has other configurations and silences";
    let right = "set it to s3, so that every instance sees the same";
    vec![profile.error("alertmanager-state-local", key, wrong, right)]
}

/// The proxy writes the configurations of tenants by Mimir's API.
pub(super) fn api(profile: &Profile) -> Vec<Finding> {
    let key = "alertmanager.enable_api";
    let is_needed = profile.assumptions.ours.is_some_and(|ours| ours.channels);
    if !is_needed || !profile.is(key, false) {
        return Vec::new();
    }
    let wrong = "is off while our channels is on: no channel can be written";
    vec![profile.error("alertmanager-api-off", key, wrong, "leave it on")]
}

/// How long a changed channel waits for its use.
pub(super) fn poll_interval(profile: &Profile) -> Vec<Finding> {
    const LONGEST: Duration = Duration::from_secs(300);
    let key = "alertmanager.poll_interval";
    let interval = profile.get(key).and_then(values::duration);
    let Some(interval) = interval.filter(|interval| *interval > LONGEST) else {
        return Vec::new();
    };
    let wrong = format!("is {interval:?}, so a changed channel is not used for that time");
    vec![profile.warning("alertmanager-poll-interval", key, &wrong, "at most 5m")]
}

#[cfg(test)]
mod tests {
    use crate::mimir_profile::tests::{ALERTMANAGER, found};

    // 0, and what is not written, is no limit.
    #[test]
    fn a_limit_that_is_off_is_read_in_every_form() {
        let with = |limit: &str| {
            let new = format!("max_silences_count: {limit}\n");
            found(&ALERTMANAGER.replace("max_silences_count: 500\n", &new))
        };
        let off = vec![("silences-unlimited", "limits.alertmanager_max_silences_count".to_owned())];
        for limit in ["0", "\"0\"", "0.0"] {
            assert_eq!(with(limit), off, "{limit}");
        }
        for limit in ["1", "${COUNT}"] {
            assert_eq!(with(limit), [], "{limit}");
        }
    }
}
