//! Shared dependencies of the reconciler.

use std::sync::Arc;

use super::alert_rule::RuleDefaults;
use super::expressions::Formats;
use super::plan::Settings;
use super::writer::ask;
use crate::clock::Clock;
use crate::config::RulesConfig;
use crate::mimir::ruler::{RulerClient, RulerConfig, RulerError, RulerLimits};
use crate::store::Store;
use crate::telemetry::RuleMetrics;
use crate::tenancy::{OrganisationId, TenantId, TenantIdError, TenantTemplate};

/// The parts of the engine. One for the process.
pub struct Engine {
    pub(super) store: Store,
    pub(super) client: RulerClient,
    pub(super) config: RulesConfig,
    template: TenantTemplate,
    pub(super) formats: Formats,
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

    pub(super) fn settings(&self) -> Settings<'_> {
        Settings {
            namespace: &self.config.namespace,
            guard: &self.config.guard,
            defaults: self.defaults(),
            limits: self.limits_by_default(),
        }
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
    pub(super) async fn limits_of(&self, tenant: &TenantId) -> Result<RulerLimits, RulerError> {
        let told = ask(|| self.client.limits(tenant)).await?;
        Ok(told.unwrap_or_else(|| self.limits_by_default()))
    }
}
