//! `[tenancy]`

use super::reader::Section;
use super::values::{list, text};
use crate::tenancy::{Scopes, TenantTemplate};

/// From organisation to tenant, and what a caller may do there.
#[derive(Clone, Debug)]
pub struct TenancyConfig {
    /// How an organisation's tenant is called.
    pub template: TenantTemplate,
    /// What a user may do in an organisation that the token names.
    pub user_scopes: Scopes,
}

pub(super) fn read(section: &mut Section<'_>) -> TenancyConfig {
    let every_scope = crate::tenancy::Scope::ALL.into_iter().collect();
    TenancyConfig {
        template: section.get("tenant_template", TenantTemplate::default(), |raw| {
            TenantTemplate::parse(&text(raw)?).map_err(|error| error.to_string())
        }),
        user_scopes: section.get("user_scopes", every_scope, |raw| {
            list(raw)?.iter().map(|name| Scopes::parse_one(name)).collect()
        }),
    }
}
