//! Mimir's profiles: 3.x is started with a real Mimir on real parts; 2.17 is tested as far as
//! possible without it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::{
    Backing, Client, Monolith, RINGS, Receiver, Redis, Service, Upstream, fresh_organisation, part,
    samples, wait_until,
};
use serde_json::json;

use super::repository;
use crate::support::responses::ok;

// An unknown key stops Mimir; a ring with a wrong prefix merges with another. The instance
// advertises an IPv6 address, as FLY_PRIVATE_IP is one: without brackets, which Mimir adds itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_mimir_accepts_every_key_of_the_profile_for_3_and_keeps_its_rings_apart() {
    let backing = Backing::start().await;
    let environment = [
        ("MIMIR_REPLICATION_FACTOR", "1"),
        ("MIMIR_INSTANCE_ADDR", "::1"),
        ("MIMIR_LISTEN_ADDRESS", ""),
    ];
    let quick = ["-ingester.ring.min-ready-duration=0s"];
    let mut mimir = Monolith::start("one", &backing, &environment, &quick);
    mimir.wait_ready().await;

    let mut keys = backing.consul.keys("").await;
    keys.sort();
    let expected = RINGS.map(|ring| format!("{}/{ring}", backing.prefix));
    assert_eq!(keys, expected, "each ring has a key of its own");
    for key in &keys {
        let ring = backing.consul.ring(key).await;
        assert_eq!(ring.len(), 1, "{key}: {ring:?}");
        assert_eq!(ring["one"].address, format!("[::1]:{}", mimir.grpc_port()), "{key}");
    }
    assert_eq!(backing.consul.write_as(&backing.connection, "another/ring").await, 403);
    let memberlist = mimir.as_tenant("any").get("/memberlist").await.text;
    assert!(memberlist.contains("use memberlist"), "{memberlist}");

    // Through distributor, ingester, query-frontend, scheduler and querier, which all connect to
    // that address.
    let tenant = fresh_organisation();
    let client = mimir.as_tenant(&tenant);
    let push = || async {
        let body = samples::remote_write("profile_works", &[], 7.0);
        let sender = client.clone().header("content-encoding", "snappy");
        sender.header("content-type", "application/x-protobuf").post("/api/v1/push", body).await
    };
    wait_until("a write is taken", Duration::from_secs(20), async || push().await.status == 200)
        .await;
    wait_until("it is read back", Duration::from_secs(20), async || {
        let answer = client.get("/prometheus/api/v1/query?query=profile_works").await;
        answer.status == 200 && answer.text.contains("\"7\"")
    })
    .await;
    assert_eq!(client.get("/api/v1/user_limits").await.status, 200, "runtime.yaml is read");

    // On shutdown it uploads its blocks and leaves every ring.
    let told = Instant::now();
    mimir.terminate();
    let end = mimir.wait_stopped(Duration::from_secs(60)).expect("it ends");
    assert_eq!(end.code(), Some(0), "{}", mimir.log());
    println!("stopped in {:?}", told.elapsed());
    assert_eq!(
        backing.r2.minio().blocks("mimir-blocks", &tenant).len(),
        1,
        "its block is in the bucket"
    );
    for key in backing.consul.keys("").await {
        assert!(backing.consul.ring(&key).await.is_empty(), "{key} is left");
    }
    assert_eq!(backing.r2.refused(), Vec::<String>::new(), "nothing was sent that R2 has not");
}

