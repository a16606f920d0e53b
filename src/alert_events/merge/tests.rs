use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const SECOND: Millis = 1000;
const MINUTE: Millis = 60 * SECOND;

/// A report as it comes from a ruler, and when.
#[derive(Clone, Debug)]
struct Report {
    alert: u8,
    start: Millis,
    end: Millis,
    seen: Millis,
    note: u8,
}

fn key(alert: u8) -> AlertKey {
    let organisation = OrganisationId::parse("org-a").unwrap();
    AlertKey { organisation, fingerprint: format!("{alert:016x}") }
}

fn pairs(name: &str, value: String) -> Pairs {
    Pairs::from([(name.to_owned(), value)])
}

impl Report {
    fn firing(start: Millis, seen: Millis) -> Self {
        Self { alert: 0, start, end: seen + 5 * MINUTE, seen, note: 0 }
    }

    fn resolved(start: Millis, end: Millis, seen: Millis) -> Self {
        Self { alert: 0, start, end, seen, note: 0 }
    }

    fn note(mut self, note: u8) -> Self {
        self.note = note;
        self
    }

    fn reports(&self) -> Reports {
        let is_resolved = self.end <= self.seen;
        let (end, seen) = (Some(self.end), Some(self.seen));
        let start = if is_resolved {
            AlertStart { resolved_at: end, resolved_seen: seen, ..AlertStart::default() }
        } else {
            AlertStart { valid_until: end, firing_seen: seen, ..AlertStart::default() }
        };
        let payload = Payload {
            annotations: pairs("note", self.note.to_string()),
            rule: None,
            labels: pairs("alertname", self.alert.to_string()),
        };
        let rank = Rank::of_report(self.start, is_resolved, self.end);
        let reported = ReportedStart { start, payload: Some((rank, payload)) };
        Reports { key: key(self.alert), starts: BTreeMap::from([(self.start, reported)]) }
    }
}

/// What the database does: it reads what was asked for and no more, and takes changes.
#[derive(Clone, Debug, Default)]
struct Table {
    rows: BTreeMap<Uuid, AlertEventRow>,
    starts: BTreeMap<(AlertKey, Millis), (Uuid, AlertStart)>,
    ids: u128,
    /// When each row was last written.
    updated: BTreeMap<Uuid, Millis>,
    now: Millis,
}

impl Table {
    fn load(&self, asked: &[AskedAlert]) -> LoadedAlerts {
        let mut loaded = LoadedAlerts::default();
        for alert in asked {
            let rows = self.rows.values().filter(|row| {
                row.key == alert.key && row.ended.is_none_or(|(end, _)| end >= alert.since)
            });
            let event = |row: &AlertEventRow| {
                let starts = self.starts.iter().filter(|(_, (event, _))| *event == row.id);
                let starts = starts.map(|((_, at), (_, start))| (*at, *start)).collect();
                StoredAlertEvent { row: row.clone(), starts, updated_at: self.updated[&row.id] }
            };
            loaded.events.insert(alert.key.clone(), rows.map(event).collect());
        }
        for row in self.rows.values().filter(|row| row.ended.is_none()) {
            *loaded.open.entry(row.key.organisation.clone()).or_default() += 1;
        }
        loaded
    }

    fn write(&mut self, reports: Vec<Reports>, max_open: usize) -> Written {
        let loaded = self.load(&asked(&reports));
        self.write_beside(loaded, reports, max_open)
    }

    fn write_beside(
        &mut self,
        loaded: LoadedAlerts,
        reports: Vec<Reports>,
        max_open: usize,
    ) -> Written {
        let mut ids = self.ids;
        let (changes, written) = decide(loaded, reports, max_open, || {
            ids += 1;
            Uuid::from_u128(ids)
        });
        self.ids = ids;
        for id in changes.deleted {
            self.rows.remove(&id);
            self.starts.retain(|_, (event, _)| *event != id);
        }
        for row in changes.ended.into_iter().chain(changes.open) {
            self.updated.insert(row.id, self.now);
            self.rows.insert(row.id, row);
        }
        for (key, event, at, start) in changes.starts {
            assert!(self.rows.contains_key(&event), "a foreign key");
            self.starts.insert((key, at), (event, start));
        }
        for (key, at) in changes.forgotten {
            self.starts.remove(&(key, at));
        }
        let open = self.rows.values().filter(|row| row.ended.is_none());
        let mut keys = BTreeSet::new();
        assert!(open.map(|row| row.key.clone()).all(|key| keys.insert(key)), "two are open");
        written
    }

