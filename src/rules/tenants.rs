//! The tenants of a leader's term: what is known of each, who is being looked at, and who is to be
//! looked at when. Decides the order of things and does none of them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::memory::Memory;
use super::statuses::KeptStatuses;
use crate::mimir::ruler::RulerLimits;
use crate::store::{RuleState, SyncRow};
use crate::tenancy::OrganisationId;

/// One tenant.
#[derive(Default)]
pub(super) struct Tenant {
    /// What is remembered; with whoever looks at it meanwhile.
    pub(super) memory: Option<Box<Memory>>,
    /// How it stands, as it was last written down.
    pub(super) sync: Option<SyncRow>,
    pub(super) state: TenantState,
    /// A change was heard of first at this time.
    pub(super) heard_at: Option<Instant>,
    /// Looks that failed one after the other.
    pub(super) failures: u32,
    /// Syncs that somebody waits for.
    pub(super) requests: Vec<Uuid>,
    /// Rules in each state, as they were last counted.
    pub(super) states: [usize; RuleState::ALL.len()],
    /// Until when it is left alone.
    pub(super) rests_until: Option<Instant>,
    /// Because Mimir asked for it.
    pub(super) must_wait: bool,
    last_start: Option<Instant>,
    last_end: Option<Instant>,
    /// Its statuses are to be read anew once whoever looks at it is done.
    reads_anew: bool,
    /// When a rule was last heard to have left it.
    left_at: Option<Instant>,
}

impl Tenant {
    /// Whether rows that were read then are the newest that are known of: nothing has been heard or
    /// looked at since, and nobody waits for a better time.
    pub(super) fn is_as_of(&self, read_at: Instant) -> bool {
        self.state == TenantState::Idle
            && self.heard_at.is_none()
            && self.last_start.is_none_or(|start| start < read_at)
    }

    /// Takes the statuses as the table has them, if they are the newest that are known of. Where they
    /// are not what was written there, everything is compared again.
    pub(super) fn learn_statuses(&mut self, read: KeptStatuses, read_at: Instant) {
        if self.is_running() || self.last_end.is_some_and(|end| end >= read_at) {
            return;
        }
        let memory = self.memory();
        if memory.kept.as_ref() != Some(&read) {
            memory.kept = Some(read);
            memory.settled = None;
        }
    }

    /// What is remembered; a new memory if there is none.
    pub(super) fn memory(&mut self) -> &mut Memory {
        let shown = shown_by(self.sync.as_ref());
        self.memory.get_or_insert_with(|| Box::new(Memory::with_shown(shown)))
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, TenantState::Running { .. })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum TenantState {
    #[default]
    Idle,
    /// To be looked at when there is room.
    Queued,
    /// To be looked at at a time.
    Waiting(Instant),
    /// Looked at now; and again after that, if so.
    Running { again: bool },
}

/// All of them.
#[derive(Default)]
pub(super) struct Tenants {
    all: HashMap<OrganisationId, Tenant>,
    queue: VecDeque<OrganisationId>,
    alarms: BinaryHeap<Reverse<(Instant, OrganisationId)>>,
    running: usize,
}

/// After a look a tenant rests, however fast its rules change: for some times as long as the look
/// took, so that one with very many rules takes no more than its share of the time.
const SHARE: u32 = 3;
const SHORTEST_REST: Duration = Duration::from_millis(10);
const LONGEST_REST: Duration = Duration::from_secs(10);

impl Tenants {
    pub(super) fn get(&mut self, organisation: &OrganisationId) -> &mut Tenant {
        // Nearly always it is there.
        if !self.all.contains_key(organisation) {
            self.all.insert(organisation.clone(), Tenant::default());
        }
        self.all.entry(organisation.clone()).or_default()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&OrganisationId, &Tenant)> {
        self.all.iter()
    }

    /// Whether there is, or was, an organisation of this name.
    pub(super) fn is_known(&self, organisation: &OrganisationId) -> bool {
        self.all.get(organisation).is_some_and(|tenant| {
            tenant.memory.is_some() || tenant.sync.is_some() || tenant.is_running()
        })
    }

