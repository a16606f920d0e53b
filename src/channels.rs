//! Notification channels and routes: from rows in Postgres to Mimir's Alertmanager.
//!
//! Mimir keeps one document for each tenant, its Alertmanager configuration, and knows nothing smaller.
//! So all rows of an organisation become one document, which is written as a whole.
//!
//! The pure half is here: [`spec`] reads rows, strictly, with reasons in their authors' words;
//! [`document`] writes what is right of them; [`reach`] says whether an alert would reach anybody by it.
//! What they promise:
//!
//! - **A broken row harms no other.** It is left out with its reason. A route whose channel is left out is
//!   left out, too, so that its alerts fall to later routes and to the default channels.
//! - **Values of rows are data.** Alertmanager expands most texts of its configuration as Go templates,
//!   with functions that read everything in an alert. A value that would be a template is refused, and
//!   every value is written in quotes with escapes.
//! - **Secrets are not shown.** They are a type that has no text but the document's own; what is shown of
//!   a document has `<secret>` in their places.
//! - **Only the public internet is a target**, unless the operator allows more ([`spec::targets`]).
//! - **The document is a function of the rows** and of the operator's configuration: the same rows give the
//!   same bytes, so that whether something is to be written is a comparison.

pub mod document;
mod guard;
mod outcome;
pub mod reach;
mod reaches;
mod reconcile;
mod reconciler;
mod schedule;
mod send_test;
mod sift;
pub mod spec;
mod world;

#[cfg(test)]
mod tests;

pub use reaches::Reaches;
pub use reconcile::States;
pub use reconciler::{ChannelAdmin, ChannelError, ChannelPreview, ChannelReconciler};
pub use schedule::ChannelSync;
pub use send_test::{TestOutcome, TestReport};

use crate::rules::OutcomeKind;
use crate::telemetry::{ChannelMetrics, RuleMetricNames};

/// The metrics of this module, registered.
pub fn register_metrics() -> ChannelMetrics {
    let outcomes = OutcomeKind::ALL.into_iter().filter(|kind| *kind != OutcomeKind::Deferred);
    let names = RuleMetricNames {
        outcomes: outcomes.map(OutcomeKind::name).collect(),
        states: spec::State::ALL.map(spec::State::name).to_vec(),
    };
    ChannelMetrics::register(&names, &TestOutcome::ALL.map(TestOutcome::name))
}
