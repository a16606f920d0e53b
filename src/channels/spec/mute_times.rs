//! Mute times: Alertmanager's time intervals (`timeinterval/timeinterval.go`), as a list in JSON.

use serde_json::{Map, Value};

use super::fault::Collector;
use super::json::{kind, nested};
use super::text::trimmed;
use crate::rules::spec::refusal::quoted;

/// A time is in it if it is in one item of each list that is not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeInterval {
    /// From and until, `HH:MM`.
    pub times: Vec<(String, String)>,
    /// `monday`, `monday:friday`.
    pub weekdays: Vec<String>,
    /// `1`, `1:5`, `-3:-1`.
    pub days_of_month: Vec<String>,
    /// `1`, `january:march`.
    pub months: Vec<String>,
    /// `2026`, `2026:2027`.
    pub years: Vec<String>,
    /// A name of the time zone database; UTC if there is none. Only Mimir knows which there are.
    pub location: Option<String>,
}

const COLUMN: &str = "mute_times";
/// Intervals of a route, and items of each list in one.
const MOST: usize = 32;
const EXAMPLE: &str = r#"[{"weekdays": ["saturday", "sunday"], "times": [{"start_time": "00:00", "end_time": "07:00"}]}]"#;
const KEYS: [&str; 6] = ["times", "weekdays", "days_of_month", "months", "years", "location"];
const DAYS: [&str; 7] =
    ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

pub(super) fn read(text: Option<&str>, faults: &mut Collector) -> Vec<TimeInterval> {
    let text = trimmed(text.unwrap_or_default());
    if text.is_empty() {
        return Vec::new();
    }
    let items = match serde_json::from_str(text) {
        Ok(Value::Null) => return Vec::new(),
        Ok(Value::Array(items)) if items.len() <= MOST => items,
        Ok(Value::Array(items)) => {
            faults.add(COLUMN, format!("are {} intervals; at most {MOST}", items.len()));
            return Vec::new();
        }
        Ok(other) => {
            faults.add(
                COLUMN,
                format!("is {} in JSON; should be a list such as {EXAMPLE}", kind(&other)),
            );
            return Vec::new();
        }
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            faults.add(COLUMN, format!("is not valid JSON, line {line}, column {column}"));
            return Vec::new();
        }
    };
    let mut intervals = Vec::new();
    for item in items {
        match item {
            Value::Object(object) => match interval(object) {
                Ok(interval) => intervals.push(interval),
                Err(problem) => faults.add(COLUMN, problem),
            },
            other => {
                let is = kind(&other);
                faults.add(COLUMN, format!("holds {is}; should be a list such as {EXAMPLE}"));
            }
        }
    }
    intervals
}

fn interval(mut object: Map<String, Value>) -> Result<TimeInterval, String> {
    unknown_keys(&object)?;
    let mut interval = TimeInterval::default();
    for (start, end) in times(object.remove("times"))? {
        interval.times.push((start, end));
    }
    let mut ranges = |key: &str, check: fn(&str) -> Result<(), String>| {
        let mut texts = Vec::new();
        for text in list(key, object.remove(key))? {
            check(&text).map_err(|problem| format!("{key}: {} {problem}", quoted(&text)))?;
            texts.push(text);
        }
        Ok::<_, String>(texts)
    };
    interval.weekdays = ranges("weekdays", weekday)?;
    interval.days_of_month = ranges("days_of_month", day_of_month)?;
    interval.months = ranges("months", month)?;
    interval.years = ranges("years", year)?;
    interval.location = match object.remove("location") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) if is_zone(&name) => Some(name),
        Some(_) => {
            return Err("location: should be a time zone, such as Europe/Berlin".to_owned());
        }
    };
    if interval == TimeInterval::default() {
        return Err(
            "holds an empty interval, which would be always; disable the route instead".to_owned()
        );
    }
    Ok(interval)
}

