//! What the leader does about events: it ends those that are not reported any more,
//! begins and ends those of silent devices, and deletes old ones.
//!
//! Silence means something only if a report could have arrived. So the leader notes in the database since
//! when a leader has been watching without a break; while the database is away, or no copy leads,
//! nothing is noted. What could not have been reported since then is not judged. Nor does the leader judge while
//! another copy may have what is not yet written ([`super::reception`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::merge::{self, ReportedStart, Reports};
use super::message::LONGEST_VALID;
use super::reception::{BREAK, Reception};
use super::seldom::Seldom;
use super::writer::whole;
use crate::batch_size::BatchSize;
use crate::config::AlertEventsConfig;
use crate::election::{LeaderTask, Lease};
use crate::labels::AlertDrop;
use crate::prom_duration::PromDuration;
use crate::store::{
    AlertKey, AlertStart, AlertWriteError, Millis, OverdueBounds, OverdueStart, SilenceBounds,
    SilenceLimits, Store, StoreError,
};
use crate::telemetry::AlertEventMetrics;
use crate::tenancy::OrganisationId;

/// How often open events are judged.
const INTERVAL: Duration = Duration::from_secs(5);
/// How often devices are: that reads all organisations.
const DEVICE_INTERVAL: Duration = Duration::from_secs(15);
/// An alert is given up so long after its time: clocks differ, and reports wait to be written.
const GRACE: Duration = Duration::from_secs(15);
/// An open event of which no start is stored is taken for one that is reported now, and holds for so long:
/// until when the ruler said that it fires is lost. A rule that is evaluated less often is seen to end and to
/// go on.
const LOST_HOLDS: Duration = Duration::from_secs(15 * 60);
/// Events that are given up in one transaction.
const MOST_EXPIRED: usize = 500;
/// Bytes of labels and annotations of these. They have to pass from Postgres within a query's time.
const MOST_EXPIRED_BYTES: i64 = 1 << 20;
/// Such transactions in one check: others come after.
const MOST_EXPIRIES: usize = 10;
/// Silent devices that begin or end with one statement, and old events that one deletes.
const MOST_DEVICES: usize = 1000;
const MOST_DELETED: usize = 2000;
const PURGE_INTERVAL: Duration = Duration::from_secs(600);
/// Ended events of an organisation that are kept, as a multiple of the open ones that it may have.
const ENDED_PER_OPEN: usize = 100;

/// The leader's part.
pub(crate) struct EventWatch {
    pub(crate) store: Store,
    pub(crate) config: AlertEventsConfig,
    /// How late the last use of a key may be written (`database.last_used_interval`).
    pub(crate) last_used_interval: Duration,
    pub(crate) metrics: Arc<AlertEventMetrics>,
    /// What is wrong with an organisation.
    pub(crate) logged: Seldom<(String, String)>,
    /// Of this copy, of which the leader wants to know the latest.
    pub(crate) reception: Arc<Reception>,
}

impl LeaderTask for EventWatch {
    fn run(&self, lease: Lease) -> BoxFuture<'_, ()> {
        async move {
            let _open = OpenGauges(&self.metrics);
            let mut was_failing = false;
            let now = Instant::now();
            let expiry = Expiry { size: BatchSize::new(MOST_EXPIRED), passed_over: 0 };
            let mut next = Next {
                devices: now,
                devices_at_once: BatchSize::new(MOST_DEVICES),
                purge: now,
                purged_at_once: BatchSize::new(MOST_DELETED),
                expiry,
                unheard: 0,
            };
            loop {
                // The lease first: a write that is begun is not begun without it, and dropped with it.
                let Ok(checked) = lease.during(self.check(&mut next)).await else { return };
                match checked {
                    Ok(()) => was_failing = false,
                    Err(error) => {
                        if !was_failing {
                            tracing::warn!(%error, "Open alert events not checked");
                        }
                        was_failing = true;
                    }
                }
                sleep(INTERVAL).await;
            }
        }
        .boxed()
    }
}

/// When something is due again, and how much of it.
struct Next {
    devices: Instant,
    devices_at_once: BatchSize,
    purge: Instant,
    purged_at_once: BatchSize,
    expiry: Expiry,
    /// Copies of which nothing was known at the last check.
    unheard: u64,
}

/// How far the giving up of alerts has come.
struct Expiry {
    size: BatchSize,
    /// Overdue alerts that could not be ended, each by itself. They are passed over until no other is left.
    passed_over: usize,
}

/// Only the leader tells how many are open.
struct OpenGauges<'a>(&'a AlertEventMetrics);

