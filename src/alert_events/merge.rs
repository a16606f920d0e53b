//! From what was reported of an alert to its events. All of it is pure.
//!
//! What was reported is kept by *starts*: the ruler names the time at which an alert began to fire, and
//! of each such start we keep the latest time until which it was said to fire, and the time at which it
//! was said to be over. These only grow ([`join`]), so it does not matter in which order reports come,
//! how often, or through which copies. Events are derived from all starts together ([`derive()`]); nothing
//! is derived from what was derived before.
//!
//! A ruler that is restarted, or gives a group to another one, begins again: the same alert has a later
//! start, and nobody says that the earlier one is over. So a start that begins while an earlier one
//! holds continues its event.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use crate::store::{
    AlertChanges, AlertEventRow, AlertKey, AlertStart, AskedAlert, EndedBecause, LoadedAlerts,
    Millis, Pairs, StoredAlertEvent,
};
use crate::tenancy::OrganisationId;

/// A start that is said to fire again for longer than this after it was said to be over is not over:
/// what said so was a late report that it fires, whose own time had passed. The ruler sends one after
/// the other, so true reports differ by less.
const LATE_REPORT: Millis = 60_000;
/// Starts of an event that are remembered: its first one tells when it began, and only the last ones
/// matter for what comes.
const MOST_STARTS: usize = 50;

/// What people read of an alert.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Payload {
    pub(crate) annotations: Pairs,
    /// As the annotation says; whether it is the organisation's is seen when it is written.
    pub(crate) rule: Option<Uuid>,
    pub(crate) labels: Pairs,
}

/// What was reported of one start.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReportedStart {
    pub(crate) start: AlertStart,
    /// From the report that counts most; none if nothing was reported and its time is over.
    pub(crate) payload: Option<(Rank, Payload)>,
}

/// What is to be written of one alert.
#[derive(Clone, Debug)]
pub(crate) struct Reports {
    pub(crate) key: AlertKey,
    pub(crate) starts: BTreeMap<Millis, ReportedStart>,
}

/// Which of several reports has the annotations that count: of the latest start the end, else the one
/// that was made last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    start: Millis,
    is_resolved: bool,
    end: Millis,
}

impl Rank {
    /// Of a report.
    pub(crate) fn of_report(start: Millis, is_resolved: bool, end: Millis) -> Self {
        Self { start, is_resolved, end }
    }

    /// Of what is stored: that of the last start that made it.
    fn of_starts(starts: &BTreeMap<Millis, AlertStart>) -> Self {
        let Some((at, start)) = starts.last_key_value() else { return Self::default() };
        let end = start.resolved_at.or(start.valid_until).unwrap_or_default();
        Self { start: *at, is_resolved: start.resolved_at.is_some(), end }
    }
}

/// Takes in what else is known of a start.
pub(crate) fn join(start: &mut AlertStart, other: &AlertStart) {
    let AlertStart { valid_until, firing_seen, resolved_at, resolved_seen, expired_at } = other;
    start.valid_until = start.valid_until.max(*valid_until);
    start.firing_seen = start.firing_seen.max(*firing_seen);
    start.resolved_at = start.resolved_at.max(*resolved_at);
    start.resolved_seen = start.resolved_seen.max(*resolved_seen);
    start.expired_at = start.expired_at.max(*expired_at);
}

impl ReportedStart {
    /// Takes in what else was reported of it.
    pub(crate) fn join(&mut self, other: Self) {
        join(&mut self.start, &other.start);
        self.payload = std::mem::take(&mut self.payload).max(other.payload);
    }
}

/// An event as it is derived: the starts that it is made of, and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Derived {
    starts: BTreeMap<Millis, AlertStart>,
    ended: Option<(Millis, EndedBecause)>,
}

/// When a start was said to be over, if that counts.
fn resolved(at: Millis, start: &AlertStart) -> Option<Millis> {
    let is_late_report = start.firing_seen > start.resolved_seen.map(|seen| seen + LATE_REPORT);
    start.resolved_at.filter(|_| !is_late_report).map(|end| end.max(at))
}