// S3 clients add checksums to multipart uploads that R2 does not support. (A part is 64 MiB by
// default; here 5 MiB, the minimum.)
#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_is_uploaded_in_parts_has_nothing_that_r2_refuses() {
    let backing = Backing::start().await;
    let arguments =
        ["-ingester.ring.min-ready-duration=0s", "-blocks-storage.s3.part-size=5242880"];
    let environment = [("MIMIR_REPLICATION_FACTOR", "1")];
    let mut mimir = Monolith::start("one", &backing, &environment, &arguments);
    mimir.wait_ready().await;
    let tenant = fresh_organisation();
    let sender = mimir.as_tenant(&tenant).header("content-encoding", "snappy");
    let sender = sender.header("content-type", "application/x-protobuf");
    // 8 MB of label values, all of which go into the block's index.
    for _ in 0..4 {
        let long = |_| fresh_organisation().repeat(55);
        let values: Vec<String> = (0..1000).map(long).collect();
        let body = samples::remote_write_each("large", "value", &values);
        let answer = sender.post("/api/v1/push", body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    mimir.terminate();
    mimir.wait_stopped(Duration::from_secs(60)).expect("it ends");
    assert_eq!(backing.r2.minio().blocks("mimir-blocks", &tenant).len(), 1, "{}", mimir.log());
    assert!(backing.r2.parts() > 1, "it was uploaded in parts");
    assert_eq!(backing.r2.refused(), Vec::<String>::new());
}

// The Alertmanager's side of the profile: its ring, limits, firewall and fallback, and both receivers of the
// rulers.
#[tokio::test(flavor = "multi_thread")]
async fn alerts_go_to_mimirs_own_alertmanager_and_to_the_proxy_and_tenants_are_limited() {
    let (backing, proxy) = (Backing::start().await, Upstream::start(ok).await);
    let url = proxy.url();
    let environment = [
        ("MIMIR_REPLICATION_FACTOR", "1"),
        ("MIMIR_ALERTMANAGER_POLL_INTERVAL", "1s"),
        ("ALERT_EVENTS_HOST", url.strip_prefix("http://").unwrap()),
        ("ALERT_EVENTS_SECRET", "0123456789abcdef-_"),
    ];
    let quick = [
        "-ingester.ring.min-ready-duration=0s",
        "-ruler.evaluation-interval=1s",
        "-ruler.inbound-sync-queue-poll-interval=1s",
        "-ruler.outbound-sync-queue-poll-interval=1s",
    ];
    let mut mimir = Monolith::start("one", &backing, &environment, &quick);
    mimir.wait_ready().await;
    let tenant = fresh_organisation();
    let client = mimir.as_tenant(&tenant);
    let patience = Duration::from_secs(60);

    // A tenant without a configuration has the fallback's, and its alerts can be read.
    let alerts = "/alertmanager/api/v2/alerts";
    wait_until("the fallback holds", patience, async || client.get(alerts).await.status == 200)
        .await;
    let status = client.get("/alertmanager/api/v2/status").await.json();
    assert!(status["config"]["original"].as_str().unwrap().contains("nobody"), "{status}");
    // Seen on the real one: what the fallback leaves behind is an empty configuration.
    let stored = client.get("/api/v1/alerts").await;
    println!("the configuration of a tenant with the fallback: {} {}", stored.status, stored.text);

    let group = "name: g\nrules: [{alert: HubOff, expr: vector(1)}]";
    let stored = client.post("/prometheus/config/v1/rules/n", group).await;
    assert_eq!(stored.status, 202, "{}", stored.text);
    wait_until("Mimir's own Alertmanager has the alert", patience, async || {
        client.get(alerts).await.text.contains("HubOff")
    })
    .await;
    let head = |target: &str| proxy.heads().into_iter().find(|head| head.target == target);
    wait_until("the proxy is told", patience, async || head(alerts).is_some()).await;
    let head = head(alerts).unwrap();
    assert_eq!(head.method, "POST");
    assert_eq!(head.headers["x-scope-orgid"], tenant.as_str());
    // base64 of `mimir:0123456789abcdef-_`
    assert_eq!(head.headers["authorization"], "Basic bWltaXI6MDEyMzQ1Njc4OWFiY2RlZi1f");
    // Users see their limits, and metrics name the receivers: neither has the secret.
    let metrics = Client::new(&mimir.url());
    let text = metrics.get("/metrics").await.text;
    let receivers: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("cortex_prometheus_notifications_sent_total{"))
        .collect();
    assert_eq!(receivers.len(), 2, "{receivers:?}");
    assert!(!text.contains("0123456789abcdef-_"), "{receivers:?}");
    let limits = client.get("/api/v1/user_limits").await;
    assert_eq!(limits.status, 200);
    assert!(!limits.text.contains("0123456789abcdef-_"), "{}", limits.text);
    let page = metrics.get("/config").await.text;
    println!("on Mimir's /config: {}", page.contains("0123456789abcdef-_"));

    // Limits of silences, by size and by number.
    let silence = |comment: &str| {
        json!({"matchers": [{"name": "alertname", "value": "Other", "isRegex": false}],
               "startsAt": "2026-01-01T00:00:00Z", "endsAt": "2100-01-01T00:00:00Z",
               "createdBy": "test", "comment": comment})
        .to_string()
    };
    let writer = client.clone().header("content-type", "application/json");
    let silences = "/alertmanager/api/v2/silences";
    assert_eq!(writer.post(silences, silence("a")).await.status, 200);
    let large = writer.post(silences, silence(&"a".repeat(11_000))).await;
    assert_eq!(large.status, 400, "{}", large.text);
    println!("a silence that is too large: {}", large.text);
    let mut last = writer.post(silences, silence("b")).await;
    for _ in 2..501 {
        last = writer.post(silences, silence("c")).await;
    }
    assert_eq!(last.status, 400, "{}", last.text);
    println!("one silence too many: {}", last.text);

    // The receivers' firewall: a webhook on loopback is not connected to.
    let hook = Receiver::start(Service::Webhook).await;
    let config = format!(
        "route: {{receiver: hook, group_wait: 0s}}\nreceivers: [{{name: hook, webhook_configs: [{{url: '{}'}}]}}]",
        hook.url()
    );
    let document = json!({"alertmanager_config": config}).to_string();
    assert_eq!(client.post("/api/v1/alerts", document).await.status, 201);
    wait_until("the notification fails", patience, async || {
        metrics.get("/metrics").await.text.lines().any(|line| {
            line.starts_with("cortex_alertmanager_notification_requests_failed_total{")
                && line.contains(&tenant)
        })
    })
    .await;
    assert!(hook.notices().is_empty() && hook.refusals().is_empty());
    let blocked = mimir.log().lines().find(|line| line.contains("blocked")).map(str::to_owned);
    println!("blocked: {blocked:?}");

    // Too large a document.
    let filler = format!("{config}\n# {}", "x".repeat(600_000));
    let document = json!({"alertmanager_config": filler}).to_string();
    let refused = client.post("/api/v1/alerts", document).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    println!("a document that is too large: {}", refused.text);
    assert_eq!(backing.r2.refused(), Vec::<String>::new(), "nothing was sent that R2 has not");
}

