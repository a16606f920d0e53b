//! Certificates that change while the proxy runs.

use super::*;

const RELOADED: &str = "mimir_tenant_proxy_config_last_reload_successful";
const EXPIRY: &str = "mimir_tenant_proxy_tls_certificate_expiry_timestamp_seconds";

// A renewal exchanges the files and nothing else; it is noticed without a signal. A connection keeps what it
// began with.
#[tokio::test(flavor = "multi_thread")]
async fn renewed_certificates_are_served_and_wrong_ones_are_not() {
    let upstream = Upstream::start(ok).await;
    let settings = [("reload.watch_interval", "\"200ms\"")];
    let fixture = fixture(&upstream.url(), &settings).await;
    let proxy = &fixture.inner.proxy;
    let expiry = |year: i32| f64::from(year - 1970) * 31_556_952.0;
    let (own, other) = (fixture.authority.client(None, &[]), Authority::new("Other CA"));
    let others = other.client(None, &[]);
    assert!((proxy.metric(EXPIRY).await - expiry(4096)).abs() < 400_000_000.0);
    let mut kept = fixture.raw().await;
    kept.write_all(fixture.get().as_bytes()).await.unwrap();
    assert_eq!(answer(&mut kept).await, 200);

    // Another authority's, which a client of the first does not trust.
    let renewed = other.sign_until(Purpose::Server, &["localhost"], 2090);
    renewed.write(fixture.directory.path(), "own");
    wait_until("it is served", Duration::from_secs(20), async || {
        fixture.connect(&others, "localhost").await.is_ok()
    })
    .await;
    assert!(fixture.connect(&own, "localhost").await.is_err());
    assert!((proxy.metric(EXPIRY).await - expiry(2090)).abs() < 40_000_000.0);
    kept.write_all(fixture.get().as_bytes()).await.unwrap();
    assert_eq!(answer(&mut kept).await, 200);

    // A key of another, half a file, one that has expired: none is served, the last good one is.
    let directory = fixture.directory.path();
    let foreign = other.sign(Purpose::Server, &["localhost"]);
    let expired = other.sign_until(Purpose::Server, &["localhost"], 2020);
    let half = renewed.certificate[..renewed.certificate.len() / 2].to_owned();
    for (certificate, key, words) in [
        (&renewed.certificate, &foreign.key, "the key is not that of the certificate"),
        (&half, &renewed.key, "is not a PEM file"),
        (&expired.certificate, &expired.key, "expired at 2020-01-01"),
    ] {
        let written = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
        written("own.pem", certificate);
        written("own.key", key);
        wait_until("it is told", Duration::from_secs(20), async || {
            proxy.metric(RELOADED).await == 0.0 && proxy.process.log().contains(words)
        })
        .await;
        assert!(fixture.connect(&others, "localhost").await.is_ok(), "{words}");
        written("own.pem", &renewed.certificate);
        written("own.key", &renewed.key);
        wait_until("it is good again", Duration::from_secs(20), async || {
            proxy.metric(RELOADED).await == 1.0
        })
        .await;
    }
    let log = proxy.process.log();
    assert!(!log.contains("PRIVATE KEY") && !log.contains(&renewed.key[40..80]), "{log}");
}

// A reload of something else must not cost each client a signature.
#[tokio::test(flavor = "multi_thread")]
async fn tickets_outlive_a_reload_of_other_keys() {
    let upstream = Upstream::start(ok).await;
    let settings = [("reload.watch_interval", "\"200ms\""), ("listen.idle_timeout", "\"60s\"")];
    let fixture = fixture(&upstream.url(), &settings).await;
    let client = fixture.authority.client(None, &[]);
    let proxy = &fixture.inner.proxy;
    for round in 0..2 {
        let mut stream = fixture.connect(&client, "localhost").await.unwrap();
        stream.write_all(fixture.get().as_bytes()).await.unwrap();
        assert_eq!(answer(&mut stream).await, 200);
        if round == 0 {
            let text = std::fs::read_to_string(&proxy.config).unwrap();
            std::fs::write(&proxy.config, text.replace("\"60s\"", "\"61s\"")).unwrap();
            wait_until("it is read", Duration::from_secs(20), async || {
                proxy.process.log().contains("\"keys\":\"listen.idle_timeout\"")
            })
            .await;
        }
    }
    assert_eq!(fixture.handshakes("resumed").await, 1.0);
}

// Both directions, without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn tls_is_switched_on_and_off_by_a_reload() {
    let upstream = Upstream::start(ok).await;
    let settings = [("reload.watch_interval", "\"200ms\"")];
    let fixture = fixture(&upstream.url(), &settings).await;
    let config = &fixture.inner.proxy.config;
    let with = std::fs::read_to_string(config).unwrap();
    let without: Vec<&str> = with.lines().filter(|line| !line.starts_with("tls.")).collect();
    let without = without.join("\n");
    let is_plain = async || fixture.inner.client().get(QUERY).await.status == 200;
    let is_tls =
        async || fixture.connect(&fixture.authority.client(None, &[]), "localhost").await.is_ok();
    assert!(is_tls().await && !is_plain().await);
    std::fs::write(config, without).unwrap();
    wait_until("it is plain", Duration::from_secs(20), is_plain).await;
    std::fs::write(config, with).unwrap();
    wait_until("it is TLS", Duration::from_secs(20), is_tls).await;
}

/// Whether a stream ends, without a reset.
async fn ends(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest));
    end.await.is_ok_and(|read| read.is_ok_and(|count| count == 0))
}

