//! What one configuration makes of the proxy, and what outlives it. A reload makes another [`Running`]
//! beside the first, and then gives it to the workers: a request meets the one or the other, whole.

use std::io;
use std::sync::Arc;

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::database::Database;
use super::rules::holder;
use crate::admin::{Admin, Audit, ConfigState, Reloads, System};
use crate::admin_executor::AdminExecutor;
use crate::authn::{Authenticator, KeySource, Revocations, Tables, key_set_client};
use crate::authz::{Authorizer, Memberships, Organisations};
use crate::channels::ChannelAdmin;
use crate::clock::Clock;
use crate::config::{Change, Config, DatabaseConfig, LimitsConfig};
use crate::console::Console;
use crate::edge::Cors;
use crate::forward::{Forwarder, Instances, resolve_forever};
use crate::internal::Identities;
use crate::limits::{Lag, Limits};
use crate::pipeline::Pipeline;
use crate::record::{AccessLog, Outlets};
use crate::refusals::Refusals;
use crate::rules::Reconciler;
use crate::store::{Feed, Store};
use crate::telemetry::{LogSink, Metrics, Traffic};
use crate::trace::Tracer;

/// What there is once in the life of the process.
pub(super) struct Lasting {
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) instances: Arc<Instances>,
    pub(super) limits: Arc<Limits>,
    pub(super) log: AccessLog,
    pub(super) audit: Arc<Audit>,
    pub(super) reloads: Arc<Reloads>,
    pub(super) feed: Option<Arc<Feed>>,
    pub(super) revocations: Option<Arc<Revocations>>,
    pub(super) background: TaskTracker,
    pub(super) cancelled: CancellationToken,
    /// One for each worker.
    lags: Vec<Arc<Lag>>,
    tracer: Tracer,
    pub(super) traffic: Arc<Traffic>,
    refusals: Arc<Refusals>,
    admins: Admins,
    pub(super) store: Option<Store>,
    tables: Tables,
    memberships: Option<Arc<Memberships>>,
    organisations: Option<Arc<Organisations>>,
    started_at: OffsetDateTime,
}

/// What serves administrators of rules and channels, where these are synced.
pub(super) struct Admins {
    pub(super) rules: Option<Arc<AdminExecutor<Reconciler>>>,
    pub(super) channels: Option<Arc<ChannelAdmin>>,
}

/// What is counted, and what of it is remembered.
pub(super) struct Observed {
    pub(super) sink: LogSink,
    pub(super) metrics: Arc<Metrics>,
    pub(super) traffic: Arc<Traffic>,
}

/// What one configuration makes.
pub(super) struct Running {
    pub(super) config: Config,
    pub(super) identities: Arc<Identities>,
    authorizer: Arc<Authorizer>,
    cors: Arc<Cors>,
    console: Option<Arc<Console>>,
    admin: Arc<Admin>,
    outlets: Arc<Outlets>,
    limits: Arc<LimitsConfig>,
    /// One for each worker, with its connections to Mimir.
    forwarders: Vec<Arc<Forwarder>>,
    fetching: Task,
    resolving: Task,
}

/// A background task that belongs to a configuration.
pub(super) type Task = CancellationToken;

impl Lasting {
    pub(super) fn new(
        config: &Config,
        (clock, tracer): (Clock, Tracer),
        database: Option<&Database>,
        admins: Admins,
        Observed { sink, metrics, traffic }: Observed,
    ) -> Self {
        let health = config.upstream.health.clone();
        let instances = Arc::new(Instances::new(health, Arc::clone(&metrics)));
        let upstream = Arc::clone(&instances);
        let limits = Limits::new(
            config.limits.organisations.clone(),
            config.limits.memory,
            move || upstream.capacity(),
            Arc::clone(&metrics),
        );
        Self {
            instances,
            limits: Arc::new(limits),
            log: AccessLog::new(sink, clock.clone(), &config.log),
            audit: Arc::new(Audit::new(clock.clone(), config.log.unserved_per_second)),
            reloads: Arc::default(),
            feed: database.map(|database| Arc::clone(&database.feed)),
            revocations: database.map(|database| Arc::clone(&database.revocations)),
            background: TaskTracker::new(),
            cancelled: CancellationToken::new(),
            lags: (0..config.listen.workers).map(|_| Arc::default()).collect(),
            tracer,
            traffic,
            refusals: Arc::default(),
            admins,
            store: database.map(|database| database.store.clone()),
            tables: database.map_or_else(Tables::default, Database::tables),
            memberships: database.and_then(|database| database.memberships.clone()),
            organisations: database.and_then(|database| database.organisations.clone()),
            started_at: clock.utc(),
            clock,
            metrics,
        }
    }