    fn report(&mut self, report: &Report) {
        self.now = report.seen;
        self.write(vec![report.reports()], 1000);
    }

    /// The leader gives up what is not reported any more.
    fn expire(&mut self, now: Millis) {
        let mut overdue: BTreeMap<AlertKey, Reports> = BTreeMap::new();
        for row in self.rows.values().filter(|row| row.ended.is_none()) {
            let starts = self.starts.iter().filter(|(_, (event, _))| *event == row.id);
            let starts: Vec<_> = starts.map(|((_, at), (_, start))| (*at, *start)).collect();
            if starts.iter().all(|(_, start)| start.valid_until.is_none_or(|until| until < now)) {
                let mark = |(at, start): &(Millis, AlertStart)| {
                    let start =
                        AlertStart { expired_at: start.valid_until, ..AlertStart::default() };
                    (*at, ReportedStart { start, payload: None })
                };
                let starts = starts.iter().map(mark).collect();
                overdue.insert(row.key.clone(), Reports { key: row.key.clone(), starts });
            }
        }
        self.write(overdue.into_values().collect(), 1000);
    }

    /// Everything but the identities.
    fn shown(&self) -> Vec<(AlertKey, Millis, End, Pairs)> {
        let show = |row: &AlertEventRow| {
            (row.key.clone(), row.started_at, row.ended, row.annotations.clone())
        };
        let mut shown: Vec<_> = self.rows.values().map(show).collect();
        shown.sort();
        shown
    }

    fn spans(&self) -> Vec<(Millis, End)> {
        self.shown().into_iter().map(|(_, start, end, _)| (start, end)).collect()
    }
}

fn table(reports: &[Report]) -> Table {
    let mut table = Table::default();
    for report in reports {
        table.report(report);
    }
    table
}

/// When an event ended, and why.
type End = Option<(Millis, EndedBecause)>;

const RESOLVED: EndedBecause = EndedBecause::Resolved;
const EXPIRED: EndedBecause = EndedBecause::Expired;

#[test]
fn an_alert_fires_is_repeated_and_is_resolved() {
    let mut table = table(&[
        Report::firing(0, 0),
        Report::firing(0, MINUTE).note(1),
        Report::firing(0, 2 * MINUTE).note(2),
    ]);
    assert_eq!(table.spans(), [(0, None)]);
    assert_eq!(table.shown()[0].3, pairs("note", "2".to_owned()));
    for seen in [150 * SECOND, 210 * SECOND] {
        table.report(&Report::resolved(0, 150 * SECOND, seen));
        assert_eq!(table.spans(), [(0, Some((150 * SECOND, RESOLVED)))]);
    }
    // It fires again: that is another event.
    table.report(&Report::firing(4 * MINUTE, 4 * MINUTE));
    assert_eq!(table.spans(), [(0, Some((150 * SECOND, RESOLVED))), (4 * MINUTE, None)]);
}

// A ruler that starts again begins with a later start, and nobody ends the earlier one.
#[test]
fn a_later_start_continues_the_event_while_it_is_valid() {
    let begun = [Report::firing(0, 0), Report::firing(3 * MINUTE, 3 * MINUTE)];
    let mut continued = table(&begun);
    assert_eq!(continued.spans(), [(0, None)]);
    continued.report(&Report::resolved(3 * MINUTE, 4 * MINUTE, 4 * MINUTE));
    assert_eq!(continued.spans(), [(0, Some((4 * MINUTE, RESOLVED)))]);
    // The earlier one was valid until 5m.
    let table = table(&[Report::firing(0, 0), Report::firing(6 * MINUTE, 6 * MINUTE)]);
    assert_eq!(table.spans(), [(0, Some((5 * MINUTE, EXPIRED))), (6 * MINUTE, None)]);
}

#[test]
fn what_is_said_of_an_earlier_start_does_not_end_a_later_one() {
    let table = table(&[
        Report::firing(0, 0),
        Report::firing(3 * MINUTE, 3 * MINUTE),
        // It comes late, by another copy.
        Report::resolved(0, 2 * MINUTE, 4 * MINUTE),
    ]);
    assert_eq!(table.spans(), [(0, Some((2 * MINUTE, RESOLVED))), (3 * MINUTE, None)]);
}

