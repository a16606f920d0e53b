//! Stock senders write, and what they wrote is read back.

use std::time::Duration;

use harness::{
    Client, Issuer, Mimir, NodeExporter, Process, Prometheus, Proxy, ProxyOptions, RemoteWrite,
    fresh_organisation, part, samples, wait_until,
};
use serde_json::json;

struct ProxyFixture {
    issuer: Issuer,
    proxy: Proxy,
    org_a: String,
    org_b: String,
}

async fn proxy_fixture() -> ProxyFixture {
    let mimir = Mimir::shared().await;
    let issuer = Issuer::start().await;
    let proxy = ProxyOptions::new(&issuer.url(), &mimir.url()).start().await;
    ProxyFixture { issuer, proxy, org_a: fresh_organisation(), org_b: fresh_organisation() }
}

impl ProxyFixture {
    fn reader(&self, organisation: &str) -> Client {
        self.proxy.client().bearer(&self.issuer.user_of(organisation))
    }

    /// The number of series of a metric that an organisation sees.
    async fn series(&self, organisation: &str, metric: &str) -> usize {
        let answer = self
            .reader(organisation)
            .get(&format!("/prometheus/api/v1/query?query={metric}"))
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["data"]["result"].as_array().unwrap().len()
    }

    async fn arrives_at_a_and_not_at_b(&self, metric: &str) {
        let about = format!("{metric} arrives");
        wait_until(&about, Duration::from_secs(60), async || {
            self.series(&self.org_a, metric).await > 0
        })
        .await;
        assert_eq!(self.series(&self.org_b, metric).await, 0);
    }
}

// The main job: a stock sender writes with A's token, A reads it back, and no one else.
#[tokio::test(flavor = "multi_thread")]
async fn stock_prometheus_writes_by_remote_write_1() {
    let fixture = proxy_fixture().await;
    let exporter = NodeExporter::start().await;
    let token = fixture.issuer.user_of(&fixture.org_a);
    let _sender = Prometheus::start(RemoteWrite::V1, &exporter, &fixture.proxy.url(), &token).await;
    fixture.arrives_at_a_and_not_at_b("node_load1").await;
    let bad =
        fixture.proxy.client().bearer("not.a.token").get("/prometheus/api/v1/query?query=up").await;
    assert_eq!(bad.status, 401);
    assert_eq!(bad.json()["errorType"], "unauthorized");
}

