//! The columns that are JSON objects: labels and annotations.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::row_id::ROW_ANNOTATION;
use super::text::{described, is_unprintable};
use crate::mimir::expression::ExpressionLimits;
use crate::mimir::ruler::AlertingRule;
use crate::rules::spec::refusal::{Faults, Position, quoted};
use crate::rules::spec::template;

/// The most labels, and the most annotations. A series has at most 30 labels by Mimir's default
/// (`-validation.max-label-names-per-series`), which an operator may raise.
pub const MAX_PAIRS: usize = 64;

/// The longest name of either, Mimir's default for a label's (`-validation.max-length-label-name`).
pub const MAX_PAIR_NAME_BYTES: usize = 1_024;

/// The longest value of a label, Mimir's default (`-validation.max-length-label-value`).
pub const MAX_LABEL_BYTES: usize = 2_048;

/// The longest annotation: a long text for people, with room for a template.
pub const MAX_ANNOTATION_BYTES: usize = 16 * 1024;

/// All names and values of a rule together, in bytes.
pub const MAX_PAIRS_BYTES: usize = 64 * 1024;

struct Kind {
    column: &'static str,
    one: &'static str,
    max_value_bytes: usize,
    /// Whether `alertname` and names that start with `__` are permitted. In annotations they mean nothing
    /// to Prometheus, and something to others, such as Grafana's `__dashboardUid__`.
    takes_reserved: bool,
}

const LABELS: Kind = Kind {
    column: "labels",
    one: "label",
    max_value_bytes: MAX_LABEL_BYTES,
    takes_reserved: false,
};

const ANNOTATIONS: Kind = Kind {
    column: "annotations",
    one: "annotation",
    max_value_bytes: MAX_ANNOTATION_BYTES,
    takes_reserved: true,
};

/// An empty value is valid: it removes the label from the alert.
pub(super) fn labels(text: Option<&str>, faults: &mut Faults) -> BTreeMap<String, String> {
    read(&LABELS, text.unwrap_or_default(), faults)
}

pub(super) fn annotations(text: Option<&str>, faults: &mut Faults) -> BTreeMap<String, String> {
    let mut annotations = read(&ANNOTATIONS, text.unwrap_or_default(), faults);
    annotations.remove(ROW_ANNOTATION);
    annotations
}

pub(super) fn check_together(rule: &AlertingRule, faults: &mut Faults) {
    let bytes = bytes_of(rule);
    if bytes > MAX_PAIRS_BYTES {
        faults.add(
            ANNOTATIONS.column,
            format!("and labels are {bytes} bytes together; at most {MAX_PAIRS_BYTES}"),
        );
    }
}

fn bytes_of(rule: &AlertingRule) -> usize {
    let pairs = rule.labels.iter().chain(&rule.annotations);
    pairs.map(|(name, value)| name.len() + value.len()).sum()
}

/// All templates of a rule share one budget. Every fault of a template is reported, but only the first
/// template that exceeds the budget.
pub(super) fn check_templates(rule: &AlertingRule, limits: &ExpressionLimits, faults: &mut Faults) {
    let mut budget = template::Budget::new(limits);
    for (kind, pairs) in [(&LABELS, &rule.labels), (&ANNOTATIONS, &rule.annotations)] {
        for (name, text) in pairs {
            let Err(fault) = budget.charge(text) else { continue };
            if budget.is_used_up() && bytes_of(rule) > MAX_PAIRS_BYTES {
                return; // `check_together` has told it
            }
            let Position { line, column } = Position::of(text, fault.at);
            faults.add(
                kind.column,
                format!(
                    "{} {}: line {line}, column {column} of its template: {}",
                    kind.one,
                    quoted(name),
                    fault.reason
                ),
            );
            if budget.is_used_up() {
                return;
            }
        }
    }
}

/// Of two equal names the last one counts, as in `jsonb`.
fn read(kind: &Kind, text: &str, faults: &mut Faults) -> BTreeMap<String, String> {
    let text = text.trim();
    if matches!(text, "" | "null") {
        return BTreeMap::new();
    }
    let object: BTreeMap<String, &RawValue> = match serde_json::from_str(text) {
        Ok(object) => object,
        Err(error) => {
            faults.add(kind.column, not_an_object(text, &error));
            return BTreeMap::new();
        }
    };
    if object.len() > MAX_PAIRS {
        faults.add(kind.column, format!("are {}; at most {MAX_PAIRS}", object.len()));
        return BTreeMap::new();
    }
    let mut pairs = BTreeMap::new();
    for (name, value) in object {
        let read = check_name(kind, &name).and_then(|()| read_value(kind, value.get()));
        match read {
            Ok(value) => drop(pairs.insert(name, value)),
            Err(fault) => {
                faults.add(kind.column, format!("{} {} {fault}", kind.one, quoted(&name)));
            }
        }
    }
    pairs
}

fn not_an_object(text: &str, error: &serde_json::Error) -> String {
    let is = match text.as_bytes().first() {
        _ if !error.is_data() => return format!("are not valid JSON: {error}"),
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'{') => return format!("are not a valid JSON object: {error}"),
        _ => "a number",
    };
    format!("are {is} in JSON; should be an object such as {{\"severity\": \"page\"}}")
}

/// The classic names of Prometheus (`model.LabelNameRE`). A Mimir whose
/// `-validation.name-validation-scheme` is `utf8` would take any; `legacy` is its default, and only
/// these can be written in a template as `{{ $labels.name }}`.
fn check_name(kind: &Kind, name: &str) -> Result<(), String> {
    let classic = |(at, byte): (usize, u8)| {
        byte == b'_' || byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit())
    };
    if name.is_empty() || !name.bytes().enumerate().all(classic) {
        return Err(
            "is not a valid name; use letters, digits and _, and do not start with a digit"
                .to_owned(),
        );
    }
    if name.len() > MAX_PAIR_NAME_BYTES {
        return Err(format!("has a name of {} bytes; at most {MAX_PAIR_NAME_BYTES}", name.len()));
    }
    match name {
        _ if kind.takes_reserved => Ok(()),
        // Prometheus would write the alert's name over it and say nothing.
        "alertname" => Err("is the alert's name; set the column name instead".to_owned()),
        _ if name.starts_with("__") => {
            Err("starts with __, which is reserved for Prometheus; use another name".to_owned())
        }
        _ => Ok(()),
    }
}

/// A string; or a number or boolean, as it is written.
fn read_value(kind: &Kind, json: &str) -> Result<String, String> {
    let value = match json.as_bytes().first() {
        Some(b'"') => {
            serde_json::from_str(json).map_err(|error| format!("is not a valid string: {error}"))?
        }
        Some(b'{') => return Err("is an object; should be a string".to_owned()),
        Some(b'[') => return Err("is an array; should be a string".to_owned()),
        Some(b'n') => return Err("is null; give it a string or leave it out".to_owned()),
        _ => json.to_owned(),
    };
    if value.len() > kind.max_value_bytes {
        return Err(format!("is {} bytes long; at most {}", value.len(), kind.max_value_bytes));
    }
    match value.find(is_unprintable) {
        Some(at) => {
            Err(format!("contains {}, which is not printable; remove it", described(&value, at)))
        }
        None => Ok(value),
    }
}
