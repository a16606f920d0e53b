//! All organisations: which one is reconciled when. The leader of the alert rules does it, as a task
//! beside their sync.
//!
//! Triggers and the timer say which organisations to reconcile. One task decides everything, so nothing
//! has to be locked; reconciles are tasks of their own, a bounded number at a time. Unlike that of rules,
//! a full resync has no second half: nothing is deleted without an explanation of its own
//! ([`super::guard`]). The exception are organisations that are gone, whose rows may be there: each full
//! resync judges them together when it begins, and only what it allows is purged until the next one.

mod job;
mod queue;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::guard::Purges;
use super::outcome::Outcome;
use super::reaches::Reaches;
use super::reconciler::ChannelReconciler;
use super::spec::State;
use crate::clock::Clock;
use crate::election::{LeaderTask, Lease};
use crate::mimir::next_delay;
use crate::rules::Triggers;
use crate::store::StoreError;
use crate::telemetry::ChannelMetrics;
use crate::tenancy::OrganisationId;
use crate::trace;
use job::{Job, JobEnd};
use queue::WorkQueue;

/// What syncs channels in this process, whenever it is the leader of the alert rules.
pub struct ChannelSync {
    pub reconciler: Arc<ChannelReconciler>,
    pub triggers: Arc<Triggers>,
    pub reaches: Arc<Reaches>,
    pub clock: Clock,
    pub metrics: Arc<ChannelMetrics>,
}

/// Organisations that are reconciled concurrently.
const SLOTS: usize = 8;
/// How soon a failed listing of the organisations is tried again.
const LIST_RETRY: Duration = Duration::from_secs(5);

impl LeaderTask for ChannelSync {
    fn run(&self, lease: Lease) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // The full resync covers them.
            self.triggers.clear();
            self.reaches.clear();
            let cleared = ClearsReaches(&self.reaches);
            Scheduler::new(self, lease).run().await;
            drop(cleared);
        })
    }
}

/// Another leader may change everything, and this one is not told. The task is dropped, not ended.
struct ClearsReaches<'a>(&'a Reaches);

impl Drop for ClearsReaches<'_> {
    fn drop(&mut self) {
        self.0.clear();
    }
}

struct Scheduler<'a> {
    sync: &'a ChannelSync,
    lease: Lease,
    queue: WorkQueue,
    tasks: JoinSet<Done>,
    /// When the next full resync begins; none while one is being listed or is running.
    next_resync: Option<Instant>,
    resync: Option<Resync>,
    /// By the last listing.
    purges: Arc<Purges>,
}

impl Drop for Scheduler<'_> {
    fn drop(&mut self) {
        self.sync.metrics.end_of_leadership();
    }
}

struct Resync {
    began: Instant,
    /// Organisations that were not reconciled yet.
    outstanding: HashSet<OrganisationId>,
    organisations: usize,
    failed: usize,
    /// Everything may have changed since it began.
    again: bool,
}

/// What a task came to.
enum Done {
    Reconciled(Box<JobEnd>),
    Listed(Result<Listed, StoreError>),
}

/// The organisations of a full resync; those with a requested sync first.
struct Listed {
    requested: Vec<OrganisationId>,
    all: HashSet<OrganisationId>,
    purges: Purges,
}

impl<'a> Scheduler<'a> {
    fn new(sync: &'a ChannelSync, lease: Lease) -> Self {
        Self {
            sync,
            lease,
            queue: WorkQueue::default(),
            tasks: JoinSet::new(),
            next_resync: Some(Instant::now()),
            resync: None,
            purges: Arc::default(),
        }
    }

