//! TLS handshakes: what one client notices of another that begins as many as it can.
//!
//! The flood sends the bytes of one hello again and again, which costs it nothing, and the proxy a key and a
//! signature each time. Clients take turns by network, so the one that is measured has another address. It asks on
//! one connection and makes new ones, both at a fixed rate.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::load::{Connection, Served, address, request};
use harness::report::median;
use harness::{Authority, Issuer, ORG_A, ProxyOptions, Purpose, Upstream, hello, session};
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio::time::Instant;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, StreamOwned};

pub const NAME: &str = "1,000 TLS hellos at a time";
/// Of one batch of the flood.
const HELLOS: usize = 1000;
/// Of the client that is measured.
const BETWEEN_REQUESTS: Duration = Duration::from_millis(2);
const BETWEEN_CONNECTIONS: Duration = Duration::from_millis(40);
const ROUND: Duration = Duration::from_secs(8);
/// The client that is measured comes from here, the flood from 127.0.0.1.
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// One phase of one round.
struct Measured {
    requests: Served,
    connections: Served,
}

pub async fn run(issuer: &Issuer, upstream: &Upstream, rounds: usize) {
    println!("{NAME}");
    let (directory, authority) = (TempDir::new().expect("directory"), Authority::new("Own CA"));
    let own = authority.sign(Purpose::Server, &["localhost"]);
    let (certificate, key) = own.write(directory.path(), "own");
    // One worker, which all of them want.
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url())
        .set("tls.certificate_files", &format!("[{certificate:?}]"))
        .set("tls.key_files", &format!("[{key:?}]"))
        .set("listen.header_timeout", "\"60s\"")
        .set("listen.workers", "1")
        .start()
        .await;
    let token = issuer.token().organisation(&ORG_A.into()).sign();
    let client = Client {
        address: address(&proxy.url()),
        trusting: authority.client(None, &[]),
        request: request(
            "GET",
            "/prometheus/api/v1/query?query=up",
            &format!("Bearer {token}"),
            &[],
        ),
    };
    let (mut quiet, mut flooded, mut answered) = (Vec::new(), Vec::new(), 0);
    tokio::task::block_in_place(|| {
        let hello = hello(&client.trusting);
        for _ in 0..rounds {
            quiet.push(client.measure().expect("quiet"));
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let flood = scope.spawn(|| flood(client.address, &hello, &stop));
                std::thread::sleep(Duration::from_secs(1));
                flooded.push(client.measure().expect("beside the flood"));
                stop.store(true, Ordering::Relaxed);
                answered += flood.join().expect("the flood").expect("the flood");
            });
        }
    });
    describe("quiet", &quiet);
    describe("flood", &flooded);
    println!("    hellos of the flood that were answered: {answered}\n");
}

struct Client {
    address: SocketAddr,
    trusting: Arc<ClientConfig>,
    request: Vec<u8>,
}

impl Client {
    fn connect(&self) -> io::Result<Connection<Tls>> {
        let connecting = async {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::new(ELSEWHERE, 0))?;
            socket.connect(self.address).await?.into_std()
        };
        let mut socket = tokio::runtime::Handle::current().block_on(connecting)?;
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        let mut session = session(&self.trusting);
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        Ok(Connection::over(StreamOwned::new(session, socket)))
    }

    fn measure(&self) -> io::Result<Measured> {
        let mut connection = self.connect()?;
        let runtime = tokio::runtime::Handle::current();
        std::thread::scope(|scope| {
            let connections = scope.spawn(|| {
                let _entered = runtime.enter();
                at_a_rate(BETWEEN_CONNECTIONS, || self.connect().map(drop))
            });
            let requests = at_a_rate(BETWEEN_REQUESTS, || {
                let status = connection.exchange(&self.request)?;
                assert_eq!(status, 200, "of the client that is measured");
                Ok(())
            })?;
            let connections = connections.join().expect("new connections")?;
            Ok(Measured { requests, connections })
        })
    }
}

/// Does something again and again, each time when it is due. Latency counts from then.
fn at_a_rate(interval: Duration, mut act: impl FnMut() -> io::Result<()>) -> io::Result<Served> {
    let began = Instant::now();
    let mut latencies = Vec::new();
    let due = (0..).map(|number| began + interval * number);
    for due in due.take_while(|due| *due < began + ROUND) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        act()?;
        latencies.push(due.elapsed());
    }
    latencies.sort_unstable();
    Ok(Served { requests: latencies.len(), elapsed: began.elapsed(), latencies })
}

/// Sends batches of hellos, whose last bytes come together. Gives how many were answered.
fn flood(address: SocketAddr, hello: &[u8], stop: &AtomicBool) -> io::Result<usize> {
    let (last, most) = hello.split_last().expect("a hello");
    let mut answered = 0;
    while !stop.load(Ordering::Relaxed) {
        let begun = |_| -> io::Result<TcpStream> {
            let mut socket = TcpStream::connect(address)?;
            socket.set_nodelay(true)?;
            socket.write_all(most)?;
            Ok(socket)
        };
        let sockets = (0..HELLOS).map(begun).collect::<io::Result<Vec<_>>>()?;
        for mut socket in &sockets {
            socket.write_all(&[*last])?;
        }
        for mut socket in &sockets {
            answered += socket.read(&mut [0])?;
        }
    }
    Ok(answered)
}

fn describe(name: &str, measured: &[Measured]) {
    let of = |what: fn(&Measured) -> &Served, quantile: f64| {
        median(measured.iter().map(|one| what(one).quantile_ms(quantile)))
    };
    println!(
        "  {name:<17} requests: p50 {:6.2} ms   p99 {:6.2} ms   new connections: p50 {:6.2} ms   p99 {:6.2} ms",
        of(|one| &one.requests, 0.5),
        of(|one| &one.requests, 0.99),
        of(|one| &one.connections, 0.5),
        of(|one| &one.connections, 0.99),
    );
}
