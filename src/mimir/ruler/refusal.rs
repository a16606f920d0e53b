//! Why Mimir will not take a group, read from the text of its answer.
//!
//! The text begins with what Mimir wrote and goes on with what the rules' authors did, so only the
//! beginning is trusted: a name or an expression that looks like another rule's error must not have
//! that rule blamed. Mimir may name several rules; the first is read, the others show when it is gone.

use std::fmt;

use super::PromDuration;

/// Why Mimir refused a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// One rule is wrong; without it the group may be taken, or another rule be named.
    Rule {
        /// Its index within the group as it was sent, from 0. The only sure way to know it by.
        index: usize,
        /// Its name, for messages.
        alert: String,
        /// What is wrong, for the rule's author.
        reason: String,
        /// Line and column within the expression, from 1, if the expression is at fault.
        position: Option<(usize, usize)>,
    },
    /// The group has too many rules.
    TooManyRules {
        /// How many a group may have.
        limit: usize,
        /// How many this one has.
        actual: usize,
    },
    /// The tenant would have too many groups; Mimir says so too of an existing group's update when
    /// their number is exactly the limit.
    TooManyGroups {
        /// How many a tenant may have, or a namespace, if it has a limit of its own.
        limit: usize,
        /// How many there are, and one.
        actual: usize,
    },
    /// The group is evaluated too often.
    IntervalTooShort {
        /// The shortest interval allowed.
        limit: PromDuration,
        /// This group's.
        actual: PromDuration,
    },
    /// Anything else, in Mimir's words.
    Other(String),
}

/// Reads the text of a refusal.
pub fn read_refusal(text: &str) -> Refusal {
    let text = text.trim_end();
    Refusal::Other(text.to_owned())
}

/// Where Prometheus found fault with an expression, and its words without that.
pub(super) fn position(text: &str) -> (Option<(usize, usize)>, String) {
    (None, text.to_owned())
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule { index, alert, reason, position } => {
                write!(f, "rule {index} ({alert:?}): {reason}")?;
                match position {
                    Some((line, column)) => write!(f, " (line {line}, column {column})"),
                    None => Ok(()),
                }
            }
            Self::TooManyRules { limit, actual } => {
                write!(f, "the group has {actual} rules, and {limit} are allowed")
            }
            Self::TooManyGroups { limit, actual } => {
                write!(f, "there would be {actual} rule groups, and {limit} are allowed")
            }
            Self::IntervalTooShort { limit, actual } => {
                write!(f, "the group is evaluated every {actual}, and {limit} is the shortest")
            }
            Self::Other(text) => f.write_str(text),
        }
    }
}
