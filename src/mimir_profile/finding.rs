//! One thing that is wrong with a profile.

use std::fmt;

/// How sure it is that something breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It works until something happens, or may be meant.
    Warning,
    /// Mimir refuses it, loses data by it or mixes tenants.
    Error,
}

/// One thing that is wrong with a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The name of the trap, which stays the same from version to version.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The dotted key; empty if it is of the whole file.
    pub key: String,
    /// The line of the key, or of the innermost block that is there when the key is missing; 0 if
    /// there is none.
    pub line: u64,
    /// What is wrong.
    pub wrong: String,
    /// What would be right.
    pub right: String,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        write!(f, "{}: ", self.severity)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}; {} [{}]", self.wrong, self.right, self.check)
    }
}
