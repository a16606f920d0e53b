//! What must be true of every path that is served.

use http::{Method, Request};
use percent_encoding::percent_decode_str;

use super::{find, find_path};
use crate::fuzzing::fields;

/// A method and a target. A path that is taken is one of the table, segment by segment, and what stands
/// for a name can be read in no other way.
pub fn path(data: &[u8]) {
    let [method, target] = fields(data);
    let (Ok(method), Ok(target)) = (Method::from_bytes(method), std::str::from_utf8(target)) else {
        return;
    };
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    match find_path(&method, path, query) {
        Ok(route) => {
            assert!(route.methods.contains(&method));
            assert!(!query.is_some_and(|query| query.contains(';')));
            check(route.path, path);
        }
        Err(error) => {
            // It goes to unknown callers and into their terminals.
            let text = error.to_string();
            assert!(!text.is_empty() && !text.chars().any(char::is_control), "{text:?}");
            let allowed = error.allowed().unwrap_or_default();
            assert!(allowed.split(", ").all(|one| one != method.as_str()), "{allowed}");
        }
    }
    // As hyper gives it to us.
    let Ok(request) = Request::builder().method(&method).uri(target).body(()) else { return };
    let (parts, ()) = request.into_parts();
    if let Ok(route) = find(&parts) {
        assert!(parts.uri.scheme().is_none() && parts.uri.authority().is_none());
        assert!(target.starts_with(parts.uri.path()), "{target:?}");
        check(route.path, parts.uri.path());
    }
}

fn check(route: &str, path: &str) {
    let (mut wanted, mut given) = (route.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return,
            (Some(wanted), Some(given)) if wanted.starts_with('{') => name(wanted, given, path),
            (wanted, given) => assert_eq!(wanted, given, "{path:?}"),
        }
    }
}

fn name(wanted: &str, given: &str, path: &str) {
    let decoded: Vec<u8> = percent_decode_str(given).collect();
    let decoded = std::str::from_utf8(&decoded);
    assert!(decoded.is_ok(), "{path:?} has a name that is no UTF-8");
    let decoded = decoded.unwrap_or_default();
    assert!(
        !given.contains([';', '\\', '?', '#', ' ']) && !decoded.contains(['\0', '\\']),
        "{path:?}"
    );
    let mut parts = decoded.split('/');
    assert!(!parts.any(|part| matches!(part, "" | "." | "..")), "{path:?}");
    assert!(wanted == "{name}" || !decoded.contains('/'), "{path:?}");
}

/// A planted bug: as if something before the table decoded the path. The tests see that it is found.
#[cfg(test)]
pub(crate) fn planted(data: &[u8]) {
    let [_, path] = fields(data);
    let Ok(path) = std::str::from_utf8(path) else { return };
    let Ok(decoded) = percent_decode_str(path).decode_utf8() else { return };
    if let Ok(route) = find_path(&Method::GET, &decoded, None) {
        check(route.path, path);
    }
}
