//! Every metric: its name, type, unit, labels and their values, the question that it answers, what
//! it means, and when to look at it. Registration takes names from here and nowhere else, and
//! `docs/reference/metrics.md` is written from it, so neither can say anything else.
//!
//! Every label is bounded: no metric carries a tenant (but the success times of rules, for the
//! first 200), a user or a path.

#![expect(clippy::disallowed_macros, reason = "this is where metrics are registered")]

use metrics::{
    Counter, Gauge, Histogram, SharedString, Unit, counter, describe_counter, describe_gauge,
    describe_histogram, gauge, histogram,
};
use strum::VariantNames as _;

use crate::labels::{
    AlertDrop, AlertPost, ConnectionEnd, InstanceFault, LookupKind, NoResend, NotificationState,
    OutcomeKind, Resend, RuleState, SpanDrop, TestOutcome, TlsHandshake,
};
use crate::reason::{Reason, Sampled};
use crate::route::Surface;

#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Option<Unit>,
    pub labels: &'static [Label],
    /// The question that it answers. Dashboards show it.
    pub question: &'static str,
    /// What it means; also its `# HELP`.
    pub help: &'static str,
    /// What an operator learns from it, and what to do.
    pub when: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A label and the values that it can have.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    pub name: &'static str,
    pub values: Values,
}