    fn task(&self) -> Task {
        self.cancelled.child_token()
    }

    /// Keeps a key set fresh until the task is cancelled.
    pub(super) fn fetch(&self, keys: &Arc<KeySource>, client: reqwest::Client) -> Task {
        let task = self.task();
        if keys.is_configured() {
            let (keys, cancelled) = (Arc::clone(keys), task.clone());
            self.background.spawn(async move { keys.run(client, cancelled).await });
        }
        task
    }

    /// Follows Mimir's instances until the task is cancelled.
    pub(super) fn resolve(&self, config: &Config) -> Task {
        let (instances, task) = (Arc::clone(&self.instances), self.task());
        let following = resolve_forever(instances, config.upstream.clone(), task.clone());
        self.background.spawn(following);
        task
    }
}

impl Running {
    /// What the proxy starts with.
    pub(super) fn first(config: Config, lasting: &Lasting) -> io::Result<Self> {
        let key_set = config.auth.key_set.clone();
        let keys = Arc::new(KeySource::new(key_set, Arc::clone(&lasting.metrics)));
        let client = key_set_client().map_err(io::Error::other)?;
        let (fetching, resolving) = (lasting.fetch(&keys, client), lasting.resolve(&config));
        let authenticator = authenticator(&config, &keys, lasting);
        let forwarders = forwarders(&config, lasting);
        let identities = Arc::new(Identities { keys, authenticator: Arc::new(authenticator) });
        Ok(Self::new(config, lasting, identities, forwarders, (fetching, resolving)))
    }

    /// What follows, with all that has not changed taken over. The keys and the tasks are those of the new
    /// configuration.
    pub(super) fn next(
        &self,
        config: Config,
        changes: &[Change],
        keys: Arc<KeySource>,
        tasks: (Task, Task),
        lasting: &Lasting,
    ) -> Self {
        let authenticator = authenticator(&config, &keys, lasting);
        let authenticator = if keeps_tokens(changes) {
            authenticator.with_tokens_of(&self.identities.authenticator)
        } else {
            authenticator
        };
        let forwarders = if keeps_forwarders(changes) {
            self.forwarders.clone()
        } else {
            forwarders(&config, lasting)
        };
        let identities = Arc::new(Identities { keys, authenticator: Arc::new(authenticator) });
        Self::new(config, lasting, identities, forwarders, tasks)
    }

    fn new(
        config: Config,
        lasting: &Lasting,
        identities: Arc<Identities>,
        forwarders: Vec<Arc<Forwarder>>,
        (fetching, resolving): (Task, Task),
    ) -> Self {
        let (tenancy, level) = (config.tenancy.clone(), config.auth.admin_required_aal);
        let authorizer = Authorizer::new(tenancy, level, lasting.memberships.clone());
        let authorizer = Arc::new(authorizer.with_organisations(lasting.organisations.clone()));
        let admin = admin(&config, lasting, &identities, &authorizer);
        let outlets = Outlets {
            log: config.log.access.then(|| lasting.log.clone()),
            metrics: Arc::clone(&lasting.metrics),
            refusals: Arc::clone(&lasting.refusals),
            clock: lasting.clock.clone(),
        };
        Self {
            identities,
            authorizer,
            cors: Arc::new(Cors::new(config.cors.clone())),
            console: Console::new(&config.console).map(Arc::new),
            admin: Arc::new(admin),
            outlets: Arc::new(outlets),
            limits: Arc::new(config.limits.clone()),
            forwarders,
            fetching,
            resolving,
            config,
        }
    }

    pub(super) fn fetching(&self) -> &Task {
        &self.fetching
    }

