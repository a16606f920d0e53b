//! Triggers that name organisations of which nothing is known: there may be none of that name.
//!
//! Anybody who may write a notification or call the webhook can name as many as they like, so each
//! costs little and holds up nobody: they are asked about in batches, one batch at a time, beside
//! everything else, and those that do not exist are forgotten.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use crate::tenancy::OrganisationId;

/// Names that are asked about in one query.
const BATCH: usize = 500;
/// Names that wait at most. What is beyond is found by the next full resync.
const MOST: usize = 20_000;

/// Organisations that may not exist, in the order in which they were named.
#[derive(Default)]
pub(super) struct Strangers {
    queue: VecDeque<OrganisationId>,
    named_at: HashMap<OrganisationId, Instant>,
    is_asking: bool,
}

impl Strangers {
    /// One was named; says whether there was room for it.
    pub(super) fn add(&mut self, organisation: &OrganisationId, at: Instant) -> bool {
        if self.named_at.contains_key(organisation) {
            return true;
        }
        if self.queue.len() >= MOST {
            return false;
        }
        self.queue.push_back(organisation.clone());
        self.named_at.insert(organisation.clone(), at);
        true
    }

    /// The next to be asked about; none while others are.
    pub(super) fn next(&mut self) -> Option<Vec<(OrganisationId, Instant)>> {
        if self.is_asking || self.queue.is_empty() {
            return None;
        }
        self.is_asking = true;
        let names = self.queue.drain(..self.queue.len().min(BATCH));
        let at = |name: &OrganisationId| self.named_at.remove(name);
        let mut at = at;
        Some(names.filter_map(|name| at(&name).map(|at| (name, at))).collect())
    }

    /// They have been asked about, or could not be.
    pub(super) fn end(&mut self) {
        self.is_asking = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(number: usize) -> OrganisationId {
        OrganisationId::parse(&format!("org-{number}")).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn they_are_asked_about_in_batches_one_at_a_time_and_within_bounds() {
        let mut strangers = Strangers::default();
        let now = Instant::now();
        assert!((0..MOST).all(|number| strangers.add(&named(number), now)));
        assert!(!strangers.add(&named(MOST), now), "no room");
        assert!(strangers.add(&named(7), now), "it waits already");
        let first = strangers.next().unwrap();
        assert_eq!((first.len(), &first[0].0), (BATCH, &named(0)));
        assert!(strangers.next().is_none(), "one batch at a time");
        strangers.end();
        assert!(strangers.add(&named(0), now), "it was named again since it was asked about");
        let mut batches = 0;
        while let Some(batch) = strangers.next() {
            assert!(batch.len() <= BATCH);
            batches += 1;
            strangers.end();
        }
        assert_eq!(batches, MOST / BATCH - 1 + 1);
        assert!(strangers.named_at.is_empty());
    }
}
