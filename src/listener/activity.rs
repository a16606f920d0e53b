//! What a connection is doing, as far as its deadlines care: waiting for a request, in the middle
//! of a head, or serving.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

/// Shared by a connection's socket and its requests.
pub(super) struct Activity {
    opened: Instant,
    in_flight: AtomicUsize,
    /// Milliseconds after opening at which the last request ended.
    idle_since: AtomicU64,
    /// Bodies of which the client has a piece to read before more of them is wanted.
    clients_turn: AtomicUsize,
    /// Milliseconds after opening at which any body was last asked for a piece.
    last_asked: AtomicU64,
    /// An answer broke off in the middle.
    broken: AtomicBool,
    /// Why we ended the connection, if we did, as a metric label.
    ended: OnceLock<&'static str>,
    /// Requests begun, so that the socket sees that a head has come to its end.
    begun: AtomicU64,
}

/// A request in flight; the connection is busy until it is dropped.
pub(super) struct Busy(Arc<Activity>);

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            opened: Instant::now(),
            in_flight: AtomicUsize::new(0),
            idle_since: AtomicU64::new(0),
            clients_turn: AtomicUsize::new(0),
            last_asked: AtomicU64::new(0),
            broken: AtomicBool::new(false),
            ended: OnceLock::new(),
            begun: AtomicU64::new(0),
        })
    }

    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0
    }

    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    pub(super) fn idle_since(&self) -> Instant {
        self.opened + Duration::from_millis(self.idle_since.load(Ordering::Relaxed))
    }

    /// Since when no body has been asked for more although there is more of one: the client does
    /// not read, by not taking bytes (HTTP/1.1) or by giving no credit (HTTP/2).
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        let turn = self.clients_turn.load(Ordering::Relaxed) > 0;
        let asked = Duration::from_millis(self.last_asked.load(Ordering::Relaxed));
        turn.then(|| self.opened + asked)
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// We end the connection; hyper tells its own callers nothing of the reason.
    pub(super) fn end(&self, why: &'static str) {
        self.ended.get_or_init(|| why);
    }

    pub(super) fn ended(&self) -> Option<&'static str> {
        self.ended.get().copied()
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.idle_since.store(self.0.millis(), Ordering::Relaxed);
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A response's body, during which the connection is busy.
pub(super) struct BusyBody<B> {
    body: B,
    busy: Busy,
    is_clients_turn: bool,
}

impl<B> BusyBody<B> {
    pub(super) fn new(body: B, busy: Busy) -> Self {
        Self { body, busy, is_clients_turn: false }
    }

    fn turn(&mut self, is_clients: bool) {
        let turns = &self.busy.0.clients_turn;
        match (self.is_clients_turn, is_clients) {
            (false, true) => turns.fetch_add(1, Ordering::Relaxed),
            (true, false) => turns.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
        self.is_clients_turn = is_clients;
    }
}

impl<B: Body + Unpin> Body for BusyBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Err(_))) = &frame {
            self.busy.0.broken.store(true, Ordering::Relaxed);
        }
        // Also after the last piece: HTTP/2 keeps the body until there is credit for it.
        let is_clients = matches!(&frame, Poll::Ready(Some(Ok(_))));
        if is_clients {
            self.busy.0.last_asked.store(self.busy.0.millis(), Ordering::Relaxed);
        }
        self.turn(is_clients);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for BusyBody<B> {
    fn drop(&mut self) {
        self.turn(false);
    }
}
