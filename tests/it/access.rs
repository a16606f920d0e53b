//! Every route of the table against every kind of caller.

use std::collections::BTreeSet;

use harness::{
    Algorithm, Client, Issuer, Mimir, ORG_A, ORG_B, ProxyOptions, SigningKey, TokenBuilder,
    Upstream,
};
use http::Method;
use mimir_tenant_proxy::route::{Access, ROUTES, Route, Surface};
use serde_json::json;

const SECRET: &[u8] = b"a legacy secret of more than thirty-two bytes";

/// A kind of caller, its request, and the expected result: a status, or Mimir's response.
struct Caller {
    kind: &'static str,
    client: Client,
    refused: Option<u16>,
}

fn callers(base: &Client, issuer: &Issuer) -> Vec<Caller> {
    let stranger = SigningKey::generate("key-1", Algorithm::ES256);
    let unknown = SigningKey::generate("never-published", Algorithm::ES256);
    let legacy = SigningKey::secret(SECRET);
    let user = || issuer.token().organisation(&json!(ORG_A));
    let project_key = |role: &str| {
        TokenBuilder::new(&legacy, "supabase")
            .without("sub")
            .without("aud")
            .without("app_metadata")
            .claim("role", json!(role))
            .claim("ref", json!("abcdefghijklmnopqrst"))
    };
    let with = |kind, token: TokenBuilder, refused| Caller {
        kind,
        client: base.clone().bearer(&token.sign()),
        refused,
    };
    let plain = |kind, client, refused| Caller { kind, client, refused };
    vec![
        plain("nobody", base.clone(), Some(401)),
        plain("garbage", base.clone().bearer("garbage"), Some(401)),
        plain("basic", base.clone().header("authorization", "Basic YTpi"), Some(401)),
        plain("apikey only", base.clone().header("apikey", &user().sign()), Some(401)),
        plain("publishable key", base.clone().bearer("sb_publishable_abc"), Some(401)),
        plain("no signature", base.clone().bearer(&user().with_signature("")), Some(401)),
        plain(
            "alg none",
            base.clone().bearer(&user().header("alg", json!("none")).with_signature("")),
            Some(401),
        ),
        with("expired", user().expires_in(-60), Some(401)),
        with(
            "not yet valid",
            user().claim("nbf", json!(harness::samples::now_ms() / 1000 + 600)),
            Some(401),
        ),
        with("wrong key", user().signed_by(&stranger), Some(401)),
        with("unknown key", user().signed_by(&unknown), Some(401)),
        with("wrong audience", user().claim("aud", json!("other")), Some(401)),
        with(
            "wrong issuer",
            user().claim("iss", json!("https://elsewhere.example/auth/v1")),
            Some(401),
        ),
        with("anonymous user", user().claim("is_anonymous", json!(true)), Some(401)),
        with("oauth client", user().claim("client_id", json!("app")), Some(401)),
        with("anon key", project_key("anon"), Some(401)),
        with("service key", project_key("service_role"), Some(401)),
        with(
            "legacy secret, wrong",
            user().signed_by(&SigningKey::secret(b"another secret of more than 32 bytes!!")),
            Some(401),
        ),
        with("user of nothing", issuer.token(), Some(403)),
        with(
            "org in user_metadata",
            issuer.token().claim("user_metadata", json!({"org_id": ORG_A})),
            Some(403),
        ),
        plain(
            "B with A as selector",
            base.clone().bearer(&issuer.user_of(ORG_B)).header("x-scope-orgid", ORG_A),
            Some(403),
        ),
        plain(
            "A with nobody's organisation",
            base.clone().bearer(&user().sign()).header("x-scope-orgid", "nobody"),
            Some(403),
        ),
        plain(
            "A with A|B",
            base.clone()
                .bearer(&user().sign())
                .header("x-scope-orgid", &format!("{ORG_A}|{ORG_B}")),
            Some(400),
        ),
        with("user of A", user(), None),
        plain(
            "user of A with A as selector",
            base.clone().bearer(&user().sign()).header("x-scope-orgid", ORG_A),
            None,
        ),
        with("user of A, legacy secret", user().signed_by(&legacy), None),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MayUse {
    /// Every authenticated caller.
    EveryKnownCaller,
    /// Administrators of the organisation in the path, and services.
    Administrators,
    /// Services.
    Services,
    /// Callers with the webhooks' secret.
    Webhooks,
}

/// Every endpoint of `/admin` and who may use it. Written a second time on purpose: a mistake in
/// the route table must not be copied here.
const ENDPOINTS: &[(&str, &str, MayUse)] = {
    use MayUse::{Administrators, EveryKnownCaller, Services, Webhooks};
    &[
        ("GET", "/admin/whoami", EveryKnownCaller),
        ("GET", "/admin/openapi.json", EveryKnownCaller),
        ("GET", "/admin/organisations/{organisation}/device-keys", Administrators),
        ("POST", "/admin/organisations/{organisation}/device-keys", Administrators),
        ("GET", "/admin/organisations/{organisation}/device-keys/{id}", Administrators),
        ("DELETE", "/admin/organisations/{organisation}/device-keys/{id}", Administrators),
        ("GET", "/admin/organisations/{organisation}/rules", Administrators),
        ("GET", "/admin/organisations/{organisation}/rules/diff", Administrators),
        ("POST", "/admin/organisations/{organisation}/rules/sync", Administrators),
        ("GET", "/admin/organisations/{organisation}/rules/sync/{id}", Administrators),
        ("POST", "/admin/organisations/{organisation}/rules/guard/confirm", Administrators),
        ("GET", "/admin/organisations/{organisation}/channels", Administrators),
        ("GET", "/admin/organisations/{organisation}/channels/diff", Administrators),
        ("POST", "/admin/organisations/{organisation}/channels/sync", Administrators),
        ("POST", "/admin/organisations/{organisation}/channels/{id}/test", Administrators),
        ("POST", "/admin/organisations/{organisation}/channels/guard/confirm", Administrators),
        ("GET", "/admin/organisations/{organisation}/members", Administrators),
        ("GET", "/admin/organisations/{organisation}/limits", Administrators),
        ("GET", "/admin/revocations", Services),
        ("POST", "/admin/revocations", Services),
        ("DELETE", "/admin/revocations/{id}", Services),
        ("GET", "/admin/rules/status", Services),
        ("POST", "/admin/rules/sync", Services),
        ("GET", "/admin/rules/sync/{id}", Services),
        ("POST", "/admin/rules/guard/confirm", Services),
        ("GET", "/admin/channels/status", Services),
        ("GET", "/admin/refusals", Services),
        ("GET", "/admin/organisations", Services),
        ("GET", "/admin/status", Services),
        ("GET", "/admin/upstreams", Services),
        ("GET", "/admin/keys", Services),
        ("GET", "/admin/limits", Services),
        ("GET", "/admin/config", Services),
        ("POST", "/admin/webhooks/alert-rule", Webhooks),
    ]
};

/// The files of the console, which everybody gets: they hold no data. Also written a second time.
pub(crate) const CONSOLE: &[&str] = &[
    "/admin/console",
    "/admin/console/console.css",
    "/admin/console/main.js",
    "/admin/console/session.js",
    "/admin/console/place.js",
    "/admin/console/dom.js",
    "/admin/console/table.js",
    "/admin/console/overview.js",
    "/admin/console/organisations.js",
    "/admin/console/rules.js",
    "/admin/console/devices.js",
    "/admin/console/channels.js",
    "/admin/console/system.js",
    "/admin/console/settings.json",
    "/admin/console/senders.json",
];

/// Who may use an endpoint of the route table. One that is missing here fails the test.
pub(crate) fn may_use(method: &Method, path: &str) -> MayUse {
    let case = ENDPOINTS.iter().find(|(m, p, _)| *m == method.as_str() && *p == path);
    case.unwrap_or_else(|| panic!("{method} {path} has no case in ENDPOINTS")).2
}

/// The status that a caller must get; `None` if Mimir decides it, or for our own 2xx.
fn refused(caller: &Caller, method: &Method, route: &Route) -> Option<u16> {
    let is_known = caller.refused != Some(401);
    match route.access {
        Access::Tenant(_) => caller.refused,
        Access::Anyone(_) => None,
        Access::Admin(_) => match may_use(method, route.path) {
            // The selector does not matter.
            MayUse::EveryKnownCaller => (!is_known).then_some(401),
            // No webhook secret is configured.
            MayUse::Webhooks => Some(401),
            // Without a database there are no administrators.
            MayUse::Administrators | MayUse::Services => Some(if is_known { 403 } else { 401 }),
        },
    }
}

fn target(path: &str) -> String {
    let path = path.replace("{label}", "job").replace("{name}", "none");
    let path = path.replace("{organisation}", ORG_A);
    let id = "00000000-0000-4000-8000-000000000000";
    let path = path.replace("{id}", id).replace("{silence}", id);
    let query = if path.contains("query") {
        "?query=up&start=1800000000&end=1800000060&step=15"
    } else {
        ""
    };
    format!("{path}{query}")
}

// Deny by default, seen from outside: for every route and every kind of caller the status is the
// expected one, and Mimir answers what is granted.
#[tokio::test(flavor = "multi_thread")]
async fn every_route_refuses_every_wrong_caller() {
    let mimir = Mimir::shared().await;
    let issuer = Issuer::start().await;
    let secret = format!("{:?}", std::str::from_utf8(SECRET).unwrap());
    let proxy = ProxyOptions::new(&issuer.url(), &mimir.url())
        .set("auth.hs256_secret", &secret)
        .start()
        .await;
    let callers = callers(&proxy.client(), &issuer);
    let mut walked = BTreeSet::new();
    for route in &ROUTES {
        for method in route.methods {
            let target = target(route.path);
            for caller in &callers {
                let answer = caller.client.send(method.clone(), &target, Vec::new()).await;
                let about = format!("{method} {target} by {}: {answer:?}", caller.kind);
                if let Some(status) = refused(caller, method, route) {
                    assert_eq!(answer.status, status, "{about}");
                    assert!(!answer.header("x-request-id").is_empty(), "{about}");
                    let reads = route.surface != Surface::Push && route.surface != Surface::Otlp;
                    let is_json = answer.header("content-type") == "application/json";
                    assert_eq!(reads, is_json, "{about}");
                    assert_eq!(
                        status == 401,
                        !answer.header("www-authenticate").is_empty(),
                        "{about}"
                    );
                } else {
                    // Mimir may reject an empty push or a missing rule group.
                    let status = answer.status.as_u16();
                    assert!(status < 500 && ![401, 403].contains(&status), "{about}");
                }
                walked.insert((method.to_string(), route.path, caller.kind));
            }
        }
    }
    let combinations: usize = ROUTES.iter().map(|route| route.methods.len() * callers.len()).sum();
    assert_eq!(walked.len(), combinations);
    // A caller with access must really reach Mimir; otherwise the None above would prove nothing.
    let failed = proxy.metric("mimir_tenant_proxy_requests_total{surface=\"query\",outcome=\"forwarded\",reason=\"2xx\"}").await;
    assert!(failed > 10.0, "{failed}");
}

// A path of Mimir's that users need must be in the table. The list is written a second time on
// purpose, from Mimir's documentation of its HTTP API.
#[test]
fn the_route_table_is_complete() {
    let of_mimir = [
        ("POST", "/api/v1/push"),
        ("POST", "/otlp/v1/metrics"),
        ("POST", "/api/v1/push/influx/write"),
        ("GET", "/prometheus/api/v1/query"),
        ("POST", "/prometheus/api/v1/query"),
        ("GET", "/prometheus/api/v1/query_range"),
        ("POST", "/prometheus/api/v1/query_range"),
        ("GET", "/prometheus/api/v1/query_exemplars"),
        ("POST", "/prometheus/api/v1/query_exemplars"),
        ("GET", "/prometheus/api/v1/series"),
        ("POST", "/prometheus/api/v1/series"),
        ("GET", "/prometheus/api/v1/labels"),
        ("POST", "/prometheus/api/v1/labels"),
        ("GET", "/prometheus/api/v1/label/{label}/values"),
        ("GET", "/prometheus/api/v1/metadata"),
        ("POST", "/prometheus/api/v1/read"),
        ("GET", "/prometheus/api/v1/format_query"),
        ("POST", "/prometheus/api/v1/format_query"),
        ("GET", "/prometheus/api/v1/cardinality/label_names"),
        ("POST", "/prometheus/api/v1/cardinality/label_names"),
        ("GET", "/prometheus/api/v1/cardinality/label_values"),
        ("POST", "/prometheus/api/v1/cardinality/label_values"),
        ("GET", "/prometheus/api/v1/cardinality/active_series"),
        ("POST", "/prometheus/api/v1/cardinality/active_series"),
        ("GET", "/prometheus/api/v1/cardinality/active_native_histogram_metrics"),
        ("POST", "/prometheus/api/v1/cardinality/active_native_histogram_metrics"),
        ("GET", "/prometheus/api/v1/status/buildinfo"),
        ("GET", "/api/v1/status/buildinfo"),
        ("GET", "/api/v1/status/config"),
        ("GET", "/api/v1/status/flags"),
        ("GET", "/prometheus/api/v1/rules"),
        ("GET", "/prometheus/api/v1/alerts"),
        ("GET", "/prometheus/config/v1/rules"),
        ("GET", "/prometheus/config/v1/rules/{name}"),
        ("GET", "/prometheus/config/v1/rules/{name}/{name}"),
        ("GET", "/api/v1/user_stats"),
        ("GET", "/api/v1/user_limits"),
        ("GET", "/alertmanager/api/v2/alerts"),
        ("GET", "/alertmanager/api/v2/alerts/groups"),
        ("GET", "/alertmanager/api/v2/silences"),
        ("POST", "/alertmanager/api/v2/silences"),
        ("GET", "/alertmanager/api/v2/silence/{silence}"),
        ("DELETE", "/alertmanager/api/v2/silence/{silence}"),
        ("GET", "/alertmanager/api/v2/receivers"),
        ("GET", "/alertmanager/api/v2/status"),
    ];
    let ours = ENDPOINTS.iter().map(|(method, path, _)| (*method, *path));
    let console = CONSOLE.iter().flat_map(|path| [("GET", *path), ("HEAD", *path)]);
    let documented: BTreeSet<(&str, &str)> =
        of_mimir.into_iter().chain(ours).chain(console).collect();
    let served: BTreeSet<(&str, &str)> = ROUTES
        .iter()
        .flat_map(|route| {
            route.methods.iter().map(Method::as_str).map(|method| (method, route.path))
        })
        .collect();
    assert_eq!(served, documented);
}

// An unknown caller must not learn which organisations exist.
#[tokio::test(flavor = "multi_thread")]
async fn non_member_and_unknown_organisation_are_indistinguishable() {
    let mimir = Mimir::shared().await;
    let issuer = Issuer::start().await;
    let proxy = ProxyOptions::new(&issuer.url(), &mimir.url()).start().await;
    let client = proxy.client().bearer(&issuer.user_of(ORG_B));
    let mut answers = Vec::new();
    for organisation in
        [ORG_A, "0c0c0c0c-0c0c-4c0c-8c0c-0c0c0c0c0c0c", "no such organisation", ".."]
    {
        let answer = client
            .clone()
            .header("x-scope-orgid", organisation)
            .get("/prometheus/api/v1/query?query=up")
            .await;
        let mut headers: Vec<_> = answer.headers.keys().map(ToString::to_string).collect();
        headers.sort();
        answers.push((answer.status, answer.text, headers));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    assert_eq!(answers[0].0, 403);
}

// The operator chooses the scopes: here users only read.
#[tokio::test(flavor = "multi_thread")]
async fn users_have_the_scopes_that_the_operator_gives_them() {
    let mimir = Mimir::shared().await;
    let issuer = Issuer::start().await;
    let options = ProxyOptions::new(&issuer.url(), &mimir.url());
    let proxy = options.set("tenancy.user_scopes", "[\"metrics:read\"]").start().await;
    let client = proxy.client().bearer(&issuer.user_of(ORG_A));
    for route in &ROUTES {
        let Access::Tenant(scope) = route.access else { continue };
        let answer = client.send(route.methods[0].clone(), &target(route.path), Vec::new()).await;
        let reads = scope == mimir_tenant_proxy::tenancy::Scope::MetricsRead;
        assert_eq!(answer.status == 403, !reads, "{}: {answer:?}", route.path);
        assert!(answer.status.as_u16() < 500 && answer.status != 401, "{}: {answer:?}", route.path);
        assert!(reads || answer.text.contains(scope.name()), "{answer:?}");
    }
}

// RFC 9110, 15.5.6: another method on a known path is a 405 that lists the accepted methods, for
// every caller and before any other check, on every path.
#[tokio::test(flavor = "multi_thread")]
async fn every_other_method_is_a_405_that_lists_the_accepted_ones() {
    let upstream = Upstream::start(crate::support::responses::ok).await;
    let issuer = Issuer::start().await;
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url()).start().await;
    let known = proxy.client().bearer(&issuer.user_of(ORG_A));
    let every = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"];
    for route in &ROUTES {
        let path = target(route.path);
        let own: BTreeSet<&str> = ROUTES
            .iter()
            .filter(|other| other.path == route.path)
            .flat_map(|other| other.methods.iter().map(Method::as_str))
            .collect();
        for method in every.iter().filter(|method| !own.contains(**method)) {
            for client in [&proxy.client(), &known] {
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                let answer = client.send(method.clone(), &path, Vec::new()).await;
                assert_eq!(answer.status, 405, "{method} {path}: {answer:?}");
                let allowed: BTreeSet<&str> = answer.header("allow").split(", ").collect();
                assert_eq!(allowed, own, "{method} {path}");
            }
        }
    }
    assert_eq!(upstream.heads().len(), 0);
}

// Common mistakes get a hint, also for unknown callers, and the response repeats nothing of the
// request.
#[tokio::test(flavor = "multi_thread")]
async fn a_near_miss_gets_a_hint_with_the_right_path() {
    let upstream = Upstream::start(crate::support::responses::ok).await;
    let issuer = Issuer::start().await;
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url()).start().await;
    for (asked, meant) in [
        ("/v1/metrics", "/otlp/v1/metrics"),
        ("/otlp", "/otlp/v1/metrics"),
        ("/otlp/v1/metrics/", "/otlp/v1/metrics"),
        ("/api/v1/write", "/api/v1/push"),
        ("/api/prom/push", "/api/v1/push"),
        ("/api/v1/push/", "/api/v1/push"),
        ("//api/v1/push", "/api/v1/push"),
        ("/api/v1/query", "/prometheus/api/v1/query"),
        ("/prometheus", "/prometheus/api/v1"),
    ] {
        for method in [Method::GET, Method::POST] {
            let answer = proxy.client().send(method, asked, "").await;
            assert_eq!(answer.status, 404, "{asked}: {answer:?}");
            assert!(answer.text.contains(meant), "{asked}: {answer:?}");
        }
    }
    // Readers parse what they get, and senders log its first line.
    for (asked, content_type) in [
        ("/api/v1/query", "application/json"),
        ("/prometheus/api/v1/qery", "application/json"),
        ("/api/v1/push/", "text/plain; charset=utf-8"),
        ("/v1/metrics", "text/plain; charset=utf-8"),
    ] {
        let answer = proxy.client().get(asked).await;
        assert_eq!(answer.header("content-type"), content_type, "{asked}: {answer:?}");
    }
    // OTLP over gRPC.
    let grpc = proxy.client().header("content-type", "application/grpc");
    let export = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
    let answer = grpc.post(export, vec![0; 5]).await;
    assert_eq!(answer.status, 404, "{answer:?}");
    assert!(answer.text.contains("over HTTP only"), "{answer:?}");
    let answer = proxy.client().get("/api/v1/write/%3Cscript%3E").await;
    assert!(!answer.text.contains("script"), "{answer:?}");
    assert!(answer.text.contains("/api/v1/push"), "{answer:?}");
    assert_eq!(upstream.heads().len(), 0);
}
