//! The environment's part of the configuration: `MTP__SECTION__KEY`, and for secrets also
//! `MTP__SECTION__KEY_FILE`, a file that contains the value (as secrets are mounted).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::reader::Raw;
use super::values::list;

const PREFIX: &str = "MTP__";

/// Prefixes of variables that may be ours.
const MEANT: &str = "MTP_";

/// Variables with our prefix that others read: the command line, and the tests.
const OF_OTHERS: [&str; 5] = ["MTP_CONFIG", "MTP_BINARY", "MTP_PARTS", "MTP_ROUNDS", "MTP_COMMIT"];

/// Our variables, read once.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    by_key: BTreeMap<(String, String), String>,
    /// Variables that look like ours but name no section and key.
    strange: BTreeSet<String>,
}

impl Environment {
    /// Reads our variables from the process environment.
    pub fn of_process() -> Self {
        Self::from_vars(std::env::vars_os().filter_map(|(name, value)| {
            // A value that is not UTF-8 becomes a fault of its key, not a panic.
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        }))
    }

    /// Picks our variables from a list.
    pub fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut environment = Self::default();
        for (name, value) in vars {
            match name.strip_prefix(PREFIX).and_then(|rest| rest.split_once("__")) {
                Some((section, key)) => {
                    let key = (section.to_ascii_lowercase(), key.to_ascii_lowercase());
                    environment.by_key.insert(key, value);
                }
                None if seems_meant(&name) => {
                    environment.strange.insert(name);
                }
                None => {}
            }
        }
        environment
    }

    /// Where a supervisor waits to hear that the process is ready (`sd_notify(3)`).
    pub fn notify_socket() -> Option<std::ffi::OsString> {
        std::env::var_os("NOTIFY_SOCKET").filter(|place| !place.is_empty())
    }

    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty() && self.strange.is_empty()
    }

    /// The names of variables that look like ours and set nothing, such as `MTP_AUTH_ISSUER`.
    pub(super) fn strange(&self) -> impl Iterator<Item = &str> {
        self.strange.iter().map(String::as_str)
    }

    /// All variables of the process, for other programs' files that refer to them.
    pub fn everything() -> BTreeMap<String, String> {
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))).collect()
    }

    /// The files that variables name.
    pub(super) fn files(&self) -> impl Iterator<Item = PathBuf> {
        let values = |ends: &'static str| {
            self.by_key
                .iter()
                .filter(move |((_, key), _)| key.ends_with(ends))
                .map(|(_, value)| value)
        };
        let lists = values("_files").filter_map(|text| list(Raw::Text(text.clone())).ok());
        values("_file").map(PathBuf::from).chain(lists.flatten().map(PathBuf::from))
    }

    /// The variables of one section, by key.
    pub(super) fn section(&self, section: &str) -> BTreeMap<String, String> {
        self.by_key
            .iter()
            .filter(|((of, _), _)| of == section)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect()
    }

    /// The names of all sections with a variable.
    pub(super) fn sections(&self) -> impl Iterator<Item = &str> {
        self.by_key.keys().map(|(section, _)| section.as_str())
    }

    /// The variable that sets a key.
    pub(super) fn name(section: &str, key: &str) -> String {
        format!("{PREFIX}{}__{}", section.to_ascii_uppercase(), key.to_ascii_uppercase())
    }
}

/// Whether a variable is probably meant for us. Kubernetes sets variables for every service in the
/// namespace, such as `MTP_SERVICE_HOST` and `MTP_PORT_8080_TCP` for one called `mtp` or `mtp-…`.
fn seems_meant(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let is_of_kubernetes = !upper.starts_with(PREFIX)
        && (["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"].iter().any(|end| upper.ends_with(end))
            || ["_SERVICE_PORT_", "_TCP", "_UDP", "_SCTP"].iter().any(|part| upper.contains(part)));
    upper.starts_with(MEANT) && !OF_OTHERS.contains(&upper.as_str()) && !is_of_kubernetes
}

/// A variable's name without what is easily mistyped: case and the number of underscores.
pub(super) fn folded(name: &str) -> String {
    let parts = name.split('_').filter(|part| !part.is_empty());
    parts.map(str::to_ascii_uppercase).collect::<Vec<_>>().join("_")
}
