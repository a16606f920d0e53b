//! Limits from the database: all rows in memory, read again on every change.
//!
//! They are read as [revocations](crate::authn::Revocations) are: on a notification, once a minute, and
//! twice a second while notifications do not arrive. What was read last holds while the database is away,
//! however long.
//!
//! A row that cannot be a limit lifts none and closes nothing: what the same limit was before holds, and if
//! it never was one, what the configuration says. It is counted, and named in the log and in `/admin`.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Limits;
use crate::backoff::Backoff;
use crate::config::LimitValue;
use crate::store::{Feed, LimitRow, Store};
use crate::tenancy::OrganisationId;

#[derive(Default)]
pub(super) struct Rows {
    read: ArcSwap<Read>,
    wake: Notify,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// By organisation, and by the name of the limit.
    limits: HashMap<OrganisationId, BTreeMap<&'static str, LimitValue>>,
    /// Rows that are none.
    pub(super) faults: Vec<RowFault>,
    /// How many of these there are; not all are kept.
    pub(super) faulty: usize,
    pub(super) at: Option<Instant>,
}

/// A row that is no limit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RowFault {
    /// As it is in the row.
    pub organisation: String,
    pub name: String,
    pub problem: String,
}

const READ_EVERY: Duration = Duration::from_secs(60);
const UNWATCHED: Duration = Duration::from_millis(500);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(2);
/// Between two readings: many changes are read together.
const PAUSE: Duration = Duration::from_millis(100);
/// Faulty rows that are kept for `/admin`.
const MOST_FAULTS: usize = 100;
/// Faulty rows that get a line in the log at a reading.
const MOST_LINES: usize = 10;

impl Read {
    /// Takes rows; `before` is what was read before.
    fn of(rows: &[LimitRow], before: &Self) -> Self {
        let mut read = Self { at: Some(Instant::now()), ..Self::default() };
        for row in rows {
            let organisation = match OrganisationId::parse(&row.organisation) {
                Ok(organisation) => organisation,
                Err(error) => {
                    read.fault(row, error.to_string());
                    continue;
                }
            };
            match LimitValue::parse(&row.name, &row.value) {
                Ok(value) => {
                    let own = read.limits.entry(organisation).or_default();
                    if let Some(other) = own.insert(value.name(), value) {
                        own.insert(value.name(), value.stricter(other));
                        read.fault(row, "there are two; the stricter one holds".to_owned());
                    }
                }
                Err(problem) => {
                    if let Some(last) = before.limit(&organisation, &row.name) {
                        let own = read.limits.entry(organisation).or_default();
                        own.entry(last.name()).or_insert(last);
                        read.fault(row, format!("{problem}; the last valid one holds"));
                    } else {
                        read.fault(row, format!("{problem}; the configuration's holds"));
                    }
                }
            }
        }
        read
    }

    fn fault(&mut self, row: &LimitRow, problem: String) {
        self.faulty += 1;
        if self.faults.len() < MOST_FAULTS {
            let (organisation, name) = (row.organisation.clone(), row.name.clone());
            self.faults.push(RowFault { organisation, name, problem });
        }
    }

    fn limit(&self, organisation: &OrganisationId, name: &str) -> Option<LimitValue> {
        self.limits.get(organisation)?.get(name).copied()
    }

    /// The limits of one organisation.
    pub(super) fn of_organisation(
        &self,
        organisation: &OrganisationId,
    ) -> impl Iterator<Item = LimitValue> {
        self.limits.get(organisation).into_iter().flat_map(|own| own.values().copied())
    }

    pub(super) fn organisations(&self) -> usize {
        self.limits.len()
    }

    fn count(&self) -> usize {
        self.limits.values().map(BTreeMap::len).sum()
    }

    /// Organisations whose limits differ.
    fn changed(&self, other: &Self) -> HashSet<OrganisationId> {
        let all = self.limits.keys().chain(other.limits.keys());
        all.filter(|one| self.limits.get(*one) != other.limits.get(*one)).cloned().collect()
    }
}

impl Rows {
    pub(super) fn load(&self) -> Arc<Read> {
        self.read.load_full()
    }
}

impl Limits {
    /// The faults of some rows, at most 100 of them.
    pub fn faults_of(rows: &[LimitRow]) -> Vec<RowFault> {
        Read::of(rows, &Read::default()).faults
    }

    /// Has the rows read again.
    pub fn refresh_rows(&self) {
        self.rows.wake.notify_one();
    }

    /// How long ago the rows were read; none if they never were.
    pub fn rows_age(&self) -> Option<Duration> {
        self.rows.load().at.map(|at| at.elapsed())
    }

