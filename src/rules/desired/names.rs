//! Names of the groups that a `rule_group` is split into: `cpu@30s`, `cpu#2`, `cpu@30s#2`.
//!
//! Two generated names are never one: the last `@` or `#` of each tells what it was made of. But
//! authors may call a `rule_group` just that, and then the name is theirs: ours gets `~` behind it
//! until it is free, which keeps both properties.

use std::collections::BTreeSet;

use crate::mimir::ruler::PromDuration;

/// The names that authors gave.
pub(super) struct Names(BTreeSet<String>);

impl Names {
    pub(super) fn new<'a>(plain: impl Iterator<Item = &'a String>) -> Self {
        Self(plain.cloned().collect())
    }

    /// For the rules of a further interval.
    pub(super) fn of_interval(&self, plain: &str, interval: PromDuration) -> String {
        self.free(format!("{plain}@{interval}"))
    }

    /// For a chunk of a group, counted from 1; the first has the group's own name.
    pub(super) fn of_chunk(&self, group: &str, chunk: usize) -> String {
        if chunk > 1 { self.free(format!("{group}#{chunk}")) } else { group.to_owned() }
    }

    fn free(&self, mut name: String) -> String {
        while self.0.contains(&name) {
            name.push('~');
        }
        name
    }
}
