//! Writes `docs/reference/metrics.md` from [`METRICS`], and holds the two together.

use std::fmt::Write as _;

use metrics_exporter_prometheus::PrometheusBuilder;
use strum::VariantArray;

use super::table::{self, Kind, Label, METRICS, Metric, Values};
use super::{AlertEventMetrics, ChannelMetrics, Metrics, RuleMetrics, TraceMetrics};
use crate::labels::LookupKind;
use crate::reason::{Class, Reason};
use crate::reference::check;

fn unit(metric: &Metric) -> &'static str {
    match metric.unit {
        Some(metrics::Unit::Seconds) => "seconds",
        Some(metrics::Unit::Bytes) => "bytes",
        _ => "",
    }
}

fn values(values: Values) -> String {
    let quoted = |lists: &[&[&str]]| {
        let all: Vec<_> = lists.concat().iter().map(|value| format!("`{value}`")).collect();
        all.join(", ")
    };
    match values {
        Values::Open(what) => what.to_owned(),
        // Too many for a cell; they have a table of their own.
        Values::Names(lists) if lists[0].len() == <Reason as VariantArray>::VARIANTS.len() => {
            format!("a [reason](#reasons), {}", quoted(&lists[1..]))
                .trim_end_matches(", ")
                .to_owned()
        }
        Values::Names(lists) => quoted(lists),
    }
}

fn reference() -> String {
    let mut page = String::from(
        "# Metrics\n\nWritten from the code (`src/telemetry/table.rs`) by a test; do \
         not edit.\n\nServed at `/metrics` on the private port. No metric carries a user or a path, \
         and none but `mimir_tenant_proxy_rules_tenant_success_timestamp_seconds` a tenant. Series \
         exist from the start at 0; a gauge of something that is not configured (a database, a key \
         set, alert rules) is absent, so that 0 always means something.\n\n\
         | metric | type | question | meaning | when to look at it |\n|---|---|---|---|---|\n",
    );
    for metric in METRICS {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let kind = [kind, unit(metric)].join(" ");
        let label = |label: &Label| format!("<br>`{}`: {}", label.name, values(label.values));
        let labels = metric.labels.iter().map(label).collect::<Vec<_>>().concat();
        let Metric { name, question, help, when, .. } = metric;
        let kind = kind.trim_end();
        let _ = writeln!(page, "| `{name}` | {kind} | {question} | {help}{labels} | {when} |");
    }
    page.push_str(
        "\n## Reasons\n\nThe label `reason` of `mimir_tenant_proxy_requests_total`: [reasons.md](reasons.md) \
         has each with its status, its meaning and what to do.\n",
    );
    page
}

#[test]
fn the_reference_of_metrics_is_that_of_the_code() {
    check("docs/reference/metrics.md", &reference());
}

/// What the labels of a line of the exposition are, without a histogram's own.
fn labels(line: &str) -> Vec<(&str, &str)> {
    let Some((_, rest)) = line.split_once('{') else { return Vec::new() };
    let (labels, _) = rest.rsplit_once('}').unwrap();
    let pairs = labels.split("\",").map(|pair| pair.split_once("=\"").unwrap());
    let pairs = pairs.map(|(name, value)| (name, value.trim_end_matches('"')));
    pairs.filter(|(name, _)| *name != "le" && *name != "quantile").collect()
}

// What is registered is what the table says: every metric, and every value of its labels.
#[test]
fn every_metric_has_the_labels_of_the_table() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        table::describe();
        let metrics = Metrics::register();
        metrics.report_upstream_instances([("10.0.0.1:80".parse().unwrap(), 1, 1)].into_iter());
        metrics.directory(LookupKind::Session).duration.record(1.0);
        for late in [
            &metrics.key_set_age,
            &metrics.key_set_keys,
            &metrics.database_listening,
            &metrics.revocations,
            &metrics.revocations_age,
            &metrics.limit_rows,
            &metrics.limit_rows_invalid,
            &metrics.limit_rows_age,
            &metrics.memory_limit,
            &metrics.memory_counted,
            &metrics.tls_certificate_expiry,
        ] {
            late.set(1.0);
        }
        let rules = RuleMetrics::register();
        rules.tenant_succeeded("org-a", 1.0);
        let _channels = ChannelMetrics::register();
        AlertEventMetrics::register();
        TraceMetrics::register();
    });
    let text = handle.render();
    for metric in METRICS.iter().filter(|metric| metric.kind != Kind::Histogram) {
        let lines: Vec<_> = text
            .lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(metric.name))
            .map(labels)
            .collect();
        assert!(!lines.is_empty(), "{} is not registered", metric.name);
        for line in &lines {
            let names: Vec<_> = line.iter().map(|(name, _)| *name).collect();
            let wanted: Vec<_> = metric.labels.iter().map(|label| label.name).collect();
            assert_eq!(names, wanted, "{}", metric.name);
        }
        for label in metric.labels {
            let Values::Names(lists) = label.values else { continue };
            let mut wanted = lists.concat();
            let mut found: Vec<_> =
                lines.iter().flatten().filter(|(name, _)| *name == label.name).collect();
            found.sort_unstable();
            found.dedup();
            let found: Vec<_> = found.into_iter().map(|(_, value)| *value).collect();
            wanted.sort_unstable();
            assert_eq!(found, wanted, "{}: {}", metric.name, label.name);
        }
    }
}

// An alert on failures fires for what is broken only.
#[test]
fn what_cannot_be_reached_or_breaks_is_a_failure() {
    for reason in <Reason as VariantArray>::VARIANTS {
        let name = reason.name();
        let breaks = name.ends_with("_unavailable")
            || ["admin_broken", "no_tenant"].contains(&name)
            || (name.starts_with("upstream_") && name != "upstream_saturated");
        assert_eq!(reason.class() == Class::Failed, breaks, "{name}");
    }
}
