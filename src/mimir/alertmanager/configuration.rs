//! A configuration on the wire: `{alertmanager_config, template_files}`.

use crate::mimir::yaml::line_breaks::Document;
use crate::mimir::yaml::node::{Node, Reader};
use crate::mimir::yaml::quoted;

/// A configuration as it is stored: with its secrets. It shows itself nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigurationText(String);

impl ConfigurationText {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text with its secrets: for Mimir, and for comparing.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for ConfigurationText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ConfigurationText({} bytes)", self.0.len())
    }
}

/// What Mimir has of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub text: ConfigurationText,
    /// How many template files stand beside it. Ours has none.
    pub templates: usize,
}

/// A file name that leads out of the tenant's folder: Mimir refuses it after it has checked everything
/// else, and so stores nothing.
const NO_TEMPLATE: &str = "trial/nothing-is-stored";
/// What Mimir says of that name, and of nothing else in our configurations.
const NO_TEMPLATE_REFUSED: &str = "invalid template name \"trial/nothing-is-stored\"";

/// The body that stores a configuration.
pub(super) fn body(text: &str) -> String {
    format!("alertmanager_config: {}\ntemplate_files: {{}}\n", quoted(text))
}

/// The body that has a configuration checked and not stored.
pub(super) fn trial_body(text: &str) -> String {
    format!("alertmanager_config: {}\ntemplate_files: {{{NO_TEMPLATE:?}: \"\"}}\n", quoted(text))
}

/// Whether a refusal of [`trial_body`] is about nothing but the file name.
pub(super) fn is_trial_passed(refusal: &str) -> bool {
    refusal.contains(NO_TEMPLATE_REFUSED)
}

/// Reads what Mimir has; `None` if it is empty, as the fallback leaves it. The reasons of a failure
/// hold nothing of the text.
pub(super) fn read(body: &[u8]) -> Result<Option<Stored>, String> {
    let text = std::str::from_utf8(body).map_err(|_| "it is no UTF-8".to_owned())?;
    if !text.ends_with('\n') {
        return Err("it is cut off".to_owned());
    }
    let no_yaml = |_| "it is no YAML mapping".to_owned();
    let document = Document::new(text);
    let mut reader = Reader::open(&document).map_err(no_yaml)?;
    let (mut found, mut templates) = (None, None);
    while let Some(key) = reader.key().map_err(no_yaml)? {
        let value = reader.value().map_err(no_yaml)?;
        match (key.as_str(), value) {
            ("alertmanager_config", Node::Text(text)) if found.is_none() => found = Some(text),
            ("alertmanager_config", Node::Null) if found.is_none() => found = Some(String::new()),
            ("template_files", Node::Map(files)) if templates.is_none() => {
                templates = Some(files.len());
            }
            ("template_files", Node::Null) if templates.is_none() => templates = Some(0),
            _ => return Err("it has other parts than a configuration and templates".to_owned()),
        }
    }
    reader.close().map_err(no_yaml)?;
    let Some(found) = found else { return Err("it holds no alertmanager_config".to_owned()) };
    let templates = templates.unwrap_or(0);
    let is_nothing = found.trim().is_empty() && templates == 0;
    Ok((!is_nothing).then(|| Stored { text: ConfigurationText::new(found), templates }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_mimir_writes_is_read() {
        let stored = read(b"template_files: {}\nalertmanager_config: |\n    # ours\n    route:\n        receiver: a\n").unwrap().unwrap();
        assert_eq!(stored.text.expose(), "# ours\nroute:\n    receiver: a\n");
        assert_eq!(stored.templates, 0);
        let stored =
            read(b"template_files:\n    a: b\n    c: d\nalertmanager_config: x\n").unwrap().unwrap();
        assert_eq!((stored.text.expose(), stored.templates), ("x", 2));
    }

    #[test]
    fn the_fallback_leaves_nothing_and_nothing_else_counts_as_that() {
        assert_eq!(read(b"template_files: {}\nalertmanager_config: \"\"\n"), Ok(None));
        for wrong in ["", "{}\n", "a", "alertmanager_config: x", "- a\n", "alertmanager_config: [\n"] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_text_shows_itself_nowhere() {
        let text = ConfigurationText::new("api_url: https://secret".to_owned());
        assert_eq!(format!("{text:?}"), "ConfigurationText(23 bytes)");
    }

    proptest! {
        // Mimir's library reads what we write as ours does.
        #[test]
        fn what_is_written_is_read_back(text in "(\\PC|[\n\u{2028}\t\u{85}\"\\\\]){0,60}") {
            let read = read(body(&text).as_bytes()).unwrap();
            if text.trim().is_empty() {
                prop_assert!(read.is_none_or(|stored| stored.text.expose() == text));
            } else {
                prop_assert_eq!(read.unwrap().text.expose(), text.as_str());
            }
        }
    }
}
