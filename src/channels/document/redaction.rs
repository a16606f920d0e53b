//! What of a document may be shown. Every value of ours stands on one line behind its key. The document may
//! have been changed by hand: a line that does not look so, or whose key we do not write, is not shown, and
//! nothing below it.

use std::collections::BTreeSet;

use super::MARKER;
use super::yaml::SECRET_KEYS;
use crate::yaml::quoted;

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
    for line in lines(config) {
        match line {
            Line::Plain(line) => text.push_str(line),
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

/// The lines of a document, each with what it is. What stands below a strange line is strange.
fn lines(config: &str) -> impl Iterator<Item = Line<'_>> {
    let mut below = None;
    config.lines().map(move |line| {
        let indent = line.len() - line.trim_start_matches(' ').len();
        let is_item = line[indent..].starts_with('-');
        // The items of a list may stand below its key without an indentation.
        if below.is_some_and(|above| indent > above || (indent == above && is_item)) {
            return Line::Strange;
        }
        let read = Line::of(line);
        below = matches!(read, Line::Strange).then_some(indent);
        read
    })
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
    let secret = |line| match line {
        Line::Secret { value, .. } => Some(value),
        Line::Plain(_) | Line::Strange => None,
    };
    lines(config).filter_map(secret).collect()
}

enum Line<'a> {
    /// Holds no secret.
    Plain(&'a str),
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
            return if is_head(line) { Self::Plain(line) } else { Self::Strange };
        }
        let rest = line.trim_start_matches(' ');
        let rest = rest.strip_prefix("- ").unwrap_or(rest);
        if is_value(rest) {
            return Self::Plain(line);
        }
        let Some((key, value)) = rest.split_once(':') else { return Self::Strange };
        let is_secret = SECRET_KEYS.contains(&key);
        let value = value.strip_prefix(' ').unwrap_or(value);
        let is_ours = is_secret || SHOWN_KEYS.contains(&key);
        if !is_ours || (is_secret && value.is_empty()) || !(value.is_empty() || is_value(value)) {
            return Self::Strange;
        }
        if is_secret {
            let before = &line[..line.len() - value.len()];
            return Self::Secret { before, value };
        }
        Self::Plain(line)
    }
}

/// All other keys that we write; a test sees that none is missing.
const SHOWN_KEYS: [&str; 77] = [
    "global",
    "http_config",
    "follow_redirects",
    "route",
    "receiver",
    "group_by",
    "group_wait",
    "group_interval",
    "repeat_interval",
    "routes",
    "matchers",
    "mute_time_intervals",
    "continue",
    "receivers",
    "name",
    "webhook_configs",
    "email_configs",
    "slack_configs",
    "pagerduty_configs",
    "opsgenie_configs",
    "telegram_configs",
    "discord_configs",
    "msteams_configs",
    "msteamsv2_configs",
    "send_resolved",
    "max_alerts",
    "authorization",
    "basic_auth",
    "username",
    "to",
    "from",
    "smarthost",
    "require_tls",
    "hello",
    "headers",
    "Subject",
    "html",
    "text",
    "channel",
    "icon_emoji",
    "title",
    "title_link",
    "fallback",
    "severity",
    "class",
    "component",
    "group",
    "client",
    "client_url",
    "source",
    "details",
    "firing",
    "resolved",
    "num_firing",
    "num_resolved",
    "priority",
    "tags",
    "responders",
    "type",
    "id",
    "description",
    "chat_id",
    "message_thread_id",
    "disable_notifications",
    "parse_mode",
    "message",
    "summary",
    "time_intervals",
    "times",
    "start_time",
    "end_time",
    "weekdays",
    "days_of_month",
    "months",
    "years",
    "location",
    "templates",
];

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
