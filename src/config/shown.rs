//! Values of the configuration as operators may see them. What is hidden follows from the type of a
//! value and not from its key: a type that is not named here cannot be read from the configuration.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::digest;
use http::HeaderName;
use url::Url;

use super::values::Secret;
use crate::prom_duration::PromDuration;
use crate::tenancy::{Scope, TenantTemplate};

/// A key, its value and where the value is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Such as `listen.address`.
    pub key: String,
    /// Empty if the key has no value. A secret is only said to be set.
    pub value: String,
    /// `default`, `file`, or the environment variable.
    pub source: String,
    /// Stands for the value as it was written, secret or not, within this process; `None` if the key has
    /// its default.
    pub(super) mark: Option<u64>,
}

/// The marks of a process are keyed by chance, so that they say nothing of a secret.
static MARKS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The mark of a value.
pub(super) fn mark(text: &str) -> u64 {
    mark_of(&text)
}

pub(super) fn mark_of(value: &impl Hash) -> u64 {
    MARKS.hash_one(value)
}

/// What tells two configurations apart, of what may be seen of them: 16 hexadecimal digits.
pub(super) fn digest_of(settings: &[Setting]) -> String {
    let all = settings.iter().map(|Setting { key, value, .. }| format!("{key}={value}\n"));
    short_digest(&all.collect::<String>())
}

/// The beginning of a text's SHA-256.
pub(super) fn short_digest(text: &str) -> String {
    hex::encode(&digest::digest(&digest::SHA256, text.as_bytes()).as_ref()[..8])
}

/// What may be seen of a value.
pub(super) trait Shown {
    fn shown(&self) -> String;
}

impl Shown for Secret {
    fn shown(&self) -> String {
        if self.is_empty() { String::new() } else { "set; not shown".to_owned() }
    }
}

impl Shown for Duration {
    fn shown(&self) -> String {
        super::values::show_duration(*self)
    }
}

/// Such an address has no user, no password and no query by its own rules. Only what follows from
/// that is shown, whatever those rules become.
impl Shown for Url {
    fn shown(&self) -> String {
        format!("{}{}", self.origin().ascii_serialization(), self.path())
    }
}

impl Shown for PathBuf {
    fn shown(&self) -> String {
        self.display().to_string()
    }
}

impl Shown for String {
    fn shown(&self) -> String {
        self.clone()
    }
}

impl<T: Shown> Shown for Option<T> {
    fn shown(&self) -> String {
        self.as_ref().map(Shown::shown).unwrap_or_default()
    }
}

impl<T: Shown> Shown for Vec<T> {
    fn shown(&self) -> String {
        self.iter().map(Shown::shown).collect::<Vec<_>>().join(", ")
    }
}

macro_rules! shown_as_text {
    ($($kind:ty),+ $(,)?) => {
        $( impl Shown for $kind {
            fn shown(&self) -> String {
                self.to_string()
            }
        } )+
    };
}

shown_as_text!(bool, u32, u64, usize, f64, SocketAddr, HeaderName, PromDuration, TenantTemplate);

