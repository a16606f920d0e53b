//! Writes statuses, and how each organisation's sync stands, to the database in batches.
//!
//! The scheduler never waits for the database: it hands in what is to be written and goes on. A batch
//! that cannot be written is kept and tried again, as long as the lease is held. What comes meanwhile is gathered in
//! the next one, of which each rule has one row, so that a long outage takes no more memory than a short one. What is
//! lost with the lease is found again by the next leader, who compares all statuses with what Mimir has. Rows that
//! the database refuses as such are dropped, so that the others do not wait for them. A statement that is not done in
//! the time of a query would not be done in it the next time either, so fewer rows are tried then.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};
use uuid::Uuid;

use super::outcome::SyncOutcome;
use super::statuses::StatusChanges;
use crate::batch_size::BatchSize;
use crate::election::lease::Lease;
use crate::store::{GuardRow, LeaderRow, RuleStatusRow, Store, StoreError, SyncRow, Tombstones};
use crate::telemetry::RuleMetrics;
use crate::tenancy::OrganisationId;

/// The scheduler's end.
#[derive(Clone)]
pub(crate) struct StatusWriter(UnboundedSender<Note>);

enum Note {
    Statuses(StatusChanges),
    Guards(Vec<GuardRow>),
    Confirmed(OrganisationId),
    Sync(Box<SyncRow>),
    Deleted(OrganisationId, Tombstones),
    Forget(OrganisationId),
    Progress(Uuid, Progress),
    Leader(Box<LeaderRow>),
    /// Answered when everything before it is written.
    Flush(oneshot::Sender<()>),
}

/// How far a requested sync has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) done: usize,
    pub(crate) total: usize,
    /// Set once it is finished.
    pub(crate) outcome: Option<SyncOutcome>,
}

#[derive(Default)]
struct Batch {
    /// By rule alone: Postgres cannot write two rows of one key in one statement.
    written: HashMap<Uuid, RuleStatusRow>,
    gone: HashSet<(OrganisationId, Uuid)>,
    /// By organisation, and whether the hold spans organisations: an earlier one of the same kind has ended, and nobody
    /// has seen it.
    guards: HashMap<(OrganisationId, bool), GuardRow>,
    confirmed: HashSet<OrganisationId>,
    syncs: HashMap<OrganisationId, SyncRow>,
    /// As they were read last. Those of earlier readings that are not among them are in the table and are read again.
    deleted: HashMap<OrganisationId, Tombstones>,
    /// Organisations that are forgotten before anything else is written.
    forgotten: HashSet<OrganisationId>,
    progress: HashMap<Uuid, Progress>,
    leader: Option<LeaderRow>,
    flushes: Vec<oneshot::Sender<()>>,
    /// Organisations that rules have left for another one, as it was found when their rows were written.
    left: HashSet<OrganisationId>,
}

/// A batch with this many statuses is full.
const MOST_STATUSES: usize = 1000;
/// Rules that are gone, in one batch: an organisation may make and delete any number of them while nothing can be
/// written. A status that stays is deleted by the next full resync, which compares all statuses with what Mimir has.
const MOST_GONE: usize = 100_000;
/// Rows that are written together, in one statement unless their texts are long. If one of them is refused, so many
/// are written one by one.
const ROWS_PER_STATEMENT: usize = 1000;
/// A batch is written when no note has come for this long.
const PAUSE: Duration = Duration::from_millis(3);
/// The time between two batches that are not full. A single change is written at once; those of a full resync share
/// batches.
const SPACING: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_millis(500);

/// What the writer works with.
pub(crate) struct WriterContext {
    pub(crate) store: Store,
    pub(crate) metrics: Arc<RuleMetrics>,
    pub(crate) lease: Lease,
}

impl StatusWriter {
    /// Returns the writer and the task behind it, which has to run as long as the lease is held.
    /// `on_moved` is told of each organisation that a rule has left, with its status, for another one.
    pub(crate) fn new(
        context: WriterContext,
        on_moved: impl Fn(OrganisationId),
    ) -> (Self, impl Future<Output = ()>) {
        let (sender, notes) = unbounded_channel();
        (Self(sender), write_all(context, on_moved, notes))
    }

