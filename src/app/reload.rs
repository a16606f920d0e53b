//! Another configuration in a running proxy: SIGHUP or a changed file has it read again. It is used as a
//! whole or not at all. Whatever is wrong with it is told, and the old one stays in force.
//!
//! What can fail comes first: it is read and checked, what it names is looked up, a new key set is
//! fetched. The rest cannot fail. Requests in flight keep what they began with.
//! [Decision 38](../../docs/decisions/0038-reload.md) has the reasons.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::database::{self, NotUsed};
use super::running::{Lasting, Running, Task, finds_instances};
use super::traces::Traces;
use super::watch::{Files, Fingerprint};
use crate::alert_events::Receiver;
use crate::authn::{KeySource, key_set_client};
use crate::config::{
    Change, Config, Effect, Environment, Fault, Faults, ServedCertificate, ShutdownConfig,
    named_files,
};
use crate::forward::{FoundInstances, find};
use crate::internal::Identities;
use crate::lifecycle::Hangups;
use crate::listener::Workers;
use crate::mimir::{MimirChange, MimirHandle};
use crate::otlp::Authorization;
use crate::store::{LONGEST_LOGIN_PAUSE, Store};
use crate::telemetry::Logging;

/// How long a new key set, Consul or the database may be away until it is asked again.
const RETRY: Duration = Duration::from_secs(30);

/// What is to be told of a configuration that is not used.
struct Refused {
    faults: Vec<Fault>,
    /// When the same configuration may be usable.
    retry: Option<Duration>,
}

impl From<Vec<Fault>> for Refused {
    fn from(faults: Vec<Fault>) -> Self {
        Self { faults, retry: None }
    }
}

/// What runs beside the workers for as long as the process lives, and follows a reload.
#[derive(Default)]
pub(super) struct Followers {
    pub(super) of_rules: Vec<MimirHandle>,
    pub(super) of_channels: Vec<MimirHandle>,
    pub(super) alert_events: Option<Arc<Receiver>>,
    pub(super) collector: Option<Authorization>,
}

/// The running configuration, and what it takes to use another.
pub(super) struct Reloader {
    pub(super) file: Option<PathBuf>,
    pub(super) environment: Environment,
    pub(super) running: Running,
    pub(super) lasting: Lasting,
    pub(super) logging: Logging,
    pub(super) followers: Followers,
    pub(super) identities: Arc<ArcSwap<Identities>>,
    /// How the process ends, by the configuration that runs then.
    pub(super) shutdown: Arc<ArcSwap<ShutdownConfig>>,
}

/// What is ready to be used.
struct Prepared {
    keys: Option<(Arc<KeySource>, reqwest::Client)>,
    instances: Option<FoundInstances>,
    /// A store with the new user or password.
    login: Option<Store>,
    clients: Vec<MimirChange>,
}

impl Reloader {
    /// Notes that the configuration of the start is in force.
    pub(super) fn begin(&self) {
        self.succeeded();
    }

    /// Uses another configuration whenever there is one, for ever.
    pub(super) async fn follow(&mut self, workers: &Workers, hangups: &mut Hangups) {
        let mut files = Files::new(named_files(self.file.as_deref(), &self.environment));
        let mut retry = None;
        loop {
            let interval = self.running.config.reload.watch_interval;
            let was_asked = tokio::select! {
                () = hangups.next() => true,
                () = files.changed(interval) => false,
                () = wait(retry) => false,
            };
            retry = self.reload(workers, &mut files, was_asked).await;
        }
    }

    /// Reads the configuration and uses it. Returns when it is worth another try.
    async fn reload(
        &mut self,
        workers: &Workers,
        files: &mut Files,
        was_asked: bool,
    ) -> Option<Duration> {
        if let (Some(store), true) = (&self.lasting.store, was_asked) {
            store.forget_refusal();
        }
        let (file, environment) = (self.file.clone(), self.environment.clone());
        // A file system that does not answer holds up a thread of its own.
        let read = spawn_blocking(move || {
            let paths = named_files(file.as_deref(), &environment);
            let fingerprint = Fingerprint::of(&paths);
            (paths, fingerprint, Config::load(file.as_deref(), &environment))
        });
        let outcome = match read.await {
            Ok((paths, fingerprint, loaded)) => {
                files.set_seen(paths, fingerprint);
                self.use_loaded(loaded, workers).await
            }
            Err(error) => {
                Err(vec![fault("configuration", format!("could not be read: {error}"))].into())
            }
        };
        let at = self.lasting.clock.utc();
        match outcome {
            Ok(changes) => {
                self.lasting.reloads.note(at, Vec::new());
                self.succeeded();
                if !changes.is_empty() {
                    let keys: Vec<&str> =
                        changes.iter().map(|change| change.key.as_str()).collect();
                    let hash = self.running.config.digest();
                    tracing::info!(keys = keys.join(","), hash, "Configuration reloaded");
                } else if was_asked {
                    tracing::info!("Configuration reloaded: nothing has changed");
                }
                None
            }
            Err(Refused { faults, retry }) => {
                let file = self.file.as_ref().map(|file| file.display().to_string());
                for Fault { key, line, problem } in &faults {
                    tracing::error!(file, line, key, problem, "Configuration not reloaded");
                }
                self.lasting.metrics.config_reload_successful.set(0.0);
                self.lasting.reloads.note(at, faults);
                retry
            }
        }
    }

