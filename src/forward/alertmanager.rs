//! Answers of Mimir's Alertmanager that are not forwarded unchanged.
//!
//! A few errors in plain text become JSON errors with reasons of their own. The tenant's configuration
//! is removed from `/status`: Mimir masks the fields that Alertmanager declares as secrets, but not
//! tokens in other fields of a receiver, such as headers and texts.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use serde_json::{Map, Value, json};

use super::body::ResponseBody;
use super::error::ForwardError;
use super::verdict::{REFUSAL_BYTES, is_about_own_reads};
use crate::reason::{HasReason, Reason};
use crate::route::Route;

/// Why the Alertmanager is unavailable to a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertmanagerState {
    /// The tenant has more concurrent reads than Mimir allows.
    Busy,
    /// The configuration exists and is not loaded yet.
    Loading,
    /// No configuration, and no fallback.
    Unconfigured,
    /// Mimir runs without an Alertmanager.
    Absent,
}

/// The largest answer of `/status` that is read into memory; Mimir sets no bound to a configuration by
/// default. One that is made of rows has a few hundred KiB at most.
const MOST_STATUS: usize = 1 << 20;

/// Replaces the configuration: a valid document, because Grafana and amtool parse it.
const NO_CONFIGURATION: &str = "\
# The configuration is not shown by mimir-tenant-proxy.
route:
  receiver: not-shown
receivers:
- name: not-shown
";

/// Checks an answer before it is forwarded.
pub(super) async fn review(
    route: &Route,
    response: &mut Response<ResponseBody>,
) -> Result<(), ForwardError> {
    let status = response.status().as_u16();
    if may_be_a_state(status, response.headers()) {
        let text = response.body_mut().peek(REFUSAL_BYTES).await?;
        if let Some(state) = state_of(status, text) {
            return Err(ForwardError::Alertmanager(state));
        }
    }
    if route.answers_configuration() && response.status().is_success() {
        hide_configuration(response).await?;
    }
    Ok(())
}

/// Whether an error may be about the Alertmanager itself. Errors about a request are JSON, or, for a
/// silence that does not exist, have no body.
fn may_be_a_state(status: u16, headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    matches!(status, 404 | 406 | 412 | 503)
        && content_type.is_some_and(|value| value.starts_with(b"text/plain"))
}

fn state_of(status: u16, text: &[u8]) -> Option<AlertmanagerState> {
    match status {
        404 => Some(AlertmanagerState::Absent),
        406 => Some(AlertmanagerState::Loading),
        412 => Some(AlertmanagerState::Unconfigured),
        503 if is_about_own_reads(text) => Some(AlertmanagerState::Busy),
        _ => None,
    }
}

async fn hide_configuration(response: &mut Response<ResponseBody>) -> Result<(), ForwardError> {
    let unreadable = |why: &str| ForwardError::Unreadable(format!("Alertmanager's status {why}"));
    if response.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(unreadable("is compressed, and was not asked for so"));
    }
    let answer = response.body_mut().take(MOST_STATUS).await?;
    let answer = answer.ok_or_else(|| unreadable("is too large"))?;
    let hidden = without_configuration(&answer).ok_or_else(|| unreadable("is no JSON object"))?;
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(hidden.len()));
    response.body_mut().replace(Bytes::from(hidden));
    Ok(())
}

/// The fields of a `/status` answer that are known to be harmless.
fn without_configuration(answer: &[u8]) -> Option<String> {
    let Value::Object(mut answer) = serde_json::from_slice(answer).ok()? else { return None };
    let mut shown = Map::new();
    for name in ["uptime", "versionInfo"] {
        if let Some(value) = answer.remove(name) {
            shown.insert(name.to_owned(), value);
        }
    }
    // Peers show the operator's addresses.
    let cluster = answer.get("cluster").and_then(|cluster| cluster.get("status"));
    let cluster = cluster.and_then(Value::as_str).unwrap_or("disabled");
    shown.insert("cluster".to_owned(), json!({ "peers": [], "status": cluster }));
    shown.insert("config".to_owned(), json!({ "original": NO_CONFIGURATION }));
    Some(Value::Object(shown).to_string())
}

