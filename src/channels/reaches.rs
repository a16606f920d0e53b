//! Which alerts reach a channel, by organisation: for the statuses of alert rules.
//!
//! The leader knows this from its reconciles. Organisations without channels are not reconciled; one is
//! after the first question about it, because Mimir may have a foreign document for it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use super::reach::Reach;
use crate::rules::{Reach as RuleReach, Triggers};
use crate::tenancy::OrganisationId;

/// What a reconcile has found out about an organisation's reach.
pub(super) enum ReachFound {
    /// Nothing: it did not get so far.
    Nothing,
    /// That it cannot be known, because the document is foreign.
    Unknowable,
    Is(Reach),
}

#[derive(Default)]
pub struct Reaches {
    known: Mutex<Known>,
    triggers: Arc<Triggers>,
}

#[derive(Default)]
struct Known {
    /// None where it cannot be known, because the document is foreign.
    reaches: HashMap<OrganisationId, Option<Reach>>,
    /// Organisations with a question.
    asked: HashSet<OrganisationId>,
}

/// The number of organisations that are reconciled only because of such a question.
const MOST_ASKED: usize = 50_000;

impl Reaches {
    /// `triggers` are those of the channels.
    pub fn new(triggers: Arc<Triggers>) -> Self {
        Self { known: Mutex::default(), triggers }
    }

    /// Whether an alert with these labels would reach anybody; none while that is not known, or if it depends on
    /// labels that are not given. The caller leaves out those of the series and those that a template makes.
    pub fn notifies(
        &self,
        organisation: &OrganisationId,
        labels: &BTreeMap<String, String>,
    ) -> Option<bool> {
        let mut known = self.known.lock();
        if let Some(reach) = known.reaches.get(organisation) {
            return reach.as_ref().and_then(|reach| reach.reaches(labels));
        }
        if known.asked.len() < MOST_ASKED && known.asked.insert(organisation.clone()) {
            drop(known);
            self.triggers.organisation(organisation.clone());
        }
        None
    }

    /// The same as a closure, for the sync of alert rules, which knows nothing of channels.
    pub fn hook(self: Arc<Self>) -> RuleReach {
        Arc::new(move |organisation, labels| self.notifies(organisation, labels))
    }

    pub(super) fn learn(&self, organisation: &OrganisationId, found: ReachFound) {
        let reach = match found {
            ReachFound::Nothing => return,
            ReachFound::Unknowable => None,
            ReachFound::Is(reach) => Some(reach),
        };
        self.known.lock().reaches.insert(organisation.clone(), reach);
    }

    pub(super) fn forget(&self, organisation: &OrganisationId) {
        let mut known = self.known.lock();
        known.reaches.remove(organisation);
        known.asked.remove(organisation);
    }

    /// Organisations with a question.
    pub(super) fn asked(&self) -> Vec<OrganisationId> {
        self.known.lock().asked.iter().cloned().collect()
    }

    /// Whether rules were asked for of an organisation.
    pub(super) fn is_asked(&self, organisation: &OrganisationId) -> bool {
        self.known.lock().asked.contains(organisation)
    }

    /// A leadership begins or ends: another copy may have changed everything.
    pub(super) fn clear(&self) {
        *self.known.lock() = Known::default();
    }
}
