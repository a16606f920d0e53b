//! Roles: what a membership says of a person, and what the operator lets each role do.

use std::collections::BTreeMap;
use std::fmt;

use super::{Scope, Scopes};

/// A role's name, as the membership table or a claim has it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Role(Box<str>);

impl Role {
    /// Takes a name as it is: which names mean something is the [`RoleMap`]'s to say.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What each role may do. A role that is not in it may do nothing.
#[derive(Clone, Debug)]
pub struct RoleMap(BTreeMap<Role, Scopes>);

impl RoleMap {
    /// Sets what a role may do, in place of what it could before.
    pub fn set(&mut self, role: Role, scopes: Scopes) {
        self.0.insert(role, scopes);
    }

    /// Whether a role is in it.
    pub fn has(&self, role: &Role) -> bool {
        self.0.contains_key(role)
    }

    pub fn scopes_of(&self, role: &Role) -> Scopes {
        self.0.get(role).copied().unwrap_or_default()
    }
}

impl Default for RoleMap {
    /// Owners and administrators everything, editors all telemetry, viewers only look.
    fn default() -> Self {
        let everything: Scopes = Scope::ALL.into_iter().collect();
        let telemetry: Scopes = Scope::DATA.into_iter().collect();
        let reading = [Scope::MetricsRead, Scope::RulesRead, Scope::AlertsRead];
        let reading: Scopes = reading.into_iter().collect();
        let roles = [
            ("owner", everything),
            ("admin", everything),
            ("editor", telemetry),
            ("viewer", reading),
        ];
        Self(roles.map(|(name, scopes)| (Role::new(name), scopes)).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_owners_and_admins_administer_and_viewers_never_write() {
        let map = RoleMap::default();
        let may = |role: &str, scope| map.scopes_of(&Role::new(role)).contains(scope);
        for (role, writes, administers) in [
            ("owner", true, true),
            ("admin", true, true),
            ("editor", true, false),
            ("viewer", false, false),
        ] {
            assert!(may(role, Scope::MetricsRead) && may(role, Scope::RulesRead), "{role}");
            assert!(may(role, Scope::AlertsRead), "{role}");
            assert_eq!(may(role, Scope::MetricsWrite), writes, "{role}");
            assert_eq!(may(role, Scope::AlertsWrite), writes, "{role}");
            assert_eq!(may(role, Scope::Admin), administers, "{role}");
        }
    }

    #[test]
    fn an_unknown_role_may_nothing() {
        for name in ["", "Owner", "superuser", "owner "] {
            assert!(RoleMap::default().scopes_of(&Role::new(name)).is_empty(), "{name:?}");
        }
    }
}
