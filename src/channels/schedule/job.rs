//! A task that reconciles one organisation: reads what the database has of it, reconciles, and records
//! what became of it.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::queue::Started;
use crate::channels::guard::{Purge, Purges};
use crate::channels::outcome::{Failure, Outcome};
use crate::channels::reaches::ReachFound;
use crate::channels::reconcile::{Given, Memory, Reconciled, reconcile};
use crate::channels::reconciler::{ChannelReconciler, Read};
use crate::channels::spec::State;
use crate::channels::spec::States;
use crate::channels::world::LiveWorld;
use crate::clock::Clock;
use crate::election::Lease;
use crate::store::{
    GuardHeld, NotificationKind, NotificationStatusRow, NotificationSyncRow, StoreError,
};
use crate::tenancy::OrganisationId;

pub(super) struct Job {
    pub(super) reconciler: Arc<ChannelReconciler>,
    pub(super) lease: Lease,
    pub(super) clock: Clock,
    /// What the last listing allows to be purged.
    pub(super) purges: Arc<Purges>,
    pub(super) organisation: OrganisationId,
    pub(super) started: Started,
}

pub(super) struct JobEnd {
    pub(super) organisation: OrganisationId,
    pub(super) outcome: Outcome,
    pub(super) memory: Box<Memory>,
    /// Channels in each state, by [`State::ALL`]; none if it is unknown.
    pub(super) states: Option<[usize; State::ALL.len()]>,
    pub(super) took: Duration,
    /// Which alerts reach a channel.
    pub(super) reach: ReachFound,
    /// Nothing of the organisation is left to look after.
    pub(super) is_over: bool,
    pub(super) triggered_at: Option<Instant>,
}

/// What there is to record.
struct Ending {
    outcome: Outcome,
    states: Option<[usize; State::ALL.len()]>,
    reach: ReachFound,
    is_over: bool,
}

impl Ending {
    fn of(outcome: Outcome) -> Self {
        Self { outcome, states: None, reach: ReachFound::Nothing, is_over: false }
    }
}

impl Job {
    pub(super) async fn run(self) -> JobEnd {
        let began = Instant::now();
        let Self { reconciler, lease, clock, purges, organisation, started } = self;
        let Started { mut memory, triggered_at } = started;
        let work = Work { reconciler: &reconciler, lease: &lease, clock: &clock, purges: &purges };
        let ending = work.run(&organisation, &mut memory).await;
        let Ending { outcome, states, reach, is_over } =
            ending.unwrap_or_else(|error| Ending::of(Outcome::Failed(error.into())));
        let took = began.elapsed();
        log(&organisation, &outcome, states.as_ref(), took);
        JobEnd { organisation, outcome, memory, states, took, reach, is_over, triggered_at }
    }
}

struct Work<'a> {
    reconciler: &'a ChannelReconciler,
    lease: &'a Lease,
    clock: &'a Clock,
    purges: &'a Purges,
}

/// Whether the document is to be deleted because its organisation is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purging {
    No,
    Yes,
    /// An administrator has confirmed it.
    Confirmed,
}

