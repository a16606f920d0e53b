//! Triggers: notifications that something may have changed. They name organisations and carry nothing
//! else, so a lost trigger costs time, and a false one a reconcile that changes nothing.

use std::collections::{HashMap, HashSet, VecDeque};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::tenancy::OrganisationId;

/// Collects triggers until the leader takes them.
#[derive(Default)]
pub struct Triggers {
    pending: Mutex<PendingTriggers>,
    notify: Notify,
}

#[derive(Debug, Default)]
pub(crate) struct PendingTriggers {
    /// Each organisation once, with the time of its first trigger.
    pub(crate) organisations: HashMap<OrganisationId, Instant>,
    /// Organisations that a rule left for another one, with its status.
    pub(crate) rule_moved: HashSet<OrganisationId>,
    pub(crate) everything: bool,
    pub(crate) requests: bool,
}

/// The number of organisations that are remembered by name.
const MAX_PENDING_ORGANISATIONS: usize = 50_000;

impl Triggers {
    /// The rules of this organisation may have changed.
    pub fn organisation(&self, organisation: OrganisationId) {
        self.change(|pending| {
            let has_room = pending.organisations.len() < MAX_PENDING_ORGANISATIONS;
            if has_room || pending.organisations.contains_key(&organisation) {
                pending.organisations.entry(organisation).or_insert_with(Instant::now);
            } else {
                // A full resync finds what has no room here.
                pending.everything = true;
            }
        });
    }

    pub(crate) fn rule_moved(&self, organisation: OrganisationId) {
        self.change(|pending| {
            pending.rule_moved.insert(organisation);
        });
    }

    /// Anything may have changed, for example after a lost connection.
    pub fn everything(&self) {
        self.change(|pending| {
            pending.everything = true;
            // The notification of a requested sync may have been missed, too.
            pending.requests = true;
        });
    }

    /// A sync was requested.
    pub fn request(&self) {
        self.change(|pending| pending.requests = true);
    }

    fn change(&self, change: impl FnOnce(&mut PendingTriggers)) {
        change(&mut self.pending.lock());
        self.notify.notify_one();
    }

    /// Waits for triggers, and takes all of them.
    pub(crate) async fn taken(&self) -> PendingTriggers {
        self.notify.notified().await;
        std::mem::take(&mut *self.pending.lock())
    }

    /// Drops all triggers: a copy that does not lead has no use for them, and one that begins to lead
    /// starts with a full resync.
    pub(crate) fn clear(&self) {
        *self.pending.lock() = PendingTriggers::default();
    }
}

/// The number of names in one lookup.
const UNKNOWN_BATCH: usize = 500;
/// The number of names that are queued. The next full resync finds what has no room here.
const MOST_UNKNOWN: usize = 20_000;

/// Organisations that a trigger named and that may not exist.
///
/// Anybody who can write a notification or call the webhook can name any number of them. So they are
/// looked up in batches, one batch at a time and beside everything else, and names that do not exist are
/// dropped.
#[derive(Default)]
pub(crate) struct UnknownOrganisations {
    queue: VecDeque<OrganisationId>,
    triggered_at: HashMap<OrganisationId, Instant>,
    is_looking_up: bool,
}

impl UnknownOrganisations {
    /// Returns whether there was room for it.
    pub(crate) fn add(&mut self, organisation: &OrganisationId, at: Instant) -> bool {
        if self.triggered_at.contains_key(organisation) {
            return true;
        }
        if self.queue.len() >= MOST_UNKNOWN {
            return false;
        }
        self.queue.push_back(organisation.clone());
        self.triggered_at.insert(organisation.clone(), at);
        true
    }

    /// The next batch to look up; none while another one is being looked up.
    pub(crate) fn next_batch(&mut self) -> Option<Vec<(OrganisationId, Instant)>> {
        if self.is_looking_up || self.queue.is_empty() {
            return None;
        }
        self.is_looking_up = true;
        let names = self.queue.drain(..self.queue.len().min(UNKNOWN_BATCH));
        let triggered_at = &mut self.triggered_at;
        Some(names.filter_map(|name| triggered_at.remove(&name).map(|at| (name, at))).collect())
    }

    pub(crate) fn finish_lookup(&mut self) {
        self.is_looking_up = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(number: usize) -> OrganisationId {
        OrganisationId::parse(&format!("org-{number}")).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_organisations_are_looked_up_in_bounded_batches() {
        let mut unknown = UnknownOrganisations::default();
        let now = Instant::now();
        assert!((0..MOST_UNKNOWN).all(|number| unknown.add(&named(number), now)));
        assert!(!unknown.add(&named(MOST_UNKNOWN), now), "no room");
        assert!(unknown.add(&named(7), now), "it is queued already");
        let first = unknown.next_batch().unwrap();
        assert_eq!((first.len(), &first[0].0), (UNKNOWN_BATCH, &named(0)));
        assert!(unknown.next_batch().is_none(), "one batch at a time");
        unknown.finish_lookup();
        assert!(unknown.add(&named(0), now), "it was named again after the lookup");
        let mut batches = 0;
        while let Some(batch) = unknown.next_batch() {
            assert!(batch.len() <= UNKNOWN_BATCH);
            batches += 1;
            unknown.finish_lookup();
        }
        assert_eq!(batches, MOST_UNKNOWN / UNKNOWN_BATCH - 1 + 1);
        assert!(unknown.triggered_at.is_empty());
    }
}
