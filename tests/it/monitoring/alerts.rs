//! The alert rules that we ship: each fires on a fault, is silent on a healthy system, and has a
//! runbook.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{names_in, promtool, read};
use crate::documents::{anchors, root};

/// Where `runbook_url` begins; operators replace it.
const BASE: &str = "https://mimir-tenant-proxy.example/";

fn yaml(file: &str) -> Value {
    serde_saphyr::from_str(&read(file)).unwrap()
}

/// The alerts with their definitions.
pub(super) fn alerts() -> Vec<(String, Value)> {
    let rules = yaml("alerts.yaml");
    let groups = rules["groups"].as_array().unwrap().clone();
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone());
    rules.map(|rule| (rule["alert"].as_str().unwrap().to_owned(), rule)).collect()
}

/// Names of metrics in an expression, ours and Mimir's.
fn metrics_of(expression: &str) -> BTreeSet<String> {
    let is_letter = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = expression.split(|c| !is_letter(c));
    let known = |word: &&str| {
        word.starts_with("mimir_tenant_proxy_") || word.starts_with("cortex_") || *word == "up"
    };
    words.filter(known).map(str::to_owned).collect()
}

// An alert without a test may never fire.
#[test]
fn every_alert_fires_in_a_test_of_promtools() {
    promtool(&["check", "rules", "alerts.yaml"]);
    promtool(&["test", "rules", "alerts_test.yaml"]);
    let tests = read("alerts_test.yaml");
    let alerts = alerts();
    assert!(alerts.len() >= 50, "{}", alerts.len());
    for (name, _) in alerts {
        let fires = format!("labels: 'ALERTS{{alertname=\"{name}\"");
        assert!(tests.contains(&fires), "{name} fires in no test");
    }
}

// Silent because there are no series proves nothing: the healthy system has every series that an
// alert reads. The test of promtool itself is part of the test above.
#[test]
fn every_alert_is_silent_on_a_healthy_system_that_has_its_series() {
    let tests = yaml("alerts_test.yaml");
    let tests = tests["tests"].as_array().unwrap();
    let healthy = tests.iter().find(|test| test["name"] == "a healthy system").unwrap();
    let series: BTreeSet<String> = healthy["input_series"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|series| metrics_of(series["series"].as_str().unwrap()))
        .collect();
    let expectations = healthy["promql_expr_test"].as_array().unwrap();
    assert!(expectations.len() >= 3, "at more than one point in time");
    for expectation in expectations {
        assert_eq!(expectation["expr"], "ALERTS{alertstate=\"firing\"}");
        assert_eq!(expectation["exp_samples"], Value::Array(Vec::new()));
    }
    for (name, alert) in alerts() {
        for metric in metrics_of(alert["expr"].as_str().unwrap()) {
            assert!(series.contains(&metric), "{name}: the healthy system has no {metric}");
        }
    }
}

/// What each section of a runbook says.
const PARTS: [&str; 5] = ["**Users**", "**Read first**", "auses", "**Do**", "**Over**"];

// Somebody follows the link at three in the morning.
#[test]
fn every_alert_has_a_runbook_with_all_its_parts() {
    let mut linked = BTreeSet::new();
    for (name, alert) in alerts() {
        let url = alert["annotations"]["runbook_url"].as_str().unwrap();
        let path = url.strip_prefix(BASE).unwrap_or_else(|| panic!("{name}: {url}"));
        let (page, heading) = path.split_once('#').unwrap();
        assert_eq!(heading, name.to_lowercase(), "{name}");
        let file = root().join(page);
        assert!(anchors(&file).iter().any(|known| known == heading), "{name}: {url}");
        let text = std::fs::read_to_string(&file).unwrap();
        let (_, section) = text.split_once(&format!("## {name}\n")).unwrap();
        let section = section.split("\n## ").next().unwrap();
        for part in PARTS {
            let is_there = section.contains(part) || section.contains(&part.to_lowercase());
            assert!(is_there, "{page}: {name} lacks {part}");
        }
        linked.insert(format!("{page}#{name}"));
    }
    // And none is about an alert that there is no more.
    for entry in std::fs::read_dir(root().join("docs/runbooks")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        if ["README.md", "refusals.md"].contains(&file.as_str()) {
            continue;
        }
        let page = format!("docs/runbooks/{file}");
        let text = std::fs::read_to_string(root().join(&page)).unwrap();
        for name in text.lines().filter_map(|line| line.strip_prefix("## ")) {
            assert!(linked.contains(&format!("{page}#{name}")), "{page}: {name} is no alert");
        }
    }
}

// A runbook that names what does not exist costs the minutes that it should save.
#[test]
fn runbooks_name_log_lines_metrics_and_keys_that_exist() {
    let mut code = String::new();
    let mut files = Vec::new();
    crate::documents::files_below(&root().join("src"), &mut files);
    for file in files {
        code += &std::fs::read_to_string(file).unwrap();
    }
    let keys = std::fs::read_to_string(root().join("config/proxy.toml")).unwrap();
    let reference = std::fs::read_to_string(root().join("docs/reference/metrics.md")).unwrap();
    let sections = ["listen", "auth", "database", "upstream", "limits", "rules", "channels"];
    let (mut lines, mut named) = (0, 0);
    for entry in std::fs::read_dir(root().join("docs/runbooks")).unwrap() {
        let file = entry.unwrap().path();
        let text = std::fs::read_to_string(&file).unwrap();
        for metric in names_in(&text) {
            assert!(reference.contains(&format!("`{metric}`")), "{}: {metric}", file.display());
        }
        for piece in text.split('`').skip(1).step_by(2) {
            // A constant message begins with a capital and has several words.
            if piece.starts_with(char::is_uppercase) && piece.contains(' ') {
                let is_message = code.contains(&format!("\"{piece}\""));
                let is_request = piece.starts_with("GET ") || piece.starts_with("POST ");
                assert!(is_message || is_request, "{}: {piece}", file.display());
                lines += usize::from(is_message);
            }
            if let Some((section, key)) = piece.split_once('.')
                && sections.contains(&section)
                && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
                && !["md", "yaml", "toml"].contains(&key)
            {
                let is_key = keys.lines().any(|line| {
                    let line = line.trim_start_matches("# ");
                    line.split(" = ").next() == Some(key)
                });
                assert!(is_key, "{}: {piece}", file.display());
                named += 1;
            }
        }
    }
    assert!(lines >= 15 && named >= 15, "{lines} messages, {named} keys");
}