    pub(super) fn forget(&mut self, organisation: &OrganisationId) {
        self.all.remove(organisation);
    }

    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// Something has been heard of a tenant: it is to be looked at soon, or again.
    pub(super) fn hear(&mut self, organisation: &OrganisationId, at: Instant) {
        let now = Instant::now();
        let tenant = self.get(organisation);
        tenant.heard_at.get_or_insert(at);
        match tenant.state {
            TenantState::Queued => {}
            TenantState::Running { .. } => tenant.state = TenantState::Running { again: true },
            // News are a reason to try again, but not faster than that.
            TenantState::Idle | TenantState::Waiting(_) => {
                match tenant.rests_until.filter(|at| *at > now) {
                    Some(at) => self.wait_until(organisation, at),
                    None => self.enqueue(organisation),
                }
            }
        }
    }

    /// The status of one of a tenant's rules has become another's, who has the rule now: what is
    /// remembered of statuses is not true any more. Two who both have a rule of one identifier would take
    /// it from each other for ever, so that is a reason to look now and then only.
    pub(super) fn leave(&mut self, organisation: &OrganisationId) {
        const PAUSE: Duration = Duration::from_secs(60);
        let now = Instant::now();
        let tenant = self.get(organisation);
        match &mut tenant.memory {
            Some(memory) => memory.forget_rows(),
            None => tenant.reads_anew = true,
        }
        if tenant.left_at.is_none_or(|at| now.duration_since(at) >= PAUSE) {
            tenant.left_at = Some(now);
            self.hear(organisation, now);
        }
    }

    fn enqueue(&mut self, organisation: &OrganisationId) {
        self.get(organisation).state = TenantState::Queued;
        self.queue.push_back(organisation.clone());
    }

    /// A tenant is to be looked at at a time.
    pub(super) fn wait_until(&mut self, organisation: &OrganisationId, at: Instant) {
        self.get(organisation).state = TenantState::Waiting(at);
        self.alarms.push(Reverse((at, organisation.clone())));
    }

    /// When the next one is due.
    pub(super) fn next_alarm(&self) -> Option<Instant> {
        self.alarms.peek().map(|Reverse((at, _))| *at)
    }

    /// Queues those that are due.
    pub(super) fn ring(&mut self, now: Instant) {
        while let Some(Reverse((at, _))) = self.alarms.peek()
            && *at <= now
            && let Some(Reverse((at, organisation))) = self.alarms.pop()
        {
            // An alarm that has been set anew since is not this one.
            if self.get(&organisation).state == TenantState::Waiting(at) {
                self.enqueue(&organisation);
            }
        }
    }

    /// The next to be looked at.
    pub(super) fn next(&mut self) -> Option<OrganisationId> {
        while let Some(organisation) = self.queue.pop_front() {
            if self.get(&organisation).state == TenantState::Queued {
                return Some(organisation);
            }
        }
        None
    }

    /// Begins to look at a tenant, unless somebody does; gives what is remembered.
    pub(super) fn begin(&mut self, organisation: &OrganisationId) -> Option<Begun> {
        let tenant = self.get(organisation);
        if matches!(tenant.state, TenantState::Running { .. }) {
            return None;
        }
        tenant.state = TenantState::Running { again: false };
        tenant.must_wait = false;
        tenant.last_start = Some(Instant::now());
        tenant.memory();
        let begun = Begun {
            memory: tenant.memory.take().unwrap_or_default(),
            heard_at: tenant.heard_at.take(),
            requests: std::mem::take(&mut tenant.requests),
        };
        self.running += 1;
        Some(begun)
    }