    pub(crate) fn statuses(&self, changes: StatusChanges) {
        if !changes.written.is_empty() || !changes.gone.is_empty() {
            self.send(Note::Statuses(changes));
        }
    }

    /// Deletions that the guard holds back. Call it before the row that names them is handed in.
    pub(crate) fn guards(&self, rows: Vec<GuardRow>) {
        if !rows.is_empty() {
            self.send(Note::Guards(rows));
        }
    }

    /// What was confirmed for an organisation is done.
    pub(crate) fn end_confirmations(&self, organisation: OrganisationId) {
        self.send(Note::Confirmed(organisation));
    }

    pub(crate) fn sync(&self, row: SyncRow) {
        self.send(Note::Sync(Box::new(row)));
    }

    /// Rules that were deleted on purpose and have left Mimir: their tombstones have done their work.
    pub(crate) fn deleted(&self, organisation: &OrganisationId, tombstones: Tombstones) {
        if !tombstones.is_empty() {
            self.send(Note::Deleted(organisation.clone(), tombstones));
        }
    }

    pub(crate) fn forget(&self, organisation: OrganisationId) {
        self.send(Note::Forget(organisation));
    }

    pub(crate) fn progress(&self, request: Uuid, progress: Progress) {
        self.send(Note::Progress(request, progress));
    }

    pub(crate) fn leader(&self, row: LeaderRow) {
        self.send(Note::Leader(Box::new(row)));
    }

    /// Waits until everything that was handed in before is written, or the lease is lost.
    pub(crate) async fn flushed(&self) {
        let (done, waiting) = oneshot::channel();
        self.send(Note::Flush(done));
        let _ = waiting.await;
    }

    fn send(&self, note: Note) {
        // The receiver is gone once the lease is lost; the next leader finds out by itself.
        let _ = self.0.send(note);
    }
}

async fn write_all(
    context: WriterContext,
    on_moved: impl Fn(OrganisationId),
    mut notes: UnboundedReceiver<Note>,
) {
    let WriterContext { store, metrics, lease } = context;
    let mut not_before = Instant::now();
    let mut size = BatchSize::new(ROWS_PER_STATEMENT);
    // What has come while a batch could not be written.
    let mut later = None;
    loop {
        let begun = match later.take() {
            Some(begun) => begun,
            None => match notes.recv().await {
                Some(first) => Batch::of(first),
                None => return,
            },
        };
        let mut batch = gather(begun, &mut notes, not_before).await;

        // A later batch must not overtake this one, so nothing else is written until it is.
        loop {
            match lease.during(batch.write(&store, &mut size)).await {
                Ok(Err(error)) => {
                    metrics.status_write_failures.increment(1);
                    tracing::warn!(%error, "Alert rule statuses not written; retrying");
                    receive(&mut notes, &mut later, RETRY).await;
                }
                Ok(Ok(())) => {
                    std::mem::take(&mut batch.left).into_iter().for_each(&on_moved);
                    break;
                }
                Err(_) => break,
            }
        }

        if !lease.is_held() {
            return;
        }
        not_before = Instant::now() + SPACING;
        for flush in batch.flushes {
            let _ = flush.send(());
        }
    }
}

/// Waits for so long, and takes the notes that come: in the channel each of them would take memory, however often they
/// are about the same rule.
async fn receive(notes: &mut UnboundedReceiver<Note>, later: &mut Option<Batch>, time: Duration) {
    let until = Instant::now() + time;
    while let Ok(Some(note)) = timeout_at(until, notes.recv()).await {
        later.get_or_insert_default().add(note);
    }
    // It is not yet time if nobody can hand in any more.
    sleep_until(until).await;
}

