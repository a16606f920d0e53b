//! An S3-compatible server with Cloudflare R2's rules: a real MinIO with the region `auto` behind a gate
//! that speaks TLS and answers as R2 does to what R2 does not know, which MinIO cannot be told to refuse.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::certificates::Certificates;
use crate::minio::Minio;

/// A running server.
pub struct R2 {
    minio: Minio,
    address: SocketAddr,
    ca: PathBuf,
    seen: Arc<Seen>,
    _tasks: JoinSet<()>,
    _directory: TempDir,
}

/// What came to the gate.
#[derive(Default)]
struct Seen {
    refused: Mutex<Vec<String>>,
    parts: AtomicUsize,
}

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

impl R2 {
    /// Starts one with these buckets.
    pub async fn start(buckets: &[&str]) -> Self {
        let directory = TempDir::with_prefix("r2-").expect("directory");
        let files = Certificates::make(directory.path());
        let minio = Minio::start(buckets).await;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("listen");
        let address = listener.local_addr().expect("address");
        let seen = Arc::<Seen>::default();
        let (acceptor, behind, kept) = (acceptor(&files), minio.address(), Arc::clone(&seen));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, kept) = (acceptor.clone(), Arc::clone(&kept));
                connections.spawn(async move {
                    let Ok(socket) = acceptor.accept(socket).await else { return };
                    let service = service_fn(move |request| {
                        let kept = Arc::clone(&kept);
                        async move { Ok::<_, Infallible>(pass(request, behind, &kept).await) }
                    });
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ = server.serve_connection(TokioIo::new(socket), service).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { minio, address, ca: files.ca, seen, _tasks: tasks, _directory: directory }
    }

    /// Its host and port, as `R2_ENDPOINT` wants them.
    pub fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// The authority (PEM) that signed its certificate.
    pub fn ca_file(&self) -> &Path {
        &self.ca
    }

    /// The server behind the gate: its keys, and what is in the buckets.
    pub fn minio(&self) -> &Minio {
        &self.minio
    }

    /// What was refused that S3 itself takes, one line a request.
    pub fn refused(&self) -> Vec<String> {
        self.seen.refused.lock().unwrap().clone()
    }

    /// How many parts of larger objects were uploaded.
    pub fn parts(&self) -> usize {
        self.seen.parts.load(Ordering::Relaxed)
    }
}

fn acceptor(files: &Certificates) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_file(&files.certificate).expect("certificate");
    let key = PrivateKeyDer::from_pem_file(&files.key).expect("key");
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("protocol versions").with_no_client_auth();
    TlsAcceptor::from(Arc::new(config.with_single_cert(vec![certificate], key).expect("a pair")))
}

/// R2 answers 501 to headers of S3 that it has not.
fn unknown_to_r2(request: &Request<Incoming>) -> Option<String> {
    let unknown = |name: &str| {
        name.starts_with("x-amz-checksum-")
            || name.starts_with("x-amz-server-side-encryption")
            || ["x-amz-trailer", "x-amz-sdk-checksum-algorithm"].contains(&name)
    };
    request
        .headers()
        .keys()
        .map(http::HeaderName::as_str)
        .find(|name| unknown(name))
        .map(str::to_owned)
}

async fn pass(request: Request<Incoming>, behind: SocketAddr, seen: &Seen) -> Answer {
    if let Some(header) = unknown_to_r2(&request) {
        let line = format!("{} {}: {header}", request.method(), request.uri().path());
        seen.refused.lock().unwrap().push(line);
        let text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>NotImplemented</Code>\
             <Message>Header '{header}' not implemented</Message></Error>"
        );
        let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed();
        let answer = Response::builder().status(StatusCode::NOT_IMPLEMENTED);
        return answer.header("content-type", "application/xml").body(body).expect("an answer");
    }
    if request.uri().query().is_some_and(|query| query.contains("partNumber=")) {
        seen.parts.fetch_add(1, Ordering::Relaxed);
    }
    // The signature covers the host, which is therefore left as it is.
    match exchange(request, behind).await {
        Ok(answer) => answer.map(|body| body.boxed()),
        Err(error) => {
            let body = Full::new(Bytes::from(error)).map_err(|never| match never {}).boxed();
            Response::builder().status(StatusCode::BAD_GATEWAY).body(body).expect("an answer")
        }
    }
}

async fn exchange(
    request: Request<Incoming>,
    behind: SocketAddr,
) -> Result<Response<Incoming>, String> {
    let socket = TcpStream::connect(behind).await.map_err(|error| error.to_string())?;
    let client = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await;
    let (mut sender, connection) = client.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(|error| error.to_string())
}
