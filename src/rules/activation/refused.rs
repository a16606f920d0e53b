//! What follows from a refusal of Mimir's.

use super::Activation;
use crate::mimir::ruler::{GroupRefusal, RulerLimits};
use crate::rules::alert_rule::AlertRule;
use crate::rules::desired::DesiredGroup;
use crate::rules::refusal::in_words;
use crate::rules::trouble::Stop;
use crate::rules::world::World;

/// What Mimir made of a step.
pub(super) enum Taken {
    Whole,
    /// It names what is wrong with it.
    Refused,
    /// It has shown a limit that was not known.
    LimitShown,
}

impl<W: World> Activation<'_, W> {
    /// Mimir will not take a group: whatever it names is put aside.
    pub(super) async fn refused(
        &mut self,
        group: &DesiredGroup,
        refusal: GroupRefusal,
        others: usize,
    ) -> Result<Taken, Stop> {
        let limits = self.limits();
        match refusal {
            GroupRefusal::Rule { index, reason, position, .. } if index < group.members.len() => {
                self.put_aside(&group.members[index], in_words(&reason, position));
                self.look_for_others(group, index).await;
            }
            GroupRefusal::TooManyRules { limit, .. } if Some(limit) != limits.rules_per_group => {
                let rules_per_group = Some(limit);
                self.memory.learn_shown(RulerLimits { rules_per_group, groups: None });
                return Ok(Taken::LimitShown);
            }
            GroupRefusal::TooManyGroups { limit, actual }
                if Some(self.total(limit, actual, others)) != limits.groups =>
            {
                let groups = Some(self.total(limit, actual, others));
                self.memory.learn_shown(RulerLimits { groups, rules_per_group: None });
                return Ok(Taken::LimitShown);
            }
            GroupRefusal::IntervalTooShort { limit, .. } => {
                for rule in &group.members {
                    let reason = format!(
                        "evaluation_interval {} is too short; {limit} is the shortest",
                        rule.interval
                    );
                    self.put_aside(rule, reason);
                }
            }
            other => {
                let reason = format!("mimir does not take the group {:?}: {other}", group.name);
                self.broken.extend(group.members.iter().map(|rule| (rule.id, reason.clone())));
            }
        }
        Ok(Taken::Refused)
    }

    /// A limit of groups, of all namespaces together. If ours has one of its own, Mimir counts only
    /// the groups in it.
    fn total(&self, limit: usize, actual: usize, others: usize) -> usize {
        let counts_others = actual > self.groups;
        if counts_others { limit } else { limit + others }
    }

    /// Where one expression is wrong others of its group may be: Mimir names one at a time. Without an
    /// answer that takes longer, and nothing is lost.
    async fn look_for_others(&mut self, group: &DesiredGroup, known: usize) {
        for (at, rule) in group.members.iter().enumerate() {
            if at == known {
                continue;
            }
            match self.world.fault_of(&rule.rule.expr).await {
                Ok(None) => {}
                Ok(Some(fault)) => self.put_aside(rule, fault),
                Err(_) => return,
            }
        }
    }

    fn put_aside(&mut self, rule: &AlertRule, reason: String) {
        tracing::info!(
            organisation.id = %self.organisation,
            rule.id = %rule.id,
            "Alert rule refused by Mimir"
        );
        self.memory.quarantine.put(rule.hash(), &reason);
    }
}