impl Shown for Scope {
    fn shown(&self) -> String {
        self.name().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::config::{Config, Environment};

    /// Long enough for every secret.
    const MARKER: &str = "0marker0that0nobody0may0ever0see0";

    /// What a credential is written in. The last is a query of the operator's.
    fn forms() -> Vec<String> {
        let texts = [
            "https://user:MARKER@host.example",
            "https://MARKER@host.example",
            "https://host.example/?key=MARKER",
            "https://host.example/#MARKER",
            "https://host.example/{organisation_id}?key=MARKER",
            "postgres://user:MARKER@localhost:5432/postgres",
            "postgres://localhost/postgres?password=MARKER",
            "user:MARKER@host.example:25",
            "[\"MARKER\", \"MARKER\"]",
            "MARKER MARKER",
            "select id, 'MARKER' as x from t where id = any($1::uuid[])",
            "select id, 'MARKER' as x from t where id = any($1::text[])",
            "select id, 'MARKER' as x from t where id = any($1::bytea[])",
            "select id, 'MARKER' as x from t",
        ];
        texts.iter().map(|text| text.replace("MARKER", MARKER)).collect()
    }

    fn read(variables: &[(&str, &str)]) -> Result<Config, crate::config::Faults> {
        let fixed = [
            ("MTP__AUTH__ISSUER", "https://ref.supabase.co/auth/v1"),
            ("MTP__UPSTREAM__URLS", "http://mimir:8080"),
            ("MTP__UPSTREAM__CONSUL_URL", "http://consul:8500"),
            ("MTP__UPSTREAM__CONSUL_SERVICE", "mimir"),
            ("MTP__DATABASE__URL", "postgres://user:password@localhost/postgres"),
            ("MTP__RULES__ENABLED", "true"),
            ("MTP__CHANNELS__ENABLED", "true"),
            ("MTP__ALERT_EVENTS__ENABLED", "true"),
            ("MTP__ALERT_EVENTS__SECRET", "a-secret-of-the-ruler-that-is-long"),
        ];
        let all = fixed.iter().chain(variables);
        let text = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Config::read("", &Environment::from_vars(all.map(text)))
    }

    /// Every text of a configuration that is for operators.
    fn seen(config: &Config) -> String {
        let settings = config.settings.iter().map(|one| format!("{one:?}"));
        let warnings = config.warnings.iter().map(|one| format!("{one:?} {one}"));
        settings.chain(warnings).chain([config.digest()]).collect::<Vec<_>>().join("\n")
    }

    // Over all keys that there are, so also over one that is added later. A text that may be anything,
    // such as an audience, may be seen; one that must be an address or a query may hold a credential.
    #[test]
    fn no_credential_in_any_key_is_ever_seen() {
        let keys: Vec<String> =
            read(&[]).unwrap().settings.into_iter().map(|setting| setting.key).collect();
        let (mut hidden, mut accepted, mut shown) = (BTreeSet::new(), 0, Vec::new());
        for key in &keys {
            let (section, name) = key.split_once('.').unwrap();
            let variable =
                format!("MTP__{}__{}", section.to_ascii_uppercase(), name.to_ascii_uppercase());
            let plain = read(&[(&variable, MARKER)]);
            let is_text = plain.as_ref().is_ok_and(|config| seen(config).contains(MARKER));
            let is_credential = ["secret", "token", "password", "key", "credential"]
                .iter()
                .any(|word| name.split('_').any(|part| part == *word));
            // Of the console: a project's publishable key, which every page of it shows.
            if is_credential && key != "console.supabase_key" {
                assert!(!is_text, "{key} is shown");
            }
            if plain.is_ok() && !is_text {
                hidden.insert(key.as_str());
            }
            // Levels and targets of log lines.
            if is_text || key == "log.filter" {
                continue;
            }
            for form in forms() {
                match read(&[(&variable, &form)]) {
                    Ok(config) => {
                        accepted += 1;
                        if seen(&config).contains(MARKER) {
                            shown.push(format!("{key} = {form}"));
                        }
                        // Of a secret it is seen that there is one.
                        let setting = config.settings.iter().find(|one| one.key == *key).unwrap();
                        assert_eq!(setting.source, variable);
                    }
                    Err(faults) if is_credential || name.contains("url") => {
                        if faults.to_string().contains(MARKER) {
                            shown.push(faults.to_string());
                        }
                    }
                    Err(_) => {}
                }
            }
        }
        assert_eq!(shown, [""; 0]);
        for secret in [
            "alert_events.secret",
            "auth.admin_key",
            "auth.hs256_secret",
            "rules.webhook_secret",
            "upstream.consul_token",
        ] {
            assert!(hidden.contains(secret), "{secret} was not tried: {hidden:?}");
        }
        assert!(keys.len() > 120 && accepted > 20, "{} keys, {accepted} accepted", keys.len());
    }
}