// No module proxy has Mimir 2.17. What can be tested: keys and types, against Mimir's descriptor of
// May 2025, and the caches with a real Redis, by that Mimir's own client.
#[tokio::test(flavor = "multi_thread")]
async fn the_profile_for_2_17_has_known_keys_and_its_caches_work_with_a_redis_like_upstashs() {
    let redis = Redis::start().await;
    let checked = |password: &str| {
        let mut command = Command::new(part("mimir-2"));
        command.arg(part("mimir-2.json")).arg(repository("config/mimir/mimir-2.17.yaml"));
        command.env_clear().env("SSL_CERT_FILE", redis.ca_file());
        command.env("REDIS_ENDPOINT", redis.endpoint()).env("REDIS_PASSWORD", password);
        command.output().unwrap()
    };
    let output = checked(redis.password());
    let facts = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{facts}{}", String::from_utf8_lossy(&output.stderr));
    println!("{facts}");
    assert!(facts.contains("keys: all "), "{facts}");
    let caches = facts.lines().filter(|line| line.ends_with("came back as default, TLS true"));
    assert_eq!(caches.count(), 4, "{facts}");
    assert!(!checked("wrong").status.success(), "a wrong password is refused");
}

// Mimir leaves an unset variable empty, and starts without a prefix or a name.
#[test]
fn the_entrypoint_takes_flys_connection_string_apart_and_refuses_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let stub = directory.path().join("mimir");
    std::fs::write(&stub, "#!/bin/sh\nenv\necho \"ARGUMENTS=$*\"\n").unwrap();
    std::fs::set_permissions(&stub, Permissions::from_mode(0o755)).unwrap();
    let run = |change: (&str, &str), arguments: &[&str]| {
        let mut command = Command::new(repository("config/fly/mimir-entrypoint"));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("MIMIR_BINARY", &stub).args(arguments);
        for (name, value) in [
            ("FLY_CONSUL_URL", "https://:secret@consul.example.net/my-mimir-1/"),
            ("FLY_MACHINE_ID", "148ed"),
            ("FLY_APP_NAME", "my-mimir"),
            ("R2_ENDPOINT", "account.r2.cloudflarestorage.com"),
            ("R2_ACCESS_KEY_ID", "id"),
            ("R2_SECRET_ACCESS_KEY", "secret"),
        ] {
            command.env(name, if name == change.0 { change.1 } else { value });
        }
        command.output().unwrap()
    };
    let started = run(("", ""), &["mimir-2.17.yaml", "-target=ruler"]);
    let started = String::from_utf8(started.stdout).unwrap();
    for line in [
        "CONSUL_HOST=https://consul.example.net",
        "CONSUL_PREFIX=my-mimir-1",
        "CONSUL_TOKEN=secret",
        "MIMIR_INSTANCE_ID=148ed",
        "MIMIR_INSTANCE_ADDR=148ed.vm.my-mimir.internal",
        "ALERT_EVENTS_RECEIVER=",
        "ARGUMENTS=-config.file=/etc/mimir/mimir-2.17.yaml -config.expand-env=true -target=ruler",
    ] {
        assert!(started.lines().any(|known| known == line), "{line} is not in\n{started}");
    }
    let with_events = |host: &str, secret: &str| {
        let mut command = Command::new(repository("config/fly/mimir-entrypoint"));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("MIMIR_BINARY", &stub);
        for name in [
            "CONSUL_HOST",
            "CONSUL_PREFIX",
            "CONSUL_TOKEN",
            "MIMIR_INSTANCE_ID",
            "MIMIR_INSTANCE_ADDR",
            "R2_ENDPOINT",
            "R2_ACCESS_KEY_ID",
            "R2_SECRET_ACCESS_KEY",
        ] {
            command.env(name, "x");
        }
        command.env("ALERT_EVENTS_HOST", host).env("ALERT_EVENTS_SECRET", secret).output().unwrap()
    };
    let output = with_events("mimir-tenant-proxy.internal:9090", "a-Secret_1");
    let output = String::from_utf8(output.stdout).unwrap();
    let receiver = "ALERT_EVENTS_RECEIVER=,http://mimir:a-Secret_1@mimir-tenant-proxy.internal:9090/alertmanager";
    assert!(output.lines().any(|line| line == receiver), "{output}");
    for (host, secret) in [
        ("proxy:9090", ""),
        ("", "a-Secret_1"),
        ("http://proxy:9090", "a-Secret_1"),
        ("proxy:9090/alertmanager", "a-Secret_1"),
        ("proxy:9090", "a/Secret@1"),
    ] {
        let output = with_events(host, secret);
        assert_eq!(output.status.code(), Some(64), "{host} {secret}");
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(!complaint.contains("Secret") || secret.is_empty(), "{complaint}");
    }
    for change in [
        ("FLY_CONSUL_URL", ""),
        ("FLY_CONSUL_URL", "https://consul.example.net/my-mimir-1"),
        ("FLY_CONSUL_URL", "https://:secret@consul.example.net"),
        ("FLY_MACHINE_ID", ""),
        ("R2_ENDPOINT", ""),
        ("R2_ENDPOINT", "https://account.r2.cloudflarestorage.com"),
        ("R2_SECRET_ACCESS_KEY", ""),
    ] {
        let output = run(change, &[]);
        assert_eq!(output.status.code(), Some(64), "{change:?}");
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(!complaint.contains("secret"), "{complaint}");
    }
}
