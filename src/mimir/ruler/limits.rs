//! How many rules and groups Mimir allows a tenant.

use serde::Deserialize;

/// A tenant's limits, as Mimir reports them. It does not report those for a single namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RulerLimits {
    /// Rules in one group; `None` if there is no limit.
    pub rules_per_group: Option<usize>,
    /// Groups of the tenant in all namespaces together; `None` if there is no limit.
    pub groups: Option<usize>,
}

/// What we read of `/api/v1/user_limits`. To Mimir a limit of 0 or below means no limit.
#[derive(Deserialize)]
struct Answer {
    ruler_max_rules_per_rule_group: i64,
    ruler_max_rule_groups_per_tenant: i64,
}

impl RulerLimits {
    /// The lower of each.
    #[must_use]
    pub fn within(self, other: Self) -> Self {
        let lower = |one: Option<usize>, other: Option<usize>| match (one, other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Self {
            rules_per_group: lower(self.rules_per_group, other.rules_per_group),
            groups: lower(self.groups, other.groups),
        }
    }

    /// Parses Mimir's answer. An answer that lacks a limit is an error: it must not count as "no
    /// limit".
    pub(super) fn parse(body: &[u8]) -> Result<Self, String> {
        let answer: Answer = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let limit = |value: i64| usize::try_from(value).ok().filter(|limit| *limit > 0);
        Ok(Self {
            rules_per_group: limit(answer.ruler_max_rules_per_rule_group),
            groups: limit(answer.ruler_max_rule_groups_per_tenant),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_means_no_limit_and_a_missing_limit_is_an_error() {
        let parse = |text: &str| RulerLimits::parse(text.as_bytes());
        let read = parse(
            r#"{"ingestion_rate":10000,"ruler_max_rules_per_rule_group":20,"ruler_max_rule_groups_per_tenant":70}"#,
        );
        assert_eq!(read, Ok(RulerLimits { rules_per_group: Some(20), groups: Some(70) }));
        let read =
            parse(r#"{"ruler_max_rules_per_rule_group":0,"ruler_max_rule_groups_per_tenant":-1}"#);
        assert_eq!(read, Ok(RulerLimits { rules_per_group: None, groups: None }));
        for wrong in ["", "{}", "null", r#"{"ruler_max_rules_per_rule_group":20}"#] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
