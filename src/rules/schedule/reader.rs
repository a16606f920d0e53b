//! Reads everything for a full resync: the organisations, and then their rules and statuses in batches.
//! It runs beside the scheduler and is slowed down by it, so that not all rows are in memory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, timeout};

use crate::rules::reconcile::Rows;
use crate::rules::reconcile::reconciler::Reconciler;
use crate::rules::status::statuses::RuleStatuses;
use crate::rules::status::writer::StatusWriter;
use crate::store::StoreError;
use crate::tenancy::OrganisationId;

/// Organisations in one query.
const BATCH: usize = 100;
/// How long to wait for statuses that are being written.
const FLUSH: Duration = Duration::from_millis(500);

pub(crate) struct TenantRead {
    pub(crate) organisation: OrganisationId,
    pub(crate) rows: Rows,
    /// A time before the query.
    pub(crate) read_at: Instant,
    /// The statuses as they stand in the table, where somebody may have changed them. None if some are
    /// still to be written, so that the table is behind.
    pub(crate) statuses: Option<RuleStatuses>,
}

pub(crate) enum Read {
    Listed(HashSet<OrganisationId>),
    /// A batch. Organisations in `gone` do not exist any more.
    Batch {
        read: Vec<TenantRead>,
        gone: Vec<OrganisationId>,
    },
    /// One organisation could not be read although others could.
    Unreadable(OrganisationId, StoreError),
    Failed(StoreError),
}

/// Starts to read. The channel ends after everything was read, or after [`Read::Failed`].
pub(crate) fn start_reading(reconciler: Arc<Reconciler>, writer: StatusWriter) -> Receiver<Read> {
    let (sender, receiver) = channel(1);
    tokio::spawn(async move {
        if let Err(error) = read_all(&reconciler, &writer, &sender).await {
            let _ = sender.send(Read::Failed(error)).await;
        }
    });
    receiver
}

