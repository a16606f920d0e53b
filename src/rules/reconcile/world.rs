//! What a reconcile reads and writes: the statuses and confirmations of one organisation, and the ruler
//! for its tenant. They are traits, so that tests run whole reconciles against a model of Mimir that
//! refuses, fails and forgets.

use std::collections::HashSet;

use super::expressions::fault_of;
use super::reconciler::Reconciler;
use super::writer::{WriteError, Writer};
use crate::mimir::retrying;
use crate::mimir::ruler::{RawListing, RuleGroup, RulerError, RulerLimits};
use crate::rules::status::statuses::RuleStatuses;
use crate::store::StoreError;
use crate::tenancy::{OrganisationId, TenantId};

/// What a plan has to ask Mimir.
pub(crate) trait ReadsMimir: Sync {
    fn limits(&self) -> impl Future<Output = Result<RulerLimits, RulerError>> + Send;

    /// An expression as Mimir writes it; none if it is invalid.
    fn format(&self, expr: &str)
    -> impl Future<Output = Result<Option<String>, RulerError>> + Send;
}

pub(crate) trait World: ReadsMimir {
    /// The statuses of the organisation's rules, as they stand in the table.
    fn statuses(&self) -> impl Future<Output = Result<RuleStatuses, StoreError>> + Send;

    /// The keys of the rules whose deletion an administrator has confirmed.
    fn confirmed(&self) -> impl Future<Output = Result<HashSet<String>, StoreError>> + Send;

    fn list(&self) -> impl Future<Output = Result<RawListing, RulerError>> + Send;

    /// Creates or replaces a group.
    fn set(&self, group: &RuleGroup) -> impl Future<Output = Result<(), WriteError>> + Send;

    fn delete(&self, group: &str) -> impl Future<Output = Result<(), WriteError>> + Send;

    /// What is wrong with an expression; none if it is valid.
    fn fault_of(
        &self,
        expr: &str,
    ) -> impl Future<Output = Result<Option<String>, RulerError>> + Send;
}

/// Reads the real Mimir.
pub(crate) struct TenantReader<'a> {
    pub(crate) reconciler: &'a Reconciler,
    pub(crate) tenant: &'a TenantId,
}

/// Reads and writes the real Mimir and the real database.
pub(crate) struct LiveWorld<'a> {
    pub(crate) reader: TenantReader<'a>,
    pub(crate) organisation: &'a OrganisationId,
    pub(crate) writer: Writer<'a>,
}

impl TenantReader<'_> {
    pub(crate) async fn list(&self) -> Result<RawListing, RulerError> {
        retrying(|| self.reconciler.client.list_raw(self.tenant)).await
    }
}

impl ReadsMimir for TenantReader<'_> {
    async fn limits(&self) -> Result<RulerLimits, RulerError> {
        self.reconciler.limits_of(self.tenant).await
    }

    async fn format(&self, expr: &str) -> Result<Option<String>, RulerError> {
        self.reconciler.formats.of(&self.reconciler.client, self.tenant, expr).await
    }
}

impl ReadsMimir for LiveWorld<'_> {
    async fn limits(&self) -> Result<RulerLimits, RulerError> {
        self.reader.limits().await
    }

    async fn format(&self, expr: &str) -> Result<Option<String>, RulerError> {
        self.reader.format(expr).await
    }
}

impl World for LiveWorld<'_> {
    async fn statuses(&self) -> Result<RuleStatuses, StoreError> {
        let store = &self.reader.reconciler.store;
        let rows = store.rule_statuses_by_rule(self.organisation.clone()).await?;
        Ok(rows.into_iter().map(|(rule, row)| (rule, row.into())).collect())
    }

    async fn confirmed(&self) -> Result<HashSet<String>, StoreError> {
        let store = &self.reader.reconciler.store;
        store.confirmed_deletions_of(self.organisation.clone()).await
    }

    async fn list(&self) -> Result<RawListing, RulerError> {
        self.reader.list().await
    }

    async fn set(&self, group: &RuleGroup) -> Result<(), WriteError> {
        self.writer.set(self.reader.tenant, group).await
    }

    async fn delete(&self, group: &str) -> Result<(), WriteError> {
        self.writer.delete(self.reader.tenant, group).await
    }

    async fn fault_of(&self, expr: &str) -> Result<Option<String>, RulerError> {
        fault_of(&self.reader.reconciler.client, self.reader.tenant, expr).await
    }
}
