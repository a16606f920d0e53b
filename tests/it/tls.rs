//! TLS on the public port: what clients get, what they cannot do, and certificates that change.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::{Authority, KeyPairPem, ORG_A, Purpose, Upstream, wait_until};
use http::{Response, StatusCode};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::responses::{full, ok};
use crate::support::single::{MIB, PUSH, ProxyFixture, QUERY, count, pieces, proxy_fixture};

const PATH: &str = "/prometheus/api/v1/query";

/// A proxy with a certificate for `localhost` and `127.0.0.1`.
struct Fixture {
    inner: ProxyFixture,
    authority: Authority,
    directory: TempDir,
}

async fn fixture(upstream: &str, settings: &[(&str, &str)]) -> Fixture {
    let (authority, directory) = (Authority::new("Proxy CA"), TempDir::new().unwrap());
    let own = authority.sign(Purpose::Server, &["localhost", "127.0.0.1"]);
    let (certificate, key) = own.write(directory.path(), "own");
    let (certificate, key) = (listed(&[&certificate]), listed(&[&key]));
    let mut all = vec![
        ("tls.certificate_files", certificate.as_str()),
        ("tls.key_files", key.as_str()),
        ("listen.workers", "2"),
    ];
    all.extend(settings);
    Fixture { inner: proxy_fixture(upstream, &all).await, authority, directory }
}

/// A list of paths, in TOML.
fn listed(paths: &[&Path]) -> String {
    format!("{paths:?}")
}

impl Fixture {
    fn address(&self) -> SocketAddr {
        self.inner.proxy.url().replace("http://", "").parse().unwrap()
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address().port())
    }

    /// A stock client that trusts the authority.
    fn client(&self) -> reqwest::ClientBuilder {
        let authority = reqwest::Certificate::from_pem(self.authority.pem().as_bytes()).unwrap();
        reqwest::Client::builder()
            .tls_certs_only([authority])
            .no_proxy()
            .timeout(Duration::from_secs(20))
    }

    fn token(&self) -> String {
        self.inner.issuer.user_of(ORG_A)
    }

    async fn handshakes(&self, outcome: &str) -> f64 {
        let series = format!("mimir_tenant_proxy_tls_handshakes_total{{outcome=\"{outcome}\"}}");
        self.inner.proxy.metric(&series).await
    }

    async fn ended(&self, reason: &str) -> f64 {
        let series = format!("mimir_tenant_proxy_connections_ended_total{{reason=\"{reason}\"}}");
        self.inner.proxy.metric(&series).await
    }

    async fn connect(
        &self,
        config: &Arc<ClientConfig>,
        name: &str,
    ) -> io::Result<TlsStream<TcpStream>> {
        let socket = TcpStream::connect(self.address()).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::clone(config)).connect(name, socket).await
    }

    /// A connection for raw HTTP/1.1.
    async fn raw(&self) -> TlsStream<TcpStream> {
        self.connect(&self.authority.client(None, &[]), "localhost").await.unwrap()
    }

    fn get(&self) -> String {
        self.inner.head(&format!("GET {QUERY}"), "")
    }
}

/// Reads one answer with a length, and gives its status.
async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> u16 {
    answer_and_close(stream).await.0
}

/// The same, and whether it says that the connection ends.
async fn answer_and_close(stream: &mut (impl AsyncRead + Unpin)) -> (u16, bool) {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() == length.unwrap().parse::<usize>().unwrap() {
                let closes = head.to_ascii_lowercase().contains("\r\nconnection: close");
                return (head[9..12].parse().unwrap(), closes);
            }
        }
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_buf(&mut bytes)).await;
        assert!(read.expect("an answer comes").unwrap() > 0, "closed after {text:?}");
    }
}