impl Work<'_> {
    async fn run(
        &self,
        organisation: &OrganisationId,
        memory: &mut Memory,
    ) -> Result<Ending, StoreError> {
        let read = self.reconciler.read(organisation).await?;
        let purging = match (read.exists, &read.sync) {
            (true, _) => Purging::No,
            // It never had a document.
            (false, None) => return self.forget(organisation).await,
            (false, Some(sync)) => {
                // By Postgres' clock: another copy may have noted it, and clocks differ.
                let now = self.reconciler.store.now().await?;
                let oldest = now - self.reconciler.grace;
                if sync.absent_since.is_none_or(|since| since > oldest) {
                    return self.note_absence(sync, now).await;
                }
                match self.purges.of(organisation) {
                    Purge::Unjudged => return self.note_absence(sync, now).await,
                    Purge::Allowed => Purging::Yes,
                    Purge::Held(held) if sync.confirmed_guard.as_ref() == Some(&held.id) => {
                        Purging::Confirmed
                    }
                    Purge::Held(held) => return self.hold(sync, held).await,
                }
            }
        };
        if read.sync.as_ref().is_some_and(NotificationSyncRow::is_requested) {
            memory.expire();
        }
        let reconciled = self.reconcile(organisation, &read, memory, purging).await;
        if reconciled.outcome == Outcome::LeaseLost {
            return Ok(Ending::of(Outcome::LeaseLost));
        }
        self.record(organisation, read, reconciled, purging != Purging::No).await
    }

    async fn reconcile(
        &self,
        organisation: &OrganisationId,
        read: &Read,
        memory: &mut Memory,
        purging: Purging,
    ) -> Reconciled {
        let sync = read.sync.as_ref();
        let given = Given {
            organisation,
            operator: &self.reconciler.operator,
            rows: &read.rows,
            statuses: &read.statuses,
            confirmed: sync.and_then(|sync| sync.confirmed_guard.as_deref()),
            written: sync.and_then(|sync| sync.document_hash.as_deref()),
            is_purge: purging != Purging::No,
            is_purge_confirmed: purging == Purging::Confirmed,
        };
        match self.reconciler.tenant_of(organisation) {
            Ok(tenant) => {
                let world = LiveWorld {
                    client: &self.reconciler.client,
                    tenant: &tenant,
                    lease: self.lease,
                };
                reconcile(&world, &given, memory).await
            }
            Err(error) => Reconciled::failed(&given, memory, Failure::no_tenant(&error)),
        }
    }

    /// Nothing of the organisation is in Mimir, and it does not exist.
    async fn forget(&self, organisation: &OrganisationId) -> Result<Ending, StoreError> {
        let forget = self.reconciler.store.forget_notification_sync(organisation.clone());
        self.write(Box::pin(forget)).await?;
        Ok(Ending {
            states: Some([0; State::ALL.len()]),
            is_over: true,
            ..Ending::of(Outcome::Unchanged)
        })
    }

    async fn note_absence(
        &self,
        sync: &NotificationSyncRow,
        at: OffsetDateTime,
    ) -> Result<Ending, StoreError> {
        let mut row = sync.clone();
        if row.absent_since.is_none() {
            tracing::info!(organisation.id = %sync.organisation, "Organisation is gone; deleting its channels after the grace period");
            row.absent_since = Some(at);
        }
        row.answer();
        self.write_sync(Some(sync), row).await?;
        Ok(Ending::of(Outcome::Unchanged))
    }

    /// The purge waits for a confirmation. It ends by itself when the organisation is listed again.
    async fn hold(
        &self,
        sync: &NotificationSyncRow,
        held: GuardHeld,
    ) -> Result<Ending, StoreError> {
        let mut row = sync.clone();
        if row.guard.as_ref().is_none_or(|before| before.id != held.id) {
            row.guard_since = Some(self.clock.utc());
        }
        row.guard = Some(held.clone());
        SyncState::Held.name().clone_into(&mut row.state);
        row.problem.clear();
        row.problem_since = None;
        row.answer();
        self.write_sync(Some(sync), row).await?;
        Ok(Ending::of(Outcome::Held(held)))
    }

    /// Brings to the database what became of it. Statuses first: a request is answered when everything
    /// that it led to can be read.
    async fn record(
        &self,
        organisation: &OrganisationId,
        read: Read,
        mut reconciled: Reconciled,
        is_purge: bool,
    ) -> Result<Ending, StoreError> {
        if is_purge && reconciled.is_done {
            tracing::info!(organisation.id = %organisation, "Channels of a deleted organisation deleted");
            return self.forget(organisation).await;
        }
        let Read { rows, statuses, sync, .. } = read;
        let (written, gone) = changes(organisation, &statuses, &reconciled, self.clock.utc());
        let store = &self.reconciler.store;
        if !written.is_empty() || !gone.is_empty() {
            self.write(Box::pin(store.write_notification_statuses(written, gone))).await?;
        }
        let states = count(&reconciled.channels);
        let has_rows = !reconciled.channels.is_empty() || !reconciled.routes.is_empty();
        let is_nothing = !has_rows && reconciled.document.is_none() && reconciled.is_done;
        let tenant = self.reconciler.tenant_of(organisation);
        let tenant = tenant.map(|tenant| tenant.as_str().to_owned()).unwrap_or_default();
        let mut now = sync.clone().unwrap_or_else(|| NotificationSyncRow::new(organisation));
        now.tenant = tenant;
        self.update(&mut now, &reconciled, is_purge);
        // An organisation without channels needs no record.
        if sync.is_some() || !is_nothing {
            self.write_sync(sync.as_ref(), now).await?;
        }
        if reconciled.is_done
            && !(rows.channel_tombstones.is_empty() && rows.route_tombstones.is_empty())
        {
            let (channels, routes) = (rows.channel_tombstones, rows.route_tombstones);
            let forget =
                store.forget_notification_tombstones(organisation.clone(), channels, routes);
            self.write(Box::pin(forget)).await?;
        }
        let reach = reach_of(&mut reconciled);
        Ok(Ending {
            outcome: reconciled.outcome,
            states: Some(states),
            reach,
            is_over: is_nothing && sync.is_none(),
        })
    }

    fn update(&self, sync: &mut NotificationSyncRow, reconciled: &Reconciled, is_purge: bool) {
        let now = self.clock.utc();
        if !is_purge {
            sync.absent_since = None;
        }
        if reconciled.wrote {
            sync.synced_at = Some(now);
        }
        if reconciled.is_done {
            sync.document_hash.clone_from(&reconciled.document);
        }
        // A failure says nothing about what is held: it stays held.
        let (problem, guard, state) = match &reconciled.outcome {
            Outcome::Failed(failure) => {
                (failure.problem.clone(), sync.guard.clone(), SyncState::Failed)
            }
            Outcome::Held(held) => (String::new(), Some(held.clone()), SyncState::Held),
            _ if reconciled.document.is_some() => (String::new(), None, SyncState::Live),
            _ if reconciled.is_foreign => (String::new(), None, SyncState::Foreign),
            _ => (String::new(), None, SyncState::None),
        };
        sync.problem_since =
            if problem.is_empty() { None } else { sync.problem_since.or(Some(now)) };
        sync.problem = problem;
        state.name().clone_into(&mut sync.state);
        let id = |held: &Option<GuardHeld>| held.as_ref().map(|held| held.id.clone());
        if id(&guard) != id(&sync.guard) {
            sync.guard_since = guard.as_ref().map(|_| now);
        }
        sync.guard = guard;
        if reconciled.is_done {
            // It was carried out, or is not needed any more.
            sync.confirmed_guard = None;
        }
        sync.answer();
    }

    async fn write_sync(
        &self,
        before: Option<&NotificationSyncRow>,
        now: NotificationSyncRow,
    ) -> Result<(), StoreError> {
        if before == Some(&now) {
            return Ok(());
        }
        let ended = before.is_some_and(|before| before.confirmed_guard.is_some())
            && now.confirmed_guard.is_none();
        let organisation = now.organisation.clone();
        let store = &self.reconciler.store;
        if ended {
            self.write(Box::pin(store.end_notification_confirmation(organisation))).await?;
        }
        self.write(Box::pin(store.write_notification_syncs(vec![now]))).await
    }

    /// Only the leader writes, also to the database.
    async fn write(
        &self,
        write: Pin<Box<impl Future<Output = Result<(), StoreError>>>>,
    ) -> Result<(), StoreError> {
        match self.lease.during(write).await {
            Ok(done) => done,
            Err(_) => Err(StoreError::Unavailable("the leadership was lost".to_owned())),
        }
    }
}

