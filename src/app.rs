//! The composition root: the only module that knows all others. `serve` builds every part from
//! its own section of the configuration, runs them, and takes them down in order.

mod alert_events;
mod database;
mod rules;
#[cfg(feature = "simulation")]
pub mod simulated;
mod traces;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{Admin, Audit, System};
use crate::admin_executor::AdminExecutor;
use crate::authn::{Authenticator, KeySource, Revocations, Tables, key_set_client};
use crate::authz::Authorizer;
use crate::channels::ChannelAdmin;
use crate::clock::Clock;
use crate::config::{Config, DatabaseConfig};
use crate::console::Console;
use crate::edge::Cors;
use crate::forward::{Forwarder, Instances, resolve, resolve_forever};
use crate::internal::{self, Reported};
use crate::lifecycle::{Readiness, Signals};
use crate::limits::{Lag, Limits};
use crate::listener::{self, Workers};
use crate::pipeline::Pipeline;
use crate::record::{AccessLog, Outlets};
use crate::refusals::Refusals;
use crate::rules::Reconciler;
use crate::store::Feed;
use crate::telemetry::{Logging, Metrics, Traffic, install_recorder};
use crate::trace::Tracer;

use alert_events::Events;
use database::Database;
use rules::Rules;
use traces::Traces;

/// How often recorded durations are folded into histograms.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// How often the log says how many requests got no line.
const SUPPRESSED_INTERVAL: Duration = Duration::from_secs(1);

/// Every so many upkeeps the counters are read for `/admin/status`: once a minute.
const ROUNDS_OF_TRAFFIC: u64 = 12;

/// How long the first resolution of Mimir's names may delay the start.
const FIRST_RESOLUTION: Duration = Duration::from_secs(3);

/// How long background work may take to end.
const LAST_WORK: Duration = Duration::from_secs(3);

struct Shared {
    keys: Arc<KeySource>,
    cors: Arc<Cors>,
    admin: Arc<Admin>,
    audit: Arc<Audit>,
    console: Option<Arc<Console>>,
    feed: Option<Arc<Feed>>,
    revocations: Option<Arc<Revocations>>,
    authenticator: Arc<Authenticator>,
    authorizer: Arc<Authorizer>,
    limits: Arc<Limits>,
    instances: Arc<Instances>,
    outlets: Arc<Outlets>,
    tracer: Tracer,
    metrics: Arc<Metrics>,
}

/// What is counted, and what of it is remembered.
struct Observed {
    metrics: Arc<Metrics>,
    traffic: Arc<Traffic>,
}

/// What serves administrators of rules and channels, where these are synced.
struct Admins {
    rules: Option<Arc<AdminExecutor<Reconciler>>>,
    channels: Option<ChannelAdmin>,
}

