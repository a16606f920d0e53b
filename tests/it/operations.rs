//! Commands, signals, logs and metrics.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use harness::{Client, Issuer, ORG_A, Proxy, ProxyOptions, Upstream, wait_until};
use serde_json::json;

use crate::support::responses::ok;

const QUERY: &str = "/prometheus/api/v1/query?query=up";

fn run(arguments: &[&str], environment: &[(&str, &str)], input: &str) -> Output {
    use std::io::Write as _;
    let mut command = Command::new(Proxy::binary());
    command.args(arguments).envs(environment.iter().copied()).stdin(std::process::Stdio::piped());
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn check_config_reports_all_faults_and_exits_64() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bad.toml");
    std::fs::write(
        &file,
        "[auth]\nhs256_secret = \"topsecret\"\nlee_way = 3\n[upstream]\nurls = []\n[nonsense]\n",
    )
    .unwrap();
    let output = run(
        &["check-config", "--config", file.to_str().unwrap()],
        &[("MTP__LISTEN__WORKERS", "many")],
        "",
    );
    assert_eq!(output.status.code(), Some(64));
    let complaints = text(&output.stderr);
    for key in [
        "MTP__LISTEN__WORKERS",
        "auth.issuer",
        "auth.hs256_secret",
        "auth.lee_way",
        "upstream.urls",
        "nonsense",
    ] {
        assert!(complaints.contains(key), "{key} is not in\n{complaints}");
    }
    assert!(!complaints.contains("topsecret"));
    let served = run(&["serve", "--config", file.to_str().unwrap()], &[], "");
    assert_eq!(served.status.code(), Some(64), "serve refuses it too");
}

// Before, `rules guard list | head -1` ended with a panic and 101.
#[test]
fn a_closed_pipe_is_not_a_failure() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/proxy.toml");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(Proxy::binary());
    command.args(["check-config", "--config"]).arg(sample).stdout(writer);
    let output = command.output().unwrap();
    let said = text(&output.stderr);
    assert!(output.status.success() && !said.contains("panicked"), "{:?} {said}", output.status);
}

// Before, the exit code was 1, which means that the token is rejected.
#[test]
fn a_key_set_that_cannot_be_read_is_no_verdict_on_the_token() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/proxy.toml");
    let sample = sample.to_str().unwrap();
    for file in [sample, "nowhere.json"] {
        let arguments = ["explain-token", "--config", sample, "--key-set", file];
        let output = run(&arguments, &[], "a.b.c");
        assert_eq!(output.status.code(), Some(64), "{file}");
        assert!(text(&output.stderr).starts_with("--key-set: "), "{}", text(&output.stderr));
    }
}

// The samples that we ship are parsed by the same code.
#[test]
fn the_sample_configurations_are_valid() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut checked = 0;
    for file in std::fs::read_dir(samples).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_some_and(|extension| extension == "toml") {
            let output = run(&["check-config", "--config", file.to_str().unwrap()], &[], "");
            assert!(output.status.success(), "{}: {}", file.display(), text(&output.stderr));
            checked += 1;
        }
    }
    assert!(checked > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn healthcheck_asks_the_private_port() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let mut proxy = ProxyOptions::new(&issuer.url(), &upstream.url()).start().await;
    let config = proxy.config.to_str().unwrap().to_owned();
    let healthy = run(&["healthcheck", "--config", &config], &[], "");
    assert!(healthy.status.success(), "{}", text(&healthy.stderr));
    assert!(text(&healthy.stdout).contains("upstream: 1 instances"));
    // Seen by reading: all copies became unhealthy together by a faulty file that none of them had taken over.
    let whole = std::fs::read_to_string(&config).unwrap();
    for fault in ["[nonsense]\nkey = 1\n", "[tls]\ncertificate_files = [\"/none\"]\n"] {
        std::fs::write(&config, format!("{whole}\n{fault}")).unwrap();
        let healthy = run(&["healthcheck", "--config", &config], &[], "");
        assert!(healthy.status.success(), "{fault}: {}", text(&healthy.stderr));
    }
    std::fs::write(&config, whole).unwrap();
    proxy.process.signal("KILL");
    proxy.process.wait(Duration::from_secs(5)).unwrap();
    assert_eq!(run(&["healthcheck", "--config", &config], &[], "").status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_private_port_serves_no_requests_and_the_public_port_no_metrics() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url()).start().await;
    let private = Client::new(&proxy.internal_url());
    assert_eq!(private.get("/live").await.status, 200);
    assert_eq!(private.get("/ready").await.status, 200);
    assert_eq!(private.get(QUERY).await.status, 404);
    for path in ["/live", "/ready", "/metrics"] {
        assert_eq!(proxy.client().get(path).await.status, 404);
    }
}

