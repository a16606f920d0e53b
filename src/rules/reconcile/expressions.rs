//! Asks Mimir's own parser whether an expression is valid, and how it formats it. Two texts with one
//! format are one expression, so that a difference in white space or comments rewrites no group.

use std::collections::HashMap;

use moka::sync::Cache;

use crate::mimir::expression::{self, ExpressionLimits};
use crate::mimir::retrying;
use crate::mimir::ruler::{RulerClient, RulerError};
use crate::rules::reconcile::world::ReadsMimir;
use crate::rules::spec::refusal::in_words;
use crate::tenancy::TenantId;

/// What is wrong with an expression, and where; none if it is valid.
pub async fn fault_of(
    client: &RulerClient,
    tenant: &TenantId,
    expr: &str,
) -> Result<Option<String>, RulerError> {
    match retrying(|| client.format_query(tenant, expr)).await {
        Ok(_) => Ok(None),
        Err(RulerError::InvalidExpression { message, line, column }) => {
            Ok(Some(in_words(&message, line.zip(column))))
        }
        Err(error) => Err(error),
    }
}

/// A bounded cache of formatted expressions. What is invalid is not kept: the next version of Mimir may take it.
pub(crate) struct Formats {
    known: Cache<String, String>,
    limits: ExpressionLimits,
}

const MOST_BYTES: u64 = 16 << 20;

impl Formats {
    pub(crate) fn new(limits: ExpressionLimits) -> Self {
        let weigh = |key: &String, value: &String| {
            u32::try_from(key.len() + value.len() + 64).unwrap_or(u32::MAX)
        };
        let known = Cache::builder().max_capacity(MOST_BYTES).weigher(weigh).build();
        Self { known, limits }
    }

    /// An expression as Mimir formats it; none if it is invalid.
    pub(crate) async fn of(
        &self,
        client: &RulerClient,
        tenant: &TenantId,
        expr: &str,
    ) -> Result<Option<String>, RulerError> {
        self.known_or(expr, async || retrying(|| client.format_query(tenant, expr)).await).await
    }

    async fn known_or(
        &self,
        expr: &str,
        format: impl AsyncFnOnce() -> Result<String, RulerError>,
    ) -> Result<Option<String>, RulerError> {
        if let Some(known) = self.known.get(expr) {
            return Ok(Some(known));
        }
        // Mimir may have a rule that is older than our limits. Its parser need not see it again.
        if expression::check(expr, &self.limits).is_err() {
            return Ok(None);
        }
        match format().await {
            Ok(formatted) => {
                self.known.insert(expr.to_owned(), formatted.clone());
                Ok(Some(formatted))
            }
            Err(RulerError::InvalidExpression { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Asks Mimir which of these pairs are one expression.
pub(crate) async fn same(
    world: &impl ReadsMimir,
    pairs: Vec<(&str, &str)>,
) -> Result<SameExpressions, RulerError> {
    let mut same = HashMap::new();
    for (one, other) in pairs {
        let formatted = world.format(one).await?;
        let is_same = formatted.is_some() && formatted == world.format(other).await?;
        same.insert((one.to_owned(), other.to_owned()), is_same);
    }
    Ok(SameExpressions(same))
}

pub(crate) struct SameExpressions(HashMap<(String, String), bool>);

impl SameExpressions {
    pub(crate) fn are(&self, one: &str, other: &str) -> bool {
        let pair = (one.to_owned(), other.to_owned());
        self.0.get(&pair).copied().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // After an upgrade of Mimir a rule with such an expression was reported as failing for ever.
    #[tokio::test]
    async fn what_is_invalid_is_asked_again_and_what_is_valid_is_not() {
        let formats = Formats::new(ExpressionLimits::default());
        let (line, column) = (Some(1), Some(1));
        let invalid = RulerError::InvalidExpression { message: "no".to_owned(), line, column };
        assert_eq!(formats.known_or("new(up)", async || Err(invalid)).await.unwrap(), None);
        let formatted = Some("new(up)".to_owned());
        let valid = async || Ok("new(up)".to_owned());
        assert_eq!(formats.known_or("new(up)", valid).await.unwrap(), formatted);
        let not_asked = async || unreachable!("it is known");
        assert_eq!(formats.known_or("new(up)", not_asked).await.unwrap(), formatted);
    }
}
