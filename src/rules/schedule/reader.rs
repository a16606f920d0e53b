//! Reads everything for a full resync: the organisations, and then in batches what has changed of their rules
//! and statuses since it was read last. It runs beside the scheduler and is slowed down by it, so that not
//! all rows are in memory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, timeout};

use crate::rules::reconcile::Rows;
use crate::rules::reconcile::reconciler::Reconciler;
use crate::rules::reconcile::tenant_state::KnownVersions;
use crate::rules::status::statuses::RuleStatuses;
use crate::rules::status::writer::StatusWriter;
use crate::store::{RowVersions, RuleVersions, RulesSnapshot, StoreError};
use crate::tenancy::OrganisationId;

/// Organisations in one query of rows.
const BATCH: usize = 100;
/// Organisations in one query of versions: each gives a single row.
const VERSIONS_BATCH: usize = 10 * BATCH;
/// How long to wait for statuses that are being written.
const FLUSH: Duration = Duration::from_millis(500);

pub(crate) struct TenantRead {
    pub(crate) organisation: OrganisationId,
    pub(crate) rules: ReadRules,
    /// A time before the query.
    pub(crate) read_at: Instant,
    /// The statuses as they stand in the table, which other sessions can change.
    pub(crate) statuses: ReadStatuses,
}

pub(crate) enum ReadRules {
    Rows(Rows),
    /// They have these versions, which are known to be in sync, and no tombstones.
    Unchanged {
        versions: RowVersions,
        /// As in [`Rows`].
        listing: Option<[u8; 32]>,
    },
}

pub(crate) enum ReadStatuses {
    /// With their versions: a status may become again what it was, so it has to be these.
    Read(RuleStatuses, RowVersions),
    /// The table has what is known of them.
    Unchanged,
    /// Some are still to be written.
    Behind,
}

impl ReadRules {
    /// Whether this says something about a tenant whose rows of these versions are in sync.
    pub(crate) fn still_holds(&self, in_sync: Option<RowVersions>) -> bool {
        match self {
            Self::Rows(_) => true,
            Self::Unchanged { versions, .. } => in_sync == Some(*versions),
        }
    }
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

/// Starts to read what has other versions than these. The channel ends after everything was read, or after
/// [`Read::Failed`].
pub(crate) fn start_reading(
    reconciler: Arc<Reconciler>,
    writer: StatusWriter,
    known: HashMap<OrganisationId, KnownVersions>,
) -> Receiver<Read> {
    let (sender, receiver) = channel(1);
    tokio::spawn(async move {
        let reader = Reader { reconciler, writer, known };
        if let Err(error) = reader.read_all(&sender).await {
            let _ = sender.send(Read::Failed(error)).await;
        }
    });
    receiver
}

struct Reader {
    reconciler: Arc<Reconciler>,
    writer: StatusWriter,
    known: HashMap<OrganisationId, KnownVersions>,
}

/// The digest of each tenant's listing.
type Listings = HashMap<OrganisationId, [u8; 32]>;

/// Of some organisations, at one moment.
struct Versions {
    of: HashMap<OrganisationId, RuleVersions>,
    /// A time before the query.
    read_at: Instant,
}

/// A tenant of which only versions were read.
struct Unread {
    organisation: OrganisationId,
    versions: Option<RuleVersions>,
    has_same_rules: bool,
    has_same_statuses: bool,
}

impl Unread {
    fn is_known(&self) -> bool {
        self.has_same_rules && self.has_same_statuses
    }
}

/// What was read before rows.
struct Before<'a> {
    listings: &'a Listings,
    versions: Option<Versions>,
}