/// What is written together. It waits until `not_before`, unless the batch is full or a flush is asked for.
async fn gather(
    mut batch: Batch,
    notes: &mut UnboundedReceiver<Note>,
    not_before: Instant,
) -> Batch {
    while !batch.is_due() {
        let until = not_before.max(Instant::now() + PAUSE);
        match timeout_at(until, notes.recv()).await {
            Ok(Some(note)) => batch.add(note),
            Ok(None) | Err(_) => break,
        }
    }
    batch
}

impl Batch {
    fn of(first: Note) -> Self {
        let mut batch = Self::default();
        batch.add(first);
        batch
    }

    /// Whether it is full, or a flush is asked for.
    fn is_due(&self) -> bool {
        self.written.len() >= MOST_STATUSES || !self.flushes.is_empty()
    }

    fn add(&mut self, note: Note) {
        match note {
            Note::Statuses(changes) => {
                for (organisation, rule) in &changes.gone {
                    // A rule that moved is gone from the first organisation, and may be written for
                    // the second one by now.
                    if self.written.get(rule).is_some_and(|row| row.organisation == *organisation) {
                        self.written.remove(rule);
                    }
                }
                let room = MOST_GONE.saturating_sub(self.gone.len());
                self.gone.extend(changes.gone.into_iter().take(room));
                for row in changes.written {
                    self.gone.remove(&(row.organisation.clone(), row.rule));
                    self.written.insert(row.rule, row);
                }
            }
            Note::Guards(rows) => {
                for row in rows {
                    self.guards.insert((row.organisation.clone(), row.is_overall), row);
                }
            }
            Note::Confirmed(organisation) => {
                self.confirmed.insert(organisation);
            }
            Note::Sync(row) => {
                self.syncs.insert(row.organisation.clone(), *row);
            }
            Note::Deleted(organisation, rules) => {
                self.deleted.insert(organisation, rules);
            }
            Note::Forget(organisation) => {
                // What comes after this is of an organisation that has come back, and is to stay.
                self.written.retain(|_, row| row.organisation != organisation);
                self.gone.retain(|(of, _)| *of != organisation);
                self.guards.retain(|(of, _), _| *of != organisation);
                self.confirmed.remove(&organisation);
                self.syncs.remove(&organisation);
                self.deleted.remove(&organisation);
                self.forgotten.insert(organisation);
            }
            Note::Progress(request, progress) => {
                self.progress.insert(request, progress);
            }
            Note::Leader(row) => self.leader = Some(*row),
            Note::Flush(done) => {
                // Whoever asks for one does not wait for ever.
                self.flushes.retain(|asked| !asked.is_closed());
                self.flushes.push(done);
            }
        }
    }