// RFC 9113, 3.2: HTTP/2 by TLS is agreed upon in the handshake, and by nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn stock_clients_speak_both_protocols() {
    let upstream = Upstream::start(ok).await;
    let fixture = fixture(&upstream.url(), &[]).await;
    for (client, version) in [
        (fixture.client().http1_only(), http::Version::HTTP_11),
        (fixture.client(), http::Version::HTTP_2),
    ] {
        let client = client.build().unwrap();
        for _ in 0..3 {
            let request = client.get(fixture.url(QUERY)).bearer_auth(fixture.token());
            let answer = request.send().await.unwrap();
            assert_eq!((answer.status(), answer.version()), (StatusCode::OK, version));
            assert!(answer.text().await.unwrap().contains("success"));
        }
    }
    // A client may open another connection while its first is being given back.
    let made = fixture.handshakes("full").await + fixture.handshakes("resumed").await;
    assert!((2.0..6.0).contains(&made), "{made}");
    wait_until("all are logged", Duration::from_secs(5), async || {
        fixture.inner.proxy.access_log(PATH).len() == 6
    })
    .await;
    let lines = fixture.inner.proxy.access_log(PATH);
    let mut versions: Vec<&str> =
        lines.iter().filter_map(|line| line["http.version"].as_str()).collect();
    // Each worker writes its own.
    versions.sort_unstable();
    assert_eq!(versions, ["1.1", "1.1", "1.1", "2", "2", "2"]);
    // The preface of HTTP/2 without the agreement is a wrong request of HTTP/1.1.
    let mut stream = fixture.raw().await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said).await;
    assert!(
        said.starts_with(b"HTTP/1.1 4") || said.is_empty(),
        "{:?}",
        String::from_utf8_lossy(&said)
    );
}

// What clients may choose is the operator's: HTTP/2 takes 24 KiB of a body per round trip.
#[tokio::test(flavor = "multi_thread")]
async fn http_2_can_be_switched_off() {
    let upstream = Upstream::start(ok).await;
    let settings = [("tls.http2", "false"), ("reload.watch_interval", "\"200ms\"")];
    let fixture = fixture(&upstream.url(), &settings).await;
    let client = fixture.client().build().unwrap();
    let request = client.get(fixture.url(QUERY)).bearer_auth(fixture.token());
    let answer = request.send().await.unwrap();
    assert_eq!((answer.status(), answer.version()), (StatusCode::OK, http::Version::HTTP_11));
    // RFC 7301, 3.2: a client that speaks nothing else is told so in the handshake.
    let only = fixture.client().http2_prior_knowledge().build().unwrap();
    let request = only.get(fixture.url(QUERY)).bearer_auth(fixture.token());
    assert!(request.send().await.is_err());
    assert_eq!(fixture.handshakes("no_agreement").await, 1.0);
    // A reload lets clients choose it again.
    let text = std::fs::read_to_string(&fixture.inner.proxy.config).unwrap();
    let switched = text.replace("http2 = false", "http2 = true");
    assert_ne!(text, switched);
    std::fs::write(&fixture.inner.proxy.config, switched).unwrap();
    wait_until("http/2 is chosen", Duration::from_secs(20), async || {
        let client = fixture.client().build().unwrap();
        let request = client.get(fixture.url(QUERY)).bearer_auth(fixture.token());
        request.send().await.is_ok_and(|answer| answer.version() == http::Version::HTTP_2)
    })
    .await;
}

// curl with OpenSSL: another implementation, with both versions of TLS.
#[tokio::test(flavor = "multi_thread")]
async fn curl_and_openssl_are_served() {
    let upstream = Upstream::start(ok).await;
    let fixture = fixture(&upstream.url(), &[]).await;
    let ca = fixture.directory.path().join("ca.pem");
    std::fs::write(&ca, fixture.authority.pem()).unwrap();
    let run = |arguments: Vec<String>| async move {
        let output = tokio::process::Command::new("curl").args(arguments).output().await.unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let base = [
        "--silent".to_owned(),
        "--cacert".to_owned(),
        ca.display().to_string(),
        "--header".to_owned(),
        format!("Authorization: Bearer {}", fixture.token()),
        "--write-out".to_owned(),
        " %{http_code} %{http_version}".to_owned(),
    ];
    for (options, end) in [
        (vec!["--tlsv1.3"], " 200 2"),
        (vec!["--tls-max", "1.2"], " 200 2"),
        (vec!["--http1.1", "--tls-max", "1.2"], " 200 1.1"),
        (vec!["--http1.1"], " 200 1.1"),
    ] {
        let options = options.iter().map(|option| (*option).to_owned());
        let all = base.iter().cloned().chain(options).chain([fixture.url(QUERY)]).collect();
        let (succeeded, said) = run(all).await;
        assert!(succeeded && said.ends_with(end), "{said}");
    }
    // What is broken is not spoken.
    let old = ["--tls-max", "1.1", "--ciphers", "ALL:@SECLEVEL=0"].map(str::to_owned);
    let all = base.iter().cloned().chain(old).chain([fixture.url(QUERY)]).collect();
    assert!(!run(all).await.0);
    // Not verified, and so not used: this also shows that the certificate is not another's.
    let elsewhere = format!("https://127.0.0.2:{}{QUERY}", fixture.address().port());
    assert!(!run(base.iter().cloned().chain([elsewhere]).collect()).await.0);
}

// Large bodies meet the limits of records (16 KiB) and of buffers in both directions.
#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_pass_both_ways() {
    let upload = Upstream::start(count).await;
    let fixture = fixture(&upload.url(), &[]).await;
    for client in [fixture.client().http1_only(), fixture.client()] {
        let body = reqwest::Body::wrap_stream(pieces(8 * 16, MIB / 16));
        let request = client.build().unwrap().post(fixture.url(PUSH)).bearer_auth(fixture.token());
        let answer = request.body(body).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), (8 * MIB).to_string());
    }
    let download = Upstream::start(|_| async { Response::new(full("x".repeat(16 * MIB))) }).await;
    let fixture = self::fixture(&download.url(), &[]).await;
    for client in [fixture.client().http1_only(), fixture.client()] {
        let request = client.build().unwrap().get(fixture.url(QUERY)).bearer_auth(fixture.token());
        assert_eq!(request.send().await.unwrap().bytes().await.unwrap().len(), 16 * MIB);
    }
}

