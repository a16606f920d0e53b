//! One reading of a tenant's evaluation: one request, and more only where it is not clear which version of a
//! rule is evaluated.

use std::collections::{BTreeMap, HashMap};

use time::OffsetDateTime;
use tokio::task::yield_now;
use uuid::Uuid;

use super::judge::{Seen, SeenRule, Version};
use super::memory::Memory;
use super::version::{Same, is_version, shown};
use crate::mimir::ruler::{EvaluatedGroup, EvaluatedRule, Evaluation, PromDuration, RulerError};
use crate::rules::spec::alert_rule::{AlertRule, row_of};
use crate::rules::spec::template::has_action;
use crate::rules::status::statuses::RuleStatuses;
use crate::store::StoreError;

/// What a reading asks.
pub(crate) trait Source: Sync {
    fn evaluation(&self) -> impl Future<Output = Result<Evaluation, RulerError>> + Send;

    /// The rules that the organisation's rows ask for now.
    fn rules(&self) -> impl Future<Output = Result<Vec<AlertRule>, StoreError>> + Send;

    /// An expression as Mimir writes it; none if it is invalid.
    fn format(&self, expr: &str)
    -> impl Future<Output = Result<Option<String>, RulerError>> + Send;
}

/// The versions of which an evaluation counts, by row.
pub(crate) type Wanted = HashMap<Uuid, WantedVersion>;

#[derive(Clone, Debug)]
pub(crate) struct WantedVersion {
    hash: String,
    /// What is shown while it is evaluated.
    shown: Option<String>,
    /// An earlier leader saw it evaluated.
    is_trusted: bool,
}

#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) seen: Seen,
    /// Requests beside the first.
    pub(crate) more_requests: u32,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Ruler(#[from] RulerError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Expressions in one reading that Mimir is asked about. The others wait for the next one.
const MOST_FORMATTED: u32 = 20;

pub(crate) fn wanted(known: &RuleStatuses, memory: &Memory) -> Wanted {
    let in_mimir = known.iter().filter(|(_, status)| status.state.is_in_mimir());
    in_mimir
        .filter_map(|(rule, status)| {
            let hash = status.rule_hash.clone()?;
            let remembered = memory.rules.get(rule).and_then(|rule| rule.known.as_ref());
            let shown = remembered.filter(|known| known.hash == hash).map(|known| &known.shown);
            let is_trusted = shown.is_none() && status.evaluated_at.is_some();
            Some((*rule, WantedVersion { hash, shown: shown.cloned(), is_trusted }))
        })
        .collect()
}

/// `now` stands in for the time at which Mimir answered, if it does not say.
pub(crate) async fn read(
    source: &impl Source,
    wanted: &Wanted,
    now: OffsetDateTime,
) -> Result<Reading, ReadError> {
    let evaluation = source.evaluation().await?;
    let at = evaluation.answered_at.unwrap_or(now);
    let is_switched_off = evaluation.is_switched_off;
    let mut versions = Versions { source, rows: None, more_requests: 0 };
    let mut rules: HashMap<Uuid, Vec<SeenRule>> = HashMap::new();
    for group in evaluation.groups {
        let EvaluatedGroup { name, interval, took, rules: members } = group;
        for evaluated in members {
            let Some(row) = row_of(&evaluated.rule.annotations) else { continue };
            let Some(wanted) = wanted.get(&row) else { continue };
            let digest = shown(&name, interval, &evaluated.rule);
            let is_known = wanted.is_trusted || wanted.shown.as_ref() == Some(&digest);
            let version = if is_known {
                Version::Is(wanted.hash.clone())
            } else {
                // To parse two expressions may take a millisecond, and there may be thousands.
                yield_now().await;
                versions.of(row, &wanted.hash, &name, interval, &evaluated).await?
            };
            let EvaluatedRule { rule, health, last_error, last_evaluation } = evaluated;
            let mut labels: BTreeMap<String, String> = rule.labels;
            // Mimir shows a template as it was written, and what it becomes only an alert can tell.
            labels.retain(|_, value| !has_action(value));
            // The name is none.
            labels.insert("alertname".to_owned(), rule.alert);
            let seen = SeenRule {
                interval,
                took,
                shown: digest,
                version,
                labels,
                health,
                last_error,
                last_evaluation,
            };
            rules.entry(row).or_default().push(seen);
        }
    }
    let more_requests = versions.more_requests;
    Ok(Reading { seen: Seen { at, is_switched_off, rules }, more_requests })
}

/// Finds out which versions are loaded.
struct Versions<'a, S> {
    source: &'a S,
    /// Read when they are first needed, after the evaluation: a version that is evaluated was written before.
    rows: Option<HashMap<Uuid, AlertRule>>,
    more_requests: u32,
}

impl<S: Source> Versions<'_, S> {
    async fn of(
        &mut self,
        row: Uuid,
        hash: &str,
        group: &str,
        interval: PromDuration,
        evaluated: &EvaluatedRule,
    ) -> Result<Version, ReadError> {
        if self.rows.is_none() {
            let rules = self.source.rules().await?;
            self.rows = Some(rules.into_iter().map(|rule| (rule.id, rule)).collect());
        }
        let rows = self.rows.as_ref();
        // A row that was edited meanwhile says nothing about the version that Mimir was given.
        let Some(rule) = rows.and_then(|rows| rows.get(&row)).filter(|rule| rule.hash() == hash)
        else {
            return Ok(Version::Unclear);
        };
        match is_version(rule, group, interval, &evaluated.rule) {
            Same::Yes => return Ok(Version::Is(hash.to_owned())),
            Same::No => return Ok(Version::Other),
            Same::IfExpressionsAre => {}
        }
        if self.more_requests >= 2 * MOST_FORMATTED {
            return Ok(Version::Unclear);
        }
        self.more_requests += 2;
        let (one, other) = (&rule.rule.expr, &evaluated.rule.expr);
        let Ok(one) = self.source.format(one).await else { return Ok(Version::Unclear) };
        let Ok(other) = self.source.format(other).await else { return Ok(Version::Unclear) };
        let is_same = one.is_some() && one == other;
        Ok(if is_same { Version::Is(hash.to_owned()) } else { Version::Other })
    }
}

#[cfg(test)]
mod tests;
