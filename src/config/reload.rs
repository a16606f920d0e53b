//! `[reload]`, and which keys take effect while the proxy runs.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Config;
use super::reader::{Raw, Section};
use super::shown::Setting;
use super::values::{duration, parse_duration, text};

/// How changes of the configuration are noticed.
#[derive(Clone, Debug)]
pub struct ReloadConfig {
    /// How often the file, and the files of secrets, are read to see whether they changed; `None` if only
    /// SIGHUP makes the proxy read them.
    pub watch_interval: Option<Duration>,
}

/// When a changed key takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Reload,
    Restart,
}

/// A key whose value differs between two configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Such as `limits.in_flight`.
    pub key: String,
    pub effect: Effect,
}

/// What is read once, when the process starts: sockets and threads, connections to the database, and what
/// decides what is stored there and in Mimir, which must not change in the middle of a sync. A name that
/// ends in `.` or `_` stands for all keys that begin with it.
const AT_START: &[&str] = &[
    "alert_events.",
    "auth.check_sessions",
    "channels.",
    "database.",
    // The same for queries and for alert rules, so they change together.
    "limits.expression_",
    "limits.from_database",
    "limits.memory_bytes",
    "listen.address",
    "listen.internal_address",
    "listen.max_connections",
    "listen.workers",
    "log.format",
    "rules.",
    "tenancy.membership",
    "tenancy.tenant_template",
    "traces.",
];

/// Exceptions from these. Of `database.url` the user and the password only.
const BY_RELOAD: &[&str] = &[
    "alert_events.secret",
    "channels.urls",
    "database.url",
    "rules.request_timeout",
    "rules.urls",
    "rules.webhook_secret",
    "traces.authorization",
];

/// Whether an entry of these lists is a key's: its name, or the section or the beginning that it has.
fn is_named(key: &str, entry: &str) -> bool {
    if entry.ends_with(['.', '_']) { key.starts_with(entry) } else { key == entry }
}

/// When a change of this key takes effect.
pub fn effect_of(key: &str) -> Effect {
    if AT_START.iter().any(|name| is_named(key, name)) && !BY_RELOAD.contains(&key) {
        Effect::Restart
    } else {
        Effect::Reload
    }
}

impl Config {
    /// The keys that another configuration sets to something else, in the order of their names. The same
    /// value in other words, or a default that is written down, counts as a change.
    pub fn changes_to(&self, other: &Self) -> Vec<Change> {
        let marks = |settings: &[Setting]| -> BTreeMap<String, Option<u64>> {
            settings.iter().map(|one| (one.key.clone(), one.mark)).collect()
        };
        let (before, after) = (marks(&self.settings), marks(&other.settings));
        let mut changed: Vec<&String> = before
            .iter()
            .filter(|(key, mark)| after.get(*key) != Some(*mark))
            .map(|(k, _)| k)
            .collect();
        changed.extend(after.keys().filter(|key| !before.contains_key(*key)));
        changed.sort();
        let change = |key: &String| {
            let is_elsewhere = key == "database.url" && !self.has_database_of(other);
            let effect = if is_elsewhere { Effect::Restart } else { effect_of(key) };
            Change { key: key.clone(), effect }
        };
        changed.into_iter().map(change).collect()
    }

    /// Whether both read the same database, or none, with any user and password.
    fn has_database_of(&self, other: &Self) -> bool {
        match (&self.database, &other.database) {
            (None, None) => true,
            (Some(own), Some(others)) => own.is_same_but_for_its_login(others),
            _ => false,
        }
    }
}