/// Until when a start was said to fire.
fn valid_until(at: Millis, start: &AlertStart) -> Millis {
    start.valid_until.unwrap_or(at).max(at)
}

/// When a start is over, and why.
fn end(at: Millis, start: &AlertStart) -> Option<(Millis, EndedBecause)> {
    if let Some(end) = resolved(at, start) {
        return Some((end, EndedBecause::Resolved));
    }
    let until = valid_until(at, start);
    let is_expired = start.expired_at.is_some_and(|expired| expired >= until);
    is_expired.then_some((until, EndedBecause::Expired))
}

/// Whether the start that comes next has taken the place of this one: this one was not
/// reported since. A ruler that soon lost its group again has started, too, and then this one goes on.
fn is_superseded(at: Millis, start: &AlertStart, next: Millis) -> bool {
    let is_silent = start.firing_seen.is_none_or(|seen| seen <= next + LATE_REPORT);
    resolved(at, start).is_none() && is_silent
}

/// The events of an alert, the earliest first. Each but the last is over.
fn derive(starts: &BTreeMap<Millis, AlertStart>) -> Vec<Derived> {
    let ats: Vec<Millis> = starts.keys().copied().collect();
    let mut events = Vec::new();
    let mut event = Draft::default();
    for (index, (at, start)) in starts.iter().enumerate() {
        if !event.starts.is_empty() && event.reach < *at {
            events.push(std::mem::take(&mut event).end(true));
        }
        event.add(*at, start, ats.get(index + 1).copied());
    }
    if !event.starts.is_empty() {
        events.push(event.end(false));
    }
    events
}

/// An event to which starts are added in their order.
#[derive(Default)]
struct Draft {
    starts: BTreeMap<Millis, AlertStart>,
    /// Until when it holds: what starts by then continues it.
    reach: Millis,
    /// Those of its starts whose place no other one has taken.
    counting: Vec<(Millis, AlertStart)>,
}

impl Draft {
    fn add(&mut self, at: Millis, start: &AlertStart, next: Option<Millis>) {
        let place_taken = next.filter(|next| is_superseded(at, start, *next));
        let holds_until = match resolved(at, start) {
            // What starts at that very time is another one.
            Some(end) => end - 1,
            None => valid_until(at, start).min(place_taken.unwrap_or(Millis::MAX)),
        };
        self.reach = if self.starts.is_empty() { holds_until } else { self.reach.max(holds_until) };
        if place_taken.is_none_or(|next| self.reach < next) {
            self.counting.push((at, *start));
        }
        self.starts.insert(at, *start);
    }

    /// Finishes it; `is_followed` if another event begins after it, and so nothing of it holds any more.
    fn end(self, is_followed: bool) -> Derived {
        let ends = || self.counting.iter().filter_map(|(at, start)| end(*at, start));
        let last_end = ends().map(|(end, _)| end).max();
        let open = self.counting.iter().filter(|(at, start)| end(*at, start).is_none());
        let open = open.map(|(at, start)| valid_until(*at, start));
        // What ran out before another one was said to be over has nothing to say.
        let is_open = open.clone().any(|until| last_end.is_none_or(|last| until >= last));
        let ended = if is_open && !is_followed {
            None
        } else {
            ends().chain(open.map(|until| (until, EndedBecause::Expired))).max()
        };
        Derived { starts: self.starts, ended }
    }
}

/// What became of some reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// Alerts that were taken in.
    pub(crate) alerts: usize,
    /// Organisation and beginning of each event that is new and open.
    pub(crate) begun: Vec<(OrganisationId, Millis)>,
    pub(crate) ended: usize,
    /// Alerts of organisations that have as many open ones as they may.
    pub(crate) over_limit: Vec<OrganisationId>,
    /// Alerts of organisations that are not there, or are just being deleted.
    pub(crate) unknown: Vec<OrganisationId>,
}

