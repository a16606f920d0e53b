//! What must be true of every configuration.

use super::{Config, Environment};

const SECRET: &str = "7Gk2vXq9TtZ4mB8nRw5cYd1LhJ6sPf3a";

/// A file, beside secrets in the environment: no fault, warning, setting or `Debug` shows a secret.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if text.contains(SECRET) {
        return;
    }
    let url = format!("postgres://proxy:{SECRET}@db.example.com/postgres");
    let secrets = [
        ("MTP__AUTH__HS256_SECRET", SECRET),
        ("MTP__DATABASE__URL", &url),
        ("MTP__RULES__WEBHOOK_SECRET", SECRET),
        ("MTP__ALERT_EVENTS__SECRET", SECRET),
    ];
    let secrets = secrets.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let shown = match Config::read(text, &Environment::from_vars(secrets)) {
        Ok(config) => format!("{config:?}\n{:?}\n{:?}", config.settings, config.warnings),
        Err(faults) => {
            assert!(!faults.0.is_empty());
            let lines = text.lines().count() + 1;
            for fault in &faults.0 {
                assert!(fault.line.is_none_or(|line| line <= lines), "{fault:?}");
                assert!(!fault.problem.is_empty(), "{fault:?}");
            }
            format!("{faults}\n{faults:?}")
        }
    };
    assert!(!shown.contains(SECRET), "{shown}");
}