// Between two requests nothing is kept but the socket and the session (decision 36), and either may wake on
// another worker.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_rests_and_moves() {
    let upstream = Upstream::start(ok).await;
    let fixture = fixture(&upstream.url(), &[]).await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(fixture.raw().await);
    }
    for round in 0..4 {
        for stream in &mut streams {
            stream.write_all(fixture.get().as_bytes()).await.unwrap();
        }
        for stream in &mut streams {
            assert_eq!(answer(stream).await, 200, "round {round}");
        }
        tokio::time::sleep(Duration::from_millis(if round % 2 == 0 { 250 } else { 0 })).await;
    }
    // A request in pieces, each in a record of its own, with rests between them, pipelined with another.
    let stream = &mut streams[0];
    let two = fixture.get().repeat(2);
    let (first, rest) = two.as_bytes().split_at(two.len() / 2 + 1);
    for (number, piece) in std::iter::once(first).chain(rest.chunks(61)).enumerate() {
        stream.write_all(piece).await.unwrap();
        stream.flush().await.unwrap();
        let pause = if number % 3 == 0 { 150 } else { 20 };
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    let mut said = Vec::new();
    while String::from_utf8_lossy(&said).matches("HTTP/1.1 200 ").count() < 2 {
        assert!(stream.read_buf(&mut said).await.unwrap() > 0);
    }
    assert_eq!(fixture.handshakes("full").await, 8.0);
}

// A session keeps its keys, and no buffers.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_rests_takes_little_memory() {
    const CONNECTIONS: u64 = 500;
    let upstream = Upstream::start(ok).await;
    let fixture = fixture(&upstream.url(), &[]).await;
    let client = fixture.authority.client(None, &[]);
    let (mut held, mut before) = (Vec::new(), 0);
    for number in 0..CONNECTIONS + 50 {
        // The first ones fill caches and pools.
        if number == 50 {
            before = fixture.inner.proxy.process.memory();
        }
        let mut stream = fixture.connect(&client, "localhost").await.unwrap();
        stream.write_all(fixture.get().as_bytes()).await.unwrap();
        assert_eq!(answer(&mut stream).await, 200);
        held.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let each = fixture.inner.proxy.process.memory().saturating_sub(before) / CONNECTIONS;
    println!("{each} bytes for each of {CONNECTIONS} sessions");
    assert!(each < 24 << 10, "{each} bytes");
    for stream in held.iter_mut().step_by(50) {
        stream.write_all(fixture.get().as_bytes()).await.unwrap();
        assert_eq!(answer(stream).await, 200);
    }
}

// A client that is told goodbye knows that nothing was cut off (RFC 8446, 6.1).
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_ends_with_a_goodbye() {
    let upstream = Upstream::start(ok).await;
    let fixture = fixture(&upstream.url(), &[("listen.idle_timeout", "\"500ms\"")]).await;
    let mut stream = fixture.raw().await;
    stream.write_all(fixture.get().as_bytes()).await.unwrap();
    assert_eq!(answer(&mut stream).await, 200);
    // Without it, this is an error: unexpected end of file.
    let end = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut [0; 8])).await;
    assert_eq!(end.expect("it ends").unwrap(), 0);
    assert!(fixture.ended("idle_timeout").await >= 1.0);
}

