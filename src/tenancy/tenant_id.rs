//! [`TenantId`], Mimir's unit of isolation, and the template that makes one of an organisation.

use std::fmt;

use bytes::Bytes;
use http::HeaderValue;

use super::OrganisationId;

/// A tenant ID that Mimir accepts: at most 150 bytes of `0-9 A-Z a-z ! _ . * ' ( ) -`, and none of
/// the names that are dangerous as a path (CVE-2021-36156) or that Mimir keeps for itself.
#[derive(Clone, PartialEq, Eq)]
pub struct TenantId(HeaderValue);

/// Why a text is no tenant ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TenantIdError {
    #[error("a tenant ID must not be empty")]
    Empty,
    #[error("a tenant ID has at most {} bytes", TenantId::MAX_BYTES)]
    TooLong,
    #[error("a tenant ID consists of 0-9 A-Z a-z ! _ . * ' ( ) -")]
    Character,
    #[error("Mimir refuses the tenant IDs '.', '..' and '__mimir_cluster'")]
    Reserved,
}

/// Whether Mimir allows a byte in a tenant ID.
pub(super) fn is_tenant_byte(byte: u8) -> bool {
    TENANT_BYTES[usize::from(byte)]
}

/// A table, because every request's tenant is checked.
const TENANT_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let all = b"!_.*'()-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut at = 0;
    while at < all.len() {
        table[all[at] as usize] = true;
        at += 1;
    }
    table
};

impl TenantId {
    /// Mimir's limit on the length of a tenant ID.
    pub const MAX_BYTES: usize = 150;

    /// Reads a tenant ID by Mimir's rules.
    pub fn parse(text: &str) -> Result<Self, TenantIdError> {
        Self::from_bytes(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn from_bytes(text: Bytes) -> Result<Self, TenantIdError> {
        if text.is_empty() {
            return Err(TenantIdError::Empty);
        }
        if text.len() > Self::MAX_BYTES {
            return Err(TenantIdError::TooLong);
        }
        if !text.iter().copied().all(is_tenant_byte) {
            return Err(TenantIdError::Character);
        }
        if matches!(&text[..], b"." | b".." | b"__mimir_cluster") {
            return Err(TenantIdError::Reserved);
        }
        HeaderValue::from_maybe_shared(text).map(Self).map_err(|_| TenantIdError::Character)
    }

    /// The tenant ID as a header value, shared and not copied.
    pub(crate) fn header_value(&self) -> HeaderValue {
        self.0.clone()
    }

    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TenantId({})", self.as_str())
    }
}

/// The operator's rule for naming a tenant after an organisation, such as `{organisation_id}` or
/// `prod-{organisation_id}`. The placeholder stands in it exactly once, which makes the mapping
/// injective. The default is the placeholder alone.
#[derive(Clone, Debug, Default)]
pub struct TenantTemplate {
    before: String,
    after: String,
}

/// Why a text is no tenant template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("must hold {PLACEHOLDER} exactly once")]
    Placeholder,
    /// What surrounds the placeholder leaves Mimir's alphabet, or too little room for a UUID.
    #[error("makes no tenant ID of a UUID: {0}")]
    Surroundings(#[source] TenantIdError),
}

const PLACEHOLDER: &str = "{organisation_id}";
const A_UUID: &str = "00000000-0000-0000-0000-000000000000";

impl fmt::Display for TenantTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{PLACEHOLDER}{}", self.before, self.after)
    }
}

