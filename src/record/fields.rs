//! The fields of a request's line in the log. The writer takes names from here and nowhere else,
//! and `docs/reference/log.md` is written from it.

/// One field.
#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub meaning: &'static str,
    /// The name as it stands in a line, after another field: `,"name":`.
    pub(super) key: &'static str,
}

macro_rules! fields {
    ($($id:ident = $name:literal, $meaning:literal;)*) => {
        $(pub(super) const $id: Field =
            Field { name: $name, meaning: $meaning, key: concat!(",\"", $name, "\":") };)*
        /// All fields of a request's line, in their order.
        pub const FIELDS: &[Field] = &[$($id),*];
    };
}

fields! {
    TIMESTAMP = "timestamp", "The end of the request, RFC 3339 in UTC with milliseconds.";
    LEVEL = "level", "`WARN` for `outcome=\"failed\"`, else `INFO`: a client's mistake is no warning.";
    MESSAGE = "message", "Always `Request`.";
    REQUEST_ID = "request.id", "`X-Request-Id`: the client's own or a random one. Mimir and the client get it too.";
    CLIENT_IP = "client.ip", "The client's address: the peer's, or that of `listen.client_ip_header`.";
    HTTP_METHOD = "http.method", "The method, at most 32 characters of it.";
    HTTP_PATH = "http.path", "The path, without the query string, which holds a tenant's own expressions.";
    HTTP_VERSION = "http.version", "`1.0`, `1.1` or `2`, as the client spoke it.";
    ROUTE_SURFACE = "route.surface", "The surface; absent where no route was found.";
    PRINCIPAL_KIND = "principal.kind", "`user`, `device` or `service`; absent where the caller is not known.";
    PRINCIPAL_ID = "principal.id", "Who called, or whose genuine credential was refused.";
    ORGANISATION_ID = "organisation.id", "The organisation that was granted, several with `|` between them; on `/admin` the one of the path.";
    ORGANISATION_ASKED = "organisation.asked", "What `X-Scope-OrgID` named and was not granted.";
    TENANT_ID = "tenant.id", "The tenant that Mimir was asked for.";
    OUTCOME = "outcome", "`forwarded`, `answered` (by the proxy itself), `rejected`, `failed` or `cancelled` (by the client).";
    REASON = "reason", "Why it was rejected or failed: see [reasons](reasons.md).";
    DETAIL = "detail", "More about the reason than the client is told.";
    HTTP_STATUS = "http.status", "The status that the client got; 0 if it went away before.";
    RECEIVED_BYTES = "received_bytes", "Bytes of the request's body.";
    SENT_BYTES = "sent_bytes", "Bytes of the response's body.";
    UPSTREAM_ADDRESS = "upstream.address", "The instance that answered, or was asked last.";
    UPSTREAM_HEAD_MS = "upstream.head_ms", "Milliseconds to the head of its response, waiting and resends included.";
    DURATION_MS = "duration_ms", "Milliseconds to the last byte of the response.";
    TRACE_ID = "trace.id", "The trace, if this request is traced.";
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::reference::check;

    #[test]
    fn the_reference_of_the_log_is_that_of_the_code() {
        let mut page = String::from(
            "# Log\n\nWritten from the code (`src/record/fields.rs`) by a test; do not edit.\n\nJSON, \
             one object a line, to standard output (`log.format`). Tokens, keys, bodies and \
             expressions are never logged. Lines are handed over at most a tenth of a second late; \
             a reader that stops reading costs lines (`mimir_tenant_proxy_log_lines_dropped_total`) \
             and never requests.\n\n\
             ## Requests\n\nOne line a request, `message=\"Request\"`. A field without a value is \
             absent. More than `log.unserved_per_second` lines a second of one reason are not \
             written; a line with `message=\"Requests not logged\"`, `reason` and `requests` then \
             says how many, once a second.\n\n| field | meaning |\n|---|---|\n",
        );
        for Field { name, meaning, .. } in FIELDS {
            let _ = writeln!(page, "| `{name}` | {meaning} |");
        }
        page.push_str(
            "\n## Audit\n\nOne line for each authenticated request to `/admin` except `whoami` and `openapi.json`, whatever `log.filter` says: \
             `message=\"Admin action\"`, `target=\"audit\"`, with `action`, `principal.kind`, \
             `principal.id`, `organisation.id`, `target.id`, `outcome`, `client.ip` and \
             `request.id`.\n\n\
             Also one line for each permitted request that creates, changes or expires a silence: \
             `message=\"Silence\"`, the same fields, and `silence.ends_at` from the request. \
             `outcome` is `done`, `refused_by_mimir`, `client_gone` or a reason.\n",
        );
        check("docs/reference/log.md", &page);
    }
}
