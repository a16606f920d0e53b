//! What there is to do for one tenant: rows and Mimir's listing -> groups that should be, and what
//! differs. Pure but for the question to Mimir whether two expressions are one.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::alert_rule::{AlertRule, Parsed, RuleDefaults, parse};
use super::desired::{Desired, DesiredGroup, desired};
use super::diff::{Diff, diff, differing_exprs};
use super::expressions::same;
use super::world::Asks;
use crate::config::GuardConfig;
use crate::mimir::ruler::{Listed, RulerError, RulerLimits, StoredGroup};
use crate::store::{AlertRuleRow, Excess, MOST_ORGANISATION_BYTES, MOST_ROW_BYTES};

/// The rows of an organisation, read.
#[derive(Clone, Debug, Default)]
pub struct ParsedRows {
    /// Rules that should be live.
    pub enabled: Vec<AlertRule>,
    /// Rows that are no rules, and why, in words for their author.
    pub refused: Vec<(Uuid, String)>,
    /// Rows that are switched off.
    pub disabled: Vec<Uuid>,
    /// Rows for which the organisation's others leave no room, and why.
    pub crowded_out: Vec<(Uuid, String)>,
}

/// Rules that Mimir will not take, by the hash of what they say, and why.
#[derive(Debug, Default)]
pub(super) struct Quarantine(HashMap<String, Quarantined>);

#[derive(Debug)]
struct Quarantined {
    reason: String,
    since: Instant,
}

/// How long a rule that Mimir refused is not tried again: a later Mimir may know more.
const QUARANTINE: Duration = Duration::from_secs(3600);

impl Quarantine {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn put(&mut self, hash: String, reason: &str) {
        self.0.insert(hash, Quarantined { reason: shortened(reason), since: Instant::now() });
    }

    pub(super) fn reason(&self, hash: &str) -> Option<&str> {
        self.0.get(hash).map(|kept| kept.reason.as_str())
    }

    /// Whether none is old enough to be tried again.
    pub(super) fn is_fresh(&self) -> bool {
        self.0.values().all(|kept| kept.since.elapsed() < QUARANTINE)
    }

    /// Forgets those that are old, and those that no row is about any more.
    pub(super) fn tidy(&mut self, enabled: &[AlertRule]) {
        if self.0.is_empty() {
            return;
        }
        let there: HashSet<String> = enabled.iter().map(AlertRule::hash).collect();
        self.0.retain(|hash, kept| there.contains(hash) && kept.since.elapsed() < QUARANTINE);
    }
}

/// A text for a status. What Mimir says may be as long as what it is about.
pub(super) fn shortened(text: &str) -> String {
    const LONGEST: usize = 2000;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
    // Postgres takes no NUL, in JSON neither.
    .replace('\0', "\u{fffd}")
}

/// What there is to do.
#[derive(Debug)]
pub struct Plan {
    /// The groups that should be.
    pub groups: Vec<DesiredGroup>,
    /// Rules that the tenant's limit leaves no room for.
    pub over_limit: Vec<AlertRule>,
    /// Rules that Mimir will not take.
    pub quarantined: Vec<(AlertRule, String)>,
    /// The groups that are there, in our namespace.
    pub observed: Vec<StoredGroup>,
    /// Groups in other namespaces.
    pub others: usize,
    /// What differs.
    pub diff: Diff,
}

/// Reads the rows of one organisation.
pub fn parse_rows(rows: &[AlertRuleRow], defaults: &RuleDefaults) -> ParsedRows {
    let mut parsed = ParsedRows::default();
    for row in rows {
        match row.excess {
            Excess::None => {}
            Excess::Row => {
                let reason = format!("the row is larger than {} KiB", MOST_ROW_BYTES >> 10);
                parsed.refused.push((row.id, reason));
                continue;
            }
            Excess::Organisation => {
                let most = MOST_ORGANISATION_BYTES >> 20;
                let reason = format!(
                    "the organisation's rules are larger than {most} MiB together, and older ones come first"
                );
                parsed.crowded_out.push((row.id, reason));
                continue;
            }
        }
        match parse(row, defaults) {
            Ok(Parsed::Enabled(rule)) => parsed.enabled.push(rule),
            Ok(Parsed::Disabled) => parsed.disabled.push(row.id),
            Err(refusals) => parsed.refused.push((row.id, refusals.to_string())),
        }
    }
    parsed
}

