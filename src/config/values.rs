//! The types of values: text, switch, number, duration, size, list, secret.

use std::fmt;
use std::time::Duration;

use toml::Value;

use super::reader::{Raw, kind};
use crate::prom_duration::PromDuration;

/// Bytes that must never be printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl Secret {
    pub fn new(text: &str) -> Self {
        Self(text.as_bytes().into())
    }

    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "Secret(empty)" } else { "Secret(…)" })
    }
}

pub(super) fn text(raw: Raw) -> Result<String, String> {
    match raw {
        Raw::Toml(Value::String(text)) | Raw::Text(text) => Ok(text),
        Raw::Toml(other) => Err(format!("must be a string, not {}", kind(&other))),
    }
}

pub(super) fn switch(raw: Raw) -> Result<bool, String> {
    match raw {
        Raw::Toml(Value::Boolean(on)) => Ok(on),
        Raw::Text(text) => text.parse().map_err(|_| "must be true or false".to_owned()),
        Raw::Toml(other) => Err(format!("must be true or false, not {}", kind(&other))),
    }
}

pub(super) fn number(raw: Raw, min: usize, max: usize) -> Result<usize, String> {
    let wanted = || format!("must be a whole number from {min} to {max}");
    let number = match raw {
        Raw::Toml(Value::Integer(number)) => usize::try_from(number).map_err(|_| wanted())?,
        Raw::Text(text) => text.parse().map_err(|_| wanted())?,
        Raw::Toml(_) => return Err(wanted()),
    };
    if (min..=max).contains(&number) { Ok(number) } else { Err(wanted()) }
}

/// A part of a whole, from 0 to 1.
pub(super) fn fraction(raw: Raw) -> Result<f64, String> {
    let wanted = || "must be a number from 0 to 1, such as 0.01".to_owned();
    let number = match raw {
        Raw::Toml(Value::Float(number)) => number,
        Raw::Toml(Value::Integer(number)) => {
            f64::from(i32::try_from(number).map_err(|_| wanted())?)
        }
        Raw::Text(text) => text.parse().map_err(|_| wanted())?,
        Raw::Toml(_) => return Err(wanted()),
    };
    if (0.0..=1.0).contains(&number) { Ok(number) } else { Err(wanted()) }
}

/// A list of strings; in the environment as in the file, or separated by commas.
pub(super) fn list(raw: Raw) -> Result<Vec<String>, String> {
    match raw {
        Raw::Text(text) if text.trim_start().starts_with('[') => {
            let written = format!("list = {text}").parse::<toml::Table>();
            let value = written.ok().and_then(|mut table| table.remove("list"));
            list(Raw::Toml(value.ok_or("must be a list such as [\"a\", \"b\"], or a,b")?))
        }
        Raw::Toml(Value::Array(items)) => items
            .into_iter()
            .map(|item| match item {
                Value::String(text) => Ok(text),
                other => Err(format!("must be a list of strings; one item is {}", kind(&other))),
            })
            .collect(),
        Raw::Text(text) => Ok(text
            .split(',')
            .map(|item| item.trim().to_owned())
            .filter(|item| !item.is_empty())
            .collect()),
        Raw::Toml(other) => Err(format!("must be a list of strings, not {}", kind(&other))),
    }
}

/// A duration such as `250ms`, `10s`, `5m`, `1h30m`, within bounds.
pub(super) fn duration(raw: Raw, min: Duration, max: Duration) -> Result<Duration, String> {
    let wanted = || {
        format!(
            "must be a duration such as \"10s\", \"5m\" or \"1h30m\", from {} to {}",
            show_duration(min),
            show_duration(max)
        )
    };
    let duration = text(raw).ok().and_then(|text| parse_duration(&text)).ok_or_else(wanted)?;
    if (min..=max).contains(&duration) { Ok(duration) } else { Err(wanted()) }
}

/// A bound in the largest unit of which it is a whole number.
pub(super) fn show_duration(duration: Duration) -> String {
    const UNITS: [(u128, &str); 4] =
        [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let milliseconds = duration.as_millis();
    let whole = |(unit, _): &(u128, &str)| milliseconds.is_multiple_of(*unit);
    match UNITS.into_iter().find(whole).filter(|_| milliseconds > 0) {
        Some((unit, name)) => format!("{}{name}", milliseconds / unit),
        None if milliseconds == 0 => "0s".to_owned(),
        None => format!("{milliseconds}ms"),
    }
}

/// Parses a duration such as `90d` or `1h30m`: Prometheus' grammar, in any order.
pub fn parse_duration(text: &str) -> Option<Duration> {
    PromDuration::parse_unordered(text).ok().map(Duration::from)
}

/// A size that is held in memory.
pub(super) fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

/// A size in bytes such as `65536`, `64KiB`, `100MiB`, within bounds.
pub(super) fn size(raw: Raw, min: u64, max: u64) -> Result<u64, String> {
    let wanted = || {
        format!(
            "must be a size such as \"64KiB\" or \"100MiB\", from {} to {}",
            show(min),
            show(max)
        )
    };
    let size = match raw {
        Raw::Toml(Value::Integer(bytes)) => u64::try_from(bytes).ok(),
        other => text(other).ok().and_then(|text| parse_size(&text)),
    };
    size.filter(|size| (min..=max).contains(size)).ok_or_else(wanted)
}

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;

fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[digits..].trim_start() {
        "" | "B" => 1,
        "KiB" => KIB,
        "MiB" => MIB,
        "GiB" => GIB,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(unit)
}

fn show(bytes: u64) -> String {
    [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")]
        .into_iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit))
}