// A cut-off answer must not look whole: neither a FIN nor a goodbye.
#[tokio::test(flavor = "multi_thread")]
async fn half_an_answer_ends_without_a_goodbye() {
    let upstream = harness::RawUpstream::start(|mut socket| async move {
        let _ = socket.read(&mut [0; 4096]).await;
        let half = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
        let _ = socket.write_all(half).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    })
    .await;
    let fixture = fixture(&upstream.url(), &[]).await;
    let mut stream = fixture.raw().await;
    let get = fixture.get().replace("HTTP/1.1", "HTTP/1.0");
    stream.write_all(get.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    let end = stream.read_to_end(&mut said).await;
    assert!(
        String::from_utf8_lossy(&said).ends_with("half"),
        "{:?}",
        String::from_utf8_lossy(&said)
    );
    assert!(end.is_err(), "it looks whole");
}

// A query whose client has gone costs Mimir nothing more, however it goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_cancels_its_query() {
    let cancelled = Arc::new(tokio::sync::Notify::new());
    let noted = Arc::clone(&cancelled);
    let upstream = harness::RawUpstream::start(move |mut socket| {
        let noted = Arc::clone(&noted);
        async move {
            let mut bytes = [0; 4096];
            while matches!(socket.read(&mut bytes).await, Ok(1..)) {}
            noted.notify_one();
        }
    })
    .await;
    let fixture = fixture(&upstream.url(), &[]).await;
    for says_goodbye in [false, true] {
        let mut stream = fixture.raw().await;
        stream.write_all(fixture.get().as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        if says_goodbye {
            stream.shutdown().await.unwrap();
        }
        drop(stream);
        tokio::time::timeout(Duration::from_secs(5), cancelled.notified()).await.expect("it ends");
    }
}

// The first certificate is for whoever asks for no name or for an unknown one.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_chooses_its_certificate() {
    let upstream = Upstream::start(ok).await;
    let directory = TempDir::new().unwrap();
    let authorities =
        [Authority::new("CA one"), Authority::new("CA two"), Authority::new("CA three")];
    let names =
        [["localhost", "127.0.0.1"], ["a.example", "b.example"], ["*.c.example", "c.example"]];
    let mut files = Vec::new();
    for (place, (authority, names)) in authorities.iter().zip(names).enumerate() {
        let made = authority.sign(Purpose::Server, &names);
        // Both in one file.
        let file = directory.path().join(format!("{place}.pem"));
        std::fs::write(&file, format!("{}{}", made.key, made.certificate)).unwrap();
        files.push(file);
    }
    let all: Vec<&Path> = files.iter().map(AsRef::as_ref).collect();
    let all = listed(&all);
    let settings = [("tls.certificate_files", all.as_str()), ("tls.key_files", "[]")];
    let fixture = fixture(&upstream.url(), &settings).await;
    for (name, place) in
        [("localhost", 0), ("127.0.0.1", 0), ("b.example", 1), ("x.c.example", 2), ("c.example", 2)]
    {
        for (tried, authority) in authorities.iter().enumerate() {
            let connected = fixture.connect(&authority.client(None, &[]), name).await;
            assert_eq!(connected.is_ok(), tried == place, "{name} by {tried}");
        }
    }
    assert!(fixture.handshakes("refused").await >= 5.0);
    for strange in ["unknown.example", "x.y.c.example", "xn--bcher-kva.example"] {
        let refused = fixture.connect(&authorities[0].client(None, &[]), strange).await;
        let problem = refused.unwrap_err().to_string();
        assert!(problem.contains("not valid for"), "the first one: {problem}");
    }
}

// Resumption saves the signature; what could be sent with it at once could be sent by others again.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_resumed_and_carry_no_early_data() {
    let upstream = Upstream::start(ok).await;
    let fixture = fixture(&upstream.url(), &[]).await;
    let mut config = (*fixture.authority.client(None, &[])).clone();
    config.enable_early_data = true;
    let config = Arc::new(config);
    for _ in 0..3 {
        let mut stream = fixture.connect(&config, "localhost").await.unwrap();
        assert!(!stream.get_ref().1.is_early_data_accepted());
        stream.write_all(fixture.get().as_bytes()).await.unwrap();
        assert_eq!(answer(&mut stream).await, 200);
    }
    assert_eq!(fixture.handshakes("full").await, 1.0);
    assert_eq!(fixture.handshakes("resumed").await, 2.0);
}

mod attacks;
mod devices;
mod reload;
mod senders;
