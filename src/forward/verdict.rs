//! Who is at fault for a status of Mimir. Pure.
//!
//! Mimir's 5xx have different meanings. A query that takes too long is 503, and one that fails
//! inside is 500, both as JSON with an `errorType`: they are about the query and would be the same
//! elsewhere. An instance that is starting or stopping answers 503 in plain text, and so does an
//! overloaded one; a push that fails inside is 500 (by OTLP always 503). 501 is a request that the
//! configuration does not allow, 504 a query that was too slow for a proxy in between, 529 a
//! tenant's rate limit of Mimir 2.x. The Alertmanager's own errors are JSON too; a tenant with more
//! concurrent reads than Mimir allows gets a 503 in plain text, which only its text tells from that
//! of a starting instance. Only statuses that can be the instance's fault count against it, and only a
//! 503 is worth a resend, or a request for which the instance has [lost](is_about_a_lost_part) a part of
//! Mimir.

use http::{HeaderMap, HeaderValue, header};

use crate::request_body::Pace;
use crate::route::Surface;

/// How much of a refusal is read to find its cause.
pub(super) const REFUSAL_BYTES: usize = 4 << 10;

/// What a status says about its instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InstanceVerdict {
    /// It works; the response may still be a refusal of the tenant's request.
    Good,
    /// Nothing.
    Neutral,
    /// It is at fault.
    Faulty,
    /// It is at fault and has not executed the request: another may.
    Unavailable,
    /// It works, but it has lost another part of Mimir that the request needs: another instance may
    /// reach that part.
    Severed,
}

/// Judges the head of a response.
pub(super) fn judge(surface: Surface, status: u16, headers: &HeaderMap) -> InstanceVerdict {
    if status < 500 {
        return InstanceVerdict::Good;
    }
    let has_own_errors = matches!(surface, Surface::Query | Surface::Rules | Surface::Alerts);
    let is_of_query = has_own_errors && is_of_type(headers, b"application/json");
    match status {
        _ if is_of_query => InstanceVerdict::Neutral,
        503 => InstanceVerdict::Unavailable,
        500 | 502 => InstanceVerdict::Faulty,
        _ => InstanceVerdict::Neutral,
    }
}

/// Whether a 503 of the Alertmanager means that the tenant has too many concurrent reads
/// (`max_concurrent_get_requests_per_tenant`). A resend would only add to them.
pub(super) fn is_about_own_reads(text: &[u8]) -> bool {
    text.starts_with(b"Limit of concurrent GET requests reached")
}

/// Whether a 500 says that Mimir could not read a request's parameters, which it does before anything else
/// (`pkg/api/activity_tracking.go`): a remote read with a matcher that is no regular expression.
pub(super) fn is_about_parameters(text: &[u8]) -> bool {
    text.starts_with(b"failed to parse request params for activity tracking")
}

/// Whether an answer may mean that the instance has lost a part of Mimir that it needs, which its text
/// then says. Mimir's statuses differ by path for the same cause: 500 for queries and pushes, 422 for
/// label names, now and then 400.
pub(super) fn may_be_about_a_lost_part(surface: Surface, status: u16, headers: &HeaderMap) -> bool {
    // Nobody reads a compressed text here. Errors are too short for Mimir to compress them.
    let may_be = match surface {
        Surface::Query => matches!(status, 400 | 422 | 500 | 503),
        // By OTLP it is 503, which needs no text.
        Surface::Push => status == 500,
        Surface::Otlp | Surface::Rules | Surface::Alerts | Surface::Admin => false,
    };
    may_be && !headers.contains_key(header::CONTENT_ENCODING)
}

