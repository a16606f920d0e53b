//! What every reconcile, preview and test of a channel needs: the database, Mimir's Alertmanager and the
//! settings.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use uuid::Uuid;

use super::guard::{Gone, Purges};
use super::reconcile::{Given, Preview, preview};
use super::send_test::TestReport;
use super::spec::{Operator, Rows, State};
use super::world::TenantReader;
use crate::admin_executor::{AdminExecutor, Overloaded};
use crate::clock::Clock;
use crate::config::{ChannelsConfig, GuardConfig, RulesConfig};
use crate::mimir::MimirHandle;
use crate::mimir::alertmanager::{AlertmanagerClient, AlertmanagerError};
use crate::store::{GuardHeld, NotificationStatusRow, NotificationSyncRow, Store, StoreError};
use crate::telemetry::ChannelMetrics;
use crate::tenancy::{OrganisationId, TenantId, TenantIdError, TenantTemplate};
use crate::trace::Tracer;
use crate::unified_diff::unified_diff;

pub struct ChannelReconciler {
    pub(super) store: Store,
    pub(super) client: AlertmanagerClient,
    pub(super) operator: Operator,
    pub(super) reconcile_interval: Duration,
    /// How long the document of an organisation that is gone stays.
    pub(super) grace: Duration,
    guard: GuardConfig,
    template: TenantTemplate,
    pub(super) tracer: Tracer,
}

/// What there is of one organisation in the database.
pub(super) struct Read {
    pub(super) exists: bool,
    pub(super) rows: Rows,
    pub(super) statuses: Vec<NotificationStatusRow>,
    pub(super) sync: Option<NotificationSyncRow>,
}

