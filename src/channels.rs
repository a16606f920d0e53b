//! Notification channels and routes: rows in Postgres become one document for each tenant in Mimir's
//! Alertmanager.
//!
//! # The shape of it
//!
//! The engine is that of alert rules ([`crate::rules`]): triggers name organisations, a reconcile reads
//! both sides and writes the difference, a guard stands between a lost row and its loss, statuses say what
//! Mimir has. What is different follows from Mimir's interface. It keeps one document for each tenant, its
//! Alertmanager configuration, and knows nothing smaller. So all rows of an organisation become one
//! document, which is written as a whole, by one request.
//!
//! ```text
//! schedule        all organisations: triggers, the queue, the full resync; a task of the rules' leader
//!    |
//! reconcile       one organisation: read, ask the guard, write, sift out what Mimir refuses
//!    |
//! guard, sift     pure: what has to be confirmed; which channel or route is the refused one
//!    |
//! document, reach pure: the document's text; which alerts reach a channel
//!    |
//! spec            pure: a row becomes a channel or a route, or is refused with reasons for its author
//! ```
//!
//! Beside these: [`send_test`] tries one channel and finds out what became of it; [`reaches`] tells the
//! rules whether anybody would be notified, without their knowing of channels.
//!
//! # The document
//!
//! It is a function of the rows and of the operator's configuration: the same rows give the same bytes, so
//! that whether something is to be written is a comparison. Its first lines are comments, which Mimir
//! stores as they are: the first one says that the document is ours, the others name what is live in it.
//! So nothing has to be remembered: what there is to lose is read from Mimir itself.
//!
//! # Only Mimir knows what is valid
//!
//! The write is optimistic. Mimir refuses a document as a whole and does not say reliably whose fault it
//! is, and one author's mistake must not be another's outage. So parts are tried until it is known which
//! channels and routes are refused ([`sift`]); they are left out with Mimir's words as their reason. A
//! trial is stored nowhere (decision 29): what is live stays live, however long it takes. A route whose
//! channel is left out is left out, too, so that its alerts fall to later routes and to the default
//! channels.
//!
//! # Secrets
//!
//! A document holds webhook addresses, tokens and keys. They are types without a text but the document's
//! own; what is shown of a document has `<secret>` in their places. Mimir's refusals quote what they
//! refuse, and what stands between us and Mimir may repeat what it was sent: its words are searched for
//! parts of the tenant's secrets before they become a reason, a log line or an answer
//! (`mimir::alertmanager::Redactor`).
//!
//! # What protects an organisation's notifications
//!
//! | rule | why | where |
//! |---|---|---|
//! | A broken row harms no other. | One author's mistake is not another's outage. | `spec`; `sift` |
//! | Values of rows are data. | Alertmanager expands most texts as templates, with functions that read everything in an alert. | `spec` refuses templates; `document` quotes everything |
//! | Only the public internet is a target, unless the operator allows more. | A channel is a request from inside the network. | `spec::targets`; Mimir's firewall at dial time |
//! | A document that is not ours is never overwritten without a confirmation. | It was written on purpose. | `guard::foreign` |
//! | What has neither a row nor a tombstone is not deleted without a confirmation, and holds every write. | Restored backups, truncated tables, wrong databases. | `guard::missing` |
//! | A confirmation is for exactly what was shown. | More may be lost meanwhile. | The hold's ID is a digest of it |
//! | A failed or partial reading changes nothing. | It looks like a deletion of everything. | Errors end a reconcile before the guard; a document is read whole or not at all |
//! | An organisation that is gone keeps its document for a grace period, and then needs tombstones, too. | It may come back. | `schedule::job` |
//! | Where no organisation is listed, or many are gone, none is purged without a confirmation. | A query of the operator's own may return nothing, or a part, while all rows are there. | `guard::Purges` |
//! | Only the leader writes, and only within its lease. | Two writers undo each other. | `Lease::during`, in `world` |

pub mod document;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
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
pub use reconciler::{ChannelAdmin, ChannelError, ChannelPreview, ChannelReconciler};
pub use schedule::ChannelSync;
pub use send_test::TestReport;
pub use spec::States;
