//! Reads a row of `notification_route`: into a [`Route`], or into [`Faults`] that name what is wrong.

use serde_json::Value;
use uuid::Uuid;

use super::Operator;
use super::fault::{Collector, Faults};
use super::json::kind;
use super::matcher::{self, MOST_MATCHERS, Matcher};
use super::mute_times::{self, TimeInterval};
use super::text::{duration, problem, switch, trimmed};
use crate::prom_duration::PromDuration;
use crate::rules::spec::refusal::quoted;
use crate::store::RouteRow;

/// A route that may be written to Mimir, if its channel is live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub id: Uuid,
    /// The channel's ID.
    pub channel: Uuid,
    /// Together with `created` and `id` the order in which routes are tried.
    pub position: i64,
    /// Microseconds since the epoch.
    pub created: i64,
    /// All must match; none match everything.
    pub matchers: Vec<Matcher>,
    pub group_by: GroupBy,
    pub group_wait: Option<PromDuration>,
    pub group_interval: Option<PromDuration>,
    pub repeat_interval: Option<PromDuration>,
    /// When nothing is sent.
    pub mute_times: Vec<TimeInterval>,
    /// Whether later routes are tried, too.
    pub continue_matching: bool,
}

/// Which alerts become one notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupBy {
    /// As in the document's root: by the alert's name.
    Root,
    /// Those with the same values of these; all if there are none.
    Labels(Vec<String>),
    /// Each by itself.
    Every,
}

/// Labels that alerts are grouped by.
const MOST_LABELS: usize = 32;
const LABEL_BYTES: usize = 1024;

const MINUTE: PromDuration = PromDuration::from_millis(60_000);
const DAY: PromDuration = PromDuration::from_millis(86_400_000);
const MONTH: PromDuration = PromDuration::from_millis(30 * 86_400_000);

/// With [`GroupBy::Every`] each alert is a group, so groups are many, and each sends on its own: their shortest
/// interval is so many times the shortest one of others.
const EVERY: u64 = 3;

/// Reads a row; none if its author has disabled it.
///
/// `room` is what the patterns of this and later routes may weigh ([`matcher::MOST_PATTERN_WEIGHT`]).
pub fn parse(row: &RouteRow, operator: &Operator, room: &mut u64) -> Result<Option<Route>, Faults> {
    let RouteRow {
        id,
        organisation: _,
        channel,
        position,
        matchers,
        group_by,
        group_wait,
        group_interval,
        repeat_interval,
        mute_times,
        continue_matching,
        enabled,
        created_at_micros,
        excess: _,
    } = row;
    let mut faults = Collector::default();
    if !switch("enabled", enabled.as_deref(), true, &mut faults) {
        return Ok(None);
    }
    let text = trimmed(channel.as_deref().unwrap_or_default());
    let channel = Uuid::try_parse(text).ok();
    if channel.is_none() {
        faults.add("channel_id", "should be the id of a channel");
    }
    let group_by = read_group_by(group_by.as_deref(), &mut faults);
    let route = Route {
        id: *id,
        channel: channel.unwrap_or_default(),
        position: read_position(position.as_deref(), &mut faults),
        created: created_at_micros.unwrap_or(i64::MIN),
        matchers: read_matchers(matchers.as_deref(), room, &mut faults),
        // Alertmanager takes any; what is outside is a mistake of units, or costs others something.
        group_wait: duration(
            "group_wait",
            group_wait.as_deref(),
            (PromDuration::ZERO, DAY),
            &mut faults,
        ),
        group_interval: duration(
            "group_interval",
            group_interval.as_deref(),
            (shortest_group_interval(&group_by, operator), MONTH),
            &mut faults,
        ),
        group_by,
        repeat_interval: duration(
            "repeat_interval",
            repeat_interval.as_deref(),
            (MINUTE, MONTH),
            &mut faults,
        ),
        mute_times: mute_times::read(mute_times.as_deref(), &mut faults),
        continue_matching: switch(
            "continue_matching",
            continue_matching.as_deref(),
            false,
            &mut faults,
        ),
    };
    faults.none_or(Some(Some(route)))
}

