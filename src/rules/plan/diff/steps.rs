//! Turns a diff into single steps, in an order in which Mimir refuses none of them.
//!
//! Mimir counts a group that is written as one more than there are, even when it replaces one
//! (`AssertMaxRuleGroups` gets the number of groups + 1): at exactly the limit nothing can be
//! written before something is deleted. Below it, all is written before anything is deleted.

use super::{Diff, Write};
use crate::rules::plan::desired::DesiredGroup;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Deletes the group of this name.
    Delete(String),
    /// Writes the desired group of this index.
    Set(usize),
    /// Deletes the desired group of this index, then writes it: an update that Mimir would refuse at the
    /// limit.
    Replace(usize),
}

/// The tenant has `groups` groups now, in all namespaces, and may have `limit`.
///
/// All steps succeed if the desired groups fit within the limit. If they do not, because the limit or
/// other namespaces changed in the meantime, Mimir refuses the last steps: no group is deleted that could
/// not be written again.
pub fn steps(
    diff: &Diff,
    desired: &[DesiredGroup],
    groups: usize,
    limit: Option<usize>,
) -> Vec<Step> {
    let limit = limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let is_there = |(index, _): &&(usize, Write)| *index < desired.len();
    let mut writes: Vec<(usize, Write)> = diff.writes.iter().filter(is_there).copied().collect();
    let creations = writes.iter().filter(|(_, write)| *write == Write::Create).count();
    let groups_after = groups.saturating_sub(diff.deletes.len()).saturating_add(creations);
    if groups_after >= limit {
        // Updates first: the last creation takes the last free group, and an update needs one.
        writes.sort_by_key(|(_, write)| *write == Write::Create);
    }
    let mut now = groups;
    let mut deletes = diff.deletes.iter();
    let mut steps = Vec::with_capacity(writes.len() + diff.deletes.len());
    for (index, write) in writes {
        while now >= limit
            && let Some(name) = deletes.next()
        {
            steps.push(Step::Delete(name.clone()));
            now = now.saturating_sub(1);
        }
        if write == Write::Update && now == limit {
            steps.push(Step::Replace(index));
        } else {
            steps.push(Step::Set(index));
        }
        if write == Write::Create {
            now = now.saturating_add(1);
        }
    }
    steps.extend(deletes.map(|name| Step::Delete(name.clone())));
    steps
}
