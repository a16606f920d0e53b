//! A Mimir instance that can be broken, stopped and started again, and counts its requests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use harness::free_port;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::responses::{Body, full};

/// Its behaviour for requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Answers.
    Fine,
    /// Answers after a while.
    Slow(Duration),
    /// Answers with a status, in plain text or in JSON.
    Status(u16, &'static str),
    /// Answers with a status, a type and a text.
    Says(u16, &'static str, &'static str),
    /// Never answers.
    Hang,
    /// Accepts the request and closes the connection.
    Break,
}

pub(crate) const TEXT: &str = "text/plain; charset=utf-8";
pub(crate) const JSON: &str = "application/json";

struct Shared {
    mode: Mutex<Mode>,
    /// The response of `/ready`.
    ready: Mutex<u16>,
    requests: AtomicUsize,
    probes: AtomicUsize,
    bodies: Mutex<Vec<Bytes>>,
}

pub(crate) struct FakeMimir {
    port: u16,
    host: IpAddr,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl FakeMimir {
    pub(crate) async fn start() -> Self {
        Self::start_in(Mode::Fine).await
    }

    pub(crate) async fn start_in(mode: Mode) -> Self {
        let shared = Shared {
            mode: Mutex::new(mode),
            ready: Mutex::new(200),
            requests: AtomicUsize::new(0),
            probes: AtomicUsize::new(0),
            bodies: Mutex::default(),
        };
        let mut fake = Self {
            port: free_port(),
            host: Ipv4Addr::LOCALHOST.into(),
            shared: Arc::new(shared),
            tasks: JoinSet::new(),
        };
        fake.resume().await;
        fake
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Starts it again at all addresses of this machine.
    pub(crate) async fn listen_everywhere(&mut self) {
        self.stop().await;
        self.host = Ipv6Addr::UNSPECIFIED.into();
        self.resume().await;
    }

    /// Ends it like a kill: its connections break and its port is closed.
    pub(crate) async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }

    /// Starts it again at the same address.
    pub(crate) async fn resume(&mut self) {
        let listener = TcpListener::bind((self.host, self.port)).await.unwrap();
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                let service = service_fn(move |request| serve(Arc::clone(&shared), request));
                connections.spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
    }

    pub(crate) fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    pub(crate) fn set_ready(&self, status: u16) {
        *self.shared.ready.lock().unwrap() = status;
    }

    /// Requests so far, without probes.
    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn probes(&self) -> usize {
        self.shared.probes.load(Ordering::SeqCst)
    }

    /// The bodies that were received completely.
    pub(crate) fn bodies(&self) -> Vec<Bytes> {
        self.shared.bodies.lock().unwrap().clone()
    }
}

async fn serve(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::io::Error> {
    if request.uri().path() == "/ready" {
        shared.probes.fetch_add(1, Ordering::SeqCst);
        let status = *shared.ready.lock().unwrap();
        return Ok(Response::builder().status(status).body(full("")).unwrap());
    }
    shared.requests.fetch_add(1, Ordering::SeqCst);
    let body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
    if !body.is_empty() {
        shared.bodies.lock().unwrap().push(body);
    }
    let mode = *shared.mode.lock().unwrap();
    match mode {
        Mode::Fine => {}
        Mode::Slow(pause) => tokio::time::sleep(pause).await,
        Mode::Status(status, content_type) => {
            let answer = Response::builder().status(status).header("content-type", content_type);
            return Ok(answer.body(full("{}")).unwrap());
        }
        Mode::Says(status, content_type, text) => {
            let answer = Response::builder().status(status).header("content-type", content_type);
            return Ok(answer.body(full(text)).unwrap());
        }
        Mode::Hang => std::future::pending().await,
        Mode::Break => return Err(std::io::ErrorKind::ConnectionReset.into()),
    }
    Ok(Response::new(full("{\"status\":\"success\"}")))
}