/// What a sync would do for one organisation. It holds no secret.
#[derive(Debug)]
pub struct ChannelPreview {
    pub tenant: TenantId,
    pub is_in_sync: bool,
    /// Mimir has a foreign document, which is not shown.
    pub is_foreign: bool,
    /// A unified diff of the document; empty if it would stay as it is.
    pub diff: String,
    /// What would be held until it is confirmed.
    pub guard: Option<GuardHeld>,
    pub channels: BTreeMap<Uuid, (State, String)>,
    pub routes: BTreeMap<Uuid, (State, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelError {
    /// The organisation, or the channel, does not exist.
    Missing(&'static str),
    /// The organisation's ID cannot be a tenant's.
    Tenant(String),
    Store(StoreError),
    /// Mimir runs no Alertmanager.
    NoAlertmanager,
    /// Mimir's Alertmanager gave no usable answer, in words for operators.
    Mimir(String),
}

/// What serves administrators of channels, on a thread of its own.
pub struct ChannelAdmin {
    executor: AdminExecutor<ChannelReconciler>,
    /// A test takes up to a minute, and previews must not wait for tests.
    tests: AdminExecutor<ChannelReconciler>,
    metrics: Arc<ChannelMetrics>,
}

/// Concurrent tests, of different organisations.
const TESTS: usize = 32;

impl ChannelAdmin {
    /// `engine` must have been made on this runtime: its database connections belong to it.
    pub fn new(
        engine: Arc<ChannelReconciler>,
        runtime: &Handle,
        metrics: Arc<ChannelMetrics>,
    ) -> Self {
        let tests = AdminExecutor::with_slots(Arc::clone(&engine), runtime.clone(), TESTS);
        Self { executor: AdminExecutor::new(engine, runtime.clone()), tests, metrics }
    }

    /// For what the database alone answers.
    pub fn store(&self) -> &Store {
        self.executor.reconciler().store()
    }

    /// What a sync would do.
    pub async fn preview(
        &self,
        organisation: OrganisationId,
    ) -> Result<Result<ChannelPreview, ChannelError>, Overloaded> {
        let of = organisation.clone();
        let work = async move |engine: Arc<ChannelReconciler>| engine.preview(&organisation).await;
        self.executor.run_for(&of, work).await
    }

    /// Sends a test to a channel and follows it.
    pub async fn send_test(
        &self,
        organisation: OrganisationId,
        channel: Uuid,
        clock: Clock,
    ) -> Result<Result<TestReport, ChannelError>, Overloaded> {
        let of = organisation.clone();
        let work = async move |engine: Arc<ChannelReconciler>| {
            engine.send_test(&organisation, channel, &clock).await
        };
        let report = self.tests.run_for(&of, work).await?;
        if let Ok(report) = &report {
            self.metrics.tested(report.outcome);
        }
        Ok(report)
    }
}

impl ChannelReconciler {
    /// An error is a fault in the configuration.
    pub fn new(
        store: Store,
        config: &ChannelsConfig,
        rules: &RulesConfig,
        template: TenantTemplate,
    ) -> Result<Self, String> {
        let client = AlertmanagerClient::new(&config.mimir(rules))?;
        Ok(Self {
            store,
            client,
            operator: Operator::new(config),
            reconcile_interval: config.reconcile_interval,
            grace: rules.organisation_grace,
            guard: rules.guard,
            template,
            tracer: Tracer::off(),
        })
    }

    /// Traces reconciles.
    #[must_use]
    pub fn with_tracer(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// By which the Alertmanager's addresses can be changed.
    pub fn mimir(&self) -> MimirHandle {
        self.client.handle()
    }

    pub fn tenant_of(&self, organisation: &OrganisationId) -> Result<TenantId, TenantIdError> {
        self.template.tenant_of(organisation)
    }

    pub(super) async fn read(&self, organisation: &OrganisationId) -> Result<Read, StoreError> {
        let asked = vec![organisation.clone()];
        // The sync first: what was confirmed or requested before the rows were read counts for them.
        let sync = self.store.notification_sync_of(organisation.clone()).await?;
        let mut snapshot = self.store.notification_channels_of(asked.clone()).await?;
        let statuses = self.store.notification_statuses_of(asked).await?;
        Ok(Read {
            exists: snapshot.existing.contains(organisation),
            rows: snapshot.rows.remove(organisation).unwrap_or_default(),
            statuses,
            sync,
        })
    }

    /// Judges all organisations that are gone, as the database lists them now.
    pub(super) async fn purges(&self) -> Result<Purges, StoreError> {
        let mut syncs = self.store.notification_syncs().await?;
        syncs.retain(|sync| sync.absent_since.is_some());
        if syncs.is_empty() {
            return Ok(Purges::default());
        }
        let live = self.store.live_notifications().await?;
        let listed = self.store.organisations().await?;
        let oldest = self.store.now().await? - self.grace;
        let gone: Vec<Gone> = syncs
            .into_iter()
            .filter(|sync| !listed.contains(&sync.organisation))
            .filter_map(|sync| {
                let since = sync.absent_since?;
                Some(Gone {
                    since,
                    is_due: since <= oldest,
                    live: live.get(&sync.organisation).copied().unwrap_or_default(),
                    organisation: sync.organisation,
                    held: sync.guard,
                })
            })
            .collect();
        let observed = live.values().copied().fold(0, usize::saturating_add);
        Ok(Purges::judge(&gone, observed, !listed.is_empty(), &self.guard))
    }

    /// Does what a reconcile does, and stops before the write.
    pub async fn preview(
        &self,
        organisation: &OrganisationId,
    ) -> Result<ChannelPreview, ChannelError> {
        let Read { exists, rows, statuses, sync } = self.read(organisation).await?;
        if !exists {
            return Err(ChannelError::Missing("organisation"));
        }
        let tenant = self.tenant_of(organisation);
        let tenant = tenant.map_err(|error| ChannelError::Tenant(error.to_string()))?;
        let confirmed = sync.as_ref().and_then(|sync| sync.confirmed_guard.as_deref());
        let given = Given {
            organisation,
            operator: &self.operator,
            rows: &rows,
            statuses: &statuses,
            confirmed,
            written: sync.as_ref().and_then(|sync| sync.document_hash.as_deref()),
            is_purge: false,
            is_purge_confirmed: false,
        };
        let reader = TenantReader { client: &self.client, tenant: &tenant };
        let Preview { before, after, is_in_sync, is_foreign, guard, channels, routes } =
            preview(&reader, &given).await?;
        let mut diff = unified_diff(("mimir", &before), ("database", &after));
        if !is_in_sync && diff.is_empty() {
            // What was written by hand is not shown, and templates are always the same.
            "# Mimir's document was changed by hand; a sync repairs it\n".clone_into(&mut diff);
        }
        Ok(ChannelPreview { tenant, is_in_sync, is_foreign, diff, guard, channels, routes })
    }
}

impl From<StoreError> for ChannelError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<AlertmanagerError> for ChannelError {
    fn from(error: AlertmanagerError) -> Self {
        match error {
            AlertmanagerError::NotEnabled => Self::NoAlertmanager,
            error => Self::Mimir(error.to_string()),
        }
    }
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(what) => write!(f, "{what} not found"),
            Self::Tenant(problem) => write!(f, "the organisation has no tenant: {problem}"),
            Self::Store(error) => error.fmt(f),
            Self::NoAlertmanager => AlertmanagerError::NotEnabled.fmt(f),
            Self::Mimir(error) => f.write_str(error),
        }
    }
}
