//! The table of routes: every path of Mimir that a user may see, and our own.
//!
//! Left out on purpose: everything of Mimir's operators (`/config`, `/metrics`, `/*/ring`, …),
//! rule and Alertmanager configuration writes, and `DELETE` on `series`.

use http::Method;

use super::{Access, BodyPolicy, Route, Surface};
use crate::tenancy::Scope;

const GET: &[Method] = &[Method::GET];
const POST: &[Method] = &[Method::POST];
const DELETE: &[Method] = &[Method::DELETE];
const GET_OR_POST: &[Method] = &[Method::GET, Method::POST];

const fn route(
    methods: &'static [Method],
    path: &'static str,
    surface: Surface,
    scope: Scope,
    body: BodyPolicy,
) -> Route {
    Route { methods, path, surface, access: Access::Tenant(scope), body }
}

const fn push(path: &'static str) -> Route {
    route(POST, path, Surface::Push, Scope::MetricsWrite, BodyPolicy::Push)
}

const fn influx(path: &'static str) -> Route {
    route(POST, path, Surface::Push, Scope::MetricsWrite, BodyPolicy::Influx)
}

const fn otlp(path: &'static str) -> Route {
    route(POST, path, Surface::Otlp, Scope::MetricsWrite, BodyPolicy::Otlp)
}

/// A read with all its parameters in the query string.
const fn get(path: &'static str) -> Route {
    route(GET, path, Surface::Query, Scope::MetricsRead, BodyPolicy::Empty)
}

/// A read whose parameters may stand in the body, as Grafana sends long queries.
const fn query(path: &'static str) -> Route {
    route(GET_OR_POST, path, Surface::Query, Scope::MetricsRead, BodyPolicy::Form)
}

const fn remote_read(path: &'static str) -> Route {
    route(POST, path, Surface::Query, Scope::MetricsRead, BodyPolicy::RemoteRead)
}

const fn rules(path: &'static str) -> Route {
    route(GET, path, Surface::Rules, Scope::RulesRead, BodyPolicy::Empty)
}

/// A read of ours.
const fn admin_get(path: &'static str, access: Access) -> Route {
    Route { methods: GET, path, surface: Surface::Admin, access, body: BodyPolicy::Empty }
}

/// A write of ours.
const fn admin_post(path: &'static str, access: Access) -> Route {
    Route { methods: POST, path, surface: Surface::Admin, access, body: BodyPolicy::Admin }
}

const fn admin_delete(path: &'static str, access: Access) -> Route {
    Route { methods: DELETE, path, surface: Surface::Admin, access, body: BodyPolicy::Empty }
}

/// A trigger from the database's own webhooks.
const fn webhook(path: &'static str) -> Route {
    let (surface, access, body) = (Surface::Admin, Access::Webhook, BodyPolicy::Webhook);
    Route { methods: POST, path, surface, access, body }
}

/// Paths of ours, for the table and for the handlers.
pub mod admin {
    /// Who the caller is.
    pub const WHOAMI: &str = "/admin/whoami";
    /// The keys of an organisation's devices.
    pub const DEVICE_KEYS: &str = "/admin/organisations/{organisation}/device-keys";
    /// One of them.
    pub const DEVICE_KEY: &str = "/admin/organisations/{organisation}/device-keys/{id}";
    /// Tokens revoked.
    pub const REVOCATIONS: &str = "/admin/revocations";
    /// One of them.
    pub const REVOCATION: &str = "/admin/revocations/{id}";
    /// An organisation's alert rules, and what has become of them.
    pub const RULES: &str = "/admin/organisations/{organisation}/rules";
    /// What a sync of them would change.
    pub const RULES_DIFF: &str = "/admin/organisations/{organisation}/rules/diff";
    /// Have them synced now.
    pub const RULES_SYNC: &str = "/admin/organisations/{organisation}/rules/sync";
    /// How far that is.
    pub const RULES_SYNC_PROGRESS: &str = "/admin/organisations/{organisation}/rules/sync/{id}";
    /// Let a deletion pass that waits.
    pub const RULES_CONFIRM: &str = "/admin/organisations/{organisation}/rules/guard/confirm";
    /// How it stands with the rules of all organisations.
    pub const ALL_RULES_STATUS: &str = "/admin/rules/status";
    /// Have them all synced now.
    pub const ALL_RULES_SYNC: &str = "/admin/rules/sync";
    /// How far that is.
    pub const ALL_RULES_SYNC_PROGRESS: &str = "/admin/rules/sync/{id}";
    /// Let a deletion in many organisations pass that waits.
    pub const ALL_RULES_CONFIRM: &str = "/admin/rules/guard/confirm";
    /// Supabase tells of a change.
    pub const ALERT_RULE_WEBHOOK: &str = "/admin/webhooks/alert-rule";
    /// This interface, as `OpenAPI`.
    pub const OPENAPI: &str = "/admin/openapi.json";
}