#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// One of a few lists, which the code knows.
    Names(&'static [&'static [&'static str]]),
    /// Known at run time only, but bounded.
    Open(&'static str),
}

/// For requests that no route was found for.
pub(super) const NO_SURFACE: &str = "none";
/// The classes of Mimir's statuses.
pub(super) const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

const SURFACE: Values = Values::Names(&[Surface::VARIANTS, &[NO_SURFACE]]);
const OUTCOME: Values =
    Values::Names(&[&["forwarded", "answered", "rejected", "failed", "cancelled"]]);
const REASON: Values = Values::Names(&[Reason::VARIANTS, &CLASSES, &["own", "client_gone"]]);
const SUCCESS: Values = Values::Names(&[&["succeeded", "failed"]]);

macro_rules! metrics {
    (@unit) => { None };
    (@unit $unit:ident) => { Some(Unit::$unit) };
    (@labels) => { &[] };
    (@labels $($label:ident: $values:expr),*) => {
        &[$(Label { name: stringify!($label), values: $values }),*]
    };
    ($(
        $id:ident = $kind:ident $name:literal $({ $($label:ident: $values:expr),* })? $(in $unit:ident)?,
        $question:literal, $help:literal, $when:literal;
    )*) => {
        $(pub(super) const $id: Metric = Metric {
            name: concat!("mimir_tenant_proxy_", $name),
            kind: Kind::$kind,
            unit: metrics!(@unit $($unit)?),
            labels: metrics!(@labels $($($label: $values),*)?),
            question: $question,
            help: $help,
            when: $when,
        };)*
        /// All metrics, in the order of the reference.
        pub const METRICS: &[Metric] = &[$($id),*];
    };
}

metrics! {
    BUILD_INFO = Gauge "build_info" { version: Values::Open("a version"), commit: Values::Open("a commit") },
        "Which version runs where?",
        "The version and commit that run; always 1.",
        "Copies of different versions run side by side.";
    READY = Gauge "ready",
        "Does this copy accept requests?",
        "1 while this process accepts requests, 0 while it starts or drains.",
        "0: this copy starts or drains.";
    MEMORY = Gauge "memory_bytes" in Bytes,
        "How much memory does this copy use?",
        "Resident memory of the process.",
        "Near what the machine gives it. Clients that read or send slowly, requests in flight and the directory take most of it.";

    MEMORY_LIMIT = Gauge "memory_limit_bytes" in Bytes,
        "How much memory may this copy use?",
        "What memory is compared with: `limits.memory_bytes`, the limit of the cgroup, or the machine's memory. Missing if `limits.memory_bytes` is `off`.",
        "It is not what you gave the machine or the container: is `limits.memory_bytes` set, or the limit of another cgroup above it?";
    MEMORY_COUNTED = Gauge "memory_counted_bytes" in Bytes,
        "How near is this copy to shedding requests for its memory?",
        "The memory that is compared with `memory_limit_bytes`: of the cgroup without the page cache, where it has a limit, else the resident memory of the process.",
        "Near 70 % of `memory_limit_bytes`: lists are shed next.";
    SHEDDING = Gauge "shedding",
        "What is refused because memory is short?",
        "0 nothing; 1 lists (labels, series, statistics); 2 reads as well; 3 writes as well.",
        "Above 0: requests get 503 with the reason `memory_short`. [ProxyShedsForMemory](../runbooks/limits.md#proxyshedsformemory) says what to do.";
    WORKER_LAG = Histogram "worker_lag_seconds" in Seconds,
        "Does this copy have the processor that it needs?",
        "How late workers are: for how long what is ready waits for the processor. Measured ten times a second on each worker.",
        "Its p99 rises above some milliseconds: every request is later by that. From a second on, if it lasts, lists are shed, from two on reads as well (`processor_short`). Start another copy, or give it more processors.";
    CONFIG_LAST_RELOAD_SUCCESSFUL = Gauge "config_last_reload_successful",
        "Does this copy run the configuration that it was given?",
        "1 if the configuration was read with success the last time, at the start or later; 0 if what was read last is not used.",
        "0: the old one stays in force. The log has every fault (`Configuration not reloaded`), and so has `GET /admin/config`.";
    CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP = Gauge "config_last_reload_success_timestamp_seconds" in Seconds,
        "Since when does this copy run its configuration?",
        "When the configuration was last read with success (Unix time).",
        "It is older than the last change of the configuration.";
    CONFIG_HASH = Gauge "config_hash",
        "Do all copies run the same configuration?",
        "A number that tells the configuration from others, without its secrets.",
        "Copies differ for longer than a roll-out takes.";

    REQUESTS = Counter "requests_total" { surface: SURFACE, outcome: OUTCOME, reason: REASON },
        "Is it us? What share of requests fails or is refused, where, and why?",
        "Requests by surface, outcome and reason.",
        "Always. `outcome=\"failed\"`: something is broken, see [reasons](#reasons). `rejected`: refused on purpose, also with a 503. `forwarded` has the class of Mimir's status as its reason, `answered` (by the proxy itself) has `own`, `cancelled` has `client_gone`.";
    DURATION = Histogram "request_duration_seconds" { surface: SURFACE } in Seconds,
        "How long do clients wait?",
        "Time from a request's head to the last byte of its response.",
        "A surface is slower than it was.";
    RECEIVED_BYTES = Counter "received_bytes_total" { surface: SURFACE } in Bytes,
        "How much do clients send?",
        "Bytes of request bodies.",
        "A surface carries more than it was sized for.";
    SENT_BYTES = Counter "sent_bytes_total" { surface: SURFACE } in Bytes,
        "How much do clients get?",
        "Bytes of response bodies.",
        "A surface carries more than it was sized for.";
    REQUESTS_IN_FLIGHT = Gauge "requests_in_flight",
        "How near is this copy to `limits.in_flight`?",
        "Requests of all organisations that hold a permit.",
        "Near `limits.in_flight`, or `upstream.max_in_flight` of all instances: further requests wait, and are then shed.";
    PERMIT_WAIT = Histogram "permit_wait_seconds" in Seconds,
        "Do requests queue because an organisation is at its limit?",
        "Time that requests waited for a permit; only those that had to wait.",
        "Its count rises: an organisation is at a limit, and its requests wait. Those that waited in vain are `rejected` with the reasons `requests_in_flight`, `organisation_share`, `request_rate` or `byte_rate`.";

    LIMITED_ORGANISATIONS = Gauge "limited_organisations",
        "Is it one organisation that is over its limits, or many?",
        "Organisations that a limit of their own has refused in the last five minutes; at most 1000 are counted.",
        "One: speak with it. Many at the same time: Mimir is slow, or a default is too low. `GET /admin/limits` names them.";
    LIMITED_DEVICES = Gauge "limited_devices",
        "Is it one device that is over its limits, or a fleet?",
        "Devices that a limit of their own has refused in the last five minutes; at most 1000 are counted.",
        "One: it is broken, or in a loop. Many: the limit is too low for what they do. `GET /admin/limits` names them.";
    DEVICE_ACCOUNTS = Gauge "device_accounts",
        "How many devices are counted at the moment?",
        "Devices with requests in flight, or with a rate that is used, on each surface where devices have a limit.",
        "Near 10,000 for each organisation, or 100,000 in all: further devices share one account in their organisation.";
    LIMIT_ROWS = Gauge "limit_rows",
        "Are limits read from the database?",
        "Limits of organisations that were read from the database. Missing if `limits.from_database` is off, or before the first reading.",
        "It falls by far: the table was emptied, and the configuration's limits hold.";
    LIMIT_ROWS_INVALID = Gauge "limit_rows_invalid",
        "Are there rows that are no limit?",
        "Rows that are no limit: an unknown name, or a value that cannot be. The last valid one holds, or the configuration's.",
        "Above 0: the log, `GET /admin/limits` and `check-config --connect` name them.";
    LIMIT_ROWS_AGE = Gauge "limit_rows_age_seconds" in Seconds,
        "Are limits from the database current?",
        "Time since the limits were read from the database.",
        "Above two minutes: the database is away. The last limits hold.";
    LIMIT_ROW_READ_FAILURES = Counter "limit_row_read_failures_total",
        "Can limits be read from the database?",
        "Readings of limits that failed.",
        "It rises: the database is away, or there are too many rows.";
    UPLOAD_BUFFER = Gauge "upload_buffer_bytes" in Bytes,
        "How much memory do slow uploads take?",
        "Room that request bodies have taken in the upload buffer. A body that has to be waited for is read into it before its request gets a permit.",
        "Near `limits.upload_total_bytes`: further slow bodies stream, and hold a slot and a connection to Mimir for as long as they take.";
    UPLOADS_WITHOUT_BUFFER = Counter "uploads_without_buffer_total",
        "Do slow uploads hold slots because the upload buffer is full?",
        "Request bodies that had to be waited for and got no room in the upload buffer.",
        "It rises: raise `limits.upload_total_bytes` if there is memory. An organisation gets no more than is free.";

    CONNECTIONS = Gauge "connections",
        "How many clients are connected?",
        "Open downstream connections.",
        "At `listen.max_connections`: silent clients are disconnected for others that wait ([deadlines](../operations/deadlines.md#at-the-connection-limit)).";
    CONNECTIONS_ACCEPTED = Counter "connections_accepted_total",
        "Do clients keep their connections?",
        "Downstream connections accepted.",
        "Clients open a connection for each request.";
    CONNECTIONS_ENDED = Counter "connections_ended_total" { reason: Values::Names(&[ConnectionEnd::VARIANTS]) },
        "Who ends connections, and why?",
        "Downstream connections ended, by reason.",
        "`header_timeout` and `write_timeout` rise: slow clients, or an attack. `evicted` rises: the connection limit is reached. [Deadlines](../operations/deadlines.md) has each phase and its end.";
    TLS_HANDSHAKES = Counter "tls_handshakes_total" { outcome: Values::Names(&[TlsHandshake::VARIANTS]) },
        "Do clients get through the TLS handshake, and if not, why?",
        "TLS handshakes with clients, by outcome. `full` and `resumed` are successes.",
        "`refused` rises: clients do not trust the certificate. `not_tls`: they use http://. `client_certificate`: theirs is missing, expired or of an unknown authority. [TLS](../operations/tls.md) has all of them.";
    TLS_CERTIFICATE_EXPIRY = Gauge "tls_certificate_expiry_timestamp_seconds" in Seconds,
        "When does the first of our certificates expire?",
        "Unix time at which the first of the certificates in `tls.certificate_files` expires. Missing without TLS, NaN once TLS was switched off.",
        "Less than two weeks away: [ProxyCertificateExpires](../runbooks/proxy.md#proxycertificateexpires).";
    STREAMS_RESET = Counter "streams_reset_total",
        "Do HTTP/2 clients leave answers unread?",
        "Downstream HTTP/2 streams reset because the client did not read the response.",
        "HTTP/2 clients do not read their responses.";

    TOKEN_CACHE_LOOKUPS = Counter "token_cache_lookups_total" { outcome: Values::Names(&[&["hit", "miss"]]) },
        "How many tokens are verified, and how many are only recognised?",
        "Lookups in the cache of verified tokens.",
        "Many misses with few tokens: possible token guessing.";
    TOKEN_CACHE_ENTRIES = Gauge "token_cache_entries",
        "How many tokens are in use?",
        "Verified tokens in the cache.",
        "Together with the misses.";
    KEY_SET_FETCHES = Counter "key_set_fetches_total" { outcome: SUCCESS },
        "Does the issuer answer?",
        "Attempts to fetch the issuer's key set.",
        "`failed` rises: the issuer cannot be reached.";
    KEY_SET_AGE = Gauge "key_set_age_seconds" in Seconds,
        "For how much longer can tokens be verified?",
        "Time since the key set was fetched; -1 if it never was; absent without a key set.",
        "Over `auth.jwks_refresh_interval` for long: the issuer cannot be reached. At `auth.jwks_max_age` all tokens signed by public keys get 503.";
    KEY_SET_KEYS = Gauge "key_set_keys",
        "Can any token be verified?",
        "Usable keys in the key set; absent without a key set.",
        "0: tokens signed by public keys are refused.";
    DEVICE_KEY_GRACE_USES = Counter "device_key_grace_uses_total",
        "Which devices need a new key soon?",
        "Requests with an expired device key that is still in its grace period.",
        "Rises: a device uses an expired key; renew it.";
    DEVICE_KEY_BACKOFFS = Counter "device_key_backoffs_total",
        "Does a client guess device keys?",
        "Refusals of unknown device keys that were delayed because their address had sent many.",
        "Rises: an address tries device keys.";
    DEVICE_KEY_LAST_USED_FAILURES = Counter "device_key_last_used_failures_total",
        "Are the last uses of device keys recorded?",
        "Batches of last uses of device keys that could not be written; they are written with the next batch.",
        "Rises: database writes fail.";

    DATABASE_LISTENING = Gauge "database_listening",
        "Does a change in the database take effect at once?",
        "1 while notifications of changes arrive, 0 while they do not; absent without a database.",
        "0 for more than a few seconds: everything is read again twice a second.";
    DIRECTORY_LOOKUPS = Counter "directory_lookups_total" { kind: Values::Names(&[LookupKind::VARIANTS]), outcome: Values::Names(&[&["cached", "read", "stale", "unavailable"]]) },
        "Is it known who callers are, and from where?",
        "Lookups of memberships, device keys, sessions and organisations, by outcome.",
        "`stale`: the database is away, and what is remembered is used. `unavailable`: callers that are not remembered get 503.";
    DIRECTORY_READ_FAILURES = Counter "directory_read_failures_total" { kind: Values::Names(&[LookupKind::VARIANTS]) },
        "Does the database answer lookups?",
        "Failed queries for lookups.",
        "The database fails.";
    DIRECTORY_READ_DURATION = Histogram "directory_read_duration_seconds" { kind: Values::Names(&[LookupKind::VARIANTS]) } in Seconds,
        "How fast does the database answer lookups?",
        "Duration of one query for lookups, of however many keys.",
        "The database is slow.";
    DIRECTORY_ENTRIES = Gauge "directory_entries" { kind: Values::Names(&[LookupKind::VARIANTS]) },
        "How much of the database is remembered?",
        "Memberships, device keys, sessions and organisations remembered.",
        "Memory grows.";
    DIRECTORY_INVALIDATIONS = Counter "directory_invalidations_total" { kind: Values::Names(&[LookupKind::VARIANTS]) },
        "How often do memberships, keys and sessions change?",
        "Notifications of changes in the database.",
        "Something changes the tables all the time.";
    REVOCATIONS = Gauge "revocations",
        "How many tokens and users are locked out?",
        "Revocations in force; absent without a database.",
        "Tokens are refused with the reason `revoked`.";
    REVOCATIONS_AGE = Gauge "revocations_age_seconds" in Seconds,
        "Does a revocation take effect?",
        "Time since the revocations were read; -1 if they never were; absent without a database.",
        "Over two minutes: they cannot be read. At `database.stale_max_age` (or a second after a notification of a change) all users get 503.";
    REVOCATION_READ_FAILURES = Counter "revocation_read_failures_total",
        "Does the database answer reads of the revocations?",
        "Failed reads of the revocations.",
        "The database fails.";

    UPSTREAM_INSTANCES = Gauge "upstream_instances",
        "How many instances of Mimir are known?",
        "Upstream instances known.",
        "Instances are missing.";
    UPSTREAM_INSTANCES_EJECTED = Gauge "upstream_instances_ejected",
        "How many instances of Mimir get no requests?",
        "Ejected upstream instances: their requests failed, or they are not ready.",
        "Above 0 for long.";
    UPSTREAM_EJECTIONS = Counter "upstream_ejections_total" { reason: Values::Names(&[InstanceFault::VARIANTS]) },
        "What is wrong with Mimir's instances?",
        "Ejections of upstream instances, by reason.",
        "`unreachable`: gone. `timeout`: hangs. `broken`, `broken_body`: crashes, or is cut off. `server_error`: a 5xx of its own. `not_ready`: `/ready` fails. `new`: not seen ready yet.";
    UPSTREAM_RETURNS = Counter "upstream_returns_total",
        "Do instances of Mimir recover, or flap?",
        "Ejected upstream instances that get requests again.",
        "Rises together with the ejections: an instance is up and down.";
    UPSTREAM_RETRIES = Counter "upstream_retries_total" { reason: Values::Names(&[Resend::VARIANTS]) },
        "How many failures did clients not see?",
        "Requests sent again, by reason.",
        "`unreachable`: nothing had been sent. `stale`: a kept connection had been closed. `broken`, `unavailable`: sent to another instance, within the retry budget.";
    UPSTREAM_RETRIES_REFUSED = Counter "upstream_retries_refused_total" { reason: Values::Names(&[NoResend::VARIANTS]) },
        "Why did clients see the others?",
        "Requests that failed upstream and were not sent again, by reason.",
        "`budget`: too much fails. `unsafe`: the body was too large to keep, or the request is not repeatable (Influx). `repeated`: it failed at another instance too. `no_other_instance`: there is no other instance.";
    UPSTREAM_CONNECTS = Counter "upstream_connects_total" { outcome: SUCCESS },
        "Can Mimir be connected to?",
        "Connection attempts to upstream instances.",
        "`failed` rises: instances are unreachable. `succeeded` rises with the requests: connections are not kept.";
    UPSTREAM_RESENDS = Counter "upstream_resends_total",
        "Does Mimir close connections that the proxy keeps?",
        "Requests moved to another connection because a kept one had been closed before a byte was sent.",
        "Rises with the requests: Mimir closes connections sooner than the proxy does.";
    UPSTREAM_INSTANCE_IN_FLIGHT = Gauge "upstream_instance_in_flight" { instance: Values::Open("the addresses of the first 64 instances of a process") },
        "Is one instance of Mimir slower than the others?",
        "Requests in flight at an upstream instance.",
        "One has more than the others: it is slow.";
    UPSTREAM_INSTANCE_REQUESTS = Counter "upstream_instance_requests_total" { instance: Values::Open("the addresses of the first 64 instances of a process") },
        "Is the load spread evenly over Mimir's instances?",
        "Requests sent to an upstream instance, resends included.",
        "One gets fewer than the others.";
    UPSTREAM_RESOLVE_FAILURES = Counter "upstream_resolve_failures_total",
        "Can Mimir's instances be found?",
        "Failed or empty lookups of upstream instances, of a name or in Consul.",
        "A name does not resolve, or Consul does not answer.";

    RULES_LEADER = Gauge "rules_leader",
        "Which copy writes alert rules?",
        "1 in the copy that writes alert rules.",
        "The sum over all copies should be 1.";
    RULES_LEADERSHIPS = Counter "rules_leaderships_total",
        "Does the leadership move?",
        "Times that this process became the leader.",
        "Leadership moves all the time.";
    RULES_RULES = Gauge "rules_rules" { state: Values::Names(&[RuleState::VARIANTS]) },
        "Which alert rules work, and which do not?",
        "Alert rules by state, over the organisations that this leader has reconciled.",
        "`failing` or `stored` rises in many organisations at once: the ruler does not evaluate.";
    RULES_HEALTH_READS = Counter "rules_health_reads_total" { outcome: Values::Names(&[&["read", "failed"]]) },
        "Is it known whether Mimir evaluates the rules?",
        "Readings of how Mimir evaluates one tenant's rules.",
        "`failed` rises: the rulers give no answer, and it is not known whether rules are evaluated.";
    RULES_LAG = Histogram "rules_lag_seconds" in Seconds,
        "How long does a change of a rule take to get to Mimir?",
        "Time from the notification of a change to its rules being stored in Mimir.",
        "Changes take long to be stored.";
    RULES_RECONCILES = Counter "rules_reconciles_total" { outcome: Values::Names(&[OutcomeKind::VARIANTS]) },
        "Do reconciles succeed?",
        "Reconciles of one tenant, by outcome.",
        "`failed`: Mimir or the database gave no answer. `held`: a deletion waits for a confirmation.";
    RULES_RECONCILE_DURATION = Histogram "rules_reconcile_duration_seconds" in Seconds,
        "How long does the reconcile of one tenant take?",
        "Duration of one reconcile of one tenant, writes included.",
        "Mimir's ruler or the database is slow.";
    RULES_GROUP_WRITES = Counter "rules_group_writes_total" { kind: Values::Names(&[&["set", "delete"]]) },
        "How much is written to Mimir's ruler?",
        "Rule groups written to Mimir, or deleted.",
        "Rises while no row changes: something else writes in the namespace.";
    RULES_GUARDS_HELD = Gauge "rules_guards_held" { scope: Values::Names(&[&["tenant", "overall"]]) },
        "Does a deletion of rules wait for a confirmation?",
        "Deletions that wait for an administrator's confirmation.",
        "Above 0: confirm, or find out what removed the rows.";
    RULES_TENANTS_FAILING = Gauge "rules_tenants_failing",
        "For how many tenants can rules not be written?",
        "Tenants whose last reconcile failed; they are retried.",
        "Above 0 for long.";
    RULES_FULL_RESYNC_AT = Gauge "rules_full_resync_timestamp_seconds" in Seconds,
        "When was everything compared last?",
        "Time of the last full resync, since the epoch; 0 if this process did none.",
        "Older than `rules.reconcile_interval` on the leader.";
    RULES_FULL_RESYNC_DURATION = Histogram "rules_full_resync_duration_seconds" in Seconds,
        "How long does it take to compare everything?",
        "Duration of a full resync.",
        "Near `rules.reconcile_interval`.";
    RULES_FULL_RESYNC_FAILURES = Counter "rules_full_resync_failures_total",
        "Can everything be compared?",
        "Full resyncs that could not be finished.",
        "Rises: the database or Mimir gives no answer.";
    RULES_STATUS_WRITE_FAILURES = Counter "rules_status_write_failures_total",
        "Do authors see the state of their rules?",
        "Batches of rule statuses that could not be written; they are retried.",
        "Rises: database writes fail.";
    RULES_TENANT_SUCCESS = Gauge "rules_tenant_success_timestamp_seconds" { tenant: Values::Open("the first 200 tenants, then `other`") } in Seconds,
        "Whose rules were not reconciled for long?",
        "Time of a tenant's last successful reconcile, since the epoch.",
        "One tenant's is older than the others'.";

    CHANNELS_CHANNELS = Gauge "channels_channels" { state: Values::Names(&[NotificationState::VARIANTS]) },
        "Which notification channels work, and which do not?",
        "Notification channels by state, over the organisations that this leader has reconciled.",
        "Channels are not live.";
    CHANNELS_LAG = Histogram "channels_lag_seconds" in Seconds,
        "How long does a change of a channel take to get to Mimir?",
        "Time from the notification of a change to its being stored in Mimir, which loads it within its poll interval.",
        "Changes take long to become live.";
    CHANNELS_RECONCILES = Counter "channels_reconciles_total" { outcome: Values::Names(&[OutcomeKind::VARIANTS]) },
        "Do reconciles of channels succeed?",
        "Reconciles of one organisation's channels, by outcome.",
        "`failed`: Mimir or the database gave no answer, or Mimir refuses everything. `held`: a write waits for a confirmation.";
    CHANNELS_RECONCILE_DURATION = Histogram "channels_reconcile_duration_seconds" in Seconds,
        "How long does the reconcile of one organisation's channels take?",
        "Duration of one reconcile of one organisation's channels, the write included.",
        "Mimir's Alertmanager or the database is slow.";
    CHANNELS_WRITES = Counter "channels_writes_total",
        "How much is written to Mimir's Alertmanager?",
        "Alertmanager configurations written to Mimir, or deleted.",
        "Rises while no row changes: something else writes them.";
    CHANNELS_HELD = Gauge "channels_held",
        "Does a change of channels wait for a confirmation?",
        "Organisations whose channels are not written until an administrator confirms it.",
        "Above 0: confirm, or find out what removed the rows, or who else wrote the configuration.";
    CHANNELS_FAILING = Gauge "channels_failing",
        "For how many organisations can channels not be written?",
        "Organisations whose last reconcile of channels failed; they are retried.",
        "Above 0 for long.";
    CHANNELS_FULL_RESYNC_AT = Gauge "channels_full_resync_timestamp_seconds" in Seconds,
        "When were all channels compared last?",
        "Time of the last full resync of channels, since the epoch; 0 if this process did none.",
        "Older than `channels.reconcile_interval` on the leader.";
    CHANNELS_FULL_RESYNC_FAILURES = Counter "channels_full_resync_failures_total",
        "Can all channels be compared?",
        "Full resyncs of channels that could not begin.",
        "Rises: the database gives no answer.";
    CHANNELS_TESTS = Counter "channels_tests_total" { outcome: Values::Names(&[TestOutcome::VARIANTS]) },
        "Do test notifications arrive?",
        "Tests of channels that this process was asked for, by outcome.",
        "`failed`: the channel's own service refused the notification.";
    ALERT_EVENTS_POSTS = Counter "alert_events_posts_total" { outcome: Values::Names(&[AlertPost::VARIANTS]) },
        "Do alerts of Mimir's ruler arrive here?",
        "Messages that Mimir's ruler posted to the private port.",
        "`accepted` does not rise while alerts fire: the ruler does not know the proxy. `unauthorised`: it has another secret.";
    ALERT_EVENTS_RECEIVED = Counter "alert_events_received_total" { state: Values::Names(&[&["firing", "resolved"]]) },
        "How many alerts fire and end?",
        "Alerts in these messages. The ruler repeats each every minute.",
        "Does not rise while alerts fire.";
    ALERT_EVENTS_WRITTEN = Counter "alert_events_written_total",
        "Do alerts become rows?",
        "Alerts whose reports were written to the database; reports of one alert that wait together count once.",
        "Does not rise while `alert_events_received_total` does.";
    ALERT_EVENTS_CHANGES = Counter "alert_events_changes_total" { kind: Values::Names(&[&["begun", "ended"]]) },
        "How often do alerts begin and end?",
        "Events that this copy has begun or ended.",
        "An alert flaps: both rise fast.";
    ALERT_EVENTS_DROPPED = Counter "alert_events_dropped_total" { reason: Values::Names(&[AlertDrop::VARIANTS]) },
        "Which alerts are on no page?",
        "Alerts that became no event.",
        "`over_limit`: an organisation has `alert_events.max_open` open alerts. `no_room`: the database is away for long, or an organisation floods.";
    ALERT_EVENTS_PENDING = Gauge "alert_events_pending",
        "Does the database keep up with alerts?",
        "Alerts that wait to be written.",
        "Stays above 0: the database does not take them.";
    ALERT_EVENTS_WRITE_FAILURES = Counter "alert_events_write_failures_total",
        "Does the database take alerts?",
        "Batches of alerts that could not be written; they are retried.",
        "Rises: database writes fail.";
    ALERT_EVENTS_LAG = Histogram "alert_events_lag_seconds" in Seconds,
        "How late does a page show an alert?",
        "Time from an alert's firing, by the ruler's clock, to its row.",
        "Rows come late: the ruler, or the database, is slow.";
    ALERT_EVENTS_OPEN = Gauge "alert_events_open" { kind: Values::Names(&[&["alert", "device_silent"]]) },
        "How many alerts fire, and how many devices are silent?",
        "Open events of all organisations, on the leader; 0 elsewhere.",
        "Rises suddenly: something common to many devices has happened.";

    LOG_LINES_DROPPED = Counter "log_lines_dropped_total",
        "Is the log complete?",
        "Log lines dropped, because standard output was not read fast enough or could not be written. Lines that are handed over together and find the queue full count as one.",
        "Rises: standard output is not read fast enough, or its disk is full.";
    LOG_LINES_SUPPRESSED = Counter "log_lines_suppressed_total" { reason: Values::Names(&[Reason::VARIANTS, &[Sampled::UNKNOWN_CALLER]]) },
        "Does a flood leave requests out of the log?",
        "Requests without a line in the log, because more than `log.unserved_per_second` ended with their reason. `unknown_caller`: files of the console, preflights, and requests that were given up before their caller was known.",
        "Rises: a flood of this reason. `requests_total` counts all of it, and `/admin/refusals` has the most recent refusals.";

    TRACES = Counter "traces_total" { outcome: Values::Names(&[&["recorded", "over_limit"]]) },
        "How many requests and reconciles are traced?",
        "Traces begun, and those that `traces.max_per_second` did not allow. Absent where traces are off.",
        "`over_limit` rises: traces are a smaller part of the requests than `traces.sample_ratio`.";
    SPANS_EXPORTED = Counter "trace_spans_exported_total",
        "Do spans reach the collector?",
        "Spans that the collector has taken.",
        "Does not rise while `traces_total` does: see the dropped ones.";
    SPANS_DROPPED = Counter "trace_spans_dropped_total" { reason: Values::Names(&[SpanDrop::VARIANTS]) },
        "Why do spans not reach the collector?",
        "Spans that did not reach the collector.",
        "`collector_away`: it gives no answer. `queue_full`: it is slow, or away for long. `refused`: it does not take them; the log has its answer.";
}

/// Gives the recorder the help text of every metric.
pub(super) fn describe() {
    for Metric { name, kind, unit, help, .. } in METRICS {
        match (kind, unit) {
            (Kind::Counter, None) => describe_counter!(*name, *help),
            (Kind::Counter, Some(unit)) => describe_counter!(*name, *unit, *help),
            (Kind::Gauge, None) => describe_gauge!(*name, *help),
            (Kind::Gauge, Some(unit)) => describe_gauge!(*name, *unit, *help),
            (Kind::Histogram, None) => describe_histogram!(*name, *help),
            (Kind::Histogram, Some(unit)) => describe_histogram!(*name, *unit, *help),
        }
    }
}

impl Metric {
    /// A handle to the counter with these labels, registered at 0.
    pub(super) fn counter<V, const N: usize>(&self, labels: [(&'static str, V); N]) -> Counter
    where
        V: Into<SharedString> + Clone,
    {
        counter!(self.name, &labels)
    }

    /// A handle to the gauge with these labels.
    pub(super) fn gauge<V, const N: usize>(&self, labels: [(&'static str, V); N]) -> Gauge
    where
        V: Into<SharedString> + Clone,
    {
        gauge!(self.name, &labels)
    }

    /// A handle to the histogram with these labels.
    pub(super) fn histogram<V, const N: usize>(&self, labels: [(&'static str, V); N]) -> Histogram
    where
        V: Into<SharedString> + Clone,
    {
        histogram!(self.name, &labels)
    }
}

/// No labels.
pub(super) const PLAIN: [(&str, &str); 0] = [];