/// Serves until a signal comes, then drains. An error means that it could not start.
pub fn serve(config: &Config) -> io::Result<()> {
    let logging = Logging::start(&config.log);
    for warning in &config.warnings {
        tracing::warn!(key = warning.key, problem = warning.problem, "Configuration warning");
    }
    let exposition = install_recorder().map_err(io::Error::other)?;
    let metrics = Arc::new(Metrics::register());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let public = listen_on("listen.address", config.listen.address)?;
        let private = listen_on("listen.internal_address", config.listen.internal_address)?;
        let clock = Clock::system();
        let database = match &config.database {
            None => None,
            Some(database) => Some(Database::new(config, database, &clock, &metrics)?),
        };
        if let Some(database) = &database {
            database.check().await?;
        }
        let traces = Traces::new(&config.traces, &clock)?;
        let (mut rules, events) = rules_and_events(config, &clock, &traces.tracer())?;
        let receiver = events.as_ref().map(Events::receiver);
        let admin_executor = rules.as_ref().map(|rules| Arc::clone(&rules.admin_executor));
        let channels = rules.as_mut().and_then(|rules| rules.channels.take());
        let (channel_triggers, channel_admin) =
            channels.map(|channels| (channels.triggers, channels.admin)).unzip();
        let admins = Admins { rules: admin_executor, channels: channel_admin };
        let tracer = traces.tracer();
        let traffic = Arc::new(Traffic::new(exposition.clone()));
        let observed = Observed { metrics, traffic: Arc::clone(&traffic) };
        let shared =
            Shared::new(config, &logging, (clock, tracer), database.as_ref(), admins, observed);
        let cancelled = CancellationToken::new();
        let background = shared.run_background(config, &cancelled)?;
        if let Some(database) = database {
            let triggers = rules.as_ref().map(|rules| Arc::clone(&rules.triggers));
            let limits = config.tables_read().limits.then(|| Arc::clone(&shared.limits));
            database.run((triggers, channel_triggers), limits, &background, &cancelled);
        }
        if let Some(rules) = rules {
            rules.run(&background, &cancelled)?;
        }
        if let Some(events) = events {
            events.run(&background, &cancelled)?;
        }
        let reported_traces = traces.reported();
        traces.run(&background, &cancelled);
        background.spawn(report_suppressed(Arc::clone(&shared.outlets), cancelled.clone()));
        background.spawn(run_upkeep(exposition.clone(), traffic, cancelled.clone()));
        background.spawn({
            let (limits, cancelled) = (Arc::clone(&shared.limits), cancelled.clone());
            async move { limits.run(cancelled).await }
        });
        let readiness = Readiness::default();
        let router = internal::router(Reported {
            readiness: readiness.clone(),
            keys: Arc::clone(&shared.keys),
            feed: shared.feed.clone(),
            revocations: shared.revocations.clone(),
            authenticator: Arc::clone(&shared.authenticator),
            limits: Arc::clone(&shared.limits),
            instances: Arc::clone(&shared.instances),
            alert_events: receiver,
            metrics: Arc::clone(&shared.metrics),
            traces: reported_traces,
            exposition,
            log: logging.sink.clone(),
        });
        background.spawn(serve_private(private, router, cancelled.clone()));
        shared.await_first_readings(config).await;
        let workers = Workers::start(shared.pipelines(config), &config.listen, &shared.metrics)?;
        readiness.begin();
        tracing::info!(
            listen.address = %config.listen.address,
            workers = config.listen.workers,
            tenancy.membership = config.tenancy.membership.name(),
            "Serving"
        );
        let stop_accepting = CancellationToken::new();
        let accepting = listener::accept(
            public,
            &workers,
            config.listen.max_connections,
            stop_accepting.clone(),
        );
        let shutdown = async {
            let signal = signals.next().await;
            readiness.end();
            tracing::info!(signal, "Draining");
            tokio::select! {
                () = tokio::time::sleep(config.shutdown.drain_delay) => {}
                _ = signals.next() => {}
            }
            stop_accepting.cancel();
        };
        tokio::join!(accepting, shutdown);
        let in_time = workers.drain(config.shutdown.drain_timeout, signals.next()).await;
        tracing::info!(complete = in_time, "Drained");
        cancelled.cancel();
        background.close();
        let _ = tokio::time::timeout(LAST_WORK, background.wait()).await;
        Ok(())
    });
    // A name that is still being looked up must not hold up the end.
    runtime.shutdown_background();
    served
}

/// What syncs rules and what takes in alerts, where they are switched on.
fn rules_and_events(
    config: &Config,
    clock: &Clock,
    tracer: &Tracer,
) -> io::Result<(Option<Rules>, Option<Events>)> {
    let Some(database) = config.database.as_ref().filter(|_| config.rules.enabled) else {
        return Ok((None, None));
    };
    let mut rules = Rules::new(config, database, clock, tracer)?;
    let events = if config.alert_events.enabled {
        Some(Events::new(config, database, clock, &mut rules)?)
    } else {
        None
    };
    Ok((Some(rules), events))
}