/// What is known of where alerts go. A foreign document holds as long as it is there, whatever was
/// known before.
fn reach_of(reconciled: &mut Reconciled) -> ReachFound {
    match (reconciled.is_foreign, reconciled.is_done, reconciled.reach.take()) {
        (true, _, _) | (false, true, None) => ReachFound::Unknowable,
        (false, true, Some(reach)) => ReachFound::Is(reach),
        (false, false, _) => ReachFound::Nothing,
    }
}

/// What an organisation's document is, as `notification_sync.state` says it.
#[derive(Clone, Copy, Debug)]
enum SyncState {
    /// There is none, and none is needed.
    None,
    Live,
    Held,
    /// There is a foreign one, and nothing is to be written.
    Foreign,
    Failed,
}

impl SyncState {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Live => "live",
            Self::Held => "held",
            Self::Foreign => "foreign",
            Self::Failed => "error",
        }
    }
}

type Gone = Vec<(NotificationKind, OrganisationId, Uuid)>;

/// The statuses to write, and those of rows that are gone.
fn changes(
    organisation: &OrganisationId,
    before: &[NotificationStatusRow],
    reconciled: &Reconciled,
    at: OffsetDateTime,
) -> (Vec<NotificationStatusRow>, Gone) {
    let known: HashMap<(NotificationKind, Uuid), &NotificationStatusRow> =
        before.iter().map(|row| ((row.kind, row.id), row)).collect();
    let now = [
        (NotificationKind::Channel, &reconciled.channels),
        (NotificationKind::Route, &reconciled.routes),
    ];
    let mut written = Vec::new();
    for (kind, states) in now {
        for (id, (state, reason)) in states {
            let before = known.get(&(kind, *id));
            let is_same =
                before.is_some_and(|before| before.state == *state && before.reason == *reason);
            if is_same && !reconciled.renewed.contains(id) {
                continue;
            }
            // Live, and not known since when: since it was seen now.
            let is_new = reconciled.renewed.contains(id) || !is_same;
            written.push(NotificationStatusRow {
                kind,
                id: *id,
                organisation: organisation.clone(),
                state: *state,
                reason: reason.clone(),
                synced_at: (*state == State::Live && is_new).then_some(at),
            });
        }
    }
    let is_gone = |row: &&NotificationStatusRow| match row.kind {
        NotificationKind::Channel => !reconciled.channels.contains_key(&row.id),
        NotificationKind::Route => !reconciled.routes.contains_key(&row.id),
    };
    // Until it is done, Mimir has what they are about.
    let gone = before.iter().filter(|_| reconciled.is_done).filter(is_gone);
    let gone = gone.map(|row| (row.kind, row.organisation.clone(), row.id)).collect();
    (written, gone)
}

