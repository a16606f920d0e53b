//! Whether Mimir evaluates the rules that it has.
//!
//! A group that Mimir stored may still not be evaluated: the ruler has not loaded it, an expression fails,
//! evaluation is switched off for the tenant, or an upgraded Mimir cannot parse what an earlier one took. So
//! the leader also reads what the rulers say of each tenant ([`read`]), and [`judge`]s each rule by it.
//!
//! - **What we cannot read is no evidence.** A tenant whose evaluation is not read keeps its statuses for a
//!   while, and then its rules are `stored` again with the reason that nobody knows. They are never `failing`
//!   because of it.
//! - **An evaluation counts only for the version that it was of.** The ruler goes on with the version before an
//!   edit until it has loaded the new one. Each rule names its row ([`ROW_ANNOTATION`]), and [`version`] tells
//!   whether what is evaluated is what the row says.
//! - **A rule that is not loaded is written once more.** The ruler then loads it, or says what is wrong with it
//!   and the rule goes into quarantine. Mimir loads all groups of a tenant or none of them: one rule that it
//!   cannot parse any more stops all others.
//! - **Requests are bounded** ([`timetable`]), one for each tenant and interval, and sooner after a write.
//!
//! The scheduler owns the results, as it owns everything about a tenant. Readings run beside it.
//!
//! [`ROW_ANNOTATION`]: crate::rules::spec::alert_rule::ROW_ANNOTATION

pub(crate) mod judge;
pub(crate) mod memory;
pub(crate) mod read;
pub(crate) mod timetable;
pub(crate) mod version;
pub(crate) mod words;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::tenancy::OrganisationId;

/// Whether an alert with these labels, `alertname` included, and any others reaches a notification channel of
/// the organisation; none if that depends on the others, or is not known. Asked for each rule whenever its
/// evaluation is read, on the thread of the scheduler, so it must not block.
pub type Reach =
    Arc<dyn Fn(&OrganisationId, &BTreeMap<String, String>) -> Option<bool> + Send + Sync>;