/// Whether an answer that [may be](may_be_about_a_lost_part) about a lost part is. Seen when an ingester
/// or a querier dies or starts, and when Consul is away for a minute (`scripts/chaos`). The text must
/// begin so, because further on errors quote the tenant's data.
pub(super) fn is_about_a_lost_part(text: &[u8]) -> bool {
    const FIELD: &[u8] = b"\"error\":\"";
    let text = match position(text, FIELD) {
        // Behind `{"status":"error","errorType":"execution",`.
        Some(at) if text.starts_with(b"{") && at <= 64 => &text[at + FIELD.len()..],
        _ => text,
    };
    // What Prometheus' engine puts in front.
    let text = text.strip_prefix(b"expanding series: ").unwrap_or(text);
    let begins = |words: &[u8]| text.starts_with(words);
    let lacks_replicas = |text: &[u8]| {
        let required = position(text, b" live replicas required");
        text.starts_with(b"at least ") && required.is_some_and(|at| at < 16)
    };
    // A query that another part's end took along. No client has cancelled it: one that has gets no answer.
    const CANCELLED: &[u8] = br#"invalid parameter \"query\": context canceled""#;
    begins(b"rpc error: code = Unavailable desc = ")
        || begins(b"send data to ingesters: ")
        // Its port is open before it is ready.
        || begins(b"frontend not running")
        || begins(b"distributor is unavailable (current state: ")
        || begins(CANCELLED)
        || begins(b"too many unhealthy instances in the ring")
        || lacks_replicas(text)
        || (begins(b"failed to receive response from querier '")
            && text.ends_with(b"': querier disconnected ungracefully"))
}

/// Whether a refusal may be about an upload that was too slow for Mimir, which its text then says.
///
/// Mimir answers 400 if it could not read a body within `server.http-read-timeout`, which every
/// sender takes for a final refusal; balancers answer 408. A refusal without a slow upload (413,
/// 429, a 400 for the contents of the body) is the tenant's. It is checked even if nothing was slow
/// here: Mimir itself may have paused.
pub(super) fn may_be_about_a_slow_upload(status: u16, pace: Pace) -> bool {
    matches!(status, 400 | 408) || (pace != Pace::Quick && (400..500).contains(&status))
}

/// Whether Mimir never answers a push so: the answer comes from something in front of Mimir, such as a
/// balancer without a back end, a redirect to https or a server's page, or from a wrong address. It is
/// the operator's to fix, and stock senders drop their data on each of them, or take them for success.
///
/// Mimir refuses pushes with 400, 413, 415 and 429 (`pkg/distributor`), in plain text, JSON or protobuf,
/// or, for Influx, without a word. Its 499 says that the request was cancelled, which its client has not
/// done if the answer still finds it. Its 501 says that its ingesters take no pushes, by the operator's mistake.
pub(super) fn is_misdirected(
    surface: Surface,
    status: u16,
    headers: &HeaderMap,
    has_body: bool,
) -> bool {
    // The request's `Upgrade` does not pass, so there was nothing to switch to.
    if status == 101 {
        return true;
    }
    if !matches!(surface, Surface::Push | Surface::Otlp) {
        return false;
    }
    let is_page = is_of_type(headers, b"text/html");
    match status {
        200..=299 => is_page,
        // Go's server answers HTTP on a port with TLS so.
        400 => is_page || (has_body && !headers.contains_key(header::CONTENT_TYPE)),
        413 | 415 | 422 => is_page,
        // 408 is about a slow upload.
        408 | 429 => false,
        300..=499 => true,
        // Not every sender comes back: Vector drops its data (`src/sinks/util/http.rs`).
        501 => true,
        // By OTLP only three statuses of 5xx are tried again, and Mimir gives no other.
        500 | 505..=599 => surface == Surface::Otlp,
        _ => false,
    }
}