// While rulers change, two may have a group for a moment.
#[test]
fn a_start_that_soon_fell_silent_ends_nothing() {
    let mut reports = vec![Report::firing(0, 0), Report::firing(MINUTE, MINUTE)];
    reports.extend((2..20).map(|minute| Report::firing(0, minute * MINUTE)));
    let mut table = table(&reports);
    table.expire(10 * MINUTE);
    assert_eq!(table.spans(), [(0, None)]);
    table.report(&Report::resolved(0, 20 * MINUTE, 20 * MINUTE));
    assert_eq!(table.spans(), [(0, Some((20 * MINUTE, RESOLVED)))]);
}

#[test]
fn an_expired_event_is_revived_by_the_next_report() {
    let mut table = table(&[Report::firing(0, 0)]);
    table.expire(5 * MINUTE);
    assert_eq!(table.spans(), [(0, None)], "valid until then");
    table.expire(6 * MINUTE);
    assert_eq!(table.spans(), [(0, Some((5 * MINUTE, EXPIRED)))]);
    let id = table.rows.values().next().unwrap().id;
    table.report(&Report::firing(0, 7 * MINUTE));
    assert_eq!(table.spans(), [(0, None)]);
    assert_eq!(table.rows.values().next().unwrap().id, id);
    // Another copy had it all the time.
    table.expire(13 * MINUTE);
    table.report(&Report::resolved(0, 8 * MINUTE, 14 * MINUTE));
    assert_eq!(table.spans(), [(0, Some((8 * MINUTE, RESOLVED)))]);
}

// A report that waited for longer than it is valid looks as if the alert were over.
#[test]
fn a_late_report_that_it_fires_does_not_end_it_for_good() {
    let late = Report { seen: 7 * MINUTE, ..Report::firing(0, 0) };
    assert!(late.end <= late.seen);
    let mut table = table(&[late, Report::firing(0, 7 * MINUTE + SECOND)]);
    assert_eq!(table.spans(), [(0, Some((5 * MINUTE, RESOLVED)))], "which of them is true?");
    table.report(&Report::firing(0, 8 * MINUTE + SECOND));
    assert_eq!(table.spans(), [(0, None)]);
    table.report(&Report::resolved(0, 9 * MINUTE, 9 * MINUTE));
    assert_eq!(table.spans(), [(0, Some((9 * MINUTE, RESOLVED)))]);
}

#[test]
fn an_end_that_was_never_seen_to_begin_is_an_event() {
    let table = table(&[Report::resolved(0, MINUTE, 10 * MINUTE)]);
    assert_eq!(table.spans(), [(0, Some((MINUTE, RESOLVED)))]);
}

#[test]
fn what_is_over_the_limit_is_left_out_and_what_is_open_goes_on() {
    let mut table = Table::default();
    let firing = |alert, seen| Report { alert, ..Report::firing(0, seen) }.reports();
    let written = table.write((0..5).map(|alert| firing(alert, 0)).collect(), 3);
    assert_eq!((written.alerts, written.begun.len(), written.over_limit.len()), (3, 3, 2));
    let written = table.write((0..5).map(|alert| firing(alert, MINUTE)).collect(), 3);
    assert_eq!((written.alerts, written.begun.len(), written.over_limit.len()), (3, 0, 2));
    let over = Report { alert: 0, ..Report::resolved(0, 2 * MINUTE, 2 * MINUTE) }.reports();
    assert_eq!(table.write(vec![over, firing(4, 2 * MINUTE)], 3).begun.len(), 1);
}

#[test]
fn a_rule_that_is_not_the_organisations_is_left_out() {
    let (mine, theirs) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let with = |rule, seen| {
        let mut reports = Report::firing(0, seen).reports();
        let start = reports.starts.get_mut(&0).unwrap();
        start.payload.as_mut().unwrap().1.rule = Some(rule);
        reports
    };
    let reports = vec![with(theirs, 0)];
    let mut table = Table::default();
    assert_eq!(asked(&reports)[0].rules, [theirs]);
    table.write(reports, 10);
    assert_eq!(table.rows.values().next().unwrap().rule, None);
    // What is known once stays, whatever is said later.
    for (at, rule) in [(1, mine), (2, theirs)] {
        let reports = vec![with(rule, at * MINUTE)];
        let mut loaded = table.load(&asked(&reports));
        loaded.rules.insert((key(0).organisation, mine));
        let (changes, _) = decide(loaded, reports, 10, Uuid::nil);
        for row in changes.open {
            table.rows.insert(row.id, row);
        }
        assert_eq!(table.rows.values().next().unwrap().rule, Some(mine));
    }
}

