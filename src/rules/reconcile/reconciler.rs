//! What every reconcile and every preview needs: the database, Mimir's ruler and the settings.

use super::expressions::Formats;
use super::planning::Settings;
use crate::config::RulesConfig;
use crate::mimir::ruler::{RulerClient, RulerError, RulerLimits};
use crate::mimir::{MimirHandle, retrying};
use crate::rules::spec::alert_rule::RuleDefaults;
use crate::store::Store;
use crate::tenancy::{OrganisationId, TenantId, TenantIdError, TenantTemplate};
use crate::trace::Tracer;

pub struct Reconciler {
    pub(crate) store: Store,
    pub(crate) client: RulerClient,
    pub(crate) config: RulesConfig,
    template: TenantTemplate,
    pub(crate) formats: Formats,
    pub(crate) tracer: Tracer,
}

impl Reconciler {
    /// An error is a fault in the configuration.
    pub fn new(
        store: Store,
        config: &RulesConfig,
        template: TenantTemplate,
    ) -> Result<Self, String> {
        let client = RulerClient::new(&config.mimir(), &config.namespace)?;
        let (config, formats) = (config.clone(), Formats::new(config.expressions));
        Ok(Self { store, client, config, template, formats, tracer: Tracer::off() })
    }

    /// Traces reconciles.
    #[must_use]
    pub fn with_tracer(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// By which the ruler's addresses can be changed.
    pub fn mimir(&self) -> MimirHandle {
        self.client.handle()
    }

    pub fn tenant_of(&self, organisation: &OrganisationId) -> Result<TenantId, TenantIdError> {
        self.template.tenant_of(organisation)
    }

    pub(crate) fn settings(&self) -> Settings<'_> {
        Settings {
            namespace: &self.config.namespace,
            guard: &self.config.guard,
            defaults: self.defaults(),
            limits: self.default_limits(),
        }
    }

    pub(crate) fn defaults(&self) -> RuleDefaults {
        RuleDefaults::new(self.config.evaluation_interval, self.config.expressions)
    }

    fn default_limits(&self) -> RulerLimits {
        let config = &self.config;
        RulerLimits { rules_per_group: config.max_rules_per_group, groups: config.max_groups }
    }

    /// The limits that Mimir reports, or those of the configuration where it reports none.
    pub(crate) async fn limits_of(&self, tenant: &TenantId) -> Result<RulerLimits, RulerError> {
        let reported = retrying(|| self.client.limits(tenant)).await?;
        Ok(reported.unwrap_or_else(|| self.default_limits()))
    }
}
