//! The composition root: the only module that knows all others. `serve` builds every part from
//! its own section of the configuration, runs them, and takes them down in order.

mod alert_events;
mod database;
mod reload;
mod rules;
mod running;
#[cfg(feature = "simulation")]
pub mod simulated;
mod traces;
mod watch;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::{Config, Environment, ShutdownConfig};
use crate::forward::resolve;
use crate::internal::{self, Reported};
use crate::lifecycle::{Hangups, Readiness, Signals, Supervisor};
use crate::listener::{self, Inherited, PublicSocket, Workers};
use crate::record::AccessLog;
use crate::rules::Triggers;
use crate::telemetry::{Logging, Metrics, Traffic, install_recorder};

use alert_events::Events;
use database::Database;
use reload::{Followers, Reloader};
use rules::Rules;
use running::{Admins, Lasting, Observed, Running};
use traces::Traces;

/// How often recorded durations are folded into histograms.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// How often the log says how many requests got no line.
const SUPPRESSED_INTERVAL: Duration = Duration::from_secs(1);

/// Every so many upkeeps the counters are read for `/admin/status`: once a minute.
const ROUNDS_OF_TRAFFIC: u64 = 12;

/// How long the start waits for Mimir's addresses, the revocations and the limits together.
const FIRST_READINGS: Duration = Duration::from_secs(3);

/// How long background work may take to end.
const LAST_WORK: Duration = Duration::from_secs(3);

/// Serves until a signal comes, then drains. An error means that it could not start. The file and the
/// environment are those of the configuration, which may be read again.
pub fn serve(config: Config, file: Option<&Path>, environment: &Environment) -> io::Result<()> {
    // Before there are threads.
    let inherited = Inherited::take()?;
    let logging = Logging::start(&config.log);
    warn(&config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(serve_until_told(config, file, environment, inherited, logging));
    // A name that is still being looked up must not hold up the end.
    runtime.shutdown_background();
    served
}

async fn serve_until_told(
    config: Config,
    file: Option<&Path>,
    environment: &Environment,
    mut inherited: Inherited,
    logging: Logging,
) -> io::Result<()> {
    let exposition = install_recorder().map_err(io::Error::other)?;
    let metrics = Arc::new(Metrics::register());
    let (mut signals, mut hangups) = (Signals::listen()?, Hangups::listen()?);
    let supervisor = Supervisor::new(Environment::notify_socket());
    let public = listen_on("listen.address", config.listen.address, &mut inherited)?;
    let private =
        listen_on("listen.internal_address", config.listen.internal_address, &mut inherited)?;
    inherited.check_all_used()?;
    let clock = Clock::system();
    let started = database(&config, &clock, &metrics);
    let Some(database) = unless_told_to_end(&mut signals, started).await else {
        return Ok(());
    };
    let database = database?;
    let traces = Traces::new(&config.traces, &clock)?;
    let (mut rules, events, followers) =
        rules_and_events(&config, database.as_ref(), &clock, &traces)?;
    let receiver = events.as_ref().map(Events::receiver);
    let (admins, channel_triggers) = admins_of(rules.as_mut());
    let traffic = Arc::new(Traffic::new(exposition.clone()));
    let (sink, traced) = (logging.sink.clone(), traces.tracer());
    let observed = Observed { sink, metrics, traffic };
    let lasting = Lasting::new(&config, (clock, traced), database.as_ref(), admins, observed);
    let running = Running::first(config, &lasting)?;
    let (background, cancelled) = (lasting.background.clone(), lasting.cancelled.clone());
    if let Some(database) = database {
        let rule_triggers = rules.as_ref().map(|rules| Arc::clone(&rules.triggers));
        let has_rows = running.config.tables_read().limits;
        let limits = has_rows.then(|| Arc::clone(&lasting.limits));
        database.run((rule_triggers, channel_triggers), limits, &background, &cancelled);
    }
    if let Some(rules) = rules {
        rules.run(&background, &cancelled)?;
    }
    if let Some(events) = events {
        events.run(&background, &cancelled)?;
    }
    let reported_traces = traces.reported();
    traces.run(&background, &cancelled);
    look_after(&lasting, exposition.clone());
    let readiness = Readiness::default();
    let identities = Arc::new(ArcSwap::new(Arc::clone(&running.identities)));
    let router = internal::router(Reported {
        readiness: readiness.clone(),
        identities: Arc::clone(&identities),
        feed: lasting.feed.clone(),
        revocations: lasting.revocations.clone(),
        limits: Arc::clone(&lasting.limits),
        instances: Arc::clone(&lasting.instances),
        alert_events: receiver,
        metrics: Arc::clone(&lasting.metrics),
        traces: reported_traces,
        exposition,
        log: logging.sink.clone(),
    });
    let stop_accepting = CancellationToken::new();
    // A supervisor that shares the socket has the next process answer probes once this one accepts no more
    // connections.
    let stop_private = if private.is_inherited { &stop_accepting } else { &cancelled };
    background.spawn(serve_private(private.listener, router, stop_private.clone()));
    let readings = await_first_readings(&running, &lasting);
    if unless_told_to_end(&mut signals, readings).await.is_none() {
        end(&background, &cancelled).await;
        return Ok(());
    }
    let listen = running.config.listen.clone();
    let (pipelines, log) = (running.pipelines(&lasting), &lasting.log);
    let workers = Workers::start(pipelines, &listen, &lasting.metrics, log)?;
    readiness.begin();
    supervisor.ready();
    announce(&running.config, &public);
    let shutdown = Arc::new(ArcSwap::from_pointee(running.config.shutdown.clone()));
    let mut reloader = Reloader {
        file: file.map(Path::to_owned),
        environment: environment.clone(),
        running,
        lasting,
        logging,
        followers,
        identities,
        shutdown: Arc::clone(&shutdown),
    };
    reloader.begin();
    let accepting =
        listener::accept(public, &workers, listen.max_connections, stop_accepting.clone());
    let ending = async {
        told_to_end(&mut signals, &readiness, &supervisor, &shutdown).await;
        stop_accepting.cancel();
    };
    tokio::select! {
        _ = async { tokio::join!(accepting, ending) } => {}
        () = reloader.follow(&workers, &mut hangups) => {}
    }
    drain(workers, &shutdown, &mut signals).await;
    end(&background, &cancelled).await;
    drop(reloader);
    Ok(())
}

/// What administrators of rules and channels are answered by, and what begins a sync of channels.
fn admins_of(mut rules: Option<&mut Rules>) -> (Admins, Option<Arc<Triggers>>) {
    let channels = rules.as_mut().and_then(|rules| rules.channels.take());
    let (triggers, channels) =
        channels.map(|channels| (channels.triggers, Arc::new(channels.admin))).unzip();
    let rules = rules.map(|rules| Arc::clone(&rules.admin_executor));
    (Admins { rules, channels }, triggers)
}

fn warn(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!(key = warning.key, problem = warning.problem, "Configuration warning");
    }
}

