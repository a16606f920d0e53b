//! What the leader remembers of the evaluation of one tenant's rules between two readings. Losing it never
//! makes a judgement wrong: a rule that was written counts as not evaluated yet for a little longer.

use std::collections::HashMap;

use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use crate::mimir::ruler::PromDuration;
use crate::rules::spec::alert_rule::AlertRule;

#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(super) rules: HashMap<Uuid, Remembered>,
    /// When the evaluation was last read, or first wanted.
    pub(super) read_at: Option<Instant>,
    /// Readings that failed in a row.
    pub(super) failures: u32,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Remembered {
    /// The row's interval.
    pub(super) interval: PromDuration,
    /// The version, and what Mimir shows while it evaluates it.
    pub(super) known: Option<KnownVersion>,
    /// The last evaluation of this version, exactly; the status may be behind.
    pub(super) evaluated_at: Option<OffsetDateTime>,
    /// The last evaluation as it was shown last, if that was a time still to come.
    pub(super) ahead: Option<OffsetDateTime>,
    /// Since when Mimir has this version and has not loaded it, and which version that is.
    pub(super) waiting: Option<(String, Instant)>,
    /// When its group was last written again because of that.
    pub(super) written_again: Option<Instant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownVersion {
    pub(super) hash: String,
    /// The digest of what is shown.
    pub(super) shown: String,
}

impl Memory {
    /// It is about to be read.
    pub(crate) fn is_read(&mut self, now: Instant) {
        self.read_at.get_or_insert(now);
    }

    /// Takes over the intervals of the rows that were read, and forgets rules that no row asks for.
    pub(crate) fn note_rows(&mut self, enabled: &[AlertRule]) {
        let mut before = std::mem::take(&mut self.rules);
        for rule in enabled {
            let mut remembered = before.remove(&rule.id).unwrap_or_default();
            remembered.interval = rule.interval;
            self.rules.insert(rule.id, remembered);
        }
    }
}