/// Every route, the most frequent first.
pub static ROUTES: &[Route] = &[
    push("/api/v1/push"),
    otlp("/otlp/v1/metrics"),
    query("/prometheus/api/v1/query_range"),
    query("/prometheus/api/v1/query"),
    query("/prometheus/api/v1/labels"),
    query("/prometheus/api/v1/series"),
    get("/prometheus/api/v1/label/{label}/values"),
    get("/prometheus/api/v1/metadata"),
    query("/prometheus/api/v1/query_exemplars"),
    query("/prometheus/api/v1/format_query"),
    query("/prometheus/api/v1/cardinality/label_names"),
    query("/prometheus/api/v1/cardinality/label_values"),
    query("/prometheus/api/v1/cardinality/active_series"),
    query("/prometheus/api/v1/cardinality/active_native_histogram_metrics"),
    get("/prometheus/api/v1/status/buildinfo"),
    // What Grafana asks of a data source's address without the prefix. Mimir's answers name its
    // version; configuration and flags are always empty.
    get("/api/v1/status/buildinfo"),
    get("/api/v1/status/config"),
    get("/api/v1/status/flags"),
    remote_read("/prometheus/api/v1/read"),
    rules("/prometheus/api/v1/rules"),
    rules("/prometheus/api/v1/alerts"),
    rules("/prometheus/config/v1/rules"),
    rules("/prometheus/config/v1/rules/{name}"),
    rules("/prometheus/config/v1/rules/{name}/{name}"),
    get("/api/v1/user_limits"),
    get("/api/v1/user_stats"),
    influx("/api/v1/push/influx/write"),
    admin_get(admin::WHOAMI, Access::AnyPrincipal),
    admin_get(admin::DEVICE_KEYS, Access::Organisation),
    admin_post(admin::DEVICE_KEYS, Access::Organisation),
    admin_get(admin::DEVICE_KEY, Access::Organisation),
    admin_delete(admin::DEVICE_KEY, Access::Organisation),
    admin_get(admin::REVOCATIONS, Access::Everything),
    admin_post(admin::REVOCATIONS, Access::Everything),
    admin_delete(admin::REVOCATION, Access::Everything),
    admin_get(admin::RULES, Access::Organisation),
    admin_get(admin::RULES_DIFF, Access::Organisation),
    admin_post(admin::RULES_SYNC, Access::Organisation),
    admin_get(admin::RULES_SYNC_PROGRESS, Access::Organisation),
    admin_post(admin::RULES_CONFIRM, Access::Organisation),
    admin_get(admin::ALL_RULES_STATUS, Access::Everything),
    admin_post(admin::ALL_RULES_SYNC, Access::Everything),
    admin_get(admin::ALL_RULES_SYNC_PROGRESS, Access::Everything),
    admin_post(admin::ALL_RULES_CONFIRM, Access::Everything),
    webhook(admin::ALERT_RULE_WEBHOOK),
    admin_get(admin::OPENAPI, Access::AnyPrincipal),
];
