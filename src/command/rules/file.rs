//! Rules in a file: rows as the table has them, or groups as Prometheus has them, in YAML or JSON.

use serde_json::Value;
use uuid::Uuid;

use crate::store::{AlertRuleRow, Excess};
use crate::tenancy::OrganisationId;

/// A row, and where in the file it stands.
pub(super) struct FileRow {
    pub(super) place: String,
    pub(super) row: AlertRuleRow,
}

/// Reads a file's rules.
pub(super) fn read(text: &str, organisation: &OrganisationId) -> Result<Vec<FileRow>, String> {
    let value: Value = serde_saphyr::from_str(text).map_err(|error| format!("no YAML: {error}"))?;
    let mut rows = Vec::new();
    match (&value, &value["groups"]) {
        (_, Value::Array(groups)) => {
            for group in groups {
                of_group(group, organisation, &mut rows)?;
            }
        }
        (Value::Array(list), _) => {
            for row in list {
                let place = format!("rule {}", rows.len() + 1);
                let row = of_row(row, organisation, rows.len())
                    .map_err(|problem| format!("{place}: {problem}"))?;
                rows.push(FileRow { place, row });
            }
        }
        _ => {
            return Err(
                "must be a list of rules (name, expr, …) or Prometheus' groups: […]".to_owned()
            );
        }
    }
    Ok(rows)
}

fn text(of: &Value, key: &str) -> Option<String> {
    match &of[key] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// What a row can say.
const ROW_KEYS: [&str; 13] = [
    "id",
    "organisation_id",
    "name",
    "expr",
    "for_duration",
    "keep_firing_for",
    "rule_group",
    "evaluation_interval",
    "labels",
    "annotations",
    "enabled",
    "created_at",
    "updated_at",
];
/// What of a group and of its rules a row can say.
const GROUP_KEYS: [&str; 3] = ["name", "interval", "rules"];
const RULE_KEYS: [&str; 6] = ["alert", "expr", "for", "keep_firing_for", "labels", "annotations"];

/// A key that is mistyped would be passed over, and the rule be another one.
fn only_known<'a>(
    mut keys: impl Iterator<Item = &'a String>,
    known: &[&str],
) -> Result<(), String> {
    match keys.find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("{key} cannot be said in a row of alert_rule")),
        None => Ok(()),
    }
}

fn of_row(row: &Value, organisation: &OrganisationId, at: usize) -> Result<AlertRuleRow, String> {
    let keys = row.as_object().ok_or("must be a mapping with name and expr")?.keys();
    only_known(keys, &ROW_KEYS)?;
    Ok(AlertRuleRow {
        id: text(row, "id").and_then(|id| Uuid::try_parse(&id).ok()).unwrap_or(numbered(at)),
        organisation: organisation.clone(),
        name: text(row, "name"),
        expr: text(row, "expr"),
        for_duration: text(row, "for_duration"),
        keep_firing_for: text(row, "keep_firing_for"),
        rule_group: text(row, "rule_group"),
        evaluation_interval: text(row, "evaluation_interval"),
        labels: text(row, "labels"),
        annotations: text(row, "annotations"),
        enabled: text(row, "enabled"),
        created_at_micros: i64::try_from(at).ok(),
        excess: Excess::None,
    })
}

fn of_group(
    group: &Value,
    organisation: &OrganisationId,
    rows: &mut Vec<FileRow>,
) -> Result<(), String> {
    let name = text(group, "name").ok_or("a group has no name")?;
    let keys = group.as_object().into_iter().flat_map(|group| group.keys());
    only_known(keys, &GROUP_KEYS).map_err(|problem| format!("group {name:?}: {problem}"))?;
    let rules = group["rules"].as_array();
    let rules = rules.ok_or_else(|| format!("group {name:?}: rules must be a list"))?;
    for rule in rules {
        let place = format!("group {name:?}, rule {}", rows.len() + 1);
        if !rule["record"].is_null() {
            return Err(format!("{place}: a recording rule is no row of alert_rule"));
        }
        let keys = rule.as_object().ok_or_else(|| format!("{place}: must be a mapping"))?.keys();
        only_known(keys, &RULE_KEYS).map_err(|problem| format!("{place}: {problem}"))?;
        let row = AlertRuleRow {
            id: numbered(rows.len()),
            organisation: organisation.clone(),
            name: text(rule, "alert"),
            expr: text(rule, "expr"),
            for_duration: text(rule, "for"),
            keep_firing_for: text(rule, "keep_firing_for"),
            rule_group: Some(name.clone()),
            evaluation_interval: text(group, "interval"),
            labels: text(rule, "labels"),
            annotations: text(rule, "annotations"),
            enabled: None,
            created_at_micros: i64::try_from(rows.len()).ok(),
            excess: Excess::None,
        };
        rows.push(FileRow { place, row });
    }
    Ok(())
}

fn numbered(at: usize) -> Uuid {
    Uuid::from_u128(at as u128 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Result<Vec<(String, Option<String>)>, String> {
        let organisation = OrganisationId::parse("acme").unwrap();
        let rows = read(text, &organisation)?;
        Ok(rows.into_iter().map(|found| (found.place, found.row.name)).collect())
    }

    #[test]
    fn rows_and_groups_are_read() {
        let rows = "- name: A\n  expr: up == 0\n- name: B\n  expr: up == 1\n  labels: {a: b}\n";
        assert_eq!(names(rows).unwrap()[1], ("rule 2".to_owned(), Some("B".to_owned())));
        let groups = "groups:\n- name: g\n  interval: 30s\n  rules:\n  - {alert: A, expr: up}\n";
        assert_eq!(names(groups).unwrap()[0].1.as_deref(), Some("A"));
        assert_eq!(names("[{\"name\": \"A\", \"expr\": \"up\"}]").unwrap().len(), 1);
    }

    #[test]
    fn what_no_row_can_say_is_refused() {
        for wrong in [
            "groups:\n- name: g\n  source_tenants: [a]\n  rules: []\n",
            "groups:\n- name: g\n  rules:\n  - {record: a, expr: up}\n",
            "groups:\n- rules: []\n",
            "groups:\n- name: g\n  rules: {alert: a}\n",
            "groups:\n- name: g\n  labels: {a: b}\n  rules: []\n",
            "groups:\n- name: g\n  rules:\n  - {alert: a, expr: up, fro: 5m}\n",
            "groups:\n- name: g\n  rules: [7]\n",
            "- {name: a, expr: up, lables: {}}",
            "a: b",
            "- 7",
            "- [",
        ] {
            assert!(names(wrong).is_err(), "{wrong}");
        }
    }
}
