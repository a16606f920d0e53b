//! The organisation that a caller asks for.

use std::fmt;

use http::HeaderMap;

use crate::mimir::TENANT_HEADER;
use crate::tenancy::OrganisationId;

/// What `X-Scope-OrgID` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selector {
    /// The header is not there.
    None,
    /// One organisation.
    One(OrganisationId),
    /// A name that no organisation can have. The answer is that for an unknown one.
    Impossible,
}

/// Why a selector is refused before anybody's membership is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectorFault {
    /// The header is there more than once; Mimir would take the first and say nothing.
    Several,
    /// The header is there and empty.
    Empty,
    /// `a|b`: federated reads are not on.
    Federated,
}

pub(super) fn read(headers: &HeaderMap) -> Result<Selector, SelectorFault> {
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
    if name.contains('|') {
        return Err(SelectorFault::Federated);
    }
    Ok(OrganisationId::parse(name).map_or(Selector::Impossible, Selector::One))
}

impl fmt::Display for SelectorFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Several => "more than one X-Scope-OrgID header; send one",
            Self::Empty => "X-Scope-OrgID is empty; name an organisation or leave it out",
            Self::Federated => "X-Scope-OrgID must name one organisation; federated reads are off",
        })
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

    fn one(name: &str) -> Selector {
        Selector::One(OrganisationId::parse(name).unwrap())
    }

    #[test]
    fn one_header_names_one_organisation() {
        assert_eq!(read(&headers(&[])), Ok(Selector::None));
        assert_eq!(read(&headers(&[b"org-a"])), Ok(one("org-a")));
        assert_eq!(read(&headers(&[b"org-a", b"org-a"])), Err(SelectorFault::Several));
        assert_eq!(read(&headers(&[b""])), Err(SelectorFault::Empty));
    }

    // dskit parses `tenant:key=value` and `a|b`.
    #[test]
    fn dskits_grammar_is_not_ours() {
        assert_eq!(read(&headers(&[b"a|b"])), Err(SelectorFault::Federated));
        assert_eq!(read(&headers(&[b"a|"])), Err(SelectorFault::Federated));
        for name in [&b"a:k=v"[..], b"a, b", b"a/../b", b"\xff", b"a b"] {
            assert_eq!(read(&headers(&[name])), Ok(Selector::Impossible));
        }
    }

    #[test]
    fn other_spellings_select_nothing() {
        let mut headers = HeaderMap::new();
        for name in ["x_scope_orgid", "x-scope-org-id", "x-scope-orgid-"] {
            headers.insert(name, HeaderValue::from_static("org-b"));
        }
        assert_eq!(read(&headers), Ok(Selector::None));
    }

    proptest! {
        #[test]
        fn a_selected_organisation_is_what_was_sent(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            let headers: HeaderMap = [(TENANT_HEADER, value)].into_iter().collect();
            if let Ok(Selector::One(organisation)) = read(&headers) {
                prop_assert!(organisation.as_str().as_bytes().eq_ignore_ascii_case(&bytes));
                prop_assert!(!bytes.contains(&b'|'));
            }
        }
    }
}