// A client that another authority had let in, or none, loses no request, and does not stay for ever.
#[tokio::test(flavor = "multi_thread")]
async fn connections_end_when_it_changes_who_is_let_in() {
    let upstream = Upstream::start(ok).await;
    let (first, second) = (Authority::new("First CA"), Authority::new("Second CA"));
    let directory = TempDir::new().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, first.pem()).unwrap();
    let file = format!("{:?}", ca.display().to_string());
    let settings = [
        ("tls.client_ca_file", file.as_str()),
        ("tls.client_certificates", "\"required\""),
        ("reload.watch_interval", "\"200ms\""),
    ];
    let fixture = fixture(&upstream.url(), &settings).await;
    let proxy = &fixture.inner.proxy;
    let hub = first.sign(Purpose::Client, &["hub.example"]);
    let config = fixture.authority.client(Some(&hub), &[]);
    let mut kept = fixture.connect(&config, "localhost").await.unwrap();
    kept.write_all(fixture.get().as_bytes()).await.unwrap();
    assert_eq!(answer_and_close(&mut kept).await, (200, false));
    let both = format!("{}{}", hub.certificate, hub.key);
    let identity = reqwest::Identity::from_pem(both.as_bytes()).unwrap();
    let http2 = fixture.client().identity(identity).build().unwrap();
    let ask = async || {
        let request = http2.get(fixture.url(QUERY)).bearer_auth(fixture.token());
        request.send().await.map(|answer| (answer.status().as_u16(), answer.version()))
    };
    assert_eq!(ask().await.unwrap(), (200, http::Version::HTTP_2));

    std::fs::write(&ca, second.pem()).unwrap();
    wait_until("it is read", Duration::from_secs(20), async || {
        proxy.process.log().contains("\"keys\":\"tls.client_ca_file\"")
    })
    .await;
    kept.write_all(fixture.get().as_bytes()).await.unwrap();
    assert_eq!(answer_and_close(&mut kept).await, (200, true));
    assert!(ends(&mut kept).await);
    // By HTTP/2, too, an answer and then GOAWAY; a new connection is refused.
    assert_eq!(ask().await.unwrap().0, 200);
    wait_until("it is not let in again", Duration::from_secs(20), async || ask().await.is_err())
        .await;
    assert!(fixture.handshakes("client_certificate").await > 0.0);
}

// A connection from before TLS is not one that may go on without.
#[tokio::test(flavor = "multi_thread")]
async fn plain_connections_end_when_tls_is_switched_on() {
    let upstream = Upstream::start(ok).await;
    let settings = [("reload.watch_interval", "\"200ms\"")];
    let fixture = fixture(&upstream.url(), &settings).await;
    let (config, proxy) = (&fixture.inner.proxy.config, &fixture.inner.proxy);
    let with = std::fs::read_to_string(config).unwrap();
    let without: Vec<&str> = with.lines().filter(|line| !line.starts_with("tls.")).collect();
    let reloads = |times| async move {
        wait_until("it is read", Duration::from_secs(20), async || {
            proxy.process.log().matches("Configuration reloaded").count() == times
        })
        .await;
    };
    std::fs::write(config, without.join("\n")).unwrap();
    reloads(1).await;
    let mut kept = TcpStream::connect(fixture.address()).await.unwrap();
    kept.write_all(fixture.get().as_bytes()).await.unwrap();
    assert_eq!(answer_and_close(&mut kept).await, (200, false));
    std::fs::write(config, &with).unwrap();
    reloads(2).await;
    kept.write_all(fixture.get().as_bytes()).await.unwrap();
    assert_eq!(answer_and_close(&mut kept).await, (200, true));
    assert!(ends(&mut kept).await);
}

// It was valid in the handshake. A 401 would have a sender drop its samples that has a new one already.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_after_its_clients_certificate_has_expired() {
    let upstream = Upstream::start(ok).await;
    let (authority, directory) = (Authority::new("Hubs' CA"), TempDir::new().unwrap());
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let file = format!("{:?}", ca.display().to_string());
    let fixture = fixture(&upstream.url(), &[("tls.client_ca_file", file.as_str())]).await;
    let hub = authority.sign_for(Purpose::Client, &["hub.example"], Duration::from_secs(6));
    let config = fixture.authority.client(Some(&hub), &[]);
    let mut kept = fixture.connect(&config, "localhost").await.unwrap();
    kept.write_all(fixture.get().as_bytes()).await.unwrap();
    assert_eq!(answer_and_close(&mut kept).await, (200, false));
    tokio::time::sleep(Duration::from_secs(7)).await;
    kept.write_all(fixture.get().as_bytes()).await.unwrap();
    assert_eq!(answer_and_close(&mut kept).await, (200, true));
    assert!(ends(&mut kept).await);
}

// SIGTERM: what is in progress is answered, what is idle may ask once more, and both ends are told.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_loses_nothing_over_tls() {
    let upstream = Upstream::start(|request| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        ok(request).await
    })
    .await;
    let fixture = fixture(&upstream.url(), &[]).await;
    let (mut idle, mut busy) = (fixture.raw().await, fixture.raw().await);
    idle.write_all(fixture.get().as_bytes()).await.unwrap();
    assert_eq!(answer_and_close(&mut idle).await, (200, false));
    busy.write_all(fixture.get().as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    fixture.inner.proxy.process.signal("TERM");
    tokio::time::sleep(Duration::from_millis(100)).await;
    idle.write_all(fixture.get().as_bytes()).await.unwrap();
    for stream in [&mut idle, &mut busy] {
        assert_eq!(answer_and_close(stream).await, (200, true));
        assert!(ends(stream).await);
    }
}
