//! The console: its files, which everybody gets and which say nothing, and the endpoints of `/admin`
//! that it shows.

use std::time::Duration;

use harness::{Issuer, Mimir, ORG_A, ProxyOptions, Upstream, wait_until};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::access::CONSOLE;
use crate::support::identity::{
    ADMIN_KEY, IdentityFixture, identity_fixture, identity_fixture_without_migration, push,
};
use crate::support::responses::ok;

// A body that nobody has asked for must not follow on the connection (RFC 9110, 10.1.1).
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_the_console_asks_for_no_body() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url()).start().await;
    let head = "GET /admin/console HTTP/1.1\r\nHost: proxy\r\nTransfer-Encoding: chunked\r\n";
    for (expect, closes) in [("Expect: 100-continue\r\n", true), ("", false)] {
        let end = if closes { "" } else { "0\r\n\r\n" };
        let request = format!("{head}{expect}\r\n{end}");
        let answer = if closes {
            harness::raw_exchange_to_end(&proxy.url(), request.as_bytes()).await
        } else {
            harness::raw_exchange(&proxy.url(), request.as_bytes()).await
        };
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(answer.contains("\r\nconnection: close\r\n"), closes, "{answer}");
    }
}

// Everybody gets the files, and nothing else by them: only exact paths, only GET and HEAD.
#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_the_console_widen_nothing() {
    let upstream = Upstream::start(ok).await;
    let issuer = Issuer::start().await;
    let options = ProxyOptions::new(&issuer.url(), &upstream.url());
    let proxy = options.clone().start().await;
    let stranger = proxy.client();
    for path in CONSOLE {
        for client in [&stranger, &stranger.clone().bearer("garbage")] {
            let answer = client.get(path).await;
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
            assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
            assert_eq!(answer.header("cache-control"), "no-cache", "{path}");
            assert!(!answer.header("x-request-id").is_empty(), "{path}");
            let policy = answer.header("content-security-policy");
            assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
            assert!(!policy.contains("unsafe"), "{policy}");
        }
        let head = stranger.send(Method::HEAD, path, "").await;
        assert_eq!((head.status, head.text.as_str()), (StatusCode::OK, ""), "{path}");
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            assert_eq!(stranger.send(method, path, "").await.status, 405, "{path}");
        }
        assert_eq!(stranger.send(Method::GET, path, "a body").await.status, 400, "{path}");
        let near = [format!("{path}/"), format!("{path}%2f"), path.to_uppercase()];
        for near in near.iter().chain(&[path.replace("/console", "//console")]) {
            assert_eq!(stranger.get(near).await.status, 404, "{near}");
        }
    }
    for path in ["/admin/console/status", "/admin/console/%2Fwhoami", "/admin/console/x.js"] {
        assert_eq!(stranger.get(path).await.status, 404, "{path}");
    }
    // The data itself stays where it is.
    assert_eq!(stranger.get("/admin/whoami").await.status, 401);
    assert_eq!(upstream.heads().len(), 0);
    let off = options.set("console.enabled", "false").start().await;
    for path in CONSOLE {
        assert_eq!(off.client().get(path).await.status, 404, "{path}");
    }
}