    /// Runs until the lease is lost.
    async fn run(mut self) {
        loop {
            self.start_jobs();
            let next = self.next_time();
            tokio::select! {
                // The lease comes first: nothing may be started after its end. Ended tasks come before new
                // work, so that a busy feed of triggers cannot starve them.
                biased;
                () = self.lease.lost() => return,
                Some(done) = self.tasks.join_next() => self.on_done(done),
                triggers = self.sync.triggers.taken() => {
                    for (organisation, at) in triggers.organisations {
                        self.queue.enqueue(&organisation, at);
                    }
                    if triggers.everything {
                        self.resync_soon();
                    }
                }
                () = sleep_until(next) => self.on_time(),
            }
        }
    }

    /// When there is something to do even if nothing happens.
    fn next_time(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        let due = self.queue.next_due().unwrap_or(far);
        self.next_resync.map_or(due, |next| next.min(due))
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        self.queue.fire_due(now);
        if self.next_resync.is_some_and(|next| now >= next) {
            self.next_resync = None;
            self.list();
        }
    }

    fn resync_soon(&mut self) {
        match (&mut self.resync, self.next_resync) {
            (Some(running), _) => running.again = true,
            (None, Some(_)) => self.next_resync = Some(Instant::now()),
            // It is being listed, and may have been before the change: the next one follows soon.
            (None, None) => self.next_resync = Some(Instant::now() + LIST_RETRY),
        }
    }

    fn list(&mut self) {
        let reconciler = Arc::clone(&self.sync.reconciler);
        let asked = self.sync.reaches.asked();
        self.tasks.spawn(async move {
            let listed = async {
                let mut all = reconciler.store.notification_organisations().await?;
                let requested = reconciler.store.requested_notification_syncs().await?;
                let purges = reconciler.purges().await?;
                all.extend(asked);
                Ok(Listed { requested, all, purges })
            };
            Done::Listed(listed.await)
        });
    }

    /// Fills the free slots.
    fn start_jobs(&mut self) {
        while self.queue.running() < SLOTS {
            let Some(organisation) = self.queue.next() else { return };
            let Some(started) = self.queue.start(&organisation) else { continue };
            let job = Job {
                reconciler: Arc::clone(&self.sync.reconciler),
                lease: self.lease.clone(),
                clock: self.sync.clock.clone(),
                purges: Arc::clone(&self.purges),
                organisation,
                started,
            };
            let mut span = self.sync.reconciler.tracer.own("reconcile channels");
            span.set("organisation.id", job.organisation.as_str().to_owned());
            let traced = trace::within(span, async move {
                let end = job.run().await;
                trace::note(|span| {
                    let outcome: &'static str = end.outcome.kind().into();
                    span.set("outcome", outcome);
                    if matches!(end.outcome, Outcome::Failed(_)) {
                        span.fail("failed");
                    }
                });
                end
            });
            self.tasks.spawn(async move { Done::Reconciled(Box::new(traced.await)) });
        }
    }

    fn on_done(&mut self, done: Result<Done, JoinError>) {
        match done {
            Ok(Done::Reconciled(end)) => self.on_reconciled(*end),
            Ok(Done::Listed(Ok(listed))) => self.on_listed(listed),
            Ok(Done::Listed(Err(error))) => {
                tracing::warn!(%error, "Organisations with channels not listed; retrying");
                self.sync.metrics.resync_failures.increment(1);
                self.next_resync = Some(Instant::now() + LIST_RETRY);
            }
            Err(error) => {
                // The slot and the state of its organisation are lost. A new leadership starts from what
                // is recorded.
                tracing::error!(%error, "Reconcile of channels panicked; giving up the leadership");
                self.lease.give_up();
            }
        }
    }

    fn on_listed(&mut self, Listed { requested, mut all, purges }: Listed) {
        self.purges = Arc::new(purges);
        // Organisations that are known here and not there have nothing any more, or failed; their last
        // reconcile says which.
        all.extend(self.queue.known());
        let now = Instant::now();
        for organisation in &requested {
            self.queue.enqueue(organisation, now);
        }
        for organisation in &all {
            self.queue.enqueue_later(organisation);
        }
        self.resync = Some(Resync {
            began: now,
            organisations: all.len(),
            outstanding: all,
            failed: 0,
            again: false,
        });
        self.end_resync_if_done();
    }