// Remote write 2.0 needs its Written headers in the response; without them Prometheus counts the
// samples as lost.
#[tokio::test(flavor = "multi_thread")]
async fn stock_prometheus_3_writes_by_remote_write_2() {
    let fixture = proxy_fixture().await;
    let exporter = NodeExporter::start().await;
    let token = fixture.issuer.user_of(&fixture.org_a);
    let sender = Prometheus::start(RemoteWrite::V2, &exporter, &fixture.proxy.url(), &token).await;
    fixture.arrives_at_a_and_not_at_b("node_load1").await;
    let metrics = Client::new(&sender.url()).get("/metrics").await.text;
    let value = |name: &str| -> f64 {
        let line =
            metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(value("prometheus_remote_storage_samples_total") > 100.0);
    assert_eq!(value("prometheus_remote_storage_samples_failed_total"), 0.0);
    assert!(!sender.log().contains("response does not contain"), "{}", sender.log());
    let mut lines = Vec::new();
    // They are written in batches.
    wait_until("pushes are logged", Duration::from_secs(10), async || {
        lines = fixture.proxy.access_log("/api/v1/push");
        !lines.is_empty()
    })
    .await;
    assert!(lines.iter().all(|line| line["outcome"] == "forwarded"), "{lines:?}");
}

// The same on the wire: Mimir reports how much of a 2.0 request it has written, and so do we.
#[tokio::test(flavor = "multi_thread")]
async fn remote_write_2_brings_its_written_headers_back() {
    let fixture = proxy_fixture().await;
    let kind = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
    let sender = fixture.reader(&fixture.org_a).header("content-type", kind);
    let sender = sender.header("content-encoding", "snappy");
    let sender = sender.header("x-prometheus-remote-write-version", "2.0.0");
    let answer = sender.post("/api/v1/push", samples::remote_write_2("by_version_2", 1.0)).await;
    assert!(answer.status.is_success(), "{answer:?}");
    assert_eq!(answer.header("x-prometheus-remote-write-samples-written"), "1", "{answer:?}");
    fixture.arrives_at_a_and_not_at_b("by_version_2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_opentelemetry_sdk_writes_by_otlp() {
    let fixture = proxy_fixture().await;
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("send.cjs");
    std::fs::write(&script, OTEL_SENDER).unwrap();
    for (compression, metric) in [("none", "otel_plain"), ("gzip", "otel_gzip")] {
        let token = fixture.issuer.user_of(&fixture.org_a);
        let url = format!("{}/otlp/v1/metrics", fixture.proxy.url());
        let mut sender = Process::start("otel", &part("node"), directory.path(), |command| {
            command.arg(&script).args([&url, &token, compression, metric]);
            command.env("NODE_PATH", part("otel-sdk").join("node_modules"));
        });
        let status = sender.wait(Duration::from_secs(60));
        assert!(status.is_some_and(|status| status.success()), "{}", sender.log());
        fixture.arrives_at_a_and_not_at_b(metric).await;
    }
}

/// Counts once and flushes, as any program with the SDK does.
const OTEL_SENDER: &str = r#"
const [url, token, compression, name] = process.argv.slice(2);
const { MeterProvider, PeriodicExportingMetricReader } = require("@opentelemetry/sdk-metrics");
const { OTLPMetricExporter } = require("@opentelemetry/exporter-metrics-otlp-proto");
const exporter = new OTLPMetricExporter({ url, compression, headers: { Authorization: `Bearer ${token}` } });
const provider = new MeterProvider({ readers: [new PeriodicExportingMetricReader({ exporter })] });
provider.getMeter("hub").createCounter(name).add(7, { sensor: "one" });
provider.forceFlush().then(() => provider.shutdown()).then(() => process.exit(0),
  (error) => { console.error(error); process.exit(1); });
"#;

// Mimir's status, body and headers are forwarded unchanged, refusals too.
#[tokio::test(flavor = "multi_thread")]
async fn mimirs_own_refusals_come_back_unchanged() {
    let fixture = proxy_fixture().await;
    let mimir = Client::new(&Mimir::shared().await.url()).header("x-scope-orgid", &fixture.org_a);
    let sender = fixture.reader(&fixture.org_a);
    let plain = |client: Client| {
        client.header("content-type", "application/x-protobuf").header("content-encoding", "snappy")
    };
    for (client, body) in [
        (plain as fn(Client) -> Client, b"not snappy".to_vec()),
        (plain, samples::remote_write("bad name!", &[("bad-label", "x")], 1.0)),
        (|client: Client| client.header("content-type", "text/nonsense"), b"x".to_vec()),
    ] {
        let direct = client(mimir.clone()).post("/api/v1/push", body.clone()).await;
        let through = client(sender.clone()).post("/api/v1/push", body).await;
        assert_eq!(through.status, direct.status, "{through:?}");
        assert_eq!(through.text, direct.text);
        assert!(through.status.is_client_error());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn influx_lines_are_written() {
    let fixture = proxy_fixture().await;
    let line = "temperature,sensor=one celsius=21.5";
    let answer = fixture.reader(&fixture.org_a).post("/api/v1/push/influx/write", line).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    fixture.arrives_at_a_and_not_at_b("temperature_celsius").await;
}

// A token may name several organisations; the sender then selects one.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_two_writes_to_the_one_that_is_named() {
    let fixture = proxy_fixture().await;
    let both = fixture.issuer.token().organisation(&json!([fixture.org_a, fixture.org_b])).sign();
    let client = fixture.proxy.client().bearer(&both);
    let write = |client: Client| async move {
        let client = client
            .header("content-type", "application/x-protobuf")
            .header("content-encoding", "snappy");
        client.post("/api/v1/push", samples::remote_write("named", &[], 1.0)).await
    };
    let unnamed = write(client.clone()).await;
    assert_eq!(unnamed.status, 400);
    assert!(
        unnamed.text.contains("X-Scope-OrgID") && unnamed.text.contains(&fixture.org_b),
        "{}",
        unnamed.text
    );
    let named = write(client.header("x-scope-orgid", &fixture.org_a.to_uppercase())).await;
    assert_eq!(named.status, 200, "{named:?}");
    fixture.arrives_at_a_and_not_at_b("named").await;
}
