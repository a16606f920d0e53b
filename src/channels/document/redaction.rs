//! What of a document may be shown. Every value of ours stands on one line behind its key, so a line that
//! does not look so is not shown: the document may have been changed by hand.

use std::collections::BTreeSet;

use super::MARKER;
use super::yaml::{SECRET_KEYS, quoted};

const SECRET: &str = "\"<secret>\"";
const NEW: &str = "\"<new secret>\"";
const OLD: &str = "\"<old secret>\"";
const HIDDEN: &str = "# (not shown)";

pub(super) fn redacted(config: &str) -> String {
    shown(config, &|_| SECRET)
}

/// What Mimir has and what it shall have, to be compared by people: a secret that changes is `<old secret>`
/// and `<new secret>`.
pub(super) fn redacted_pair(live: &str, desired: &str) -> (String, String) {
    let (before, after) = (secrets(live), secrets(desired));
    (
        shown(live, &|secret| if after.contains(secret) { SECRET } else { OLD }),
        shown(desired, &|secret| if before.contains(secret) { SECRET } else { NEW }),
    )
}

fn shown(config: &str, secret: &dyn Fn(&str) -> &'static str) -> String {
    let mut text = String::with_capacity(config.len());
    for line in config.lines() {
        match Line::of(line) {
            Line::Plain => text.push_str(line),
            Line::Secret { before, value } => {
                text.push_str(before);
                text.push_str(secret(value));
            }
            Line::Strange => text.push_str(HIDDEN),
        }
        text.push('\n');
    }
    text
}

/// A text with `<secret>` in place of each secret, in whatever quotes, and of what of an address is secret.
pub(super) fn scrubbed<'a>(text: &str, secrets: impl Iterator<Item = &'a str>) -> String {
    /// What is shorter is a word rather than a secret.
    const SHORTEST: usize = 4;
    let mut forms = BTreeSet::new();
    for secret in secrets {
        let path =
            url::Url::parse(secret).ok().map(|url| url[url::Position::BeforePath..].to_owned());
        for form in [Some(secret.to_owned()), path].into_iter().flatten() {
            // As YAML, JSON and Go quote it, and as a part of an address.
            let quoted = quoted(&form);
            forms.insert(quoted.trim_matches('"').to_owned());
            let encoded =
                percent_encoding::utf8_percent_encode(&form, percent_encoding::NON_ALPHANUMERIC);
            forms.insert(encoded.to_string());
            forms.insert(form);
        }
    }
    let mut forms: Vec<String> = forms.into_iter().filter(|form| form.len() >= SHORTEST).collect();
    // The longest first, lest a part of it is replaced and the rest stays.
    forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
    forms.iter().fold(text.to_owned(), |text, form| text.replace(form, "<secret>"))
}

fn secrets(config: &str) -> BTreeSet<&str> {
    let secret = |line| match Line::of(line) {
        Line::Secret { value, .. } => Some(value),
        _ => None,
    };
    config.lines().filter_map(secret).collect()
}

enum Line<'a> {
    /// Holds no secret.
    Plain,
    Secret {
        before: &'a str,
        value: &'a str,
    },
    /// None that we write.
    Strange,
}

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Self {
        if line.starts_with('#') {
            return if is_head(line) { Self::Plain } else { Self::Strange };
        }
        let rest = line.trim_start_matches(' ');
        let rest = rest.strip_prefix("- ").unwrap_or(rest);
        if is_value(rest) {
            return Self::Plain;
        }
        let Some((key, value)) = rest.split_once(':') else { return Self::Strange };
        let is_key = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let value = value.strip_prefix(' ').unwrap_or(value);
        if !is_key || !(value.is_empty() || is_value(value)) {
            return Self::Strange;
        }
        if SECRET_KEYS.contains(&key) && !value.is_empty() {
            let before = &line[..line.len() - value.len()];
            return Self::Secret { before, value };
        }
        Self::Plain
    }
}

fn is_head(line: &str) -> bool {
    let is_id = |id: &str| uuid::Uuid::try_parse(id).is_ok();
    line == MARKER
        || ["# channel ", "# route "].iter().any(|what| line.strip_prefix(what).is_some_and(is_id))
}

/// A scalar as we write it: in double quotes, a number, a switch, or nothing in brackets.
fn is_value(text: &str) -> bool {
    if matches!(text, "true" | "false" | "[]" | "{}") {
        return true;
    }
    if !text.starts_with('"') {
        let digits = text.strip_prefix('-').unwrap_or(text);
        return !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    }
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1 == text.len(),
            _ => {}
        }
    }
    false
}