async fn read_all(
    reconciler: &Reconciler,
    writer: &StatusWriter,
    sender: &Sender<Read>,
) -> Result<(), StoreError> {
    let organisations = reconciler.store.organisations().await?;
    let mut names: Vec<OrganisationId> = organisations.iter().cloned().collect();
    names.sort();
    if sender.send(Read::Listed(organisations)).await.is_err() {
        return Ok(());
    }
    let listings = read_listings(reconciler, &names).await;
    for batch in names.chunks(BATCH) {
        let read = match read_batch(reconciler, writer, &listings, batch).await {
            Ok(read) => vec![read],
            Err(error) => read_singly(reconciler, writer, &listings, batch, error).await?,
        };
        for read in read {
            if sender.send(read).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The digest of each tenant's listing.
type Listings = HashMap<OrganisationId, [u8; 32]>;

/// Lists all tenants in one request, if that is configured. A tenant that is missing from the answer is
/// listed by its own reconcile, because Mimir leaves out tenants that it fails to load.
async fn read_listings(reconciler: &Reconciler, names: &[OrganisationId]) -> Listings {
    let mut listings = Listings::new();
    if !reconciler.config.list_all_tenants {
        return listings;
    }
    let tenant_of = |name: &OrganisationId| {
        let tenant = reconciler.tenant_of(name).ok()?;
        Some((tenant.as_str().to_owned(), name.clone()))
    };
    let tenants: HashMap<String, OrganisationId> = names.iter().filter_map(tenant_of).collect();
    let read = reconciler.client.list_all(|tenant, listing| {
        if let Some(organisation) = tenants.get(tenant.as_str()) {
            listings.insert(organisation.clone(), listing.digest());
        }
    });
    let read = read.await;
    if let Err(error) = read {
        tracing::warn!(%error, "Rule groups of all tenants not listed in one request; listing one by one");
        listings.clear();
    }
    listings
}

/// Reads a failed batch one organisation at a time: some of them may be too much for the database, which
/// must not stop the others. If several cannot be read, or none can, the fault is the database's if the same
/// queries fail for nobody's rules.
async fn read_singly(
    reconciler: &Reconciler,
    writer: &StatusWriter,
    listings: &Listings,
    batch: &[OrganisationId],
    mut error: StoreError,
) -> Result<Vec<Read>, StoreError> {
    let mut read = Vec::with_capacity(batch.len());
    let mut unreadable = 0;
    for one in batch {
        match read_batch(reconciler, writer, listings, std::slice::from_ref(one)).await {
            Ok(one) => read.push(one),
            Err(error_of_one) => {
                unreadable += 1;
                error = error_of_one.clone();
                read.push(Read::Unreadable(one.clone(), error_of_one));
            }
        }
        match fault(unreadable, batch.len()) {
            Fault::Organisations => {}
            Fault::Database => return Err(error),
            Fault::Unclear => {
                read_batch(reconciler, writer, listings, &[]).await?;
            }
        }
    }
    Ok(read)
}

/// What is at fault if some organisations of a batch cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Organisations,
    Database,
    /// Only the same queries without an organisation can tell.
    Unclear,
}

/// Somebody who owns a few organisations must not stop everybody's full resync, and each failed read may take the
/// whole time that a query has.
fn fault(unreadable: usize, of: usize) -> Fault {
    const FEW: usize = 2;
    const MOST: usize = BATCH / 4;
    if unreadable > MOST {
        Fault::Database
    } else if unreadable > FEW || (unreadable > 0 && unreadable == of) {
        // The last batch may be of a single organisation.
        Fault::Unclear
    } else {
        Fault::Organisations
    }
}

async fn read_batch(
    reconciler: &Reconciler,
    writer: &StatusWriter,
    listings: &Listings,
    batch: &[OrganisationId],
) -> Result<Read, StoreError> {
    // Statuses that were handed in before are in the table when it is read.
    let is_flushed = timeout(FLUSH, writer.flushed()).await.is_ok();
    let read_at = Instant::now();
    let mut snapshot = reconciler.store.alert_rules_of(batch.to_vec()).await?;
    let mut statuses: HashMap<OrganisationId, RuleStatuses> = HashMap::new();
    for row in reconciler.store.rule_statuses_of(batch.to_vec()).await? {
        let of_one = statuses.entry(row.organisation.clone()).or_default();
        of_one.insert(row.rule, row.into());
    }
    let (existing, gone): (Vec<OrganisationId>, Vec<OrganisationId>) =
        batch.iter().cloned().partition(|name| snapshot.existing.contains(name));
    let read = existing.into_iter().map(|organisation| TenantRead {
        rows: Rows {
            listing: listings.get(&organisation).copied(),
            rules: snapshot.rows.remove(&organisation).unwrap_or_default(),
            tombstones: snapshot.tombstones.remove(&organisation).unwrap_or_default(),
        },
        read_at,
        statuses: is_flushed.then(|| statuses.remove(&organisation).unwrap_or_default()),
        organisation,
    });
    Ok(Read::Batch { read: read.collect(), gone })
}

#[cfg(test)]
mod tests {
    use super::*;

    // Seen: with 101 organisations the last batch is of one. It could not be read, and every full resync failed.
    #[test]
    fn the_last_organisation_alone_does_not_condemn_the_database() {
        assert_eq!(fault(1, 1), Fault::Unclear);
        assert_eq!((fault(1, 2), fault(2, 2)), (Fault::Organisations, Fault::Unclear));
        assert_eq!(
            (fault(1, BATCH), fault(2, BATCH)),
            (Fault::Organisations, Fault::Organisations)
        );
        assert_eq!(fault(0, BATCH), Fault::Organisations);
    }

    // The owner of three organisations with rules that are too much for the database stopped every full resync.
    #[test]
    fn three_organisations_do_not_condemn_the_database() {
        assert_eq!((fault(3, 3), fault(3, BATCH)), (Fault::Unclear, Fault::Unclear));
        assert_eq!(fault(BATCH / 4, BATCH), Fault::Unclear);
        assert_eq!(fault(BATCH / 4 + 1, BATCH), Fault::Database);
    }
}
