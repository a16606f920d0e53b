//! What an activation asks and does: the statuses and confirmations of one organisation, and the
//! ruler for its tenant. A trait, so that tests run the whole sequence against a model of Mimir that
//! refuses, fails and forgets.

use std::collections::HashSet;

use super::engine::Engine;
use super::expressions::fault_of;
use super::lease::Lease;
use super::statuses::KeptStatuses;
use super::writer::{WriteError, Writer, ask};
use crate::mimir::ruler::{RawListing, RuleGroup, RulerError, RulerLimits};
use crate::store::StoreError;
use crate::tenancy::{OrganisationId, TenantId};

/// What a plan has to know of Mimir.
pub(super) trait Asks: Sync {
    /// The tenant's limits, as Mimir tells them.
    fn limits(&self) -> impl Future<Output = Result<RulerLimits, RulerError>> + Send;

    /// An expression as Mimir writes it; none if it is none.
    fn format(&self, expr: &str)
    -> impl Future<Output = Result<Option<String>, RulerError>> + Send;
}

/// What an activation reads and writes.
pub(super) trait World: Asks {
    /// The statuses of the organisation's rules, as they stand in the table.
    fn statuses(&self) -> impl Future<Output = Result<KeptStatuses, StoreError>> + Send;

    /// The keys of the rules whose deletion an administrator has confirmed.
    fn confirmed(&self) -> impl Future<Output = Result<HashSet<String>, StoreError>> + Send;

    /// What Mimir has.
    fn list(&self) -> impl Future<Output = Result<RawListing, RulerError>> + Send;

    /// Creates or replaces a group.
    fn set(&self, group: &RuleGroup) -> impl Future<Output = Result<(), WriteError>> + Send;

    /// Deletes a group.
    fn delete(&self, group: &str) -> impl Future<Output = Result<(), WriteError>> + Send;

    /// What is wrong with an expression; nothing if it is valid.
    fn fault_of(
        &self,
        expr: &str,
    ) -> impl Future<Output = Result<Option<String>, RulerError>> + Send;
}

/// Mimir, to be asked about one tenant.
pub(super) struct Asking<'a> {
    pub(super) engine: &'a Engine,
    pub(super) tenant: &'a TenantId,
}

/// The real thing.
pub(super) struct Live<'a> {
    pub(super) asking: Asking<'a>,
    pub(super) organisation: &'a OrganisationId,
    pub(super) lease: &'a Lease,
}

impl Asks for Asking<'_> {
    async fn limits(&self) -> Result<RulerLimits, RulerError> {
        self.engine.limits_of(self.tenant).await
    }

    async fn format(&self, expr: &str) -> Result<Option<String>, RulerError> {
        self.engine.formats.of(&self.engine.client, self.tenant, expr).await
    }
}

impl Asks for Live<'_> {
    async fn limits(&self) -> Result<RulerLimits, RulerError> {
        self.asking.limits().await
    }

    async fn format(&self, expr: &str) -> Result<Option<String>, RulerError> {
        self.asking.format(expr).await
    }
}

impl Live<'_> {
    fn writer(&self) -> Writer<'_> {
        let engine = self.asking.engine;
        Writer { client: &engine.client, lease: self.lease, metrics: &engine.metrics }
    }
}

impl World for Live<'_> {
    async fn statuses(&self) -> Result<KeptStatuses, StoreError> {
        let store = &self.asking.engine.store;
        let rows = store.rule_statuses_by_rule(self.organisation.clone()).await?;
        Ok(rows.into_iter().map(|(rule, row)| (rule, row.into())).collect())
    }

    async fn confirmed(&self) -> Result<HashSet<String>, StoreError> {
        self.asking.engine.store.confirmed_deletions_of(self.organisation.clone()).await
    }

    async fn list(&self) -> Result<RawListing, RulerError> {
        let Asking { engine, tenant } = &self.asking;
        ask(|| engine.client.list_raw(tenant)).await
    }

    async fn set(&self, group: &RuleGroup) -> Result<(), WriteError> {
        self.writer().set(self.asking.tenant, group).await
    }

    async fn delete(&self, group: &str) -> Result<(), WriteError> {
        self.writer().delete(self.asking.tenant, group).await
    }

    async fn fault_of(&self, expr: &str) -> Result<Option<String>, RulerError> {
        fault_of(&self.asking.engine.client, self.asking.tenant, expr).await
    }
}
