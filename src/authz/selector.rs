//! The selector: the organisations that a request asks for, in `X-Scope-OrgID`.

use std::fmt;

use http::HeaderMap;

use crate::mimir::TENANT_HEADER;
use crate::tenancy::OrganisationId;

/// The selector of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selector {
    /// The header is not there.
    None,
    /// One organisation.
    One(OrganisationId),
    /// Several, each once: a federated read.
    Several(Vec<OrganisationId>),
    /// A name that no organisation can have. It is answered like an unknown organisation.
    Impossible,
}

/// Why a selector is refused before any membership is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectorFault {
    /// The header is there more than once, or has a comma, which is the same (RFC 9110, 5.3). Mimir
    /// would silently take the first.
    Several,
    /// The header is empty, or has an empty part: Mimir accepts the empty tenant in `a|`.
    Empty,
    /// `a|b`, but federated reads are off.
    Federated,
    /// `a|b` where one organisation is meant: on a write, and for rules.
    OnlyOne,
    /// More organisations than this.
    TooMany(usize),
}

/// Reads the header. `most` is how many organisations it may name, or none if federation is off.
pub(super) fn read(headers: &HeaderMap, most: Option<usize>) -> Result<Selector, SelectorFault> {
    let mut values = headers.get_all(TENANT_HEADER).iter();
    let Some(value) = values.next() else {
        return Ok(Selector::None);
    };
    if values.next().is_some() {
        return Err(SelectorFault::Several);
    }
    let Ok(name) = value.to_str() else {
        return Ok(Selector::Impossible);
    };
    if name.is_empty() {
        return Err(SelectorFault::Empty);
    }
    // No identifier has a comma in it.
    if name.contains(',') {
        return Err(SelectorFault::Several);
    }
    if name.contains('|') {
        return read_several(name, most.ok_or(SelectorFault::Federated)?);
    }
    Ok(OrganisationId::parse(name).map_or(Selector::Impossible, Selector::One))
}

fn read_several(names: &str, most: usize) -> Result<Selector, SelectorFault> {
    let mut organisations = Vec::new();
    let mut impossible = false;
    for name in names.split('|') {
        if name.is_empty() {
            return Err(SelectorFault::Empty);
        }
        match OrganisationId::parse(name) {
            Ok(organisation) if organisations.contains(&organisation) => {}
            Ok(organisation) => organisations.push(organisation),
            Err(_) => impossible = true,
        }
        if organisations.len() > most {
            return Err(SelectorFault::TooMany(most));
        }
    }
    if impossible {
        return Ok(Selector::Impossible);
    }
    if organisations.len() == 1 {
        return Ok(organisations.pop().map_or(Selector::Impossible, Selector::One));
    }
    Ok(Selector::Several(organisations))
}

impl fmt::Display for SelectorFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Several => f.write_str(
                "X-Scope-OrgID is sent twice or has a comma; send it once, with one organisation",
            ),
            Self::Empty => f.write_str(
                "X-Scope-OrgID is empty or has an empty part; name an organisation or omit the header",
            ),
            Self::Federated => {
                f.write_str("X-Scope-OrgID must name one organisation: federated reads are off")
            }
            Self::OnlyOne => f.write_str(
                "X-Scope-OrgID must name one organisation here: only queries take several",
            ),
            Self::TooMany(most) => {
                write!(f, "X-Scope-OrgID names too many organisations; the limit is {most}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let value = |bytes: &&[u8]| (TENANT_HEADER, HeaderValue::from_bytes(bytes).unwrap());
        values.iter().map(value).collect()
    }

    fn read_one(values: &[&[u8]]) -> Result<Selector, SelectorFault> {
        read(&headers(values), None)
    }

    fn read_few(value: &str) -> Result<Selector, SelectorFault> {
        read(&headers(&[value.as_bytes()]), Some(3))
    }

    fn id(name: &str) -> OrganisationId {
        OrganisationId::parse(name).unwrap()
    }

    #[test]
    fn one_header_names_one_organisation() {
        assert_eq!(read_one(&[]), Ok(Selector::None));
        assert_eq!(read_one(&[b"org-a"]), Ok(Selector::One(id("org-a"))));
        assert_eq!(read_one(&[b"org-a", b"org-a"]), Err(SelectorFault::Several));
        assert_eq!(read_one(&[b""]), Err(SelectorFault::Empty));
    }

    // RFC 9110, 5.3: a balancer may make one header of two.
    #[test]
    fn two_headers_in_one_are_two() {
        for names in [&b"a, a"[..], b"a,b", b"a,", b",", b"a|b,c"] {
            assert_eq!(read_one(&[names]), Err(SelectorFault::Several));
            assert_eq!(read(&headers(&[names]), Some(3)), Err(SelectorFault::Several));
        }
    }

    // dskit parses `tenant:key=value` and `a|b`.
    #[test]
    fn dskits_grammar_is_not_ours() {
        assert_eq!(read_one(&[b"a|b"]), Err(SelectorFault::Federated));
        assert_eq!(read_one(&[b"a|"]), Err(SelectorFault::Federated));
        for name in [&b"a:k=v"[..], b"a/../b", b"\xff", b"a b"] {
            assert_eq!(read_one(&[name]), Ok(Selector::Impossible));
        }
    }

    #[test]
    fn several_are_each_named_once_and_not_too_many() {
        assert_eq!(read_few("a|b"), Ok(Selector::Several(vec![id("a"), id("b")])));
        assert_eq!(read_few("b|a|b"), Ok(Selector::Several(vec![id("b"), id("a")])));
        assert_eq!(read_few("a|a|a|a|a"), Ok(Selector::One(id("a"))));
        assert_eq!(read_few("a|b|c|d"), Err(SelectorFault::TooMany(3)));
        for empty in ["a|", "|a", "|", "a||b"] {
            assert_eq!(read_few(empty), Err(SelectorFault::Empty), "{empty}");
        }
        for impossible in ["a|b:k=v", "a|b c", "a|../b"] {
            assert_eq!(read_few(impossible), Ok(Selector::Impossible), "{impossible}");
        }
    }

    #[test]
    fn other_spellings_select_nothing() {
        let mut headers = HeaderMap::new();
        for name in ["x_scope_orgid", "x-scope-org-id", "x-scope-orgid-"] {
            headers.insert(name, HeaderValue::from_static("org-b"));
        }
        assert_eq!(read(&headers, Some(3)), Ok(Selector::None));
    }

    proptest! {
        #[test]
        fn a_selected_organisation_is_what_was_sent(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            let headers: HeaderMap = [(TENANT_HEADER, value)].into_iter().collect();
            if let Ok(Selector::One(organisation)) = read(&headers, None) {
                prop_assert!(organisation.as_str().as_bytes().eq_ignore_ascii_case(&bytes));
                prop_assert!(!bytes.contains(&b'|'));
            }
        }

        #[test]
        fn several_selected_organisations_are_parts_of_what_was_sent(text in "[a-d|:]{0,12}") {
            let Ok(Selector::Several(organisations)) = read_few(&text) else { return Ok(()) };
            prop_assert!((2..=3).contains(&organisations.len()));
            prop_assert!(organisations.iter().all(|one| text.split('|').any(|part| part == one.as_str())));
        }
    }
}