/// Each flush of a group may be a request, and lines in Mimir's log if it fails.
fn shortest_group_interval(group_by: &GroupBy, operator: &Operator) -> PromDuration {
    let times = if *group_by == GroupBy::Every { EVERY } else { 1 };
    let millis = u64::try_from(operator.min_group_interval.as_millis()).unwrap_or(u64::MAX);
    PromDuration::from_millis(millis.saturating_mul(times))
}

fn read_position(text: Option<&str>, faults: &mut Collector) -> i64 {
    let text = trimmed(text.unwrap_or_default());
    if text.is_empty() {
        return 0;
    }
    text.parse().unwrap_or_else(|_| {
        faults.add("position", format!("{} should be a whole number", quoted(text)));
        0
    })
}

/// A list of texts in JSON; none if the column is empty.
pub(super) fn texts(
    column: &'static str,
    text: Option<&str>,
    example: &str,
    faults: &mut Collector,
) -> Option<Vec<String>> {
    let text = trimmed(text.unwrap_or_default());
    if text.is_empty() {
        return None;
    }
    let items = match serde_json::from_str(text) {
        Ok(Value::Null) => return None,
        Ok(Value::Array(items)) => items,
        Ok(other) => {
            let fault = format!("is {} in JSON; should be a list such as {example}", kind(&other));
            faults.add(column, fault);
            return None;
        }
        Err(error) => {
            let (line, at) = (error.line(), error.column());
            faults.add(column, format!("is not valid JSON, line {line}, column {at}"));
            return None;
        }
    };
    let mut texts = Vec::new();
    for item in items {
        match item {
            Value::String(text) => texts.push(text),
            other => faults
                .add(column, format!("holds {}; should be a list such as {example}", kind(&other))),
        }
    }
    Some(texts)
}

fn read_matchers(text: Option<&str>, room: &mut u64, faults: &mut Collector) -> Vec<Matcher> {
    let example = r#"["severity=\"critical\"", "team=~\"a|b\""]"#;
    let mut matchers = Vec::new();
    let texts = texts("matchers", text, example, faults).unwrap_or_default();
    if texts.len() > MOST_MATCHERS {
        faults.add("matchers", format!("are {}; at most {MOST_MATCHERS}", texts.len()));
        return matchers;
    }
    for text in texts {
        match matcher::parse(&text, room) {
            Ok(read) => matchers.extend(read),
            Err(problem) => faults.add("matchers", format!("{} {problem}", quoted(&text))),
        }
    }
    if matchers.len() > MOST_MATCHERS {
        faults.add("matchers", format!("are {}; at most {MOST_MATCHERS}", matchers.len()));
    }
    matchers
}

fn read_group_by(text: Option<&str>, faults: &mut Collector) -> GroupBy {
    let example = r#"["alertname", "site"], or ["..."] for each alert by itself"#;
    let Some(labels) = texts("group_by", text, example, faults) else { return GroupBy::Root };
    if labels.len() > MOST_LABELS {
        faults.add("group_by", format!("are {}; at most {MOST_LABELS}", labels.len()));
        return GroupBy::Root;
    }
    if labels == ["..."] {
        return GroupBy::Every;
    }
    let mut seen: Vec<String> = Vec::new();
    for label in labels {
        let fault = if label == "..." {
            Some("stands beside labels; it means all of them, so write it alone".to_owned())
        } else if seen.contains(&label) {
            Some("stands there twice".to_owned())
        } else if !matcher::is_classic_name(&label) {
            // Alertmanager takes others in UTF-8 mode only, and labels of rules have classic names.
            Some("is not a label's name: letters, digits and _, not a digit first".to_owned())
        } else {
            problem(&label, LABEL_BYTES)
        };
        match fault {
            Some(fault) => faults.add("group_by", format!("{} {fault}", quoted(&label))),
            None => seen.push(label),
        }
    }
    GroupBy::Labels(seen)
}