// Seen: with `alert_event_start` emptied, or not restored, an open event never ended, and each report of its alert
// would have opened a second one, which the database refuses.
#[test]
fn an_event_that_has_lost_its_starts_goes_on_and_ends() {
    for (report, end) in [
        (Report::firing(0, 9 * MINUTE), None),
        (Report::resolved(0, 8 * MINUTE, 9 * MINUTE), Some((8 * MINUTE, RESOLVED))),
    ] {
        let mut table = table(&[Report::firing(0, 0)]);
        let id = *table.rows.keys().next().unwrap();
        table.starts.clear();
        table.report(&report);
        assert_eq!(table.spans(), [(0, end)]);
        assert_eq!(*table.rows.keys().next().unwrap(), id);
        assert_eq!(table.starts.len(), 1);
    }
    // The leader notes it as if it were reported, for some time.
    let mut table = table(&[Report::firing(0, 0)]);
    let before = table.rows.clone();
    table.starts.clear();
    let (valid_until, firing_seen) = (Some(20 * MINUTE), Some(5 * MINUTE));
    let start = AlertStart { valid_until, firing_seen, ..AlertStart::default() };
    let starts = BTreeMap::from([(0, ReportedStart { start, payload: None })]);
    table.write(vec![Reports { key: key(0), starts }], 1000);
    assert_eq!(table.rows, before);
    table.expire(20 * MINUTE);
    assert_eq!(table.spans(), [(0, None)]);
    table.expire(21 * MINUTE);
    assert_eq!(table.spans(), [(0, Some((20 * MINUTE, EXPIRED)))]);
}

#[test]
fn an_ended_event_that_has_lost_its_starts_is_still_the_same_one() {
    // The ruler repeats an end for 15 minutes.
    let mut resolved = table(&[Report::firing(0, 0), Report::resolved(0, MINUTE, MINUTE)]);
    let before = resolved.rows.clone();
    resolved.starts.clear();
    resolved.report(&Report::resolved(0, MINUTE, 2 * MINUTE));
    assert_eq!(resolved.rows, before);
    resolved.report(&Report::firing(4 * MINUTE, 4 * MINUTE));
    assert_eq!(resolved.spans(), [(0, Some((MINUTE, RESOLVED))), (4 * MINUTE, None)]);
    // One that was given up is revived.
    let mut expired = table(&[Report::firing(0, 0)]);
    expired.expire(6 * MINUTE);
    let id = *expired.rows.keys().next().unwrap();
    expired.starts.clear();
    expired.report(&Report::firing(0, 7 * MINUTE));
    assert_eq!(expired.spans(), [(0, None)]);
    assert_eq!(*expired.rows.keys().next().unwrap(), id);
}

// Seen: an event that was written just after its organisation was deleted stayed for the next one of the same identifier.
#[test]
fn nothing_begins_in_an_organisation_that_is_absent_or_leaving() {
    let mut table = table(&[Report::firing(0, 0)]);
    let before = table.rows.clone();
    let loaded = |table: &Table, reports: &[Reports], is_leaving: bool| {
        let mut loaded = table.load(&asked(reports));
        let of = if is_leaving { &mut loaded.leaving } else { &mut loaded.absent };
        of.insert(key(0).organisation);
        loaded
    };
    let mark = || {
        let start = AlertStart { expired_at: Some(5 * MINUTE), ..AlertStart::default() };
        let starts = BTreeMap::from([(0, ReportedStart { start, payload: None })]);
        vec![Reports { key: key(0), starts }]
    };
    let firing = Report { alert: 1, ..Report::firing(0, 0) };
    for (reports, is_leaving) in [
        (vec![firing.reports()], true),
        (vec![firing.reports()], false),
        (vec![Report::resolved(0, MINUTE, MINUTE).reports()], false),
        (mark(), true),
    ] {
        let loaded = loaded(&table, &reports, is_leaving);
        let written = table.write_beside(loaded, reports, 1000);
        assert_eq!((written.alerts, written.unknown.len()), (0, 1));
        assert_eq!(table.rows, before);
    }
    // What is there of an organisation that is gone is given up all the same.
    let reports = mark();
    let loaded = loaded(&table, &reports, false);
    assert_eq!(table.write_beside(loaded, reports, 1000).ended, 1);
    assert_eq!(table.spans(), [(0, Some((5 * MINUTE, EXPIRED)))]);
}

