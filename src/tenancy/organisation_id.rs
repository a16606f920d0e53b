//! [`OrganisationId`]: which customer, in one canonical spelling.

use std::fmt;

use bytes::Bytes;

/// An organisation's identifier in canonical form: a UUID is lower-cased, anything else is kept
/// as it is (and is case-sensitive). Two spellings of one UUID must not become two tenants.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrganisationId(Bytes);

/// Why a text is no organisation identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrganisationIdError {
    #[error("the organisation is empty")]
    Empty,
    #[error("the organisation is longer than {} bytes", OrganisationId::MAX_BYTES)]
    TooLong,
    #[error("the organisation holds a character other than 0-9 A-Z a-z ! _ . * ' ( ) -")]
    Character,
    #[error("the organisation is . or .., which Mimir reserves")]
    Reserved,
}

impl OrganisationId {
    /// The length of the longest identifier, Mimir's own limit for a tenant ID.
    pub const MAX_BYTES: usize = super::TenantId::MAX_BYTES;

    /// Reads an identifier. The alphabet is that of a tenant ID, so that `|` (federation), `:` and
    /// `=` (dskit's tenant metadata) and `/` can never be smuggled into a header or a path.
    pub fn parse(text: &str) -> Result<Self, OrganisationIdError> {
        if text.is_empty() {
            return Err(OrganisationIdError::Empty);
        }
        if text.len() > Self::MAX_BYTES {
            return Err(OrganisationIdError::TooLong);
        }
        if !text.bytes().all(super::tenant_id::is_tenant_byte) {
            return Err(OrganisationIdError::Character);
        }
        // Mimir's: a tenant is a folder in object storage. A path of `/admin` names an organisation, too.
        if matches!(text, "." | "..") {
            return Err(OrganisationIdError::Reserved);
        }
        if is_hyphenated_uuid(text.as_bytes()) {
            return Ok(Self(Bytes::from(text.to_ascii_lowercase())));
        }
        Ok(Self(Bytes::copy_from_slice(text.as_bytes())))
    }

    pub fn as_str(&self) -> &str {
        // Only ASCII passes `parse`.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    pub(super) fn bytes(&self) -> &Bytes {
        &self.0
    }
}

/// Only the 8-4-4-4-12 form is a UUID here: 32 bare hex digits may be an identifier of another kind.
fn is_hyphenated_uuid(text: &[u8]) -> bool {
    text.len() == 36
        && text.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

impl fmt::Display for OrganisationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for OrganisationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OrganisationId({})", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn uuid_spellings_are_one_organisation() {
        let lower = OrganisationId::parse("6f9619ff-8b86-d011-b42d-00c04fc964ff").unwrap();
        let upper = OrganisationId::parse("6F9619FF-8B86-D011-B42D-00C04FC964FF").unwrap();
        assert_eq!(lower, upper);
        assert_eq!(upper.as_str(), "6f9619ff-8b86-d011-b42d-00c04fc964ff");
    }

    #[test]
    fn other_identifiers_keep_their_case() {
        assert_ne!(OrganisationId::parse("Acme").unwrap(), OrganisationId::parse("acme").unwrap());
    }

    #[test]
    fn steps_of_a_path_are_refused() {
        for text in [".", ".."] {
            assert_eq!(OrganisationId::parse(text).unwrap_err(), OrganisationIdError::Reserved);
        }
        assert!(OrganisationId::parse("...").is_ok());
    }

    #[test]
    fn separators_are_refused() {
        for text in ["", "a|b", "a:k=v", "a/b", "a b", "a\0", "é", "a,b", "a%2Fb", "a\\b"] {
            assert!(OrganisationId::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_is_idempotent_and_stays_in_the_alphabet(text in ".{0,200}") {
            if let Ok(id) = OrganisationId::parse(&text) {
                prop_assert_eq!(&OrganisationId::parse(id.as_str()).unwrap(), &id);
                prop_assert!(id.as_str().bytes().all(super::super::tenant_id::is_tenant_byte));
                prop_assert!(id.as_str().eq_ignore_ascii_case(&text));
            }
        }
    }
}