    /// Waits until they have been read once.
    pub async fn first_rows(&self) {
        while self.rows_age().is_none() {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Reads the rows at start, on every change and at intervals, until it is cancelled.
    pub async fn run_rows(&self, store: Store, feed: Arc<Feed>, cancelled: CancellationToken) {
        let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        loop {
            let pause = match store.organisation_limits().await {
                Ok(rows) => {
                    self.adopt_rows(&rows);
                    backoff.reset();
                    if feed.is_connected() { READ_EVERY } else { UNWATCHED }
                }
                Err(error) => {
                    tracing::warn!(%error, "Failed to read limits of organisations");
                    self.metrics.limit_row_failures.increment(1);
                    backoff.next_wait()
                }
            };
            let waited = async {
                tokio::select! {
                    () = sleep(pause) => {}
                    () = self.rows.wake.notified() => sleep(PAUSE).await,
                }
            };
            if cancelled.run_until_cancelled(waited).await.is_none() {
                return;
            }
        }
    }

    pub(super) fn adopt_rows(&self, rows: &[LimitRow]) {
        let before = self.rows.load();
        let read = Arc::new(Read::of(rows, &before));
        let known: HashSet<&RowFault> = before.faults.iter().collect();
        let new = read.faults.iter().filter(|fault| !known.contains(fault));
        for RowFault { organisation, name, problem } in new.take(MOST_LINES) {
            tracing::warn!(organisation.id = organisation, name, problem, "Invalid limit row");
        }
        if read.faulty != before.faulty {
            tracing::warn!(faulty = read.faulty, rows = rows.len(), "Invalid limit rows changed");
        }
        let count = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        self.metrics.limit_rows.set(count(read.count()));
        self.metrics.limit_rows_invalid.set(count(read.faulty));
        let changed = read.changed(&before);
        self.rows.read.store(read);
        self.apply(|organisation| changed.contains(organisation));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(organisation: &str, name: &str, value: &str) -> LimitRow {
        let [organisation, name, value] = [organisation, name, value].map(str::to_owned);
        LimitRow { organisation, name, value }
    }

    fn values(read: &Read, organisation: &str) -> Vec<LimitValue> {
        read.of_organisation(&OrganisationId::parse(organisation).unwrap()).collect()
    }

    fn value(name: &str, text: &str) -> LimitValue {
        LimitValue::parse(name, text).unwrap()
    }

    // A wrong row takes nothing along, and is told.
    #[test]
    fn a_row_that_is_no_limit_is_told_and_leaves_what_was_before() {
        let none = Read::default();
        let first = Read::of(
            &[
                row("acme", "push_requests_per_second", "10"),
                row("acme", "push_in_flight", "0"),
                row("acme", "pushes", "1"),
                row("", "push_in_flight", "1"),
                row("other", "device_push_in_flight", "2"),
            ],
            &none,
        );
        assert_eq!(values(&first, "acme"), [value("push_requests_per_second", "10")]);
        assert_eq!(values(&first, "other"), [value("device_push_in_flight", "2")]);
        assert_eq!((first.faulty, first.count(), first.organisations()), (3, 2, 2));
        assert!(first.faults[0].problem.ends_with("the configuration's holds"), "{first:?}");
        let second = Read::of(
            &[row("acme", "push_requests_per_second", "a lot"), row("other", "", "")],
            &first,
        );
        assert_eq!(values(&second, "acme"), [value("push_requests_per_second", "10")]);
        assert!(second.faults[0].problem.ends_with("the last valid one holds"), "{second:?}");
        assert_eq!(values(&second, "other"), []);
        // It also holds the time after.
        let third = Read::of(&[row("acme", "push_requests_per_second", "")], &second);
        assert_eq!(values(&third, "acme"), [value("push_requests_per_second", "10")]);
        // A row that is gone is gone.
        assert_eq!(Read::of(&[], &third).count(), 0);
    }

    // Tables of the operator's own may have both.
    #[test]
    fn of_two_rows_for_one_limit_the_stricter_one_holds() {
        for (one, other) in [("5", "9"), ("9", "5"), ("none", "5")] {
            let rows = [
                row("acme", "push_requests_per_second", one),
                row("acme", "push_requests_per_second", other),
            ];
            let read = Read::of(&rows, &Read::default());
            assert_eq!(values(&read, "acme"), [value("push_requests_per_second", "5")]);
            assert_eq!(read.faulty, 1);
        }
    }

    #[test]
    fn a_flood_of_wrong_rows_is_counted_and_not_kept() {
        let rows: Vec<_> = (0..5000).map(|at| row("acme", &format!("x{at}"), "1")).collect();
        let read = Read::of(&rows, &Read::default());
        assert_eq!((read.faulty, read.faults.len()), (5000, MOST_FAULTS));
    }

    #[test]
    fn only_organisations_with_other_limits_have_changed() {
        let before = Read::of(
            &[row("a", "push_in_flight", "1"), row("b", "push_in_flight", "1")],
            &Read::default(),
        );
        let after =
            Read::of(&[row("a", "push_in_flight", "1"), row("c", "push_in_flight", "1")], &before);
        let changed = after.changed(&before);
        let changed: std::collections::BTreeSet<_> =
            changed.iter().map(OrganisationId::as_str).collect();
        assert_eq!(changed.into_iter().collect::<Vec<_>>(), ["b", "c"]);
    }
}
