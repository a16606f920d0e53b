//! [`TenantHeader`]: what goes into Mimir's tenant header, one tenant or several for a federated read.

use std::fmt;

use http::HeaderValue;

use super::TenantId;

/// One tenant, or several in canonical order. Only valid tenant IDs get in, so that the header can
/// hold nothing else.
#[derive(Clone, PartialEq, Eq)]
pub struct TenantHeader(HeaderValue);

impl TenantHeader {
    /// Several tenants, each once and sorted, so that Mimir's caches see one spelling of a set. None
    /// for an empty set.
    pub fn federated(mut tenants: Vec<TenantId>) -> Option<Self> {
        tenants.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        tenants.dedup();
        let names: Vec<&str> = tenants.iter().map(TenantId::as_str).collect();
        if names.is_empty() {
            return None;
        }
        HeaderValue::try_from(names.join("|")).ok().map(Self)
    }

    /// The header's value, shared and not copied.
    pub(crate) fn header_value(&self) -> HeaderValue {
        self.0.clone()
    }

    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

impl From<TenantId> for TenantHeader {
    fn from(tenant: TenantId) -> Self {
        Self(tenant.header_value())
    }
}

impl fmt::Debug for TenantHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TenantHeader({})", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tenants(names: &[String]) -> Vec<TenantId> {
        names.iter().map(|name| TenantId::parse(name).unwrap()).collect()
    }

    #[test]
    fn an_empty_set_has_no_header() {
        assert_eq!(TenantHeader::federated(Vec::new()), None);
    }

    proptest! {
        #[test]
        fn a_set_has_one_spelling(names in proptest::collection::vec("[a-c]{1,2}", 1..6)) {
            let mut turned = names.clone();
            turned.reverse();
            let one = TenantHeader::federated(tenants(&names)).unwrap();
            prop_assert_eq!(&one, &TenantHeader::federated(tenants(&turned)).unwrap());
            let parts: Vec<&str> = one.as_str().split('|').collect();
            prop_assert!(parts.is_sorted() && parts.iter().all(|part| names.iter().any(|n| n == part)));
            prop_assert!(names.iter().all(|name| parts.contains(&name.as_str())));
        }
    }
}
