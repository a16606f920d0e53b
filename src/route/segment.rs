//! Matching a raw path against a route's path.

use crate::tenancy::OrganisationId;

/// Whether a raw path is one of a route's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    Yes,
    No,
    /// It would be, but for a label or name that cannot be one.
    Unreadable,
}

/// Compares a raw path with a route's. `{organisation}` stands for an organisation, `{id}` for a
/// UUID, `{silence}` for one too, `{label}` for a label name and `{name}` for another, each a segment of UTF-8, raw or
/// percent-encoded. In a `{name}` `%2F` is a slash of the name (a rule namespace is often a file's
/// path); Mimir finds no label that way, but by the escaped form, `U__…`, which exists for every name.
pub(super) fn compare(route: &str, path: &str) -> Match {
    let on = |is_equal| if is_equal { Match::Yes } else { Match::No };
    if !route.contains('{') {
        return on(route == path);
    }
    let mut result = Match::Yes;
    let mut wanted = route.split('/');
    let mut given = path.split('/');
    loop {
        let matched = match (wanted.next(), given.next()) {
            (None, None) => return result,
            (Some("{label}" | "{name}" | "{silence}"), Some("")) => Match::No,
            (Some("{label}"), Some(segment)) => name(segment, false),
            (Some("{name}"), Some(segment)) => name(segment, true),
            (Some("{organisation}"), Some(segment)) => on(OrganisationId::parse(segment).is_ok()),
            (Some("{id}"), Some(segment)) => on(is_uuid(segment)),
            (Some("{silence}"), Some(segment)) if !is_uuid(segment) => Match::Unreadable,
            (Some("{silence}"), Some(_)) => Match::Yes,
            (Some(literal), Some(segment)) => on(literal == segment),
            _ => Match::No,
        };
        match matched {
            Match::Yes => {}
            Match::No => return Match::No,
            Match::Unreadable => result = Match::Unreadable,
        }
    }
}

/// A UUID in its usual form; `try_parse` knows others.
fn is_uuid(segment: &str) -> bool {
    segment.len() == uuid::fmt::Hyphenated::LENGTH && uuid::Uuid::try_parse(segment).is_ok()
}

/// A segment that decodes to UTF-8 without NUL and backslashes, and of which no part between slashes
/// is `.`, `..` or empty: whatever stands between us and Mimir, and Mimir itself, take it for one
/// segment. Control characters of a name are percent-encoded here, and harmless so.
fn name(segment: &str, takes_slashes: bool) -> Match {
    let is_name = decode(segment).is_some_and(|name| {
        !name.contains(['\0', '\\'])
            && (takes_slashes || !name.contains('/'))
            && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
    });
    if is_name { Match::Yes } else { Match::Unreadable }
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
            // Some servers cut off what follows a ';', and take '\' for '/'. Go takes the rest.
            b';' | b'\\' | b'?' | b'#' => return None,
            _ if byte.is_ascii_control() || byte == b' ' => return None,
            _ => byte,
        });
    }
    String::from_utf8(decoded).ok()
}
