//! All rows of one organisation, read.

use uuid::Uuid;

use super::alert_rule::{AlertRule, Parsed, RuleDefaults, parse};
use crate::store::{AlertRuleRow, Excess, MOST_ORGANISATION_BYTES, MOST_ROW_BYTES};

#[derive(Clone, Debug, Default)]
pub struct ParsedRows {
    /// Rules that should be in Mimir.
    pub enabled: Vec<AlertRule>,
    /// Rows with faults, and the reason for their author, as the database keeps it.
    pub refused: Vec<(Uuid, String)>,
    pub disabled: Vec<Uuid>,
    /// Rows that do not fit into the organisation's limits, and why.
    pub crowded_out: Vec<(Uuid, String)>,
}

/// Why the columns of a row were not read; none if they were.
pub fn excess_reason(row: &AlertRuleRow) -> Option<String> {
    match row.excess {
        Excess::None => None,
        Excess::Row => Some(format!("the row is larger than {} KiB", MOST_ROW_BYTES >> 10)),
        Excess::Organisation => Some(format!(
            "the organisation's rules are larger than {} MiB together, and older ones come first",
            MOST_ORGANISATION_BYTES >> 20
        )),
    }
}

pub fn parse_rows(rows: &[AlertRuleRow], defaults: &RuleDefaults) -> ParsedRows {
    let mut parsed = ParsedRows::default();
    for row in rows {
        if let Some(reason) = excess_reason(row) {
            let rows = match row.excess {
                Excess::Organisation => &mut parsed.crowded_out,
                Excess::None | Excess::Row => &mut parsed.refused,
            };
            rows.push((row.id, reason));
            continue;
        }
        match parse(row, defaults) {
            Ok(Parsed::Enabled(rule)) => parsed.enabled.push(rule),
            Ok(Parsed::Disabled) => parsed.disabled.push(row.id),
            Err(refusals) => parsed.refused.push((row.id, refusals.to_string())),
        }
    }
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenancy::OrganisationId;

    /// Characters of a reason that the database keeps.
    const MOST_KEPT: usize = 4_000;

    /// The reason of a row with these labels and annotations, without a name, and with a long duration that is none.
    fn reason(labels: String, annotations: String) -> String {
        let row = AlertRuleRow {
            id: Uuid::from_u128(1),
            organisation: OrganisationId::parse("acme").unwrap(),
            name: None,
            expr: Some("up == 0".to_owned()),
            for_duration: Some("\u{80}".repeat(100)),
            keep_firing_for: None,
            rule_group: None,
            evaluation_interval: None,
            labels: Some(labels),
            annotations: Some(annotations),
            enabled: None,
            created_at_micros: Some(7),
            excess: Excess::None,
        };
        let mut parsed = parse_rows(&[row], &RuleDefaults::default());
        parsed.refused.pop().unwrap().1
    }

    /// So many names that are none, each beginning with `name`.
    fn wrong_names(count: usize, name: &str) -> String {
        let pairs: Vec<String> = (0..count).map(|at| format!("\"{name}-{at}\": \"x\"")).collect();
        format!("{{{}}}", pairs.join(","))
    }

    // Such a row was written again by every full resync, and Realtime sent it to every page.
    #[test]
    fn no_reason_is_longer_than_the_database_keeps() {
        let many = reason(wrong_names(64, "a"), wrong_names(64, "b"));
        assert!(many.ends_with("; and 120 more"), "{many}");
        let unprintable = "\u{80}".repeat(80);
        let wide = reason(wrong_names(64, &unprintable), wrong_names(64, &unprintable));
        assert!(wide.contains(r"\u{80}") && wide.ends_with(" more"), "{wide}");
        let long = format!("{{\"a\": \"{{{{ ${} }}}}\"}}", "x".repeat(16_000));
        let long = reason("{}".to_owned(), long);
        assert!(long.ends_with('…'), "{long}");
        for reason in [many, wide, long] {
            let characters = reason.chars().count();
            assert!(characters > 800 && characters <= MOST_KEPT / 2 + 1, "{characters}: {reason}");
        }
    }
}
