//! What went wrong with the Alertmanager, by what can be done about it.

use std::time::Duration;

use super::redactor::Redactor;
use crate::mimir::{ExchangeError, Retriable};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlertmanagerError {
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// Mimir will not take the configuration, however often it is asked. Its words, without secrets.
    #[error("mimir refused the configuration: {0}")]
    Refused(String),
    /// The tenant's limit on the size of a request with a configuration, in bytes.
    #[error("mimir takes a configuration of at most {0} bytes")]
    TooBig(usize),
    /// A 404 that is not about this tenant. Mimir's target `all` does not include the Alertmanager.
    #[error(
        "mimir runs no Alertmanager, or its configuration API is off (target \"all,alertmanager\", \
         alertmanager.enable_api)"
    )]
    NotEnabled,
    /// The tenant has no configuration and Mimir no fallback (412).
    #[error("the tenant's Alertmanager has no configuration")]
    NotConfigured,
    /// A configuration is stored and no instance has loaded it yet (406).
    #[error("the tenant's Alertmanager is not loaded yet")]
    NotLoaded,
}

impl Retriable for AlertmanagerError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Exchange(error) => error.is_transient(),
            Self::NotLoaded => true,
            Self::Refused(_) | Self::TooBig(_) | Self::NotEnabled | Self::NotConfigured => false,
        }
    }

    fn is_slow(&self) -> bool {
        matches!(self, Self::Exchange(error) if error.is_slow())
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Exchange(error) => error.retry_after(),
            _ => None,
        }
    }
}

/// Stands before what is wrong with a configuration.
pub(super) const VALIDATION: &str = "error validating Alertmanager config: ";
const UNMARSHAL: &str = "yaml: unmarshal errors:";
const TOO_BIG: &str = "Alertmanager configuration is too big, limit: ";

/// What a 400 says. Its words may repeat secrets, and a limit is looked for before they are masked.
pub(super) fn read_refusal(text: &str, redactor: &Redactor) -> AlertmanagerError {
    let limit = text.strip_prefix(TOO_BIG).and_then(|rest| rest.strip_suffix(" bytes"));
    if let Some(limit) = limit.and_then(|limit| limit.parse().ok()) {
        return AlertmanagerError::TooBig(limit);
    }
    let text = redactor.redact(text);
    AlertmanagerError::Refused(without_positions(text.strip_prefix(VALIDATION).unwrap_or(&text)))
}

/// A refusal in one line and without the lines of a document that its reader never sees.
fn without_positions(text: &str) -> String {
    let rest = text.strip_prefix(UNMARSHAL).unwrap_or(text);
    let faults = rest.lines().map(|line| without_line(line.trim())).filter(|line| !line.is_empty());
    faults.collect::<Vec<_>>().join("; ")
}

/// `line 12: field x not found` without its beginning.
fn without_line(text: &str) -> &str {
    let text = text.strip_prefix("yaml: ").unwrap_or(text);
    let rest = text.strip_prefix("line ").and_then(|rest| rest.split_once(": "));
    rest.filter(|(digits, _)| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .map_or(text, |(_, fault)| fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    // tests/it/channels sees these texts at the real Mimir.
    #[test]
    fn refusals_are_read_without_positions() {
        for (text, expected) in [
            ("error validating Alertmanager config: missing host in URL", "missing host in URL"),
            (
                "error validating Alertmanager config: yaml: unmarshal errors:\n  line 3: field x not found in type config.plain\n  line 9: bad",
                "field x not found in type config.plain; bad",
            ),
            ("error validating Alertmanager config: yaml: line 7: did not find", "did not find"),
            ("something else", "something else"),
        ] {
            let refusal = read_refusal(text, &Redactor::default());
            assert_eq!(refusal, AlertmanagerError::Refused(expected.to_owned()));
        }
    }

    #[test]
    fn the_limit_of_a_size_is_read() {
        let text = "Alertmanager configuration is too big, limit: 4096 bytes";
        assert_eq!(read_refusal(text, &Redactor::default()), AlertmanagerError::TooBig(4096));
        // Also where secrets hide it.
        let secrets = "x".repeat(1 << 20);
        for secrets in [secrets.as_str(), "Alertmanager"] {
            let redactor = Redactor::new([secrets]);
            assert_ne!(redactor.redact(text), text);
            assert_eq!(read_refusal(text, &redactor), AlertmanagerError::TooBig(4096));
        }
    }
}
