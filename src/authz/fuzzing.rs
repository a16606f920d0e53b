//! What must be true of every selector that is read.

use http::{HeaderMap, HeaderValue};

use super::selector::{Selector, read};
use crate::fuzzing::fields;
use crate::mimir::TENANT_HEADER;
use crate::tenancy::{OrganisationId, TenantHeader, TenantId, TenantTemplate};

/// How many organisations are allowed, as a byte, and two values of the header. What becomes of it for
/// Mimir is the tenants of the organisations that were named, and nothing of Mimir's own grammar.
pub fn selector(data: &[u8]) {
    let [most, one, other] = fields(data);
    let most = most.first().map(|most| usize::from(*most % 8));
    let mut headers = HeaderMap::new();
    for value in [one, other].into_iter().filter(|value| !value.is_empty()) {
        let Ok(value) = HeaderValue::from_bytes(value) else { return };
        headers.append(TENANT_HEADER, value);
    }
    let selected = match read(&headers, most) {
        Ok(Selector::One(organisation)) => vec![organisation],
        Ok(Selector::Several(organisations)) => {
            assert!((2..=most.unwrap_or(0)).contains(&organisations.len()));
            organisations
        }
        Ok(Selector::None) => return assert!(headers.is_empty()),
        Ok(Selector::Impossible) | Err(_) => return,
    };
    assert_eq!(headers.len(), 1);
    let sent = headers.get(TENANT_HEADER).map(HeaderValue::as_bytes).unwrap_or_default();
    let sent = String::from_utf8_lossy(sent);
    let sent: Vec<&str> = sent.split('|').collect();
    let is_sent =
        |id: &OrganisationId| sent.iter().any(|sent| sent.eq_ignore_ascii_case(id.as_str()));
    assert!(selected.iter().all(is_sent) && sent.len() >= selected.len());
    for template in [
        TenantTemplate::default(),
        TenantTemplate::parse("p-{organisation_id}.x").unwrap_or_default(),
    ] {
        let tenants: Vec<TenantId> =
            selected.iter().filter_map(|id| template.tenant_of(id).ok()).collect();
        for tenant in &tenants {
            let text = tenant.as_str();
            assert!(
                (1..=150).contains(&text.len()) && !matches!(text, "." | ".." | "__mimir_cluster")
            );
            assert!(
                text.bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"!_.*'()-".contains(&byte))
            );
            let organisation = template.organisation_of(tenant);
            assert!(organisation.is_some_and(|id| selected.contains(&id)), "{text}");
        }
        let count = tenants.len();
        let header = TenantHeader::federated(tenants);
        assert_eq!(header.map_or(0, |header| header.as_str().split('|').count()), count);
    }
}