// Readiness fails first, requests in flight end, then exit 0. Fly.io sends SIGINT.
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_drains_and_exits_0() {
    for signal in ["TERM", "INT"] {
        let issuer = Issuer::start().await;
        let upstream = Upstream::start(|request| async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            ok(request).await
        })
        .await;
        let options = ProxyOptions::new(&issuer.url(), &upstream.url())
            .set("shutdown.drain_delay", "\"500ms\"");
        let mut proxy = options.start().await;
        let client = proxy.client().bearer(&issuer.user_of(ORG_A));
        let h2c = Client::h2c(&proxy.url()).bearer(&issuer.user_of(ORG_A));
        let idle =
            tokio::net::TcpStream::connect(proxy.url().replace("http://", "")).await.unwrap();
        let in_flight = tokio::spawn({
            let client = client.clone();
            async move { futures_util::future::join(client.get(QUERY), h2c.get(QUERY)).await }
        });
        wait_until("both are upstream", Duration::from_secs(5), async || {
            upstream.heads().len() == 2
        })
        .await;
        proxy.process.signal(signal);
        let private = Client::new(&proxy.internal_url());
        wait_until("readiness fails", Duration::from_millis(400), async || {
            private.get("/ready").await.status == 503
        })
        .await;
        assert_eq!(
            client.get("/nothing").await.status,
            404,
            "requests are still taken while draining"
        );
        let (first, second) = in_flight.await.unwrap();
        assert_eq!((first.status.as_u16(), second.status.as_u16()), (200, 200));
        let status = proxy.process.wait(Duration::from_secs(5)).expect("it ends");
        assert_eq!(status.code(), Some(0), "{}", proxy.process.log());
        assert_eq!(proxy.access_log("/prometheus/api/v1/query").len(), 2, "the log is complete");
        drop(idle);
    }
}

// Requests that do not end in time are cut off, and the process ends all the same.
#[tokio::test(flavor = "multi_thread")]
async fn draining_has_an_end() {
    let issuer = Issuer::start().await;
    let upstream = Upstream::start(|request| async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        ok(request).await
    })
    .await;
    let options = ProxyOptions::new(&issuer.url(), &upstream.url())
        .set("shutdown.drain_timeout", "\"500ms\"");
    let mut proxy = options.start().await;
    let client = proxy.client().bearer(&issuer.user_of(ORG_A));
    let request = tokio::spawn(async move { client.try_send(http::Method::GET, QUERY, "").await });
    wait_until("it is upstream", Duration::from_secs(5), async || upstream.heads().len() == 1)
        .await;
    proxy.process.signal("TERM");
    assert_eq!(proxy.process.wait(Duration::from_secs(5)).expect("it ends").code(), Some(0));
    assert!(request.await.unwrap().is_err());
}