/// The groups that should be, and the rules that cannot be in any.
pub(super) struct Wanted {
    pub(super) desired: Desired,
    pub(super) quarantined: Vec<(AlertRule, String)>,
}

pub(super) fn wanted(
    enabled: &[AlertRule],
    quarantine: &Quarantine,
    limits: &RulerLimits,
    others: usize,
) -> Wanted {
    let mut fit = Vec::with_capacity(enabled.len());
    let mut quarantined = Vec::new();
    for rule in enabled {
        // Hashing every rule would be the most of the work where nothing is wrong.
        let hash = if quarantine.is_empty() { None } else { Some(rule.hash()) };
        match hash.as_deref().and_then(|hash| quarantine.reason(hash)) {
            Some(reason) => quarantined.push((rule.clone(), reason.to_owned())),
            None => fit.push(rule.clone()),
        }
    }
    Wanted { desired: desired(fit, limits, others), quarantined }
}

impl Plan {
    pub(super) fn new(
        wanted: Wanted,
        listed: &Listed,
        same_expr: &dyn Fn(&str, &str) -> bool,
    ) -> Self {
        let Desired { groups, over_limit } = wanted.desired;
        let diff = diff(&groups, &listed.ours, same_expr);
        Self {
            groups,
            over_limit,
            quarantined: wanted.quarantined,
            observed: listed.ours.clone(),
            others: listed.others,
            diff,
        }
    }

    /// Whether it may touch a limit that is only assumed.
    pub(super) fn is_near(&self, limits: &RulerLimits) -> bool {
        let groups = self.groups.len() + self.others;
        let is_full = |group: &DesiredGroup| {
            limits.rules_per_group.is_some_and(|limit| group.members.len() >= limit)
        };
        !self.over_limit.is_empty()
            || limits.groups.is_some_and(|limit| groups.saturating_mul(2) > limit)
            || self.groups.iter().any(is_full)
    }

    /// How many rules our namespace has now.
    pub fn observed_rules(&self) -> usize {
        self.observed.iter().map(|group| group.rules.len()).sum()
    }

    /// How many it would have.
    pub fn desired_rules(&self) -> usize {
        self.groups.iter().map(|group| group.members.len()).sum()
    }
}

/// What holds for every plan.
pub(super) struct Settings<'a> {
    pub(super) namespace: &'a str,
    pub(super) guard: &'a GuardConfig,
    pub(super) defaults: RuleDefaults,
    /// The limits where Mimir does not tell.
    pub(super) limits: RulerLimits,
}

/// What a plan is made of.
pub(super) struct Basis<'a> {
    pub(super) parsed: &'a ParsedRows,
    pub(super) quarantine: &'a Quarantine,
    /// The limits as Mimir has told them, if it has been asked not long ago.
    pub(super) told: Option<RulerLimits>,
    /// Those that a refusal has shown.
    pub(super) shown: RulerLimits,
    pub(super) listed: &'a Listed,
}

impl Basis<'_> {
    /// Makes a plan, and gives the limits as Mimir tells them if it had to be asked for them: only
    /// whoever comes near one has to know it.
    pub(super) async fn plan(
        &self,
        world: &impl Asks,
        by_default: RulerLimits,
    ) -> Result<(Plan, Option<RulerLimits>), RulerError> {
        let assumed = self.told.unwrap_or(by_default).within(self.shown);
        let plan = self.plan_within(world, &assumed).await?;
        if self.told.is_some() || !plan.is_near(&assumed) {
            return Ok((plan, None));
        }
        let told = world.limits().await?;
        let limits = told.within(self.shown);
        if limits == assumed {
            return Ok((plan, Some(told)));
        }
        Ok((self.plan_within(world, &limits).await?, Some(told)))
    }

    /// Reads from Mimir at most whether two expressions are one.
    async fn plan_within(
        &self,
        world: &impl Asks,
        limits: &RulerLimits,
    ) -> Result<Plan, RulerError> {
        let listed = self.listed;
        let wanted = wanted(&self.parsed.enabled, self.quarantine, limits, listed.others);
        let pairs = differing_exprs(&wanted.desired.groups, &listed.ours);
        if pairs.is_empty() {
            return Ok(Plan::new(wanted, listed, &|_, _| false));
        }
        let same = same(world, pairs).await?;
        Ok(Plan::new(wanted, listed, &|one, other| same.are(one, other)))
    }
}
