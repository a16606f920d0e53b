//! The quick mode of the README: its four lines of configuration and its command, as they stand there.

use std::time::Duration;

use harness::{Issuer, Mimir, Process, Proxy, free_port, fresh_organisation, samples, wait_until};
use serde_json::json;
use tempfile::TempDir;

use super::repository;

/// The part below a heading.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("\n## {heading}\n")).unwrap();
    rest.split_once("\n## ").unwrap().0
}

#[tokio::test(flavor = "multi_thread")]
async fn the_four_lines_of_the_readme_serve_a_users_own_organisation() {
    let readme = std::fs::read_to_string(repository("README.md")).unwrap();
    let section = section(&readme, "In front of your Mimir");
    let (_, config) = section.split_once("```toml\n").unwrap();
    let config = config.split_once("```").unwrap().0;
    assert_eq!(config.lines().count(), 4, "{config}");
    let command = "mimir-tenant-proxy --config proxy.toml serve";
    assert!(section.lines().any(|line| line.ends_with(command)), "{section}");

    let (issuer, mimir) = (Issuer::start().await, Mimir::shared().await);
    let directory = TempDir::with_prefix("quick-").unwrap();
    let config = config
        .replace("https://<ref>.supabase.co/auth/v1", &issuer.url())
        .replace("http://mimir.internal:8080", &mimir.url());
    std::fs::write(directory.path().join("proxy.toml"), config).unwrap();
    let (public, private) = (free_port(), free_port());
    let mut proxy = Process::start("proxy", &Proxy::binary(), directory.path(), |process| {
        // Other tests run at the same time, on the ports that are free.
        process.env("MTP__LISTEN__ADDRESS", format!("127.0.0.1:{public}"));
        process.env("MTP__LISTEN__INTERNAL_ADDRESS", format!("127.0.0.1:{private}"));
        process.args(command.split(' ').skip(1)).current_dir(directory.path());
    });
    let ready = format!("http://127.0.0.1:{private}/ready");
    proxy.wait_ready(&ready, "ready", Duration::from_secs(20)).await;

    let client = harness::Client::new(&format!("http://127.0.0.1:{public}"));
    let (ours, theirs) = (fresh_organisation(), fresh_organisation());
    let member = client.clone().bearer(&issuer.user_of(&ours));
    let writer = member.clone().header("content-encoding", "snappy");
    let writer = writer.header("content-type", "application/x-protobuf");
    let body = samples::remote_write("quick_mode", &[], 42.0);
    assert_eq!(writer.post("/api/v1/push", body).await.status, 200);
    let query = "/prometheus/api/v1/query?query=quick_mode";
    wait_until("the member reads it", Duration::from_secs(30), async || {
        member.get(query).await.text.contains("\"42\"")
    })
    .await;
    let other = client.clone().bearer(&issuer.user_of(&theirs)).get(query).await;
    assert_eq!(other.json()["data"]["result"], json!([]));
    assert_eq!(client.get(query).await.status, 401);
    let nowhere = client.bearer(&issuer.token().sign()).get(query).await;
    assert_eq!(nowhere.status, 403, "a token without an organisation");
}