// One line per request with what an operator needs, and never a token.
#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_one_line_without_secrets() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url())
        .set("log.filter", "\"debug\"")
        .start()
        .await;
    let token = issuer
        .token()
        .organisation(&json!(ORG_A))
        .claim("sub", json!("11111111-2222-4333-8444-555555555555"))
        .sign();
    let client = proxy.client().bearer(&token).header("x-request-id", "line-1");
    assert_eq!(client.post("/api/v1/push", "four").await.status, 200);
    let refused = proxy.client().bearer(&issuer.token().expires_in(-60).sign()).get(QUERY).await;
    assert_eq!(refused.status, 401);
    wait_until("both lines are there", Duration::from_secs(5), async || {
        proxy.access_log("/api/v1/push").len() + proxy.access_log("/prometheus/api/v1/query").len()
            == 2
    })
    .await;
    let line = &proxy.access_log("/api/v1/push")[0];
    for (field, value) in [
        ("level", json!("INFO")),
        ("request.id", json!("line-1")),
        ("client.ip", json!("127.0.0.1")),
        ("http.method", json!("POST")),
        ("route.surface", json!("push")),
        ("principal.id", json!("11111111-2222-4333-8444-555555555555")),
        ("organisation.id", json!(ORG_A)),
        ("tenant.id", json!(ORG_A)),
        ("outcome", json!("forwarded")),
        ("http.status", json!(200)),
        ("received_bytes", json!(4)),
        ("upstream.address", json!(upstream.url().replace("http://", ""))),
    ] {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    assert!(line["duration_ms"].as_f64().unwrap() >= line["upstream.head_ms"].as_f64().unwrap());
    let line = &proxy.access_log("/prometheus/api/v1/query")[0];
    assert_eq!((&line["outcome"], &line["reason"]), (&json!("rejected"), &json!("expired")));
    let log = proxy.process.log();
    assert!(
        !log.contains(&token)
            && !log.contains(token.rsplit('.').next().unwrap())
            && !log.contains("query=up")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_a_text_format() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url())
        .set("log.format", "\"pretty\"")
        .start()
        .await;
    assert_eq!(proxy.client().get(QUERY).await.status, 401);
    wait_until("the line is there", Duration::from_secs(5), async || {
        proxy.process.log().lines().any(|line| {
            line.contains(" 401 GET 127.0.0.1 /prometheus/api/v1/query rejected (no_credential)")
        })
    })
    .await;
}

// Behind Fly.io's proxy the peer is Fly's; the header is only used if it is configured.
#[tokio::test(flavor = "multi_thread")]
async fn the_clients_address_is_taken_from_a_header_only_if_configured() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let options = ProxyOptions::new(&issuer.url(), &upstream.url());
    for (options, expected) in [
        (options.clone(), "127.0.0.1"),
        (options.set("listen.client_ip_header", "\"Fly-Client-IP\""), "203.0.113.7"),
    ] {
        let proxy = options.start().await;
        proxy.client().header("fly-client-ip", "203.0.113.7").get("/nothing").await;
        wait_until("the line is there", Duration::from_secs(5), async || {
            proxy.access_log("/nothing").len() == 1
        })
        .await;
        assert_eq!(proxy.access_log("/nothing")[0]["client.ip"], expected);
    }
}

// haproxy's `option forwardfor` adds a line of its own behind those of the client.
#[tokio::test(flavor = "multi_thread")]
async fn of_several_lines_with_an_address_the_last_counts() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url())
        .set("listen.client_ip_header", "\"X-Forwarded-For\"")
        .start()
        .await;
    let lines = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.7")];
    let client =
        lines.iter().fold(proxy.client(), |client, (name, value)| client.header(name, value));
    client.get("/nothing").await;
    wait_until("the line is there", Duration::from_secs(5), async || {
        proxy.access_log("/nothing").len() == 1
    })
    .await;
    assert_eq!(proxy.access_log("/nothing")[0]["client.ip"], "203.0.113.7");
}

