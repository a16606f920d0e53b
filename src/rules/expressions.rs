//! Expressions, as Mimir's own parser sees them: whether one is valid, and how it writes it. Two texts
//! that it writes alike are one expression, and a difference in white space or comments is no reason
//! to write a group again.

use std::collections::HashMap;

use moka::sync::Cache;

use super::refusal::in_words;
use super::world::Asks;
use super::writer::ask;
use crate::mimir::expression::{self, ExpressionLimits};
use crate::mimir::ruler::{RulerClient, RulerError};
use crate::tenancy::TenantId;

/// What is wrong with an expression, in words with the place; nothing if it is valid.
pub async fn fault_of(
    client: &RulerClient,
    tenant: &TenantId,
    expr: &str,
) -> Result<Option<String>, RulerError> {
    match ask(|| client.format_query(tenant, expr)).await {
        Ok(_) => Ok(None),
        Err(RulerError::InvalidExpression { message, line, column }) => {
            Ok(Some(in_words(&message, line.zip(column))))
        }
        Err(error) => Err(error),
    }
}

/// Formatted expressions, remembered within bounds.
pub(super) struct Formats {
    known: Cache<String, Option<String>>,
    limits: ExpressionLimits,
}

/// Bytes of expressions that are remembered.
const MOST_BYTES: u64 = 16 << 20;

impl Formats {
    pub(super) fn new(limits: ExpressionLimits) -> Self {
        let weigh = |key: &String, value: &Option<String>| {
            let bytes = key.len() + value.as_ref().map_or(0, String::len) + 64;
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let known = Cache::builder().max_capacity(MOST_BYTES).weigher(weigh).build();
        Self { known, limits }
    }

    /// An expression as Mimir writes it; none if it is none.
    pub(super) async fn of(
        &self,
        client: &RulerClient,
        tenant: &TenantId,
        expr: &str,
    ) -> Result<Option<String>, RulerError> {
        if let Some(known) = self.known.get(expr) {
            return Ok(known);
        }
        // What Mimir already has may be older than this limit, and is not to be parsed once more.
        if expression::check(expr, &self.limits).is_err() {
            return Ok(None);
        }
        let formatted = match ask(|| client.format_query(tenant, expr)).await {
            Ok(formatted) => Some(formatted),
            Err(RulerError::InvalidExpression { .. }) => None,
            Err(error) => return Err(error),
        };
        self.known.insert(expr.to_owned(), formatted.clone());
        Ok(formatted)
    }
}

/// Asks about pairs of texts, and says which of them are one expression.
pub(super) async fn same(
    world: &impl Asks,
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

/// Which pairs of texts are one expression.
pub(super) struct SameExpressions(HashMap<(String, String), bool>);

impl SameExpressions {
    pub(super) fn are(&self, one: &str, other: &str) -> bool {
        let pair = (one.to_owned(), other.to_owned());
        self.0.get(&pair).copied().unwrap_or(false)
    }
}
