//! Upstreams that misbehave, and ones that tell what they were sent.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A request as it arrived.
pub struct Received {
    /// The method.
    pub method: String,
    /// The raw target.
    pub target: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, if the answering side wants it.
    pub body: Option<Incoming>,
}

/// The head of a request, kept for the test.
#[derive(Clone, Debug)]
pub struct Head {
    /// The method.
    pub method: String,
    /// The raw target.
    pub target: String,
    /// The headers.
    pub headers: HeaderMap,
}

/// An HTTP server that answers as the test says and keeps the heads that it was sent.
pub struct Upstream {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<Head>>>,
    connections: Arc<Connections>,
    _tasks: JoinSet<()>,
}

/// How many connections are open, and were.
#[derive(Default)]
struct Connections {
    now: AtomicUsize,
    most: AtomicUsize,
    all: AtomicUsize,
}

/// One of them.
struct Open(Arc<Connections>);

impl Open {
    fn new(connections: &Arc<Connections>) -> Self {
        let now = connections.now.fetch_add(1, Ordering::SeqCst) + 1;
        connections.most.fetch_max(now, Ordering::SeqCst);
        connections.all.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(connections))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Upstream {
    /// Starts a server for measurements: it reads a body to its end, and answers 1 KiB to a GET.
    pub async fn plain() -> Self {
        Self::start(async |received: Received| {
            let size = if received.method == "GET" { 1024 } else { 0 };
            if let Some(mut body) = received.body {
                while let Some(Ok(_)) = body.frame().await {}
            }
            let body = Bytes::from(vec![b'x'; size]);
            Response::new(Full::new(body).map_err(|never| match never {}).boxed())
        })
        .await
    }

    /// Starts a server that answers by a function.
    pub async fn start<F, A>(answer: F) -> Self
    where
        F: Fn(Received) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response<BoxBody<Bytes, std::io::Error>>> + Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("address");
        let heads: Arc<Mutex<Vec<Head>>> = Arc::default();
        let mut tasks = JoinSet::new();
        let kept = Arc::clone(&heads);
        let connections = Arc::<Connections>::default();
        let counted = Arc::clone(&connections);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let open = Open::new(&counted);
                let _ = socket.set_nodelay(true);
                let (answer, kept) = (answer.clone(), Arc::clone(&kept));
                let service = service_fn(move |request: http::Request<Incoming>| {
                    let (parts, body) = request.into_parts();
                    let head = Head {
                        method: parts.method.to_string(),
                        target: parts.uri.to_string(),
                        headers: parts.headers,
                    };
                    kept.lock().unwrap().push(head.clone());
                    let Head { method, target, headers } = head;
                    let answer = answer(Received { method, target, headers, body: Some(body) });
                    async move { Ok::<_, std::convert::Infallible>(answer.await) }
                });
                connections.spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                    drop(open);
                });
            }
        });
        Self { address, heads, connections, _tasks: tasks }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The heads of all requests so far.
    pub fn heads(&self) -> Vec<Head> {
        self.heads.lock().unwrap().clone()
    }

    /// The most connections that were open at the same time.
    pub fn most_connections(&self) -> usize {
        self.connections.most.load(Ordering::SeqCst)
    }

    /// How many connections there have been.
    pub fn all_connections(&self) -> usize {
        self.connections.all.load(Ordering::SeqCst)
    }

    /// Begins to count the most connections again, with those that are open.
    pub fn forget_most_connections(&self) {
        let now = self.connections.now.load(Ordering::SeqCst);
        self.connections.most.store(now, Ordering::SeqCst);
    }
}

/// A TCP server with which a test does what it likes.
pub struct RawUpstream {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl RawUpstream {
    /// Starts a server that serves each connection by a function.
    pub async fn start<F, A>(serve: F) -> Self
    where
        F: Fn(TcpStream) -> A + Send + Sync + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("address");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket));
            }
        });
        Self { address, _tasks: tasks }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
