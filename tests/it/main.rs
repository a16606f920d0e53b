//! Integration tests on real parts. This list is the table of contents.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::float_cmp,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::large_stack_arrays,
    reason = "a test that fails should fail where it stands, and it measures real time"
)]

/// Every route against every kind of caller.
mod access;
/// The access matrix of people, devices and services.
mod callers;
/// Notification channels and routes: from a row to a notification.
mod channels;
/// `check-config --connect`: a dry start.
mod check_config;
/// The database as it is found: poolers, TLS, rights, queries.
mod database;
/// Slow clients, idle connections, the end of the process.
mod deadlines;
/// What is deployed: the image, the samples for Fly.io, Mimir's profiles.
mod deployment;
/// Configurations of senders in the documentation, by the senders themselves.
mod device_configurations;
/// Devices and their keys.
mod devices;
/// What the documentation and the samples say can be read and leads somewhere.
mod documents;
/// How soon a change in the database takes effect, under load.
mod effects;
/// Expressions that would burn Mimir's cores, by every way.
mod expressions;
/// The way a request is refused when its form is hostile, and what Mimir would have done.
mod hostile;
/// Two organisations never mix.
mod isolation;
/// The issuer's keys: rotation, outages, floods.
mod keys;
/// What one organisation may have at once.
mod limits;
/// People and their organisations.
mod members;
/// What requests that wait, and those of strangers, keep in memory.
mod memory;
/// `migrate`: tables made, adopted or refused.
mod migrations;
/// Metrics as alerts read them, and the alerts that we ship.
mod monitoring;
/// Documents of channels and routes, as both Mimirs take them.
mod notification_documents;
/// Channels and routes as they are read, and statuses as they are written.
mod notification_rows;
/// The tables of channels and routes behind Supabase's API.
mod notification_tables;
/// Commands, signals, logs, metrics.
mod operations;
/// The database goes away and comes back.
mod outage;
/// Tables of the operator's own, by the text of the documentation.
mod own_tables;
/// Web pages of other origins.
mod pages;
/// Traps in Mimir's own configuration.
mod profiles;
/// Every read of Mimir's, by GET and POST.
mod reads;
/// Tokens revoked before they expire.
mod revocations;
/// Rows that are wrong.
mod rows;
/// The client of Mimir's ruler, on a real one.
mod ruler_client;
/// What a ruler that is not well makes of the client.
mod ruler_client_faults;
/// Everything that Mimir's ruler refuses, in the words that its client makes of it.
mod ruler_client_refusals;
/// Alert rules, from row to firing alert.
mod rules;
/// Stock senders write, and what they wrote is read back.
mod senders;
/// Bodies that stall, come slowly, or have no bytes.
mod slow_bodies;
/// Both bodies: backpressure, cancellation, failures, memory.
mod streaming;
/// The rules of the house that no compiler holds: who imports whom.
mod structure;
/// Fixtures.
mod support;
/// Tokens of every algorithm and shape.
mod tokens;
/// Instances: choice, failure, deadlines.
mod upstreams;
/// Instances found by names and in Consul.
mod upstreams_discovery;
/// Instances that fail: load moves away and comes back.
mod upstreams_health;
/// No instance is there, or none has room.
mod upstreams_outage;
/// Requests sent again, and those that are not.
mod upstreams_retry;
/// Kept connections that the other side has closed.
mod upstreams_stale;