    /// Writes the batch. If that fails, it may be written again, without the rows that were.
    async fn write(&mut self, store: &Store, size: &mut BatchSize) -> Result<(), StoreError> {
        // First: what is in the batch of such an organisation was noted after that. And once: what the database has of
        // it when the rest is tried again is of an organisation that has come back.
        while let Some(organisation) = self.forgotten.iter().next().cloned() {
            let forgotten = store.forget_rule_sync(organisation.clone()).await;
            unless_refused(forgotten, Some(&organisation))?;
            self.forgotten.remove(&organisation);
        }

        let written: Vec<RuleStatusRow> = self.written.values().cloned().collect();
        let write = move |rows| store.write_rule_statuses(rows, Vec::new());
        let done = |rows: &[RuleStatusRow], left: Option<HashSet<OrganisationId>>| {
            self.left.extend(left.into_iter().flatten());
            for row in rows {
                self.written.remove(&row.rule);
            }
        };
        write_rows(&written, size, |row| &row.organisation, write, done).await?;
        let gone: Vec<(OrganisationId, Uuid)> = self.gone.iter().cloned().collect();
        let write = move |rows| store.write_rule_statuses(Vec::new(), rows);
        let done = |rows: &[(OrganisationId, Uuid)], _| {
            for row in rows {
                self.gone.remove(row);
            }
        };
        write_rows(&gone, size, |(organisation, _)| organisation, write, done).await?;

        let guards: Vec<GuardRow> = self.guards.values().cloned().collect();
        let write = move |rows| store.write_guards(rows);
        let done = |rows: &[GuardRow], _| {
            let key = |row: &GuardRow| (row.organisation.clone(), row.is_overall);
            for row in rows {
                self.guards.remove(&key(row));
            }
        };
        write_rows(&guards, size, |row| &row.organisation, write, done).await?;
        for organisation in &self.confirmed {
            let ended = store.end_confirmations(organisation.clone()).await;
            unless_refused(ended, Some(organisation))?;
        }
        let syncs: Vec<SyncRow> = self.syncs.values().cloned().collect();
        let write = move |rows| store.write_rule_syncs(rows);
        let done = |rows: &[SyncRow], _| {
            for row in rows {
                self.syncs.remove(&row.organisation);
            }
        };
        write_rows(&syncs, size, |row| &row.organisation, write, done).await?;

        // After the statuses: otherwise a rule could have no row, no tombstone and a status that still says that Mimir
        // has it, and would count as missing.
        for (organisation, rules) in &self.deleted {
            let forgotten = store.forget_tombstones(organisation.clone(), rules.clone()).await;
            unless_refused(forgotten, Some(organisation))?;
        }
        if let Some(row) = &self.leader {
            unless_refused(store.write_rule_leader(row.clone()).await, None)?;
        }

        // Last: a request is finished when everything that it led to can be read.
        for (request, Progress { done, total, outcome }) in &self.progress {
            let outcome = outcome.as_ref().map(SyncOutcome::to_json);
            let noted = store.note_sync_progress(*request, *done, *total, outcome).await;
            unless_refused(noted, None)?;
        }
        Ok(())
    }
}

/// Writes rows together, so many in a statement; if the database refuses one of them, those that were to be written with
/// it one by one, without those that it refuses. `done` gets those that are not to be written again, and what their
/// statement returns, also if a later one fails.
async fn write_rows<T: Clone, R, W: Future<Output = Result<R, StoreError>>>(
    rows: &[T],
    size: &mut BatchSize,
    organisation_of: fn(&T) -> &OrganisationId,
    write: impl Fn(Vec<T>) -> W,
    mut done: impl FnMut(&[T], Option<R>),
) -> Result<(), StoreError> {
    let mut left = rows;
    while !left.is_empty() {
        let (together, after) = left.split_at(size.get().min(left.len()));
        match write(together.to_vec()).await {
            Ok(returned) => {
                done(together, Some(returned));
                size.went_well();
            }
            Err(error) if error.is_refusal() => {
                for row in together {
                    let written = write(vec![row.clone()]).await;
                    let returned = unless_refused(written, Some(organisation_of(row)))?;
                    done(std::slice::from_ref(row), returned);
                }
            }
            Err(error) => {
                // Too much for the time that a query has, perhaps.
                if matches!(error, StoreError::Unavailable(_)) {
                    size.was_too_much(together.len());
                }
                return Err(error);
            }
        }
        left = after;
    }
    Ok(())
}

