//! Whether an alert with these labels would reach a channel.
//!
//! Asked of a rule before it fires: of its labels only those are known that the rule sets to a fixed text.
//! Series add others, with any values. So there are three answers, and "no" is given only where no values
//! could make it a "yes": a rule that is told to notify nobody by mistake would be worse than none told.
//!
//! Every route of the document leads to a live channel, so an alert reaches one if there is a default channel
//! or if any route's matchers match, wherever in the order it stands: a route before it would lead to a channel
//! as well. Mute times only delay.

use std::collections::BTreeMap;

use regex::Regex;

use super::document::TEST_LABEL;
use super::spec::channel::Channel;
use super::spec::matcher::{Matcher, Operator};
use super::spec::route::Route;

/// The routing of one organisation.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    has_default: bool,
    routes: Vec<Vec<Condition>>,
}

/// One matcher, ready to be asked.
#[derive(Clone, Debug)]
struct Condition {
    name: String,
    operator: Operator,
    value: String,
    /// None if it is not a pattern, or one that only Go knows.
    pattern: Option<Regex>,
}

/// An answer, from the worst to the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Never,
    Perhaps,
    Always,
}

impl Reach {
    pub(super) fn new(channels: &[Channel], routes: &[Route]) -> Self {
        let test = |channel: &Channel| {
            let value = channel.id.to_string();
            let operator = Operator::Equal;
            vec![Condition { name: TEST_LABEL.to_owned(), operator, value, pattern: None }]
        };
        let of_route = |route: &Route| route.matchers.iter().map(Condition::new).collect();
        Self {
            has_default: channels.iter().any(|channel| channel.is_default),
            routes: channels.iter().map(test).chain(routes.iter().map(of_route)).collect(),
        }
    }

    /// Whether alerts reach a channel whose labels are `known` and any others: `Some(true)` if all do,
    /// `Some(false)` if none can, `None` if it depends on labels that are not known. A label of `known` that is
    /// empty is one that alerts do not have.
    pub fn reaches(&self, known: &BTreeMap<String, String>) -> Option<bool> {
        if self.has_default {
            return Some(true);
        }
        let answers = self.routes.iter().map(|conditions| all(conditions, known));
        match answers.max() {
            Some(Answer::Always) => Some(true),
            Some(Answer::Perhaps) => None,
            Some(Answer::Never) | None => Some(false),
        }
    }
}

/// Whether all of a route's conditions hold.
fn all(conditions: &[Condition], known: &BTreeMap<String, String>) -> Answer {
    let mut unknown: BTreeMap<&str, Vec<&Condition>> = BTreeMap::new();
    let mut answer = Answer::Always;
    for condition in conditions {
        match known.get(&condition.name) {
            Some(value) => answer = answer.min(condition.answer(value)),
            // Series could have it, but none that is meant to notify anybody.
            None if condition.name == TEST_LABEL => answer = answer.min(condition.answer("")),
            None => unknown.entry(&condition.name).or_default().push(condition),
        }
    }
    unknown.values().fold(answer, |answer, conditions| answer.min(any_value(conditions)))
}

/// Whether the conditions on one label hold for every value, for some or for none.
fn any_value(conditions: &[&Condition]) -> Answer {
    let wanted = conditions.iter().find(|condition| condition.operator == Operator::Equal);
    if let Some(wanted) = wanted {
        // Only this value can do, and there are others.
        let answers = conditions.iter().map(|condition| condition.answer(&wanted.value));
        return answers.min().unwrap_or(Answer::Perhaps).min(Answer::Perhaps);
    }
    let is_everything = |condition: &&Condition| {
        condition.operator == Operator::Matches && EVERYTHING.contains(&condition.value.as_str())
    };
    let is_nothing = |condition: &&Condition| {
        condition.operator == Operator::MatchesNot && EVERYTHING.contains(&condition.value.as_str())
    };
    if conditions.iter().any(|condition| is_nothing(condition)) {
        Answer::Never
    } else if conditions.iter().all(|condition| is_everything(condition)) {
        Answer::Always
    } else {
        Answer::Perhaps
    }
}

/// Patterns that match every value. A dot matches no line break, so `.*` would not match a label that holds
/// one; such labels are so rare that the answer is given as if there were none.
const EVERYTHING: [&str; 3] = [".*", "(?s).*", "(.*)"];

impl Condition {
    fn new(matcher: &Matcher) -> Self {
        Self {
            name: matcher.name.clone(),
            operator: matcher.operator,
            value: matcher.value.clone(),
            pattern: matcher.operator.is_pattern().then(|| matcher.pattern()).flatten(),
        }
    }

    fn answer(&self, value: &str) -> Answer {
        let holds = match (self.operator, &self.pattern) {
            (Operator::Equal, _) => self.value == value,
            (Operator::NotEqual, _) => self.value != value,
            (Operator::Matches, Some(pattern)) => pattern.is_match(value),
            (Operator::MatchesNot, Some(pattern)) => !pattern.is_match(value),
            (Operator::Matches | Operator::MatchesNot, None) => return Answer::Perhaps,
        };
        if holds { Answer::Always } else { Answer::Never }
    }
}

#[cfg(test)]
mod tests;
