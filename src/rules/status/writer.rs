//! Writes statuses, and how each organisation's sync stands, to the database in batches.
//!
//! The scheduler never waits for the database: it hands in what is to be written and goes on. A batch
//! that cannot be written is kept and tried again, as long as the lease is held. What is lost with the
//! lease is found again by the next leader, who compares all statuses with what Mimir has. Rows that the
//! database refuses as such are dropped, so that the others do not wait for them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::outcome::SyncOutcome;
use super::statuses::StatusChanges;
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
    /// By deletion and organisation.
    guards: HashMap<(String, OrganisationId), GuardRow>,
    confirmed: HashSet<OrganisationId>,
    syncs: HashMap<OrganisationId, SyncRow>,
    deleted: Vec<(OrganisationId, Tombstones)>,
    forgotten: Vec<OrganisationId>,
    progress: HashMap<Uuid, Progress>,
    leader: Option<LeaderRow>,
    flushes: Vec<oneshot::Sender<()>>,
}

/// A batch with this many statuses is full.
const MOST_STATUSES: usize = 1000;
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
    while let Some(first) = notes.recv().await {
        let batch = gather(first, &mut notes, not_before).await;

        // A later batch must not overtake this one, so nothing else is written until it is.
        loop {
            match lease.during(batch.write(&store)).await {
                Ok(Err(error)) => {
                    metrics.status_write_failures.increment(1);
                    tracing::warn!(%error, "Alert rule statuses not written; retrying");
                    sleep(RETRY).await;
                }
                Ok(Ok(left)) => {
                    left.into_iter().for_each(&on_moved);
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

/// What is written together. It waits until `not_before`, unless the batch is full or a flush is asked for.
async fn gather(first: Note, notes: &mut UnboundedReceiver<Note>, not_before: Instant) -> Batch {
    let mut batch = Batch::default();
    batch.add(first);
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
                self.gone.extend(changes.gone);
                for row in changes.written {
                    self.gone.remove(&(row.organisation.clone(), row.rule));
                    self.written.insert(row.rule, row);
                }
            }
            Note::Guards(rows) => {
                for row in rows {
                    self.guards.insert((row.id.clone(), row.organisation.clone()), row);
                }
            }
            Note::Confirmed(organisation) => {
                self.confirmed.insert(organisation);
            }
            Note::Sync(row) => {
                self.syncs.insert(row.organisation.clone(), *row);
            }
            Note::Deleted(organisation, rules) => self.deleted.push((organisation, rules)),
            Note::Forget(organisation) => {
                self.syncs.remove(&organisation);
                self.forgotten.push(organisation);
            }
            Note::Progress(request, progress) => {
                self.progress.insert(request, progress);
            }
            Note::Leader(row) => self.leader = Some(*row),
            Note::Flush(done) => self.flushes.push(done),
        }
    }

    /// Writes the batch, and returns the organisations that rules have left for another one.
    async fn write(&self, store: &Store) -> Result<HashSet<OrganisationId>, StoreError> {
        let mut left = HashSet::new();
        let written: Vec<RuleStatusRow> = self.written.values().cloned().collect();
        let write = move |rows| store.write_rule_statuses(rows, Vec::new());
        for organisations in write_rows(written, |row| &row.organisation, write).await? {
            left.extend(organisations);
        }
        if !self.gone.is_empty() {
            let gone = self.gone.iter().cloned().collect();
            store.write_rule_statuses(Vec::new(), gone).await?;
        }

        let guards: Vec<GuardRow> = self.guards.values().cloned().collect();
        write_rows(guards, |row| &row.organisation, move |rows| store.write_guards(rows)).await?;
        for organisation in &self.confirmed {
            store.end_confirmations(organisation.clone()).await?;
        }
        let syncs: Vec<SyncRow> = self.syncs.values().cloned().collect();
        write_rows(syncs, |row| &row.organisation, move |rows| store.write_rule_syncs(rows))
            .await?;

        // After the statuses: a rule without tombstone whose status still says live would be missed.
        for (organisation, rules) in &self.deleted {
            store.forget_tombstones(organisation.clone(), rules.clone()).await?;
        }
        for organisation in &self.forgotten {
            store.forget_rule_sync(organisation.clone()).await?;
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
        Ok(left)
    }
}

/// Writes rows together; if the database refuses one of them, one by one, without those that it refuses.
async fn write_rows<T: Clone, R, W: Future<Output = Result<R, StoreError>>>(
    rows: Vec<T>,
    organisation_of: fn(&T) -> &OrganisationId,
    write: impl Fn(Vec<T>) -> W,
) -> Result<Vec<R>, StoreError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    match write(rows.clone()).await {
        Ok(done) => return Ok(vec![done]),
        Err(error) if error.is_refusal() => {}
        Err(error) => return Err(error),
    }
    let mut all = Vec::new();
    for row in rows {
        let organisation = organisation_of(&row).clone();
        let written = write(vec![row]).await;
        all.extend(unless_refused(written, Some(&organisation))?);
    }
    Ok(all)
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
            live_hash: None,
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
        let batch = gather(status(0), &mut notes, began + not_before).await;
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
        let full = gather(status(0), &mut notes, far).await;
        assert_eq!((full.written.len(), full.flushes.len()), (MOST_STATUSES, 0));
        let flushed = gather(notes.recv().await.unwrap(), &mut notes, far).await;
        assert_eq!((flushed.written.len(), flushed.flushes.len()), (1, 1));
        assert!(Instant::now() < far);
    }
}