/// An `http` or `https` address without credentials, query or fragment, such as the example of its
/// key. Messages never repeat it: it may contain a secret.
pub(super) fn url(raw: Raw, example: &str) -> Result<url::Url, String> {
    let text = text(raw)?;
    let wanted = format!("must be an address such as \"{example}\"");
    if let Some((problem, _)) = unwritten(&text) {
        return Err(format!("{wanted}: it {problem}"));
    }
    // Before parsing: with `/`, `?` or `#` in a password the parser takes the user for the host.
    if text.contains('@') {
        return Err(format!("{wanted}: credentials do not belong into it"));
    }
    let url = url::Url::parse(&text).map_err(|error| format!("{wanted}: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{wanted}: the scheme '{}' is neither http nor https", url.scheme()));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{wanted}: without a query and a fragment"));
    }
    Ok(url)
}

/// Why a text is not an address in the expected form. Parsers silently repair such texts, or take
/// something else for the host. Messages never repeat the text. Returned beside it is the rule for
/// passwords in it.
pub(super) fn unwritten(text: &str) -> Option<(&'static str, &'static str)> {
    let is_placeholder = |open: char, close: char| {
        text.split_once(open).is_some_and(|(_, rest)| {
            let inner = rest.split(close).next().unwrap_or_default();
            let letters = |c: char| c.is_ascii_alphabetic() || "-_ ".contains(c);
            rest.contains(close) && inner.len() > 1 && inner.chars().all(letters)
        })
    };
    let has_lone_percent = text.match_indices('%').any(|(at, _)| {
        let digits = text.as_bytes().get(at + 1..at + 3);
        !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    if text.contains("${") || text.contains("{{") {
        let variable = "holds a variable, which nothing puts in here; use MTP__SECTION__KEY in the \
                        environment";
        Some((variable, ""))
    } else if is_placeholder('[', ']') || is_placeholder('<', '>') {
        Some(("holds a placeholder such as [YOUR-PASSWORD] or <ref>; put in the value", ""))
    } else if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        Some(("holds a space or a line break", "; a space in a password is written %20"))
    } else if text.contains('\\') {
        Some(("holds a backslash", "; in a password it is written %5C"))
    } else if has_lone_percent {
        Some(("holds a % without two hexadecimal digits", "; in a password it is written %25"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_up_their_parts() {
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        for wrong in ["", "5", "m", "5x", "-5s", "5 s", "99999999999s", "s5"] {
            assert_eq!(parse_duration(wrong), None, "{wrong:?}");
        }
    }

    // Every bad address of Mimir used to be compared with Supabase's, with advice about a password.
    #[test]
    fn a_bad_address_is_reported_with_the_example_of_its_own_key() {
        for wrong in ["http://", "http://m:99999", "http://u:p@m", "m:8080", "", "http://m x"] {
            let example = "http://mimir.internal:8080";
            let problem = url(Raw::Text(wrong.to_owned()), example).unwrap_err();
            assert!(problem.contains(example) && !problem.contains("password"), "{problem}");
        }
    }

    // WHATWG's parser takes the user for the host, drops line breaks and turns backslashes around.
    #[test]
    fn addresses_with_secrets_are_refused_and_not_repeated() {
        for text in [
            "https://user:secret@host/",
            "https://user:12/secret@host/",
            "https://user:12?secret@host/",
            "https://user:12#secret@host/",
            "https://:secret@consul.fly.io/prefix",
            "https://secret%zz.example.com",
            "https://secret .example.com",
            "https://host/secret\n",
            "https://host\\secret",
            "https://${secret}.supabase.co/auth/v1",
            "https://<secret>.supabase.co/auth/v1",
            "ftp://secret",
            "https://host/?apikey=secret",
        ] {
            let problem = url(Raw::Text(text.to_owned()), "https://a.example").unwrap_err();
            assert!(!problem.contains("secret"), "{problem}");
        }
        for right in ["http://[::1]:8080", "http://[fdaa:0:1::3]/", "https://a.b/c%20d"] {
            assert!(url(Raw::Text(right.to_owned()), "https://a.example").is_ok(), "{right}");
        }
    }

    #[test]
    fn a_fraction_is_from_0_to_1() {
        for (text, number) in [("0", 0.0), ("0.25", 0.25), ("1", 1.0)] {
            assert!((fraction(Raw::Text(text.to_owned())).unwrap() - number).abs() < f64::EPSILON);
        }
        for wrong in ["-0.1", "1.1", "NaN", "inf", "1%", ""] {
            assert!(fraction(Raw::Text(wrong.to_owned())).is_err(), "{wrong}");
        }
        assert!(fraction(Raw::Toml(Value::Integer(1))).is_ok());
        assert!(fraction(Raw::Toml(Value::Integer(100))).is_err());
    }

    #[test]
    fn bounds_are_shown_as_they_are_written() {
        for text in ["0s", "100ms", "90s", "5m", "1h", "30d"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn sizes_are_binary_units() {
        assert_eq!(parse_size("64KiB"), Some(65_536));
        assert_eq!(parse_size("100 MiB"), Some(104_857_600));
        for wrong in ["", "KiB", "1KB", "1k", "-1", "99999999999GiB"] {
            assert_eq!(parse_size(wrong), None, "{wrong:?}");
        }
    }
}
