//! The work of administrators, away from the threads that serve requests and sync.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::tenancy::OrganisationId;

/// Runs administrators' work on a thread of its own: a preview of very many rules takes CPU time that
/// neither telemetry nor the scheduler may wait for.
pub struct AdminExecutor<E> {
    engine: Arc<E>,
    runtime: Handle,
    slots: Semaphore,
    /// One slot for each organisation with work, so that none takes all of them.
    of_organisations: Mutex<HashMap<OrganisationId, Arc<Semaphore>>>,
}

/// All slots are taken, or the work takes too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overloaded;

/// Concurrent work.
const SLOTS: usize = 4;
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
        Self { engine, runtime, slots: Semaphore::new(slots), of_organisations: Mutex::default() }
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
        let slot = {
            let mut slots = self.of_organisations.lock();
            // Whoever waits or works holds a clone.
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
            let slot = slots.entry(organisation.clone());
            Arc::clone(slot.or_insert_with(|| Arc::new(Semaphore::new(1))))
        };
        let Ok(Ok(_slot)) = timeout(QUEUE, slot.acquire()).await else { return Err(Overloaded) };
        self.run(work).await
    }

    /// Runs `work` on the executor's thread. Dropping the future cancels it.
    pub async fn run<T: Send + 'static, F>(
        &self,
        work: impl FnOnce(Arc<E>) -> F,
    ) -> Result<T, Overloaded>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let slot = timeout(QUEUE, self.slots.acquire()).await;
        let Ok(Ok(_slot)) = slot else { return Err(Overloaded) };
        let work = AbortOnDropHandle::new(self.runtime.spawn(work(Arc::clone(&self.engine))));
        match timeout(LONGEST, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) | Err(_) => Err(Overloaded),
        }
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
        assert_eq!(executor.of_organisations.lock().len(), 1);
    }
}
