//! How much of an answer the kernel keeps for a client that it has not sent yet.
//!
//! What is on its way is not counted, so the bound slows no line down. Without it the kernel's buffer grows to megabytes
//! for each client that does not read, and keeps them after the connection is closed.
//!
//! Each time the kernel has room again, a task is woken, so many long answers at the same time cost less where there is
//! room for more. A few clients at a time have it, as long as they take their answers fast. With TLS none has: a session
//! hands over little at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::net::{self, TcpStream};

/// For every client.
pub(super) const MOST_BYTES: u32 = 128 << 10;
/// For one with a place.
const WIDE_BYTES: u32 = 512 << 10;

/// Clients of one worker that have [`WIDE_BYTES`] at the same time: 12 MiB more than without.
const MOST_WIDE: usize = 32;

/// Who takes so much, after being waited for so long, is fast.
const FAST_BYTES: usize = 64 << 10;
const FAST: Duration = Duration::from_millis(250);
/// Who is waited for so long is not.
const SLOW: Duration = Duration::from_secs(1);

/// The places of a worker.
#[derive(Default)]
pub(super) struct WidePlaces(AtomicUsize);

impl WidePlaces {
    fn take(&self) -> bool {
        let after = |taken: usize| (taken < MOST_WIDE).then_some(taken + 1);
        self.0.fetch_update(Relaxed, Relaxed, after).is_ok()
    }

    fn give_back(&self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// What the kernel keeps for one client.
pub(super) struct Unsent {
    places: Arc<WidePlaces>,
    is_wide: bool,
}

impl Unsent {
    pub(super) fn new(places: &Arc<WidePlaces>) -> Self {
        Self { places: Arc::clone(places), is_wide: false }
    }

    /// The client was waited for, and then took some.
    pub(super) fn took(&mut self, stream: &TcpStream, bytes: usize, waited: Duration) {
        if self.is_wide {
            if waited >= SLOW {
                self.narrow(stream);
            }
        } else if waited < FAST && bytes >= FAST_BYTES && self.places.take() {
            self.is_wide = true;
            // Old kernels and sandboxes lack it; the connection works all the same.
            let _ = net::limit_unsent(stream, WIDE_BYTES);
        }
    }

    /// Gives back the place, if it has one.
    pub(super) fn narrow(&mut self, stream: &TcpStream) {
        if std::mem::take(&mut self.is_wide) {
            let _ = net::limit_unsent(stream, MOST_BYTES);
            self.places.give_back();
        }
    }
}

#[cfg(not(feature = "simulation"))]
#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn stream() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (listener.accept().await.unwrap().0, client)
    }

    fn limit(stream: &TcpStream) -> u32 {
        socket2::SockRef::from(stream).tcp_notsent_lowat().unwrap()
    }

    #[tokio::test]
    async fn a_fast_client_has_room_until_it_is_slow() {
        let ((stream, _client), places) = (stream().await, Arc::default());
        let mut unsent = Unsent::new(&places);
        net::limit_unsent(&stream, MOST_BYTES).unwrap();
        unsent.took(&stream, FAST_BYTES - 1, Duration::ZERO);
        unsent.took(&stream, FAST_BYTES, FAST);
        assert_eq!(limit(&stream), MOST_BYTES);
        unsent.took(&stream, FAST_BYTES, Duration::ZERO);
        assert_eq!((limit(&stream), places.0.load(Relaxed)), (WIDE_BYTES, 1));
        unsent.took(&stream, 1, FAST);
        assert_eq!(limit(&stream), WIDE_BYTES);
        unsent.took(&stream, 1, SLOW);
        assert_eq!((limit(&stream), places.0.load(Relaxed)), (MOST_BYTES, 0));
        unsent.narrow(&stream);
        assert_eq!(places.0.load(Relaxed), 0, "given back once");
    }

    #[tokio::test]
    async fn only_a_few_have_room() {
        let ((stream, _client), places) = (stream().await, Arc::default());
        let mut all: Vec<Unsent> = (0..=MOST_WIDE).map(|_| Unsent::new(&places)).collect();
        for unsent in &mut all {
            unsent.took(&stream, FAST_BYTES, Duration::ZERO);
        }
        assert_eq!(all.iter().filter(|unsent| unsent.is_wide).count(), MOST_WIDE);
        all[0].narrow(&stream);
        all[MOST_WIDE].took(&stream, FAST_BYTES, Duration::ZERO);
        assert!(all[MOST_WIDE].is_wide);
    }
}