// Every series exists from the start.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_by_surface_outcome_and_reason() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url()).start().await;
    let text = Client::new(&proxy.internal_url()).get("/metrics").await.text;
    assert!(text.contains("mimir_tenant_proxy_requests_total{surface=\"rules\",outcome=\"rejected\",reason=\"not_a_member\"} 0"));
    let client = proxy.client().bearer(&issuer.user_of(ORG_A));
    for _ in 0..3 {
        client.post("/api/v1/push", "12345").await;
    }
    client.clone().header("x-scope-orgid", "other").get(QUERY).await;
    client.get("/nothing").await;
    for (series, value) in [
        ("requests_total{surface=\"push\",outcome=\"forwarded\",reason=\"2xx\"}", 3.0),
        ("requests_total{surface=\"query\",outcome=\"rejected\",reason=\"not_a_member\"}", 1.0),
        ("requests_total{surface=\"none\",outcome=\"rejected\",reason=\"no_route\"}", 1.0),
        ("received_bytes_total{surface=\"push\"}", 15.0),
        ("request_duration_seconds_count{surface=\"push\"}", 3.0),
        ("token_cache_lookups_total{outcome=\"hit\"}", 3.0),
        ("key_set_keys", 1.0),
        ("upstream_instances", 1.0),
    ] {
        assert_eq!(proxy.metric(&format!("mimir_tenant_proxy_{series}")).await, value, "{series}");
    }
    let text = Client::new(&proxy.internal_url()).get("/metrics").await.text;
    assert!(!text.contains(ORG_A), "no metric names a tenant");
    let undescribed: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .filter(|name| !text.contains(&format!("# HELP {name} ")))
        .collect();
    assert!(undescribed.is_empty(), "{undescribed:?}");
}

// Step by step, with the functions that serve, and without a network if a key set is given.
#[tokio::test(flavor = "multi_thread")]
async fn explain_token_says_where_a_token_fails() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url()).start().await;
    let config = proxy.config.to_str().unwrap();
    let file = proxy.config.with_file_name("jwks.json");
    std::fs::write(&file, json!({"keys": [issuer.key.public]}).to_string()).unwrap();
    let offline = ["explain-token", "--config", config, "--key-set", file.to_str().unwrap()];
    let good = issuer.token().organisation(&json!(ORG_A));
    // The proxy's own fetch continues during its start.
    wait_until("the proxy has its keys", Duration::from_secs(5), async || issuer.fetches() > 0)
        .await;
    let fetches = issuer.fetches();
    let passed = run(&offline, &[], &good.sign());
    assert!(passed.status.success(), "{}{}", text(&passed.stdout), text(&passed.stderr));
    assert!(
        text(&passed.stdout).contains(&format!("tenant {ORG_A}"))
            && text(&passed.stdout).contains("metrics:write")
    );
    assert_eq!(issuer.fetches(), fetches);
    for (token, says) in [
        (good.clone().expires_in(-100).sign(), "REFUSED exp"),
        (good.clone().claim("aud", json!("x")).sign(), "REFUSED aud"),
        (good.clone().with_signature("AAAA"), "REFUSED signature"),
        (good.clone().header("kid", json!("other")).sign(), "REFUSED key"),
        (issuer.token().sign(), "REFUSED organisation"),
        ("nonsense".to_owned(), "REFUSED form"),
    ] {
        let output = run(&offline, &[], &token);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stdout).contains(says), "{says}: {}", text(&output.stdout));
        assert!(!text(&output.stdout).contains(&token));
    }
    let online = run(&["explain-token", "--config", config, &good.sign()], &[], "");
    assert!(online.status.success(), "{}", text(&online.stdout));
    assert_eq!(issuer.fetches(), fetches + 1);
}

// A proxy that starts before the issuer serves as soon as the issuer does.
#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_is_not_needed_to_start() {
    let upstream = Upstream::start(ok).await;
    let proxy = ProxyOptions::new("http://127.0.0.1:9/auth/v1", &upstream.url()).start().await;
    let issuer = Issuer::start().await;
    let answer = proxy.client().bearer(&issuer.user_of(ORG_A)).get(QUERY).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(proxy.metric("mimir_tenant_proxy_key_set_age_seconds").await, -1.0);
}
