//! `[alert_events]`

use std::time::Duration;

use super::reader::Section;
use super::values::{Secret, duration, number, switch};

/// Firing alerts and silent devices as rows.
#[derive(Clone, Debug)]
pub struct AlertEventsConfig {
    pub enabled: bool,
    /// What Mimir's ruler shows, as the password of its URL's user information.
    pub secret: Secret,
    /// Open alerts of an organisation, and as many silent devices.
    pub max_open: usize,
    /// How long an event is kept after its end.
    pub retention: Duration,
}

/// What a secret must have at least: it cannot be guessed then.
const SHORTEST_SECRET: usize = 16;

pub(super) fn read(section: &mut Section<'_>, syncs_rules: bool) -> AlertEventsConfig {
    let day = Duration::from_secs(86_400);
    let enabled = section.get("enabled", false, switch);
    let secret = section.secret("secret");
    if enabled && !syncs_rules {
        let problem =
            "needs rules.enabled: the leader of the rules ends events and watches devices";
        section.fault("enabled", problem.to_owned());
    }
    if secret.is_empty() && enabled && !section.is_faulty("secret") {
        let problem = "is missing: what Mimir's ruler shows as the password in \
                       http://proxy:SECRET@host:port, of at least 16 letters and digits";
        section.fault("secret", problem.to_owned());
    } else if !secret.is_empty() {
        // It stands in a URL, in a list that is separated by commas.
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
        if !secret.expose().iter().all(is_plain) {
            let problem = "must consist of letters, digits, '-', '.', '_' and '~': it stands in the \
                           URL that Mimir's ruler is given";
            section.fault("secret", problem.to_owned());
        } else if secret.expose().len() < SHORTEST_SECRET {
            let problem = format!("must have at least {SHORTEST_SECRET} characters");
            section.fault("secret", problem);
        }
    }
    AlertEventsConfig {
        enabled,
        secret,
        max_open: section.get("max_open", 1000, |raw| number(raw, 1, 100_000)),
        retention: section.get("retention", 30 * day, |raw| duration(raw, day / 24, 3650 * day)),
    }
}
