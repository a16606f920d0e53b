//! Mimir with https: a private authority, names, and the proxy's own certificate.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::{
    Authority, Issuer, Mimir, Process, Proxy, ProxyOptions, Purpose, free_port, samples, wait_until,
};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::Acceptor;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::LazyConfigAcceptor;

use crate::reload::edit;
use crate::support::responses::full;

const QUERY: &str = "/prometheus/api/v1/query?query=up";
const PUSH: &str = "/api/v1/push";

/// Authority, server and client, as files.
struct Files {
    directory: TempDir,
    authority: Authority,
}

impl Files {
    fn make(names: &[&str]) -> Self {
        let (directory, authority) = (TempDir::new().unwrap(), Authority::new("Mimir CA"));
        std::fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
        authority.sign(Purpose::Server, names).write(directory.path(), "mimir");
        authority.sign(Purpose::Client, &["proxy"]).write(directory.path(), "proxy");
        Self { directory, authority }
    }

    fn path(&self, name: &str) -> String {
        format!("{:?}", self.directory.path().join(name).display().to_string())
    }

    fn client(&self) -> reqwest::Client {
        let read = |name: &str| std::fs::read_to_string(self.directory.path().join(name)).unwrap();
        let both = format!("{}{}", read("proxy.pem"), read("proxy.key"));
        let authority = reqwest::Certificate::from_pem(self.authority.pem().as_bytes()).unwrap();
        reqwest::Client::builder()
            .tls_certs_only([authority])
            .identity(reqwest::Identity::from_pem(both.as_bytes()).unwrap())
            .no_proxy()
            .build()
            .unwrap()
    }
}

async fn proxy(upstream: &str, settings: &[(&str, &str)]) -> (Issuer, Proxy) {
    let issuer = Issuer::start().await;
    let options =
        ProxyOptions::new(&issuer.url(), upstream).set("upstream.ready_interval", "\"200ms\"");
    let options = settings.iter().fold(options, |options, (key, value)| options.set(key, value));
    let proxy = options.start().await;
    (issuer, proxy)
}