    fn succeeded(&self) {
        let metrics = &self.lasting.metrics;
        metrics.config_reload_successful.set(1.0);
        metrics.config_reload_time.set(self.lasting.clock.now().as_secs_f64());
        let digest = self.running.config.digest();
        // 32 bits, so that a float holds them all.
        let hash = digest.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        metrics.config_hash.set(f64::from(hash.unwrap_or_default()));
        self.report_certificates();
    }

    /// Says which certificates are served, and when the first of them expires.
    fn report_certificates(&self) {
        let Some(tls) = &self.running.config.listen.tls else {
            return self.lasting.metrics.tls_certificate_expiry.unset();
        };
        let ends = tls.certificates.iter().map(|one| one.validity.until);
        let first = Duration::from_secs(ends.min().unwrap_or_default().try_into().unwrap_or(0));
        self.lasting.metrics.tls_certificate_expiry.set(first.as_secs_f64());
    }

    async fn use_loaded(
        &mut self,
        loaded: Result<Config, Faults>,
        workers: &Workers,
    ) -> Result<Vec<Change>, Refused> {
        let mut config = loaded.map_err(|Faults(faults)| faults)?;
        let changes = self.running.config.changes_to(&config);
        let fixed: Vec<Fault> = changes
            .iter()
            .filter(|change| change.effect == Effect::Restart)
            .map(|change| fault(&change.key, needs_restart(&change.key)))
            .collect();
        if !fixed.is_empty() {
            return Err(fixed.into());
        }
        if !changes.iter().any(|change| change.key.starts_with("tls.")) {
            // With its keys for tickets, so that clients go on resuming.
            config.listen.tls.clone_from(&self.running.config.listen.tls);
        } else if let Some(tls) = &config.listen.tls {
            // At the start of the process an expired certificate is only a warning, because a proxy that does
            // not start serves nobody. Here it would replace one that is valid.
            let now = self.lasting.clock.unix_seconds();
            let known = self.running.config.listen.tls.as_ref().map(|tls| &tls.certificates);
            let is_new = |one: &&ServedCertificate| known.is_none_or(|known| !known.contains(one));
            let faults = tls.certificates.iter().filter(is_new).filter_map(|one| {
                one.problem(now).map(|problem| fault("tls.certificate_files", problem))
            });
            let faults: Vec<Fault> = faults.collect();
            if !faults.is_empty() {
                return Err(faults.into());
            }
        }
        if !changes.is_empty() {
            let prepared = self.prepare(&config, &changes).await?;
            self.commit(config, &changes, prepared, workers);
        }
        Ok(changes)
    }

    /// Everything that can fail.
    async fn prepare(&self, config: &Config, changes: &[Change]) -> Result<Prepared, Refused> {
        let before = &self.running.config;
        let mut away = Vec::new();
        let mut keys = None;
        if before.auth.key_set != config.auth.key_set {
            let source =
                KeySource::after(&self.running.identities.keys, config.auth.key_set.clone());
            let client = key_set_client().map_err(|error| error.to_string());
            let ready = match &client {
                Ok(client) => source.make_ready(client).await,
                Err(error) => Err(error.clone()),
            };
            if let Err(problem) = ready {
                let problem = format!("the key set cannot be fetched: {problem}");
                away.push(fault("auth.jwks_url", problem));
            }
            keys = client.ok().map(|client| (Arc::new(source), client));
        }
        let mut instances = None;
        if changes.iter().any(|change| finds_instances(&change.key)) {
            match find(&self.lasting.instances, &before.upstream, &config.upstream).await {
                Ok(found) => instances = Some(found),
                Err(faults) => {
                    away.extend(faults.into_iter().map(|(key, problem)| fault(key, problem)));
                }
            }
        }
        if !away.is_empty() {
            return Err(Refused { faults: away, retry: Some(RETRY) });
        }
        let clients = self.followers.prepare(config);
        let clients = clients.map_err(|(key, problem)| vec![fault(key, problem)])?;
        // Last, so that a login that is refused is not tried again for the sake of anything else.
        let mut login = None;
        if let (Some(store), true) = (&self.lasting.store, has(changes, "database.url")) {
            login = Some(Box::pin(database::log_in(config, store)).await.map_err(|not_used| {
                let NotUsed { problem, is_refused } = not_used;
                let retry = if is_refused { LONGEST_LOGIN_PAUSE } else { RETRY };
                Refused { faults: vec![fault("database.url", problem)], retry: Some(retry) }
            })?);
        }
        Ok(Prepared { keys, instances, login, clients })
    }

