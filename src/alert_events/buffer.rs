//! Reports that are not yet written. Those of one alert become one, however many come while Postgres is
//! away, so the buffer grows with the number of alerts and not with the time.
//!
//! It is bounded in bytes, and shared as slots of requests are (decision 17): an organisation may hold as
//! much as is still free. So one that floods it leaves room for all others, without a reservation.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::merge::{ReportedStart, Reports};
use super::message::{Report, bytes};
use crate::store::{AlertKey, Millis};
use crate::tenancy::OrganisationId;

/// Bytes that all reports together may take.
pub(crate) const MOST_BYTES: usize = 64 << 20;
/// What a report takes beside its texts.
const LEAST_BYTES: usize = 256;
/// Bytes that are taken together: they have to pass to Postgres within a query's time, however slow the way.
const MOST_TAKEN_BYTES: usize = 1 << 20;
/// Starts of one organisation's alerts that are taken before another one's turn, or few more. So many of one alert are
/// taken at once, its latest first.
const TURN: usize = 50;

pub(crate) struct Buffer {
    state: Mutex<State>,
    /// Wakes the writer.
    filled: Notify,
    /// Alerts of one organisation.
    most_alerts: usize,
    most_bytes: usize,
}

#[derive(Default)]
struct State {
    organisations: HashMap<OrganisationId, Pending>,
    /// Organisations that have something to be taken, each once.
    turns: VecDeque<OrganisationId>,
    bytes: usize,
}

/// One organisation's.
#[derive(Default)]
struct Pending {
    alerts: BTreeMap<String, BTreeMap<Millis, ReportedStart>>,
    /// The alert that was taken last. The next one is the one after it: one that is given back again and again, because
    /// the database does not take it, keeps back no other.
    taken_last: Option<String>,
    /// Since when each alert has something that is not written.
    since: HashMap<String, Instant>,
    /// Also of what is being written.
    bytes: usize,
    being_written: usize,
}

/// What was taken, until it is written or given back.
pub(crate) struct Batch {
    pub(crate) reports: Vec<Reports>,
}

fn size(start: &ReportedStart) -> usize {
    let texts = start
        .payload
        .as_ref()
        .map_or(0, |(_, payload)| bytes(&payload.labels) + bytes(&payload.annotations));
    LEAST_BYTES + texts
}

fn size_of(reports: &Reports) -> usize {
    reports.starts.values().map(size).sum()
}

impl Pending {
    /// The alert that is taken next.
    fn next(&self) -> Option<(&String, &BTreeMap<Millis, ReportedStart>)> {
        let after = self.taken_last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        self.alerts.range::<String, _>((after, Bound::Unbounded)).chain(&self.alerts).next()
    }
}

impl Buffer {
    pub(crate) fn new(most_alerts: usize, most_bytes: usize) -> Self {
        Self { state: Mutex::default(), filled: Notify::new(), most_alerts, most_bytes }
    }

    /// Takes in reports of an organisation. Returns for how many there was no room.
    pub(crate) fn add(&self, organisation: &OrganisationId, reports: Vec<Report>) -> usize {
        let mut refused = 0;
        let mut state = self.state.lock();
        let state = &mut *state;
        let pending = state.organisations.entry(organisation.clone()).or_default();
        let was_empty = pending.alerts.is_empty();
        for report in reports {
            let added = size(&report.reported);
            let known = pending.alerts.get(&report.fingerprint);
            let replaced = known.and_then(|starts| starts.get(&report.start)).map_or(0, size);
            let free = self.most_bytes.saturating_sub(state.bytes);
            // News of what is there anyway is taken in whatever the room, unless it is longer.
            let is_full = added > replaced && pending.bytes + added - replaced > free;
            let is_one_too_many =
                known.is_none() && pending.alerts.len() + pending.being_written >= self.most_alerts;
            if is_full || is_one_too_many {
                refused += 1;
                continue;
            }
            pending.since.entry(report.fingerprint.clone()).or_insert_with(Instant::now);
            let starts = pending.alerts.entry(report.fingerprint).or_default();
            let start = starts.entry(report.start).or_default();
            start.join(report.reported);
            let after = size(start);
            pending.bytes = (pending.bytes + after).saturating_sub(replaced);
            state.bytes = (state.bytes + after).saturating_sub(replaced);
        }
        if was_empty && !pending.alerts.is_empty() {
            state.turns.push_back(organisation.clone());
        }
        if pending.alerts.is_empty() && pending.being_written == 0 {
            state.organisations.remove(organisation);
        }
        self.filled.notify_one();
        refused
    }