// The whole way: probes, pushes and queries by the proxy's own client, and the ruler's by the other one.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_mimir_is_reached_by_https_with_a_certificate() {
    let files = Files::make(&["localhost"]);
    let mimir = Mimir::start_secured(files.directory.path(), "mimir", files.client()).await;
    let settings = [
        ("upstream.ca_file", files.path("ca.pem")),
        ("upstream.client_certificate_file", files.path("proxy.pem")),
        ("upstream.client_key_file", files.path("proxy.key")),
        ("upstream.max_idle_connections", "4".to_owned()),
    ];
    let settings: Vec<_> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let (issuer, proxy) = proxy(&mimir.url(), &settings).await;
    let organisation = harness::fresh_organisation();
    let client = proxy.client().bearer(&issuer.user_of(&organisation));
    let sender = client.clone().header("content-encoding", "snappy");
    let sender = sender.header("content-type", "application/x-protobuf");
    for number in 0..20 {
        let body = samples::remote_write("by_https", &[], f64::from(number));
        let answer = sender.post(PUSH, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        // Two samples of one series in one millisecond would be a conflict.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let answer = client.get("/prometheus/api/v1/query?query=by_https").await;
    assert!(answer.text.contains("by_https"), "{answer:?}");
    // Connections are kept: a handshake for each request would cost more than the request.
    let connects =
        proxy.metric("mimir_tenant_proxy_upstream_connects_total{outcome=\"succeeded\"}").await;
    assert!(connects < 8.0, "{connects} connections for 21 requests");
    // A body that takes many records, which Mimir refuses only after it has read it.
    let large = sender.post(PUSH, vec![b'x'; 4 << 20]).await;
    assert_eq!(large.status, 400, "{large:?}");
    // What check-config asks of each instance, by the other client.
    let output = std::process::Command::new(Proxy::binary())
        .args(["--config", &proxy.config.display().to_string(), "check-config", "--connect"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("ready, keeps tenants apart"), "{said}");

    // Asked without TLS, Go's server answers 400, on which senders drop their data.
    let (issuer, misled) = self::proxy(&mimir.url().replace("https://", "http://"), &[]).await;
    let sender = misled.client().bearer(&issuer.user_of(&organisation));
    let sender = sender.header("content-type", "application/x-protobuf");
    for (path, body) in
        [(PUSH, samples::remote_write("by_http", &[], 1.0)), ("/otlp/v1/metrics", b"x".to_vec())]
    {
        let answer = sender.post(path, body).await;
        assert_eq!(answer.status, 503, "{path}: {answer:?}");
        assert!(!answer.header("retry-after").is_empty(), "{path}");
    }
    wait_until("it is not used", Duration::from_secs(20), async || {
        misled.metric("mimir_tenant_proxy_upstream_instances_ejected").await == 1.0
    })
    .await;
}

// Nobody between the proxy and Mimir gets a byte of a request: not with a certificate of another authority, nor
// with one for another name, nor an expired one, nor without TLS.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_is_taken_for_mimir() {
    let upstream = harness::Upstream::plain().await;
    let files = Files::make(&["mimir.internal"]);
    let directory = files.directory.path();
    Authority::new("Mimir CA").sign(Purpose::Server, &["localhost"]).write(directory, "foreign");
    files.authority.sign_until(Purpose::Server, &["localhost"], 2020).write(directory, "expired");
    files.authority.sign(Purpose::Client, &["localhost"]).write(directory, "client");
    let ca = files.path("ca.pem");
    for name in ["mimir", "foreign", "expired", "client"] {
        let nginx = start_nginx(directory, name, &upstream.url()).await;
        let url = nginx.url();
        let (issuer, proxy) = proxy(&url, &[("upstream.ca_file", &ca)]).await;
        let client = proxy.client().bearer(&issuer.user_of("org-a"));
        let answer = client.get(QUERY).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{name}: {answer:?}");
        assert!(!answer.header("retry-after").is_empty());
    }
    // In clear text.
    let url = upstream.url().replace("http://127.0.0.1", "https://localhost");
    let (issuer, proxy) = proxy(&url, &[("upstream.ca_file", &ca)]).await;
    let answer = proxy.client().bearer(&issuer.user_of("org-a")).get(QUERY).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    assert!(upstream.heads().is_empty());
    // The same certificate is good where its name is asked for.
    let nginx = start_nginx(directory, "mimir", &upstream.url()).await;
    let url = nginx.url();
    let settings =
        [("upstream.ca_file", ca.as_str()), ("upstream.server_name", "\"mimir.internal\"")];
    let (issuer, proxy) = self::proxy(&url, &settings).await;
    let client = proxy.client().bearer(&issuer.user_of("org-a"));
    assert_eq!(client.get(QUERY).await.status, 200);
    assert!(!upstream.heads().is_empty());
    // A goodbye while the connection was kept is a closed connection, and no failure.
    nginx.process.signal("HUP");
    tokio::time::sleep(Duration::from_millis(500)).await;
    for _ in 0..5 {
        assert_eq!(client.get(QUERY).await.status, 200);
    }
}

// A renewed authority is used without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn the_authorities_of_mimir_are_reloaded() {
    let upstream = harness::Upstream::plain().await;
    let files = Files::make(&["localhost"]);
    let other = Authority::new("Next CA");
    let ca = files.directory.path().join("ca.pem");
    std::fs::write(&ca, other.pem()).unwrap();
    let nginx = start_nginx(files.directory.path(), "mimir", &upstream.url()).await;
    let settings =
        [("upstream.ca_file", &*files.path("ca.pem")), ("reload.watch_interval", "\"200ms\"")];
    let (issuer, proxy) = proxy(&nginx.url(), &settings).await;
    let client = proxy.client().bearer(&issuer.user_of("org-a"));
    assert_eq!(client.get(QUERY).await.status, 503);
    std::fs::write(&ca, files.authority.pem()).unwrap();
    wait_until("it is trusted", Duration::from_secs(20), async || {
        client.get(QUERY).await.status == 200
    })
    .await;
}

/// Two Mimirs behind one address, as behind a balancer that goes by the name in the handshake (SNI) and by nothing else:
/// `localhost` leads to the first. To an address no name is sent, and it leads to the second.
struct TwoMimirs {
    port: u16,
    is_held: Arc<AtomicBool>,
    release: Arc<Notify>,
}

/// A query whose answer is held back until it is released.
const HELD: &str = "/prometheus/api/v1/query?query=held";

