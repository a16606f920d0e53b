//! Scopes: what a route needs and what a caller may do.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    MetricsRead,
    MetricsWrite,
    RulesRead,
    /// Read alerts and silences of the Alertmanager.
    AlertsRead,
    /// Silence alerts.
    AlertsWrite,
    /// Manage the organisation: its device keys and its rules.
    Admin,
}

impl Scope {
    /// Every scope, in the order in which they are written down.
    pub const ALL: [Self; 6] = [
        Self::MetricsRead,
        Self::MetricsWrite,
        Self::RulesRead,
        Self::AlertsRead,
        Self::AlertsWrite,
        Self::Admin,
    ];

    /// The scopes on telemetry: all but to administer.
    pub const DATA: [Self; 5] = [
        Self::MetricsRead,
        Self::MetricsWrite,
        Self::RulesRead,
        Self::AlertsRead,
        Self::AlertsWrite,
    ];

    /// The scopes that a device key can have. Not `alerts:write`: whoever steals a device could
    /// silence its alarm with its key.
    pub const DEVICE: [Self; 4] =
        [Self::MetricsRead, Self::MetricsWrite, Self::RulesRead, Self::AlertsRead];

    /// The name in configuration, logs and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::MetricsRead => "metrics:read",
            Self::MetricsWrite => "metrics:write",
            Self::RulesRead => "rules:read",
            Self::AlertsRead => "alerts:read",
            Self::AlertsWrite => "alerts:write",
            Self::Admin => "admin",
        }
    }

    fn bit(self) -> u8 {
        1 << (self as u8)
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Reads one scope by its name, or says which there are.
    pub fn parse_one(name: &str) -> Result<Scope, String> {
        Scope::ALL.into_iter().find(|scope| scope.name() == name).ok_or_else(|| {
            let known: Vec<_> = Scope::ALL.iter().map(|scope| scope.name()).collect();
            format!("'{name}' is no scope; there are {}", known.join(", "))
        })
    }

    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        names.into_iter().map(Self::parse_one).collect()
    }

    /// Whether the set holds a scope.
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What this set holds and another does not.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The names of the scopes in the set, in the order of [`Scope::ALL`].
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope)).map(Scope::name)
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<T: IntoIterator<Item = Scope>>(scopes: T) -> Self {
        Self(scopes.into_iter().fold(0, |set, scope| set | scope.bit()))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}
