//! Alert rules: rows of `alert_rule` become groups in Mimir's ruler, tenant by tenant.
//!
//! Everything turns on the *activation* of a tenant ([`activation`]): its rows are read, Mimir is
//! asked what it has, and the difference is applied. It takes no input. A notification, a webhook,
//! an administrator's call and the clock are all only *hints* that say whom to look at; a lost hint
//! costs time, a false one a look.
//!
//! The way of a rule:
//!
//! 1. [`alert_rule`]: a row is parsed into an [`AlertRule`], or refused with reasons for its author.
//! 2. [`mod@desired`] (pure): rules become groups, within the tenant's limits, such that adding one moves
//!    as few others as possible.
//! 3. [`mod@diff`] (pure): groups that should be against groups that are, by meaning and not by text,
//!    and the steps that Mimir will take in their order.
//! 4. [`guard`] (pure): does more vanish than anybody can have meant?
//! 5. [`activation`] applies the steps. Mimir alone says what is valid; a rule that it names goes
//!    into quarantine, and the rest goes live.
//! 6. [`outcome`] and [`statuses`] (pure) say what has become of each rule, [`ledger`] writes it down.
//!
//! One copy of the proxy at a time does this: [`leader`] holds a lock in Postgres, [`lease`] is what
//! every write asks for. Its [`term`] decides whom to look at and when, with a [`survey`] of
//! everything now and then.
//!
//! Invariants: only the configured namespace is touched, in a tenant that the organisation's own name
//! gives; a reading that fails, or that makes too much vanish, deletes nothing; tenants do not wait
//! for one another.

mod activation;
pub mod alert_rule;
pub mod desired;
pub mod desk;
pub mod diff;
pub mod engine;
mod expressions;
pub mod guard;
pub mod hints;
pub mod leader;
pub mod lease;
mod ledger;
mod look;
mod memory;
mod outcome;
mod overall;
pub mod plan;
pub mod preview;
pub mod promql;
pub mod refusal;
mod requests;
mod statuses;
mod strangers;
mod survey;
pub mod template;
mod tenants;
mod term;
mod trouble;
mod vanishing;
mod world;
mod writer;

pub use alert_rule::{AlertRule, Parsed, RuleDefaults, parse};
pub use desired::{Desired, DesiredGroup, desired};
pub use desk::{Busy, Desk};
pub use diff::{Diff, Step, Write, diff, differing_exprs, steps};
pub use engine::Engine;
pub use expressions::fault_of as expression_fault;
pub use guard::{Removal, Verdict, judge, judge_overall};
pub use hints::Hints;
pub use leader::lead_forever;
pub use plan::{ParsedRows, Plan, parse_rows};
pub use preview::{GroupAction, GroupChange, Preview, PreviewError};
pub use promql::warn as promql_warning;
pub use refusal::Refusals;
pub use vanishing::{name_some, stale_in_words};

use aws_lc_rs::digest::{SHA256, digest};

/// The labels of metrics.
pub fn metric_names() -> crate::telemetry::RuleMetricNames {
    crate::telemetry::RuleMetricNames {
        outcomes: outcome::Outcome::LABELS.to_vec(),
        states: crate::store::RuleState::ALL.map(crate::store::RuleState::name).to_vec(),
    }
}

/// A short name for a text, the same everywhere: 64 bits of its SHA-256 in hexadecimal.
fn digest_text(text: &str) -> String {
    use std::fmt::Write as _;
    let sum = digest(&SHA256, text.as_bytes());
    sum.as_ref().iter().take(8).fold(String::new(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}
