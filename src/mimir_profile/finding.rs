//! A finding: one problem in a configuration.

use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It works until something fails, or it may be intended.
    Warning,
    /// Mimir refuses it, loses data by it or mixes tenants.
    Error,
}

/// One problem in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The name of the check, stable across versions.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The dotted key; empty if it concerns the whole file.
    pub key: String,
    /// The line of the key or, if the key is missing, of the innermost block that is there; 0 if there
    /// is none.
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
