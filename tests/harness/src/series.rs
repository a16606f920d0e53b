//! Whether the proxy can have a series at all, by the reference of its metrics, which is written from its code.

use std::fs::read_to_string;

/// What is wrong with a series: a name, a label or a value that the proxy never writes. A series that is only absent,
/// such as that of a feature that is not configured, is not wrong.
pub(crate) fn mistake_in(series: &str) -> Option<String> {
    let page = |name: &str| {
        let path = format!("{}/../../docs/reference/{name}.md", env!("CARGO_MANIFEST_DIR"));
        read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    find(series, &page("metrics"), &page("reasons"))
}

fn find(series: &str, metrics: &str, reasons: &str) -> Option<String> {
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let row = |name: &str| metrics.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
    let of_a_histogram = ["_bucket", "_count", "_sum"]
        .iter()
        .find_map(|end| row(name.strip_suffix(end)?).filter(|row| row.contains("| histogram")));
    let Some(row) = row(name).or(of_a_histogram) else {
        return Some(format!("the proxy has no metric {name}"));
    };
    for pair in labels.trim_end_matches('}').split(',').filter(|pair| !pair.is_empty()) {
        let (label, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = value.trim_matches('"');
        if label == "le" && of_a_histogram.is_some() {
            continue;
        }
        let Some((_, rest)) = row.split_once(&format!("<br>`{label}`: ")) else {
            return Some(format!("{name} has no label {label}"));
        };
        let known = rest.split(['|', '<']).next().unwrap_or_default();
        let is_reason = known.starts_with("a [reason]");
        // Others are in words: an address, a tenant, a version.
        let is_a_list = known.starts_with('`') || is_reason;
        let is_listed = known.contains(&format!("`{value}`"))
            || (is_reason && reasons.contains(&format!("| `{value}` |")));
        if is_a_list && !is_listed {
            return Some(format!("the label {label} of {name} is never {value}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_that_the_proxy_can_have_are_no_mistakes() {
        for series in [
            "mimir_tenant_proxy_ready",
            "mimir_tenant_proxy_key_set_fetches_total{outcome=\"failed\"}",
            "mimir_tenant_proxy_requests_total{surface=\"query\",outcome=\"rejected\",reason=\"memory_short\"}",
            "mimir_tenant_proxy_requests_total{surface=\"query\",outcome=\"forwarded\",reason=\"2xx\"}",
            "mimir_tenant_proxy_request_duration_seconds_count{surface=\"push\"}",
            "mimir_tenant_proxy_request_duration_seconds_bucket{surface=\"push\",le=\"0.01\"}",
            "mimir_tenant_proxy_rules_tenant_success_timestamp_seconds{tenant=\"acme\"}",
        ] {
            assert_eq!(mistake_in(series), None, "{series}");
        }
    }

    #[test]
    fn a_name_a_label_or_a_value_that_the_proxy_never_has_is_a_mistake() {
        for (series, says) in [
            ("mimir_tenant_proxy_redy", "no metric"),
            ("mimir_tenant_proxy_ready_count", "no metric"),
            ("mimir_tenant_proxy_key_set_fetches_total{outcome=\"fail\"}", "is never fail"),
            ("mimir_tenant_proxy_key_set_fetches_total{result=\"failed\"}", "no label result"),
            (
                "mimir_tenant_proxy_requests_total{surface=\"query\",outcome=\"rejected\",reason=\"short\"}",
                "is never short",
            ),
        ] {
            let mistake = mistake_in(series);
            assert!(mistake.is_some_and(|text| text.contains(says)), "{series}");
        }
    }
}