/// Whether a refusal that [may be](may_be_about_a_slow_upload) about a slow upload is. The text is
/// that of Go's `net.OpError`, inside of whatever Mimir wraps it in (plain text, JSON or protobuf);
/// for Influx, Mimir gives no text at all. If nothing was slow here, the text must begin with it,
/// because other refusals quote the tenant's data further on.
pub(super) fn is_about_a_slow_upload(status: u16, text: &[u8], pace: Pace) -> bool {
    if status == 408 || (status == 400 && text.is_empty() && pace == Pace::Awaited) {
        return true;
    }
    let begins = |words: &[u8]| position(text, words).is_some_and(|at| at <= LONGEST_WRAPPING);
    if pace == Pace::Quick
        && !begins(b"read body: read tcp ")
        && !begins(b"read write request: read tcp ")
    {
        return false;
    }
    after(text, b"read tcp ").is_some_and(|rest| after(rest, b": i/o timeout").is_some())
}

/// The prefix of Mimir's text: `{"code":400,"message":"`, or protobuf's tags and lengths.
const LONGEST_WRAPPING: usize = 24;

/// What follows a phrase in a text.
fn after<'a>(text: &'a [u8], words: &[u8]) -> Option<&'a [u8]> {
    text.get(position(text, words)? + words.len()..)
}

fn position(text: &[u8], words: &[u8]) -> Option<usize> {
    text.windows(words.len()).position(|window| window == words)
}

