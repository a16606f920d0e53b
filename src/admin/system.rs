//! `/admin/status`, `/admin/upstreams`, `/admin/keys` and `/admin/config`: how this copy is, for the
//! operator's first question, whether it is us. All of it is state that is there anyway.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{Admin, Answer};
use crate::authn::{KeySetReport, KeySource, Revocations};
use crate::authz::OperatorGrant;
use crate::clock::rfc3339;
use crate::config::{Effect, Fault, Setting, effect_of};
use crate::forward::Instances;
use crate::limits::Limits;
use crate::store::Feed;
use crate::telemetry::Traffic;
use crate::version;

/// The parts of this copy that are reported on.
pub struct System {
    /// The name of this copy, as the leader is named.
    pub copy: String,
    pub started_at: OffsetDateTime,
    pub workers: usize,
    pub keys: Arc<KeySource>,
    /// Whether tokens may be signed with the legacy shared secret.
    pub has_shared_secret: bool,
    pub instances: Arc<Instances>,
    pub limits: Arc<Limits>,
    pub traffic: Arc<Traffic>,
    /// Host and port; none without a database.
    pub database: Option<String>,
    /// None without a database.
    pub feed: Option<Arc<Feed>>,
    pub revocations: Option<Arc<Revocations>>,
    /// The features that are switched on.
    pub syncs_rules: bool,
    pub syncs_channels: bool,
    pub takes_alerts: bool,
    pub config: ConfigState,
}

/// The configuration that runs.
pub struct ConfigState {
    /// Every key, without secrets.
    pub settings: Vec<Setting>,
    pub warnings: Vec<Fault>,
    pub digest: String,
    pub loaded_at: OffsetDateTime,
    pub reloads: Arc<Reloads>,
}

/// How the configuration was last read again.
#[derive(Default)]
pub struct Reloads(Mutex<Option<Reload>>);

/// An attempt to use another configuration.
#[derive(Clone)]
struct Reload {
    at: OffsetDateTime,
    /// Why the old one stays; empty if the new one is used, or nothing has changed.
    faults: Vec<Fault>,
}

impl Reloads {
    /// Notes an attempt, and what has prevented it.
    pub fn note(&self, at: OffsetDateTime, faults: Vec<Fault>) {
        *self.0.lock() = Some(Reload { at, faults });
    }
}

/// How this copy is.
#[derive(Serialize, ToSchema)]
pub(super) struct StatusView {
    version: &'static str,
    commit: &'static str,
    /// The name of this copy.
    copy: String,
    started_at: String,
    workers: usize,
    syncs_rules: bool,
    syncs_channels: bool,
    takes_alerts: bool,
    traffic: TrafficView,
    keys: KeySummary,
    upstreams: UpstreamSummary,
    /// Null without a database.
    database: Option<DatabaseView>,
    /// The copy that writes rules and channels; null if they are not synced.
    leader: Option<SystemLeaderView>,
}

/// The requests of the last minutes, on this copy.
#[derive(Serialize, ToSchema)]
pub(super) struct TrafficView {
    /// The time that it is about.
    window_seconds: f64,
    in_flight: usize,
    surfaces: Vec<SurfaceTrafficView>,
}

/// The requests of one surface.
#[derive(Serialize, ToSchema)]
pub(super) struct SurfaceTrafficView {
    /// `none` for paths that are not served.
    surface: String,
    requests: u64,
    /// Not served because something broke, here or at Mimir.
    failed: u64,
    /// Refused on purpose.
    rejected: u64,
    /// Half of the requests took at most about so long, answered by whomever.
    p50_seconds: Option<f64>,
    p99_seconds: Option<f64>,
}

/// The key set in short.
#[derive(Serialize, ToSchema)]
pub(super) struct KeySummary {
    /// Whether there is a key set, and not only the shared secret.
    is_configured: bool,
    keys: usize,
    age_seconds: Option<f64>,
    is_trusted: bool,
    problem: Option<String>,
}

/// Mimir's instances in short.
#[derive(Serialize, ToSchema)]
pub(super) struct UpstreamSummary {
    instances: usize,
    ejected: usize,
    in_flight: u64,
    /// When an instance was last ejected, or returned (RFC 3339).
    changed_at: Option<String>,
}

/// The database, as this copy sees it.
#[derive(Serialize, ToSchema)]
pub(super) struct DatabaseView {
    /// Host and port.
    address: String,
    /// Whether it answers now.
    answers: bool,
    /// How long it took to answer.
    answered_in_seconds: Option<f64>,
    /// Why it does not.
    problem: Option<String>,
    /// Whether notifications of changes arrive. Without them, changes apply when the cache expires.
    notifications_arrive: bool,
    /// How long ago the revocations were read.
    revocations_age_seconds: Option<f64>,
}

/// The copy that writes.
#[derive(Serialize, ToSchema)]
pub(super) struct SystemLeaderView {
    /// Its name; the last one's if there is none now.
    holder: String,
    is_this_copy: bool,
    /// Whether it leads now; null if the database does not say.
    is_leading: Option<bool>,
    since: Option<String>,
}

