//! Where administrators are served: a thread of its own, because a look at very many rules takes time
//! that neither telemetry nor whoever writes rules may be waiting for.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::engine::Engine;

/// The desk. Its engine's database connections belong to its thread.
pub struct Desk {
    engine: Arc<Engine>,
    runtime: Handle,
    places: Semaphore,
}

/// The desk is too busy, or what was asked takes too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// Looks at once.
const PLACES: usize = 4;
/// How long to wait for a place, and for an answer.
const QUEUE: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(75);

impl Desk {
    /// A desk with an engine that was made on this runtime.
    pub fn new(engine: Arc<Engine>, runtime: Handle) -> Self {
        Self { engine, runtime, places: Semaphore::new(PLACES) }
    }

    /// The engine, for what is answered by the database alone.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Has something done on the desk's thread. Whoever goes away takes it along.
    pub async fn run<T: Send + 'static, F>(
        &self,
        work: impl FnOnce(Arc<Engine>) -> F,
    ) -> Result<T, Busy>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let place = timeout(QUEUE, self.places.acquire()).await;
        let Ok(Ok(_place)) = place else { return Err(Busy) };
        let work = AbortOnDropHandle::new(self.runtime.spawn(work(Arc::clone(&self.engine))));
        match timeout(LONGEST, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) | Err(_) => Err(Busy),
        }
    }
}