/// What to ask the database for before these can be written.
pub(crate) fn asked(reports: &[Reports]) -> Vec<AskedAlert> {
    let one = |reports: &Reports| {
        let rules: BTreeSet<Uuid> =
            reports.starts.values().filter_map(|start| start.payload.as_ref()?.1.rule).collect();
        AskedAlert {
            key: reports.key.clone(),
            // An event that ended before the first start has nothing to do with it.
            since: reports.starts.first_key_value().map_or(Millis::MAX, |(at, _)| *at),
            rules: rules.into_iter().collect(),
        }
    };
    reports.iter().map(one).collect()
}

/// What is to be written of some reports, each of another alert, beside what there is.
pub(crate) fn decide(
    mut loaded: LoadedAlerts,
    reports: Vec<Reports>,
    max_open: usize,
    mut new_id: impl FnMut() -> Uuid,
) -> (AlertChanges, Written) {
    let mut changes = AlertChanges::default();
    let mut written = Written::default();
    for one in reports {
        let stored = loaded.events.remove(&one.key).unwrap_or_default();
        let was_open = stored.iter().any(|event| event.row.ended.is_none());
        let organisation = one.key.organisation.clone();
        // What the leader gives up of an absent organisation is there and ends: nothing comes back by that.
        let is_reported = one.starts.values().any(|start| start.payload.is_some());
        let is_absent = loaded.absent.contains(&organisation);
        if loaded.leaving.contains(&organisation) || is_absent && is_reported {
            written.unknown.push(organisation);
            continue;
        }
        let is_known = |rule: &Uuid| loaded.rules.contains(&(organisation.clone(), *rule));
        let complete: Vec<StoredAlertEvent> = stored.iter().map(with_starts).collect();
        let rows = rows_of(&one, &complete, is_known, &mut new_id);
        let is_open = rows.iter().any(|(row, _)| row.ended.is_none());
        let open = loaded.open.entry(organisation.clone()).or_default();
        if is_open && !was_open {
            if *open >= max_open {
                written.over_limit.push(organisation);
                continue;
            }
            *open += 1;
        } else if was_open && !is_open {
            *open = open.saturating_sub(1);
        }
        written.alerts += 1;
        note_changes(&mut changes, &mut written, &stored, rows);
    }
    (changes, written)
}

type Row = (AlertEventRow, BTreeMap<Millis, AlertStart>);

/// The events of one alert as they are to be.
fn rows_of(
    reports: &Reports,
    stored: &[StoredAlertEvent],
    is_known: impl Fn(&Uuid) -> bool,
    new_id: &mut impl FnMut() -> Uuid,
) -> Vec<Row> {
    let mut starts: BTreeMap<Millis, AlertStart> =
        stored.iter().flat_map(|event| event.starts.clone()).collect();
    for (at, reported) in &reports.starts {
        join(starts.entry(*at).or_default(), &reported.start);
    }
    // A mark of the leader's on a start that is not there any more.
    starts.retain(|_, start| start.valid_until.or(start.resolved_at).is_some());
    let mut taken = BTreeSet::new();
    let mut row = |derived: Derived| -> Option<Row> {
        let first = *derived.starts.first_key_value()?.0;
        let inside = |at: &Millis| derived.starts.contains_key(at);
        // What it was made of, the earliest first; one of them keeps its identity.
        let mut parts: Vec<&StoredAlertEvent> =
            stored.iter().filter(|event| event.starts.keys().any(inside)).collect();
        parts.sort_by_key(|event| event.row.started_at);
        let of_parts = parts
            .iter()
            .filter(|event| event.starts.last_key_value().is_some_and(|(at, _)| inside(at)))
            .map(|event| (Rank::of_starts(&event.starts), payload_of(&event.row)));
        let of_reports = reports
            .starts
            .iter()
            .filter(|(at, _)| inside(at))
            .filter_map(|(_, reported)| reported.payload.clone());
        let best = of_parts.chain(of_reports).max();
        let payload = best.map(|(_, payload)| payload).or_else(|| {
            // The first part of an event that came apart: what is stored belongs to the other part.
            parts.first().map(|event| payload_of(&event.row))
        })?;
        let mut rules = reports
            .starts
            .iter()
            .rev()
            .filter(|(at, _)| inside(at))
            .filter_map(|(_, reported)| reported.payload.as_ref()?.1.rule)
            .filter(&is_known);
        let rule = rules.next().or_else(|| parts.iter().find_map(|event| event.row.rule));
        let kept = parts.iter().map(|event| event.row.id).find(|id| !taken.contains(id));
        let id = kept.unwrap_or_else(&mut *new_id);
        taken.insert(id);
        let row = AlertEventRow {
            id,
            key: reports.key.clone(),
            rule,
            labels: payload.labels,
            annotations: payload.annotations,
            started_at: first,
            ended: derived.ended,
        };
        Some((row, derived.starts))
    };
    derive(&starts).into_iter().filter_map(&mut row).collect()
}