impl Shared {
    /// Waits for Mimir's addresses, the revocations and the limits. If they take longer, requests are served all the
    /// same, with 503.
    async fn await_first_readings(&self, config: &Config) {
        let resolving = resolve(&self.instances, &config.upstream);
        let _ = tokio::time::timeout(FIRST_RESOLUTION, resolving).await;
        if let Some(revocations) = &self.revocations {
            let _ = tokio::time::timeout(FIRST_RESOLUTION, revocations.first_read()).await;
        }
        if config.tables_read().limits {
            let _ = tokio::time::timeout(FIRST_RESOLUTION, self.limits.first_rows()).await;
        }
    }

    fn new(
        config: &Config,
        logging: &Logging,
        (clock, tracer): (Clock, Tracer),
        database: Option<&Database>,
        admins: Admins,
        Observed { metrics, traffic }: Observed,
    ) -> Self {
        let keys = Arc::new(KeySource::new(config.auth.key_set.clone(), Arc::clone(&metrics)));
        let authenticator = Authenticator::new(
            &config.auth,
            Arc::clone(&keys),
            database.map_or_else(Tables::default, Database::tables),
            clock.clone(),
            Arc::clone(&metrics),
        );
        let authenticator = authenticator.with_webhook(&config.rules.webhook_secret);
        let memberships = database.and_then(|database| database.memberships.clone());
        let organisations = database.and_then(|database| database.organisations.clone());
        let authorizer = Authorizer::new(config.tenancy.clone(), memberships);
        let authorizer = Arc::new(authorizer.with_organisations(organisations));
        let store = database.map(|database| database.store.clone());
        let health = config.upstream.health.clone();
        let instances = Arc::new(Instances::new(health, Arc::clone(&metrics)));
        let upstream = Arc::clone(&instances);
        let limits = Arc::new(Limits::new(
            config.limits.organisations.clone(),
            config.limits.memory,
            move || upstream.places(),
            Arc::clone(&metrics),
        ));
        let system = System {
            copy: rules::holder(),
            started_at: clock.utc(),
            workers: config.listen.workers,
            keys: Arc::clone(&keys),
            has_shared_secret: !config.auth.hs256_secrets.is_empty(),
            instances: Arc::clone(&instances),
            limits: Arc::clone(&limits),
            traffic,
            database: config.database.as_ref().map(DatabaseConfig::place),
            feed: database.map(|database| Arc::clone(&database.feed)),
            revocations: database.map(|database| Arc::clone(&database.revocations)),
            syncs_rules: admins.rules.is_some(),
            syncs_channels: admins.channels.is_some(),
            takes_alerts: config.alert_events.enabled,
            settings: config.settings.clone(),
            warnings: config.warnings.clone(),
        };
        let admin = Admin::new(store, admins.rules, Arc::clone(&authorizer), system, clock.clone());
        let refusals = Arc::new(Refusals::default());
        let admin = admin.with_channels(admins.channels).with_refusals(Arc::clone(&refusals));
        let log = || AccessLog::new(logging.sink.clone(), clock.clone(), &config.log);
        let outlets = Arc::new(Outlets {
            log: config.log.access.then(log),
            metrics: Arc::clone(&metrics),
            refusals,
            clock: clock.clone(),
        });
        Self {
            keys,
            cors: Arc::new(Cors::new(config.cors.clone())),
            admin: Arc::new(admin),
            audit: Arc::new(Audit::new(clock.clone(), config.log.unserved_per_second)),
            console: Console::new(&config.console).map(Arc::new),
            feed: database.map(|database| Arc::clone(&database.feed)),
            revocations: database.map(|database| Arc::clone(&database.revocations)),
            authenticator: Arc::new(authenticator),
            authorizer,
            limits,
            instances,
            outlets,
            tracer,
            metrics,
        }
    }

