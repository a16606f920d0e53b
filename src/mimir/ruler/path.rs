//! Names of namespaces and groups as path segments.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The longest group name. Mimir uses its Base64 as a file name, and 189 bytes fill the 255 bytes
/// of a file system; it answers 500 to a longer one.
pub const MAX_NAME_BYTES: usize = 189;

/// Whether requests to Mimir can name this namespace or group. Mimir treats a name as a path and
/// rejects one that leads out (Go's `filepath.IsLocal`). URL normalisation drops a `.` segment, so
/// deleting a group named `.` would delete its namespace.
pub fn is_addressable(name: &str) -> bool {
    if name.is_empty() || name == "." || name.starts_with('/') || name.contains('\0') {
        return false;
    }
    let mut depth = 0_usize;
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." if depth == 0 => return false,
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    // URL normalisation makes `.` of `a/..`.
    depth > 0
}

/// Everything but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Encodes a name as one path segment, `/` included.
pub(super) fn encode(name: &str) -> String {
    utf8_percent_encode(name, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_slash_stays_within_its_segment() {
        assert_eq!(encode("a/b c%2F"), "a%2Fb%20c%252F");
        assert_eq!(encode("ä"), "%C3%A4");
    }

    #[test]
    fn names_that_lead_elsewhere_are_not_addressable() {
        for name in ["", ".", "..", "/", "/a", "../a", "a/../..", "a/../../b", "a/..", "./", "a\0b"]
        {
            assert!(!is_addressable(name), "{name:?}");
        }
        for name in ["a", "a/b", "a//b", "...", "..a", "a/../b", " ", "%2e%2e", "ä", "\n", "a/"] {
            assert!(is_addressable(name), "{name:?}");
        }
    }

    proptest! {
        // The url crate normalises `..`, and even `%2E%2E`.
        #[test]
        fn an_addressable_name_survives_url_normalisation(name in "[./a%2eE]{1,8}|\\PC{0,12}") {
            prop_assume!(is_addressable(&name));
            let path = format!("/rules/namespace/{}", encode(&name));
            let url = url::Url::parse(&format!("http://mimir{path}")).unwrap();
            prop_assert_eq!(url.path(), path);
        }
    }
}
