//! Makes a plan, and asks Mimir what a plan has to know: whether two expressions are equal, and the
//! tenant's limits.

use std::collections::HashSet;

use uuid::Uuid;

use super::expressions::same;
use super::quarantine::Quarantine;
use super::world::ReadsMimir;
use crate::config::GuardConfig;
use crate::mimir::ruler::{Listed, RulerError, RulerLimits};
use crate::rules::plan::diff::differing_exprs;
use crate::rules::plan::{Plan, wanted};
use crate::rules::spec::alert_rule::RuleDefaults;
use crate::rules::spec::rows::ParsedRows;

/// What holds for the plans of all tenants.
pub(crate) struct Settings<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) guard: &'a GuardConfig,
    pub(crate) defaults: RuleDefaults,
    /// The limits to assume where Mimir does not report any.
    pub(crate) limits: RulerLimits,
}

/// What a plan is made from.
pub(crate) struct Basis<'a> {
    pub(crate) parsed: &'a ParsedRows,
    pub(crate) quarantine: &'a Quarantine,
    /// The limits that Mimir reports, unless that was too long ago.
    pub(crate) reported: Option<RulerLimits>,
    /// The limits that refusals have shown.
    pub(crate) observed: RulerLimits,
    pub(crate) listed: &'a Listed,
    /// Rules whose groups are written in any case.
    pub(crate) written_again: &'a HashSet<Uuid>,
}

impl Basis<'_> {
    /// Makes a plan. Returns the limits too if Mimir had to be asked for them, which costs a request
    /// and is needed only near a limit.
    pub(crate) async fn plan(
        &self,
        world: &impl ReadsMimir,
        by_default: RulerLimits,
    ) -> Result<(Plan, Option<RulerLimits>), RulerError> {
        let assumed = self.reported.unwrap_or(by_default).within(self.observed);
        let plan = self.plan_within(world, &assumed).await?;
        if self.reported.is_some() || !plan.is_near(&assumed) {
            return Ok((plan, None));
        }

        let reported = world.limits().await?;
        let limits = reported.within(self.observed);
        if limits == assumed {
            return Ok((plan, Some(reported)));
        }
        Ok((self.plan_within(world, &limits).await?, Some(reported)))
    }

    async fn plan_within(
        &self,
        world: &impl ReadsMimir,
        limits: &RulerLimits,
    ) -> Result<Plan, RulerError> {
        let listed = self.listed;
        let refused_because = |rule: &_| self.quarantine.reason_of(rule);
        let wanted = wanted(&self.parsed.enabled, &refused_because, limits, listed.others);
        let pairs = differing_exprs(&wanted.desired.groups, &listed.ours);
        let mut plan = if pairs.is_empty() {
            Plan::new(wanted, listed, &|_, _| false)
        } else {
            let same = same(world, pairs).await?;
            Plan::new(wanted, listed, &|one, other| same.are(one, other))
        };
        plan.write_again(self.written_again);
        Ok(plan)
    }
}
