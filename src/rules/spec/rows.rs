//! All rows of one organisation, read.

use uuid::Uuid;

use super::alert_rule::{AlertRule, Parsed, RuleDefaults, parse};
use crate::store::{AlertRuleRow, Excess, MOST_ORGANISATION_BYTES, MOST_ROW_BYTES};

#[derive(Clone, Debug, Default)]
pub struct ParsedRows {
    /// Rules that should be live.
    pub enabled: Vec<AlertRule>,
    /// Rows with faults, and the reason for their author.
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
