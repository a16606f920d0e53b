//! Many clients on thin lines: each sends its body in pieces, over seconds, and begins again.
//!
//! Unlike in [`flood`](crate::flood), each has a connection of its own and one request at a time. A thread for each
//! would be thousands; here a timer that is a millisecond late does no harm.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::flood::Outcome;

/// Of a body, evenly spread over its time.
const PIECES: u32 = 10;
const LATE: Duration = Duration::from_millis(250);

/// A crowd of clients, each with one request.
pub struct Slow {
    pub requests: Vec<Vec<u8>>,
    /// From the first byte of a request to its last.
    pub time: Duration,
}

impl Slow {
    /// Sends while something else is done, which begins this much later.
    pub fn beside<T>(
        &self,
        address: SocketAddr,
        begins: Duration,
        other: impl FnOnce() -> T,
    ) -> (Outcome, T) {
        let stop = Arc::new(AtomicBool::new(false));
        std::thread::scope(|scope| {
            let crowd = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime");
                runtime.block_on(self.run(address, &stop))
            });
            std::thread::sleep(begins);
            let result = other();
            stop.store(true, Ordering::Relaxed);
            (crowd.join().expect("the crowd"), result)
        })
    }

    async fn run(&self, address: SocketAddr, stop: &Arc<AtomicBool>) -> Outcome {
        let began = Instant::now();
        let mut clients = JoinSet::new();
        let count = u32::try_from(self.requests.len()).expect("thousands");
        for (number, request) in (0..).zip(&self.requests) {
            // Evenly spread, as devices are that were not started at the same time.
            let begins = began + self.time * number / count;
            let client = Client { address, request: request.clone(), time: self.time };
            clients.spawn(client.run(begins, Arc::clone(stop)));
        }
        clients.join_all().await.iter().fold(Outcome::default(), Outcome::plus)
    }
}

struct Client {
    address: SocketAddr,
    request: Vec<u8>,
    time: Duration,
}

impl Client {
    async fn run(self, begins: Instant, stop: Arc<AtomicBool>) -> Outcome {
        let mut outcome = Outcome::default();
        let mut socket = None;
        for round in 0.. {
            let due = begins + self.time * round;
            sleep_until(due).await;
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let open = match socket.take() {
                Some(open) => Ok(open),
                None => TcpStream::connect(self.address).await,
            };
            let answered = match open {
                Ok(open) => self.exchange(open, due, &mut outcome).await,
                Err(error) => Err(error),
            };
            match answered {
                Ok((status, open)) => {
                    *outcome.statuses.entry(status).or_default() += 1;
                    socket = Some(open);
                }
                Err(_) => outcome.broken += 1,
            }
        }
        outcome
    }

    /// Sends the request piece by piece and reads the answer, which has no body.
    async fn exchange(
        &self,
        mut socket: TcpStream,
        due: Instant,
        outcome: &mut Outcome,
    ) -> std::io::Result<(u16, TcpStream)> {
        socket.set_nodelay(true)?;
        let length = self.request.len().div_ceil(PIECES as usize);
        for (piece, number) in self.request.chunks(length).zip(0..) {
            let due = due + self.time * number / PIECES;
            sleep_until(due).await;
            outcome.late += usize::from(due.elapsed() > LATE);
            socket.write_all(piece).await?;
        }
        let (mut answer, mut buffer) = (Vec::new(), [0; 1024]);
        while !answer.ends_with(b"\r\n\r\n") {
            match socket.read(&mut buffer).await? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                length => answer.extend_from_slice(&buffer[..length]),
            }
        }
        let status = answer.get(9..12).and_then(|status| std::str::from_utf8(status).ok());
        let status = status.and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| std::io::Error::other("not an answer"))?;
        Ok((status, socket))
    }
}