pub(super) fn read(section: &mut Section<'_>) -> ReloadConfig {
    let second = Duration::from_secs(1);
    let watch_interval = section.get("watch_interval", 5 * second, |raw| {
        let text = text(raw)?;
        if parse_duration(&text).is_some_and(|duration| duration.is_zero()) {
            return Ok(Duration::ZERO);
        }
        duration(Raw::Text(text), second / 10, 3600 * second)
            .map_err(|problem| format!("{problem}, or \"0s\" to read it at SIGHUP only"))
    });
    ReloadConfig { watch_interval: Some(watch_interval).filter(|interval| !interval.is_zero()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    fn config(text: &str, environment: &[(&str, &str)]) -> Config {
        let text = format!(
            "{text}\n[auth]\nissuer = \"https://ref.supabase.co/auth/v1\"\n[upstream]\nurls = [\"http://m\"]"
        );
        let vars = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Config::read(&text, &Environment::from_vars(vars)).unwrap()
    }

    fn changed(before: &Config, after: &Config) -> Vec<String> {
        before.changes_to(after).into_iter().map(|change| change.key).collect()
    }

    // A name that no key has would let one change that must not.
    #[test]
    fn every_name_of_the_lists_is_that_of_a_key() {
        let settings = config("", &[]).settings;
        for name in AT_START.iter().chain(BY_RELOAD) {
            assert!(settings.iter().any(|one| is_named(&one.key, name)), "{name}");
        }
        for name in BY_RELOAD {
            assert_eq!(effect_of(name), Effect::Reload);
        }
        assert_eq!(effect_of("listen.address"), Effect::Restart);
        assert_eq!(effect_of("rules.namespace"), Effect::Restart);
        assert_eq!(effect_of("limits.push_in_flight"), Effect::Reload);
    }

    // What is shown of a secret and of limits.organisations is the same before and after.
    #[test]
    fn a_change_is_found_whatever_is_shown_of_it() {
        let secret = "a-secret-of-at-least-thirty-two-bytes";
        let other = "b-secret-of-at-least-thirty-two-bytes";
        let by = |secret| config("", &[("MTP__AUTH__HS256_SECRET", secret)]);
        assert_eq!(changed(&by(secret), &by(other)), ["auth.hs256_secret"]);
        assert_eq!(changed(&by(secret), &by(secret)), [""; 0]);
        let of = |text: &str| config(text, &[]);
        let acme = |most| of(&format!("[limits.organisations.acme]\npush_in_flight = {most}"));
        assert_eq!(changed(&acme("1"), &acme("2")), ["limits.organisations"]);
        let (without, with) = (of(""), of("[roles]\nguest = [\"metrics:read\"]"));
        assert_eq!(changed(&without, &with), ["roles.guest"]);
        assert_eq!(changed(&with, &without), ["roles.guest"]);
    }

    #[test]
    fn of_the_databases_address_the_login_may_change() {
        let of = |address: &str| match address {
            "" => config("", &[]),
            address => config(&format!("[database]\nurl = {address:?}"), &[]),
        };
        let effect = |before: &str, after: &str| {
            let changes = of(before).changes_to(&of(after));
            changes.iter().find(|change| change.key == "database.url").unwrap().effect
        };
        let (first, place) = ("postgres://u:p@h/d", "postgres://u:p@i/d");
        assert_eq!(effect(first, "postgres://v:q@h/d"), Effect::Reload);
        for (before, after) in [(first, place), (first, ""), ("", first)] {
            assert_eq!(effect(before, after), Effect::Restart, "{before} {after}");
        }
    }

    #[test]
    fn a_secret_in_another_place_has_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let secret = "a-secret-of-at-least-thirty-two-bytes";
        std::fs::write(&file, format!("{secret}\n")).unwrap();
        let in_file = config("", &[("MTP__AUTH__HS256_SECRET_FILE", file.to_str().unwrap())]);
        let direct = config("", &[("MTP__AUTH__HS256_SECRET", secret)]);
        assert_eq!(changed(&in_file, &direct), [""; 0]);
        std::fs::write(&file, "c-secret-of-at-least-thirty-two-bytes").unwrap();
        let later = config("", &[("MTP__AUTH__HS256_SECRET_FILE", file.to_str().unwrap())]);
        assert_eq!(changed(&in_file, &later), ["auth.hs256_secret"]);
    }
}
