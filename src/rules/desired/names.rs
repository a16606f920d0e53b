//! Names of the groups that a `rule_group` is split into: `cpu@30s`, `cpu#2`, `cpu@30s#2`.
//!
//! Authors may call a `rule_group` just that, and then the name is theirs: a generated one that is
//! taken gets `~` behind it until it is free. Names are given in one order, so each is always the
//! same while the others are.

use std::collections::BTreeSet;

use crate::mimir::ruler::PromDuration;

/// The names that are taken.
pub(super) struct Names(BTreeSet<String>);

impl Names {
    /// The plain names are taken from the start.
    pub(super) fn new<'a>(plain: impl Iterator<Item = &'a String>) -> Self {
        Self(plain.cloned().collect())
    }

    /// The name of a chunk, counted from 1. The first chunk of the first interval, which is given
    /// none here, has the plain name.
    pub(super) fn generate(
        &mut self,
        plain: &str,
        interval: Option<PromDuration>,
        chunk: usize,
    ) -> String {
        let mut name = plain.to_owned();
        if let Some(interval) = interval {
            name.push_str(&format!("@{interval}"));
        }
        if chunk > 1 {
            name.push_str(&format!("#{chunk}"));
        }
        if interval.is_some() || chunk > 1 {
            while !self.0.insert(name.clone()) {
                name.push('~');
            }
        }
        name
    }
}