impl HasReason for AlertmanagerState {
    fn reason(&self) -> Reason {
        match self {
            Self::Busy => Reason::AlertmanagerBusy,
            Self::Loading => Reason::AlertmanagerLoading,
            Self::Unconfigured => Reason::AlertmanagerUnconfigured,
            Self::Absent => Reason::AlertmanagerAbsent,
        }
    }
}

impl fmt::Display for AlertmanagerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "too many reads of alerts and silences at the same time; try again",
            Self::Loading => {
                "the alert notifications of this organisation are being set up; try again in a minute"
            }
            Self::Unconfigured => {
                "alert notifications are not configured for this organisation: it has no channels yet"
            }
            Self::Absent => "this installation has no Alertmanager: alerts are evaluated only",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Mimir 3.1 does not mask http_headers.values, e-mail headers, details, titles and user names.
    #[test]
    fn nothing_of_the_configuration_is_in_the_status() {
        let original = "receivers:\n- webhook_configs:\n  - http_config: {http_headers: {X-Key: {values: [hunter2]}}}\n";
        let answer = json!({
            "cluster": {"name": "hunter2", "peers": [{"name": "a", "address": "10.0.0.7"}], "status": "ready"},
            "config": {"original": original, "js": "hunter2"},
            "configYAML": original,
            "uptime": "2026-11-26T06:00:35.828Z",
            "versionInfo": {"version": "3.1.0", "goVersion": "go1.26.8"},
        });
        let shown = without_configuration(answer.to_string().as_bytes()).unwrap();
        assert!(!shown.contains("hunter2") && !shown.contains("10.0.0.7"), "{shown}");
        let shown: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["uptime"], answer["uptime"]);
        assert_eq!(shown["versionInfo"], answer["versionInfo"]);
        assert_eq!(shown["cluster"], json!({"peers": [], "status": "ready"}));
        assert_eq!(shown["config"], json!({"original": NO_CONFIGURATION}));
        for unreadable in ["", "[]", "null", "\"text\"", "{", "<html>"] {
            assert_eq!(without_configuration(unreadable.as_bytes()), None, "{unreadable}");
        }
    }

    fn may_be(status: u16, content_type: &'static str) -> bool {
        let value = HeaderValue::from_static(content_type);
        may_be_a_state(status, &[(header::CONTENT_TYPE, value)].into_iter().collect())
    }

    #[test]
    fn refusals_that_are_about_the_alertmanager_are_told_from_those_of_a_request() {
        for (status, text, state) in [
            (404, "404 page not found\n", Some(AlertmanagerState::Absent)),
            (406, "Not initializing the Alertmanager\n", Some(AlertmanagerState::Loading)),
            (412, "the Alertmanager is not configured\n", Some(AlertmanagerState::Unconfigured)),
            (
                503,
                "Limit of concurrent GET requests reached (8), try again later.\n",
                Some(AlertmanagerState::Busy),
            ),
            (503, "Alertmanager not ready\n", None),
        ] {
            assert!(may_be(status, "text/plain; charset=utf-8"), "{status}");
            assert_eq!(state_of(status, text.as_bytes()), state, "{text}");
            // `"silence not found"`, and what go-openapi says of an `Accept`.
            assert!(!may_be(status, "application/json"));
        }
        // A silence that does not exist: no type and no body.
        assert!(!may_be_a_state(404, &HeaderMap::new()));
        assert!(!may_be(200, "text/plain"));
    }

    proptest! {
        // Fields that a later Mimir adds do not pass.
        #[test]
        fn no_field_that_we_do_not_know_passes(
            names in proptest::collection::vec("[a-zA-Z]{1,12}", 0..6),
        ) {
            let mut answer = json!({"config": {"original": "hunter2"}, "uptime": "now"});
            for name in names.iter().filter(|name| !["uptime", "versionInfo"].contains(&name.as_str())) {
                answer[name] = json!("hunter2");
            }
            let shown = without_configuration(answer.to_string().as_bytes()).unwrap();
            prop_assert!(!shown.contains("hunter2"));
        }
    }
}
