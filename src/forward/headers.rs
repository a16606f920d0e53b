//! Headers on their way through: hop-by-hop headers go first, then the client's are filtered, then
//! ours are added.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::edge::{REQUEST_ID, RequestId};
use crate::mimir;
use crate::tenancy::TenantHeader;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// The headers for Mimir. The order matters: headers that `Connection` names are removed before
/// ours are added, so that no client can have ours removed.
pub(super) fn for_upstream(
    client: &HeaderMap,
    pass: &[HeaderName],
    id: &RequestId,
    tenants: &TenantHeader,
) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(client.len() + 4);
    for (name, value) in client {
        let wanted = mimir::passes(name) || pass.contains(name);
        if wanted && !is_named_by_connection(client, name) {
            headers.append(name.clone(), value.clone());
        }
    }
    if let Some(trailers) = announced_trailers(client) {
        headers.insert(header::TRAILER, trailers);
    }
    if accepts_trailers(client) {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    headers.insert(REQUEST_ID, id.header_value());
    mimir::set_tenant(&mut headers, tenants);
    headers
}

/// Removes what belongs to our connection to Mimir from its response, and adds the request's ID.
pub(super) fn for_client(headers: &mut HeaderMap, id: &RequestId) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> =
            connection_tokens(headers).filter_map(|t| t.parse().ok()).collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in [
        header::CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        headers.remove(name);
    }
    // Which page may read a response is our decision; Prometheus' API repeats any origin.
    let leave: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("access-control-"))
        .cloned()
        .collect();
    for name in leave {
        headers.remove(name);
    }
    headers.insert(REQUEST_ID, id.header_value());
}

fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::CONNECTION).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim)
}

fn is_named_by_connection(headers: &HeaderMap, name: &HeaderName) -> bool {
    connection_tokens(headers).any(|token| token.eq_ignore_ascii_case(name.as_str()))
}

/// The trailers that a client announces (RFC 9110, 6.6.2), without those that are not permitted.
fn announced_trailers(client: &HeaderMap) -> Option<HeaderValue> {
    let value = client.get(header::TRAILER)?.to_str().ok()?;
    let allowed = |name: &&str| {
        name.parse::<HeaderName>().is_ok_and(|name| !mimir::is_never_forwarded(&name))
    };
    let names: Vec<&str> = value.split(',').map(str::trim).filter(allowed).collect();
    if names.is_empty() { None } else { HeaderValue::from_str(&names.join(", ")).ok() }
}

fn accepts_trailers(client: &HeaderMap) -> bool {
    client.get_all(header::TE).iter().any(|value| {
        value.to_str().is_ok_and(|value| {
            value.split(',').any(|one| one.trim().eq_ignore_ascii_case("trailers"))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(headers: &[(&str, &str)]) -> HeaderMap {
        headers
            .iter()
            .map(|(name, value)| {
                (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap())
            })
            .collect()
    }

    fn sent(client: &HeaderMap) -> HeaderMap {
        let tenant = crate::tenancy::TenantId::parse("org-a").unwrap().into();
        for_upstream(client, &[], &RequestId::of(&HeaderMap::new()), &tenant)
    }

    fn tenants(headers: &HeaderMap) -> Vec<&str> {
        headers.get_all("x-scope-orgid").iter().map(|value| value.to_str().unwrap()).collect()
    }

    // CVE-2021-32813 and CVE-2024-45410.
    #[test]
    fn connection_cannot_strip_what_we_insert() {
        let client = map(&[
            ("connection", "X-Scope-OrgID, x-request-id, host, traceparent"),
            ("x-scope-orgid", "org-b"),
            ("traceparent", "00-a-b-01"),
        ]);
        let sent = sent(&client);
        assert_eq!(tenants(&sent), ["org-a"]);
        assert!(!sent.contains_key("host")); // it is the instance's, and goes in when one is chosen
        assert!(sent.contains_key("x-request-id"));
        assert!(!sent.contains_key("traceparent") && !sent.contains_key("connection"));
    }

    // CVE-2025-64484, CVE-2021-32777.
    #[test]
    fn no_spelling_of_a_steering_header_passes() {
        let client = map(&[
            ("x-scope-orgid", "org-b"),
            ("X-SCOPE-ORGID", "org-c"),
            ("x_scope_orgid", "org-b"),
            ("x-scope_orgid", "org-b"),
            ("x-mimir-skiplabelnamevalidation", "true"),
            ("authorization", "Bearer secret"),
            ("apikey", "secret"),
            ("cookie", "secret"),
            ("x-forwarded-for", "1.2.3.4"),
            ("sharding-control", "1"),
            ("x-unknown", "1"),
        ]);
        let sent = sent(&client);
        assert_eq!(tenants(&sent), ["org-a"]);
        assert_eq!(sent.keys_len(), 2, "{sent:?}");
        assert!(!format!("{sent:?}").contains("secret"));
    }

    #[test]
    fn headers_that_protocols_need_pass() {
        let names = [
            "content-type",
            "content-encoding",
            "x-prometheus-remote-write-version",
            "user-agent",
            "accept",
            "accept-encoding",
            "traceparent",
            "tracestate",
            "baggage",
            "retry-attempt",
        ];
        let client = map(&names.map(|name| (name, "value")));
        let sent = sent(&client);
        for name in names {
            assert_eq!(sent[name], "value");
        }
    }

    #[test]
    fn only_harmless_trailers_are_announced() {
        let sent =
            sent(&map(&[("trailer", "X-Checksum, X-Scope-OrgID"), ("te", "gzip, trailers")]));
        assert_eq!(sent["trailer"], "X-Checksum");
        assert_eq!(sent["te"], "trailers");
    }

    #[test]
    fn headers_of_mimirs_connection_do_not_reach_the_client() {
        let mut headers = map(&[
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("retry-after", "7"),
            ("x-prometheus-remote-write-samples-written", "3"),
        ]);
        for_client(&mut headers, &RequestId::of(&HeaderMap::new()));
        assert_eq!(headers.keys_len(), 3, "{headers:?}");
        assert_eq!(headers["retry-after"], "7");
    }

    proptest! {
        #[test]
        fn there_is_always_exactly_one_tenant_header_and_it_is_ours(
            headers in proptest::collection::vec(("[xX][-_.][sS]cope[-_.][oO]rg[iI][dD]|connection|te|trailer|[a-z-]{1,20}", "[ -~]{0,30}"), 0..12),
        ) {
            let client: HeaderMap = headers.iter().filter_map(|(name, value)| {
                Some((name.parse::<HeaderName>().ok()?, value.parse::<HeaderValue>().ok()?))
            }).collect();
            let sent = sent(&client);
            prop_assert_eq!(tenants(&sent), ["org-a"]);
            for name in sent.keys() {
                let ours = ["x-request-id", "x-scope-orgid", "trailer", "te"].contains(&name.as_str());
                prop_assert!(ours || mimir::passes(name), "{}", name);
            }
        }
    }
}