    fn run_background(
        &self,
        config: &Config,
        cancelled: &CancellationToken,
    ) -> io::Result<TaskTracker> {
        let background = TaskTracker::new();
        if config.auth.key_set.is_some() {
            let client = key_set_client().map_err(io::Error::other)?;
            let keys = Arc::clone(&self.keys);
            let cancelled = cancelled.clone();
            background.spawn(async move { keys.run(client, cancelled).await });
        }
        let (instances, upstream) = (Arc::clone(&self.instances), config.upstream.clone());
        background.spawn(resolve_forever(instances, upstream, cancelled.clone()));
        Ok(background)
    }

    fn pipelines(&self, config: &Config) -> Vec<Pipeline> {
        let pipeline = |_| Pipeline {
            cors: Arc::clone(&self.cors),
            admin: Arc::clone(&self.admin),
            audit: Arc::clone(&self.audit),
            console: self.console.clone(),
            authenticator: Arc::clone(&self.authenticator),
            authorizer: Arc::clone(&self.authorizer),
            forwarder: Forwarder::new(
                config.upstream.clone(),
                Arc::clone(&self.instances),
                Arc::clone(&self.metrics),
            ),
            limits: Arc::clone(&self.limits),
            lag: Lag::default(),
            body_config: config.limits.clone(),
            max_header_bytes: config.listen.max_header_bytes,
            outlets: Arc::clone(&self.outlets),
            tracer: self.tracer.clone(),
        };
        (0..config.listen.workers).map(pipeline).collect()
    }
}

fn listen_on(key: &str, address: std::net::SocketAddr) -> io::Result<TcpListener> {
    listener::bind(address).map_err(|error| {
        let hint = ipv6_hint(address, &error).unwrap_or_default();
        io::Error::new(error.kind(), format!("{key}: cannot listen on {address}: {error}{hint}"))
    })
}

/// A hint for machines without IPv6, as many containers are: the default address is `[::]`.
fn ipv6_hint(address: std::net::SocketAddr, error: &io::Error) -> Option<String> {
    // Linux: the kernel is built or started without it (EAFNOSUPPORT), or no interface has it
    // (EADDRNOTAVAIL).
    const NO_IPV6: [i32; 2] = [97, 99];
    let is_off = error.raw_os_error().is_some_and(|code| NO_IPV6.contains(&code));
    let is_any = address.is_ipv6() && address.ip().is_unspecified();
    (is_off && is_any)
        .then(|| format!("; IPv6 is off on this machine: use \"0.0.0.0:{}\"", address.port()))
}

async fn serve_private(listener: TcpListener, router: axum::Router, cancelled: CancellationToken) {
    let served = axum::serve(listener, router).with_graceful_shutdown(cancelled.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "Private port failed");
    }
}

async fn run_upkeep(
    exposition: PrometheusHandle,
    traffic: Arc<Traffic>,
    cancelled: CancellationToken,
) {
    for round in 1_u64.. {
        if is_over(&cancelled, UPKEEP_INTERVAL).await {
            return;
        }
        exposition.run_upkeep();
        if round.is_multiple_of(ROUNDS_OF_TRAFFIC) {
            traffic.note();
        }
    }
}

/// Says once a second, and in the end, how many requests got no line in the log.
async fn report_suppressed(outlets: Arc<Outlets>, cancelled: CancellationToken) {
    let Some(log) = &outlets.log else { return };
    while !is_over(&cancelled, SUPPRESSED_INTERVAL).await {
        log.report_suppressed();
    }
    log.report_suppressed();
}

async fn is_over(cancelled: &CancellationToken, interval: Duration) -> bool {
    tokio::time::timeout(interval, cancelled.cancelled()).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_ipv6_is_off_the_other_address_is_named() {
        let hint = |address: &str, code: i32| {
            ipv6_hint(address.parse().unwrap(), &io::Error::from_raw_os_error(code))
        };
        for code in [97, 99] {
            assert!(hint("[::]:8080", code).unwrap().contains("0.0.0.0:8080"));
        }
        // In use, another address, or IPv4 already.
        assert_eq!(hint("[::]:8080", 98), None);
        assert_eq!(hint("[fdaa::3]:8080", 99), None);
        assert_eq!(hint("0.0.0.0:8080", 99), None);
    }
}