/// Keys that are unknown come first: they are the cause of what else seems to be missing.
fn unknown_keys(object: &Map<String, Value>) -> Result<(), String> {
    let mut rest = object.clone();
    for key in KEYS {
        rest.remove(key);
    }
    let mut faults = Collector::default();
    let mut rest = nested(COLUMN, rest);
    rest.know(&KEYS);
    rest.finish(&[], &mut faults);
    faults.none_or(Some(())).map_err(|faults| {
        let text = faults.to_string();
        text.strip_prefix("mute_times: ").map_or(text.clone(), str::to_owned)
    })
}

fn times(value: Option<Value>) -> Result<Vec<(String, String)>, String> {
    let wanted = || {
        r#"times: should be a list such as [{"start_time": "09:00", "end_time": "17:00"}]"#
            .to_owned()
    };
    let items = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) if items.len() <= MOST => items,
        Some(_) => return Err(wanted()),
    };
    let mut times = Vec::new();
    for item in items {
        let Value::Object(object) = &item else { return Err(wanted()) };
        let text = |key| object.get(key).and_then(Value::as_str).filter(|_| object.len() == 2);
        let (Some(start), Some(end)) = (text("start_time"), text("end_time")) else {
            return Err(wanted());
        };
        let minute = |text| {
            minute(text)
                .ok_or_else(|| format!("times: {} should be HH:MM, up to 24:00", quoted(text)))
        };
        if minute(start)? >= minute(end)? {
            return Err(format!(
                "times: {} is not before {}; an interval ends at 24:00 at the latest",
                quoted(start),
                quoted(end)
            ));
        }
        times.push((start.to_owned(), end.to_owned()));
    }
    Ok(times)
}

fn minute(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |text: &str| {
        let is_two = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        is_two.then(|| text.parse::<u32>().ok()).flatten()
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    let is_time = (hours < 24 && minutes < 60) || (hours, minutes) == (24, 0);
    is_time.then_some(hours * 60 + minutes)
}

/// Texts or whole numbers, as lower-case texts.
fn list(key: &str, value: Option<Value>) -> Result<Vec<String>, String> {
    let wanted = || format!("{key}: should be a list of at most {MOST} texts");
    let items = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) if items.len() <= MOST => items,
        Some(_) => return Err(wanted()),
    };
    let text = |item: Value| match item {
        Value::String(text) => Ok(text.to_lowercase()),
        Value::Number(number) if number.is_i64() => Ok(number.to_string()),
        _ => Err(wanted()),
    };
    items.into_iter().map(text).collect()
}

/// The two ends of a range; one item is both.
fn ends(text: &str, member: impl Fn(&str) -> Option<i32>) -> Option<(i32, i32)> {
    let (begin, end) = text.split_once(':').unwrap_or((text, text));
    Some((member(begin)?, member(end)?))
}

/// A number as Go's `strconv.Atoi` reads it, within what a calendar has.
fn number(text: &str) -> Option<i32> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_number =
        (1..=4).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

fn place_in(names: &[&str], text: &str) -> Option<i32> {
    names.iter().position(|name| *name == text).and_then(|at| i32::try_from(at).ok())
}

fn weekday(text: &str) -> Result<(), String> {
    match ends(text, |text| place_in(&DAYS, text)) {
        Some((begin, end)) if begin <= end => Ok(()),
        Some(_) => Err("ends before it begins; a week begins on sunday".to_owned()),
        None => Err("should be a day or a range, such as monday:friday".to_owned()),
    }
}

fn day_of_month(text: &str) -> Result<(), String> {
    let wanted =
        || "should be a day or a range, such as 1:15, or -3:-1 for the last three".to_owned();
    let (begin, end) = ends(text, number).ok_or_else(wanted)?;
    let is_day = |day: i32| (1..=31).contains(&day.abs());
    if !is_day(begin) || !is_day(end) {
        return Err(wanted());
    }
    // In the shortest month, as the original has it.
    let day = |day: i32| if day < 0 { 28 + day } else { day };
    if (begin < 0 && end > 0) || day(begin) > day(end) {
        return Err("ends before it begins".to_owned());
    }
    Ok(())
}

