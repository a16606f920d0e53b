//! A file that is not a Mimir configuration: empty, or of another program. Further findings in it
//! would mislead.

use super::document::Document;
use super::finding::{Finding, Severity};
use crate::yaml::{Entry, Kind};

const CHECK: &str = "wrong-file";

/// What the file is instead, if that is certain.
pub(super) fn other(document: &Document) -> Option<Finding> {
    let top = document.entries();
    let has = |name: &str| top.iter().any(|entry| entry.key == name);
    let at = |name: &str| top.iter().find(|entry| entry.key == name).map_or(1, |entry| entry.line);
    let error = |key: &str, line: u64, wrong: &str, right: String| {
        let (key, wrong) = (key.to_owned(), wrong.to_owned());
        Some(Finding { check: CHECK, severity: Severity::Error, key, line, wrong, right })
    };
    if top.is_empty() {
        let right =
            "is it the right file? Mimir would run with its defaults alone, blocks on its own disk";
        return error("", 0, "holds nothing", right.to_owned());
    }
    if has("apiVersion") && has("kind") {
        let right = "check the mimir.yaml inside it, by itself".to_owned();
        return error("apiVersion", at("apiVersion"), "is a Kubernetes manifest", right);
    }
    // Both have a `global`, as charts do.
    if let Some(entry) = top.iter().find(|entry| is_of_prometheus(entry)) {
        let right = "give Mimir's own file".to_owned();
        return error(&entry.key, entry.line, "is of Prometheus' configuration", right);
    }
    if has("route") && has("receivers") {
        let right = "it is what alertmanager.fallback_config_file names, or a tenant's".to_owned();
        return error("route", at("route"), "is an Alertmanager's configuration", right);
    }
    if let Some(entry) = top.iter().find(|entry| is_of_helm(entry)) {
        let wrong = "belongs to the values of a Helm chart: Mimir does not start with them";
        let structured = "mimir.structuredConfig";
        let place = if document.get(structured).is_some() {
            let line = document.line(structured);
            format!(
                "Mimir's own keys are below {structured} on line {line}, laid over the chart's own"
            )
        } else {
            format!("Mimir's own keys belong below {structured}")
        };
        let right =
            format!("{place}; check what the chart makes of both: mimir.yaml in its ConfigMap");
        return error(&entry.key, entry.line, wrong, right);
    }
    if has("overrides") && top.iter().all(|entry| RUNTIME.contains(&entry.key.as_str())) {
        let right = "it is what runtime_config.file names; check the file that names it".to_owned();
        return error("overrides", at("overrides"), "is Mimir's runtime configuration", right);
    }
    None
}

/// What a runtime configuration may hold.
const RUNTIME: [&str; 4] =
    ["overrides", "multi_kv_config", "ingester_limits", "distributor_limits"];

/// Blocks that only a Prometheus (or an agent with its format) has.
const OF_PROMETHEUS: [&str; 6] = [
    "alerting",
    "remote_read",
    "remote_write",
    "rule_files",
    "scrape_config_files",
    "scrape_configs",
];

fn is_of_prometheus(entry: &Entry) -> bool {
    let below = |name: &&str| entry.value.entry(name).is_some();
    let of_global = ["scrape_interval", "scrape_timeout", "evaluation_interval", "external_labels"];
    OF_PROMETHEUS.contains(&entry.key.as_str())
        || entry.key == "global" && of_global.iter().any(below)
}

/// Names at the top that only the charts mimir-distributed and mimir-simple-scalable have.
const OF_HELM: [&str; 23] = [
    "configStorageType",
    "enterprise",
    "externalConfigSecretName",
    "externalConfigVersion",
    "extraObjects",
    "fullnameOverride",
    "gateway",
    "global",
    "image",
    "ingress",
    "kafka",
    "kubeVersionOverride",
    "kubectlImage",
    "metaMonitoring",
    "minio",
    "nameOverride",
    "nginx",
    "rbac",
    "rollout_operator",
    "runtimeConfig",
    "serviceAccount",
    "useExternalConfig",
    "vaultAgent",
];

/// Names that are below a component in the chart, and never in Mimir's configuration.
const OF_WORKLOADS: [&str; 12] = [
    "affinity",
    "extraArgs",
    "extraEnv",
    "kind",
    "nodeSelector",
    "persistentVolume",
    "podAnnotations",
    "replicas",
    "resources",
    "service",
    "tolerations",
    "zoneAwareReplication",
];

fn is_of_helm(entry: &Entry) -> bool {
    let below = |names: &[&str]| names.iter().any(|name| entry.value.entry(name).is_some());
    match entry.key.as_str() {
        "mimir" => matches!(entry.value.kind, Kind::Map(_)) || entry.value.is_null(),
        name if OF_HELM.contains(&name) => true,
        // Such as `chunks-cache`: Mimir's own names have no dash.
        name if name.rsplit_once('-').is_some_and(|(_, last)| last == "cache") => true,
        // Also a block of Mimir's own file.
        _ => below(&OF_WORKLOADS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<(String, u64)> {
        let found = other(&Document::read(text).unwrap())?;
        assert!(found.severity == Severity::Error && found.check == CHECK);
        Some((found.key, found.line))
    }

    #[test]
    fn other_files_are_told_by_what_only_they_have() {
        let is = |key: &str, line: u64| Some((key.to_owned(), line));
        for text in ["", "# nothing\n\n", "{}", "---\n", "null\n", "~\n", "--- # x\n...\n"] {
            assert_eq!(of(text), is("", 0), "{text:?}");
        }
        assert_eq!(of("# values\nmimir:\n  structuredConfig: {limits: {}}\n"), is("mimir", 2));
        assert_eq!(of("ingester:\n  replicas: 3\n"), is("ingester", 1));
        assert_eq!(of("minio: {enabled: false}\n"), is("minio", 1));
        assert_eq!(of("apiVersion: v1\nkind: ConfigMap\n"), is("apiVersion", 1));
        assert_eq!(of("overrides: {a: {}}\n"), is("overrides", 1));
        assert_eq!(of("route: {receiver: a}\nreceivers: []\n"), is("route", 1));
        assert_eq!(of("global: {}\nscrape_configs: []\n"), is("scrape_configs", 2));
        // Seen: taken for the values of a Helm chart.
        assert_eq!(of("global: {scrape_interval: 1m}\nscrape_configs: []\n"), is("global", 1));
        assert_eq!(of("global: {scrape_interval: 1m}\n"), is("global", 1));
        let alertmanagers = "global: {smtp_from: a}\nroute: {receiver: a}\nreceivers: []\n";
        assert_eq!(of(alertmanagers), is("route", 2));
        assert_eq!(of("global: {dnsService: a}\nminio: {}\n"), is("global", 1));
        assert_eq!(of("target: all\n"), None);
        assert_eq!(of("ingester: {ring: {replication_factor: 3}}\n"), None);
    }

    #[test]
    fn values_of_helm_name_the_place_of_mimirs_own_keys() {
        let text = "image: {tag: x}\nmimir:\n  structuredConfig:\n    limits: {}\n";
        let found = other(&Document::read(text).unwrap()).unwrap();
        assert!(found.right.contains("mimir.structuredConfig on line 3"), "{found}");
    }
}