fn announce(config: &Config, public: &PublicSocket) {
    tracing::info!(
        listen.address = %config.listen.address,
        listen.inherited = public.is_inherited,
        workers = config.listen.workers,
        tenancy.membership = config.tenancy.membership.name(),
        "Serving"
    );
}

/// The database, if one is configured. It need not answer, but it must not be another's.
async fn database(
    config: &Config,
    clock: &Clock,
    metrics: &Arc<Metrics>,
) -> io::Result<Option<Database>> {
    let Some(settings) = &config.database else { return Ok(None) };
    let database = Database::new(config, settings, clock, metrics)?;
    database.check().await?;
    Ok(Some(database))
}

/// A part of the start; none if a signal comes before it is done. Nothing is served yet that would have to be drained.
async fn unless_told_to_end<T>(signals: &mut Signals, part: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = part => Some(done),
        signal = signals.next() => {
            tracing::info!(signal, "Start ended by a signal");
            None
        }
    }
}

/// Waits for a signal that ends the process, and then until nobody sends new connections, or for another.
async fn told_to_end(
    signals: &mut Signals,
    readiness: &Readiness,
    supervisor: &Supervisor,
    shutdown: &ArcSwap<ShutdownConfig>,
) {
    let signal = signals.next().await;
    readiness.end();
    supervisor.stopping();
    tracing::info!(signal, "Draining");
    tokio::select! {
        () = tokio::time::sleep(shutdown.load().drain_delay) => {}
        _ = signals.next() => {}
    }
}

async fn drain(workers: Workers, shutdown: &ArcSwap<ShutdownConfig>, signals: &mut Signals) {
    let drain_timeout = shutdown.load().drain_timeout;
    let in_time = workers.drain(drain_timeout, signals.next()).await;
    tracing::info!(complete = in_time, "Drained");
}

/// Ends what runs in the background, which may take a moment.
async fn end(background: &TaskTracker, cancelled: &CancellationToken) {
    cancelled.cancel();
    background.close();
    let _ = tokio::time::timeout(LAST_WORK, background.wait()).await;
}

/// Waits for Mimir's addresses, the revocations and the limits. If they take longer, requests are served
/// all the same, with 503.
async fn await_first_readings(running: &Running, lasting: &Lasting) {
    let deadline = tokio::time::Instant::now() + FIRST_READINGS;
    let resolving = resolve(&lasting.instances, &running.config.upstream);
    let _ = tokio::time::timeout_at(deadline, resolving).await;
    if let Some(revocations) = &lasting.revocations {
        let _ = tokio::time::timeout_at(deadline, revocations.first_read()).await;
    }
    if running.config.tables_read().limits {
        let _ = tokio::time::timeout_at(deadline, lasting.limits.first_rows()).await;
    }
}

/// What syncs rules and what takes in alerts, where they are switched on, and what of them and of traces follows a
/// reload.
fn rules_and_events(
    config: &Config,
    database: Option<&Database>,
    clock: &Clock,
    traces: &Traces,
) -> io::Result<(Option<Rules>, Option<Events>, Followers)> {
    let mut followers = Followers::new(traces);
    let Some(database) = database.filter(|_| config.rules.enabled) else {
        return Ok((None, None, followers));
    };
    let (store, tracer) = (&database.store, traces.tracer());
    let mut rules = Rules::new(config, store, clock, &tracer, &mut followers)?;
    let events = if config.alert_events.enabled {
        Some(Events::new(config, database, clock, &mut rules, &mut followers)?)
    } else {
        None
    };
    Ok((Some(rules), events, followers))
}

fn listen_on(
    key: &str,
    address: std::net::SocketAddr,
    inherited: &mut Inherited,
) -> io::Result<PublicSocket> {
    listener::listen(address, inherited).map_err(|error| {
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

/// What is done every second or so for as long as the process lives.
fn look_after(lasting: &Lasting, exposition: PrometheusHandle) {
    let (background, cancelled) = (&lasting.background, &lasting.cancelled);
    background.spawn(report_suppressed(lasting.log.clone(), cancelled.clone()));
    background.spawn(run_upkeep(exposition, Arc::clone(&lasting.traffic), cancelled.clone()));
    let (limits, cancelled) = (Arc::clone(&lasting.limits), cancelled.clone());
    background.spawn(async move { limits.run(cancelled).await });
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
async fn report_suppressed(log: AccessLog, cancelled: CancellationToken) {
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
