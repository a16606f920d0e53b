//! Headers on their way through: hop-by-hop headers stay behind, the client's are filtered, and ours
//! are added.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::wire::write_header;
use crate::edge::{REQUEST_ID, RequestId};
use crate::mimir;
use crate::tenancy::TenantHeader;
use crate::trace::Span;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// The head of a request for Mimir, but for the framing of its body, which the connection adds. It is
/// written from the client's head without a map in between.
pub(super) struct Head<'a> {
    pub(super) client: &'a Parts,
    /// Names that pass besides Mimir's own.
    pub(super) pass: &'a [HeaderName],
    pub(super) id: &'a RequestId,
    pub(super) tenants: &'a TenantHeader,
    /// The instance's name.
    pub(super) host: &'a HeaderValue,
    /// Whether the answer may be encoded.
    pub(super) takes_encodings: bool,
    /// Mimir's own spans go below it.
    pub(super) attempt: &'a Span,
}

impl Head<'_> {
    /// Writes it. What `Connection` names is left out of the client's headers only, so that no client
    /// can have ours left out; of what we write ourselves, nothing of the client's passes.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let Parts { method, uri, headers: client, .. } = self.client;
        out.extend_from_slice(method.as_str().as_bytes());
        out.push(b' ');
        // The target in HTTP/2 has scheme and authority; Mimir gets path and query.
        out.extend_from_slice(
            uri.path_and_query().map_or("/", |target| target.as_str()).as_bytes(),
        );
        out.extend_from_slice(b" HTTP/1.1\r\n");
        write_header(out, &header::HOST, self.host.as_bytes());
        let names_some = client.contains_key(header::CONNECTION);
        let trace = self.attempt.header_for(client);
        for (name, value) in client {
            let wanted = mimir::passes(name) || self.pass.contains(name);
            if !wanted || self.is_ours(name) || (names_some && is_named_by_connection(client, name))
            {
                continue;
            }
            if trace.as_ref().is_some_and(|trace| trace.replaces(name)) {
                continue;
            }
            write_header(out, name, value.as_bytes());
        }
        if let Some(trace) = trace {
            write_header(out, &trace.name, trace.value.as_bytes());
        }
        if client.contains_key(header::TRAILER) {
            self.write_trailers(out);
        }
        if accepts_trailers(client) {
            write_header(out, &header::TE, b"trailers");
        }
        write_header(out, &REQUEST_ID, self.id.as_str().as_bytes());
        mimir::write_tenant(out, self.tenants);
    }

    /// Whether the client's word on this does not count.
    fn is_ours(&self, name: &HeaderName) -> bool {
        *name == header::CONTENT_LENGTH
            || *name == REQUEST_ID
            || (*name == header::ACCEPT_ENCODING && !self.takes_encodings)
    }

    #[cold]
    fn write_trailers(&self, out: &mut Vec<u8>) {
        let names = announced_trailers(&self.client.headers);
        if !names.is_empty() {
            let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
            write_header(out, &header::TRAILER, names.join(", ").as_bytes());
        }
    }
}

/// Removes what belongs to our connection to Mimir from its response, and adds the request's ID.
pub(super) fn for_client(headers: &mut HeaderMap, id: &RequestId) {
    // Most responses have none of these.
    if headers.keys().any(stays_here) {
        let named: Vec<HeaderName> =
            connection_tokens(headers).filter_map(|t| t.parse().ok()).collect();
        let own = headers.keys().filter(|name| stays_here(name)).cloned();
        for name in named.into_iter().chain(own.collect::<Vec<_>>()) {
            headers.remove(name);
        }
    }
    headers.insert(REQUEST_ID, id.header_value());
}

/// Whether a header of Mimir's is not for the client: it is about our connection, or says which page
/// may read a response, which is our decision; Prometheus' API repeats any origin.
fn stays_here(name: &HeaderName) -> bool {
    [header::CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE]
        .contains(name)
        || name.as_str().starts_with("access-control-")
}

fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::CONNECTION).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim)
}

fn is_named_by_connection(headers: &HeaderMap, name: &HeaderName) -> bool {
    connection_tokens(headers).any(|token| token.eq_ignore_ascii_case(name.as_str()))
}

/// The trailers that a client announces (RFC 9110, 6.6.2), without those that are not permitted.
pub(super) fn announced_trailers(client: &HeaderMap) -> Vec<HeaderName> {
    let value = client.get(header::TRAILER).and_then(|value| value.to_str().ok());
    let names = value.unwrap_or_default().split(',').filter_map(|name| name.trim().parse().ok());
    names.filter(|name| !mimir::is_never_forwarded(name)).collect()
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

    /// What Mimir reads.
    fn sent(client: &HeaderMap) -> HeaderMap {
        let mut request = http::Request::new(());
        *request.headers_mut() = client.clone();
        let (client, ()) = request.into_parts();
        let head = Head {
            client: &client,
            pass: &[],
            id: &RequestId::of(&HeaderMap::new()),
            tenants: &crate::tenancy::TenantId::parse("org-a").unwrap().into(),
            host: &HeaderValue::from_static("mimir"),
            takes_encodings: true,
            attempt: &Span::none(),
        };
        let mut written = Vec::new();
        head.write(&mut written);
        written.extend_from_slice(b"\r\n");
        let mut lines = [httparse::EMPTY_HEADER; 64];
        let mut read = httparse::Request::new(&mut lines);
        let length = read.parse(&written).unwrap().unwrap();
        assert_eq!(length, written.len());
        assert_eq!((read.method, read.path), (Some("GET"), Some("/")));
        let line = |line: &httparse::Header<'_>| {
            let value = HeaderValue::from_bytes(line.value).unwrap();
            (line.name.parse::<HeaderName>().unwrap(), value)
        };
        let mut headers = HeaderMap::new();
        for (name, value) in read.headers.iter().map(line) {
            headers.append(name, value);
        }
        headers
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
        assert_eq!(sent["host"], "mimir");
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
        assert_eq!(sent.keys_len(), 3, "{sent:?}");
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
        assert_eq!(sent["trailer"], "x-checksum");
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
                let ours =
                    ["x-request-id", "x-scope-orgid", "trailer", "te", "host"].contains(&name.as_str());
                prop_assert!(ours || mimir::passes(name), "{}", name);
            }
        }
    }
}
