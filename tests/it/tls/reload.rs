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
    let (own, other) = (trusting(&fixture.authority, None, &[]), Authority::new("Other CA"));
    let others = trusting(&other, None, &[]);
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
        (&half, &renewed.key, "is no PEM file"),
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
    let client = trusting(&fixture.authority, None, &[]);
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
    let is_tls = async || {
        fixture.connect(&trusting(&fixture.authority, None, &[]), "localhost").await.is_ok()
    };
    assert!(is_tls().await && !is_plain().await);
    std::fs::write(config, without).unwrap();
    wait_until("it is plain", Duration::from_secs(20), is_plain).await;
    std::fs::write(config, with).unwrap();
    wait_until("it is TLS", Duration::from_secs(20), is_tls).await;
}
