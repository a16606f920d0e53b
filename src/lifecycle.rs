//! The process's life: ready, draining, closed.

use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};

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

/// Signals that ask the process to end: SIGTERM (most platforms) and SIGINT (Fly.io, a terminal).
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Starts listening; the signals no longer kill the process.
    pub fn listen() -> std::io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The name of the next signal.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Who has started the process and waits for it to be ready, by systemd's protocol (`sd_notify(3)`).
pub struct Supervisor(Option<OsString>);

impl Supervisor {
    /// `socket` is where it listens, as `NOTIFY_SOCKET` says it; none if nobody waits.
    pub fn new(socket: Option<OsString>) -> Self {
        Self(socket)
    }

    /// Says that requests are served.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// Says that the process ends.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    fn tell(&self, state: &str) {
        let Some(place) = &self.0 else { return };
        let told = UnixDatagram::unbound().and_then(|socket| {
            let address = match place.as_bytes() {
                [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
                path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
            };
            socket.set_nonblocking(true)?;
            socket.send_to_addr(state.as_bytes(), &address)
        });
        if let Err(error) = told {
            tracing::warn!(%error, state, "Supervisor not notified");
        }
    }
}

/// SIGHUP, which asks for the configuration to be read again.
pub struct Hangups(Signal);

impl Hangups {
    /// Starts listening; the signal no longer kills the process.
    pub fn listen() -> std::io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// Waits for the next one. Several that come meanwhile are one.
    pub async fn next(&mut self) {
        self.0.recv().await;
    }
}
