//! A client for measurements: it sends ready-made requests over keep-alive connections, as fast as the
//! answers come or at a fixed rate, and does as little as possible for each.
//!
//! It speaks just enough HTTP/1.1 for servers that say how long their answers are. Each connection has
//! a thread: a thread wakes within a tenth of a millisecond of its time, a timer of tokio's within one.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The socket address of a server on loopback.
pub fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().expect("an address")
}

/// A request as it goes over the wire.
pub fn request(method: &str, target: &str, authorization: &str, body: &[u8]) -> Vec<u8> {
    let length =
        if method == "GET" { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: proxy\r\nAuthorization: {authorization}\r\n{length}\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// Where the load goes, and how it is sent.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    /// The server.
    pub address: SocketAddr,
    /// The requests, sent in turn.
    pub requests: &'a [Vec<u8>],
    /// How many connections send at the same time.
    pub connections: usize,
    /// Requests a second of all connections together; without it, each sends as soon as it can.
    pub rate: Option<f64>,
    /// When to stop.
    pub until: Until,
}

/// When a load ends.
#[derive(Clone, Copy)]
pub enum Until {
    /// After so many requests.
    Requests(usize),
    /// After this time.
    After(Duration),
}

/// What came of a load.
pub struct Served {
    /// The answers; all had a status of 200 to 299.
    pub requests: usize,
    /// The time that it took.
    pub elapsed: Duration,
    /// How long each took, the shortest first.
    pub latencies: Vec<Duration>,
}

impl Served {
    /// A quantile of the latencies in milliseconds.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        let at = ((self.latencies.len() - 1) as f64 * quantile).round() as usize;
        self.latencies[at].as_secs_f64() * 1000.0
    }
}

impl Load<'_> {
    /// Sends it and waits for the end. It blocks: a caller on a runtime wraps it in `block_in_place`.
    ///
    /// # Panics
    /// If the server closes a connection or answers with another status than 2xx.
    pub fn run(self) -> Served {
        let next = AtomicUsize::new(0);
        let began = Instant::now();
        let mut latencies: Vec<Duration> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.connections)
                .map(|number| {
                    let next = &next;
                    scope.spawn(move || self.connection(number, began, next))
                })
                .collect();
            let done = threads.into_iter().map(|thread| thread.join().expect("a connection"));
            done.flatten().collect()
        });
        let elapsed = began.elapsed();
        latencies.sort_unstable();
        Served { requests: latencies.len(), elapsed, latencies }
    }

    fn connection(self, number: usize, began: Instant, next: &AtomicUsize) -> Vec<Duration> {
        let mut connection = Connection::open(self.address).expect("a connection");
        let mut latencies = Vec::new();
        let interval = self.rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
        for round in 0.. {
            let mut start = Instant::now();
            if let Some(interval) = interval {
                // A request that is late because the one before it took long began when it was due.
                let due = began
                    + interval * u32::try_from(round * self.connections + number).expect("few");
                if due > start {
                    std::thread::sleep(due - start);
                    start = Instant::now();
                } else {
                    start = due;
                }
            }
            let at = next.fetch_add(1, Ordering::Relaxed);
            let is_over = match self.until {
                Until::Requests(requests) => at >= requests,
                Until::After(time) => start >= began + time,
            };
            if is_over {
                break;
            }
            let status = connection.exchange(&self.requests[at % self.requests.len()]);
            latencies.push(start.elapsed());
            let status = status.unwrap_or_else(|error| panic!("request {at}: {error}"));
            assert!((200..300).contains(&status), "request {at}: {status}");
        }
        latencies
    }
}

/// A keep-alive connection.
pub struct Connection<S = TcpStream> {
    socket: S,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self::over(socket))
    }
}

impl<S: Read + Write> Connection<S> {
    /// One that is open already, such as one with TLS.
    pub fn over(socket: S) -> Self {
        Self { socket, buffer: vec![0; 64 << 10] }
    }

    /// Sends a request, reads the answer to its end and returns its status.
    pub fn exchange(&mut self, request: &[u8]) -> io::Result<u16> {
        self.socket.write_all(request)?;
        let (mut filled, mut head) = (0, None);
        while head.is_none() {
            filled += self.read(filled)?;
            // The end of the head may lie across two reads. Answers' heads are a few hundred bytes.
            let seen = &self.buffer[..filled];
            head = seen.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        }
        let head = head.unwrap_or(filled);
        let text = String::from_utf8_lossy(&self.buffer[..head]).to_ascii_lowercase();
        let status = text.get(9..12).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not an answer: {text}")))?;
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = match length {
            Some(length) => length.trim().parse().map_err(io::Error::other)?,
            None if status == 204 => 0,
            None => return Err(io::Error::other(format!("an answer without a length: {text}"))),
        };
        let mut missing = length.saturating_sub(filled - head);
        while missing > 0 {
            missing = missing.saturating_sub(self.read(0)?);
        }
        Ok(status)
    }

    fn read(&mut self, from: usize) -> io::Result<usize> {
        match self.socket.read(&mut self.buffer[from..])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => Ok(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Response;
    use http_body_util::{BodyExt as _, Full};

    use super::*;
    use crate::upstream::Upstream;

    async fn server(status: u16) -> Upstream {
        Upstream::start(move |_| async move {
            let body = Full::new(Bytes::from_static(b"hello")).map_err(|never| match never {});
            Response::builder().status(status).body(body.boxed()).unwrap()
        })
        .await
    }

    fn load(server: &Upstream, rate: Option<f64>, until: Until) -> Served {
        let address = address(&server.url());
        let requests = [request("GET", "/", "Bearer x", b""), request("POST", "/", "x", b"abc")];
        let load = Load { address, requests: &requests, connections: 2, rate, until };
        tokio::task::block_in_place(|| load.run())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_load_ends_after_its_requests_or_its_time_and_keeps_its_rate() {
        let server = server(200).await;
        assert_eq!(load(&server, None, Until::Requests(50)).requests, 50);
        assert_eq!(server.heads().len(), 50);
        let served = load(&server, Some(100.0), Until::After(Duration::from_millis(500)));
        assert!((40..=52).contains(&served.requests), "{}", served.requests);
        assert!(served.quantile_ms(0.5) <= served.quantile_ms(0.99));
    }

    // A load that was refused measures something else.
    #[tokio::test(flavor = "multi_thread")]
    #[should_panic(expected = "a connection")]
    async fn an_answer_that_is_no_success_ends_it() {
        let server = server(401).await;
        load(&server, None, Until::Requests(5));
    }
}
