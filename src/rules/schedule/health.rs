//! The part of the scheduler that reads how rules are evaluated: starts readings when they are due, and takes
//! their results over into the statuses that it owns.

use std::sync::Arc;

use tokio::time::Instant;
use uuid::Uuid;

use super::scheduler::Scheduler;
use crate::labels::RuleState;
use crate::mimir::ruler::{Evaluation, RulerError};
use crate::rules::health::judge::{judge, unread};
use crate::rules::health::read::{ReadError, Reading, Source, read, wanted};
use crate::rules::reconcile::reconciler::Reconciler;
use crate::rules::reconcile::report::Reconciled;
use crate::rules::spec::alert_rule::AlertRule;
use crate::rules::spec::rows::parse_rows;
use crate::rules::status::statuses::{RuleStatuses, change, count, in_mimir};
use crate::store::StoreError;
use crate::tenancy::{OrganisationId, TenantId};

/// What a reading came to.
pub(super) struct HealthEnd {
    pub(super) organisation: OrganisationId,
    /// A time before the request.
    pub(super) read_at: Instant,
    pub(super) result: Result<Reading, ReadError>,
}

/// Reads the real Mimir and the real database.
struct LiveSource<'a> {
    reconciler: &'a Reconciler,
    organisation: &'a OrganisationId,
    tenant: &'a TenantId,
}

impl Source for LiveSource<'_> {
    async fn evaluation(&self) -> Result<Evaluation, RulerError> {
        self.reconciler.client.evaluation(self.tenant).await
    }

    async fn rules(&self) -> Result<Vec<AlertRule>, StoreError> {
        let asked = vec![self.organisation.clone()];
        let mut snapshot = self.reconciler.store.alert_rules_of(asked).await?;
        let rows = snapshot.rows.remove(self.organisation).unwrap_or_default();
        Ok(parse_rows(&rows, &self.reconciler.defaults()).enabled)
    }

    async fn format(&self, expr: &str) -> Result<Option<String>, RulerError> {
        self.reconciler.formats.of(&self.reconciler.client, self.tenant, expr).await
    }
}

impl Scheduler {
    /// Starts the readings that are due.
    pub(super) fn start_readings(&mut self) {
        while let Some(organisation) = self.timetable.next(Instant::now()) {
            self.start_reading_of(organisation);
        }
    }

    fn start_reading_of(&mut self, organisation: OrganisationId) {
        let now = Instant::now();
        let Ok(tenant) = self.reconciler.tenant_of(&organisation) else {
            // It can have no rules in Mimir.
            return self.timetable.leave_out(&organisation);
        };
        let known = self.queue.get(&organisation).state_at_rest().and_then(|state| {
            let known = state.statuses.as_ref()?;
            Some((wanted(known, &state.memory), state))
        });
        let Some((wanted, state)) = known else {
            // It is being reconciled, or its statuses are to be read again.
            return self.timetable.finish(&organisation, true, now);
        };
        if wanted.is_empty() {
            return self.timetable.leave_out(&organisation);
        }
        state.memory.is_read(now);
        let (reconciler, clock) = (Arc::clone(&self.reconciler), self.clock.clone());
        self.readings.spawn(async move {
            let source = LiveSource {
                reconciler: &reconciler,
                organisation: &organisation,
                tenant: &tenant,
            };
            let result = read(&source, &wanted, clock.utc()).await;
            HealthEnd { organisation, read_at: now, result }
        });
    }

    /// A reconcile has ended: when its tenant is read next.
    pub(super) fn note_health(&mut self, organisation: &OrganisationId, reconciled: &Reconciled) {
        let Some(states) = reconciled.states else { return };
        if in_mimir(&states) == 0 {
            return self.timetable.forget(organisation);
        }
        let is_waiting = states[RuleState::Stored as usize] > 0;
        self.timetable.reconciled(organisation, is_waiting, reconciled.wrote, Instant::now());
    }

    pub(super) fn on_evaluated(&mut self, end: HealthEnd) {
        let HealthEnd { organisation, read_at, result } = end;
        let now = Instant::now();
        if let Ok(reading) = &result {
            self.timetable.charge(reading.more_requests, now);
        }
        let metrics = &self.access.metrics;
        match &result {
            Ok(_) => metrics.health_reads.increment(1),
            Err(_) => metrics.health_read_failures.increment(1),
        }
        let reach = self.reach.clone();
        let tenant = self.queue.get(&organisation);
        let Some(state) = tenant.state_as_of(read_at) else {
            // A reconcile may have written what this reading has not seen.
            return self.timetable.finish(&organisation, true, now);
        };
        let Some(known) = state.statuses.as_ref() else {
            return self.timetable.finish(&organisation, true, now);
        };
        let mut write_again = Vec::new();
        let (statuses, is_waiting) = match &result {
            Ok(Reading { seen, .. }) => {
                let reach = |labels: &_| reach.as_ref().and_then(|of| of(&organisation, labels));
                let judged = judge(known, &mut state.memory, seen, now, &reach);
                write_again = judged.write_again;
                (judged.statuses, judged.is_waiting)
            }
            Err(error) => {
                tracing::debug!(organisation.id = %organisation, %error, "Evaluation of alert rules not read");
                let unknown = unread(known, &mut state.memory, now);
                (unknown.unwrap_or_else(|| known.clone()), true)
            }
        };
        self.timetable.finish(&organisation, is_waiting, now);
        self.take_over(&organisation, statuses);
        self.write_again(&organisation, write_again);
    }

    /// Lets the next reconcile write the groups of some rules although they are as they should be.
    fn write_again(&mut self, organisation: &OrganisationId, rules: Vec<Uuid>) {
        if rules.is_empty() {
            return;
        }
        tracing::warn!(
            organisation.id = %organisation,
            rules = rules.len(),
            "Alert rules not loaded by Mimir; writing their groups again"
        );
        if let Some(state) = self.queue.get(organisation).state_at_rest() {
            state.write_again(rules);
            self.queue.enqueue(organisation, Instant::now());
        }
    }

    /// Replaces the statuses of a tenant at rest.
    fn take_over(&mut self, organisation: &OrganisationId, statuses: RuleStatuses) {
        let tenant = self.queue.get(organisation);
        let Some(known) = tenant.state_at_rest().and_then(|state| state.statuses.as_mut()) else {
            return;
        };
        let states = count(&statuses);
        let changes = change(organisation, known, statuses);
        if !changes.written.is_empty() {
            tenant.note_change();
            self.writer.statuses(changes);
            self.records.evaluated(self.queue.get(organisation), states);
        }
    }
}