// Whatever operators are shown, no secret is among it: each is planted, and all answers are searched.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_of_the_console_holds_a_secret() {
    const PLANTED: &str = "planted-secret-of-more-than-32-bytes";
    let upstream = Upstream::start(ok).await;
    let database = harness::Postgres::shared().await.database("secrets").await;
    assert!(crate::support::identity::command(&database, &["migrate"]).status.success());
    // The test's cluster trusts its callers, whatever their passwords.
    let url = database.url();
    let (scheme, rest) = url.split_once("://").unwrap();
    let (user, host) = rest.split_once('@').unwrap();
    let user = user.split(':').next().unwrap();
    let url = format!("{scheme}://{user}:{PLANTED}@{host}");
    let query =
        format!("\"select id as organisation_id from organisation where '{PLANTED}' <> ''\"");
    let settings = [
        ("auth.hs256_secret", format!("[\"{PLANTED}\", \"{PLANTED}-2\"]")),
        ("rules.enabled", "true".to_owned()),
        ("rules.webhook_secret", format!("{PLANTED:?}")),
        ("alert_events.enabled", "true".to_owned()),
        ("alert_events.secret", format!("{PLANTED:?}")),
        ("channels.enabled", "true".to_owned()),
        ("channels.dashboard_url", format!("\"https://app.example.com/alerts?key={PLANTED}\"")),
        ("database.organisation_query", query),
    ];
    let settings: Vec<_> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let identity =
        identity_fixture_without_migration(database, &url, &upstream.url(), &settings).await;
    let config = identity.service().get("/admin/config").await;
    assert_eq!(config.status, 200, "{config:?}");
    let values = config.json();
    let shown = |key: &str| {
        let all = values["settings"].as_array().unwrap();
        let found = all.iter().find(|one| one["key"] == key);
        found.unwrap_or_else(|| panic!("{key} is not in {values:#}")).clone()
    };
    for key in ["auth.hs256_secret", "auth.admin_key", "database.url", "rules.webhook_secret"] {
        let setting = shown(key);
        let said = setting["value"].as_str().unwrap();
        assert!(said.contains("set; not shown"), "{setting}");
    }
    // What is no secret is there, or all of this would prove nothing.
    assert_eq!(shown("channels.dashboard_url")["value"], "https://app.example.com/alerts");
    assert_eq!(shown("listen.idle_timeout")["source"], "default");
    assert_eq!(shown("rules.enabled")["value"], "true");
    let of_operators = [
        "status",
        "upstreams",
        "keys",
        "limits",
        "config",
        "rules/status",
        "channels/status",
        "whoami",
    ];
    let targets = of_operators.map(|name| format!("/admin/{name}"));
    for target in targets.iter().map(String::as_str).chain(CONSOLE.iter().copied()) {
        let answer = identity.service().get(target).await;
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        for secret in [PLANTED, ADMIN_KEY] {
            assert!(!answer.text.contains(secret), "{target}: {answer:?}");
        }
    }
}

