//! Alert rules: rows of `alert_rule` in Postgres become rule groups in Mimir's ruler.
//!
//! # The shape of it
//!
//! Rules are *desired* in Postgres and *observed* in Mimir, and neither side can be trusted to tell us
//! about every change. So this is a reconciler and not a pipeline of events: again and again it reads
//! both sides of one tenant and writes the difference. Nothing is derived from what was done before. A
//! lost notification, a crash between two writes and a group that somebody deleted by hand are all
//! repaired by the same code that handles the ordinary change.
//!
//! The dependencies of the folders go downwards only:
//!
//! ```text
//! schedule    all tenants: the scheduler, the work queue, the full resync, triggers
//!    |
//! reconcile   one tenant: read, plan, ask the guard, write, report; and the preview of that
//!    |
//! health      whether Mimir evaluates what it has: reading, judging
//!    |
//! plan        pure: desired groups, the diff, which rules would be deleted, the deletion guard
//!    |
//! status      statuses and outcomes, and the writer that brings them to the database
//!    |
//! spec        pure: a row becomes a rule, or is refused with reasons for its author
//! ```
//!
//! # Triggers
//!
//! Notifications of Postgres, webhooks, requested syncs and the timer are all *triggers*
//! ([`schedule::triggers`]). A trigger names organisations and carries nothing else, in particular no
//! rows: what a trigger says may be late, forged, or lost, and what it names is read from the database
//! anyway. So a false trigger costs a reconcile that changes nothing, and a lost one costs time, at most
//! until the next full resync. Anybody may name organisations that do not exist; those are looked up in
//! batches beside everything else.
//!
//! # Reconcile
//!
//! [`reconcile`] is the one function that changes a tenant. It takes no input but the organisation, it is
//! idempotent, and it may end between any two writes. If rows and listing are the ones that agreed the
//! last time, it ends at once; nearly all reconciles do.
//!
//! Only Mimir knows whether a rule is valid, and there is no dry run in its API. So writes are
//! optimistic: a group is written, and if Mimir refuses it and names a rule, that rule goes into
//! quarantine ([`reconcile::quarantine`]) and the rest of the group is stored. The alternative, to ask
//! about each expression first, costs ten requests for each group of a cold start.
//!
//! # Full resync
//!
//! A new leader begins with a *full resync* ([`schedule::full_resync`]), and one follows every
//! `reconcile_interval`: every tenant is reconciled, in two halves. In the first half nothing is deleted.
//! Only when every organisation is accounted for, what would be deleted is judged as a whole, and the
//! second half deletes it. The sequence is a pure state machine with property tests, because it is what
//! stands between a database that lost its rows and the loss of everybody's alerts.
//!
//! # Leader, lease, fencing
//!
//! Mimir's ruler has no transactions and no fencing tokens; the last write wins. So one copy of the proxy
//! writes at a time: the one that holds an advisory lock in Postgres ([`crate::election::leader`]). A leader that
//! is frozen keeps its connection, but not its session: Postgres ends a silent session after 4 seconds,
//! and the lock with it. The leader's own lease ([`crate::election::lease`]) is shorter, 2.5 seconds from the
//! start of the last answered beat by its own clock, so it stops writing before another copy can start.
//! What remains is a write that is on the wire when the lease ends; the organisations concerned are
//! announced again, and the next leader reconciles them. See decision 11 for the alternatives.
//!
//! # The deletion guard
//!
//! A deleted row and a row that could not be read look alike. Deleting a rule whose row was lost silences
//! an alert, and nobody notices; keeping a rule for too long is noticed and harmless. So deletions are
//! judged by asymmetric rules ([`plan::guard`], decision 12): a row that was deleted on purpose leaves a
//! *tombstone*, in the same transaction, and its rule goes at once. A rule in Mimir that has neither a row
//! nor a tombstone is *missing*, and a few of those are enough to hold the deletion until an administrator
//! confirms it. Very large deletions are held in any case. A held deletion has an ID, which is a digest
//! of the rules that it would delete: a confirmation is for these rules and no others.
//!
//! # Statuses
//!
//! Authors read in `alert_rule_status` what became of a rule. `stored`, `live` and `failing` mean that Mimir
//! has it as the row says, and are derived from what Mimir has, not from what was planned
//! ([`reconcile::report`]). Which of the three it is, the evaluation decides that Mimir reports ([`health`]):
//! `live` means that this version was seen evaluated, and what cannot be read is no evidence of a failure.
//! Statuses also remember the hashes of the versions that Mimir has: Mimir's rules have no IDs, so this
//! is how a rule is recognised after its row was edited ([`plan::vanishing`]).
//!
//! # What protects a tenant's alerts
//!
//! | rule | why | where |
//! |---|---|---|
//! | Only our namespace is touched, in the tenant that the organisation's ID gives. | Other tools manage groups, too. | The client has one namespace (`mimir::ruler`); the tenant comes from `Reconciler::tenant_of`. |
//! | A failed or partial reading deletes nothing. | It looks like a deletion of everything. | Errors end a reconcile before the plan; a listing is parsed whole or not at all (`mimir::ruler`); `full_resync` accounts for each organisation. |
//! | A missing row is not a deletion. | Restored backups, truncated tables, wrong databases. | `plan::guard`, fed by `plan::vanishing`; checked before every plan by `Reconcile::judge`. |
//! | Nothing is deleted in a full resync before everything was read. | A fault may take a little from each tenant. | `schedule::full_resync`; `Mode::Deferring`. |
//! | Deletions between full resyncs are counted together. | The same, but slowly. | `plan::overall::DeletionWindow`. |
//! | A held deletion holds every write of its tenant. | Half a plan is no plan: a move could lose its rule. | `Reconcile::run`: the guard comes before `apply`. |
//! | A confirmation permits exactly the rules that were shown. | More rules may be lost meanwhile. | `Vanishing::is_within`. |
//! | A rule that stays is always in some group. | A gap resets `for`, and may resolve an alert. | `reconcile::apply`. |
//! | An invalid rule does not block the others of its group. | One author's mistake is not another's outage. | `reconcile::quarantine`. |
//! | A rule that Mimir cannot parse any more does not stop the others. | Mimir loads all rules of a tenant or none. | `health::judge`: a group that is not loaded is written again, and the ruler names the rule. |
//! | What the rulers do not answer makes no rule `failing`. | It says nothing about any rule. | `health::judge::unread`. |
//! | Only the leader writes, and only within its lease. | Two writers undo each other. | `Lease::during`, in `reconcile::writer`. |
//! | After a change of the leader nothing is deleted by the old one's judgement. | What it read is out of date. | A new `FullResync`; answers carry a `ResyncId`. |
//! | An organisation that is gone keeps its rules for a grace period. | It may come back. | `Scheduler::find_gone`; `schedule::job::purge` looks again. |
//! | One tenant's load does not delay the others. | A mass edit is legitimate. | Rests and shares in `schedule::queue` and `Scheduler::start_jobs`; `AdminExecutor`. |

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub(crate) mod health;
pub mod plan;
mod reconcile;
mod schedule;
pub mod spec;
mod status;

pub use health::Reach;
pub use plan::vanishing::{confirmation_text, name_some};
pub use reconcile::expressions::fault_of as expression_fault;
pub use reconcile::preview::{GroupAction, GroupChange, NotEvaluated, Preview, PreviewError};
pub use reconcile::reconciler::Reconciler;
pub use schedule::scheduler::RuleSync;
pub use schedule::triggers::Triggers;
pub use spec::alert_rule::{AlertRule, Parsed, ROW_ANNOTATION, RuleDefaults, parse, row_of};
pub use spec::promql::warn as promql_warning;
pub use spec::rows::excess_reason;
pub(crate) use status::outcome::{DATABASE_UNAVAILABLE, MIMIR_UNAVAILABLE, NO_TENANT};
pub use status::outcome::{HeldDeletion, OutcomeKind, SyncOutcome};