/// Whether an answer has a media type, whatever its parameters.
fn is_of_type(headers: &HeaderMap, media_type: &[u8]) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let begins = content_type.and_then(|value| value.get(..media_type.len()));
    begins.is_some_and(|begins| begins.eq_ignore_ascii_case(media_type))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn verdict(surface: Surface, status: u16, content_type: &'static str) -> InstanceVerdict {
        let value = HeaderValue::from_static(content_type);
        judge(surface, status, &[(header::CONTENT_TYPE, value)].into_iter().collect())
    }

    #[test]
    fn a_failing_query_says_nothing_about_the_instance() {
        for status in [500, 503, 504] {
            let of_query = verdict(Surface::Query, status, "application/json; charset=utf-8");
            assert_eq!(of_query, InstanceVerdict::Neutral);
        }
    }

    #[test]
    fn a_starting_instance_is_unavailable() {
        let plain = "text/plain; charset=utf-8";
        assert_eq!(verdict(Surface::Query, 503, plain), InstanceVerdict::Unavailable);
        assert_eq!(verdict(Surface::Push, 503, plain), InstanceVerdict::Unavailable);
        // A response to OTLP has the type of its request, which may be JSON.
        assert_eq!(verdict(Surface::Otlp, 503, "application/json"), InstanceVerdict::Unavailable);
        assert_eq!(verdict(Surface::Push, 500, plain), InstanceVerdict::Faulty);
    }

    // Mimir's Alertmanager: the tenant's faults and those of its requests are JSON.
    #[test]
    fn the_alertmanager_s_own_errors_say_nothing_of_the_instance() {
        let of = |status, content_type| verdict(Surface::Alerts, status, content_type);
        assert_eq!(of(500, "application/json"), InstanceVerdict::Neutral);
        assert_eq!(of(500, "text/plain; charset=utf-8"), InstanceVerdict::Faulty);
        assert_eq!(of(503, "text/plain; charset=utf-8"), InstanceVerdict::Unavailable);
        for (text, is_own) in [
            ("Limit of concurrent GET requests reached (1), try again later.\n", true),
            ("Limit of concurrent GET requests reached (16), try again later.\n\n", true),
            ("Alertmanager not ready\n", false),
            ("", false),
            ("a Limit of concurrent GET requests reached", false),
        ] {
            assert_eq!(is_about_own_reads(text.as_bytes()), is_own, "{text}");
        }
    }

    // Mimir 3: `http.Error`, which adds the line break.
    #[test]
    fn a_matcher_that_is_no_regular_expression_is_no_fault_of_the_instance() {
        let text: &[u8] = b"failed to parse request params for activity tracking\n";
        assert!(is_about_parameters(text) && !is_about_a_lost_part(text));
        for other in
            ["", "failed to parse", "x: failed to parse request params for activity tracking"]
        {
            assert!(!is_about_parameters(other.as_bytes()), "{other}");
        }
        // The text is looked at.
        assert!(may_be_about_a_lost_part(Surface::Query, 500, &HeaderMap::new()));
    }

    #[test]
    fn a_lost_part_is_told_by_how_the_text_begins() {
        let lost = [
            r#"{"status":"error","errorType":"execution","error":"rpc error: code = Unavailable desc = connection error"}"#,
            r#"{"status":"error","errorType":"internal","error":"expanding series: rpc error: code = Unavailable desc = x"}"#,
            r#"{"status":"error","errorType":"internal","error":"too many unhealthy instances in the ring"}"#,
            r#"{"status":"error","errorType":"internal","error":"at least 2 live replicas required, could only find 1 - unhealthy instances: 10.0.0.9:9095"}"#,
            "failed to receive response from querier 'vm': querier disconnected ungracefully",
            "distributor is unavailable (current state: New)",
            r#"{"status":"error","errorType":"unavailable","error":"frontend not running (is Starting), timed out waiting for it to be running after 2s"}"#,
            "send data to ingesters: at least 2 live replicas required, could only find 1 - unhealthy instances: 10.0.0.9:9095",
            r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": context canceled"}"#,
        ];
        for text in lost {
            assert!(is_about_a_lost_part(text.as_bytes()), "{text}");
        }
        let own = [
            "",
            "{}",
            r#"{"status":"error","errorType":"execution","error":"query processing would load too many samples"}"#,
            r#"{"status":"error","errorType":"execution","error":"x \"rpc error: code = Unavailable desc = \""}"#,
            r#"{"status":"error","errorType":"internal","error":"rpc error: code = Internal desc = x"}"#,
            r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 1:1: parse error: context canceled"}"#,
            r#"{"data":"long enough to be somewhere else, as what a tenant has written could be","error":"rpc error: code = Unavailable desc = x"}"#,
            "at least 2 of my series are called \" live replicas required\"",
        ];
        for text in own {
            assert!(!is_about_a_lost_part(text.as_bytes()), "{text}");
        }
        let plain = HeaderMap::new();
        for surface in Surface::ALL.iter().copied() {
            for status in [400, 422, 500, 503] {
                let may_be = may_be_about_a_lost_part(surface, status, &plain);
                let is_push = surface == Surface::Push && status == 500;
                assert_eq!(may_be, surface == Surface::Query || is_push, "{surface:?} {status}");
            }
        }
        for status in [200, 429, 504] {
            assert!(!may_be_about_a_lost_part(Surface::Query, status, &plain), "{status}");
        }
        let gzip = (header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(!may_be_about_a_lost_part(Surface::Query, 500, &[gzip].into_iter().collect()));
    }

    const READ_TIMEOUT: &str = "read tcp 10.0.0.7:8080->10.0.0.9:51234: i/o timeout";

    #[test]
    fn a_refusal_for_a_read_timeout_is_about_a_slow_upload() {
        let plain = format!("read body: {READ_TIMEOUT}\n");
        let escaped = READ_TIMEOUT.replace('>', "\\u003e");
        let json = format!(r#"{{"status":"error","errorType":"bad_data","error":"{escaped}"}}"#);
        let otlp = format!(r#"{{"code":400,"message":"read write request: {escaped}"}}"#);
        for text in [&plain, &otlp] {
            assert!(is_about_a_slow_upload(400, text.as_bytes(), Pace::Quick), "{text}");
        }
        // Other refusals quote the tenant's data.
        let tenants =
            format!("received a series with an invalid label: 'read body: {READ_TIMEOUT}'");
        assert!(!is_about_a_slow_upload(400, tenants.as_bytes(), Pace::Quick));
        for text in [plain, json] {
            for pace in [Pace::Slow, Pace::Unfinished, Pace::Awaited] {
                assert!(may_be_about_a_slow_upload(400, pace));
                assert!(is_about_a_slow_upload(400, text.as_bytes(), pace));
            }
        }
        assert!(may_be_about_a_slow_upload(408, Pace::Quick));
        assert!(is_about_a_slow_upload(408, b"", Pace::Quick));
        // Influx.
        assert!(is_about_a_slow_upload(400, b"", Pace::Awaited));
        for pace in [Pace::Slow, Pace::Unfinished] {
            assert!(!is_about_a_slow_upload(400, b"", pace));
        }
    }

    // Redirects to https, a balancer's default back end, Mimir's own 401 without a tenant.
    #[test]
    fn an_answer_that_mimir_never_gives_to_a_push_is_misdirected() {
        let of_type = |content_type| {
            [(header::CONTENT_TYPE, HeaderValue::from_static(content_type))].into_iter().collect()
        };
        let (none, plain) = (HeaderMap::new(), of_type("text/plain; charset=utf-8"));
        let page = of_type("Text/HTML; charset=iso-8859-1");
        for surface in Surface::ALL.iter().copied() {
            let is_push = matches!(surface, Surface::Push | Surface::Otlp);
            let is = |status, headers, has_body| is_misdirected(surface, status, headers, has_body);
            // The table of docs/operations/upstreams.md. 408 is about a slow upload, and becomes a 503, too.
            for status in 200..600 {
                let is_misdirected = match status {
                    200..=299 | 400 | 408 | 413 | 415 | 422 | 429 | 502..=504 => false,
                    300..=499 | 501 => is_push,
                    // By OTLP no sender comes back after these, and by remote write every one does.
                    _ => surface == Surface::Otlp,
                };
                assert_eq!(is(status, &plain, true), is_misdirected, "{surface:?} {status}");
                assert_eq!(is(status, &none, false), is_misdirected, "{surface:?} {status}");
            }
            for status in [200, 400, 413, 415, 422] {
                assert_eq!(is(status, &page, true), is_push, "{surface:?} {status}");
            }
            // Whatever it says, senders come back.
            for status in [408, 429, 502, 503, 504] {
                assert!(!is(status, &page, true), "{surface:?} {status}");
            }
            assert_eq!(is(400, &none, true), is_push, "{surface:?}");
            assert!(is(101, &none, false));
        }
    }

    fn pace() -> impl Strategy<Value = Pace> {
        proptest::sample::select(vec![Pace::Quick, Pace::Slow, Pace::Unfinished, Pace::Awaited])
    }

    proptest! {
        // Refusals for contents, size or rate are forwarded.
        #[test]
        fn a_refusal_for_another_reason_is_forwarded(
            status in 400u16..500,
            text in "(received a series whose|the request has been rejected|err-mimir|read tcp |i/o timeout)[ a-z\"{}=]{0,40}",
            pace in pace(),
        ) {
            prop_assume!(status != 408);
            prop_assert!(!is_about_a_slow_upload(status, text.as_bytes(), pace));
            let may_be = status == 400 || pace != Pace::Quick;
            prop_assert_eq!(may_be_about_a_slow_upload(status, pace), may_be);
        }

        #[test]
        fn only_a_4xx_is_about_a_slow_upload(
            status in (100u16..400).prop_union(500u16..600),
            pace in pace(),
        ) {
            prop_assert!(!may_be_about_a_slow_upload(status, pace));
        }

        // A tenant's 4xx, whatever it is, is the tenant's.
        #[test]
        fn a_tenants_fault_never_counts_against_an_instance(
            status in (200u16..500).prop_union(529u16..530),
            surface in proptest::sample::select(Surface::ALL.to_vec()),
        ) {
            let verdict = verdict(surface, status, "text/plain");
            prop_assert!(matches!(verdict, InstanceVerdict::Good | InstanceVerdict::Neutral));
        }
    }
}
