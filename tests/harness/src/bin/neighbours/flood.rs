//! Requests at a fixed rate, whatever is answered.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use harness::load::Connection;
use tokio::time::Instant;

/// As many as wait for their turn and for their answer: a request over a limit waits for up to two seconds.
const CONNECTIONS: usize = 250;
/// A request that is sent so late was not sent at its time: too few connections were free.
const LATE: Duration = Duration::from_millis(100);

/// What became of a crowd's requests.
#[derive(Default)]
pub struct Outcome {
    pub statuses: BTreeMap<u16, usize>,
    /// Without an answer.
    pub broken: usize,
    /// Sent later than they were due.
    pub late: usize,
}

impl Outcome {
    pub fn plus(mut self, other: &Self) -> Self {
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        self.broken += other.broken;
        self.late += other.late;
        self
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> =
            self.statuses.iter().map(|(status, count)| format!("{count} got {status}")).collect();
        write!(out, "{}, {} broke, {} were sent late", counts.join(", "), self.broken, self.late)
    }
}

/// A crowd that sends at a fixed rate.
pub struct Flood {
    /// Sent in turn.
    pub requests: Vec<Vec<u8>>,
    /// A second.
    pub rate: f64,
}

impl Flood {
    /// Sends while something else is done, which begins this much later.
    pub fn beside<T>(
        &self,
        address: SocketAddr,
        begins: Duration,
        other: impl FnOnce() -> T,
    ) -> (Outcome, T) {
        let (stop, next, outcome) =
            (AtomicBool::new(false), AtomicU32::new(0), Mutex::new(Outcome::default()));
        let began = Instant::now();
        let result = std::thread::scope(|scope| {
            for _ in 0..CONNECTIONS {
                scope.spawn(|| {
                    let one = self.connection(address, began, &next, &stop);
                    let mut outcome = outcome.lock().expect("outcome");
                    *outcome = std::mem::take(&mut *outcome).plus(&one);
                });
            }
            std::thread::sleep(begins);
            let result = other();
            stop.store(true, Ordering::Relaxed);
            result
        });
        (outcome.into_inner().expect("outcome"), result)
    }

    /// A connection takes the next request when it is free: the rate holds as long as one is.
    fn connection(
        &self,
        address: SocketAddr,
        began: Instant,
        next: &AtomicU32,
        stop: &AtomicBool,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let mut connection = None;
        let interval = Duration::from_secs_f64(1.0 / self.rate);
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let due = began + interval * at;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if stop.load(Ordering::Relaxed) {
                return outcome;
            }
            outcome.late += usize::from(due.elapsed() > LATE);
            let open = connection.take().map_or_else(|| Connection::open(address), Ok);
            let request = &self.requests[at as usize % self.requests.len()];
            let answered = open.and_then(|mut open| Ok((open.exchange(request)?, open)));
            match answered {
                Ok((status, open)) => {
                    *outcome.statuses.entry(status).or_default() += 1;
                    connection = Some(open);
                }
                // Also a connection that was closed after a refusal, which loses its next request.
                Err(_) => outcome.broken += 1,
            }
        }
    }
}