fn month(text: &str) -> Result<(), String> {
    let member = |text: &str| {
        let named = place_in(&MONTHS, text).map(|at| at + 1);
        named.or_else(|| number(text)).filter(|month| (1..=12).contains(month))
    };
    match ends(text, member) {
        Some((begin, end)) if begin <= end => Ok(()),
        Some(_) => Err("ends before it begins; write two ranges".to_owned()),
        None => Err("should be a month or a range, such as january:march or 1:3".to_owned()),
    }
}

fn year(text: &str) -> Result<(), String> {
    match ends(text, |text| number(text).filter(|year| *year >= 0)) {
        Some((begin, end)) if begin <= end => Ok(()),
        Some(_) => Err("ends before it begins".to_owned()),
        None => Err("should be a year or a range, such as 2026:2027".to_owned()),
    }
}

/// A name as the time zone database has them. Go looks for it as a file's name.
fn is_zone(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-/".contains(&byte);
    (1..=64).contains(&name.len())
        && name.bytes().all(is_plain)
        && !name.starts_with('/')
        // Mimir's own zone is not the author's.
        && name != "Local"
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn problem(text: &str) -> Result<Vec<TimeInterval>, String> {
        let mut faults = Collector::default();
        let read = read(Some(text), &mut faults);
        faults.none_or(Some(read)).map_err(|faults| faults.to_string())
    }

    #[test]
    fn intervals_are_those_of_alertmanager() {
        let all = r#"[{"times": [{"start_time": "00:00", "end_time": "24:00"}], "weekdays": ["Monday:friday", "sunday"],
            "days_of_month": [1, "5:7", "-3:-1", "20:-1"], "months": ["january:march", 12], "years": [2026, "2027:2030"],
            "location": "Europe/Berlin"}]"#;
        let read = problem(all).unwrap();
        assert_eq!(read[0].weekdays, ["monday:friday", "sunday"]);
        assert_eq!(read[0].days_of_month, ["1", "5:7", "-3:-1", "20:-1"]);
        for empty in ["", "null", "[]"] {
            assert_eq!(problem(empty), Ok(Vec::new()));
        }
        for (text, words) in [
            ("{}", "an object"),
            ("[", "not valid JSON"),
            ("[1]", "a number"),
            ("[{}]", "empty interval"),
            (r#"[{"weekday": ["monday"]}]"#, "did you mean weekdays?"),
            (r#"[{"start_time": "22:00"}]"#, "start_time"),
            (r#"[{"weekday": ["monday"], "location": 1}]"#, "did you mean weekdays?"),
            (r#"[{"weekday": ["monday"], "years": [2026]}]"#, "did you mean weekdays?"),
            (r#"[{"weekdays": ["mon"]}]"#, "monday:friday"),
            (r#"[{"weekdays": ["friday:monday"]}]"#, "ends before"),
            (r#"[{"weekdays": "monday"}]"#, "a list"),
            (r#"[{"times": [{"start_time": "9:00", "end_time": "17:00"}]}]"#, "HH:MM"),
            (r#"[{"times": [{"start_time": "22:00", "end_time": "06:00"}]}]"#, "not before"),
            (r#"[{"times": [{"start_time": "22:00"}]}]"#, "times:"),
            (r#"[{"days_of_month": [0]}]"#, "1:15"),
            (r#"[{"days_of_month": ["-1:5"]}]"#, "ends before"),
            (r#"[{"months": ["13"]}]"#, "january"),
            (r#"[{"months": ["december:january"]}]"#, "two ranges"),
            (r#"[{"years": ["soon"]}]"#, "a year"),
            (r#"[{"location": "../etc/passwd"}]"#, "time zone"),
            (r#"[{"location": "Local"}]"#, "time zone"),
        ] {
            let problem = problem(text).unwrap_err();
            assert!(problem.contains(words), "{text}: {problem}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,20}", key in "(times|weekdays|days_of_month|months|years|location)") {
            let _ = problem(&text);
            let value = serde_json::to_string(&text).unwrap();
            let _ = problem(&format!("[{{\"{key}\": [{value}]}}]"));
            let _ = problem(&format!("[{{\"{key}\": {value}}}]"));
        }
    }
}
