//! Hints that something may have changed: which organisations to look at. They carry nothing else,
//! and losing one costs time only, because everything is looked at now and then anyway.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::tenancy::OrganisationId;

/// Hints that wait to be taken.
#[derive(Default)]
pub struct Hints {
    waiting: Mutex<Waiting>,
    bell: Notify,
}

/// What there is to look at, each once, with the time at which it was first heard of.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) organisations: HashMap<OrganisationId, Instant>,
    /// Organisations whose rules' statuses have become another one's.
    pub(super) left: HashSet<OrganisationId>,
    pub(super) everything: bool,
    pub(super) requests: bool,
}

/// Organisations that wait by name.
const MOST: usize = 50_000;

impl Hints {
    /// One organisation's rules may have changed.
    pub fn organisation(&self, organisation: OrganisationId) {
        self.change(|waiting| {
            let is_room = waiting.organisations.len() < MOST;
            if is_room || waiting.organisations.contains_key(&organisation) {
                waiting.organisations.entry(organisation).or_insert_with(Instant::now);
            } else {
                // Whatever is not remembered by name is found by a full resync.
                waiting.everything = true;
            }
        });
    }

    /// A rule has left an organisation, and its status with it.
    pub(super) fn left(&self, organisation: OrganisationId) {
        self.change(|waiting| {
            waiting.left.insert(organisation);
        });
    }

    /// Anything may have changed.
    pub fn everything(&self) {
        self.change(|waiting| {
            waiting.everything = true;
            // A request may have been missed like anything else.
            waiting.requests = true;
        });
    }

    /// Somebody asks for a sync.
    pub fn request(&self) {
        self.change(|waiting| waiting.requests = true);
    }

    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut self.waiting.lock());
        self.bell.notify_one();
    }

    /// Waits for hints and takes all.
    pub(super) async fn taken(&self) -> Waiting {
        self.bell.notified().await;
        std::mem::take(&mut *self.waiting.lock())
    }

    /// Forgets all: whoever begins to lead looks at everything, whoever does not need not know.
    pub(super) fn forget(&self) {
        *self.waiting.lock() = Waiting::default();
    }
}
