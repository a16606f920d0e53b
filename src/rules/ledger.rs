//! The ledger: statuses on their way to the table, in batches, and how it stands with each
//! organisation. A batch that cannot be written is kept and tried again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::engine::Engine;
use super::hints::Hints;
use super::lease::Lease;
use super::statuses::StatusChanges;
use crate::store::{GuardRow, LeaderRow, RuleStatusRow, StoreError, SyncRow, Tombstones};
use crate::tenancy::OrganisationId;

/// Where results are handed in.
#[derive(Clone)]
pub(super) struct Ledger(UnboundedSender<Entry>);

enum Entry {
    Statuses(StatusChanges),
    Guards(Vec<GuardRow>),
    Confirmed(OrganisationId),
    Sync(Box<SyncRow>),
    Buried(OrganisationId, Tombstones),
    Forget(OrganisationId),
    Progress(Uuid, Progress),
    Leader(Box<LeaderRow>),
    /// Tells when everything before it is written.
    Flush(oneshot::Sender<()>),
}

/// How far a sync that somebody asked for has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    pub(super) done: usize,
    pub(super) total: usize,
    /// What came of it (JSON), once it is done.
    pub(super) outcome: Option<String>,
}

#[derive(Default)]
struct Batch {
    /// One for each rule, whosever it is: two rows for one cannot be written at once.
    written: HashMap<Uuid, RuleStatusRow>,
    gone: HashSet<(OrganisationId, Uuid)>,
    /// By deletion and organisation.
    guards: HashMap<(String, OrganisationId), GuardRow>,
    confirmed: HashSet<OrganisationId>,
    syncs: HashMap<OrganisationId, SyncRow>,
    buried: Vec<(OrganisationId, Tombstones)>,
    forgotten: Vec<OrganisationId>,
    progress: HashMap<Uuid, Progress>,
    leader: Option<LeaderRow>,
    flushes: Vec<oneshot::Sender<()>>,
}

/// A batch goes when it has so many statuses,
const MOST_STATUSES: usize = 1000;
/// or when nothing more came for so long.
const PAUSE: Duration = Duration::from_millis(3);
const RETRY: Duration = Duration::from_millis(500);

impl Ledger {
    /// A ledger, and what writes it down: to be run as long as the lease is held.
    pub(super) fn new(
        engine: Arc<Engine>,
        lease: Lease,
        hints: Arc<Hints>,
    ) -> (Self, impl Future<Output = ()>) {
        let (sender, entries) = unbounded_channel();
        (Self(sender), write_down(engine, lease, hints, entries))
    }

    pub(super) fn statuses(&self, changes: StatusChanges) {
        if !changes.written.is_empty() || !changes.gone.is_empty() {
            self.hand_in(Entry::Statuses(changes));
        }
    }

    /// Deletions that are held back, to be written before whatever names them.
    pub(super) fn guards(&self, rows: Vec<GuardRow>) {
        if !rows.is_empty() {
            self.hand_in(Entry::Guards(rows));
        }
    }

    /// What was confirmed of an organisation is carried out.
    pub(super) fn end_confirmations(&self, organisation: OrganisationId) {
        self.hand_in(Entry::Confirmed(organisation));
    }

    pub(super) fn sync(&self, row: SyncRow) {
        self.hand_in(Entry::Sync(Box::new(row)));
    }

    pub(super) fn buried(&self, organisation: &OrganisationId, carried_out: Tombstones) {
        if !carried_out.is_empty() {
            self.hand_in(Entry::Buried(organisation.clone(), carried_out));
        }
    }

    pub(super) fn forget(&self, organisation: OrganisationId) {
        self.hand_in(Entry::Forget(organisation));
    }

    pub(super) fn progress(&self, request: Uuid, progress: Progress) {
        self.hand_in(Entry::Progress(request, progress));
    }

    pub(super) fn leader(&self, row: LeaderRow) {
        self.hand_in(Entry::Leader(Box::new(row)));
    }

    /// Waits until what was handed in before is written; not if the lease is lost.
    pub(super) async fn flushed(&self) {
        let (done, waiting) = oneshot::channel();
        self.hand_in(Entry::Flush(done));
        let _ = waiting.await;
    }

    fn hand_in(&self, entry: Entry) {
        // Nobody writes it down any more once the lease is lost, and the next leader finds out.
        let _ = self.0.send(entry);
    }
}

