//! Matching a raw path against a route's path.

use crate::tenancy::OrganisationId;

/// Whether a raw path is one of a route's. `{organisation}` stands for an organisation, `{id}` for a
/// UUID, `{label}` for a label name and `{name}` for another, each a percent-encoded segment in
/// which `%2F` is a slash of the name (a rule namespace is often a file's path) and nothing else is
/// special. Label names are UTF-8 (`k8s.pod.name`); one that cannot stand in a path as it is has its
/// escaped form, `U__…`, which Mimir understands, too.
pub(super) fn path_matches(route: &str, path: &str) -> bool {
    if !route.contains('{') {
        return route == path;
    }
    let mut wanted = route.split('/');
    let mut given = path.split('/');
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some("{label}" | "{name}"), Some(segment)) if is_encoded_name(segment) => {}
            (Some("{organisation}"), Some(segment)) if OrganisationId::parse(segment).is_ok() => {}
            (Some("{id}"), Some(segment)) if is_uuid(segment) => {}
            (Some(literal), Some(segment)) if literal == segment => {}
            _ => return false,
        }
    }
}

/// A UUID in its usual form; `try_parse` knows others.
fn is_uuid(segment: &str) -> bool {
    segment.len() == uuid::fmt::Hyphenated::LENGTH && uuid::Uuid::try_parse(segment).is_ok()
}

/// One segment in percent-encoding (RFC 3986) that decodes to UTF-8 without control characters
/// and backslashes, and of which no part between slashes is `.`, `..` or empty.
fn is_encoded_name(segment: &str) -> bool {
    decode(segment).is_some_and(|name| {
        !name.chars().any(|c| c.is_control() || c == '\\')
            && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
    })
}

fn decode(segment: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            // pchar of RFC 3986 without ';', whose parameters some servers cut off.
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => byte,
            _ if b"-._~!$&'()*+,=:@".contains(&byte) => byte,
            _ => return None,
        });
    }
    String::from_utf8(decoded).ok()
}
