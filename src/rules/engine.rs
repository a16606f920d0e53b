//! What every look at a tenant works with, and the look itself: what does Mimir have, and what is
//! there to do.

use std::sync::Arc;

use super::alert_rule::RuleDefaults;
use super::diff::differing_exprs;
use super::expressions::Formats;
use super::plan::{ParsedRows, Plan, Quarantine, wanted};
use super::writer::ask;
use crate::clock::Clock;
use crate::config::RulesConfig;
use crate::mimir::ruler::{Listed, RawListing, RulerClient, RulerConfig, RulerError, RulerLimits};
use crate::store::Store;
use crate::telemetry::RuleMetrics;
use crate::tenancy::{OrganisationId, TenantId, TenantIdError, TenantTemplate};

/// The parts of the engine. One for the process.
pub struct Engine {
    pub(super) store: Store,
    pub(super) client: RulerClient,
    pub(super) config: RulesConfig,
    template: TenantTemplate,
    formats: Formats,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<RuleMetrics>,
}

impl Engine {
    /// Puts the parts together. An error is a fault of the configuration.
    pub fn new(
        store: Store,
        config: &RulesConfig,
        template: TenantTemplate,
        clock: Clock,
        metrics: Arc<RuleMetrics>,
    ) -> Result<Self, String> {
        let client = RulerClient::new(&RulerConfig {
            urls: config.urls.clone(),
            namespace: config.namespace.clone(),
            request_timeout: config.request_timeout,
            connect_timeout: config.connect_timeout,
        })?;
        let (config, formats) = (config.clone(), Formats::new(config.expressions));
        Ok(Self { store, client, config, template, formats, clock, metrics })
    }

    /// The database.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The tenant of an organisation.
    pub fn tenant_of(&self, organisation: &OrganisationId) -> Result<TenantId, TenantIdError> {
        self.template.tenant_of(organisation)
    }

    pub(super) fn defaults(&self) -> RuleDefaults {
        RuleDefaults {
            interval: self.config.evaluation_interval,
            group: "default".to_owned(),
            expressions: self.config.expressions,
        }
    }

    /// The limits where Mimir does not tell.
    pub(super) fn limits_by_default(&self) -> RulerLimits {
        let config = &self.config;
        RulerLimits { rules_per_group: config.max_rules_per_group, groups: config.max_groups }
    }

    /// The limits as Mimir tells them, or those of the configuration.
    async fn limits_of(&self, tenant: &TenantId) -> Result<RulerLimits, RulerError> {
        let told = ask(|| self.client.limits(tenant)).await?;
        Ok(told.unwrap_or_else(|| self.limits_by_default()))
    }

    pub(super) async fn list(&self, tenant: &TenantId) -> Result<RawListing, RulerError> {
        ask(|| self.client.list_raw(tenant)).await
    }

    /// Makes a plan within the limits that Mimir has told and those that it has shown, and gives the
    /// former too if Mimir had to be asked for them: only whoever comes near one has to know it.
    pub(super) async fn plan(
        &self,
        tenant: &TenantId,
        parsed: &ParsedRows,
        quarantine: &Quarantine,
        known: Option<RulerLimits>,
        shown: RulerLimits,
        listed: &Listed,
    ) -> Result<(Plan, Option<RulerLimits>), RulerError> {
        let assumed = known.unwrap_or_else(|| self.limits_by_default()).within(shown);
        let plan = self.plan_within(tenant, parsed, quarantine, &assumed, listed).await?;
        if known.is_some() || !plan.is_near(&assumed) {
            return Ok((plan, None));
        }
        let told = self.limits_of(tenant).await?;
        let limits = told.within(shown);
        if limits == assumed {
            return Ok((plan, Some(told)));
        }
        let plan = self.plan_within(tenant, parsed, quarantine, &limits, listed).await?;
        Ok((plan, Some(told)))
    }

    /// Reads from Mimir at most whether two expressions are one.
    async fn plan_within(
        &self,
        tenant: &TenantId,
        parsed: &ParsedRows,
        quarantine: &Quarantine,
        limits: &RulerLimits,
        listed: &Listed,
    ) -> Result<Plan, RulerError> {
        let wanted = wanted(&parsed.enabled, quarantine, limits, listed.others);
        let pairs = differing_exprs(&wanted.desired.groups, &listed.ours);
        if pairs.is_empty() {
            return Ok(Plan::new(wanted, listed, &|_, _| false));
        }
        let same = self.formats.same(&self.client, tenant, pairs).await?;
        Ok(Plan::new(wanted, listed, &|one, other| same.are(one, other)))
    }
}
