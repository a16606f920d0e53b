//! A look at everything: the organisations are read, then their rules in batches, and each tenant is
//! looked at. What would vanish is not touched before all of it has been seen and judged together.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::activation::{Mode, Rows};
use super::engine::Engine;
use super::ledger::Ledger;
use super::overall::Loss;
use super::statuses::KeptStatuses;
use crate::store::StoreError;
use crate::tenancy::OrganisationId;

/// Organisations that are read at once.
const BATCH: usize = 100;
/// How long statuses that are being written are waited for.
const FLUSH: Duration = Duration::from_millis(500);

/// One organisation, as it was read.
pub(super) struct Surveyed {
    pub(super) organisation: OrganisationId,
    pub(super) rows: Rows,
    /// Before it was read.
    pub(super) read_at: Instant,
    /// Its rules' statuses, as they stand in the table: whoever has changed them there, and whatever was
    /// lost on the way, they are compared with what Mimir has. None if some are still to be written.
    pub(super) kept: Option<KeptStatuses>,
}

/// What the reader says.
pub(super) enum Read {
    /// The organisations that there are.
    Organisations(HashSet<OrganisationId>),
    /// Some of them.
    Batch(Vec<Surveyed>),
    /// One that could not be read by itself, as others could.
    Unread(OrganisationId, StoreError),
    /// It could not go on.
    Failed(StoreError),
}

/// One thing of the second half.
pub(super) enum Removing {
    /// A tenant is looked at once more, and may lose rules.
    Look(OrganisationId, Mode),
    /// The namespace of an organisation that is gone goes.
    Bury(OrganisationId),
}

/// A survey under way.
pub(super) struct Survey {
    pub(super) reader: Option<Receiver<Read>>,
    pub(super) todo: VecDeque<Surveyed>,
    /// Being looked at.
    pub(super) pending: HashSet<OrganisationId>,
    pub(super) organisations: HashSet<OrganisationId>,
    pub(super) total: usize,
    pub(super) done: usize,
    pub(super) phase: Phase,
    /// What would vanish, or stays, of each tenant.
    pub(super) losses: BTreeMap<OrganisationId, Loss>,
    /// Tenants of which something would vanish.
    pub(super) deferred: Vec<OrganisationId>,
    /// Organisations that have been gone for long enough.
    pub(super) buried: Vec<OrganisationId>,
    /// What is to be done in the second half.
    pub(super) removing: VecDeque<Removing>,
    pub(super) outcomes: HashMap<&'static str, usize>,
    pub(super) problem: Option<String>,
    pub(super) began: Instant,
    /// Syncs of everything that somebody waits for.
    pub(super) requests: Vec<Uuid>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Each tenant is looked at, and nothing vanishes.
    Looking,
    /// All have been looked at; whether what would vanish may is being asked.
    Judging,
    /// What may vanish does.
    Removing,
}

impl Survey {
    pub(super) fn begin(engine: Arc<Engine>, ledger: Ledger, requests: Vec<Uuid>) -> Self {
        // Rows wait here while tenants are looked at, and not all of them in memory.
        let (sender, reader) = channel(1);
        tokio::spawn(read(engine, ledger, sender));
        Self {
            reader: Some(reader),
            todo: VecDeque::new(),
            pending: HashSet::new(),
            organisations: HashSet::new(),
            total: 0,
            done: 0,
            phase: Phase::Looking,
            losses: BTreeMap::new(),
            deferred: Vec::new(),
            buried: Vec::new(),
            removing: VecDeque::new(),
            outcomes: HashMap::new(),
            problem: None,
            began: Instant::now(),
            requests,
        }
    }

    /// What the reader says next; waits for ever when it has said all, or there is enough to do.
    pub(super) async fn next_read(&mut self, enough: usize) -> Option<Read> {
        match &mut self.reader {
            Some(reader) if self.todo.len() < enough => reader.recv().await,
            _ => std::future::pending().await,
        }
    }

    /// Whether this is the first half of one that somebody waits for.
    pub(super) fn is_asked_for(&self) -> bool {
        self.phase == Phase::Looking && !self.requests.is_empty()
    }

    /// Whether every tenant has been looked at.
    pub(super) fn is_seen(&self) -> bool {
        self.reader.is_none()
            && self.todo.is_empty()
            && self.removing.is_empty()
            && self.pending.is_empty()
    }
}