async fn write_down(
    engine: Arc<Engine>,
    lease: Lease,
    hints: Arc<Hints>,
    mut entries: UnboundedReceiver<Entry>,
) {
    while let Some(first) = entries.recv().await {
        let mut batch = Batch::default();
        batch.add(first);
        while batch.written.len() < MOST_STATUSES {
            match timeout(PAUSE, entries.recv()).await {
                Ok(Some(entry)) => batch.add(entry),
                Ok(None) | Err(_) => break,
            }
        }
        loop {
            match lease.during(batch.write(&engine)).await {
                Ok(Err(error)) => {
                    engine.metrics.status_write_failures.increment(1);
                    tracing::warn!(%error, "Statuses of alert rules not written yet");
                    sleep(RETRY).await;
                }
                Ok(Ok(left)) => {
                    for organisation in left {
                        hints.left(organisation);
                    }
                    break;
                }
                Err(_) => break,
            }
        }
        if !lease.is_held() {
            return;
        }
        for flush in batch.flushes {
            let _ = flush.send(());
        }
    }
}

impl Batch {
    fn add(&mut self, entry: Entry) {
        match entry {
            Entry::Statuses(changes) => {
                for (organisation, rule) in &changes.gone {
                    // A rule that moved is gone from one, and another one's by now.
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
            Entry::Guards(rows) => {
                for row in rows {
                    self.guards.insert((row.id.clone(), row.organisation.clone()), row);
                }
            }
            Entry::Confirmed(organisation) => {
                self.confirmed.insert(organisation);
            }
            Entry::Sync(row) => {
                self.syncs.insert(row.organisation.clone(), *row);
            }
            Entry::Buried(organisation, rules) => self.buried.push((organisation, rules)),
            Entry::Forget(organisation) => {
                self.syncs.remove(&organisation);
                self.forgotten.push(organisation);
            }
            Entry::Progress(request, progress) => {
                self.progress.insert(request, progress);
            }
            Entry::Leader(row) => self.leader = Some(*row),
            Entry::Flush(done) => self.flushes.push(done),
        }
    }

    /// Writes it, and gives the organisations that rules have left.
    async fn write(&self, engine: &Engine) -> Result<HashSet<OrganisationId>, StoreError> {
        let mut left = HashSet::new();
        let store = &engine.store;
        let written: Vec<RuleStatusRow> = self.written.values().cloned().collect();
        if !written.is_empty() || !self.gone.is_empty() {
            let gone = self.gone.iter().cloned().collect();
            left = store.write_rule_statuses(written, gone).await?;
        }
        if !self.guards.is_empty() {
            store.write_guards(self.guards.values().cloned().collect()).await?;
        }
        for organisation in &self.confirmed {
            store.end_confirmations(organisation.clone()).await?;
        }
        if !self.syncs.is_empty() {
            store.write_rule_syncs(self.syncs.values().cloned().collect()).await?;
        }
        // After the statuses: a rule whose deletion is forgotten must not be thought to be live.
        for (organisation, rules) in &self.buried {
            store.forget_tombstones(organisation.clone(), rules.clone()).await?;
        }
        for organisation in &self.forgotten {
            store.forget_rule_sync(organisation.clone()).await?;
        }
        if let Some(row) = &self.leader {
            store.write_rule_leader(row.clone()).await?;
        }
        // Last: whoever waits for it finds everything before it written.
        for (request, progress) in &self.progress {
            let Progress { done, total, outcome } = progress.clone();
            store.note_sync_progress(*request, done, total, outcome).await?;
        }
        Ok(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RuleState;

    fn of(organisation: &str) -> OrganisationId {
        OrganisationId::parse(organisation).unwrap()
    }

    fn row(organisation: &str, rule: u128) -> RuleStatusRow {
        RuleStatusRow {
            rule: Uuid::from_u128(rule),
            organisation: of(organisation),
            state: RuleState::Live,
            reason: String::new(),
            live_hash: None,
            other_hashes: Vec::new(),
            refused_hash: None,
            synced_at: None,
        }
    }

    fn add(batch: &mut Batch, written: Vec<RuleStatusRow>, gone: &[(&str, u128)]) {
        let gone = gone.iter().map(|(whose, rule)| (of(whose), Uuid::from_u128(*rule))).collect();
        batch.add(Entry::Statuses(StatusChanges { written, gone }));
    }

    // Postgres writes no two rows of one key at once: a rule that moved twice in a moment would have
    // held up everybody's statuses for ever.
    #[test]
    fn a_rule_has_one_row_in_a_batch_whosever_it_was() {
        let mut batch = Batch::default();
        add(&mut batch, vec![row("b", 1), row("b", 2)], &[]);
        add(&mut batch, Vec::new(), &[("a", 1)]);
        add(&mut batch, vec![row("c", 1)], &[]);
        add(&mut batch, Vec::new(), &[("b", 1), ("b", 2)]);
        let written: Vec<&RuleStatusRow> = batch.written.values().collect();
        assert_eq!(written.len(), 1);
        assert_eq!(written[0].organisation, of("c"));
        assert_eq!(batch.gone.len(), 3);
        // It comes back to one that it had left.
        add(&mut batch, vec![row("b", 1)], &[]);
        assert_eq!(batch.written[&Uuid::from_u128(1)].organisation, of("b"));
        assert!(!batch.gone.contains(&(of("b"), Uuid::from_u128(1))));
    }
}