fn payload_of(row: &AlertEventRow) -> Payload {
    let AlertEventRow { labels, annotations, rule, .. } = row.clone();
    Payload { annotations, rule, labels }
}

/// An event whose starts are lost with one that says what its row says: it fired from its beginning to its end, or
/// until it was last written.
fn with_starts(event: &StoredAlertEvent) -> StoredAlertEvent {
    let mut event = event.clone();
    if event.starts.is_empty() {
        let written = Some(event.updated_at);
        let start = match event.row.ended {
            None => {
                AlertStart { valid_until: written, firing_seen: written, ..AlertStart::default() }
            }
            Some((end, EndedBecause::Resolved)) => AlertStart {
                resolved_at: Some(end),
                resolved_seen: written,
                ..AlertStart::default()
            },
            Some((end, _)) => AlertStart {
                valid_until: Some(end),
                expired_at: Some(end),
                ..AlertStart::default()
            },
        };
        event.starts.insert(event.row.started_at, start);
    }
    event
}

/// Notes what is different from what is stored.
fn note_changes(
    changes: &mut AlertChanges,
    written: &mut Written,
    stored: &[StoredAlertEvent],
    rows: Vec<Row>,
) {
    let before: HashMap<Uuid, &StoredAlertEvent> =
        stored.iter().map(|event| (event.row.id, event)).collect();
    let stays: BTreeSet<Uuid> = rows.iter().map(|(row, _)| row.id).collect();
    let deleted = before.keys().filter(|id| !stays.contains(id));
    changes.deleted.extend(deleted);
    for (row, mut starts) in rows {
        let old = before.get(&row.id);
        for at in fold(&mut starts) {
            if old.is_some_and(|old| old.starts.contains_key(&at)) {
                changes.forgotten.push((row.key.clone(), at));
            }
        }
        for (at, start) in starts {
            if old.and_then(|old| old.starts.get(&at)) != Some(&start) {
                changes.starts.push((row.key.clone(), row.id, at, start));
            }
        }
        let was_open = old.is_some_and(|old| old.row.ended.is_none());
        match row.ended {
            None if old.is_none() => {
                written.begun.push((row.key.organisation.clone(), row.started_at));
            }
            Some(_) if was_open || old.is_none() => written.ended += 1,
            _ => {}
        }
        if old.is_none_or(|old| old.row != row) {
            let rows = if row.ended.is_some() { &mut changes.ended } else { &mut changes.open };
            rows.push(row);
        }
    }
}

/// Takes out the starts that need not be remembered, those between the first one and the last ones, and
/// lets the first one reach as far as they did.
fn fold(starts: &mut BTreeMap<Millis, AlertStart>) -> Vec<Millis> {
    let surplus = starts.len().saturating_sub(MOST_STARTS);
    let folded: Vec<Millis> = starts.keys().skip(1).take(surplus).copied().collect();
    for at in &folded {
        starts.remove(at);
    }
    let next = starts.keys().nth(1).copied();
    if let (false, Some(next), Some(mut first)) = (folded.is_empty(), next, starts.first_entry()) {
        *first.get_mut() = AlertStart {
            valid_until: Some(next),
            firing_seen: Some(next),
            ..AlertStart::default()
        };
    }
    folded
}

#[cfg(test)]
mod tests;
