//! Which build this is: the package's version, and the commit if whoever built it named one in
//! `MTP_COMMIT` (the Dockerfile does).

use std::sync::LazyLock;

/// The package's version.
pub const NUMBER: &str = env!("CARGO_PKG_VERSION");

/// The commit, or `unknown`.
pub const COMMIT: &str = match option_env!("MTP_COMMIT") {
    Some(commit) if !commit.is_empty() => commit,
    _ => "unknown",
};

/// Both, as `--version` prints them.
pub static TEXT: LazyLock<String> = LazyLock::new(|| format!("{NUMBER} (commit {COMMIT})"));
