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
                    .ok_or_else(|| format!("{place}: must be a mapping with name and expr"))?;
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

fn of_row(row: &Value, organisation: &OrganisationId, at: usize) -> Option<AlertRuleRow> {
    row.as_object()?;
    Some(AlertRuleRow {
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
    for key in ["source_tenants", "limit", "query_offset", "evaluation_delay"] {
        if !group[key].is_null() {
            return Err(format!("group {name:?}: {key} cannot be said in a row of alert_rule"));
        }
    }
    for rule in group["rules"].as_array().into_iter().flatten() {
        let place = format!("group {name:?}, rule {}", rows.len() + 1);
        if !rule["record"].is_null() {
            return Err(format!("{place}: a recording rule is no row of alert_rule"));
        }
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
            "a: b",
            "- 7",
            "- [",
        ] {
            assert!(names(wrong).is_err(), "{wrong}");
        }
    }
}
