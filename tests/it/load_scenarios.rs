//! The k6 scenarios of `loadtest/k6`, against a real Mimir behind the proxy: smaller than they are meant, and
//! whole. That k6 ends well says that every threshold held.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use harness::{Mimir, part};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::identity::{IdentityFixture, identity_fixture};

const SCENARIOS: [&str; 4] = ["outage", "dashboard", "mixed", "soak"];

fn scenario(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("loadtest/k6").join(format!("{name}.js"))
}

/// Runs k6 with a proxy's address and credentials, and a fleet of three hubs.
fn k6(url: &str, files: &TempDir, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let file = |name: &str| files.path().join(name);
    Command::new(part("k6"))
        .args(arguments)
        .env("K6_NO_USAGE_REPORT", "true")
        .env("MTP_URL", url)
        .env("MTP_DEVICE_KEYS", file("keys"))
        .env("MTP_READERS", file("readers"))
        .envs([("HUBS", "3"), ("DASHBOARDS", "2"), ("PANELS", "4"), ("INTERVAL_SECONDS", "1")])
        .envs(settings.iter().copied())
        .output()
        .unwrap()
}

/// A file with device keys that write, and one with a key and a token that read.
async fn credentials(identity: &IdentityFixture) -> TempDir {
    let organisation = identity.organisation().await;
    let key = async |scopes: Value| {
        let wanted = json!({"name": "hub", "scopes": scopes});
        let made = identity.device_key(&organisation, wanted).await;
        made["key"].as_str().unwrap().to_owned()
    };
    let files = tempfile::tempdir().unwrap();
    let keys = [key(json!(["metrics:write"])).await, key(json!(["metrics:write"])).await];
    let person = identity.member(&organisation, "viewer").await;
    std::fs::write(files.path().join("keys"), keys.join("\n")).unwrap();
    std::fs::write(files.path().join("readers"), format!("{}\n", person.token)).unwrap();
    files
}

// Each scenario has thresholds: a run that only sends says nothing.
#[test]
fn every_scenario_of_k6_can_be_read_and_has_thresholds() {
    let files = tempfile::tempdir().unwrap();
    for name in ["keys", "readers"] {
        std::fs::write(files.path().join(name), "mtpd_x\n").unwrap();
    }
    for name in SCENARIOS {
        let path = scenario(name).display().to_string();
        let private = [("MTP_PRIVATE_URL", "http://127.0.0.1:1")];
        let output = k6(
            "http://127.0.0.1:1",
            &files,
            &["inspect", "--include-system-env-vars", &path],
            &private,
        );
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let options: Value = serde_json::from_slice(&output.stdout).unwrap();
        let thresholds = options["thresholds"].as_object().unwrap();
        assert!(thresholds.len() >= 3, "{name}: {thresholds:?}");
        let page = std::fs::read_to_string(scenario(name).with_file_name("../README.md")).unwrap();
        assert!(page.contains(&format!("k6/{name}.js")), "{name} is not in loadtest/README.md");
    }
    // What is missing is named.
    let mixed = scenario("mixed").display().to_string();
    let output = k6("", &files, &["inspect", "--include-system-env-vars", &mixed], &[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("MTP_URL is not set"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_comes_back_and_people_who_look_pass_their_thresholds() {
    let mimir = Mimir::shared().await;
    let identity = identity_fixture(&mimir.url(), &[]).await;
    let files = credentials(&identity).await;
    let url = identity.proxy.url();
    let private = identity.proxy.internal_url();
    let runs: [(&str, &[(&str, &str)]); 4] = [
        ("outage", &[("OUTAGE_MINUTES", "1"), ("INTERVAL_SECONDS", "5"), ("SPREAD_SECONDS", "1")]),
        ("dashboard", &[("DURATION", "3s"), ("REFRESH_SECONDS", "1")]),
        ("mixed", &[("DURATION", "5s"), ("REFRESH_SECONDS", "1")]),
        // Long enough for a second reading of the memory.
        ("soak", &[("DURATION", "20s"), ("SETTLE_SECONDS", "0"), ("MAX_GROWTH_PERCENT", "300")]),
    ];
    for (name, settings) in runs {
        let path = scenario(name).display().to_string();
        let mut settings = settings.to_vec();
        settings.extend([("WITHIN_SECONDS", "10"), ("MTP_PRIVATE_URL", &private)]);
        let output = k6(&url, &files, &["run", "--quiet", &path], &settings);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {said}{errors}");
    }
    // Twelve pushes of three hubs, at least, each with all its series.
    let pushes = identity.proxy.access_log("/otlp/v1/metrics");
    let stored = pushes.iter().filter(|line| line["http.status"] == 200).count();
    assert!(stored >= 36 + 12, "{stored}");
}

// A sender drops what is refused with a 4xx, so the scenarios fail if anything is.
#[tokio::test(flavor = "multi_thread")]
async fn a_scenario_whose_pushes_are_refused_fails() {
    let mimir = Mimir::shared().await;
    let identity = identity_fixture(&mimir.url(), &[]).await;
    let files = credentials(&identity).await;
    std::fs::write(files.path().join("keys"), "mtpd_unknown\n").unwrap();
    let path = scenario("mixed").display().to_string();
    let output =
        k6(&identity.proxy.url(), &files, &["run", "--quiet", &path], &[("DURATION", "2s")]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("pushes_lost"), "{errors}");
}