impl Reader {
    async fn read_all(&self, sender: &Sender<Read>) -> Result<(), StoreError> {
        let organisations = self.reconciler.store.organisations().await?;
        let mut names: Vec<OrganisationId> = organisations.iter().cloned().collect();
        names.sort();
        if sender.send(Read::Listed(organisations)).await.is_err() {
            return Ok(());
        }
        let listings = self.read_listings(&names).await;
        for names in names.chunks(VERSIONS_BATCH) {
            let before = Before { listings: &listings, versions: self.read_versions(names).await };
            for batch in names.chunks(BATCH) {
                let read = match self.read_batch(&before, batch).await {
                    Ok(read) => vec![read],
                    Err(_) => self.read_singly(&before, batch).await?,
                };
                for read in read {
                    if sender.send(read).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// The versions of what is known of some organisations; what has none is read.
    async fn read_versions(&self, names: &[OrganisationId]) -> Option<Versions> {
        // Those of statuses that are still to be written would soon be others.
        let _ = timeout(FLUSH, self.writer.flushed()).await;
        let read_at = Instant::now();
        let store = &self.reconciler.store;
        let of = match store.rule_versions_of(names.to_vec()).await {
            Ok(versions) => versions?,
            Err(error) => {
                tracing::warn!(%error, "Row versions of alert rules not read; reading the rules");
                if error.is_refusal() || matches!(error, StoreError::Unfit(_)) {
                    return None;
                }
                // An organisation with very many rows must not cost the others more than their batch.
                let (mut of, mut failures) = (HashMap::new(), 0);
                for batch in names.chunks(BATCH) {
                    match store.rule_versions_of(batch.to_vec()).await {
                        Ok(versions) => of.extend(versions?),
                        Err(_) if failures > 0 => break,
                        Err(_) => failures += 1,
                    }
                }
                of
            }
        };
        Some(Versions { of, read_at })
    }

    /// Lists all tenants in one request, if that is configured. A tenant that is missing from the answer is
    /// listed by its own reconcile, because Mimir leaves out tenants that it fails to load.
    async fn read_listings(&self, names: &[OrganisationId]) -> Listings {
        let reconciler = &self.reconciler;
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
    /// must not stop the others. If several cannot be read, or none can, the fault is the database's if the
    /// same queries fail for nobody's rules.
    async fn read_singly(
        &self,
        before: &Before<'_>,
        batch: &[OrganisationId],
    ) -> Result<Vec<Read>, StoreError> {
        let mut read = Vec::with_capacity(batch.len());
        let are_to_be_read = batch.iter().filter(|name| !self.unread(before, name).is_known());
        let (mut unreadable, of) = (0, are_to_be_read.count());
        for one in batch {
            match self.read_batch(before, std::slice::from_ref(one)).await {
                Ok(one) => read.push(one),
                Err(error_of_one) => {
                    unreadable += 1;
                    match fault(unreadable, of) {
                        Fault::Organisations => {}
                        Fault::Database => return Err(error_of_one),
                        Fault::Unclear => {
                            self.reconciler.store.alert_rules_of(Vec::new()).await?;
                            self.read_statuses(Vec::new()).await?;
                        }
                    }
                    read.push(Read::Unreadable(one.clone(), error_of_one));
                }
            }
        }
        Ok(read)
    }

    /// Reads what has other versions than those that are known. Versions were read before rows: what changes
    /// in between is read, and once more by the next full resync.
    async fn read_batch(
        &self,
        before: &Before<'_>,
        batch: &[OrganisationId],
    ) -> Result<Read, StoreError> {
        let tenants: Vec<Unread> = batch.iter().map(|name| self.unread(before, name)).collect();
        let changed = |is_unchanged: fn(&Unread) -> bool| -> Vec<OrganisationId> {
            let changed = tenants.iter().filter(|tenant| !is_unchanged(tenant));
            changed.map(|tenant| tenant.organisation.clone()).collect()
        };
        let rules_changed = changed(|tenant| tenant.has_same_rules);
        let statuses_changed = changed(|tenant| tenant.has_same_statuses);

        // Statuses that were handed in before are in the table when it is read.
        let is_flushed =
            statuses_changed.is_empty() || timeout(FLUSH, self.writer.flushed()).await.is_ok();
        let read_at = Instant::now();
        let (mut snapshot, mut statuses) = (RulesSnapshot::default(), HashMap::new());
        if !rules_changed.is_empty() {
            snapshot = self.reconciler.store.alert_rules_of(rules_changed).await?;
        }
        if !statuses_changed.is_empty() {
            statuses = self.read_statuses(statuses_changed).await?;
        }

        let (mut read, mut gone) = (Vec::with_capacity(batch.len()), Vec::new());
        for Unread { organisation, versions, has_same_rules, has_same_statuses } in tenants {
            let listing = before.listings.get(&organisation).copied();
            let (rules, read_at) = match (versions, &before.versions) {
                (Some(versions), Some(all)) if has_same_rules => {
                    (ReadRules::Unchanged { versions: versions.rules, listing }, all.read_at)
                }
                _ if snapshot.existing.contains(&organisation) => {
                    let rows = Rows {
                        rules: snapshot.rows.remove(&organisation).unwrap_or_default(),
                        tombstones: snapshot.tombstones.remove(&organisation).unwrap_or_default(),
                        versions: versions.map(|versions| versions.rules),
                        listing,
                    };
                    (ReadRules::Rows(rows), read_at)
                }
                _ => {
                    gone.push(organisation);
                    continue;
                }
            };
            let statuses = if has_same_statuses {
                ReadStatuses::Unchanged
            } else if is_flushed {
                let (statuses, versions) = statuses.remove(&organisation).unwrap_or_default();
                ReadStatuses::Read(statuses, versions)
            } else {
                ReadStatuses::Behind
            };
            read.push(TenantRead { organisation, rules, read_at, statuses });
        }
        Ok(Read::Batch { read, gone })
    }

    /// What is known of a tenant before its rows are read.
    fn unread(&self, before: &Before<'_>, organisation: &OrganisationId) -> Unread {
        let versions =
            before.versions.as_ref().and_then(|versions| versions.of.get(organisation)).copied();
        let known = self.known.get(organisation).copied().unwrap_or_default();
        Unread {
            organisation: organisation.clone(),
            versions,
            has_same_rules: versions
                .is_some_and(|now| !now.has_tombstones && known.rules == Some(now.rules)),
            has_same_statuses: versions.is_some_and(|now| known.statuses == Some(now.statuses)),
        }
    }

    async fn read_statuses(
        &self,
        organisations: Vec<OrganisationId>,
    ) -> Result<HashMap<OrganisationId, (RuleStatuses, RowVersions)>, StoreError> {
        let mut statuses: HashMap<OrganisationId, (RuleStatuses, RowVersions)> = HashMap::new();
        let read = self.reconciler.store.versioned_rule_statuses_of(organisations).await?;
        for (row, version) in read {
            let (of_one, versions) = statuses.entry(row.organisation.clone()).or_default();
            of_one.insert(row.rule, row.into());
            versions.add(version);
        }
        Ok(statuses)
    }
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