    pub(super) fn resolving(&self) -> &Task {
        &self.resolving
    }

    /// A pipeline for each worker.
    pub(super) fn pipelines(&self, lasting: &Lasting) -> Vec<Pipeline> {
        let pipeline = |(forwarder, lag): (&Arc<Forwarder>, &Arc<Lag>)| Pipeline {
            cors: Arc::clone(&self.cors),
            admin: Arc::clone(&self.admin),
            audit: Arc::clone(&lasting.audit),
            console: self.console.clone(),
            authenticator: Arc::clone(&self.identities.authenticator),
            authorizer: Arc::clone(&self.authorizer),
            forwarder: Arc::clone(forwarder),
            limits: Arc::clone(&lasting.limits),
            lag: Arc::clone(lag),
            body_config: Arc::clone(&self.limits),
            max_header_bytes: self.config.listen.max_header_bytes,
            outlets: Arc::clone(&self.outlets),
            tracer: lasting.tracer.clone(),
        };
        self.forwarders.iter().zip(&lasting.lags).map(pipeline).collect()
    }
}

fn authenticator(config: &Config, keys: &Arc<KeySource>, lasting: &Lasting) -> Authenticator {
    let authenticator = Authenticator::new(
        &config.auth,
        Arc::clone(keys),
        lasting.tables.clone(),
        lasting.clock.clone(),
        Arc::clone(&lasting.metrics),
    );
    authenticator.with_webhook(&config.rules.webhook_secret)
}

/// A token that was verified stays so, unless what it was held against has changed.
fn keeps_tokens(changes: &[Change]) -> bool {
    let counts = |change: &Change| {
        let key = change.key.as_str();
        key != "auth.admin_key"
            && ["auth.", "roles.", "tenancy."].iter().any(|section| key.starts_with(section))
    };
    !changes.iter().any(counts)
}

fn forwarders(config: &Config, lasting: &Lasting) -> Vec<Arc<Forwarder>> {
    let forwarder = |_| {
        let (instances, metrics) = (Arc::clone(&lasting.instances), Arc::clone(&lasting.metrics));
        Arc::new(Forwarder::new(config.upstream.clone(), instances, metrics))
    };
    (0..config.listen.workers).map(forwarder).collect()
}

/// What finds instances is not the forwarders': they keep their connections to those that stay. One that has got another
/// name does not, whatever its address.
fn keeps_forwarders(changes: &[Change]) -> bool {
    changes
        .iter()
        .all(|change| !change.key.starts_with("upstream.") || finds_instances(&change.key))
}

/// Whether a key says where Mimir is.
pub(super) fn finds_instances(key: &str) -> bool {
    matches!(key, "upstream.urls" | "upstream.resolve_interval")
        || key.starts_with("upstream.consul_")
}

fn admin(
    config: &Config,
    lasting: &Lasting,
    identities: &Identities,
    authorizer: &Arc<Authorizer>,
) -> Admin {
    let system = System {
        copy: holder(),
        started_at: lasting.started_at,
        workers: config.listen.workers,
        keys: Arc::clone(&identities.keys),
        has_shared_secret: !config.auth.hs256_secrets.is_empty(),
        instances: Arc::clone(&lasting.instances),
        limits: Arc::clone(&lasting.limits),
        traffic: Arc::clone(&lasting.traffic),
        database: config.database.as_ref().map(DatabaseConfig::place),
        feed: lasting.feed.clone(),
        revocations: lasting.revocations.clone(),
        syncs_rules: lasting.admins.rules.is_some(),
        syncs_channels: lasting.admins.channels.is_some(),
        takes_alerts: config.alert_events.enabled,
        config: ConfigState {
            settings: config.settings.clone(),
            warnings: config.warnings.clone(),
            digest: config.digest(),
            loaded_at: lasting.clock.utc(),
            reloads: Arc::clone(&lasting.reloads),
        },
    };
    let (store, rules) = (lasting.store.clone(), lasting.admins.rules.clone());
    let admin = Admin::new(store, rules, Arc::clone(authorizer), system, lasting.clock.clone());
    admin
        .with_channels(lasting.admins.channels.clone())
        .with_refusals(Arc::clone(&lasting.refusals))
}
