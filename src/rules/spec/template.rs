//! What a template in a label or an annotation may ask of Mimir's ruler.
//!
//! A template is a program (Go's `text/template` with Prometheus' functions) that the ruler, which
//! all tenants share, runs once per alert and evaluation; nothing in Mimir bounds it. Seen: 768 bytes
//! that double a text 25 times cost 800 MB, and a `define` that calls itself two cores for as long as
//! it likes. So every template is read here first ([`lexer`], [`parser`]), and its cost is bounded
//! from above without running it ([`cost`]): how many bytes it can produce, how many queries it asks.
//!
//! What ordinary alerts use is all there: variables, `if`, `with`, `range` over labels or over a
//! query of a few series (`topk(10, …)`), every function of Prometheus. Not there is what makes a bound impossible: `define`,
//! `template` and `block`, loops over numbers, loops over queries in loops, texts that grow from turn
//! to turn, and queries that are put together from data in any way but by `%q`.
//!
//! Mimir still decides what is a valid template. What is refused here as malformed Mimir refuses, too;
//! anything that is not understood is refused rather than passed on.

mod cost;
mod format;
mod functions;
mod lexer;
mod parser;

use crate::mimir::expression::ExpressionLimits;

/// The most bytes that all labels and annotations of one rule may produce for one alert, intermediate
/// texts included, with labels and values as long as they may become. A rule may have an alert for
/// each of thousands of series: at 1 MiB 5,000 of them cost Mimir a gigabyte.
pub const MAX_PRODUCED_BYTES: u64 = 64 << 10;

/// The most queries that all templates of one rule may ask for one alert.
pub const MAX_QUERIES: usize = 4;

/// Blocks and parentheses inside one another.
const MAX_DEPTH: usize = 32;

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, in bytes from its start.
    pub at: usize,
    /// What, and what would be right; a sentence of its own.
    pub reason: String,
}

impl Fault {
    fn new(at: usize, reason: impl Into<String>) -> Self {
        Self { at, reason: reason.into() }
    }
}

/// Whether a text may become another one when an alert fires.
pub(crate) fn has_action(text: &str) -> bool {
    text.contains(lexer::OPEN)
}

/// What is left for the templates of one rule.
#[derive(Debug)]
pub struct Budget<'a> {
    produced: u64,
    queries: usize,
    /// Nodes and operands that were read.
    steps: usize,
    expressions: &'a ExpressionLimits,
}

impl<'a> Budget<'a> {
    /// The whole budget of a rule; queries are measured by `expressions`.
    pub fn new(expressions: &'a ExpressionLimits) -> Self {
        Self { produced: 0, queries: 0, steps: 0, expressions }
    }

    /// Whether nothing more can be charged to it.
    pub fn is_used_up(&self) -> bool {
        self.produced > MAX_PRODUCED_BYTES
            || self.queries > MAX_QUERIES
            || self.steps > cost::MOST_STEPS
    }

    /// Reads a template and charges it. A text without actions costs its length: Prometheus runs it as
    /// a template, too, so that every alert has a copy of its own.
    pub fn charge(&mut self, text: &str) -> Result<(), Fault> {
        if !has_action(text) {
            return cost::produce(self, text.len() as u64, 0);
        }
        let nodes = parser::parse(text)?;
        cost::charge(&nodes, self)
    }
}

#[cfg(test)]
mod tests;
