//! From the buffer to the database, in batches. What cannot be written waits; only what the database
//! refuses as such, or what belongs to no organisation, is dropped. If the database refuses everything, such
//! as by a trigger with a mistake, that waits, too.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::buffer::{Batch, Buffer};
use super::merge::{self, Reports, Written};
use super::seldom::Seldom;
use crate::backoff::Backoff;
use crate::batch_size::BatchSize;
use crate::clock::Clock;
use crate::labels::AlertDrop;
use crate::store::{AlertKey, AlertWriteError, Store, StoreError};
use crate::telemetry::AlertEventMetrics;
use crate::tenancy::OrganisationId;

/// Starts of alerts in one transaction.
const MOST_IN_BATCH: usize = 500;
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// How long it is remembered that an organisation is there, and that it is not.
const KNOWN_FOR: Duration = Duration::from_secs(60);
const UNKNOWN_FOR: Duration = Duration::from_secs(300);
/// How long the end of the process waits for what is still to be written.
const LAST_WRITES: Duration = Duration::from_secs(2);
/// So many alerts are dropped one after the other because the database refuses each. What comes then waits
/// until it takes one. So many of those that wait are tried before the next pause.
const MOST_REFUSED: usize = 16;
/// A later beginning is that of a report that healed something, not of one that took so long.
const LATEST_LAG: i64 = 15 * 60_000;

pub(crate) struct Writer {
    pub(crate) buffer: Arc<Buffer>,
    pub(crate) organisations: Arc<KnownOrganisations>,
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<AlertEventMetrics>,
    pub(crate) max_open: usize,
    pub(crate) logged: Seldom<(AlertDrop, OrganisationId)>,
}

/// How much is written at once.
struct Pace {
    size: BatchSize,
    /// Alerts that were dropped since one was written.
    refused: usize,
    /// Alerts that were refused and kept since one was written or since the last pause.
    passed_over: usize,
}

impl Pace {
    /// So many were perhaps too much for the time that a query has; the same again would take as long.
    fn failed(&mut self, error: &StoreError, tried: usize) {
        if matches!(error, StoreError::Unavailable(_)) {
            self.size.was_too_much(tried);
        }
    }
}

/// Which organisations there are, as far as was looked up.
#[derive(Default)]
pub(crate) struct KnownOrganisations(Mutex<HashMap<OrganisationId, (bool, Instant)>>);

impl KnownOrganisations {
    /// None if that has to be looked up.
    pub(crate) fn is_known(&self, organisation: &OrganisationId) -> Option<bool> {
        let known = self.0.lock();
        known.get(organisation).filter(|(_, until)| Instant::now() < *until).map(|(is, _)| *is)
    }

    fn note(&self, asked: Vec<OrganisationId>, there: &HashSet<OrganisationId>) {
        let now = Instant::now();
        let mut known = self.0.lock();
        known.retain(|_, (_, until)| now < *until);
        for organisation in asked {
            let is_known = there.contains(&organisation);
            let until = now + if is_known { KNOWN_FOR } else { UNKNOWN_FOR };
            known.insert(organisation, (is_known, until));
        }
    }
}

impl Writer {
    /// Writes until it is cancelled, and then what is left if that goes quickly.
    pub(crate) async fn run(self, cancelled: CancellationToken) {
        let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        let mut pace = Pace { size: BatchSize::new(MOST_IN_BATCH), refused: 0, passed_over: 0 };
        let mut was_away = false;
        loop {
            tokio::select! {
                () = cancelled.cancelled() => break,
                () = self.buffer.wait() => {}
            }
            match self.write_some(&mut pace).await {
                // Refused: something else is tried.
                Ok(false) => {}
                Ok(true) => {
                    backoff.reset();
                    if was_away {
                        tracing::info!("Alert events are written again");
                    }
                    was_away = false;
                }
                Err(error) => {
                    self.metrics.write_failures.increment(1);
                    // Once per outage, not at each attempt.
                    if !was_away {
                        tracing::warn!(%error, "Alert events cannot be written and are kept in memory");
                    }
                    was_away = true;
                    tokio::select! {
                        () = cancelled.cancelled() => break,
                        () = sleep(backoff.next_wait()) => {}
                    }
                }
            }
        }
        let last = timeout(LAST_WRITES, async {
            while self.buffer.pending() > 0 && self.write_some(&mut pace).await.is_ok() {}
        });
        let _ = last.await;
        let left = self.buffer.pending();
        if left > 0 {
            tracing::warn!(
                alerts = left,
                "Alert events not written at the end; the ruler repeats them"
            );
        }
    }

