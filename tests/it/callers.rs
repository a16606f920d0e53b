//! The access matrix of users, devices and services: every route and every kind of caller, on a
//! real database.

use std::collections::BTreeSet;
use std::time::Duration;

use harness::{Client, Mimir, SigningKey, TokenBuilder, wait_until};
use http::Method;
use mimir_tenant_proxy::route::{Access, ROUTES, Route};
use mimir_tenant_proxy::tenancy::Scope;
use serde_json::json;

use crate::access::{MayUse, may_use};
use crate::support::identity::{IdentityFixture, identity_fixture};

const SECRET: &[u8] = b"a legacy secret of more than thirty-two bytes";

/// A kind of caller, and its expected access.
struct Caller {
    kind: &'static str,
    client: Client,
    may: May,
}

/// What a kind of caller may do.
enum May {
    /// Nothing: this status everywhere.
    Nothing(u16),
    /// These scopes in the organisation, and whether it may administer it, or all.
    These { scopes: &'static [Scope], administers: bool, everything: bool },
}

const ALL: &[Scope] = &[
    Scope::MetricsRead,
    Scope::MetricsWrite,
    Scope::RulesRead,
    Scope::AlertsRead,
    Scope::AlertsWrite,
];
const READ: &[Scope] = &[Scope::MetricsRead, Scope::RulesRead, Scope::AlertsRead];
/// All that a device may have: it silences nothing.
const DEVICE: &[Scope] =
    &[Scope::MetricsRead, Scope::MetricsWrite, Scope::RulesRead, Scope::AlertsRead];
const DEVICE_SCOPES: &[&str] = &["metrics:write", "metrics:read", "rules:read", "alerts:read"];
const WRITE: &[Scope] = &[Scope::MetricsWrite];

fn may(scopes: &'static [Scope]) -> May {
    May::These { scopes, administers: false, everything: false }
}

fn member_of_nothing() -> May {
    May::These { scopes: &[], administers: false, everything: false }
}

async fn callers(identity: &IdentityFixture, a: &str, b: &str) -> Vec<Caller> {
    let base = identity.proxy.client();
    let mut callers = Vec::new();
    let mut add = |kind, client, may| callers.push(Caller { kind, client, may });
    let admin = || May::These { scopes: ALL, administers: true, everything: false };
    for (kind, role, may) in [
        ("owner", "owner", admin()),
        ("admin", "admin", admin()),
        ("editor", "editor", may(ALL)),
        ("viewer", "viewer", may(READ)),
        ("member with a role that nobody knows", "wizard", member_of_nothing()),
    ] {
        add(kind, identity.client(&identity.member(a, role).await), may);
    }
    let former = identity.member(a, "owner").await;
    identity.client(&former).get("/admin/whoami").await;
    identity.leave(&former, a).await;
    add("ex-member", identity.client(&former), member_of_nothing());
    let stranger = identity.member(b, "owner").await;
    add("admin of B", identity.client(&stranger).header("x-scope-orgid", a), member_of_nothing());
    let claims = identity.issuer.token().organisation(&json!(a)).sign();
    add("claim without membership", base.clone().bearer(&claims), member_of_nothing());
    add("device", identity.device(a, &["metrics:write"]).await, may(WRITE));
    add("device that does all it can", identity.device(a, DEVICE_SCOPES).await, may(DEVICE));
    add(
        "device of B",
        identity.device(b, DEVICE_SCOPES).await.header("x-scope-orgid", a),
        member_of_nothing(),
    );
    let key = identity.device_key(a, json!({"name": "lost"})).await;
    let lost = base.clone().bearer(key["key"].as_str().unwrap());
    lost.post("/api/v1/push", Vec::new()).await;
    let id = key["id"].as_str().unwrap();
    let path = format!("/admin/organisations/{a}/device-keys/{id}");
    assert_eq!(identity.service().send(Method::DELETE, &path, "").await.status, 200);
    add("revoked device", lost, May::Nothing(401));
    add("unknown device", base.clone().bearer(&unknown_key()), May::Nothing(401));
    let mut mistyped = unknown_key();
    mistyped.pop();
    add("mistyped device", base.clone().bearer(&mistyped), May::Nothing(401));
    let revoked = identity.member(a, "owner").await;
    let body = json!({"kind": "sub", "value": revoked.id.to_string()});
    assert_eq!(identity.service().post("/admin/revocations", body.to_string()).await.status, 201);
    add("revoked user", identity.client(&revoked), May::Nothing(401));
    let everything = || May::These { scopes: ALL, administers: true, everything: true };
    add("admin key", identity.service().header("x-scope-orgid", a), everything());
    let service_role = TokenBuilder::new(&SigningKey::secret(SECRET), "supabase")
        .without("sub")
        .without("session_id")
        .without("aud")
        .without("app_metadata")
        .claim("role", json!("service_role"))
        .sign();
    let service = base.clone().bearer(&service_role).header("x-scope-orgid", a);
    add("service_role", service, everything());
    let wrong = base.clone().bearer("an-admin-key-of-more-than-thirty-two-bytez");
    add("wrong admin key", wrong, May::Nothing(401));
    callers
}

/// A key of the right form that does not exist.
fn unknown_key() -> String {
    mimir_tenant_proxy::authn::NewKey::generate().unwrap().expose().to_owned()
}

/// Who may use an endpoint of `/admin`; `None` for what is forwarded to Mimir.
fn endpoint(method: &Method, route: &Route) -> Option<MayUse> {
    match route.access {
        Access::Tenant(_) | Access::Anyone(_) => None,
        Access::Admin(_) => Some(may_use(method, route.path)),
    }
}

/// The status that a caller must get; `None` if Mimir decides it, or for a 2xx of `/admin`.
fn refused(caller: &Caller, method: &Method, route: &Route) -> Option<u16> {
    if let Access::Anyone(_) = route.access {
        return None;
    }
    if endpoint(method, route) == Some(MayUse::Webhooks) {
        // None of these callers has the webhooks' secret.
        return Some(401);
    }
    let May::These { scopes, administers, everything } = &caller.may else {
        let May::Nothing(status) = caller.may else { unreachable!() };
        return Some(status);
    };
    let granted = match route.access {
        Access::Tenant(scope) => scopes.contains(&scope),
        Access::Anyone(_) => true,
        Access::Admin(_) => match may_use(method, route.path) {
            MayUse::Administrators => *administers,
            MayUse::Services => *everything,
            MayUse::EveryKnownCaller | MayUse::Webhooks => true,
        },
    };
    (!granted).then_some(403)
}

fn target(path: &str, organisation: &str) -> String {
    let path = path.replace("{label}", "job").replace("{name}", "none");
    let path = path.replace("{organisation}", organisation);
    let id = "00000000-0000-4000-8000-000000000000";
    let path = path.replace("{id}", id).replace("{silence}", id);
    let query = "?query=up&start=1800000000&end=1800000060&step=15";
    if path.contains("query") { format!("{path}{query}") } else { path }
}

// Deny by default, for every kind of credential.
#[tokio::test(flavor = "multi_thread")]
async fn every_route_grants_each_kind_of_caller_its_own_access_and_no_more() {
    let mimir = Mimir::shared().await;
    let secret = format!("{:?}", std::str::from_utf8(SECRET).unwrap());
    let settings = [
        ("auth.hs256_secret", secret.as_str()),
        ("auth.allow_service_role", "true"),
        ("rules.enabled", "true"),
        // The audit log does not depend on the log filter.
        ("log.filter", "\"error\""),
    ];
    let identity = identity_fixture(&mimir.url(), &settings).await;
    let (a, b) = (identity.organisation().await, identity.organisation().await);
    let callers = callers(&identity, &a, &b).await;
    // A revocation takes effect everywhere within a second.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut walked = BTreeSet::new();
    let mut asked_of_admin = 0;
    let audited_before = identity.audit().len();
    for route in &ROUTES {
        for method in route.methods {
            let target = target(route.path, &a);
            for caller in &callers {
                let answer = caller.client.send(method.clone(), &target, Vec::new()).await;
                let about = format!("{method} {target} by {}: {answer:?}", caller.kind);
                if let Some(status) = refused(caller, method, route) {
                    assert_eq!(answer.status, status, "{about}");
                } else {
                    let refusals = [401, 403, 502, 503];
                    assert!(!refusals.contains(&answer.status.as_u16()), "{about}");
                    assert!(!answer.text.contains("no such path"), "{about}");
                    // No response has anything of another organisation.
                    // What only services get is about all of them.
                    let is_own = matches!(
                        endpoint(method, route),
                        Some(MayUse::EveryKnownCaller | MayUse::Services)
                    );
                    assert!(is_own || !answer.text.contains(&b), "{about}");
                }
                asked_of_admin += usize::from(
                    matches!(
                        endpoint(method, route),
                        Some(MayUse::Administrators | MayUse::Services)
                    ) && !matches!(caller.may, May::Nothing(_)),
                );
                walked.insert((method.to_string(), route.path, caller.kind));
            }
        }
    }
    let combinations: usize = ROUTES.iter().map(|route| route.methods.len() * callers.len()).sum();
    assert_eq!(walked.len(), combinations);
    // Every authenticated request to /admin is in the audit log, rejected ones included.
    wait_until("every request is in the audit", Duration::from_secs(5), async || {
        identity.audit().len() - audited_before >= asked_of_admin
    })
    .await;
    let audit = identity.audit();
    assert_eq!(audit.len() - audited_before, asked_of_admin);
    for (outcome, kind) in [
        ("not_a_member", "user"),
        ("missing_scope", "device"),
        ("done", "service"),
        ("malformed_request", "service"),
        ("service_only", "user"),
    ] {
        let found =
            audit.iter().any(|line| line["outcome"] == outcome && line["principal.kind"] == kind);
        assert!(found, "{outcome} {kind}: {audit:#?}");
    }
}

// The path names the organisation, whatever the selector says: an administrator of A cannot reach B
// by it.
#[tokio::test(flavor = "multi_thread")]
async fn an_admin_of_one_organisation_reaches_no_other() {
    let mimir = Mimir::shared().await;
    let identity = identity_fixture(&mimir.url(), &[]).await;
    let (a, b) = (identity.organisation().await, identity.organisation().await);
    let admin = identity.member(a.as_str(), "admin").await;
    let key = identity.device_key(&b, json!({"name": "hub of B"})).await;
    let id = key["id"].as_str().unwrap();
    let foreign = format!("/admin/organisations/{b}/device-keys");
    let nowhere = format!("/admin/organisations/{}/device-keys", harness::fresh_organisation());
    let client = identity.client(&admin);
    for client in [client.clone(), client.clone().header("x-scope-orgid", &a)] {
        let (there, none) = (client.get(&foreign).await, client.get(&nowhere).await);
        assert_eq!((there.status.as_u16(), &there.text), (403, &none.text));
        assert_eq!(none.status, 403);
        let made = client.post(&foreign, json!({"name": "x"}).to_string()).await;
        assert_eq!(made.status, 403);
        let revoked = client.send(Method::DELETE, &format!("{foreign}/{id}"), "").await;
        assert_eq!(revoked.status, 403);
        // A key of B by the path of A.
        let by_own = format!("/admin/organisations/{a}/device-keys/{id}");
        assert_eq!(client.get(&by_own).await.status, 404);
        assert_eq!(client.send(Method::DELETE, &by_own, "").await.status, 404);
    }
    let keys = identity.service().get(&foreign).await.json();
    assert_eq!(keys["device_keys"][0]["state"], "active");
    assert_eq!(keys["device_keys"].as_array().unwrap().len(), 1);
}