    /// A look has ended; says whether there is to be another.
    pub(super) fn end(
        &mut self,
        organisation: &OrganisationId,
        memory: Box<Memory>,
        took: Duration,
    ) -> bool {
        self.running = self.running.saturating_sub(1);
        let tenant = self.get(organisation);
        let again = tenant.state == TenantState::Running { again: true };
        tenant.memory = Some(memory);
        if std::mem::take(&mut tenant.reads_anew)
            && let Some(memory) = &mut tenant.memory
        {
            memory.forget_rows();
        }
        let rest = (took * SHARE).clamp(SHORTEST_REST, LONGEST_REST);
        tenant.last_end = Some(Instant::now());
        tenant.rests_until = Some(Instant::now() + rest);
        tenant.state = TenantState::Idle;
        again
    }
}

/// The limits that Mimir has shown, as they were written down.
pub(super) fn shown_by(sync: Option<&SyncRow>) -> RulerLimits {
    sync.map_or_else(RulerLimits::default, |sync| RulerLimits {
        rules_per_group: sync.shown_rules_per_group,
        groups: sync.shown_groups,
    })
}

/// What whoever looks at a tenant takes along.
pub(super) struct Begun {
    pub(super) memory: Box<Memory>,
    pub(super) heard_at: Option<Instant>,
    pub(super) requests: Vec<Uuid>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acme() -> OrganisationId {
        OrganisationId::parse("acme").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn news_during_a_look_lead_to_one_more_look() {
        let mut tenants = Tenants::default();
        for _ in 0..3 {
            tenants.hear(&acme(), Instant::now());
        }
        assert_eq!(tenants.next(), Some(acme()));
        assert_eq!(tenants.next(), None);
        let begun = tenants.begin(&acme()).unwrap();
        assert!(tenants.begin(&acme()).is_none(), "one look at a time");
        tenants.hear(&acme(), Instant::now());
        tenants.hear(&acme(), Instant::now());
        assert!(tenants.end(&acme(), begun.memory, Duration::ZERO));
        assert_eq!(tenants.running(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn changes_that_follow_fast_are_looked_at_together() {
        let mut tenants = Tenants::default();
        tenants.hear(&acme(), Instant::now());
        let organisation = tenants.next().unwrap();
        let begun = tenants.begin(&organisation).unwrap();
        assert!(!tenants.end(&acme(), begun.memory, Duration::ZERO));
        tenants.hear(&acme(), Instant::now());
        assert_eq!(tenants.next(), None, "a rest first");
        let alarm = tenants.next_alarm().unwrap();
        tenants.ring(alarm);
        assert_eq!(tenants.next(), Some(acme()));
    }

    // Rows that a survey has read go over nothing that was heard of, or looked at, since.
    #[tokio::test(start_paused = true)]
    async fn rows_of_a_survey_are_not_used_once_something_newer_is_known() {
        let mut tenants = Tenants::default();
        let read_at = Instant::now();
        assert!(tenants.get(&acme()).is_as_of(read_at));
        tokio::time::advance(Duration::from_secs(1)).await;
        tenants.hear(&acme(), Instant::now());
        assert!(!tenants.get(&acme()).is_as_of(read_at), "heard of");
        let organisation = tenants.next().unwrap();
        let begun = tenants.begin(&organisation).unwrap();
        assert!(!tenants.get(&acme()).is_as_of(read_at), "looked at");
        tenants.end(&acme(), begun.memory, Duration::ZERO);
        assert!(!tenants.get(&acme()).is_as_of(read_at), "looked at since");
        assert!(tenants.get(&acme()).is_as_of(Instant::now() + Duration::from_secs(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_whose_looks_take_long_rests_long() {
        let mut tenants = Tenants::default();
        tenants.hear(&acme(), Instant::now());
        tenants.next();
        let begun = tenants.begin(&acme()).unwrap();
        tenants.end(&acme(), begun.memory, Duration::from_secs(2));
        tenants.hear(&acme(), Instant::now());
        assert_eq!(tenants.next(), None);
        assert_eq!(tenants.next_alarm(), Some(Instant::now() + Duration::from_secs(6)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_that_was_overtaken_wakes_nobody() {
        let mut tenants = Tenants::default();
        let later = Instant::now() + Duration::from_secs(60);
        tenants.wait_until(&acme(), later);
        tenants.hear(&acme(), Instant::now());
        assert_eq!(tenants.next(), Some(acme()));
        let begun = tenants.begin(&acme()).unwrap();
        tenants.end(&acme(), begun.memory, Duration::ZERO);
        tenants.ring(later);
        assert_eq!(tenants.next(), None);
    }
}
