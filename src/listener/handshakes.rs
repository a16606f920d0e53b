//! The order of TLS handshakes.
//!
//! A handshake takes a worker as long as several requests, and a client can have it cost itself nothing: a
//! key that it sends need not be one. So a worker does one step of one handshake in each turn of its
//! runtime, with whatever else is ready in between, and clients that wait take turns by network: a flood of
//! handshakes delays itself, and not others.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures_util::poll;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::yield_now;

use crate::client_network::client_network;

/// The handshakes of one worker.
#[derive(Default)]
pub(super) struct Handshakes(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    /// Whether this turn has had its step.
    is_taken: bool,
    /// Networks of which a client waits, the next first.
    networks: VecDeque<IpAddr>,
    waiting: HashMap<IpAddr, VecDeque<oneshot::Sender<()>>>,
}

impl Handshakes {
    /// Makes a client's handshake, step by step. To be called on the worker's runtime.
    pub(super) async fn run<T>(&self, client: IpAddr, handshake: impl Future<Output = T>) -> T {
        let (mut handshake, network) = (pin!(handshake), client_network(client));
        loop {
            self.turn(network).await;
            if let Poll::Ready(done) = poll!(handshake.as_mut()) {
                return done;
            }
            woken().await;
        }
    }

    async fn turn(&self, network: IpAddr) {
        let granted = {
            let mut queue = self.0.lock();
            if !queue.is_taken {
                queue.is_taken = true;
                tokio::spawn(go_on(Arc::clone(&self.0)));
                return;
            }
            queue.wait(network)
        };
        // An error is the end of the runtime.
        let _ = granted.await;
    }
}

impl Queue {
    fn wait(&mut self, network: IpAddr) -> oneshot::Receiver<()> {
        let (grant, granted) = oneshot::channel();
        let waiting = self.waiting.entry(network).or_default();
        if waiting.is_empty() {
            self.networks.push_back(network);
        }
        waiting.push_back(grant);
        granted
    }

    /// Gives the turn to the next network, or leaves it free.
    fn grant(&mut self) -> bool {
        while let Some(network) = self.networks.pop_front() {
            let Some(waiting) = self.waiting.get_mut(&network) else { continue };
            // Some have been closed meanwhile.
            let is_granted =
                std::iter::from_fn(|| waiting.pop_front()).any(|one| one.send(()).is_ok());
            if waiting.is_empty() {
                self.waiting.remove(&network);
            } else {
                self.networks.push_back(network);
            }
            if is_granted {
                return true;
            }
        }
        self.is_taken = false;
        false
    }
}

/// Gives one turn after the other, until no client waits.
async fn go_on(queue: Arc<Mutex<Queue>>) {
    loop {
        // After the tasks that are ready, and those whose sockets are.
        yield_now().await;
        if !queue.lock().grant() {
            return;
        }
    }
}

/// Waits until the task is woken, for whatever reason.
async fn woken() {
    let mut is_woken = false;
    std::future::poll_fn(|_| {
        if std::mem::replace(&mut is_woken, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use tokio::task::JoinHandle;
    use tokio::time::sleep;

    use super::*;

    const FLOOD: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    /// Handshakes, and whose steps were done, in their order.
    #[derive(Clone, Default)]
    struct Worker {
        handshakes: Arc<Handshakes>,
        steps: Arc<Mutex<Vec<IpAddr>>>,
    }

    impl Worker {
        /// Begins a handshake of some steps, each of which is ready when the one before it is done.
        fn begin(&self, client: IpAddr, steps: usize) -> JoinHandle<()> {
            let Self { handshakes, steps: done } = self.clone();
            let mut left = steps;
            let stepping = std::future::poll_fn(move |cx| {
                done.lock().push(client);
                left -= 1;
                if left == 0 {
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            });
            tokio::spawn(async move { handshakes.run(client, stepping).await })
        }

        fn done(&self) -> usize {
            self.steps.lock().len()
        }

        fn is_free(&self) -> bool {
            let queue = self.handshakes.0.lock();
            queue.waiting.is_empty() && queue.networks.is_empty() && !queue.is_taken
        }
    }

    #[tokio::test]
    async fn who_comes_after_a_flood_waits_for_one_step_of_it_at_a_time() {
        let worker = Worker::default();
        let flood: Vec<_> = (0..500).map(|_| worker.begin(FLOOD, 3)).collect();
        // All of it waits.
        sleep(Duration::from_millis(1)).await;
        let before = worker.done();
        worker.begin(OTHER, 3).await.unwrap();
        let meanwhile = worker.done() - before;
        assert!(meanwhile <= 12, "{meanwhile} steps until the other's three were done");
        for one in flood {
            one.await.unwrap();
        }
        assert_eq!(worker.done(), 501 * 3);
        sleep(Duration::from_millis(1)).await;
        assert!(worker.is_free());
        worker.begin(FLOOD, 1).await.unwrap();
    }

    #[tokio::test]
    async fn what_else_is_ready_is_served_between_two_steps() {
        let worker = Worker::default();
        let flood: Vec<_> = (0..50).map(|_| worker.begin(FLOOD, 1)).collect();
        while worker.done() < 50 {
            let before = worker.done();
            yield_now().await;
            assert!(worker.done() - before <= 1);
        }
        for one in flood {
            one.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_client_that_goes_away_takes_no_turn() {
        let worker = Worker::default();
        let flood: Vec<_> = (0..100).map(|_| worker.begin(FLOOD, 1)).collect();
        yield_now().await;
        for one in &flood[10..] {
            one.abort();
        }
        worker.begin(OTHER, 1).await.unwrap();
        for one in flood.into_iter().take(10) {
            one.await.unwrap();
        }
        sleep(Duration::from_millis(1)).await;
        assert_eq!(worker.done(), 11);
        assert!(worker.is_free());
    }
}