impl TwoMimirs {
    /// The second has a certificate for a name.
    async fn start(authority: &Authority, certified: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let secured = |name: &str| {
            let own = authority.sign(Purpose::Server, &[name]);
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![own.der.into()], key)
                .unwrap();
            Arc::new(config)
        };
        let (first, second) = (secured("localhost"), secured(certified));
        let (is_held, release) = (Arc::<AtomicBool>::default(), Arc::<Notify>::default());
        let started = Self { port, is_held: Arc::clone(&is_held), release: Arc::clone(&release) };
        let answer = move |who: &'static str, request: Request<Incoming>| {
            let (is_held, release) = (Arc::clone(&is_held), Arc::clone(&release));
            async move {
                if request.uri().query() == HELD.split('?').nth(1) {
                    is_held.store(true, Ordering::SeqCst);
                    release.notified().await;
                }
                Ok::<_, Infallible>(Response::new(full(who)))
            }
        };
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (first, second) = (Arc::clone(&first), Arc::clone(&second));
                let answer = answer.clone();
                tokio::spawn(async move {
                    let hello = LazyConfigAcceptor::new(Acceptor::default(), socket).await;
                    let Ok(hello) = hello else { return };
                    let is_named = hello.client_hello().server_name().is_some();
                    let (who, config) =
                        if is_named { ("the first", first) } else { ("the second", second) };
                    let Ok(stream) = hello.into_stream(config).await else { return };
                    let service = service_fn(move |request| answer(who, request));
                    let http = http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        started
    }

    fn url(&self, name: &str) -> String {
        format!("https://{name}:{}", self.port)
    }
}

// Found by reading: an instance that only got another name kept its connections. Under load they are never idle for long
// enough to be closed, so everything went on to the old Mimir, and nobody asked the new one for its certificate.
#[tokio::test(flavor = "multi_thread")]
async fn connections_end_with_the_name_they_were_made_for() {
    let files = Files::make(&["localhost"]);
    let ca = files.path("ca.pem");
    let settings = [
        ("upstream.ca_file", ca.as_str()),
        ("listen.workers", "1"),
        ("reload.watch_interval", "\"0s\""),
    ];
    for (certified, is_reached) in [("127.0.0.1", true), ("localhost", false)] {
        let both = TwoMimirs::start(&files.authority, certified).await;
        let (issuer, proxy) = proxy(&both.url("localhost"), &settings).await;
        let client = proxy.client().bearer(&issuer.user_of("org-a"));
        let in_flight = tokio::spawn({
            let client = client.clone();
            async move { client.get(HELD).await }
        });
        wait_until("it is upstream", Duration::from_secs(10), async || {
            both.is_held.load(Ordering::SeqCst)
        })
        .await;
        // On others, which are idle then.
        for _ in 0..5 {
            assert_eq!(client.get(QUERY).await.text, "the first");
        }

        edit(&proxy.config, &[("upstream.urls", &format!("[{:?}]", both.url("127.0.0.1")))]);
        proxy.process.signal("HUP");
        wait_until("it is used", Duration::from_secs(10), async || {
            proxy.process.log().contains("\"keys\":\"upstream.urls\"")
        })
        .await;
        let leads_to_the_second = async || {
            for _ in 0..5 {
                let answer = client.get(QUERY).await;
                if is_reached {
                    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, "the second"));
                } else {
                    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
                }
            }
        };
        leads_to_the_second().await;
        // What has begun ends where it began, and its connection with it.
        both.release.notify_one();
        assert_eq!(in_flight.await.unwrap().text, "the first");
        leads_to_the_second().await;
    }
}

struct Nginx {
    port: u16,
    process: Process,
    _directory: TempDir,
}

impl Nginx {
    fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }
}

/// A stock server that ends TLS in front of another.
async fn start_nginx(directory: &Path, name: &str, to: &str) -> Nginx {
    let port = free_port();
    let own = TempDir::with_prefix("nginx-").unwrap();
    let (home, files) = (own.path().display().to_string(), directory.display().to_string());
    let config = own.path().join("nginx.conf");
    std::fs::write(
        &config,
        format!(
            "daemon off; worker_processes 1; pid {home}/pid; error_log stderr;\n\
             events {{}}\n\
             http {{\n  access_log off; client_body_temp_path {home}/a; proxy_temp_path {home}/b;\n  \
             fastcgi_temp_path {home}/c; uwsgi_temp_path {home}/d; scgi_temp_path {home}/e;\n  \
             server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {files}/{name}.pem;\n    \
             ssl_certificate_key {files}/{name}.key; location / {{ proxy_pass {to}; }} }}\n}}\n"
        ),
    )
    .unwrap();
    let process = Process::start("nginx", &harness::part("nginx"), own.path(), |command| {
        command.arg("-c").arg(&config);
    });
    wait_until("nginx listens", Duration::from_secs(10), async || {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
    })
    .await;
    Nginx { port, process, _directory: own }
}
