//! Stock senders with TLS, to a real Mimir.

use harness::{Mimir, NodeExporter, Prometheus, RemoteWrite};

use super::*;
use crate::support::identity::{command, identity_fixture};

// Prometheus' tls_config: it trusts a private authority, and its certificate is its only credential.
#[tokio::test(flavor = "multi_thread")]
async fn stock_prometheus_writes_with_its_certificate_alone() {
    let mimir = Mimir::shared().await;
    let (authority, directory) = (Authority::new("One CA"), TempDir::new().unwrap());
    let own = authority.sign(Purpose::Server, &["localhost"]);
    let (certificate, key) = own.write(directory.path(), "own");
    let hub = authority.sign(Purpose::Client, &["spiffe://example.org/hub/17"]);
    let (hub_certificate, hub_key) = hub.write(directory.path(), "hub");
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let (certificate, key) = (listed(&[&certificate]), listed(&[&key]));
    let settings = [
        ("tls.certificate_files", certificate.as_str()),
        ("tls.key_files", key.as_str()),
        ("tls.client_ca_file", &format!("{ca:?}")),
        ("tls.client_certificates", "\"required\""),
        ("tls.device_identity", "\"uri\""),
    ];
    let identity = identity_fixture(&mimir.url(), &settings).await;
    let organisation = identity.organisation().await;
    let name = "uri:spiffe://example.org/hub/17";
    let arguments = [
        "device-key",
        "create",
        "--organisation",
        &organisation,
        "--name",
        "hub",
        "--certificate-name",
        name,
    ];
    assert!(command(&identity.database, &arguments).status.success());
    let exporter = NodeExporter::start().await;
    let target = identity.proxy.url().replace("http://127.0.0.1", "https://localhost");
    for version in [RemoteWrite::V1, RemoteWrite::V2] {
        let sender = Prometheus::start_with_certificate(
            version,
            &exporter,
            &target,
            &ca,
            (&hub_certificate, &hub_key),
        )
        .await;
        let written = async || {
            let lines = identity.proxy.access_log(PUSH);
            lines
                .iter()
                .filter(|line| line["http.status"] == 200 || line["http.status"] == 204)
                .count()
        };
        let before = written().await;
        wait_until("it writes", Duration::from_secs(60), async || written().await > before + 2)
            .await;
        drop(sender);
    }
    let lines = identity.proxy.access_log(PUSH);
    assert!(lines.iter().all(|line| line["principal.kind"] == "device"), "{lines:?}");
    let read = harness::Client::new(&mimir.url()).header("x-scope-orgid", &organisation);
    let answer = read.get("/prometheus/api/v1/query?query=count(node_load1)").await;
    assert!(!answer.json()["data"]["result"].as_array().unwrap().is_empty(), "{answer:?}");
}