    /// Waits until there is something to be written.
    pub(crate) async fn wait(&self) {
        while self.state.lock().turns.is_empty() {
            self.filled.notified().await;
        }
    }

    /// Takes some starts of alerts, of each organisation in turn: at most so many, and not too many bytes. An alert that
    /// began very often while Postgres was away is taken in parts.
    pub(crate) fn take(&self, most: usize) -> Batch {
        let mut state = self.state.lock();
        let state = &mut *state;
        let (mut reports, mut later) = (Vec::new(), Vec::new());
        let (mut taken, mut bytes, mut is_full) = (0, 0, false);
        while taken < most && !is_full {
            let Some(organisation) = state.turns.pop_front() else { break };
            let Some(pending) = state.organisations.get_mut(&organisation) else { continue };
            let (before, mut is_in_parts) = (taken, false);
            while taken < most && taken - before < TURN && !is_in_parts {
                let Some((fingerprint, starts)) = pending.next() else { break };
                let fingerprint = fingerprint.clone();
                let (mut part, mut more) = (0, 0);
                for start in starts.values().rev().take(TURN.min(most - taken)) {
                    is_full = taken + part > 0 && bytes + more + size(start) > MOST_TAKEN_BYTES;
                    if is_full {
                        break;
                    }
                    (part, more) = (part + 1, more + size(start));
                }
                if part == 0 {
                    break;
                }
                let Some(mut starts) = pending.alerts.remove(&fingerprint) else { break };
                let first = starts.keys().rev().nth(part - 1).copied();
                let last = first.map(|at| starts.split_off(&at)).unwrap_or_default();
                is_in_parts = !starts.is_empty();
                if is_in_parts {
                    pending.alerts.insert(fingerprint.clone(), starts);
                }
                (taken, bytes) = (taken + part, bytes + more);
                pending.taken_last = Some(fingerprint.clone());
                pending.being_written += 1;
                let key = AlertKey { organisation: organisation.clone(), fingerprint };
                reports.push(Reports { key, starts: last });
            }
            if is_full && taken == before {
                // Its turn is the next one.
                state.turns.push_front(organisation);
            } else if is_in_parts {
                // An alert is in a batch once.
                later.push(organisation);
            } else if !pending.alerts.is_empty() {
                state.turns.push_back(organisation);
            }
        }
        state.turns.extend(later);
        Batch { reports }
    }

    /// These were written, or cannot be: the room that they took is free.
    pub(crate) fn free(&self, sizes: &[(AlertKey, usize)]) {
        let mut state = self.state.lock();
        let state = &mut *state;
        for (AlertKey { organisation, fingerprint }, size) in sizes {
            state.bytes = state.bytes.saturating_sub(*size);
            if let Some(pending) = state.organisations.get_mut(organisation) {
                pending.bytes = pending.bytes.saturating_sub(*size);
                pending.being_written = pending.being_written.saturating_sub(1);
                pending.since.remove(fingerprint);
                if pending.alerts.contains_key(fingerprint) {
                    // It came meanwhile.
                    pending.since.insert(fingerprint.clone(), Instant::now());
                }
                if pending.alerts.is_empty() && pending.being_written == 0 {
                    state.organisations.remove(organisation);
                }
            }
        }
    }

    /// These could not be written: they wait again, together with what came meanwhile.
    pub(crate) fn give_back(&self, batch: Batch) {
        let mut state = self.state.lock();
        let state = &mut *state;
        for reports in batch.reports {
            let taken = size_of(&reports);
            let AlertKey { organisation, fingerprint } = reports.key;
            let pending = state.organisations.entry(organisation.clone()).or_default();
            if pending.alerts.is_empty() {
                state.turns.push_back(organisation);
            }
            let starts = pending.alerts.entry(fingerprint).or_default();
            let before = taken + starts.values().map(size).sum::<usize>();
            for (at, start) in reports.starts {
                starts.entry(at).or_default().join(start);
            }
            let after: usize = starts.values().map(size).sum();
            pending.being_written = pending.being_written.saturating_sub(1);
            pending.bytes = (pending.bytes + after).saturating_sub(before);
            state.bytes = (state.bytes + after).saturating_sub(before);
        }
    }