    fn end_resync_if_done(&mut self) {
        if !self.resync.as_ref().is_some_and(|running| running.outstanding.is_empty()) {
            return;
        }
        let Some(Resync { began, organisations, failed, again, .. }) = self.resync.take() else {
            return;
        };
        let metrics = &self.sync.metrics;
        metrics.resynced_at.set(self.sync.clock.now().as_secs_f64());
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(organisations, failed, duration_ms, "Full resync of channels finished");
        let interval = self.sync.reconciler.reconcile_interval;
        let next = began + if again { Duration::ZERO } else { interval };
        self.next_resync = Some(self.next_resync.map_or(next, |at| at.min(next)));
    }

    fn on_reconciled(&mut self, end: JobEnd) {
        let JobEnd { organisation, outcome, memory, states, took, reach, is_over, triggered_at } =
            end;
        let metrics = &self.sync.metrics;
        metrics.reconciled(outcome.kind());
        metrics.reconcile_duration.record(took.as_secs_f64());
        if let (Outcome::Applied, Some(at)) = (&outcome, triggered_at) {
            metrics.lag.record(at.elapsed().as_secs_f64());
        }
        match &outcome {
            Outcome::Applied => metrics.writes.increment(1),
            Outcome::Unchanged | Outcome::Held(_) | Outcome::Failed(_) | Outcome::LeaseLost => {}
        }

        let again = self.queue.finish(&organisation, memory, took);
        self.sync.reaches.learn(&organisation, reach);
        let tenant = self.queue.get(&organisation);
        tenant.is_failing = matches!(outcome, Outcome::Failed(_));
        tenant.is_held = matches!(outcome, Outcome::Held(_));
        if let Some(states) = states {
            tenant.states = states;
        }
        match &outcome {
            Outcome::Failed(failure) if failure.is_transient => {
                let failures = tenant.entry.count_failure();
                let delay = next_delay(failures + 2, failure.retry_after, fastrand::f64());
                let at = Instant::now() + delay;
                if failure.retry_after.is_some() {
                    // Mimir asked for the delay, so triggers do not shorten it.
                    tenant.entry.rest_until(at);
                }
                self.queue.wait_until(&organisation, at);
            }
            // The next full resync tries it again.
            Outcome::Failed(_) => {}
            _ => tenant.entry.reset_failures(),
        }
        if is_over {
            self.queue.forget(&organisation);
            if !self.sync.reaches.is_asked(&organisation) {
                self.sync.reaches.forget(&organisation);
            }
        }
        if again {
            self.queue.enqueue(&organisation, Instant::now());
        }
        if let Some(running) = &mut self.resync
            && running.outstanding.remove(&organisation)
        {
            running.failed += usize::from(matches!(outcome, Outcome::Failed(_)));
        }
        self.count();
        self.end_resync_if_done();
    }

    /// Counts over all organisations. In a full resync this would look at every one for each one.
    fn count(&self) {
        if self.resync.as_ref().is_some_and(|running| running.outstanding.len() > 1) {
            return;
        }
        let (mut failing, mut held) = (0_u32, 0_u32);
        let mut totals = [0_usize; State::ALL.len()];
        for tenant in self.queue.tenants() {
            failing += u32::from(tenant.is_failing);
            held += u32::from(tenant.is_held);
            for (total, count) in totals.iter_mut().zip(tenant.states) {
                *total += count;
            }
        }
        let metrics = &self.sync.metrics;
        metrics.failing.set(f64::from(failing));
        metrics.held.set(f64::from(held));
        for (state, total) in State::ALL.into_iter().zip(totals) {
            metrics.channels_in(state).set(f64::from(u32::try_from(total).unwrap_or(u32::MAX)));
        }
    }
}