#[test]
fn the_starts_of_an_endless_row_of_restarts_are_forgotten() {
    let reports: Vec<_> = (0..200).map(|at| Report::firing(at * MINUTE, at * MINUTE)).collect();
    let table = table(&reports);
    assert_eq!(table.spans(), [(0, None)]);
    assert!(table.starts.len() <= MOST_STARTS, "{}", table.starts.len());
}

/// What rulers may report of two alerts, and more than they may. Times are few, so that they meet.
fn any_reports() -> impl Strategy<Value = Vec<Report>> {
    let minutes = |range: std::ops::Range<i64>| range.prop_map(|minutes| minutes * MINUTE);
    let one = (0..2_u8, minutes(0..12), minutes(0..8), minutes(0..14), any::<bool>());
    let one = one.prop_map(|(alert, start, length, seen, is_firing)| {
        let seen = seen.max(start);
        let end = if is_firing { seen + 5 * MINUTE } else { (start + length).min(seen) };
        // A report is what it is because of its times: the same ones say the same.
        let note = u8::try_from((start + 7 * end) / MINUTE % 251).unwrap();
        Report { alert, start, end, seen, note }
    });
    proptest::collection::vec(one, 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    // Decision 30: reports come in any order, more than once, and by several copies, each of which
    // collects some before it writes.
    #[test]
    fn order_and_repetition_and_copies_make_no_difference(
        (reports, shuffled) in any_reports().prop_flat_map(|reports| {
            let twice: Vec<Report> = reports.iter().chain(&reports).cloned().collect();
            (Just(reports), Just(twice).prop_shuffle())
        }),
        batches in proptest::collection::vec(1..6_usize, 1..20),
    ) {
        let straight = table(&reports);
        let mut other = Table::default();
        let mut rest = shuffled.into_iter().peekable();
        let mut sizes = batches.into_iter().cycle();
        while rest.peek().is_some() {
            let mut batch: BTreeMap<AlertKey, Reports> = BTreeMap::new();
            for report in rest.by_ref().take(sizes.next().unwrap()) {
                let new = report.reports();
                let known = batch.entry(new.key.clone());
                let known = known.or_insert_with(|| Reports { key: new.key, starts: BTreeMap::new() });
                for (at, start) in new.starts {
                    known.starts.entry(at).or_default().join(start);
                }
            }
            other.write(batch.into_values().collect(), 1000);
        }
        prop_assert_eq!(straight.spans(), other.spans());
        prop_assert_eq!(&straight.starts.values().map(|(_, start)| *start).collect::<Vec<_>>(),
                        &other.starts.values().map(|(_, start)| *start).collect::<Vec<_>>());
    }

    // What people read, where no two rulers have the alert at once.
    #[test]
    fn the_last_annotations_stay(minutes in 1..20_i64, order in Just((0..20_u8).collect::<Vec<_>>()).prop_shuffle()) {
        let report = |minute: u8| Report::firing(0, i64::from(minute) * MINUTE).note(minute);
        let reports: Vec<_> = order.into_iter().filter(|minute| i64::from(*minute) < minutes).map(report).collect();
        let table = table(&reports);
        prop_assert_eq!(&table.shown()[0].3, &pairs("note", (minutes - 1).to_string()));
    }

    // Events of an alert do not overlap, and none ends before it begins.
    #[test]
    fn events_of_an_alert_follow_each_other(reports in any_reports()) {
        let mut table = table(&reports);
        table.expire(30 * MINUTE);
        for alert in 0..2 {
            let mut last = Millis::MIN;
            for (_, start, end, _) in table.shown().into_iter().filter(|row| row.0 == key(alert)) {
                prop_assert!(last <= start, "{last} {start}");
                let (end, _) = end.expect("all are over");
                prop_assert!(end >= start);
                last = end;
            }
        }
    }
}
