//! Users and their organisations: policies, roles, several organisations, federated reads.

use std::time::Duration;

use harness::{Client, Mimir, wait_until};
use serde_json::{Value, json};

use crate::support::identity::{IdentityFixture, identity_fixture, push};

const QUERY: &str = "/prometheus/api/v1/query?query=";

/// The values of a label, sorted, from a query.
async fn tenants_of(client: &Client, metric: &str) -> Vec<String> {
    let answer = client.get(&format!("{QUERY}{metric}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let json = answer.json();
    let series = json["data"]["result"].as_array().unwrap().iter();
    let tenant =
        |series: &Value| series["metric"]["__tenant_id__"].as_str().unwrap_or("").to_owned();
    let mut tenants: Vec<String> = series.map(tenant).collect();
    tenants.sort();
    tenants
}

// Only its members read what a member of an organisation writes.
#[tokio::test(flavor = "multi_thread")]
async fn members_of_the_table_write_and_read_their_own_organisation() {
    let mimir = Mimir::shared().await;
    let identity = identity_fixture(&mimir.url(), &[]).await;
    let (a, b) = (identity.organisation().await, identity.organisation().await);
    let (alice, bob) = (identity.member(&a, "editor").await, identity.member(&b, "editor").await);
    assert_eq!(push(&identity.client(&alice), "members_metric").await.status, 200);
    let client = identity.client(&alice);
    wait_until("the sample is there", Duration::from_secs(20), async || {
        !tenants_of(&client, "members_metric").await.is_empty()
    })
    .await;
    assert!(tenants_of(&identity.client(&bob), "members_metric").await.is_empty());
    let direct = Client::new(&mimir.url());
    let there = direct.clone().header("x-scope-orgid", &a);
    assert_eq!(tenants_of(&there, "members_metric").await.len(), 1);
}

// Where the table decides, a claim of another organisation gives no access; where both decide, they
// must agree.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_decides_between_token_and_table() {
    let mimir = Mimir::shared().await;
    for (policy, by_claim, by_table, by_both) in
        [("claims", 200, 403, 200), ("table", 403, 200, 200), ("claims_and_table", 403, 403, 200)]
    {
        let policy_text = format!("{policy:?}");
        let identity =
            identity_fixture(&mimir.url(), &[("tenancy.membership", &policy_text)]).await;
        let a = identity.organisation().await;
        let ask = async |is_claimed: bool, is_member: bool| {
            let person = identity.person();
            if is_member {
                identity.join(&person, &a, "viewer").await;
            }
            let token = identity.issuer.token().claim("sub", json!(person.id.to_string()));
            let token = if is_claimed { token.organisation(&json!(a)) } else { token };
            let client = identity.proxy.client().bearer(&token.sign());
            client.get(&format!("{QUERY}up")).await.status.as_u16()
        };
        assert_eq!(ask(true, false).await, by_claim, "{policy}: claim");
        assert_eq!(ask(false, true).await, by_table, "{policy}: table");
        assert_eq!(ask(true, true).await, by_both, "{policy}: both");
        assert_eq!(ask(false, false).await, 403, "{policy}: neither");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_several_is_told_what_to_send_and_may_have_a_default() {
    let mimir = Mimir::shared().await;
    let identity = identity_fixture(&mimir.url(), &[]).await;
    let (a, b) = (identity.organisation().await, identity.organisation().await);
    let person = identity.member(&a, "viewer").await;
    identity.join(&person, &b, "viewer").await;
    let client = identity.client(&person);
    let answer = client.get(&format!("{QUERY}up")).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text.contains("X-Scope-OrgID"), "{answer:?}");
    assert!(answer.text.contains(&a) && answer.text.contains(&b), "{answer:?}");
    for organisation in [&a, &b] {
        let named = client.clone().header("x-scope-orgid", organisation);
        assert_eq!(named.get(&format!("{QUERY}up")).await.status, 200);
    }
    let sql = format!("update membership set is_default = true where organisation_id = '{b}'");
    identity.database.execute(&sql).await;
    wait_until("the default is known", Duration::from_secs(1), async || {
        client.get(&format!("{QUERY}up")).await.status == 200
    })
    .await;
    let id = client.get(&format!("{QUERY}up")).await.header("x-request-id").to_owned();
    let lines = identity.log_of("/prometheus/api/v1/query").await;
    let line = lines.iter().find(|line| line["request.id"] == id.as_str()).unwrap();
    assert_eq!(line["organisation.id"], b.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_may_come_by_claim() {
    let mimir = Mimir::shared().await;
    let setting = [("auth.default_organisation_claim", "\"app_metadata.default\"")];
    let identity = identity_fixture(&mimir.url(), &setting).await;
    let (a, b) = (identity.organisation().await, identity.organisation().await);
    let person = identity.member(&a, "viewer").await;
    identity.join(&person, &b, "viewer").await;
    for (default, status) in [(a.as_str(), 200), (b.as_str(), 200), ("somebody-elses", 400)] {
        let token = identity.issuer.token().claim("sub", json!(person.id.to_string()));
        let token = token.claim("app_metadata", json!({ "default": default })).sign();
        let answer = identity.proxy.client().bearer(&token).get(&format!("{QUERY}up")).await;
        assert_eq!(answer.status, status, "{default}: {answer:?}");
    }
}

// A Mimir of its own, because federation is enabled for all of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_federated_read_sees_all_that_it_names_and_nothing_else() {
    let mimir = Mimir::start_with(&["-tenant-federation.enabled=true"]).await;
    let settings = [("tenancy.federation", "true"), ("tenancy.federation_max", "3")];
    let identity = identity_fixture(&mimir.url(), &settings).await;
    let (a, b, c) = (
        identity.organisation().await,
        identity.organisation().await,
        identity.organisation().await,
    );
    let person = identity.member(&a, "editor").await;
    identity.join(&person, &b, "viewer").await;
    let other = identity.member(&c, "editor").await;
    let both = format!("{a}|{b}");
    for organisation in [&a, &b, &c] {
        let service = identity.service().header("x-scope-orgid", organisation);
        assert_eq!(push(&service, "federated_metric").await.status, 200);
    }
    let select = |names: &str| identity.client(&person).header("x-scope-orgid", names);
    let mut wanted = vec![a.clone(), b.clone()];
    wanted.sort();
    wait_until("both are seen", Duration::from_secs(20), async || {
        tenants_of(&select(&both), "federated_metric").await == wanted
    })
    .await;
    // In any order, Mimir gets one spelling.
    assert_eq!(tenants_of(&select(&format!("{b}|{a}|{b}")), "federated_metric").await, wanted);
    let canonical = wanted.join("|");
    let lines = identity.log_of("/prometheus/api/v1/query").await;
    let tenants = lines.iter().filter_map(|line| line["tenant.id"].as_str());
    let federated: Vec<&str> = tenants.filter(|tenants| tenants.contains('|')).collect();
    // At least one for each spelling.
    assert!(federated.len() >= 2, "{lines:?}");
    assert!(federated.iter().all(|tenants| *tenants == canonical), "{federated:?}");
    // One foreign or unknown organisation makes the request fail.
    for names in [format!("{a}|{c}"), format!("{a}|no-such-organisation"), format!("{a}|b c")] {
        let answer = select(&names).get(&format!("{QUERY}federated_metric")).await;
        assert_eq!(answer.status, 403, "{names}: {answer:?}");
    }
    for names in [format!("{a}|"), format!("|{a}"), format!("{a}||{b}")] {
        assert_eq!(select(&names).get(&format!("{QUERY}up")).await.status, 400, "{names}");
    }
    let many = format!("{a}|{b}|{c}|d");
    assert_eq!(select(&many).get(&format!("{QUERY}up")).await.status, 400);
    // Writes and rules are for one organisation.
    assert_eq!(push(&select(&both), "federated_metric").await.status, 400);
    for path in ["/prometheus/api/v1/rules", "/prometheus/config/v1/rules"] {
        assert_eq!(select(&both).get(path).await.status, 400, "{path}");
    }
    assert_eq!(tenants_of(&identity.client(&other), "federated_metric").await, [""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoami_has_principal_organisations_roles_and_evidence() {
    let mimir = Mimir::shared().await;
    let settings = [("tenancy.tenant_template", "\"prod-{organisation_id}\"")];
    let identity = identity_fixture(&mimir.url(), &settings).await;
    let a = identity.organisation().await;
    let person = identity.member(&a, "viewer").await;
    let first = identity.client(&person).get("/admin/whoami").await.json();
    assert_eq!(first["principal"]["kind"], "user");
    assert_eq!(first["principal"]["id"], person.id.to_string());
    assert_eq!(first["principal"]["session_id"], person.session.to_string());
    assert_eq!(first["credential"], "verified for this request");
    let place = json!({
        "id": a, "tenant": format!("prod-{a}"), "role": "viewer", "is_default": false,
        "scopes": ["metrics:read", "rules:read", "alerts:read"], "source": "membership table",
    });
    assert_eq!(first["organisations"], json!([place]));
    // The notification of the membership may arrive after the first lookup, and cause another.
    wait_until("it is remembered", Duration::from_secs(2), async || {
        let again = identity.client(&person).get("/admin/whoami").await.json();
        assert_eq!(again["credential"], "cached: verified before");
        again["memberships"].as_str().unwrap().starts_with("cached")
    })
    .await;
    let device = identity.device(&a, &["metrics:write"]).await.get("/admin/whoami").await.json();
    assert_eq!(device["principal"]["kind"], "device");
    assert_eq!(device["principal"]["name"], "hub");
    assert_eq!(device["organisations"][0]["source"], "device key");
    let service = identity.service().get("/admin/whoami").await.json();
    assert_eq!(service["principal"]["id"], "admin_key");
    assert!(service["every_organisation"]["scopes"].as_array().unwrap().len() == 6, "{service}");
    let nobody = identity.client(&identity.person()).get("/admin/whoami").await.json();
    assert_eq!(nobody["organisations"], json!([]));
}

// The operator names the roles; a role without scopes permits nothing.
#[tokio::test(flavor = "multi_thread")]
async fn operators_name_the_roles() {
    let mimir = Mimir::shared().await;
    let settings = [
        ("roles.viewer", "[]"),
        ("roles.ingest", "[\"metrics:write\"]"),
        ("roles.editor", "[\"admin\"]"),
    ];
    let identity = identity_fixture(&mimir.url(), &settings).await;
    let a = identity.organisation().await;
    for (role, reads, writes, administers) in [
        ("viewer", 403, 403, 403),
        ("ingest", 403, 200, 403),
        ("editor", 403, 403, 200),
        ("owner", 200, 200, 200),
    ] {
        let client = identity.client(&identity.member(&a, role).await);
        assert_eq!(client.get(&format!("{QUERY}up")).await.status, reads, "{role}");
        assert_eq!(push(&client, "roles_metric").await.status, writes, "{role}");
        let keys = format!("/admin/organisations/{a}/device-keys");
        assert_eq!(client.get(&keys).await.status, administers, "{role}");
    }
}

// What `serve` would do, step by step.
#[tokio::test(flavor = "multi_thread")]
async fn explain_token_says_what_the_table_says() {
    let mimir = Mimir::shared().await;
    let identity = identity_fixture(&mimir.url(), &[]).await;
    let a = identity.organisation().await;
    let person = identity.member(&a, "viewer").await;
    let explain = |token: &str| explain(&identity, token);
    let (passes, text) = explain(&person.token);
    assert!(passes, "{text}");
    for fact in ["role viewer", &a, "membership table", "metrics:read, rules:read", "revocations"] {
        assert!(text.contains(fact), "{fact}: {text}");
    }
    let body = json!({"kind": "session_id", "value": person.session.to_string()});
    assert_eq!(identity.service().post("/admin/revocations", body.to_string()).await.status, 201);
    let (passes, text) = explain(&person.token);
    assert!(!passes && text.contains("revoked"), "{text}");
    let (passes, text) = explain(&identity.person().token);
    assert!(!passes && text.contains("not a member of any organisation"), "{text}");
    let key = identity.device_key(&a, json!({"name": "hub 17"})).await;
    let (passes, text) = explain(key["key"].as_str().unwrap());
    assert!(passes && text.contains("hub 17") && text.contains(&a), "{text}");
    let mut mistyped = key["key"].as_str().unwrap().to_owned();
    mistyped.pop();
    let (passes, text) = explain(&mistyped);
    assert!(!passes && text.contains("mistyped"), "{text}");
}

/// The output of `explain-token` with the configuration of a running proxy.
fn explain(identity: &IdentityFixture, token: &str) -> (bool, String) {
    let output = std::process::Command::new(harness::Proxy::binary())
        .arg("--config")
        .arg(&identity.proxy.config)
        .args(["explain-token", token])
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// The output of `explain-token`, with more arguments.
fn explain_with(identity: &IdentityFixture, token: &str, more: &[&str]) -> (i32, String) {
    let output = std::process::Command::new(harness::Proxy::binary())
        .arg("--config")
        .arg(&identity.proxy.config)
        .args(["explain-token", token])
        .args(more)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&text).into_owned())
}

// One request, as `serve` would decide it: an organisation, a path, or both.
#[tokio::test(flavor = "multi_thread")]
async fn explain_token_tries_an_organisation_and_a_path() {
    let mimir = Mimir::shared().await;
    let identity = identity_fixture(&mimir.url(), &[]).await;
    let (a, b) = (identity.organisation().await, identity.organisation().await);
    let person = identity.member(&a, "viewer").await;
    let key = identity.device_key(&a, json!({"name": "hub"})).await;
    let key = key["key"].as_str().unwrap();
    let (read, write) = ("/prometheus/api/v1/query", "/api/v1/push");
    for (token, more, code, says) in [
        (&*person.token, &["--organisation", &*a, "--path", read][..], 0, "it passes"),
        (&*person.token, &["--organisation", &*a], 0, "metrics:read, rules:read"),
        (&*person.token, &["--path", "GET /prometheus/api/v1/query?query=up"], 0, "tenant"),
        (&*person.token, &["--organisation", &*a, "--path", write], 1, "metrics:write"),
        (&*person.token, &["--organisation", &*b, "--path", read], 1, "not a member"),
        (&*person.token, &["--path", "/api/v1/write"], 1, "did you mean /api/v1/push"),
        (&*person.token, &["--path", "DELETE /api/v1/push"], 1, "takes only POST"),
        (key, &["--path", write], 0, "metrics:write"),
        (key, &["--path", read], 1, "metrics:read"),
        (
            crate::support::identity::ADMIN_KEY,
            &["--organisation", &*a, "--path", write],
            0,
            "it passes",
        ),
        (
            crate::support::identity::ADMIN_KEY,
            &["--organisation", "acmee", "--path", write],
            1,
            "not a member",
        ),
    ] {
        let (found, text) = explain_with(&identity, token, more);
        assert_eq!(found, code, "{more:?}: {text}");
        assert!(text.contains(says), "{more:?}: {text}");
    }
    let copied = format!("Authorization: Bearer {}", person.token);
    let (code, text) = explain_with(&identity, &copied, &[]);
    assert!(code == 0 && text.contains("left aside"), "{text}");
}

// An outage is not a fault of the token.
#[tokio::test(flavor = "multi_thread")]
async fn explain_token_says_unavailable_in_an_outage_of_the_database() {
    let mut postgres = harness::Postgres::start().await;
    let mimir = Mimir::shared().await;
    let database = postgres.database("explained").await;
    let identity = crate::support::identity::identity_fixture_on(database, &mimir.url(), &[]).await;
    let a = identity.organisation().await;
    let person = identity.member(&a, "viewer").await;
    let key = identity.device_key(&a, json!({"name": "hub"})).await;
    postgres.stop().await;
    for credential in [&*person.token, key["key"].as_str().unwrap()] {
        let began = std::time::Instant::now();
        let (code, text) = explain_with(&identity, credential, &[]);
        assert_eq!(code, 75, "{text}");
        assert!(text.contains("unavailable") && !text.contains("does not pass"), "{text}");
        // The real cause, not the pool's timeout.
        assert!(text.contains("refused") && !text.contains("timed out"), "{text}");
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
    // A wrong token is still reported as wrong.
    let expired = identity.issuer.token().expires_in(-600).sign();
    let (code, text) = explain_with(&identity, &expired, &[]);
    assert!(code == 1 && text.contains("does not pass"), "{text}");
}

// A mistyped organisation would create a new tenant, and every push would get 200.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_reaches_existing_organisations_only() {
    let upstream = harness::Upstream::start(crate::support::responses::ok).await;
    let identity = identity_fixture(&upstream.url(), &[]).await;
    let a = identity.organisation().await;
    let service = |name: &str| identity.service().header("x-scope-orgid", name);
    assert_eq!(push(&service(&a), "up").await.status, 200);
    assert_eq!(push(&service(&a.to_uppercase()), "up").await.status, 200);
    let before = upstream.heads().len();
    let unknown = push(&service("acmee"), "up").await;
    assert_eq!(unknown.status, 403, "{unknown:?}");
    let stranger =
        identity.client(&identity.member(&a, "owner").await).header("x-scope-orgid", "acmee");
    assert_eq!(push(&stranger, "up").await.text, unknown.text);
    assert_eq!(upstream.heads().len(), before);
    // A new one is known immediately, and so is the removal of one.
    identity.database.execute("insert into organisation (id) values ('acmee')").await;
    wait_until("it is known", Duration::from_secs(2), async || {
        push(&service("acmee"), "up").await.status == 200
    })
    .await;
    identity.database.execute("delete from organisation where id = 'acmee'").await;
    wait_until("it is gone", Duration::from_secs(2), async || {
        push(&service("acmee"), "up").await.status == 403
    })
    .await;
    // With tokens alone, the existing organisations are unknown.
    let claims = [("tenancy.membership", "\"claims\"")];
    let identity = identity_fixture(&upstream.url(), &claims).await;
    assert_eq!(push(&identity.service().header("x-scope-orgid", "any"), "up").await.status, 200);
}

// The caller and the requested organisation are logged where they are certain.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_the_rejected_caller_and_the_requested_organisation() {
    let upstream = harness::Upstream::start(crate::support::responses::ok).await;
    let identity = identity_fixture(&upstream.url(), &[]).await;
    let a = identity.organisation().await;
    let person = identity.member(&a, "viewer").await;
    let path = |name: &str| format!("/prometheus/api/v1/label/{name}/values");
    let id = person.id.to_string();
    let token = || identity.issuer.token().claim("sub", json!(id));
    let get = async |token: &str, name: &str| {
        let client = identity.proxy.client().bearer(token);
        let answer = client.header("x-scope-orgid", "org-b, org-c").get(&path(name)).await;
        (answer.status.as_u16(), identity.log_of(&path(name)).await.remove(0))
    };
    for (name, token, shows) in [
        ("expired", token().expires_in(-600), "auth.leeway 30 s"),
        ("audience", token().claim("aud", json!("other")), "\"other\""),
        ("issuer", token().claim("iss", json!("https://other.example")), "https://other.example"),
    ] {
        let (status, line) = get(&token.sign(), name).await;
        assert_eq!((status, line["principal.id"].as_str()), (401, Some(&*id)), "{line}");
        assert_eq!(line["principal.kind"], "user");
        assert!(line["detail"].as_str().unwrap().contains(shows), "{line}");
    }
    // Without a valid signature the user is unknown.
    let (status, line) = get(&token().with_signature("AAAA"), "forged").await;
    assert!(status == 401 && line["principal.id"].is_null(), "{line}");
    let (status, line) = get(&person.token, "two").await;
    assert_eq!((status, line["organisation.asked"].as_str()), (400, Some("org-b, org-c")));
    let client = identity.client(&person).header("x-scope-orgid", "org-b");
    assert_eq!(client.get(&path("one")).await.status, 403);
    let line = identity.log_of(&path("one")).await.remove(0);
    assert_eq!(line["organisation.asked"], "org-b");
    assert_eq!(line["principal.id"], id);
    // The owners of a revoked token and a revoked device key are known.
    let body = json!({"kind": "sub", "value": id});
    assert_eq!(identity.service().post("/admin/revocations", body.to_string()).await.status, 201);
    // Every copy has the revocation within a second.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (status, line) = get(&person.token, "revoked").await;
    assert_eq!((status, line["principal.id"].as_str()), (401, Some(&*id)), "{line}");
}

// A `truncate` by mistake, a restore that has not ended: without any organisation nothing is known of one, and a 403 would
// have services drop their samples.
#[tokio::test(flavor = "multi_thread")]
async fn without_any_organisation_no_service_is_refused() {
    let mimir = Mimir::shared().await;
    let identity = identity_fixture(&mimir.url(), &[]).await;
    let (a, b) = (identity.organisation().await, identity.organisation().await);
    let member = identity.member(&a, "editor").await;
    let service =
        |organisation: &str| identity.service().clone().header("x-scope-orgid", organisation);
    assert_eq!(push(&service(&a), "empty_metric").await.status, 200);
    identity.database.execute("truncate organisation cascade").await;
    wait_until("nothing is known", Duration::from_secs(5), async || {
        let answer = push(&service(&a), "empty_metric").await;
        assert_ne!(answer.status, 403, "{answer:?}");
        answer.status == 503 && !answer.header("retry-after").is_empty()
    })
    .await;
    assert_eq!(push(&service(&b), "empty_metric").await.status, 503);
    // Users were removed with their rows. The database is there.
    assert_eq!(push(&identity.client(&member), "empty_metric").await.status, 403);
    let failing = "mimir_tenant_proxy_directory_read_failures_total{kind=\"organisation\"}";
    assert_eq!(identity.proxy.metric(failing).await, 0.0);
    // The first row ends it.
    identity.database.execute(&format!("insert into organisation (id) values ('{a}')")).await;
    wait_until("it is known again", Duration::from_secs(10), async || {
        push(&service(&a), "empty_metric").await.status == 200
            && push(&service(&b), "empty_metric").await.status == 403
    })
    .await;
}
