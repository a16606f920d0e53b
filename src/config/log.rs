//! `[log]`

use super::reader::Section;
use super::shown::Shown;
use super::values::{number, switch, text};

/// What is logged, and the format.
#[derive(Clone, Debug)]
pub struct LogConfig {
    pub format: LogFormat,
    /// A level (`info`) or a filter of `tracing-subscriber` (`info,mimir_tenant_proxy=debug`).
    pub filter: String,
    pub access: bool,
    /// Lines a second of requests that were not served, of each reason; 0 for all of them.
    pub unserved_per_second: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text for people.
    Pretty,
}

impl Shown for LogFormat {
    fn shown(&self) -> String {
        match self {
            Self::Json => "json".to_owned(),
            Self::Pretty => "pretty".to_owned(),
        }
    }
}

pub(super) fn read(section: &mut Section<'_>) -> LogConfig {
    LogConfig {
        format: section.get("format", LogFormat::Json, |raw| match text(raw)?.as_str() {
            "json" => Ok(LogFormat::Json),
            "pretty" => Ok(LogFormat::Pretty),
            other => Err(format!("'{other}' is no format; there are \"json\" and \"pretty\"")),
        }),
        filter: section.get("filter", "info".to_owned(), |raw| {
            let filter = text(raw)?;
            check_levels(&filter)?;
            tracing_subscriber::EnvFilter::try_new(&filter).map_err(|error| {
                format!("must be a level such as \"info\" or a filter: {error}")
            })?;
            Ok(filter)
        }),
        access: section.get("access", true, switch),
        unserved_per_second: section.get("unserved_per_second", 100, |raw| {
            Ok(u32::try_from(number(raw, 0, 1_000_000)?).unwrap_or(u32::MAX))
        }),
    }
}

/// A word that is no level is taken for the target of a filter, which then shows nothing else: `warning`
/// would switch the log off.
fn check_levels(filter: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |word: &str| {
        LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word))
            || word.parse().is_ok_and(|number: u8| number < 6)
    };
    if filter.split(',').all(|directive| directive.trim().is_empty()) {
        return Err("is empty; \"off\" logs nothing, \"info\" is the default".to_owned());
    }
    for directive in filter.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        // A span's fields may hold any character.
        let level = match directive.rsplit_once('=') {
            Some((_, level)) if !level.contains(['}', ']', '"']) => level,
            Some(_) => continue,
            None if directive.contains(['[', ':']) => continue,
            None => directive,
        };
        if !is_level(level.trim()) {
            let levels = LEVELS.join(", ");
            return Err(format!("'{level}' is no level; there are {levels}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for filter in
            ["info", "WARN", "info,mimir_tenant_proxy=debug", "off", "3", "a::b=trace,error"]
        {
            assert_eq!(check_levels(filter), Ok(()), "{filter}");
        }
        for filter in [
            "",
            " ",
            ",",
            "warning",
            "verbose",
            "bogus=",
            "info,sqlx=warning",
            "mimir_tenant_proxy",
            "7",
        ] {
            assert!(check_levels(filter).is_err(), "{filter}");
        }
    }
}
