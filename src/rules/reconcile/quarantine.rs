//! Rules that Mimir refused. They are left out, so that the rest of their group can be written.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::rules::spec::alert_rule::AlertRule;
use crate::store::shortened;

/// By the hash of the rule, so that an edited rule is a new one.
#[derive(Debug, Default)]
pub(crate) struct Quarantine(HashMap<String, Quarantined>);

#[derive(Debug)]
struct Quarantined {
    reason: String,
    since: Instant,
}

/// After this time a refused rule is tried again: Mimir may have been upgraded.
const QUARANTINE: Duration = Duration::from_secs(3600);

impl Quarantine {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn put(&mut self, hash: String, reason: &str) {
        self.0.insert(hash, Quarantined { reason: shortened(reason), since: Instant::now() });
    }

    pub(crate) fn reason(&self, hash: &str) -> Option<&str> {
        self.0.get(hash).map(|quarantined| quarantined.reason.as_str())
    }

    pub(crate) fn reason_of(&self, rule: &AlertRule) -> Option<String> {
        // Where nothing is wrong, hashing every rule would be most of the work.
        if self.is_empty() {
            return None;
        }
        self.reason(&rule.hash()).map(ToOwned::to_owned)
    }

    /// Whether no rule is due to be tried again.
    pub(crate) fn is_fresh(&self) -> bool {
        self.0.values().all(|quarantined| quarantined.since.elapsed() < QUARANTINE)
    }

    /// Drops rules that are due to be tried again, and rules that no row asks for any more.
    pub(crate) fn tidy(&mut self, enabled: &[AlertRule]) {
        if self.is_empty() {
            return;
        }
        let wanted: HashSet<String> = enabled.iter().map(AlertRule::hash).collect();
        self.0.retain(|hash, quarantined| {
            wanted.contains(hash) && quarantined.since.elapsed() < QUARANTINE
        });
    }
}