    /// Writes one batch. If the database refuses it or takes too long, the next one is smaller, until it is
    /// one alert. That is dropped if it is refused; the ruler repeats it while it fires. Once too many were, it is kept,
    /// and the others have their turn: one organisation's may all be refused, and the rest not. It is an outage when all
    /// that wait were refused, or so many that the database is to be left alone for a moment. Gives whether the batch
    /// is done.
    async fn write_some(&self, pace: &mut Pace) -> Result<bool, StoreError> {
        let batch = self.buffer.take(pace.size.get());
        let (sizes, tried) = (batch.sizes(), batch.starts());
        let (reports, unknown) = match self.split(&batch).await {
            Ok(split) => split,
            Err(error) => {
                pace.failed(&error, tried);
                self.buffer.give_back(batch);
                return Err(error);
            }
        };
        let is_done = match self.write(reports).await {
            Ok(written) => {
                self.buffer.free(&sizes);
                pace.size.went_well();
                if written.alerts > 0 {
                    (pace.refused, pace.passed_over) = (0, 0);
                }
                self.metrics.dropped(AlertDrop::UnknownOrganisation, unknown);
                self.note(written);
                true
            }
            Err(AlertWriteError::Store(error)) => {
                pace.failed(&error, tried);
                self.buffer.give_back(batch);
                return Err(error);
            }
            Err(AlertWriteError::Refused(problem)) => {
                pace.size.was_too_much(tried);
                match sizes.as_slice() {
                    [(AlertKey { organisation, .. }, _)] if pace.refused < MOST_REFUSED => {
                        pace.refused += 1;
                        self.buffer.free(&sizes);
                        self.drop_refused(organisation, &problem);
                    }
                    [_] => {
                        self.buffer.give_back(batch);
                        pace.passed_over += 1;
                        if pace.passed_over >= MOST_REFUSED.min(self.buffer.pending()) {
                            pace.passed_over = 0;
                            return Err(StoreError::Refused(problem));
                        }
                    }
                    _ => self.buffer.give_back(batch),
                }
                false
            }
        };
        self.metrics.pending.set(whole(self.buffer.pending()));
        Ok(is_done)
    }

    /// The reports of organisations that there are, and how many others there are.
    async fn split(&self, batch: &Batch) -> Result<(Vec<Reports>, u64), StoreError> {
        let asked: HashSet<&OrganisationId> = batch
            .reports
            .iter()
            .map(|reports| &reports.key.organisation)
            .filter(|organisation| self.organisations.is_known(organisation).is_none())
            .collect();
        if !asked.is_empty() {
            let asked: Vec<OrganisationId> = asked.into_iter().cloned().collect();
            let there = self.store.organisations_in_use(asked.clone()).await?;
            for organisation in asked.iter().filter(|organisation| !there.contains(*organisation)) {
                self.log_unknown(organisation);
            }
            self.organisations.note(asked, &there);
        }
        let is_there = |reports: &&Reports| {
            self.organisations.is_known(&reports.key.organisation).unwrap_or(true)
        };
        let reports: Vec<Reports> = batch.reports.iter().filter(is_there).cloned().collect();
        let unknown = batch.reports.len() - reports.len();
        Ok((reports, unknown as u64))
    }

    async fn write(&self, reports: Vec<Reports>) -> Result<Written, AlertWriteError> {
        if reports.is_empty() {
            return Ok(Written::default());
        }
        let (asked, max_open) = (merge::asked(&reports), self.max_open);
        let decide = move |loaded| merge::decide(loaded, reports, max_open, Uuid::new_v4);
        self.store.update_alert_events(asked, decide).await
    }

    fn log_unknown(&self, organisation: &OrganisationId) {
        if self.logged.is_due((AlertDrop::UnknownOrganisation, organisation.clone())) {
            tracing::info!(organisation.id = %organisation, "Alerts of an unknown organisation dropped");
        }
    }

    fn drop_refused(&self, organisation: &OrganisationId, problem: &str) {
        self.metrics.dropped(AlertDrop::Refused, 1);
        if self.logged.is_due((AlertDrop::Refused, organisation.clone())) {
            tracing::error!(
                problem,
                organisation.id = %organisation,
                "Alert event dropped: the database refuses it"
            );
        }
    }

    fn note(&self, written: Written) {
        let Written { alerts, begun, ended, over_limit, unknown } = written;
        self.metrics.written.increment(alerts as u64);
        self.metrics.begun.increment(begun.len() as u64);
        self.metrics.ended.increment(ended as u64);
        self.metrics.dropped(AlertDrop::UnknownOrganisation, unknown.len() as u64);
        for organisation in unknown {
            self.log_unknown(&organisation);
        }
        self.metrics.dropped(AlertDrop::OverLimit, over_limit.len() as u64);
        for organisation in over_limit {
            if self.logged.is_due((AlertDrop::OverLimit, organisation.clone())) {
                tracing::warn!(
                    organisation.id = %organisation,
                    alert_events.max_open = self.max_open,
                    "Alerts dropped: the organisation has as many open events as it may"
                );
            }
        }
        let now = i64::try_from(self.clock.now().as_millis()).unwrap_or(i64::MAX);
        for (_, start) in begun {
            let lag = now.saturating_sub(start);
            if let Ok(lag) = u32::try_from(lag.max(0))
                && i64::from(lag) <= LATEST_LAG
            {
                self.metrics.lag.record(f64::from(lag) / 1000.0);
            }
        }
    }
}

pub(crate) fn whole(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}
