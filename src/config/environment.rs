//! The environment's part of the configuration: `MTP__SECTION__KEY`, and for secrets also
//! `MTP__SECTION__KEY_FILE`, a file that holds the value (as secrets are mounted).

use std::collections::BTreeMap;

const PREFIX: &str = "MTP__";

/// The variables that concern us, taken once.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<(String, String), String>);

impl Environment {
    /// Takes our variables from the process environment.
    pub fn of_process() -> Self {
        Self::from_vars(std::env::vars_os().filter_map(|(name, value)| {
            // A value that is not UTF-8 becomes a fault of its key, not a panic.
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        }))
    }

    /// Takes our variables out of a list.
    pub fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Self {
        let ours = vars.into_iter().filter_map(|(name, value)| {
            let (section, key) = name.strip_prefix(PREFIX)?.split_once("__")?;
            Some(((section.to_ascii_lowercase(), key.to_ascii_lowercase()), value))
        });
        Self(ours.collect())
    }

    /// Whether no variable concerns us.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All variables of the process, ours or not, for files of others that speak of them.
    pub fn everything() -> BTreeMap<String, String> {
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))).collect()
    }

    /// The variables of one section, by key.
    pub(super) fn section(&self, section: &str) -> BTreeMap<String, String> {
        self.0
            .iter()
            .filter(|((of, _), _)| of == section)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect()
    }

    /// The names of all sections that a variable speaks of.
    pub(super) fn sections(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|(section, _)| section.as_str())
    }

    /// The variable that sets a key.
    pub(super) fn name(section: &str, key: &str) -> String {
        format!("{PREFIX}{}__{}", section.to_ascii_uppercase(), key.to_ascii_uppercase())
    }
}