    /// Alerts that wait or are being written.
    pub(crate) fn pending(&self) -> usize {
        let state = self.state.lock();
        state
            .organisations
            .values()
            .map(|pending| pending.alerts.len() + pending.being_written)
            .sum()
    }

    /// Organisations of which something has waited for longer than that.
    pub(crate) fn waiting(&self, longer: Duration) -> Vec<OrganisationId> {
        let now = Instant::now();
        let state = self.state.lock();
        let has_waited = |pending: &Pending| pending.since.values().any(|at| *at + longer < now);
        let waiting = state.organisations.iter().filter(|(_, pending)| has_waited(pending));
        waiting.map(|(organisation, _)| organisation.clone()).collect()
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.state.lock().bytes
    }
}

impl Batch {
    /// How many starts of alerts it has.
    pub(crate) fn starts(&self) -> usize {
        self.reports.iter().map(|reports| reports.starts.len()).sum()
    }

    /// How much room each of its alerts takes.
    pub(crate) fn sizes(&self) -> Vec<(AlertKey, usize)> {
        let one = |reports: &Reports| (reports.key.clone(), size_of(reports));
        self.reports.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert_events::message::read;
    use proptest::prelude::*;

    const NOW: Millis = 1_764_000_000_000;

    fn organisation(name: &str) -> OrganisationId {
        OrganisationId::parse(name).unwrap()
    }

    fn reports(alerts: std::ops::Range<usize>, length: usize) -> Vec<Report> {
        let alert = |number: usize| {
            serde_json::json!({"startsAt": "2025-11-24T16:00:00Z", "annotations": {"text": "x".repeat(length)},
                               "labels": {"alertname": number.to_string()}})
        };
        let text = alerts.map(alert).collect::<serde_json::Value>().to_string();
        read(text.as_bytes(), NOW).unwrap().reports
    }

    #[test]
    fn reports_of_one_alert_become_one() {
        let buffer = Buffer::new(100, MOST_BYTES);
        for _ in 0..1000 {
            assert_eq!(buffer.add(&organisation("a"), reports(0..3, 10)), 0);
        }
        assert_eq!(buffer.pending(), 3);
        let batch = buffer.take(100);
        assert_eq!(batch.reports.len(), 3);
        buffer.free(&batch.sizes());
        assert_eq!((buffer.pending(), buffer.bytes()), (0, 0));
    }

    // One that floods the buffer does not take the others' room.
    #[test]
    fn an_organisation_that_floods_leaves_room_for_others() {
        let buffer = Buffer::new(1_000_000, 1 << 20);
        let flood = organisation("flood");
        assert!(buffer.add(&flood, reports(0..4000, 1000)) > 0);
        assert!(buffer.bytes() <= 1 << 19, "half of it");
        for name in ["a", "b", "c"] {
            assert_eq!(buffer.add(&organisation(name), reports(0..20, 1000)), 0, "{name}");
        }
        // What fires already goes on, at the same length.
        assert_eq!(buffer.add(&flood, reports(0..10, 1000)), 0);
        assert_eq!(buffer.add(&flood, reports(0..10, 1001)), 10);
        // Everybody has a turn.
        let taken = buffer.take(150);
        for name in ["a", "b", "c"] {
            let key = |reports: &&Reports| reports.key.organisation == organisation(name);
            assert_eq!(taken.reports.iter().filter(key).count(), 20, "{name}");
        }
    }

    #[test]
    fn the_number_of_alerts_of_an_organisation_is_bounded() {
        let buffer = Buffer::new(10, MOST_BYTES);
        assert_eq!(buffer.add(&organisation("a"), reports(0..15, 1)), 5);
        let batch = buffer.take(4);
        assert_eq!(
            buffer.add(&organisation("a"), reports(20..25, 1)),
            5,
            "also while it is written"
        );
        buffer.free(&batch.sizes());
        assert_eq!(buffer.add(&organisation("a"), reports(20..25, 1)), 1);
    }

    // The leader must not take an alert for one that is over because its report waits here.
    #[tokio::test(start_paused = true)]
    async fn it_is_known_whose_reports_have_waited_for_long() {
        let buffer = Buffer::new(100, MOST_BYTES);
        let (a, b) = (organisation("a"), organisation("b"));
        let (long, pause) = (Duration::from_secs(30), Duration::from_secs(20));
        buffer.add(&a, reports(0..2, 10));
        tokio::time::advance(pause).await;
        buffer.add(&a, reports(0..2, 10));
        buffer.add(&b, reports(0..1, 10));
        assert_eq!(buffer.waiting(long), []);
        tokio::time::advance(pause).await;
        assert_eq!(buffer.waiting(long), std::slice::from_ref(&a), "by its first report");
        let batch = buffer.take(1);
        assert_eq!(buffer.waiting(long), std::slice::from_ref(&a));
        buffer.give_back(batch);
        let batch = buffer.take(10);
        assert_eq!(buffer.waiting(long), std::slice::from_ref(&a), "also while it is written");
        buffer.add(&a, reports(0..1, 10));
        buffer.free(&batch.sizes());
        assert_eq!(buffer.waiting(long), [], "what came meanwhile waits since then");
        tokio::time::advance(pause * 2).await;
        assert_eq!(buffer.waiting(long), [a]);
    }

    // Seen: a batch of long alerts took longer on a slow link than a query may take, and was tried again for
    // ever.
    #[test]
    fn what_is_taken_together_is_bounded_in_bytes() {
        let buffer = Buffer::new(10_000, MOST_BYTES);
        let long = organisation("long");
        assert_eq!(buffer.add(&long, reports(0..400, 31_000)), 0);
        assert_eq!(buffer.add(&organisation("a"), reports(0..3, 10)), 0);
        let first = buffer.take(500);
        let bytes: usize = first.sizes().iter().map(|(_, bytes)| bytes).sum();
        assert!(bytes <= MOST_TAKEN_BYTES && first.reports.len() > 30, "{bytes}");
        let second = buffer.take(500);
        let others = |one: &&Reports| one.key.organisation == organisation("a");
        assert_eq!(second.reports.iter().filter(others).count(), 3, "its turn is the next");
        // One of which that is too much is taken in parts, and is not passed over.
        let buffer = Buffer::new(10, MOST_BYTES);
        assert_eq!(buffer.add(&organisation("a"), reports(0..1, 10)), 0);
        assert_eq!(buffer.add(&long, starts(20, 60_000)), 0);
        assert_eq!(buffer.add(&organisation("b"), reports(0..1, 10)), 0);
        let names = |batch: Batch| -> Vec<(String, usize)> {
            let of = |one: &Reports| (one.key.organisation.to_string(), one.starts.len());
            batch.reports.iter().map(of).collect()
        };
        let expected = |names: &[(&str, usize)]| -> Vec<(String, usize)> {
            names.iter().map(|(name, starts)| ((*name).to_owned(), *starts)).collect()
        };
        assert_eq!(names(buffer.take(500)), expected(&[("a", 1), ("long", 17)]));
        assert_eq!(names(buffer.take(500)), expected(&[("b", 1), ("long", 3)]));
    }

    /// Reports of one alert that began so often.
    fn starts(count: usize, length: usize) -> Vec<Report> {
        let start = |number: usize| {
            let start = format!("2025-11-24T{:02}:{:02}:00Z", number / 60, number % 60);
            serde_json::json!({"startsAt": start, "annotations": {"text": "x".repeat(length)},
                               "labels": {"alertname": "Long"}})
        };
        let text = (0..count).map(start).collect::<serde_json::Value>().to_string();
        read(text.as_bytes(), NOW).unwrap().reports
    }

    // All starts of an alert were one unit, however many there were after an outage, and could not be written in the
    // time that there is.
    #[test]
    fn an_alert_that_began_very_often_is_taken_in_parts_the_latest_first() {
        let buffer = Buffer::new(10, MOST_BYTES);
        let (often, other) = (organisation("often"), organisation("other"));
        buffer.add(&often, starts(120, 1));
        buffer.add(&other, reports(0..2, 1));
        let batch = buffer.take(500);
        let of_often = |batch: &Batch| -> Vec<Reports> {
            let is_its = |one: &&Reports| one.key.organisation == often;
            batch.reports.iter().filter(is_its).cloned().collect()
        };
        let first = of_often(&batch);
        assert_eq!((first.len(), first[0].starts.len(), batch.starts()), (1, TURN, TURN + 2));
        buffer.free(&batch.sizes());
        // After a batch that was too much it is less.
        let second = buffer.take(7);
        assert_eq!(second.starts(), 7);
        let last = |reports: &Reports| *reports.starts.last_key_value().unwrap().0;
        assert!(last(&of_often(&second)[0]) < *first[0].starts.first_key_value().unwrap().0);
        buffer.give_back(second);
        let mut taken = TURN;
        while buffer.pending() > 0 {
            let batch = buffer.take(500);
            taken += batch.starts();
            buffer.free(&batch.sizes());
        }
        assert_eq!((taken, buffer.bytes()), (120, 0));
    }

    // Seen: an alert that the database refused was tried for ever, and no other of its organisation.
    #[test]
    fn an_alert_that_is_given_back_comes_after_the_others_of_its_organisation() {
        let buffer = Buffer::new(100, MOST_BYTES);
        for name in ["a", "b"] {
            assert_eq!(buffer.add(&organisation(name), reports(0..5, 10)), 0);
        }
        let mut tried: Vec<AlertKey> = Vec::new();
        for _ in 0..20 {
            let batch = buffer.take(1);
            tried.push(batch.reports[0].key.clone());
            buffer.give_back(batch);
        }
        let (first, second) = tried.split_at(10);
        let all: std::collections::HashSet<&AlertKey> = first.iter().collect();
        assert_eq!(all.len(), 10, "each once in a round");
        assert_eq!(first, second);
        let in_turn = |two: &[AlertKey]| two[0].organisation != two[1].organisation;
        assert!(tried.windows(2).all(in_turn), "{tried:?}");
        // So does one that comes later.
        assert_eq!(buffer.add(&organisation("a"), reports(5..6, 10)), 0);
        let late = reports(5..6, 10)[0].fingerprint.clone();
        let is_late = (0..12).any(|_| {
            let batch = buffer.take(1);
            let is_late = batch.reports[0].key.fingerprint == late;
            buffer.give_back(batch);
            is_late
        });
        assert!(is_late);
    }

    proptest! {
        // Whatever is taken, given back and added: nothing is lost, and all room is free in the end.
        #[test]
        fn nothing_is_lost_and_room_is_counted_right(steps in proptest::collection::vec((0..4_u8, 0..6_usize, 1..40_usize), 1..60)) {
            let buffer = Buffer::new(1000, MOST_BYTES);
            let mut added = std::collections::BTreeSet::new();
            let mut written = std::collections::BTreeSet::new();
            let mut taken = Vec::new();
            for (step, alert, length) in steps {
                let of = organisation(if alert % 2 == 0 { "even" } else { "odd" });
                match step {
                    0 | 1 => {
                        prop_assert_eq!(buffer.add(&of, reports(alert..alert + 1, length)), 0);
                        added.insert(reports(alert..alert + 1, 0)[0].fingerprint.clone());
                    }
                    2 => taken.push(buffer.take(alert + 1)),
                    _ => if let Some(batch) = taken.pop() {
                        if alert < 3 {
                            buffer.give_back(batch);
                        } else {
                            buffer.free(&batch.sizes());
                            written.extend(batch.reports.into_iter().map(|one| one.key.fingerprint));
                        }
                    }
                }
            }
            for batch in taken {
                buffer.give_back(batch);
            }
            let rest = buffer.take(usize::MAX);
            buffer.free(&rest.sizes());
            written.extend(rest.reports.into_iter().map(|one| one.key.fingerprint));
            prop_assert_eq!(added, written);
            prop_assert_eq!((buffer.pending(), buffer.bytes()), (0, 0));
            prop_assert!(buffer.state.lock().organisations.is_empty());
        }
    }
}
