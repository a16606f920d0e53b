//! A configuration on the wire: `{template_files, alertmanager_config}`. What stands in it is for
//! `channels` to say.

use super::error::VALIDATION;

/// The body of a request or an answer with a configuration, with its secrets. It shows itself nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigurationBody(String);

impl ConfigurationBody {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text with its secrets: for Mimir, and for reading what it has.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What Mimir's limit on the size of a configuration is compared with.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }
}

impl std::fmt::Debug for ConfigurationBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ConfigurationBody({} bytes)", self.0.len())
    }
}

/// Begins a body of ours.
const TEMPLATES: &str = "template_files:\n";
/// A file name that leads out of the tenant's folder: Mimir refuses it after it has checked the
/// configuration, and so stores nothing.
const TRIAL_FILE: &str = "trial/nothing-is-stored";
/// What Mimir says of that name, or of the one file too many that it is. Both are said after the
/// configuration was found to be right.
const NAME_REFUSED: &str = "invalid template name \"trial/nothing-is-stored\"";
const ONE_TOO_MANY: &str = "too many templates in the configuration: ";

/// The body that has a configuration checked and not stored; none if it has another form than ours.
pub(super) fn trial(body: &ConfigurationBody) -> Option<ConfigurationBody> {
    let rest = body.expose().strip_prefix(TEMPLATES)?;
    Some(ConfigurationBody::new(format!("{TEMPLATES}  {TRIAL_FILE:?}: \"\"\n{rest}")))
}

/// Whether a refusal of [`trial`] is about nothing but the file. Other refusals quote what they refuse,
/// which may be these very words: so the whole of it has to be Mimir's.
pub(super) fn is_trial_passed(refusal: &str) -> bool {
    let Some(fault) = refusal.strip_prefix(VALIDATION) else { return false };
    fault.starts_with(NAME_REFUSED) || fault.strip_prefix(ONE_TOO_MANY).is_some_and(is_count)
}

/// `2 (limit: 1)`
fn is_count(text: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts = text.strip_suffix(')').and_then(|text| text.split_once(" (limit: "));
    parts.is_some_and(|(count, limit)| is_number(count) && is_number(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_is_the_same_with_one_file_more() {
        let body = "template_files:\n  \"a\": \"b\"\nalertmanager_config: \"c\"\n";
        let trial = trial(&ConfigurationBody::new(body.to_owned())).unwrap();
        assert_eq!(
            trial.expose(),
            "template_files:\n  \"trial/nothing-is-stored\": \"\"\n  \"a\": \"b\"\nalertmanager_config: \"c\"\n"
        );
    }

    // Mimir's texts, by `validateUserConfig` and `SetUserConfig` of its `api.go`.
    #[test]
    fn a_trial_passed_if_only_its_file_is_refused() {
        for passed in [
            "error validating Alertmanager config: invalid template name \"trial/nothing-is-stored\": the template name cannot contain any path",
            "error validating Alertmanager config: too many templates in the configuration: 2 (limit: 1)",
        ] {
            assert!(is_trial_passed(passed), "{passed}");
        }
        // Go quotes the name of a group: what a matcher says is no answer of Mimir's.
        for refused in [
            "error validating Alertmanager config: error parsing regexp: invalid named capture: `(?P<too many templates in the configuration: >`",
            "error validating Alertmanager config: error parsing regexp: invalid named capture: `(?P<invalid template name \"trial/nothing-is-stored\">`",
            "error validating Alertmanager config: too many templates in the configuration: x is not a valid month",
            "error validating Alertmanager config: too many templates in the configuration: 2 (limit: 1) is not a valid month",
            "too many templates in the configuration: 2 (limit: 1)",
            "",
        ] {
            assert!(!is_trial_passed(refused), "{refused}");
        }
    }

    #[test]
    fn a_body_shows_itself_nowhere() {
        let body = ConfigurationBody::new("api_url: https://secret".to_owned());
        assert_eq!(format!("{body:?}"), "ConfigurationBody(23 bytes)");
    }
}
