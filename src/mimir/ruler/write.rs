//! A group as YAML for Mimir.
//!
//! Every text is quoted ([`quoted`]), so that any text arrives unchanged.
//!
//! No serialiser crate: none lets us choose the style of every scalar, and what is written here is
//! compared with what Mimir returns (docs/decisions/0013).

use std::collections::BTreeMap;

use super::{AlertingRule, RuleGroup};
use crate::yaml::quoted;

/// The longest key on the same line as its value. YAML's limit is 1024 characters for all that
/// precedes the colon; a longer key is introduced by a question mark.
const MAX_PLAIN_KEY: usize = 128;

/// Writes a group as YAML, with the same bytes for equal groups.
pub fn write_group(group: &RuleGroup) -> String {
    let mut yaml = format!("name: {}\n", quoted(&group.name));
    if !group.interval.is_zero() {
        line(&mut yaml, "interval", &group.interval.to_string());
    }
    // Without rules, `rules:` would mean null.
    yaml.push_str(if group.rules.is_empty() { "rules: []\n" } else { "rules:\n" });
    for rule in &group.rules {
        write_rule(&mut yaml, rule);
    }
    yaml
}

fn write_rule(yaml: &mut String, rule: &AlertingRule) {
    line(yaml, "- alert", &quoted(&rule.alert));
    line(yaml, "  expr", &quoted(&rule.expr));
    for (name, duration) in
        [("  for", rule.for_duration), ("  keep_firing_for", rule.keep_firing_for)]
    {
        if !duration.is_zero() {
            line(yaml, name, &duration.to_string());
        }
    }
    write_texts(yaml, "  labels", &rule.labels);
    write_texts(yaml, "  annotations", &rule.annotations);
}

fn write_texts(yaml: &mut String, name: &str, texts: &BTreeMap<String, String>) {
    if texts.is_empty() {
        return;
    }
    yaml.push_str(name);
    yaml.push_str(":\n");
    for (key, text) in texts {
        let (key, text) = (quoted(key), quoted(text));
        if key.len() <= MAX_PLAIN_KEY {
            line(yaml, &format!("    {key}"), &text);
        } else {
            yaml.push_str("    ? ");
            yaml.push_str(&key);
            line(yaml, "\n    ", &text);
        }
    }
}

fn line(yaml: &mut String, key: &str, value: &str) {
    for part in [key, ": ", value, "\n"] {
        yaml.push_str(part);
    }
}
