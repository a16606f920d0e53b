//! Limits for `PromQL` expressions, checked before Mimir parses and plans them.
//!
//! Mimir takes more than linear time for expressions that are deep or have many operators, and has
//! no limit of its own. Measured, in seconds of one core: 20,000 nested parentheses 7, 2,000 nested
//! calls 90, 20,000 signs 7, 1,000 `or` 17 (500: 3, 300: 0.7), 10,000 `+1` 4. Nested calls multiply
//! the cost of their argument: 390 `or` in 90 times `abs` 6. Matchers, plain regular expressions,
//! arguments and grouping labels take linear time (20,000 of them 0.2 to 0.6), so a limit on their
//! length is enough, where groups do not capture very much. A few bytes that expand are counted by what they expand to: counted
//! repetitions in patterns (7 KB: 200 MB), points of subqueries (`[5h:1ms]`: 280 MB), and texts
//! that `label_replace` and `label_join` multiply (565 bytes: a label of more than 16 MiB, at which
//! Mimir exits). Queries and rules are both checked.
//!
//! This is not a parser. [`Scanner`] reads bytes once, from left to right, and keeps counts. In a
//! malformed expression it may count too much, but never too little: Prometheus' lexer stops at its
//! first error, and everything before that has been counted here.

mod bound;
mod pattern;
mod scanner;
mod subquery;

use std::fmt;

pub use bound::most_series;
pub use pattern::Pattern;
pub use scanner::Scanner;

/// The length of a label value, by Mimir's default limit.
const LABEL: u64 = 2_048;

/// The most that counted repetitions may add to all patterns of a request. Mimir takes up to 325
/// bytes for each.
const MOST_PATTERN_WEIGHT: u64 = 32 << 10;

/// The most that the groups of all patterns of a request may capture, outside of braces and inside. Mimir takes 16 bytes
/// for each, and where `label_replace` asks what they match it copies them for each character of a value, in a call that
/// no timeout ends: 32,700 times `(.?)` take 17 GB. Two groups may be as long as an expression. A matcher asks for no
/// group, and may have many, but room is made for them all the same.
const MOST_CAPTURES: [u64; 2] = [512 << 10, 4 << 20];

/// Limits for one expression. The defaults allow what people and generators write, and stay far
/// below what takes Mimir a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpressionLimits {
    /// Expressions of one request, and queries of a remote read.
    pub count: usize,
    pub bytes: usize,
    /// Nesting of parentheses, brackets, braces and signs.
    pub depth: usize,
    pub subqueries: usize,
    /// Operators, signs included.
    pub operators: usize,
    /// Names, numbers and texts, each counted once for every parenthesis around it.
    pub nested_terms: usize,
    /// Points of its subqueries: range divided by step, multiplied where they nest.
    pub subquery_points: usize,
    /// Bytes that `label_replace` and `label_join` may write to one series, overwritten values
    /// included, and the longest value that `absent` may make a label of.
    pub label_bytes: usize,
}

impl ExpressionLimits {
    /// The largest [`ExpressionLimits::depth`]: a scanner has no room for more.
    pub const MOST_DEPTH: usize = 250;
    /// The largest [`ExpressionLimits::subqueries`].
    pub const MOST_SUBQUERIES: usize = 50;

    /// The limits for alert rules and for queries in their templates, which print labels and assume
    /// that these are no longer than those of samples.
    pub fn in_rules(&self) -> Self {
        Self { label_bytes: self.label_bytes.min(16 << 10), ..*self }
    }
}

impl Default for ExpressionLimits {
    fn default() -> Self {
        Self {
            count: 100,
            bytes: 256 << 10,
            depth: 100,
            subqueries: 5,
            operators: 400,
            nested_terms: 20_000,
            subquery_points: 500_000,
            label_bytes: 128 << 10,
        }
    }
}

/// What an expression has too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Expressions of a request.
    Count,
    Bytes,
    Depth,
    Subqueries,
    Operators,
    /// Terms in parentheses, times their depth.
    NestedTerms,
    /// Points of subqueries, in their ranges or in a day.
    SubqueryPoints,
    /// Bytes written to labels.
    LabelBytes,
    /// Counted repetitions.
    Patterns,
    /// Groups of patterns, times their length.
    Captures,
}

