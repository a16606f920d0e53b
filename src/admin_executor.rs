//! The work of administrators: how much of it there is at once, and a thread for it that neither serves requests
//! nor syncs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::tenancy::OrganisationId;

/// Runs administrators' work on a thread of its own: a preview of very many rules takes CPU time that
/// neither telemetry nor the scheduler may wait for.
pub struct AdminExecutor<E> {
    engine: Arc<E>,
    runtime: Handle,
    slots: OrganisationSlots,
}

/// Slots for the work of organisations' administrators: so many in all, and fewer for each organisation, so that
/// none takes all of them.
pub struct OrganisationSlots {
    all: Arc<Semaphore>,
    of_each: usize,
    /// Of organisations with work.
    of_organisations: Mutex<HashMap<OrganisationId, Arc<Semaphore>>>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct OrganisationSlot {
    _own: OwnedSemaphorePermit,
    _of_all: Option<OwnedSemaphorePermit>,
}

/// All slots are taken, or the work takes too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overloaded;

/// Concurrent work.
const SLOTS: usize = 4;
/// Requests of one organisation, including those that wait, which take memory, too.
const MOST_OF_ONE: usize = 64;
/// How long to wait for a slot, and for the work.
const QUEUE: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(75);

impl<E> AdminExecutor<E> {
    /// `engine` must have been made on this runtime: its database connections belong to it.
    pub fn new(engine: Arc<E>, runtime: Handle) -> Self {
        Self::with_slots(engine, runtime, SLOTS)
    }

    /// With so much concurrent work.
    pub fn with_slots(engine: Arc<E>, runtime: Handle, slots: usize) -> Self {
        Self { engine, runtime, slots: OrganisationSlots::new(slots, 1) }
    }

    /// For what the database alone answers.
    pub fn reconciler(&self) -> &E {
        &self.engine
    }

    /// Runs work for one organisation; the organisation's other work waits for its end, for a while.
    pub async fn run_for<T: Send + 'static, F>(
        &self,
        organisation: &OrganisationId,
        work: impl FnOnce(Arc<E>) -> F,
    ) -> Result<T, Overloaded>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let _slot = self.slots.take(organisation).await?;
        self.carry_out(work).await
    }

    /// Runs `work` on the executor's thread. Dropping the future cancels it.
    pub async fn run<T: Send + 'static, F>(
        &self,
        work: impl FnOnce(Arc<E>) -> F,
    ) -> Result<T, Overloaded>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let slot = timeout(QUEUE, self.slots.all.acquire()).await;
        let Ok(Ok(_slot)) = slot else { return Err(Overloaded) };
        self.carry_out(work).await
    }

    async fn carry_out<T: Send + 'static, F>(
        &self,
        work: impl FnOnce(Arc<E>) -> F,
    ) -> Result<T, Overloaded>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let work = AbortOnDropHandle::new(self.runtime.spawn(work(Arc::clone(&self.engine))));
        match timeout(LONGEST, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) | Err(_) => Err(Overloaded),
        }
    }
}

impl OrganisationSlots {
    /// So many in all, and so many for each organisation.
    pub fn new(all: usize, of_each: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), of_each, of_organisations: Mutex::default() }
    }

    /// Takes one, perhaps after a wait.
    pub async fn take(
        &self,
        organisation: &OrganisationId,
    ) -> Result<OrganisationSlot, Overloaded> {
        let own = {
            let mut slots = self.of_organisations.lock();
            // A request that waits or is worked on holds a clone.
            slots.retain(|_, own| Arc::strong_count(own) > 1);
            let new = || Arc::new(Semaphore::new(self.of_each));
            let own = slots.entry(organisation.clone()).or_insert_with(new);
            // One is the map's.
            if Arc::strong_count(own) > MOST_OF_ONE {
                return Err(Overloaded);
            }
            Arc::clone(own)
        };
        let taking = async {
            // Its own first: who waits for that keeps nothing from others.
            let own = own.acquire_owned().await?;
            let of_all = Arc::clone(&self.all).acquire_owned().await?;
            Ok::<_, AcquireError>(OrganisationSlot { _own: own, _of_all: Some(of_all) })
        };
        match timeout(QUEUE, taking).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) | Err(_) => Err(Overloaded),
        }
    }
}

impl OrganisationSlot {
    /// Keeps its organisation's slot, and gives back that of all: a client can hold an answer for a long time, which
    /// must cost no other organisation a slot.
    pub fn of_its_own(self) -> Self {
        Self { _of_all: None, ..self }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;
    use tokio::time::sleep;

    use super::*;

    // A member who sends a test to a slow channel again and again keeps nobody else waiting.
    #[tokio::test(start_paused = true)]
    async fn an_organisation_has_one_slot() {
        let executor = Arc::new(AdminExecutor::new(Arc::new(()), Handle::current()));
        let [acme, beta] = ["acme", "beta"].map(|name| OrganisationId::parse(name).unwrap());
        let mut of_acme = JoinSet::new();
        for _ in 0..2 * SLOTS {
            let (executor, acme) = (Arc::clone(&executor), acme.clone());
            of_acme.spawn(async move {
                executor.run_for(&acme, async |_| sleep(Duration::from_secs(20)).await).await
            });
        }
        sleep(Duration::from_secs(1)).await;
        let began = tokio::time::Instant::now();
        assert_eq!(executor.run_for(&beta, async |_| 7).await, Ok(7));
        assert_eq!(began.elapsed(), Duration::ZERO);
        let done = of_acme.join_all().await;
        assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1, "{done:?}");
        assert_eq!(executor.run_for(&acme, async |_| 7).await, Ok(7));
        assert_eq!(executor.slots.of_organisations.lock().len(), 1);
    }

    // A flood waits within bounds, and what is over them is told at once.
    #[tokio::test(start_paused = true)]
    async fn of_one_organisation_a_few_work_and_some_wait() {
        let slots = Arc::new(OrganisationSlots::new(3, 2));
        let [acme, beta] = ["acme", "beta"].map(|name| OrganisationId::parse(name).unwrap());
        let held = [slots.take(&acme).await.unwrap(), slots.take(&acme).await.unwrap()];
        let mut waiting = JoinSet::new();
        for _ in held.len()..MOST_OF_ONE {
            let (slots, acme) = (Arc::clone(&slots), acme.clone());
            waiting.spawn(async move { slots.take(&acme).await.map(drop) });
        }
        sleep(Duration::from_millis(1)).await;
        let began = tokio::time::Instant::now();
        assert!(slots.take(&acme).await.is_err());
        let of_beta = slots.take(&beta).await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(slots.take(&beta).await.is_err(), "all are taken");
        assert!(began.elapsed() >= QUEUE);
        assert!(waiting.join_all().await.iter().all(Result::is_err));
        drop((held, of_beta));
        assert!(slots.take(&acme).await.is_ok());
    }
}
