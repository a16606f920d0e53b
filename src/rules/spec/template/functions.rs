//! The functions of Prometheus' templates (`template/template.go`) and of Go's `text/template`, with the
//! longest result that each can return.

use super::cost::{LABEL, NUMBER, SAMPLE, Shape, VALUE, Value};
use super::format;
use crate::mimir::expression::Pattern;

pub(super) struct Called {
    pub(super) value: Value,
    /// Its cost beyond the value, in bytes that could be produced instead.
    pub(super) work: u64,
}

/// An error if there is no such function, or its result has no bound.
pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Called, String> {
    let bytes = arguments.iter().fold(0, |sum: u64, argument| sum.saturating_add(argument.bytes));
    let times = |factor: u64| Value::text(bytes.saturating_mul(factor).saturating_add(NUMBER));
    let last = arguments.last();
    let mut work = 0;
    let value = match name {
        // The value is one of the arguments.
        "and" | "or" => {
            let values = arguments.iter().cloned().reduce(|one, other| one.or(&other));
            values.ok_or_else(|| format!("{name:?} needs arguments"))?
        }
        "not" | "eq" | "ne" | "lt" | "le" | "gt" | "ge" | "len" | "now" | "parseDuration"
        | "toDuration" | "value" => {
            // The value of a sample may be a histogram, which is printed as it is.
            if name == "value" { Value::new(Shape::Number, VALUE) } else { Value::number() }
        }
        "humanize" | "humanize1024" | "humanizeDuration" | "humanizePercentage"
        | "humanizeTimestamp" => Value::text(NUMBER),
        "toTime" => Value::new(Shape::Time, NUMBER),
        "first" => Value::new(Shape::Sample, SAMPLE),
        "sortByLabel" => match last {
            Some(series) if series.shape == Shape::Series => series.clone(),
            _ => return Err("\"sortByLabel\" takes the result of a query".to_owned()),
        },
        "label" | "strvalue" | "pathPrefix" | "externalURL" => Value::text(LABEL),
        "index" => match arguments.first().map(|first| first.shape) {
            Some(Shape::Labels) => Value::text(LABEL),
            Some(Shape::Series) => Value::new(Shape::Sample, SAMPLE),
            Some(Shape::Text) => Value::number(),
            _ => Value::new(Shape::Any, bytes),
        },
        "slice" => match arguments.first() {
            Some(first) if first.shape == Shape::Series => first.clone(),
            Some(first) => Value::text(first.bytes),
            None => return Err("\"slice\" needs arguments".to_owned()),
        },
        "args" => Value::new(Shape::Any, bytes.saturating_add(arguments.len() as u64 * 16)),
        "safeHtml" | "stripPort" | "stripDomain" => times(1),
        // Each character becomes another one, of at most three bytes for two: "Ⱥ" -> "ⱥ".
        "title" | "toUpper" | "toLower" => times(2),
        "urlquery" | "urlQueryEscape" => times(3),
        "html" => times(5),
        "js" => times(6),
        // JSON in a query string.
        "graphLink" | "tableLink" => times(18),
        "print" | "println" => times(1),
        "printf" => format::printf(arguments)?,
        "match" => {
            work = matching(arguments, last)?;
            Value::number()
        }
        "reReplaceAll" => {
            let [_, replacement, text] = arguments else {
                return Err("\"reReplaceAll\" takes a pattern, a replacement and a text".to_owned());
            };
            work = matching(arguments, last)?;
            // There is at most one match at each position. Each reference in the replacement repeats a
            // match, and all matches together are no longer than the text.
            let (text, replacement) = (text.bytes, replacement.bytes);
            let replaced = text.saturating_add(1).saturating_mul(replacement);
            Value::text(replaced.saturating_add(replacement / 2 * text).saturating_add(text))
        }
        _ => return Err(format!("unknown function {name:?}")),
    };
    Ok(Called { value, work })
}

/// The largest pattern, with counted repetitions expanded.
const MOST_WEIGHT: u64 = 8 << 10;
/// The most that its groups may capture: 1 MiB of positions.
const MOST_CAPTURES: u64 = 64 << 10;

/// The cost of a match. Go's regular expressions take time in proportion to pattern times text, with
/// counted repetitions such as `{3}` expanded, and copy the positions of all groups for each state.
fn matching(arguments: &[Value], text: Option<&Value>) -> Result<u64, String> {
    let pattern = arguments.first().and_then(|pattern| pattern.constant.as_deref());
    let pattern = pattern.ok_or("a pattern must be a string in the template")?;
    let pattern = Pattern::of(pattern.as_bytes());
    let (weight, captures) = (pattern.weight(), pattern.captures());
    if weight > MOST_WEIGHT || captures > MOST_CAPTURES {
        return Err("the pattern is too large; shorten it or its repetitions, or use fewer groups"
            .to_owned());
    }
    // A step of the matcher is cheaper than a produced byte.
    Ok(text.map_or(0, |text| text.bytes).saturating_mul(weight.saturating_add(captures)) / 64)
}