/// A limit that an expression exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    pub measure: Measure,
    pub most: usize,
    /// The number of bytes read when the limit was exceeded.
    pub at: usize,
}

/// The regular expressions of a request that come in no expression.
#[derive(Default)]
pub struct Patterns {
    added: u64,
    captures: u64,
    bytes: usize,
}

impl Patterns {
    /// Counts one more, which may be read in several ways, by the worst of them.
    ///
    /// # Errors
    /// If counted repetitions add too much to all of them, or groups capture too much.
    pub fn add<const N: usize>(&mut self, readings: [&[u8]; N]) -> Result<(), Excess> {
        let read = readings.map(Pattern::of);
        let worst = |measure: fn(&Pattern) -> u64| read.iter().map(measure).max().unwrap_or(0);
        self.bytes = self.bytes.saturating_add(readings.first().map_or(0, |first| first.len()));
        self.added = self.added.saturating_add(worst(Pattern::added));
        self.captures = self.captures.saturating_add(worst(Pattern::captures));
        // They are matched, and nothing asks for what their groups match.
        for (measure, count, most) in [
            (Measure::Patterns, self.added, MOST_PATTERN_WEIGHT),
            (Measure::Captures, self.captures, MOST_CAPTURES[1]),
        ] {
            if count > most {
                let most = usize::try_from(most).unwrap_or(usize::MAX);
                return Err(Excess { measure, most, at: self.bytes });
            }
        }
        Ok(())
    }
}

/// Checks a whole expression, in time linear in its length.
pub fn check(expr: &str, limits: &ExpressionLimits) -> Result<(), Excess> {
    let mut scanner = Scanner::new(limits);
    expr.bytes().try_for_each(|byte| scanner.push(byte))?;
    scanner.end()
}

impl Measure {
    /// The key in `[limits]` that sets it, if it is not fixed.
    pub fn key(self) -> Option<&'static str> {
        Some(match self {
            Self::Count => "expression_count",
            Self::Bytes => "expression_bytes",
            Self::Depth => "expression_depth",
            Self::Subqueries => "expression_subqueries",
            Self::Operators => "expression_operators",
            Self::NestedTerms => "expression_nested_terms",
            Self::SubqueryPoints => "expression_subquery_points",
            Self::LabelBytes | Self::Patterns | Self::Captures => return None,
        })
    }
}

/// As `nests parentheses, braces or signs more than 100 deep (limits.expression_depth)`: continues
/// a sentence that begins with the name of the expression.
impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = self.most;
        match self.measure {
            Measure::Count => write!(f, "is one of more than {most} of the request")?,
            Measure::Bytes => write!(f, "is longer than {most} bytes")?,
            Measure::Depth => {
                write!(f, "nests parentheses, braces or signs more than {most} deep")?;
            }
            Measure::Subqueries => write!(f, "nests subqueries more than {most} deep")?,
            Measure::Operators => write!(f, "has more than {most} operators")?,
            Measure::NestedTerms => {
                write!(
                    f,
                    "has more than {most} terms, each counted once for every parenthesis around it"
                )?;
            }
            Measure::SubqueryPoints => write!(
                f,
                "has subqueries of more than {most} points, in their ranges (multiplied where they nest) or in \
                 a day; ranges and steps must be plain durations, as in [1h:1m]"
            )?,
            Measure::LabelBytes => write!(
                f,
                "could give a series more than {most} bytes of labels by label_replace and label_join, \
                 or by absent; use fewer references ($1) and source labels in calls inside one another"
            )?,
            Measure::Patterns => write!(
                f,
                "has regular expressions that are too large: counted repetitions such as {{1000}} count \
                 as if they were written out, {most} characters at most"
            )?,
            Measure::Captures => write!(
                f,
                "has regular expressions with too many groups: groups times characters are {most} at most; write \
                 (?:…) where a group is not referred to"
            )?,
        }
        match self.measure.key() {
            Some(key) => write!(f, " (limits.{key})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
