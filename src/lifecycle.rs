//! The process's life: ready, draining, closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};

/// Whether new requests are wanted, as `/ready` tells it.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Makes `/ready` answer 200.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Makes `/ready` answer 503.
    pub fn end(&self) {
        self.0.store(false, Ordering::Release);
    }

    /// Whether new requests are wanted.
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Signals that ask the process to end: SIGTERM (most platforms) and SIGINT (Fly.io, a terminal). SIGHUP
/// is ignored, so that a reload by habit or the end of a terminal breaks no request.
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    /// Starts listening; the signals no longer kill the process.
    pub fn listen() -> std::io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let (interrupt, hangup) = (signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?);
        Ok(Self { terminate, interrupt, hangup })
    }

    /// The name of the next signal.
    pub async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => {
                    tracing::warn!("SIGHUP ignored: the configuration is read at startup");
                }
            }
        }
    }
}