async fn listed(identity: &IdentityFixture, query: &str) -> Value {
    let answer = identity.service().get(&format!("/admin/organisations{query}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

// Page by page and by a part of the name, however the name looks.
#[tokio::test(flavor = "multi_thread")]
async fn organisations_are_listed_with_their_numbers() {
    let upstream = Upstream::start(ok).await;
    let identity = identity_fixture(&upstream.url(), &[]).await;
    let hostile = "<script>alert(1)</script> 100% O'Neil";
    for (id, name) in
        [("acme", "Acme"), ("bolt", "Bolt"), ("coil", hostile), ("Dune", ""), ("eel", "")]
    {
        let name = name.replace('\'', "''");
        let sql = format!("insert into organisation (id, name) values ('{id}', '{name}')");
        identity.database.execute(&sql).await;
    }
    for role in ["viewer", "admin"] {
        identity.member("acme", role).await;
    }
    let key = identity.device_key("acme", json!({"name": "hub"})).await;
    identity.device_key("acme", json!({"name": "hub-2"})).await;
    let key = format!("/admin/organisations/acme/device-keys/{}", key["id"].as_str().unwrap());
    assert_eq!(identity.service().send(Method::DELETE, &key, "").await.status, 200);
    let all = listed(&identity, "").await;
    assert_eq!((&all["total"], &all["next"]), (&json!(5), &Value::Null));
    let acme = all["organisations"].as_array().unwrap();
    let acme = acme.iter().find(|one| one["organisation"] == "acme").unwrap();
    assert_eq!(acme["name"], "Acme");
    assert_eq!(acme["members"], 2);
    assert_eq!(acme["devices"], json!({"active": 1, "expired": 0, "revoked": 1}));
    // Rules and channels are not synced here, and so not counted.
    assert_eq!((&acme["rules"], &acme["channels"]), (&Value::Null, &Value::Null));
    let mut walked = Vec::new();
    let mut query = "?limit=2".to_owned();
    loop {
        let page = listed(&identity, &query).await;
        let names = page["organisations"].as_array().unwrap().iter();
        walked.extend(names.map(|one| one["organisation"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        query = format!("?limit=2&after={next}");
    }
    assert_eq!(walked, ["Dune", "acme", "bolt", "coil", "eel"]);
    for (filter, found) in [("SCRIPT", 1), ("%25", 1), ("o%27neil", 1), ("_", 0), ("acme", 1)] {
        let page = listed(&identity, &format!("?filter={filter}")).await;
        assert_eq!(page["total"], found, "{filter}: {page}");
    }
    assert_eq!(listed(&identity, "?problems=true").await["total"], 0);
    for wrong in ["?limit=0", "?filter=%00", "?problems=1", "?sort=name"] {
        let answer = identity.service().get(&format!("/admin/organisations{wrong}")).await;
        assert_eq!(answer.status, 400, "{wrong}: {answer:?}");
    }
}

// With rules and channels: each counted by its state, and a problem is found by its filter.
#[tokio::test(flavor = "multi_thread")]
async fn rules_and_channels_are_counted_by_their_states() {
    let mimir = Mimir::shared().await;
    let settings = [("rules.enabled", "true"), ("channels.enabled", "true")];
    let identity = identity_fixture(&mimir.url(), &settings).await;
    let (a, b) = (identity.organisation().await, identity.organisation().await);
    for (name, expr, enabled) in
        [("up", "up == 0", true), ("bad", "up ==", true), ("off", "up", false)]
    {
        let sql = format!(
            "insert into alert_rule (organisation_id, name, expr, enabled) values ('{a}', '{name}', '{expr}', {enabled})"
        );
        identity.database.execute(&sql).await;
    }
    let counts = async |organisation: &str| {
        let page = listed(&identity, &format!("?filter={organisation}")).await;
        page["organisations"][0].clone()
    };
    wait_until("the states are known", Duration::from_secs(30), async || {
        let rules = counts(&a).await["rules"].clone();
        rules["invalid"] == 1 && rules["disabled"] == 1 && rules["pending"].is_null()
    })
    .await;
    let of_a = counts(&a).await;
    assert_eq!(of_a["has_problem"], true, "{of_a}");
    assert_eq!(of_a["channels"], json!({}));
    assert_eq!(counts(&b).await["rules"], json!({}));
    let troubled = listed(&identity, "?problems=true").await;
    assert_eq!(troubled["total"], 1, "{troubled}");
    let status = identity.service().get("/admin/status").await.json();
    assert_eq!(status["leader"]["is_this_copy"], true, "{status:#}");
    assert_eq!(status["leader"]["is_leading"], true, "{status:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_sees_the_members_of_its_own_organisation() {
    let upstream = Upstream::start(ok).await;
    let identity = identity_fixture(&upstream.url(), &[]).await;
    let (a, b) = (identity.organisation().await, identity.organisation().await);
    let admin = identity.member(&a, "admin").await;
    let viewer = identity.member(&a, "viewer").await;
    identity.member(&a, "of no kind").await;
    let stranger = identity.member(&b, "admin").await;
    let members = format!("/admin/organisations/{a}/members");
    let answer = identity.client(&admin).get(&members).await.json();
    let found = answer["members"].as_array().unwrap();
    assert_eq!(found.len(), 3, "{answer}");
    let of = |id: uuid::Uuid| {
        found.iter().find(|one| one["user"] == json!(id.to_string())).unwrap()["scopes"].to_string()
    };
    assert!(of(admin.id).contains("\"admin\"") && !of(viewer.id).contains("admin"));
    let unknown = found.iter().find(|one| one["role"] == "of no kind").unwrap();
    assert_eq!(unknown["scopes"], json!([]));
    let page = identity.client(&admin).get(&format!("{members}?limit=2")).await.json();
    let next = page["next"].as_str().unwrap();
    let rest = identity.client(&admin).get(&format!("{members}?limit=2&after={next}")).await.json();
    assert_eq!((rest["members"].as_array().unwrap().len(), &rest["next"]), (1, &Value::Null));
    let filtered = identity.client(&admin).get(&format!("{members}?filter=VIEW")).await.json();
    assert_eq!(filtered["members"][0]["user"], json!(viewer.id.to_string()));
    assert_eq!(identity.client(&admin).get(&format!("{members}?after=x")).await.status, 400);
    for other in [&viewer, &stranger] {
        assert_eq!(identity.client(other).get(&members).await.status, 403);
        let limits = format!("/admin/organisations/{a}/limits");
        assert_eq!(identity.client(other).get(&limits).await.status, 403);
    }
}

// Where tokens or a query of the operator's say who is a member, that is said, and nothing guessed.
#[tokio::test(flavor = "multi_thread")]
async fn members_that_cannot_be_listed_are_said_to_be_unknown() {
    let upstream = Upstream::start(ok).await;
    let query = "\"select user_id, organisation_id, role from membership where user_id = any($1)\"";
    for (key, value, because) in [
        ("tenancy.membership", "\"claims\"", "tokens alone"),
        ("database.membership_query", query, "for a user and not for an organisation"),
    ] {
        let identity = identity_fixture(&upstream.url(), &[(key, value)]).await;
        let a = identity.organisation().await;
        let members = format!("/admin/organisations/{a}/members");
        let answer = identity.service().get(&members).await.json();
        assert!(answer["unknown_because"].as_str().unwrap().contains(because), "{answer}");
        assert_eq!(answer["members"], json!([]));
    }
}

// Who was refused by which limit.
#[tokio::test(flavor = "multi_thread")]
async fn limits_name_the_organisations_that_they_have_refused() {
    let upstream = Upstream::start(ok).await;
    let settings = [
        ("limits.query_requests_per_second", "1"),
        ("limits.burst", "\"1s\""),
        ("limits.max_wait", "\"0s\""),
    ];
    let identity = identity_fixture(&upstream.url(), &settings).await;
    let (a, b) = (identity.organisation().await, identity.organisation().await);
    let (alice, bob) = (identity.member(&a, "admin").await, identity.member(&b, "admin").await);
    let query = "/prometheus/api/v1/query?query=up";
    assert_eq!(identity.client(&bob).get(query).await.status, 200);
    let mut refused = 0;
    for _ in 0..5 {
        refused += usize::from(identity.client(&alice).get(query).await.status == 429);
    }
    assert!(refused > 0);
    let limits = identity.service().get("/admin/limits").await.json();
    let organisations = limits["organisations"].as_array().unwrap();
    assert_eq!((organisations.len(), &limits["total"]), (1, &json!(1)), "{limits:#}");
    assert_eq!(organisations[0]["organisation"], json!(a));
    let by = json!([{"surface": "query", "limit": "requests_per_second", "count": refused}]);
    assert_eq!(organisations[0]["refused"], by);
    assert_eq!(limits["each"]["query"]["requests_per_second"], 1);
    let own = identity.client(&alice).get(&format!("/admin/organisations/{a}/limits")).await.json();
    assert_eq!((&own["refused"], &own["refused_total"]), (&by, &json!(refused)));
    let none = identity.client(&bob).get(&format!("/admin/organisations/{b}/limits")).await.json();
    assert_eq!((&none["refused"], &none["last_refused_at"]), (&json!([]), &Value::Null));
}

// Is it us? What fails is in the numbers, and by whose fault.
#[tokio::test(flavor = "multi_thread")]
async fn the_status_says_what_fails() {
    let upstream = Upstream::start(|request| async {
        let mut answer = ok(request).await;
        *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        answer
    })
    .await;
    let settings =
        [("upstream.ready_interval", "\"0s\""), ("auth.jwks_refresh_interval", "\"1s\"")];
    let identity = identity_fixture(&upstream.url(), &settings).await;
    let a = identity.organisation().await;
    let device = identity.device(&a, &["metrics:write"]).await;
    for _ in 0..6 {
        assert!(push(&device, "status_metric").await.status.is_server_error());
    }
    let status = identity.service().get("/admin/status").await.json();
    let surfaces = status["traffic"]["surfaces"].as_array().unwrap();
    let of_push = surfaces.iter().find(|one| one["surface"] == "push").unwrap();
    assert_eq!((&of_push["requests"], &of_push["failed"]), (&json!(6), &json!(6)), "{of_push}");
    assert!(of_push["p99_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(status["upstreams"]["instances"], 1);
    assert_eq!(status["database"]["answers"], true);
    assert_eq!(status["keys"]["keys"], 1);
    let instances = identity.service().get("/admin/upstreams").await.json();
    let instance = &instances["instances"][0];
    assert_eq!(instance["address"], upstream.url().replace("http://", ""));
    assert!(instance["failures"].as_u64().unwrap() > 0, "{instance:#}");
    assert!(instance["last_failure_at"].is_string(), "{instance:#}");
    let keys = identity.service().get("/admin/keys").await.json();
    assert_eq!(keys["keys"], json!([{"id": "key-1", "algorithm": "ES256"}]), "{keys:#}");
    assert_eq!((&keys["is_trusted"], &keys["problem"]), (&json!(true), &Value::Null));
    identity.issuer.answer_with(500);
    wait_until("the failed fetch is shown", Duration::from_secs(10), async || {
        let keys = identity.service().get("/admin/keys").await.json();
        keys["problem"].as_str().is_some_and(|problem| problem.contains("500"))
    })
    .await;
    let keys = identity.service().get("/admin/keys").await.json();
    assert!(keys["is_trusted"] == true && keys["next_attempt_at"].is_string(), "{keys:#}");
}

// A member who asks for what is the operators' gets a refusal, as from the rest of /admin.
#[tokio::test(flavor = "multi_thread")]
async fn members_do_not_see_the_inside() {
    let upstream = Upstream::start(ok).await;
    let issuer = Issuer::start().await;
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url()).start().await;
    let member = proxy.client().bearer(&issuer.user_of(ORG_A));
    for name in ["organisations", "status", "upstreams", "keys", "limits", "config"] {
        assert_eq!(member.get(&format!("/admin/{name}")).await.status, 403, "{name}");
    }
}
