//! Orders the writes so that an alert that moves from one group to another is always in one of them. For
//! a moment it may be in both, which Alertmanager treats as one alert.

use std::collections::{BTreeMap, BTreeSet};

use super::{Diff, Write, alerting};
use crate::mimir::ruler::StoredGroup;
use crate::rules::plan::desired::DesiredGroup;

/// What a group takes from others and gives away, by alert name: observed rules have no IDs.
#[derive(Default)]
struct Traffic<'a> {
    takes: BTreeSet<&'a str>,
    gives: BTreeSet<&'a str>,
}

pub(super) fn order(
    diff: &mut Diff,
    desired: &[DesiredGroup],
    observed: &BTreeMap<&str, Vec<&StoredGroup>>,
) {
    let held = |name: &str| -> BTreeSet<&str> {
        let groups = observed.get(name).into_iter().flatten();
        groups.flat_map(|group| alerting(group)).map(|rule| rule.alert.as_str()).collect()
    };
    let traffic: Vec<Traffic> = diff
        .writes
        .iter()
        .filter_map(|(index, _)| desired.get(*index))
        .map(|group| {
            let is = held(&group.name);
            let should: BTreeSet<&str> =
                group.members.iter().map(|member| member.rule.alert.as_str()).collect();
            Traffic {
                takes: should.difference(&is).copied().collect(),
                gives: is.difference(&should).copied().collect(),
            }
        })
        .collect();
    let mut takers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (write, traffic) in traffic.iter().enumerate() {
        for alert in &traffic.takes {
            takers.entry(alert).or_default().push(write);
        }
    }
    diff.writes = takers_first(&traffic, &takers)
        .into_iter()
        .filter_map(|write| diff.writes.get(write).copied())
        .collect::<Vec<(usize, Write)>>();
    diff.deletes.sort_by_key(|name| held(name).iter().any(|alert| takers.contains_key(alert)));
}

/// Depth first: all groups that take from a group come before it. If groups take from one another in a
/// ring, one of them has to be first.
fn takers_first(traffic: &[Traffic], takers: &BTreeMap<&str, Vec<usize>>) -> Vec<usize> {
    let takers_of = |write: usize| -> Vec<usize> {
        let gives = traffic.get(write).into_iter().flat_map(|traffic| &traffic.gives);
        gives.filter_map(|alert| takers.get(alert)).flatten().copied().collect()
    };
    let mut seen = vec![false; traffic.len()];
    let mut ordered = Vec::with_capacity(traffic.len());
    for start in 0..traffic.len() {
        if std::mem::replace(&mut seen[start], true) {
            continue;
        }
        // An explicit stack: chunks that take from one another form a chain of any length.
        let mut path = vec![(start, takers_of(start))];
        while let Some((write, rest)) = path.last_mut() {
            match rest.pop() {
                Some(next) if !std::mem::replace(&mut seen[next], true) => {
                    path.push((next, takers_of(next)));
                }
                Some(_) => {}
                None => {
                    ordered.push(*write);
                    path.pop();
                }
            }
        }
    }
    ordered
}