    /// Nothing waits here, so nothing is seen half done but by a worker that is already on the next.
    fn commit(
        &mut self,
        config: Config,
        changes: &[Change],
        prepared: Prepared,
        workers: &Workers,
    ) {
        let (lasting, before) = (&self.lasting, &self.running);
        let (keys, fetching) = match prepared.keys {
            None => (Arc::clone(&before.identities.keys), before.fetching().clone()),
            Some((keys, client)) => {
                self.end_later(before.fetching().clone());
                let fetching = lasting.fetch(&keys, client);
                (keys, fetching)
            }
        };
        if has(changes, "log.filter") {
            self.logging.filter(&config.log);
        }
        lasting.log.set_unserved_per_second(config.log.unserved_per_second);
        lasting.audit.set_refused_per_second(config.log.unserved_per_second);
        if changes.iter().any(|change| change.key.starts_with("limits.")) {
            lasting.limits.reconfigure(config.limits.organisations.clone());
        }
        if before.config.upstream.health != config.upstream.health {
            lasting.instances.set_health(config.upstream.health.clone());
        }
        let resolving = match prepared.instances {
            None => before.resolving().clone(),
            Some(found) => {
                before.resolving().cancel();
                lasting.instances.adopt(found);
                lasting.resolve(&config)
            }
        };
        for client in prepared.clients {
            client.make();
        }
        if let (Some(store), Some(login)) = (&lasting.store, prepared.login) {
            store.log_in_like(&login);
        }
        self.followers.set_secrets(&config);
        for warning in &config.warnings {
            let (key, problem) = (&warning.key, &warning.problem);
            tracing::warn!(key, problem, "Configuration warning");
        }
        let tasks = (fetching, resolving);
        let next = before.next(config, changes, keys, tasks, lasting);
        self.identities.store(Arc::clone(&next.identities));
        self.shutdown.store(Arc::new(next.config.shutdown.clone()));
        workers.replace(next.pipelines(lasting), &next.config.listen);
        self.running = next;
    }

    /// Ends a task when no request can wait for it any more.
    fn end_later(&self, task: Task) {
        let config = self.running.config.auth.key_set.as_ref();
        let timeout = config.map(|config| config.fetch_timeout).unwrap_or_default();
        self.lasting.background.spawn(async move {
            tokio::select! {
                () = sleep(2 * timeout + Duration::from_secs(1)) => task.cancel(),
                () = task.cancelled() => {}
            }
        });
    }
}

impl Followers {
    /// Of a process that syncs no rules; what does adds itself.
    pub(super) fn new(traces: &Traces) -> Self {
        Self { collector: traces.authorization(), ..Self::default() }
    }

    fn set_secrets(&self, config: &Config) {
        if let Some(receiver) = &self.alert_events {
            receiver.set_secret(&config.alert_events.secret);
        }
        if let (Some(shown), Some(collector)) = (&self.collector, &config.traces.collector) {
            shown.set(&collector.authorization);
        }
    }

    fn prepare(&self, config: &Config) -> Result<Vec<MimirChange>, (&'static str, String)> {
        let prepare = |handles: &[MimirHandle], key, mimir| {
            let changes: Result<Vec<_>, _> =
                handles.iter().map(|handle| handle.prepare(&mimir)).collect();
            changes.map_err(|problem| (key, problem))
        };
        let mut all = prepare(&self.of_rules, "rules.urls", config.rules.mimir())?;
        let of_channels = config.channels.mimir(&config.rules);
        all.extend(prepare(&self.of_channels, "channels.urls", of_channels)?);
        Ok(all)
    }
}

fn has(changes: &[Change], key: &str) -> bool {
    changes.iter().any(|change| change.key == key)
}

fn fault(key: &str, problem: impl Into<String>) -> Fault {
    Fault { key: key.to_owned(), line: None, problem: problem.into() }
}

/// What is wrong with a change that takes effect with a restart only.
fn needs_restart(key: &str) -> &'static str {
    match key {
        "database.url" => {
            "only its user and its password can change while the proxy runs; restart it, or put the old address back"
        }
        _ => "cannot change while the proxy runs; restart it, or put the old value back",
    }
}

async fn wait(duration: Option<Duration>) {
    match duration {
        Some(duration) => sleep(duration).await,
        None => std::future::pending().await,
    }
}
