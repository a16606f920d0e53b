//! The table of routes: every path of Mimir that a user may see. Our own are in [`super::endpoint`].
//!
//! Left out on purpose: everything of Mimir's operators (`/config`, `/metrics`, `/*/ring`, …), writes of
//! rules, the Alertmanager's configuration (it has secrets) and its page, alerts posted by callers
//! (which would be forged), and `DELETE` on `series`.

use http::Method;

use super::console::CONSOLE_ROUTES;
use super::endpoint::ENDPOINT_ROUTES;
use super::{Access, BodyPolicy, Priority, Route, Surface};
use crate::tenancy::Scope;

const GET: &[Method] = &[Method::GET];
const POST: &[Method] = &[Method::POST];
const DELETE: &[Method] = &[Method::DELETE];
const GET_OR_HEAD: &[Method] = &[Method::GET, Method::HEAD];
const GET_OR_POST: &[Method] = &[Method::GET, Method::POST];

const fn route(
    methods: &'static [Method],
    path: &'static str,
    surface: Surface,
    scope: Scope,
    body: BodyPolicy,
) -> Route {
    let priority = match surface {
        Surface::Push | Surface::Otlp | Surface::Admin => Priority::Write,
        Surface::Query | Surface::Rules | Surface::Alerts => Priority::Read,
    };
    Route { methods, path, surface, access: Access::Tenant(scope), body, priority }
}

/// A read that goes through all of a tenant's series.
const fn list(route: Route) -> Route {
    Route { priority: Priority::List, ..route }
}

/// A write on a surface of reads.
const fn write(route: Route) -> Route {
    Route { priority: Priority::Write, ..route }
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

/// A read of the Alertmanager, with all parameters in the query string.
const fn alerts(path: &'static str) -> Route {
    route(GET, path, Surface::Alerts, Scope::AlertsRead, BodyPolicy::Empty)
}

/// Creates or changes a silence.
const fn post_silence(path: &'static str) -> Route {
    write(route(POST, path, Surface::Alerts, Scope::AlertsWrite, BodyPolicy::Silence))
}

/// Expires a silence.
const fn expire_silence(path: &'static str) -> Route {
    write(route(DELETE, path, Surface::Alerts, Scope::AlertsWrite, BodyPolicy::Empty))
}

const fn own(
    methods: &'static [Method],
    path: &'static str,
    access: Access,
    body: BodyPolicy,
) -> Route {
    Route { methods, path, surface: Surface::Admin, access, body, priority: Priority::Write }
}

/// A read of our own.
pub(super) const fn admin_get(path: &'static str, access: Access) -> Route {
    own(GET, path, access, BodyPolicy::Empty)
}

/// A write of our own.
pub(super) const fn admin_post(path: &'static str, access: Access) -> Route {
    own(POST, path, access, BodyPolicy::Admin)
}

/// The same without a body: what it does is in the path and the query string.
pub(super) const fn admin_post_empty(path: &'static str, access: Access) -> Route {
    own(POST, path, access, BodyPolicy::Empty)
}

pub(super) const fn admin_delete(path: &'static str, access: Access) -> Route {
    own(DELETE, path, access, BodyPolicy::Empty)
}

/// A file of the console.
pub(super) const fn console(path: &'static str, access: Access) -> Route {
    own(GET_OR_HEAD, path, access, BodyPolicy::Empty)
}

/// A trigger from the database's own webhooks.
pub(super) const fn webhook(path: &'static str, access: Access) -> Route {
    own(POST, path, access, BodyPolicy::Webhook)
}

/// How many routes there are.
const ALL: usize = MIMIR_ROUTES.len() + ENDPOINT_ROUTES.len() + CONSOLE_ROUTES.len();

/// Every route: Mimir's, the most frequent first, then those of [`endpoint`](super::endpoint), then the
/// files of the [`console`](super::console).
pub static ROUTES: [Route; ALL] = all_routes();

const fn all_routes() -> [Route; ALL] {
    let mut all = [MIMIR_ROUTES[0]; ALL];
    let lists = [MIMIR_ROUTES, ENDPOINT_ROUTES, CONSOLE_ROUTES];
    let (mut at, mut list) = (0, 0);
    while list < lists.len() {
        let mut place = 0;
        while place < lists[list].len() {
            all[at] = lists[list][place];
            (at, place) = (at + 1, place + 1);
        }
        list += 1;
    }
    all
}

/// The answer contains the tenant's Alertmanager configuration and is rewritten.
pub(super) const ALERTMANAGER_STATUS: &str = "/alertmanager/api/v2/status";

const MIMIR_ROUTES: &[Route] = &[
    push("/api/v1/push"),
    otlp("/otlp/v1/metrics"),
    query("/prometheus/api/v1/query_range"),
    query("/prometheus/api/v1/query"),
    list(query("/prometheus/api/v1/labels")),
    list(query("/prometheus/api/v1/series")),
    list(get("/prometheus/api/v1/label/{label}/values")),
    list(get("/prometheus/api/v1/metadata")),
    query("/prometheus/api/v1/query_exemplars"),
    query("/prometheus/api/v1/format_query"),
    list(query("/prometheus/api/v1/cardinality/label_names")),
    list(query("/prometheus/api/v1/cardinality/label_values")),
    list(query("/prometheus/api/v1/cardinality/active_series")),
    list(query("/prometheus/api/v1/cardinality/active_native_histogram_metrics")),
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
    list(get("/api/v1/user_stats")),
    influx("/api/v1/push/influx/write"),
    alerts("/alertmanager/api/v2/alerts"),
    alerts("/alertmanager/api/v2/alerts/groups"),
    alerts("/alertmanager/api/v2/silences"),
    post_silence("/alertmanager/api/v2/silences"),
    alerts("/alertmanager/api/v2/silence/{silence}"),
    expire_silence("/alertmanager/api/v2/silence/{silence}"),
    alerts("/alertmanager/api/v2/receivers"),
    alerts(ALERTMANAGER_STATUS),
];