impl Drop for OpenGauges<'_> {
    fn drop(&mut self) {
        self.0.open_alerts.set(0.0);
        self.0.open_devices.set(0.0);
    }
}

impl EventWatch {
    async fn check(&self, next: &mut Next) -> Result<(), StoreError> {
        self.reception.note().await?;
        let watch = self.store.watch_alert_events(BREAK, self.uses_late()).await?;
        if watch.unheard > next.unheard {
            let copies = watch.unheard;
            tracing::info!(copies, "Copies have stopped or are not heard: no alert events expire");
        }
        next.unheard = watch.unheard;
        // Whatever becomes of one part, the others have their turn.
        let expired = self.expire_all(watch.seconds, &mut next.expiry).await;
        // Devices do not depend on rulers, but their uses may not be written yet.
        let watched_for = if watch.behind > 0 { 0.0 } else { watch.seconds };
        let checked = self.check_due_devices(watched_for, next).await;
        let purged = self.purge(next).await;
        let counted = self.count_open().await;
        expired?;
        checked.and(purged).and(counted)
    }

    /// How late the last use of a device key may be written, without anything being wrong.
    fn uses_late(&self) -> Duration {
        self.last_used_interval + BREAK
    }

    async fn check_due_devices(&self, watched_for: f64, next: &mut Next) -> Result<(), StoreError> {
        if Instant::now() >= next.devices {
            let rows = next.devices_at_once.get();
            let checked = self.check_devices(watched_for, rows).await;
            match checked {
                // There may be more: they are done at the next check.
                Ok(is_full) if is_full => next.devices_at_once.went_well(),
                Ok(_) => next.devices = Instant::now() + DEVICE_INTERVAL,
                Err(error) => {
                    next.devices_at_once.was_too_much(rows);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn purge(&self, next: &mut Next) -> Result<(), StoreError> {
        if Instant::now() >= next.purge {
            let most = self.config.max_open.saturating_mul(ENDED_PER_OPEN);
            let at_once = next.purged_at_once.get();
            let retention = self.config.retention;
            let purged = self.store.purge_alert_events(retention, most, at_once).await;
            match purged {
                Ok(_) => next.purged_at_once.went_well(),
                Err(_) => next.purged_at_once.was_too_much(at_once),
            }
            // A purge that times out is not repeated at every check: it would load the database all the time.
            if !matches!(purged, Ok(true)) {
                next.purge = Instant::now() + PURGE_INTERVAL;
            }
            purged?;
            let longest = Duration::from_millis(LONGEST_VALID.unsigned_abs());
            self.store.forget_alert_event_gaps(longest).await?;
        }
        Ok(())
    }

    async fn count_open(&self) -> Result<(), StoreError> {
        let (alerts, devices) = self.store.open_alert_events().await?;
        self.metrics.open_alerts.set(whole(usize::try_from(alerts).unwrap_or(usize::MAX)));
        self.metrics.open_devices.set(whole(usize::try_from(devices).unwrap_or(usize::MAX)));
        Ok(())
    }

    /// Gives up alerts in several transactions. One that fails is smaller the next time. One alert that fails alone
    /// keeps back no other, whatever the error: it is passed over, and tried again when the others are done.
    async fn expire_all(&self, watched_for: f64, expiry: &mut Expiry) -> Result<(), StoreError> {
        for _ in 0..MOST_EXPIRIES {
            let Expiry { size, passed_over } = &mut *expiry;
            let (events, bytes) = (size.get(), MOST_EXPIRED_BYTES);
            let most = OverdueBounds { events, bytes, passed_over: *passed_over };
            let overdue = self.store.overdue_alerts(GRACE, watched_for, most).await;
            let overdue = overdue.inspect_err(|_| size.was_too_much(events))?;
            if overdue.events == 0 {
                *passed_over = 0;
                break;
            }
            let found = overdue.events;
            let reports = marks(overdue.starts);
            // Rows of other hands, which cannot be read.
            if reports.is_empty() {
                *passed_over += found;
                continue;
            }
            let keys: Vec<AlertKey> = reports.iter().map(|reports| reports.key.clone()).collect();
            match self.expire(reports).await {
                // Another copy has just ended them, their organisation is being deleted, or their rows cannot be read.
                Ok(0) => *passed_over += found,
                Ok(_) => size.went_well(),
                Err(error) => {
                    size.was_too_much(keys.len());
                    self.metrics.write_failures.increment(1);
                    if let [key] = keys.as_slice() {
                        *passed_over += found;
                        self.log_not_ended(key.organisation.as_str(), &error.to_string());
                    }
                    // Such a failure may take as long as a query may. The others are done at the next check.
                    if let AlertWriteError::Store(error) = error {
                        return if keys.len() > 1 { Err(error) } else { Ok(()) };
                    }
                }
            }
        }
        Ok(())
    }

    /// Gives up alerts whose time is over. That is a mark on what was reported last: if another copy
    /// writes a later report meanwhile, the mark means nothing. Gives how many events have ended or got a start.
    async fn expire(&self, reports: Vec<Reports>) -> Result<usize, AlertWriteError> {
        let (asked, max_open) = (merge::asked(&reports), self.config.max_open);
        let decide = move |loaded| {
            let (changes, written) = merge::decide(loaded, reports, max_open, Uuid::new_v4);
            // Not those that are left as they are, such as of an organisation that is being deleted.
            let lost = changes.starts.iter().filter(|(.., start)| is_open(start)).count();
            (changes, (written, lost))
        };
        let (written, lost) = self.store.update_alert_events(asked, decide).await?;
        self.metrics.ended.increment(written.ended as u64);
        if written.ended > 0 {
            tracing::info!(events = written.ended, "Alert events expired");
        }
        if lost > 0 {
            tracing::warn!(
                events = lost,
                "Starts of open alert events are lost; they hold for a while"
            );
        }
        Ok(written.ended + lost)
    }

    fn log_not_ended(&self, organisation: &str, problem: &str) {
        if self.logged.is_due((organisation.to_owned(), problem.to_owned())) {
            tracing::warn!(problem, organisation.id = organisation, "Alert event not ended");
        }
    }

    /// Gives whether there may be more to do.
    async fn check_devices(&self, watched_for: f64, rows: usize) -> Result<bool, StoreError> {
        let limits = self.store.silence_limits().await?;
        let limits = self.read(limits);
        let (allowance, max_open) = (self.uses_late(), self.config.max_open);
        let most = SilenceBounds { max_open, rows };
        let changes =
            self.store.update_silent_devices(limits, allowance, watched_for, most).await?;
        self.metrics.begun.increment(changes.begun);
        self.metrics.ended.increment(changes.ended);
        if changes.begun > 0 {
            tracing::info!(devices = changes.begun, "Devices are silent");
        }
        self.metrics.dropped(AlertDrop::Refused, changes.not_begun.len() as u64);
        for (organisation, problem) in changes.not_begun {
            if self.logged.is_due((organisation.clone(), problem.clone())) {
                tracing::error!(
                    problem,
                    organisation.id = organisation,
                    "Silent devices not written: the database refuses one"
                );
            }
        }
        self.metrics.write_failures.increment(changes.not_ended.len() as u64);
        for (organisation, problem) in changes.not_ended {
            self.log_not_ended(&organisation, &problem);
        }
        let rows = rows as u64;
        Ok(changes.begun >= rows || changes.ended >= rows)
    }

    /// Durations in seconds. One that is none watches nobody.
    fn read(&self, limits: Vec<(OrganisationId, String)>) -> SilenceLimits {
        let read = |(organisation, text): (OrganisationId, String)| {
            match PromDuration::parse_unordered(text.trim()) {
                Ok(after) if !after.is_zero() => {
                    Some((organisation, Duration::from(after).as_secs_f64()))
                }
                _ => {
                    if self.logged.is_due((organisation.to_string(), text)) {
                        tracing::warn!(organisation.id = %organisation, "device_silent_after is no duration");
                    }
                    None
                }
            }
        };
        limits.into_iter().filter_map(read).collect()
    }
}

/// Whether a start that giving up has changed is one that was lost: the others are over.
fn is_open(start: &AlertStart) -> bool {
    start.expired_at.is_none() && start.resolved_at.is_none()
}

fn marks(overdue: Vec<OverdueStart>) -> Vec<Reports> {
    let holds = Millis::try_from(LOST_HOLDS.as_millis()).unwrap_or(Millis::MAX);
    let mut by_key: BTreeMap<AlertKey, BTreeMap<Millis, ReportedStart>> = BTreeMap::new();
    for OverdueStart { key, at, until, is_lost } in overdue {
        let start = if is_lost {
            let valid_until = Some(until.saturating_add(holds));
            AlertStart { valid_until, firing_seen: Some(until), ..AlertStart::default() }
        } else {
            AlertStart { expired_at: Some(until), ..AlertStart::default() }
        };
        let reported = ReportedStart { start, payload: None };
        by_key.entry(key).or_default().insert(at, reported);
    }
    by_key.into_iter().map(|(key, starts)| Reports { key, starts }).collect()
}
