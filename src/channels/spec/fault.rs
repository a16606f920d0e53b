//! Why a row is not valid, for its author.
//!
//! The texts are written to a status that all members of the organisation read, so they may quote settings
//! and never quote secrets.

use std::fmt;

/// All faults of one row; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(Vec<String>);

/// Collects the faults of a row while it is read.
#[derive(Debug, Default)]
pub(super) struct Collector(Vec<String>);

/// The most faults that are told: a row of nothing but unknown keys must not fill the status.
const MOST: usize = 10;

impl Collector {
    /// `place` is a column, or a key in one, such as `settings.to`.
    pub(super) fn add(&mut self, place: impl fmt::Display, fault: impl fmt::Display) {
        if self.0.len() < MOST {
            self.0.push(format!("{place}: {fault}"));
        }
    }

    /// Returns what was read if there are no faults.
    pub(super) fn none_or<T>(self, read: Option<T>) -> Result<T, Faults> {
        match read {
            Some(read) if self.0.is_empty() => Ok(read),
            _ => Err(Faults(self.0)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}
