//! `[tenancy]` and `[roles]`

use super::reader::Section;
use super::shown::Shown;
use super::values::{number, switch, text};
use crate::tenancy::{Role, RoleMap, Scope, Scopes, TenantTemplate};

/// The tenant of an organisation, and the scopes of callers.
#[derive(Clone, Debug)]
pub struct TenancyConfig {
    /// The template of tenant IDs.
    pub template: TenantTemplate,
    /// What decides which organisations a user belongs to.
    pub membership: MembershipPolicy,
    pub roles: RoleMap,
    /// The scopes of a user in an organisation that the token names, if there is no role.
    pub user_scopes: Scopes,
    /// The scopes of a service, in every organisation.
    pub service_scopes: Scopes,
    /// The most organisations in one read; `None` if federated reads are disabled.
    pub federation: Option<usize>,
}

/// What decides which organisations a user belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MembershipPolicy {
    /// The token alone.
    Claims,
    /// The membership table alone.
    Table,
    /// Both must agree; the role is the table's.
    ClaimsAndTable,
}

impl MembershipPolicy {
    /// Whether the table is used.
    pub fn reads_table(self) -> bool {
        self != Self::Claims
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Claims => "claims",
            Self::Table => "table",
            Self::ClaimsAndTable => "claims_and_table",
        }
    }
}

impl Shown for MembershipPolicy {
    fn shown(&self) -> String {
        self.name().to_owned()
    }
}

/// The most organisations in one read: 100 tenant IDs still fit into a header.
const MOST_FEDERATED: usize = 100;

pub(super) fn read(section: &mut Section<'_>, has_database: bool) -> TenancyConfig {
    let by_default = if has_database { MembershipPolicy::Table } else { MembershipPolicy::Claims };
    let federation = section.get("federation", false, switch);
    let most = section.get("federation_max", 16, |raw| number(raw, 2, MOST_FEDERATED));
    let membership = section.get("membership", by_default, |raw| match text(raw)?.as_str() {
        "claims" => Ok(MembershipPolicy::Claims),
        "table" => Ok(MembershipPolicy::Table),
        "claims_and_table" => Ok(MembershipPolicy::ClaimsAndTable),
        _ => Err("must be \"claims\", \"table\" or \"claims_and_table\"".to_owned()),
    });
    if membership.reads_table() && !has_database {
        let problem = format!("is \"{}\", which needs database.url", membership.name());
        section.fault("membership", problem);
    }
    TenancyConfig {
        template: section.get("tenant_template", TenantTemplate::default(), |raw| {
            TenantTemplate::parse(&text(raw)?).map_err(|error| error.to_string())
        }),
        membership,
        roles: RoleMap::default(),
        user_scopes: scopes(section, "user_scopes", &Scope::DATA),
        service_scopes: scopes(section, "service_scopes", &Scope::ALL),
        federation: federation.then_some(most),
    }
}

/// Reads `[roles]`: names and their scopes. The four default roles always exist.
pub(super) fn read_roles(section: &mut Section<'_>) -> RoleMap {
    let mut roles = RoleMap::default();
    for name in section.names() {
        let may = scopes(section, &name, &[]);
        roles.set(Role::new(&name), may);
    }
    roles
}

fn scopes(section: &mut Section<'_>, key: &str, default: &[Scope]) -> Scopes {
    let read = |name: String| Scopes::parse_one(&name);
    section.get_list(key, default.to_vec(), read).into_iter().collect()
}