/// None, with a line in the log, for what the database refuses: it would refuse it again.
fn unless_refused<R>(
    written: Result<R, StoreError>,
    organisation: Option<&OrganisationId>,
) -> Result<Option<R>, StoreError> {
    match written {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.is_refusal() => {
            tracing::error!(
                %error,
                organisation.id = organisation.map(OrganisationId::as_str),
                "Status of alert rules dropped: the database refuses it"
            );
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;
    use crate::labels::RuleState;

    fn named(organisation: &str) -> OrganisationId {
        OrganisationId::parse(organisation).unwrap()
    }

    fn row(organisation: &str, rule: u128) -> RuleStatusRow {
        RuleStatusRow {
            rule: Uuid::from_u128(rule),
            organisation: named(organisation),
            state: RuleState::Live,
            reason: String::new(),
            rule_hash: None,
            other_hashes: Vec::new(),
            refused_hash: None,
            synced_at: None,
            evaluated_at: None,
            notifies: None,
        }
    }

    fn add(batch: &mut Batch, written: Vec<RuleStatusRow>, gone: &[(&str, u128)]) {
        let gone =
            gone.iter().map(|(whose, rule)| (named(whose), Uuid::from_u128(*rule))).collect();
        batch.add(Note::Statuses(StatusChanges { written, gone }));
    }

    // Postgres cannot write two rows of one key in one statement: a rule that moves twice within one
    // batch would block all statuses.
    #[test]
    fn a_rule_has_one_row_in_a_batch_however_often_it_moves() {
        let mut batch = Batch::default();
        add(&mut batch, vec![row("b", 1), row("b", 2)], &[]);
        add(&mut batch, Vec::new(), &[("a", 1)]);
        add(&mut batch, vec![row("c", 1)], &[]);
        add(&mut batch, Vec::new(), &[("b", 1), ("b", 2)]);
        let written: Vec<&RuleStatusRow> = batch.written.values().collect();
        assert_eq!(written.len(), 1);
        assert_eq!(written[0].organisation, named("c"));
        assert_eq!(batch.gone.len(), 3);
        // It moves back to an organisation that it left before.
        add(&mut batch, vec![row("b", 1)], &[]);
        assert_eq!(batch.written[&Uuid::from_u128(1)].organisation, named("b"));
        assert!(!batch.gone.contains(&(named("b"), Uuid::from_u128(1))));
    }

    fn status(rule: u128) -> Note {
        Note::Statuses(StatusChanges { written: vec![row("a", rule)], gone: Vec::new() })
    }

    const MS: Duration = Duration::from_millis(1);

    /// Hands in a status every 20 ms, after the first one, and gives the batch and how long it took to gather.
    async fn gathered(not_before: Duration) -> (Batch, Duration) {
        let (sender, mut notes) = unbounded_channel();
        tokio::spawn(async move {
            for rule in 1..50 {
                sleep(20 * MS).await;
                let _ = sender.send(status(rule));
            }
        });
        let began = Instant::now();
        let batch = gather(Batch::of(status(0)), &mut notes, began + not_before).await;
        (batch, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_single_change_is_written_at_once_and_many_share_batches() {
        let (batch, took) = gathered(Duration::ZERO).await;
        assert_eq!((batch.written.len(), took), (1, PAUSE));
        let (batch, took) = gathered(90 * MS).await;
        assert_eq!((batch.written.len(), took), (5, 90 * MS));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_batch_and_a_flush_do_not_wait() {
        let far = Instant::now() + Duration::from_secs(60);
        let (sender, mut notes) = unbounded_channel();
        let (done, _waiting) = oneshot::channel();
        for rule in 1..=MOST_STATUSES as u128 {
            assert!(sender.send(status(rule)).is_ok());
        }
        assert!(sender.send(Note::Flush(done)).is_ok());
        let full = gather(Batch::of(status(0)), &mut notes, far).await;
        assert_eq!((full.written.len(), full.flushes.len()), (MOST_STATUSES, 0));
        let first = Batch::of(notes.recv().await.unwrap());
        let flushed = gather(first, &mut notes, far).await;
        assert_eq!((flushed.written.len(), flushed.flushes.len()), (1, 1));
        assert!(Instant::now() < far);
    }

    // A database that takes no writes and keeps its sessions: every note of every rule stayed in the channel.
    #[tokio::test(start_paused = true)]
    async fn what_comes_while_a_batch_cannot_be_written_has_one_row_for_each_rule() {
        let (sender, mut notes) = unbounded_channel();
        let mut later = None;
        for number in 0..100_000 {
            assert!(sender.send(status(number % 10)).is_ok());
        }
        let late = sender.clone();
        tokio::spawn(async move {
            sleep(RETRY / 2).await;
            let _ = late.send(status(10));
        });
        let began = Instant::now();
        receive(&mut notes, &mut later, RETRY).await;
        assert!(notes.is_empty());
        assert_eq!((later.as_ref().unwrap().written.len(), began.elapsed()), (11, RETRY));
        // At the next attempt, too; and when nobody hands in any more, it is not tried again any sooner.
        assert!(sender.send(status(11)).is_ok());
        drop(sender);
        receive(&mut notes, &mut later, RETRY).await;
        assert_eq!((later.unwrap().written.len(), began.elapsed()), (12, 2 * RETRY));
    }

    fn sync(organisation: &str, problem: &str) -> Note {
        let new = SyncRow::new(&named(organisation));
        Note::Sync(Box::new(SyncRow { problem: problem.to_owned(), ..new }))
    }

    fn hold(id: &str, organisation: &str, is_overall: bool) -> GuardRow {
        let (id, organisation) = (id.to_owned(), named(organisation));
        GuardRow { id, organisation, is_overall, rules: Vec::new() }
    }

    // What an organisation does all day must not fill the memory while nothing can be written.
    #[test]
    fn a_batch_has_only_the_last_of_what_changes_again_and_again() {
        let mut batch = Batch::default();
        for number in 0..3 {
            let grave = HashMap::from([(Uuid::from_u128(number), "now".to_owned())]);
            batch.add(Note::Deleted(named("a"), grave));
            let id = number.to_string();
            batch.add(Note::Guards(vec![hold(&id, "a", false), hold(&id, "a", true)]));
            // Somebody who gives up waiting, as a full resync does.
            batch.add(Note::Flush(oneshot::channel().0));
        }
        assert_eq!(batch.deleted[&named("a")].keys().collect::<Vec<_>>(), [&Uuid::from_u128(2)]);
        let mut holds: Vec<_> =
            batch.guards.values().map(|row| (row.id.as_str(), row.is_overall)).collect();
        holds.sort_unstable();
        assert_eq!(holds, [("2", false), ("2", true)]);
        assert_eq!(batch.flushes.len(), 1);

        let gone: Vec<(&str, u128)> = (0..MOST_GONE as u128 + 10).map(|rule| ("a", rule)).collect();
        add(&mut batch, vec![row("a", 1)], &[]);
        add(&mut batch, Vec::new(), &gone);
        assert_eq!((batch.gone.len(), batch.written.len()), (MOST_GONE, 0));
        add(&mut batch, vec![row("a", 2)], &[("b", 2)]);
        assert_eq!((batch.gone.len(), batch.written.len()), (MOST_GONE - 1, 1));
    }

    // Its purge and its return are hours apart and in one batch if nothing could be written for so long: before, all
    // that is known of it since its return was deleted with the rest.
    #[test]
    fn what_an_organisation_has_since_it_came_back_stays() {
        let mut batch = Batch::default();
        add(&mut batch, vec![row("a", 1), row("b", 2)], &[("a", 3), ("b", 4)]);
        batch.add(sync("a", "before"));
        batch.add(Note::Guards(vec![hold("x", "a", false), hold("x", "b", false)]));
        batch.add(Note::Confirmed(named("a")));
        batch.add(Note::Deleted(named("a"), Tombstones::new()));
        batch.add(Note::Forget(named("a")));
        let left: Vec<&RuleStatusRow> = batch.written.values().collect();
        assert_eq!(left, [&row("b", 2)]);
        assert_eq!(batch.gone, HashSet::from([(named("b"), Uuid::from_u128(4))]));
        assert_eq!(batch.guards.keys().collect::<Vec<_>>(), [&(named("b"), false)]);
        assert!(batch.confirmed.is_empty() && batch.syncs.is_empty() && batch.deleted.is_empty());

        add(&mut batch, vec![row("a", 1)], &[]);
        batch.add(sync("a", "after"));
        assert_eq!(batch.forgotten, HashSet::from([named("a")]));
        assert_eq!((batch.written.len(), batch.syncs.len()), (2, 1));
        assert_eq!(batch.syncs[&named("a")].problem, "after");
    }

    // After an outage the batch is large: one row that is refused must not have all of it written one by one.
    #[tokio::test]
    async fn only_those_with_which_a_row_was_refused_are_written_one_by_one() {
        let rows: Vec<RuleStatusRow> =
            (0..3 * ROWS_PER_STATEMENT as u128).map(|rule| row("a", rule)).collect();
        let refused = Uuid::from_u128(ROWS_PER_STATEMENT as u128 + 7);
        let writes = std::cell::RefCell::new(Vec::new());
        let write = |rows: Vec<RuleStatusRow>| {
            writes.borrow_mut().push(rows.len());
            let refusal = rows.iter().find(|row| row.rule == refused);
            let refusal = refusal.map(|_| StoreError::Refused("no".to_owned()));
            std::future::ready(refusal.map_or(Ok(rows.len()), Err))
        };
        let (mut done, mut over) = (0, 0);
        let mut size = BatchSize::new(ROWS_PER_STATEMENT);
        let note = |rows: &[RuleStatusRow], written: Option<usize>| {
            done += written.unwrap_or(0);
            over += rows.len();
        };
        write_rows(&rows, &mut size, |row| &row.organisation, write, note).await.unwrap();
        assert_eq!((done, over), (rows.len() - 1, rows.len()));
        let mut wanted = vec![ROWS_PER_STATEMENT; 2];
        wanted.resize(2 + ROWS_PER_STATEMENT, 1);
        wanted.push(ROWS_PER_STATEMENT);
        assert_eq!(writes.into_inner(), wanted);
    }

    // The first part is not written again as one that moves, so what it has found must not be lost with the second.
    #[tokio::test]
    async fn what_is_found_before_a_failure_is_kept() {
        let rows: Vec<RuleStatusRow> =
            (0..2 * ROWS_PER_STATEMENT as u128).map(|rule| row("a", rule)).collect();
        let write = |rows: Vec<RuleStatusRow>| {
            let is_first = rows[0].rule == Uuid::from_u128(0);
            std::future::ready(if is_first {
                Ok("b")
            } else {
                Err(StoreError::Unavailable("away".to_owned()))
            })
        };
        let (mut left, mut size) = (Vec::new(), BatchSize::new(ROWS_PER_STATEMENT));
        let note = |_: &[RuleStatusRow], one| left.extend(one);
        let written = write_rows(&rows, &mut size, |row| &row.organisation, write, note).await;
        assert!(written.is_err());
        assert_eq!(left, ["b"]);
    }

    // A thousand rows that take longer than a query may were tried again as they were, for as long as the lease was held,
    // and nothing else was written.
    #[tokio::test]
    async fn what_takes_longer_than_a_query_may_is_written_in_smaller_parts() {
        const FAST: usize = 70;
        let mut rows: Vec<RuleStatusRow> =
            (0..2 * ROWS_PER_STATEMENT as u128).map(|rule| row("a", rule)).collect();
        let writes = std::cell::RefCell::new(Vec::new());
        let write = |rows: Vec<RuleStatusRow>| {
            writes.borrow_mut().push(rows.len());
            let is_late = rows.len() > FAST;
            let late = || {
                StoreError::Unavailable("canceling statement due to statement timeout".to_owned())
            };
            std::future::ready(if is_late { Err(late()) } else { Ok(()) })
        };
        let (mut size, mut attempts) = (BatchSize::new(ROWS_PER_STATEMENT), 0);
        while !rows.is_empty() && attempts < 30 {
            attempts += 1;
            let mut over = 0;
            let done = |rows: &[RuleStatusRow], _| over += rows.len();
            let _ = write_rows(&rows, &mut size, |row| &row.organisation, write, done).await;
            rows.drain(..over);
        }
        assert!(rows.is_empty(), "{} are left", rows.len());
        assert_eq!(writes.borrow()[..5], [1000, 500, 250, 125, 62]);
        let written: usize = writes.borrow().iter().filter(|rows| **rows <= FAST).sum();
        assert_eq!(written, 2 * ROWS_PER_STATEMENT, "what is written is not written again");
    }
}
