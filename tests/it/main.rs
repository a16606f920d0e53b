//! Integration tests on real parts. The list of modules is the table of contents.

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

mod access;
mod administrators;
mod alert_events;
mod alerts;
mod attacks;
mod callers;
mod channels;
mod check_config;
mod console;
mod database;
mod database_login;
mod deadlines;
mod deployment;
mod device_configurations;
mod device_limits;
mod devices;
mod documents;
mod effects;
mod expressions;
mod hostile;
mod isolation;
mod keys;
mod limits;
mod lingering;
mod load_scenarios;
mod members;
mod memory;
mod migrations;
mod monitoring;
mod notification_documents;
mod notification_rows;
mod notification_tables;
mod notifications;
mod operations;
mod outage;
mod own_tables;
mod pages;
mod poolers;
mod profiles;
mod proxy_protocol;
mod reads;
mod refusals;
mod reload;
mod restart;
mod resting;
mod revocations;
mod rows;
mod ruler_client;
mod ruler_client_faults;
mod ruler_client_refusals;
mod rules;
mod scarcity;
mod senders;
mod sessions;
mod shedding;
mod slow_bodies;
mod streaming;
mod structure;
mod support;
mod tls;
mod tokens;
mod traces;
mod trigger_rights;
mod upstreams;
mod upstreams_discovery;
mod upstreams_health;
mod upstreams_outage;
mod upstreams_retry;
mod upstreams_stale;
mod upstreams_tls;