/// Mimir's instances.
#[derive(Serialize, ToSchema)]
pub(super) struct UpstreamList {
    /// The most requests in flight at each.
    max_in_flight: u32,
    instances: Vec<UpstreamView>,
}

/// One instance, as this copy sees it, since it is known.
#[derive(Serialize, ToSchema)]
pub(super) struct UpstreamView {
    address: String,
    name: String,
    /// `in_use`, `returning`, `ejected` or `unreachable` (its circuit breaker is open).
    state: &'static str,
    /// Why it is ejected, if it is.
    reason: Option<&'static str>,
    /// Since when it is ejected, or back (RFC 3339); null if it was never ejected.
    changed_at: Option<String>,
    /// Its share of the requests, from 0 to 1.
    share: f64,
    in_flight: u32,
    requests: u64,
    /// Those that failed by its fault.
    failures: u64,
    last_failure: Option<&'static str>,
    last_failure_at: Option<String>,
    ejections: u64,
}

/// The issuer's key set.
#[derive(Serialize, ToSchema)]
pub(super) struct KeysView {
    /// Where it is published; null if tokens are signed with the shared secret only.
    url: Option<String>,
    /// Whether the legacy shared secret is accepted, too.
    has_shared_secret: bool,
    /// When it was last fetched with success (RFC 3339).
    fetched_at: Option<String>,
    age_seconds: Option<f64>,
    /// Whether it is used. Not if it is older than `max_age_seconds`.
    is_trusted: bool,
    max_age_seconds: f64,
    refresh_interval_seconds: f64,
    last_attempt_at: Option<String>,
    /// When it is fetched next, at the latest.
    next_attempt_at: Option<String>,
    /// Why the last attempt failed, if it did.
    problem: Option<String>,
    keys: Vec<KeyView>,
    /// Keys that are not used, and why.
    left_out: Vec<String>,
}

/// A key.
#[derive(Serialize, ToSchema)]
pub(super) struct KeyView {
    id: String,
    algorithm: String,
}

/// The configuration that runs.
#[derive(Serialize, ToSchema)]
pub(super) struct ConfigView<'a> {
    /// What tells it from others, without its secrets. The same on copies with the same configuration.
    hash: &'a str,
    /// Since when it runs (RFC 3339).
    loaded_at: String,
    /// When it was last read again; null if it was not.
    reload: Option<ReloadView>,
    settings: Vec<SettingView<'a>>,
    warnings: Vec<WarningView<'a>>,
}

/// An attempt to use a changed configuration.
#[derive(Serialize, ToSchema)]
pub(super) struct ReloadView {
    at: String,
    /// Whether what was read is what runs.
    is_successful: bool,
    /// Why it is not.
    faults: Vec<FaultView>,
}

/// What is wrong with a key of the configuration, and what would be right.
#[derive(Serialize, ToSchema)]
pub(super) struct FaultView {
    key: String,
    /// The line of the file, if it is from there.
    line: Option<usize>,
    problem: String,
}

/// A key of the configuration.
#[derive(Serialize, ToSchema)]
pub(super) struct SettingView<'a> {
    key: &'a str,
    /// Empty if it has none. A secret is only said to be set.
    value: &'a str,
    /// `default`, `file`, or the environment variable.
    source: &'a str,
    /// Whether a change takes effect by a reload, and not only by a restart.
    is_reloadable: bool,
}

/// What is valid but probably a mistake.
#[derive(Serialize, ToSchema)]
pub(super) struct WarningView<'a> {
    key: &'a str,
    problem: &'a str,
}

pub(super) async fn status(admin: &Admin, _: &OperatorGrant) -> Answer {
    let (system, now) = (&admin.system, admin.now());
    let ago = |ago: Duration| rfc3339(now - ago);
    let traffic = system.traffic.report();
    let keys = system.keys.report();
    let instances = system.instances.reports();
    let database = database_view(admin).await;
    let has_answer = database.as_ref().is_some_and(|database| database.answers);
    Answer::of(&StatusView {
        version: version::NUMBER,
        commit: version::COMMIT,
        copy: system.copy.clone(),
        started_at: rfc3339(system.started_at),
        workers: system.workers,
        syncs_rules: system.syncs_rules,
        syncs_channels: system.syncs_channels,
        takes_alerts: system.takes_alerts,
        traffic: TrafficView {
            window_seconds: traffic.window.as_secs_f64(),
            in_flight: system.limits.in_flight(),
            surfaces: traffic
                .surfaces
                .into_iter()
                .map(|one| SurfaceTrafficView {
                    surface: one.surface,
                    requests: one.requests,
                    failed: one.failed,
                    rejected: one.rejected,
                    p50_seconds: one.p50_seconds,
                    p99_seconds: one.p99_seconds,
                })
                .collect(),
        },
        keys: KeySummary {
            is_configured: keys.url.is_some(),
            keys: keys.keys.len(),
            age_seconds: keys.age.map(|age| age.as_secs_f64()),
            is_trusted: keys.is_trusted,
            problem: keys.problem,
        },
        upstreams: UpstreamSummary {
            instances: instances.len(),
            ejected: instances.iter().filter(|one| one.ejected.is_some()).count(),
            in_flight: instances.iter().map(|one| u64::from(one.in_flight)).sum(),
            changed_at: instances.iter().filter_map(|one| one.changed).min().map(ago),
        },
        leader: if system.syncs_rules { leader_view(admin, has_answer).await } else { None },
        database,
    })
}

