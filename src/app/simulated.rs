//! One copy of the proxy in a simulation (`tests/simulation`): the data path of [`serve`](super::serve), made of the same
//! parts, on the thread, the clock and the network of the simulation. There is no database.

use std::io;
use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::{Admins, Lasting, Observed, Running};
use crate::clock::Clock;
use crate::config::Config;
use crate::forward::{Instances, resolve};
use crate::limits::Limits;
use crate::listener::{self, PublicSocket, Workers};
use crate::net::TcpListener;
use crate::telemetry::{Logging, Metrics, Traffic};
use crate::trace::Tracer;

/// A running copy.
pub struct Copy {
    limits: Arc<Limits>,
    instances: Arc<Instances>,
    workers: Arc<Workers>,
    work: TaskTracker,
    _accepting: AbortOnDropHandle<()>,
    _background: DropGuard,
}

/// What is in use; all of it is zero when nothing is asked of the copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InUse {
    /// Requests with a permit.
    pub permits: usize,
    /// Of the upload buffer.
    pub upload_bytes: usize,
    /// Requests at instances.
    pub upstream: usize,
}

impl Copy {
    /// Starts a copy that serves what arrives at the listener.
    pub async fn start(
        config: &Config,
        logging: &Logging,
        clock: Clock,
        exposition: PrometheusHandle,
        listener: TcpListener,
    ) -> io::Result<Self> {
        let metrics = Arc::new(Metrics::register());
        let traffic = Arc::new(Traffic::new(exposition));
        let sink = logging.sink.clone();
        let observed = Observed { sink, metrics: Arc::clone(&metrics), traffic };
        let admins = Admins { rules: None, channels: None };
        let lasting = Lasting::new(config, (clock, Tracer::default()), None, admins, observed);
        let running = Running::first(config.clone(), &lasting)?;
        // Names are looked up by threads, whose turns no seed decides.
        running.resolving().cancel();
        resolve(&lasting.instances, &config.upstream).await;
        let (pipelines, log) = (running.pipelines(&lasting), &lasting.log);
        let (workers, work) = Workers::start_here(pipelines, &config.listen, &metrics, log);
        let workers = Arc::new(workers);
        let (accepts, most) = (Arc::clone(&workers), config.listen.max_connections);
        let accepting = tokio::spawn(async move {
            let socket = PublicSocket { listener, is_inherited: false };
            listener::accept(socket, &accepts, most, CancellationToken::new()).await;
        });
        Ok(Self {
            limits: Arc::clone(&lasting.limits),
            instances: Arc::clone(&lasting.instances),
            workers,
            work,
            _accepting: AbortOnDropHandle::new(accepting),
            _background: lasting.cancelled.clone().drop_guard(),
        })
    }

    pub fn in_use(&self) -> InUse {
        let reports = self.instances.reports();
        InUse {
            permits: self.limits.in_flight(),
            upload_bytes: self.limits.upload_buffer(),
            upstream: reports.iter().map(|report| report.in_flight as usize).sum(),
        }
    }

    /// Ends it: idle connections at once, busy ones after their requests.
    pub async fn drain(self) {
        self.workers.close();
        self.work.wait().await;
    }
}
