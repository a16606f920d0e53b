//! The columns that are plain texts: names, the expression, durations, and `enabled`.

use crate::mimir::expression::{self, ExpressionLimits};
use crate::mimir::ruler::{PromDuration, is_addressable};
use crate::rules::spec::alert_rule::{MAX_INTERVAL, MIN_INTERVAL};
use crate::rules::spec::refusal::{Faults, Position, quoted};

/// The longest name of an alert. It becomes the value of a label, which Mimir limits to this by default
/// (`-validation.max-length-label-value`).
pub const MAX_NAME_BYTES: usize = 2_048;

/// The longest name of a group. Mimir stores a group under its name in base64, and the name of a
/// file holds 255 bytes, which is 189 of the group's; the rest is for what a split group's name gets
/// (`@23h59m59s999ms#1000`).
pub const MAX_GROUP_BYTES: usize = 150;

/// The longest expression. Mimir has no bound of its own by default; twenty such rules, a whole
/// group, are still little more than a megabyte.
pub const MAX_EXPR_BYTES: usize = 64 * 1024;

/// Whether the row is enabled, in the spellings that Postgres reads as a boolean. Any other counts as
/// enabled, so that the fault is reported.
pub(super) fn enabled(text: Option<&str>, faults: &mut Faults) -> bool {
    match text.unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "" | "true" | "t" | "yes" | "y" | "on" | "1" => true,
        "false" | "f" | "no" | "n" | "off" | "0" => false,
        other => {
            faults.add("enabled", format!("is {}; should be true or false", quoted(other)));
            true
        }
    }
}

/// The alert's name. Prometheus takes any text (`rulefmt`), we take a single printable line.
pub(super) fn name(text: Option<&str>, faults: &mut Faults) -> String {
    let name = trimmed(text);
    if name.is_empty() {
        faults.add("name", "is empty; name the alert");
    }
    line("name", name, MAX_NAME_BYTES, faults)
}

/// The group's name. It becomes a percent-encoded path segment in requests to Mimir, so nearly any name
/// works. But `.` and `..` are path steps however they are encoded, and one step up from a group is its
/// whole namespace.
pub(super) fn group(text: Option<&str>, default: &str, faults: &mut Faults) -> String {
    let name = trimmed(text);
    let name = if name.is_empty() { default } else { name };
    if !name.is_empty() && name.len() <= MAX_GROUP_BYTES && !is_addressable(name) {
        let fault = format!("is {}, which Mimir takes for a path; use another name", quoted(name));
        faults.add("rule_group", fault);
    }
    line("rule_group", name, MAX_GROUP_BYTES, faults)
}

fn line(column: &'static str, text: &str, most: usize, faults: &mut Faults) -> String {
    too_long(column, text, most, faults);
    let unprintable = |c| c == '\n' || c == '\t' || c == '\r' || is_unprintable(c);
    if let Some(at) = text.find(unprintable) {
        faults.add_at(
            column,
            Position::of(text, at),
            format!("contains {}, which is not printable; remove it", described(text, at)),
        );
    }
    text.to_owned()
}

/// The expression, trimmed and with `\n` as line ends, because that is how Mimir returns it: its YAML
/// has no other line ends.
pub(super) fn expr(text: Option<&str>, limits: &ExpressionLimits, faults: &mut Faults) -> String {
    let expr = trimmed(text).replace("\r\n", "\n").replace('\r', "\n");
    if expr.is_empty() {
        faults.add("expr", "is empty; write a PromQL expression");
    }
    too_long("expr", &expr, MAX_EXPR_BYTES, faults);
    if let Some(at) = expr.find(is_unprintable) {
        faults.add_at(
            "expr",
            Position::of(&expr, at),
            format!("contains {}, which is not printable; remove it", described(&expr, at)),
        );
    }
    if expr.len() <= MAX_EXPR_BYTES
        && let Err(excess) = expression::check(&expr, &limits.in_rules())
    {
        let before = expr.floor_char_boundary(excess.at.saturating_sub(1));
        faults.add_at("expr", Position::of(&expr, before), excess.to_string());
    }
    expr
}

/// `for` and `keep_firing_for`; empty is zero.
pub(super) fn wait(column: &'static str, text: Option<&str>, faults: &mut Faults) -> PromDuration {
    duration(column, text, faults).unwrap_or_default()
}

pub(super) fn interval(
    text: Option<&str>,
    default: PromDuration,
    faults: &mut Faults,
) -> PromDuration {
    let Some(interval) = duration("evaluation_interval", text, faults) else {
        return default;
    };
    if !(MIN_INTERVAL..=MAX_INTERVAL).contains(&interval) {
        faults.add(
            "evaluation_interval",
            format!("is {interval}; should be from {MIN_INTERVAL} to {MAX_INTERVAL}"),
        );
    }
    interval
}

fn duration(column: &'static str, text: Option<&str>, faults: &mut Faults) -> Option<PromDuration> {
    let text = trimmed(text);
    if text.is_empty() {
        return None;
    }
    text.parse().map_err(|error| faults.add(column, format!("{} {error}", quoted(text)))).ok()
}

/// Editors leave white space and byte order marks around texts.
fn trimmed(text: Option<&str>) -> &str {
    text.unwrap_or_default().trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}

fn too_long(column: &'static str, text: &str, most: usize, faults: &mut Faults) {
    if text.len() > most {
        faults.add(column, format!("is {} bytes long; at most {most}", text.len()));
    }
}

/// Control characters other than white space, and characters that YAML does not permit.
pub(super) fn is_unprintable(c: char) -> bool {
    match c {
        '\n' | '\t' | '\r' => false,
        '\u{feff}' | '\u{fffe}' | '\u{ffff}' => true,
        _ => c.is_control(),
    }
}

/// The character at this byte, as U+001B.
pub(super) fn described(text: &str, at: usize) -> String {
    let character = text[at..].chars().next().map_or(0, u32::from);
    format!("the character U+{character:04X}")
}
