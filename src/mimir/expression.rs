//! What a `PromQL` expression may ask of Mimir's parser and planner.
//!
//! Mimir spends more than linear time on expressions that are deep or have many operators, and nothing
//! in it bounds that. Seen, in seconds of one core: 20,000 nested parentheses 7, 2,000 nested calls 90,
//! 20,000 signs 7, 1,000 `or` 17 (500: 3, 300: 0.7), 10,000 `+1` 4; and what is inside so many calls
//! costs again for each of them: 390 `or` in 90 times `abs` 6. Matchers, plain regular expressions,
//! arguments and grouping labels cost linear time (20,000 of them 0.2 to 0.6), so their length is
//! bound enough. A few bytes that stand for much are counted by what they stand for: counted
//! repetitions in patterns (7 KB: 200 MB), points of subqueries (`[5h:1ms]`: 280 MB), and texts that
//! `label_replace` and `label_join` multiply (565 bytes: a label of more than 16 MiB, on which Mimir
//! ends itself). Expressions are measured before Mimir gets them, as rules and as queries.
//!
//! This is no parser. [`Scanner`] reads bytes once, from left to right, and keeps counts. Where an
//! expression is malformed it may count too much, never too little: Prometheus' lexer ends at its
//! first error, and whatever it has read until then has been counted here.

mod bound;
mod pattern;
mod scanner;
mod subquery;

use std::fmt;

pub use bound::most_series;
pub use pattern::Pattern;
pub use scanner::Scanner;

/// What a label's value may be, by Mimir's default limit.
const LABEL: u64 = 2_048;

/// What counted repetitions may add to all patterns of a request. Mimir needs up to 325 bytes for one.
const MOST_PATTERN_WEIGHT: u64 = 32 << 10;

/// What an expression may be at most. The defaults leave room for what people and generators write
/// and stay far below what costs Mimir a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpressionLimits {
    pub bytes: usize,
    /// Parentheses, brackets, braces and signs inside one another.
    pub depth: usize,
    pub subqueries: usize,
    /// Operators, signs included.
    pub operators: usize,
    /// Names, numbers and texts, each counted as often as there are parentheses around it.
    pub nested_terms: usize,
    /// Points of its subqueries, range by step; those inside one another multiply.
    pub subquery_points: usize,
    /// What `label_replace` and `label_join` may write to one series, values that are overwritten
    /// included, and the longest value that `absent` may make a label of.
    pub label_bytes: usize,
}

impl ExpressionLimits {
    /// The largest [`ExpressionLimits::depth`]: a scanner has room for no more.
    pub const MOST_DEPTH: usize = 250;
    /// The largest [`ExpressionLimits::subqueries`].
    pub const MOST_SUBQUERIES: usize = 50;

    /// The same for an alert rule and for queries in its templates, which print labels and take them to
    /// be no longer than samples' are.
    pub fn in_rules(&self) -> Self {
        Self { label_bytes: self.label_bytes.min(16 << 10), ..*self }
    }
}

impl Default for ExpressionLimits {
    fn default() -> Self {
        Self {
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

/// What of an expression is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    Bytes,
    Depth,
    Subqueries,
    Operators,
    /// What stands in parentheses, times their depth.
    NestedTerms,
    /// The points of its subqueries, or how fine one is.
    SubqueryPoints,
    /// What it writes to labels.
    LabelBytes,
    /// Counted repetitions.
    Patterns,
}

/// A limit that an expression exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    /// What there is too much of.
    pub measure: Measure,
    pub most: usize,
    /// How many bytes of the expression were read when that was clear.
    pub at: usize,
}

/// Measures a whole expression, in time linear in its length.
pub fn check(expr: &str, limits: &ExpressionLimits) -> Result<(), Excess> {
    let mut scanner = Scanner::new(limits);
    expr.bytes().try_for_each(|byte| scanner.push(byte))?;
    scanner.end()
}

impl Measure {
    /// The key in `[limits]` that sets it, if it is not fixed.
    pub fn key(self) -> Option<&'static str> {
        Some(match self {
            Self::Bytes => "expression_bytes",
            Self::Depth => "expression_depth",
            Self::Subqueries => "expression_subqueries",
            Self::Operators => "expression_operators",
            Self::NestedTerms => "expression_nested_terms",
            Self::SubqueryPoints => "expression_subquery_points",
            Self::LabelBytes | Self::Patterns => return None,
        })
    }
}

/// As `nests parentheses, braces or signs more than 100 deep (limits.expression_depth)`: reads on
/// after what names the expression.
impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = self.most;
        match self.measure {
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
        }
        match self.measure.key() {
            Some(key) => write!(f, " (limits.{key})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