impl TenantTemplate {
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let (before, after) = text.split_once(PLACEHOLDER).ok_or(TemplateError::Placeholder)?;
        if after.contains(PLACEHOLDER) {
            return Err(TemplateError::Placeholder);
        }
        TenantId::parse(&format!("{before}{A_UUID}{after}"))
            .map_err(TemplateError::Surroundings)?;
        Ok(Self { before: before.to_owned(), after: after.to_owned() })
    }

    /// The tenant of an organisation. Fails when the result breaks Mimir's rules, for example for
    /// an organisation called `..`.
    pub fn tenant_of(&self, organisation: &OrganisationId) -> Result<TenantId, TenantIdError> {
        if self.before.is_empty() && self.after.is_empty() {
            return TenantId::from_bytes(organisation.bytes().clone());
        }
        TenantId::from_bytes([&self.before, organisation.as_str(), &self.after].concat().into())
    }

    /// The organisation whose tenant this is; none if the template makes it of no organisation.
    pub fn organisation_of(&self, tenant: &TenantId) -> Option<OrganisationId> {
        let name = tenant.as_str().strip_prefix(&*self.before)?.strip_suffix(&*self.after)?;
        let organisation = OrganisationId::parse(name).ok()?;
        // A UUID in capitals is a tenant of nobody's: tenants are made of lower-case ones.
        let is_inverse = self.tenant_of(&organisation).is_ok_and(|made| made == *tenant);
        is_inverse.then_some(organisation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Mimir: "tenant ID is '.' or '..'", and paths made of tenant IDs (CVE-2021-36156).
    #[test]
    fn names_that_are_dangerous_as_paths_are_refused() {
        for text in [".", "..", "__mimir_cluster"] {
            assert_eq!(TenantId::parse(text), Err(TenantIdError::Reserved));
        }
        assert_eq!(TenantId::parse("a/../b"), Err(TenantIdError::Character));
        assert_eq!(TenantId::parse(""), Err(TenantIdError::Empty));
        assert_eq!(TenantId::parse(&"a".repeat(151)), Err(TenantIdError::TooLong));
        assert!(TenantId::parse(&"a".repeat(150)).is_ok());
    }

    #[test]
    fn template_holds_the_placeholder_exactly_once() {
        assert_eq!(TenantTemplate::parse("fixed").unwrap_err(), TemplateError::Placeholder);
        let twice = "{organisation_id}{organisation_id}";
        assert_eq!(TenantTemplate::parse(twice).unwrap_err(), TemplateError::Placeholder);
        assert!(matches!(
            TenantTemplate::parse("a|{organisation_id}"),
            Err(TemplateError::Surroundings(TenantIdError::Character))
        ));
    }

    #[test]
    fn an_organisation_with_a_name_of_mimir_s_own_has_no_tenant() {
        let template = TenantTemplate::parse("{organisation_id}").unwrap();
        let reserved = OrganisationId::parse("__mimir_cluster").unwrap();
        assert_eq!(template.tenant_of(&reserved), Err(TenantIdError::Reserved));
    }

    #[test]
    fn a_tenant_that_the_template_does_not_make_is_of_no_organisation() {
        let template = TenantTemplate::parse("prod-{organisation_id}.x").unwrap();
        let organisation = |tenant: &str| {
            template.organisation_of(&TenantId::parse(tenant).unwrap()).map(|of| of.to_string())
        };
        assert_eq!(organisation("prod-a.x"), Some("a".to_owned()));
        let capitals = "prod-0A0A0A0A-0a0a-4a0a-8a0a-0a0a0a0a0a0a.x";
        assert_eq!(organisation(&capitals.to_lowercase()).map(|of| of.len()), Some(36));
        for other in ["prod-.x", "a", "prod-a", "a.x", "dev-a.x", "prod-.y", capitals] {
            assert_eq!(organisation(other), None, "{other}");
        }
    }

    proptest! {
        // Both ways: nobody's tenant is given to an organisation, and each organisation has its own.
        #[test]
        fn the_organisation_of_a_tenant_is_the_one_that_has_it(
            text in "[a-zA-Z0-9!_.*'()-]{1,40}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
            before in "[a-z.-]{0,3}",
            after in "[a-z.-]{0,3}",
        ) {
            let template = TenantTemplate::parse(&format!("{before}{PLACEHOLDER}{after}")).unwrap();
            // Names of dots alone are none.
            if let Ok(organisation) = OrganisationId::parse(&text)
                && let Ok(tenant) = template.tenant_of(&organisation) {
                prop_assert_eq!(template.organisation_of(&tenant), Some(organisation));
            }
            if let Ok(tenant) = TenantId::parse(&text)
                && let Some(of) = template.organisation_of(&tenant) {
                prop_assert_eq!(template.tenant_of(&of), Ok(tenant));
            }
        }

        #[test]
        fn every_tenant_id_obeys_mimirs_rules(text in "\\PC{0,200}") {
            if let Ok(id) = TenantId::parse(&text) {
                prop_assert_eq!(id.as_str(), text.as_str());
                prop_assert!(!text.is_empty() && text.len() <= 150);
                prop_assert!(text.bytes().all(is_tenant_byte));
                prop_assert!(!["..", ".", "__mimir_cluster"].contains(&text.as_str()));
            }
        }

        #[test]
        fn different_organisations_have_different_tenants(
            a in "[a-zA-Z0-9!_.*'()-]{1,40}",
            b in "[a-zA-Z0-9!_.*'()-]{1,40}",
            before in "[a-z-]{0,5}",
            after in "[a-z-]{0,5}",
        ) {
            let template = TenantTemplate::parse(&format!("{before}{PLACEHOLDER}{after}")).unwrap();
            // One of dots is no organisation.
            let (Ok(a), Ok(b)) = (OrganisationId::parse(&a), OrganisationId::parse(&b)) else { return Ok(()) };
            if let (Ok(ta), Ok(tb)) = (template.tenant_of(&a), template.tenant_of(&b)) {
                prop_assert_eq!(a == b, ta == tb);
            }
        }
    }
}
