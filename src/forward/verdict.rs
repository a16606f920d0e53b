//! Whose fault a status of Mimir's is. Pure.
//!
//! Mimir's 5xx mean different things. A query that takes too long is 503, and one that fails
//! inside is 500, both as JSON with an `errorType`: they say something of the query and would be
//! the same elsewhere. An instance that is starting or stopping answers 503 in plain text, as does
//! one that has too much to do; a push that fails inside is 500 (by OTLP always 503). 501 is a
//! request that the configuration does not allow, 504 a query that was too slow for somebody in
//! between, 529 a tenant's rate limit of Mimir 2.x. Only what can be the instance's fault counts
//! against it, and only 503 is worth asking another instance.

use http::{HeaderMap, header};

use crate::route::Surface;

/// What a status says of the instance that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It works; the answer may still be a refusal of the tenant's request.
    Good,
    /// Nothing.
    Neutral,
    /// It is at fault.
    Faulty,
    /// It is at fault and did not do what was asked: another may.
    Unwilling,
}

/// Judges the head of an answer.
pub(super) fn judge(surface: Surface, status: u16, headers: &HeaderMap) -> Verdict {
    if status < 500 {
        return Verdict::Good;
    }
    let is_of_query = matches!(surface, Surface::Query | Surface::Rules) && is_json(headers);
    match status {
        _ if is_of_query => Verdict::Neutral,
        503 => Verdict::Unwilling,
        500 | 502 => Verdict::Faulty,
        _ => Verdict::Neutral,
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn verdict(surface: Surface, status: u16, content_type: &'static str) -> Verdict {
        let value = HeaderValue::from_static(content_type);
        judge(surface, status, &[(header::CONTENT_TYPE, value)].into_iter().collect())
    }

    #[test]
    fn a_query_that_fails_says_nothing_of_the_instance() {
        for status in [500, 503, 504] {
            let of_query = verdict(Surface::Query, status, "application/json; charset=utf-8");
            assert_eq!(of_query, Verdict::Neutral);
        }
    }

    #[test]
    fn an_instance_that_is_not_there_yet_is_unwilling() {
        let plain = "text/plain; charset=utf-8";
        assert_eq!(verdict(Surface::Query, 503, plain), Verdict::Unwilling);
        assert_eq!(verdict(Surface::Push, 503, plain), Verdict::Unwilling);
        // An answer to OTLP has the type of its request, which may be JSON.
        assert_eq!(verdict(Surface::Otlp, 503, "application/json"), Verdict::Unwilling);
        assert_eq!(verdict(Surface::Push, 500, plain), Verdict::Faulty);
    }

    proptest! {
        // A tenant's 4xx, whatever it is, is the tenant's.
        #[test]
        fn what_a_tenant_does_wrong_is_never_held_against_an_instance(
            status in (200u16..500).prop_union(529u16..530),
            surface in proptest::sample::select(Surface::ALL.to_vec()),
        ) {
            let verdict = verdict(surface, status, "text/plain");
            prop_assert!(matches!(verdict, Verdict::Good | Verdict::Neutral));
        }
    }
}
