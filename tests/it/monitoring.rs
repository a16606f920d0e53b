//! Metrics as alerts and dashboards read them, and what we ship to read them with.

mod alerts;
mod dashboards;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use harness::{Authority, Client, Purpose, Upstream};
use tempfile::TempDir;

use crate::support::identity::identity_fixture;
use crate::support::responses::ok;
use crate::support::single::proxy_fixture;

fn monitoring(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/monitoring").join(file)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(monitoring(file)).unwrap()
}

fn promtool(arguments: &[&str]) -> String {
    let mut command = Command::new(harness::part("promtool"));
    let output = command.args(arguments).current_dir(monitoring("")).output().unwrap();
    let said =
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

async fn exposed(internal_url: &str) -> String {
    Client::new(internal_url).get("/metrics").await.text
}

/// Names of metrics in a text.
fn names_in(text: &str) -> BTreeSet<String> {
    let letters = |c: char| c.is_ascii_lowercase() || c == '_';
    let names = text.split("mimir_tenant_proxy_").skip(1).map(|rest| {
        let end = rest.find(|c| !letters(c)).unwrap_or(rest.len());
        format!("mimir_tenant_proxy_{}", &rest[..end])
    });
    names.filter(|name| name.len() > "mimir_tenant_proxy_".len()).collect()
}

// Those of work that only a leader does are in the reference, which is written from the code.
#[tokio::test(flavor = "multi_thread")]
async fn alerts_read_metrics_that_exist() {
    let upstream = Upstream::start(ok).await;
    let (directory, authority) = (TempDir::new().unwrap(), Authority::new("CA"));
    let own = authority.sign(Purpose::Server, &["localhost"]);
    let (certificate, key) = own.write(directory.path(), "own");
    let (certificate, key) = (format!("[{certificate:?}]"), format!("[{key:?}]"));
    let settings = [
        ("limits.from_database", "true"),
        ("tls.certificate_files", &certificate),
        ("tls.key_files", &key),
    ];
    let identity = identity_fixture(&upstream.url(), &settings).await;
    let exposed = exposed(&identity.proxy.internal_url()).await;
    let reference = std::fs::read_to_string(monitoring("../../docs/reference/metrics.md")).unwrap();
    let mut checked = 0;
    for name in names_in(&read("alerts.yaml")) {
        checked += 1;
        let of_leaders = ["rules_", "channels_", "alert_events_"];
        let short = name.strip_prefix("mimir_tenant_proxy_").unwrap();
        if of_leaders.iter().any(|start| short.starts_with(start)) {
            let named = name.strip_suffix("_bucket").unwrap_or(&name);
            assert!(reference.contains(&format!("`{named}`")), "{name}");
            continue;
        }
        assert!(
            exposed.contains(&format!("\n{name}{{")) || exposed.contains(&format!("\n{name} ")),
            "{name}"
        );
    }
    assert!(checked >= 30, "{checked}");
}

// A gauge at 0 without a database looks like a lost database.
#[tokio::test(flavor = "multi_thread")]
async fn features_that_are_not_configured_have_no_gauge() {
    let upstream = Upstream::start(ok).await;
    let secret = [
        ("auth.jwks_url", "\"\""),
        ("auth.hs256_secret", "\"a-secret-of-more-than-thirty-two-bytes\""),
    ];
    let fixture = proxy_fixture(&upstream.url(), &secret).await;
    let without = exposed(&fixture.proxy.internal_url()).await;
    let identity = identity_fixture(&upstream.url(), &[]).await;
    let with = exposed(&identity.proxy.internal_url()).await;
    for name in
        ["database_listening", "revocations_age_seconds", "key_set_age_seconds", "key_set_keys"]
    {
        let series = format!("\nmimir_tenant_proxy_{name} ");
        assert!(with.contains(&series), "{name}");
        assert!(!without.contains(&series), "{name}");
    }
    assert!(without.contains("\nmimir_tenant_proxy_ready 1"), "{without}");
}

// Prometheus' own linter: help texts, units, names.
#[tokio::test(flavor = "multi_thread")]
async fn promtool_has_nothing_to_say_about_the_metrics() {
    let upstream = Upstream::start(ok).await;
    let identity = identity_fixture(&upstream.url(), &[("rules.enabled", "true")]).await;
    identity.proxy.client().get("/prometheus/api/v1/query?query=up").await;
    let text = exposed(&identity.proxy.internal_url()).await;
    assert!(text.contains("mimir_tenant_proxy_rules_leader"), "{text}");
    let mut child = Command::new(harness::part("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}
