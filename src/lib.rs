//! `mimir-tenant-proxy`: a streaming, multi-tenant, authenticating reverse proxy in front of
//! Grafana Mimir.
//!
//! A guided tour, in the order in which a request meets the modules:
//!
//! 1. [`listener`] accepts a connection and gives it to a worker thread.
//! 2. [`pipeline`] is the one function that every request goes through, top to bottom.
//! 3. [`edge`] names the request and parts it from its body; [`record`] keeps what becomes of it.
//! 4. [`route`] says *what* is asked: a pure table on method and raw path.
//! 5. [`authn`] says *who* asks: credential to principal.
//! 6. [`authz`] says whether they *may*: principal and selector to grant.
//! 7. [`limits`] says whether they may *now*: grant to permit, held until the answer has ended.
//!    [`request_body`] counts what the body brings.
//! 8. [`forward`] takes the permit and streams both bodies to and from Mimir; [`admin`] answers what
//!    is asked of ourselves.
//! 9. [`rejection`] turns whatever went wrong, which has a [`reason`], into an answer.
//!
//! [`console`] is the page that shows [`admin`] to people.
//!
//! [`key_management`] creates, lists and revokes device keys, for [`admin`] and [`command`].
//!
//! Beside the requests [`rules`] brings alert rules from the database to Mimir's ruler, by the same
//! mapping of organisations to tenants. Of all copies only the leader does ([`election`]). [`channels`]
//! brings notification channels and routes to Mimir's Alertmanager in the same way.
//!
//! The other way, [`alert_events`] brings alerts that fire from Mimir's ruler to the database.
//!
//! Below them: [`directory`] (what the database says, remembered), [`store`] (the database, and the
//! only SQL), [`mimir`] (what is known of its interface, and the only writer of the tenant header),
//! [`net`] (sockets), [`tls`], [`tenancy`] (identities), [`telemetry`], [`labels`] (of its metrics), [`trace`] (spans) and [`otlp`], which
//! sends them, [`refusals`] (the most recent ones), [`clock`], [`deadline`]. Around them: [`config`],
//! [`internal`] (the private port), [`lifecycle`], [`app`], which puts all together, [`command`],
//! what can be done beside serving, and [`mimir_profile`], what to look for in Mimir's configuration.
//! [`heap`] keeps memory that was freed. [`version`] says which build this is, `spelling` which name a
//! mistyped one was meant to be, and `unified_diff` what changes between two texts.

#![cfg_attr(
    any(test, feature = "fuzzing"),
    expect(clippy::missing_panics_doc, reason = "a fuzz target panics where it finds something")
)]

pub mod admin;
pub mod admin_executor;
pub mod alert_events;
pub mod app;
pub mod authn;
pub mod authz;
mod backoff;
mod batch_size;
mod causes;
pub mod channels;
mod client_network;
pub mod clock;
pub mod command;
pub mod config;
mod console;
pub mod deadline;
pub mod directory;
mod due;
pub mod edge;
pub mod election;
pub mod forward;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod heap;
mod http_client;
pub mod internal;
pub mod key_management;
pub mod labels;
pub mod lifecycle;
pub mod limits;
pub mod listener;
pub mod mimir;
pub mod mimir_profile;
pub mod net;
pub mod otlp;
mod per_second;
pub mod pipeline;
mod prom_duration;
pub mod reason;
pub mod record;
#[cfg(test)]
mod reference;
pub mod refusals;
pub mod rejection;
pub mod request_body;
pub mod route;
pub mod rules;
mod spelling;
pub mod store;
pub mod telemetry;
pub mod tenancy;
pub mod tls;
pub mod trace;
mod unified_diff;
pub mod version;
mod yaml;