async fn read(engine: Arc<Engine>, ledger: Ledger, sender: Sender<Read>) {
    if let Err(error) = read_all(&engine, &ledger, &sender).await {
        let _ = sender.send(Read::Failed(error)).await;
    }
}

async fn read_all(
    engine: &Engine,
    ledger: &Ledger,
    sender: &Sender<Read>,
) -> Result<(), StoreError> {
    let organisations = engine.store.organisations().await?;
    let mut names: Vec<OrganisationId> = organisations.iter().cloned().collect();
    names.sort();
    if sender.send(Read::Organisations(organisations)).await.is_err() {
        return Ok(());
    }
    let listings = read_listings(engine, &names).await;
    for batch in names.chunks(BATCH) {
        let read = match read_batch(engine, ledger, &listings, batch).await {
            Ok(surveyed) => vec![Read::Batch(surveyed)],
            Err(error) => read_singly(engine, ledger, &listings, batch, error).await?,
        };
        for read in read {
            if sender.send(read).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// What Mimir has of each organisation, by its digest.
type Listings = HashMap<OrganisationId, [u8; 32]>;

/// Asks Mimir for all tenants at once, where that is wished. Whoever is not in the answer is asked
/// about by itself: Mimir leaves out what it fails to load.
async fn read_listings(engine: &Engine, names: &[OrganisationId]) -> Listings {
    let mut listings = Listings::new();
    if !engine.config.list_all_tenants {
        return listings;
    }
    let of = |name: &OrganisationId| {
        let tenant = engine.tenant_of(name).ok()?;
        Some((tenant.as_str().to_owned(), name.clone()))
    };
    let tenants: HashMap<String, OrganisationId> = names.iter().filter_map(of).collect();
    let read = engine.client.list_all(|tenant, listing| {
        if let Some(organisation) = tenants.get(tenant.as_str()) {
            listings.insert(organisation.clone(), listing.digest());
        }
    });
    let read = read.await;
    if let Err(error) = read {
        tracing::warn!(%error, "All tenants' rule groups not read at once; read one by one");
        listings.clear();
    }
    listings
}

/// One of a batch may be too much for the database; the others have nothing to do with that. If none
/// of them can be read, or several cannot, it is the database.
async fn read_singly(
    engine: &Engine,
    ledger: &Ledger,
    listings: &Listings,
    batch: &[OrganisationId],
    mut error: StoreError,
) -> Result<Vec<Read>, StoreError> {
    const MOST_UNREAD: usize = 3;
    let mut read = Vec::with_capacity(batch.len());
    let mut unread = 0;
    for one in batch {
        match read_batch(engine, ledger, listings, std::slice::from_ref(one)).await {
            Ok(surveyed) => read.push(Read::Batch(surveyed)),
            Err(of_one) => {
                unread += 1;
                error = of_one.clone();
                read.push(Read::Unread(one.clone(), of_one));
            }
        }
        if unread >= MOST_UNREAD.min(batch.len()) {
            return Err(error);
        }
    }
    Ok(read)
}

async fn read_batch(
    engine: &Engine,
    ledger: &Ledger,
    listings: &Listings,
    batch: &[OrganisationId],
) -> Result<Vec<Surveyed>, StoreError> {
    // What was handed in before this moment is in the table when it is read.
    let is_flushed = timeout(FLUSH, ledger.flushed()).await.is_ok();
    let read_at = Instant::now();
    let mut snapshot = engine.store.alert_rules_of(batch.to_vec()).await?;
    let mut kept: HashMap<OrganisationId, KeptStatuses> = HashMap::new();
    for row in engine.store.rule_statuses_of(batch.to_vec()).await? {
        let of = kept.entry(row.organisation.clone()).or_default();
        of.insert(row.rule, row.into());
    }
    let surveyed = batch.iter().filter(|name| snapshot.existing.contains(*name));
    let surveyed = surveyed.map(|organisation| Surveyed {
        organisation: organisation.clone(),
        rows: Rows {
            listing: listings.get(organisation).copied(),
            rules: snapshot.rows.remove(organisation).unwrap_or_default(),
            tombstones: snapshot.tombstones.remove(organisation).unwrap_or_default(),
        },
        read_at,
        kept: is_flushed.then(|| kept.remove(organisation).unwrap_or_default()),
    });
    Ok(surveyed.collect())
}