async fn database_view(admin: &Admin) -> Option<DatabaseView> {
    let system = &admin.system;
    let store = admin.store.as_ref()?;
    let began = Instant::now();
    let answered = store.ping().await;
    Some(DatabaseView {
        address: system.database.clone().unwrap_or_default(),
        answers: answered.is_ok(),
        answered_in_seconds: answered.is_ok().then(|| began.elapsed().as_secs_f64()),
        problem: answered.err().map(|error| error.to_string()),
        notifications_arrive: system.feed.as_ref().is_some_and(|feed| feed.is_connected()),
        revocations_age_seconds: system
            .revocations
            .as_ref()
            .and_then(|revocations| revocations.age())
            .map(|age| age.as_secs_f64()),
    })
}

/// The rest is worth an answer even if the database does not say who leads.
async fn leader_view(admin: &Admin, has_answer: bool) -> Option<SystemLeaderView> {
    let store = admin.store.as_ref().filter(|_| has_answer)?;
    let leader = store.rule_leader().await.ok()?;
    Some(SystemLeaderView {
        is_this_copy: leader.holder == admin.system.copy,
        is_leading: store.is_led().await.ok(),
        since: leader.since.map(rfc3339),
        holder: leader.holder,
    })
}

pub(super) fn upstreams(admin: &Admin, _: &OperatorGrant) -> Answer {
    let now = admin.now();
    let instances = admin.system.instances.reports().into_iter().map(|one| UpstreamView {
        address: one.address.to_string(),
        name: one.name,
        state: match one.ejected {
            Some(_) if one.is_unreachable => "unreachable",
            Some(_) => "ejected",
            None if one.share < 1.0 => "returning",
            None => "in_use",
        },
        reason: one.ejected,
        changed_at: one.changed.map(|ago| rfc3339(now - ago)),
        share: one.share,
        in_flight: one.in_flight,
        requests: one.requests,
        failures: one.failures,
        last_failure: one.last_failure.map(|(why, _)| why),
        last_failure_at: one.last_failure.map(|(_, ago)| rfc3339(now - ago)),
        ejections: one.ejections,
    });
    let max_in_flight = admin.system.instances.most_in_flight();
    Answer::of(&UpstreamList { max_in_flight, instances: instances.collect() })
}

pub(super) fn keys(admin: &Admin, _: &OperatorGrant) -> Answer {
    let now = admin.now();
    let ago = |ago: Duration| rfc3339(now - ago);
    let report: KeySetReport = admin.system.keys.report();
    let key = |(id, algorithm)| KeyView { id, algorithm };
    Answer::of(&KeysView {
        url: report.url,
        has_shared_secret: admin.system.has_shared_secret,
        fetched_at: report.age.map(ago),
        age_seconds: report.age.map(|age| age.as_secs_f64()),
        is_trusted: report.is_trusted,
        max_age_seconds: report.max_age.as_secs_f64(),
        refresh_interval_seconds: report.refresh_interval.as_secs_f64(),
        last_attempt_at: report.last_attempt.map(ago),
        next_attempt_at: report.next_attempt.map(|wait| rfc3339(now + wait)),
        problem: report.problem,
        keys: report.keys.into_iter().map(key).collect(),
        left_out: report.left_out,
    })
}

pub(super) fn config(admin: &Admin, _: &OperatorGrant) -> Answer {
    let config = &admin.system.config;
    let reload = config.reloads.0.lock().clone();
    let fault = |Fault { key, line, problem }| FaultView { key, line, problem };
    Answer::of(&ConfigView {
        hash: &config.digest,
        loaded_at: rfc3339(config.loaded_at),
        reload: reload.map(|reload| ReloadView {
            at: rfc3339(reload.at),
            is_successful: reload.faults.is_empty(),
            faults: reload.faults.into_iter().map(fault).collect(),
        }),
        settings: config.settings.iter().map(setting).collect(),
        warnings: config
            .warnings
            .iter()
            .map(|one| WarningView { key: &one.key, problem: &one.problem })
            .collect(),
    })
}

fn setting(one: &Setting) -> SettingView<'_> {
    let is_reloadable = effect_of(&one.key) == Effect::Reload;
    SettingView { key: &one.key, value: &one.value, source: &one.source, is_reloadable }
}