fn count(channels: &States) -> [usize; State::ALL.len()] {
    let mut counts = [0; State::ALL.len()];
    for (state, _) in channels.values() {
        counts[*state as usize] += 1;
    }
    counts
}

/// One line for each reconcile that did something, or could not.
fn log(
    organisation: &OrganisationId,
    outcome: &Outcome,
    states: Option<&[usize; State::ALL.len()]>,
    took: Duration,
) {
    let live = states.map_or(0, |states| states[State::Live as usize]);
    let all = states.map_or(0, |states| states.iter().sum::<usize>());
    let disabled = states.map_or(0, |states| states[State::Disabled as usize]);
    match outcome {
        Outcome::Applied => tracing::info!(
            organisation.id = %organisation,
            channels.live = live,
            channels.not_live = all - live - disabled,
            duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "Channels synced"
        ),
        Outcome::Failed(failure) => tracing::warn!(
            organisation.id = %organisation,
            problem = failure.problem,
            "Channels not synced; retrying"
        ),
        Outcome::Held(held) => tracing::warn!(
            organisation.id = %organisation,
            guard.id = held.id,
            reason = held.reason,
            "Write of channels held"
        ),
        Outcome::Unchanged | Outcome::LeaseLost => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::channels::reach::Reach;

    fn reconciled(is_foreign: bool, is_done: bool, has_reach: bool) -> Reconciled {
        Reconciled {
            outcome: Outcome::Unchanged,
            channels: BTreeMap::new(),
            routes: BTreeMap::new(),
            reach: has_reach.then(Reach::default),
            is_done,
            wrote: false,
            renewed: BTreeSet::new(),
            document: None,
            is_foreign,
        }
    }

    // Seen: a document of somebody else was held, and rules went on to say that they notify nobody.
    #[test]
    fn where_alerts_go_by_a_foreign_document_is_not_known() {
        let of = |is_foreign, is_done, has_reach| match reach_of(&mut reconciled(
            is_foreign, is_done, has_reach,
        )) {
            ReachFound::Nothing => "nothing new",
            ReachFound::Unknowable => "unknown",
            ReachFound::Is(_) => "known",
        };
        assert_eq!(of(true, false, false), "unknown");
        assert_eq!(of(true, true, false), "unknown");
        assert_eq!(of(false, true, true), "known");
        assert_eq!(of(false, false, false), "nothing new", "a failure changes nothing");
    }
}
