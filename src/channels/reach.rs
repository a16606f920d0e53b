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

use super::document::TEST_LABEL;
use super::spec::channel::Channel;
use super::spec::matcher::{Matcher, Operator};
use super::spec::pattern::Pattern;
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
    pattern: Option<Pattern>,
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
        let mut room = MOST_KEPT;
        let mut of_route = |route: &Route| {
            let conditions =
                route.matchers.iter().map(|matcher| Condition::new(matcher, &mut room));
            let mut conditions: Vec<Condition> = conditions.collect();
            // The cheap ones first: one that does not hold ends the route.
            conditions.sort_by_key(|condition| condition.operator.is_pattern());
            conditions
        };
        Self {
            has_default: channels.iter().any(|channel| channel.is_default),
            routes: channels.iter().map(test).chain(routes.iter().map(&mut of_route)).collect(),
        }
    }

    /// Whether alerts reach a channel whose labels are `known` and any others: `Some(true)` if all do,
    /// `Some(false)` if none can, `None` if it depends on labels that are not known. A label of `known` that is
    /// empty is one that alerts do not have.
    pub fn reaches(&self, known: &BTreeMap<String, String>) -> Option<bool> {
        if self.has_default {
            return Some(true);
        }
        let mut work = MOST_WORK;
        let answers = self.routes.iter().map(|conditions| all(conditions, known, &mut work));
        match answers.max() {
            Some(Answer::Always) => Some(true),
            Some(Answer::Perhaps) => None,
            Some(Answer::Never) | None => Some(false),
        }
    }
}

/// What the patterns of an organisation that are kept compiled may weigh. Of others it is not known what they match.
const MOST_KEPT: u64 = 32 << 10;
/// What may be spent on the patterns for one rule ([`Pattern::matches`]): enough for hundreds of routes by team or
/// site. An organisation may have 5,000 rules, of which each is asked whenever its evaluation is read, on the thread
/// of the rules module.
const MOST_WORK: u64 = 20_000;

/// Whether all of a route's conditions hold.
fn all(conditions: &[Condition], known: &BTreeMap<String, String>, work: &mut u64) -> Answer {
    let mut unknown: BTreeMap<&str, Vec<&Condition>> = BTreeMap::new();
    let mut answer = Answer::Always;
    for condition in conditions {
        match known.get(&condition.name) {
            Some(value) => answer = answer.min(condition.answer(value, work)),
            // Series could have it, but none that is meant to notify anybody.
            None if condition.name == TEST_LABEL => {
                answer = answer.min(condition.answer("", work));
            }
            None => unknown.entry(&condition.name).or_default().push(condition),
        }
        if answer == Answer::Never {
            return answer;
        }
    }
    unknown.values().fold(answer, |answer, conditions| answer.min(any_value(conditions, work)))
}

/// Whether the conditions on one label hold for every value, for some or for none.
fn any_value(conditions: &[&Condition], work: &mut u64) -> Answer {
    let wanted = conditions.iter().find(|condition| condition.operator == Operator::Equal);
    if let Some(wanted) = wanted {
        // Only this value can do, and there are others.
        let answers = conditions.iter().map(|condition| condition.answer(&wanted.value, work));
        return answers.min().unwrap_or(Answer::Perhaps).min(Answer::Perhaps);
    }
    let is_everything = |condition: &&Condition| {
        condition.operator == Operator::Matches && EVERYTHING.contains(&condition.value.as_str())
    };
    let is_nothing = |condition: &&Condition| {
        condition.operator == Operator::MatchesNot && EVERYTHING.contains(&condition.value.as_str())
    };
    if conditions.iter().any(is_nothing) {
        Answer::Never
    } else if conditions.iter().all(is_everything) {
        Answer::Always
    } else {
        Answer::Perhaps
    }
}

/// Patterns that match every value. A dot matches no line break, so `.*` would not match a label that holds
/// one; such labels are so rare that the answer is given as if there were none.
const EVERYTHING: [&str; 3] = [".*", "(?s).*", "(.*)"];

impl Condition {
    fn new(matcher: &Matcher, room: &mut u64) -> Self {
        let left = room.checked_sub(matcher.weight());
        *room = left.unwrap_or(*room);
        Self {
            name: matcher.name.clone(),
            operator: matcher.operator,
            value: matcher.value.clone(),
            pattern: left.and_then(|_| matcher.pattern()),
        }
    }

    fn answer(&self, value: &str, work: &mut u64) -> Answer {
        let mut matches = || self.pattern.as_ref().and_then(|pattern| pattern.matches(value, work));
        let holds = match self.operator {
            Operator::Equal => Some(self.value == value),
            Operator::NotEqual => Some(self.value != value),
            Operator::Matches => matches(),
            Operator::MatchesNot => matches().map(|matches| !matches),
        };
        match holds {
            Some(true) => Answer::Always,
            Some(false) => Answer::Never,
            None => Answer::Perhaps,
        }
    }
}

#[cfg(test)]
mod tests;
