//! Devices: keys as bearer tokens and passwords, their life cycle, and the protection of a fleet.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::{Client, Mimir, NodeExporter, Prometheus, RemoteWrite, wait_until};
use http::Method;
use mimir_tenant_proxy::authn::NewKey;
use serde_json::{Value, json};

use crate::support::identity::{IdentityFixture, command, identity_fixture, push};

fn key_of(made: &Value) -> &str {
    made["key"].as_str().unwrap()
}

fn basic(identity: &IdentityFixture, user: &str, key: &str) -> Client {
    let encoded = STANDARD.encode(format!("{user}:{key}"));
    identity.proxy.client().header("authorization", &format!("Basic {encoded}"))
}

fn unknown_key() -> String {
    NewKey::generate().unwrap().expose().to_owned()
}

async fn revoke(identity: &IdentityFixture, organisation: &str, made: &Value) {
    let id = made["id"].as_str().unwrap();
    let path = format!("/admin/organisations/{organisation}/device-keys/{id}");
    let answer = identity.service().send(Method::DELETE, &path, "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["state"], "revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_a_bearer_token_and_a_password_of_any_user() {
    let mimir = Mimir::shared().await;
    let identity = identity_fixture(&mimir.url(), &[]).await;
    let a = identity.organisation().await;
    let made = identity.device_key(&a, json!({"name": "hub 1"})).await;
    let bearer = identity.proxy.client().bearer(key_of(&made));
    for client in
        [bearer, basic(&identity, "", key_of(&made)), basic(&identity, "hub-1", key_of(&made))]
    {
        assert_eq!(push(&client, "device_metric").await.status, 200);
        // Only writing, by default.
        let read = client.get("/prometheus/api/v1/query?query=up").await;
        assert_eq!(read.status, 403, "{read:?}");
    }
    let lines = identity.log_of("/api/v1/push").await;
    assert_eq!(lines[0]["principal.kind"], "device");
    assert_eq!(lines[0]["principal.id"], made["id"]);
    assert_eq!(lines[0]["tenant.id"], a.as_str());
    // The key itself is stored nowhere: not in the log, not in the database, not in a list.
    assert!(!identity.proxy.process.log().contains(key_of(&made)));
    let rows = identity.database.query("select * from device_key").await;
    assert!(!format!("{rows:?}").contains(key_of(&made)));
    let listed = identity.service().get(&format!("/admin/organisations/{a}/device-keys")).await;
    assert!(!listed.text.contains(key_of(&made)), "{listed:?}");
    assert!(
        key_of(&made).starts_with(listed.json()["device_keys"][0]["key_hint"].as_str().unwrap())
    );
}

// What the owner of a device reads if its key is rejected; always 401.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_says_why_to_its_owner() {
    let mimir = Mimir::shared().await;
    let identity = identity_fixture(&mimir.url(), &[]).await;
    let a = identity.organisation().await;
    let made = identity.device_key(&a, json!({"name": "hub"})).await;
    let revoked = identity.device_key(&a, json!({"name": "stolen"})).await;
    revoke(&identity, &a, &revoked).await;
    let mut mistyped = key_of(&made).to_owned();
    mistyped.replace_range(20..21, if &mistyped[20..21] == "a" { "b" } else { "a" });
    let before = lookups(&identity).await;
    for (key, text, reason) in [
        (mistyped, "mistyped", "malformed_device_key"),
        (format!("{}x", key_of(&made)), "mistyped", "malformed_device_key"),
        ("mtpd_".to_owned(), "mistyped", "malformed_device_key"),
    ] {
        refused(&identity, &key, text, reason).await;
    }
    assert_eq!(lookups(&identity).await, before, "a typo costs no look-up");
    refused(&identity, &unknown_key(), "unknown", "unknown_device_key").await;
    refused(&identity, key_of(&revoked), "revoked", "revoked_device_key").await;
    assert_eq!(
        push(&identity.proxy.client().bearer(key_of(&made)), "device_metric").await.status,
        200
    );
}

async fn lookups(identity: &IdentityFixture) -> f64 {
    let series = "mimir_tenant_proxy_directory_lookups_total{kind=\"device_key\",outcome=\"read\"}";
    identity.proxy.metric(series).await
}

async fn refused(identity: &IdentityFixture, key: &str, text: &str, reason: &str) {
    for client in [identity.proxy.client().bearer(key), basic(identity, "hub", key)] {
        let answer = push(&client, "device_metric").await;
        assert_eq!(answer.status, 401, "{answer:?}");
        assert!(answer.text.contains(text), "{answer:?}");
        let offers_basic = answer
            .headers
            .get_all("www-authenticate")
            .iter()
            .any(|offered| offered.to_str().is_ok_and(|offered| offered.starts_with("Basic ")));
        assert!(offers_basic, "{answer:?}");
        let id = answer.header("x-request-id").to_owned();
        wait_until("the line is written", Duration::from_secs(2), async || {
            let lines = identity.proxy.access_log("/api/v1/push");
            lines.iter().any(|line| line["request.id"] == id.as_str() && line["reason"] == reason)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_key_goes_on_for_its_grace_and_is_warned_about() {
    let mimir = Mimir::shared().await;
    let identity = identity_fixture(&mimir.url(), &[]).await;
    let a = identity.organisation().await;
    let request = json!({"name": "old hub", "expires_in_seconds": 2, "grace_seconds": 3});
    let made = identity.device_key(&a, request).await;
    let client = identity.proxy.client().bearer(key_of(&made));
    assert_eq!(push(&client, "grace_metric").await.status, 200);
    let grace = "mimir_tenant_proxy_device_key_grace_uses_total";
    wait_until("it works by its grace", Duration::from_secs(4), async || {
        assert_eq!(push(&client, "grace_metric").await.status, 200);
        identity.proxy.metric(grace).await > 0.0
    })
    .await;
    let path = format!("/admin/organisations/{a}/device-keys/{}", made["id"].as_str().unwrap());
    assert_eq!(identity.service().get(&path).await.json()["state"], "in_grace");
    assert!(identity.proxy.process.log().contains("within its grace period"));
    wait_until("its grace is over", Duration::from_secs(6), async || {
        let answer = push(&client, "grace_metric").await;
        answer.status == 401 && answer.text.contains("expired")
    })
    .await;
    assert_eq!(identity.service().get(&path).await.json()["state"], "expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_use_is_written_in_batches() {
    let mimir = Mimir::shared().await;
    let identity =
        identity_fixture(&mimir.url(), &[("database.last_used_interval", "\"1s\"")]).await;
    let a = identity.organisation().await;
    let made = identity.device_key(&a, json!({"name": "hub"})).await;
    let unused = identity.device_key(&a, json!({"name": "in a drawer"})).await;
    let client = identity.proxy.client().bearer(key_of(&made));
    for _ in 0..20 {
        assert_eq!(push(&client, "used_metric").await.status, 200);
    }
    let path = |made: &Value| {
        format!("/admin/organisations/{a}/device-keys/{}", made["id"].as_str().unwrap())
    };
    wait_until("the last use is there", Duration::from_secs(5), async || {
        identity.service().get(&path(&made)).await.json()["last_used_at"].is_string()
    })
    .await;
    assert!(identity.service().get(&path(&unused)).await.json()["last_used_at"].is_null());
    // It does not cause a notification.
    let invalidations = "mimir_tenant_proxy_directory_invalidations_total{kind=\"device_key\"}";
    let heard = identity.proxy.metric(invalidations).await;
    assert!(heard <= 2.0, "{heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_makes_lists_and_revokes_keys_and_bad_requests_say_what_is_wrong() {
    let mimir = Mimir::shared().await;
    let identity = identity_fixture(&mimir.url(), &[]).await;
    let a = identity.organisation().await;
    let admin = identity.client(&identity.member(&a, "admin").await);
    let path = format!("/admin/organisations/{a}/device-keys");
    for (body, text) in [
        ("", "body"),
        ("{}", "name"),
        (r#"{"name": ""}"#, "name"),
        (r#"{"name": "x", "scopes": ["admin"]}"#, "scopes"),
        (r#"{"name": "x", "scopes": []}"#, "scopes"),
        (r#"{"name": "x", "expires_at": "tomorrow"}"#, "expires_at"),
        (r#"{"name": "x", "expires_at": "2001-01-01T00:00:00Z"}"#, "in the future"),
        (r#"{"name": "x", "expires_at": "9999-12-31T23:59:59Z"}"#, "hundred years"),
        (r#"{"name": "x", "organisation": "another"}"#, "organisation"),
        (r#"{"name": "x", "scope": []}"#, "did you mean \"scopes\"?"),
        (r#"{"name": "hub \u202e71"}"#, "bidirectional"),
        (r#"["x", null, null, null, null]"#, "must be a JSON object, not an array"),
        ("null", "must be a JSON object, not null"),
    ] {
        let answer = admin.post(&path, body.to_owned()).await;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        assert!(answer.json()["error"].as_str().unwrap().contains(text), "{body}: {answer:?}");
    }
    let big = json!({"name": "x".repeat(100_000)}).to_string();
    assert_eq!(admin.post(&path, big).await.status, 413);
    let body = json!({"name": "hub", "scopes": ["metrics:write", "rules:read"], "expires_at": "2099-01-01T00:00:00Z"});
    let made = admin.post(&path, body.to_string()).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.header("cache-control"), "no-store");
    let made = made.json();
    assert_eq!(made["scopes"], json!(["metrics:write", "rules:read"]));
    assert!(made["created_by"].as_str().unwrap().starts_with("user "), "{made}");
    let listed = admin.get(&path).await.json();
    assert_eq!(listed["device_keys"][0]["id"], made["id"]);
    let one = format!("{path}/{}", made["id"].as_str().unwrap());
    assert_eq!(admin.send(Method::DELETE, &one, "").await.status, 200);
    // Revoking it again is not an error, and the time does not change.
    let revoked_at = admin.get(&one).await.json()["revoked_at"].clone();
    assert_eq!(admin.send(Method::DELETE, &one, "").await.json()["revoked_at"], revoked_at);
    let nobodys = format!("/admin/organisations/{}/device-keys", harness::fresh_organisation());
    assert_eq!(identity.service().post(&nobodys, r#"{"name": "x"}"#).await.status, 404);
    wait_until("it is in the audit", Duration::from_secs(2), async || {
        let is_line = |line: &Value| line["target.id"] == made["id"] && line["outcome"] == "done";
        let audit = identity.audit();
        audit.iter().any(|line| is_line(line) && line["organisation.id"] == a.as_str())
    })
    .await;
}

// The database statement continues when the client disconnects, and is in the audit log, with what it is about.
#[tokio::test(flavor = "multi_thread")]
async fn an_admin_request_whose_client_disconnects_is_in_the_audit_log() {
    let mimir = Mimir::shared().await;
    let identity = identity_fixture(&mimir.url(), &[]).await;
    let a = identity.organisation().await;
    let path = format!("/admin/organisations/{a}/device-keys");
    let service = identity.service();
    let made = service.post(&path, r#"{"name": "hub"}"#).await.json();
    let one = format!("{path}/{}", made["id"].as_str().unwrap());
    let locker = identity.database.client().await;
    locker.batch_execute("begin; lock table device_key in access exclusive mode").await.unwrap();
    let asked = tokio::spawn(async move { service.try_send(Method::DELETE, &one, "").await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    asked.abort();
    wait_until("it is in the audit", Duration::from_secs(3), async || {
        let is_line = |line: &Value| line["outcome"] == "client_gone";
        identity.audit().iter().any(|line| is_line(line) && line["target.id"] == made["id"])
    })
    .await;
    locker.batch_execute("rollback").await.unwrap();
}

// With tokens alone, our table has no organisations; the member's claim is enough.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_by_claim_makes_keys_for_their_organisation() {
    let mimir = Mimir::shared().await;
    let settings =
        [("tenancy.membership", "\"claims\""), ("auth.role_claim", "\"app_metadata.role\"")];
    let identity = identity_fixture(&mimir.url(), &settings).await;
    let a = harness::fresh_organisation();
    let token =
        identity.issuer.token().claim("app_metadata", json!({"org_id": a, "role": "owner"}));
    let owner = identity.proxy.client().bearer(&token.sign());
    let path = format!("/admin/organisations/{a}/device-keys");
    let made = owner.post(&path, r#"{"name": "hub"}"#).await;
    assert_eq!(made.status, 201, "{made:?}");
    let device = identity.proxy.client().bearer(key_of(&made.json()));
    assert_eq!(push(&device, "claimed_metric").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_makes_lists_and_revokes_keys() {
    let mimir = Mimir::shared().await;
    let identity = identity_fixture(&mimir.url(), &[]).await;
    let a = identity.organisation().await;
    let run = |args: &[&str]| {
        let output = command(&identity.database, &[&["device-key"], args].concat());
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), text)
    };
    let (good, text) =
        run(&["create", "--organisation", &a, "--name", "hub 9", "--expires-in", "90d"]);
    assert!(good, "{text}");
    let key = text.lines().next().unwrap().to_owned();
    // Only the key is on standard output: `KEY=$(… device-key create …)`.
    let made = command(
        &identity.database,
        &["device-key", "create", "--organisation", &a, "--name", "hub 8"],
    );
    let made = String::from_utf8(made.stdout).unwrap();
    assert!(made.starts_with("mtpd_") && made.lines().count() == 1, "{made}");
    let client = identity.proxy.client().bearer(&key);
    assert_eq!(push(&client, "cli_metric").await.status, 200);
    let (good, text) = run(&["list", "--organisation", &a]);
    assert!(good && text.contains("hub 9") && text.contains("active"), "{text}");
    let (_, text) = run(&["list", "--organisation", &a, "--json"]);
    let listed: Value = serde_json::from_str(&text).unwrap();
    let hub_9 = listed.as_array().unwrap().iter().find(|key| key["name"] == "hub 9").unwrap();
    let id = hub_9["id"].as_str().unwrap();
    let (good, text) = run(&["revoke", "--organisation", &harness::fresh_organisation(), id]);
    assert!(!good && text.contains("no such"), "{text}");
    let (good, text) = run(&["revoke", "--organisation", &a, id]);
    assert!(good, "{text}");
    wait_until("it is revoked", Duration::from_secs(1), async || {
        push(&client, "cli_metric").await.status == 401
    })
    .await;
    for wrong in [
        &["create", "--organisation", "nowhere", "--name", "x"][..],
        &["create", "--organisation", &a, "--name", "x", "--scopes", "admin"],
        &["create", "--organisation", &a, "--name", "x", "--expires-in", "soon"],
        &["create", "--organisation", "a|b", "--name", "x"],
    ] {
        let (good, text) = run(wrong);
        assert!(!good && !text.contains("mtpd_"), "{wrong:?}: {text}");
    }
}

// Many devices share one address (CGNAT, a site's router). A caller there that guesses keys is
// slowed down; known devices are not affected, and a new one gets through.
#[tokio::test(flavor = "multi_thread")]
async fn guessing_delays_the_guesser_and_no_other() {
    let mimir = Mimir::shared().await;
    let identity = identity_fixture(&mimir.url(), &[]).await;
    let a = identity.organisation().await;
    let known = identity
        .proxy
        .client()
        .bearer(key_of(&identity.device_key(&a, json!({"name": "known"})).await));
    assert_eq!(push(&known, "guessed_metric").await.status, 200);
    let stop = tokio_util::sync::CancellationToken::new();
    let mut guessers = Vec::new();
    for _ in 0..50 {
        let (client, stop) = (identity.proxy.client(), stop.clone());
        guessers.push(tokio::spawn(async move {
            let mut guesses = 0;
            while !stop.is_cancelled() {
                let answer = push(&client.clone().bearer(&unknown_key()), "guessed_metric").await;
                assert_eq!(answer.status, 401, "{answer:?}");
                guesses += 1;
            }
            guesses
        }));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    for number in 0..5 {
        let began = Instant::now();
        assert_eq!(push(&known, "guessed_metric").await.status, 200);
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
        let new = identity.device_key(&a, json!({"name": format!("new {number}")})).await;
        let began = Instant::now();
        let client = identity.proxy.client().bearer(key_of(&new));
        assert_eq!(push(&client, "guessed_metric").await.status, 200);
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    }
    stop.cancel();
    let mut guesses = 0;
    for guesser in guessers {
        guesses += guesser.await.unwrap();
    }
    println!("{guesses} guesses");
    // 50 concurrently, each delayed by a second after the first few: far fewer than without delays.
    assert!(guesses < 2000, "{guesses}");
    assert!(identity.proxy.metric("mimir_tenant_proxy_device_key_backoffs_total").await > 0.0);
}

// A restore that has not ended, a new database, a `truncate` by mistake: where there is no key at all,
// each one is unknown, and a 401 would have a whole fleet drop its samples.
#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_key_at_all_none_is_refused() {
    let mimir = Mimir::shared().await;
    let identity = identity_fixture(&mimir.url(), &[]).await;
    let a = identity.organisation().await;
    let made = identity.device_key(&a, json!({"name": "hub"})).await;
    let client = identity.proxy.client().bearer(key_of(&made));
    assert_eq!(push(&client, "empty_metric").await.status, 200);
    identity.database.execute("truncate device_key").await;
    wait_until("its key is gone", Duration::from_secs(2), async || {
        let answer = push(&client, "empty_metric").await;
        assert_ne!(answer.status, 401, "{answer:?}");
        answer.status == 503 && !answer.header("retry-after").is_empty()
    })
    .await;
    // Guessers are slowed down, and cost no query each.
    let guesses = (0..60).map(|_| {
        let client = identity.proxy.client().bearer(&unknown_key());
        async move { push(&client, "empty_metric").await }
    });
    for answer in futures_util::future::join_all(guesses).await {
        assert_eq!(answer.status, 503, "{answer:?}");
    }
    assert!(identity.proxy.metric("mimir_tenant_proxy_device_key_backoffs_total").await > 0.0);
    let queries =
        "mimir_tenant_proxy_directory_read_duration_seconds_count{kind=\"any_device_key\"}";
    let queries = identity.proxy.metric(queries).await;
    assert!(queries < 10.0, "{queries}");
    let failing = "mimir_tenant_proxy_directory_read_failures_total{kind=\"device_key\"}";
    assert_eq!(identity.proxy.metric(failing).await, 0.0);
    // Any other one is enough.
    let other = identity.device_key(&a, json!({"name": "other"})).await;
    wait_until("it is unknown", Duration::from_secs(10), async || {
        push(&client, "empty_metric").await.status == 401
    })
    .await;
    let other = identity.proxy.client().bearer(key_of(&other));
    assert_eq!(push(&other, "empty_metric").await.status, 200);
    let sql = format!(
        "insert into device_key (organisation_id, name, key_hash) values ('{a}', 'hub', sha256('{}'))",
        key_of(&made)
    );
    identity.database.execute(&sql).await;
    wait_until("it is known again", Duration::from_secs(10), async || {
        push(&client, "empty_metric").await.status == 200
    })
    .await;
}

// A stock sender drops its data on a 401. So during a rotation both keys are valid for a while, and
// no sample is lost.
#[tokio::test(flavor = "multi_thread")]
async fn stock_prometheus_loses_no_sample_while_its_key_is_exchanged() {
    let mimir = Mimir::shared().await;
    let identity = identity_fixture(&mimir.url(), &[]).await;
    let a = identity.organisation().await;
    let old = identity.device_key(&a, json!({"name": "hub, old key"})).await;
    let exporter = NodeExporter::start().await;
    let url = identity.proxy.url();
    let sender =
        Prometheus::start_with_password(RemoteWrite::V1, &exporter, &url, "hub", key_of(&old))
            .await;
    let reader = identity.service().header("x-scope-orgid", &a);
    let count = async || {
        let answer = reader.get("/prometheus/api/v1/query?query=count_over_time(up[10m])").await;
        let value = answer.json()["data"]["result"][0]["value"][1].clone();
        value.as_str().map_or(0, |count| count.parse::<u32>().unwrap())
    };
    let scraped = async || {
        let answer =
            Client::new(&sender.url()).get("/api/v1/query?query=count_over_time(up[10m])").await;
        let value = answer.json()["data"]["result"][0]["value"][1].clone();
        value.as_str().map_or(0, |count| count.parse::<u32>().unwrap())
    };
    wait_until("samples arrive", Duration::from_secs(30), async || count().await >= 3).await;
    let new = identity.device_key(&a, json!({"name": "hub, new key"})).await;
    sender.set_password(key_of(&new));
    let id = new["id"].as_str().unwrap().to_owned();
    wait_until("the new key is in use", Duration::from_secs(30), async || {
        let lines = identity.proxy.access_log("/api/v1/push");
        lines.last().is_some_and(|line| line["principal.id"] == id.as_str())
    })
    .await;
    revoke(&identity, &a, &old).await;
    let at_the_exchange = count().await;
    wait_until("samples go on arriving", Duration::from_secs(30), async || {
        count().await >= at_the_exchange + 5
    })
    .await;
    // Every sample that was scraped is stored, or arrives within a few seconds.
    let wanted = scraped().await;
    wait_until("every sample is there", Duration::from_secs(20), async || count().await >= wanted)
        .await;
    let failed = "prometheus_remote_storage_samples_failed_total";
    let dropped = Client::new(&sender.url()).get("/metrics").await.text;
    let lost = dropped.lines().filter(|line| line.starts_with(failed));
    assert!(
        lost.clone().count() > 0 && lost.clone().all(|line| line.ends_with(" 0")),
        "{:?}",
        lost.collect::<Vec<_>>()
    );
    let refused = identity.log_of("/api/v1/push").await;
    assert!(refused.iter().all(|line| line["outcome"] == "forwarded"), "{refused:#?}");
}

// Supabase Auth gives a whole access token after the password, before the second factor. Whoever has only an
// administrator's password must not create keys, which outlive the session.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_alone_creates_no_key_where_a_second_factor_is_required() {
    let upstream = harness::Upstream::start(crate::support::responses::ok).await;
    let settings = [("auth.admin_required_aal", "\"aal2\"")];
    let identity = identity_fixture(&upstream.url(), &settings).await;
    let a = identity.organisation().await;
    let path = format!("/admin/organisations/{a}/device-keys");
    let owner = identity.member(&a, "owner").await;
    let signed_in = |aal: &str| {
        let token = identity.issuer.token().claim("sub", json!(owner.id.to_string()));
        identity.proxy.client().bearer(&token.claim("aal", json!(aal)).sign())
    };
    let (first, second) = (signed_in("aal1"), signed_in("aal2"));
    let body = json!({"name": "hub"}).to_string();
    let refused = first.post(&path, body.clone()).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(refused.text.contains("second factor"), "{refused:?}");
    assert!(refused.header("www-authenticate").is_empty(), "{refused:?}");
    assert_eq!(first.get(&path).await.status, 403);
    // To read is another thing.
    for target in ["/prometheus/api/v1/query?query=up", "/admin/whoami"] {
        assert_eq!(first.get(target).await.status, 200, "{target}");
    }
    let made = second.post(&path, body).await;
    assert_eq!(made.status, 201, "{made:?}");
    // Devices and services have no second factor.
    let device = identity.proxy.client().bearer(key_of(&made.json()));
    assert_eq!(push(&device, "with_a_key").await.status, 200);
    let listed = identity.service().get(&path).await.json();
    assert_eq!(listed["device_keys"].as_array().unwrap().len(), 1, "{listed}");
}

// The same for everything that a user may do.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_alone_is_nothing_where_every_user_needs_a_second_factor() {
    let upstream = harness::Upstream::start(crate::support::responses::ok).await;
    let settings = [("auth.required_aal", "\"aal2\"")];
    let identity = identity_fixture(&upstream.url(), &settings).await;
    let a = identity.organisation().await;
    let owner = identity.member(&a, "owner").await;
    let signed_in = |aal: &str| {
        let token = identity.issuer.token().claim("sub", json!(owner.id.to_string()));
        identity.proxy.client().bearer(&token.claim("aal", json!(aal)).sign())
    };
    let (first, second) = (signed_in("aal1"), signed_in("aal2"));
    for target in ["/prometheus/api/v1/query?query=up", "/admin/whoami"] {
        let refused = first.get(target).await;
        assert_eq!(refused.status, 403, "{target}: {refused:?}");
        assert!(refused.text.contains("second factor"), "{refused:?}");
        assert_eq!(second.get(target).await.status, 200, "{target}");
    }
    let device = identity.device(&a, &["metrics:read"]).await;
    assert_eq!(device.get("/prometheus/api/v1/query?query=up").await.status, 200);
}

// A role that only administers must not create a key that reads.
#[tokio::test(flavor = "multi_thread")]
async fn no_one_grants_more_than_they_have() {
    let upstream = harness::Upstream::start(crate::support::responses::ok).await;
    let settings = [
        ("roles.keeper", "[\"admin\"]"),
        ("roles.writer", "[\"admin\", \"metrics:write\"]"),
        ("tenancy.service_scopes", "[\"admin\", \"rules:read\"]"),
    ];
    let identity = identity_fixture(&upstream.url(), &settings).await;
    let a = identity.organisation().await;
    let path = format!("/admin/organisations/{a}/device-keys");
    let keeper = identity.client(&identity.member(&a, "keeper").await);
    let writer = identity.client(&identity.member(&a, "writer").await);
    let owner = identity.client(&identity.member(&a, "owner").await);
    let service = identity.service();
    let all = json!(["metrics:read", "metrics:write", "rules:read", "alerts:read"]);
    for (client, scopes, status, lacks) in [
        (&keeper, json!(["metrics:read"]), 403, "metrics:read"),
        (&keeper, json!(["metrics:write"]), 403, "metrics:write"),
        // The default scopes.
        (&keeper, json!(null), 403, "metrics:write"),
        (&writer, json!(null), 201, ""),
        (&writer, json!(["metrics:write"]), 201, ""),
        (&writer, json!(["metrics:write", "metrics:read"]), 403, "metrics:read"),
        (&writer, all.clone(), 403, "metrics:read, rules:read, alerts:read"),
        (&service, json!(["metrics:read"]), 403, "metrics:read"),
        (&service, json!(["rules:read"]), 201, ""),
        (&owner, all, 201, ""),
        (&owner, json!(["admin"]), 400, "scopes must be"),
        // A device silences nothing.
        (&owner, json!(["alerts:read", "alerts:write"]), 400, "rules:read, alerts:read"),
    ] {
        let body = json!({"name": "hub", "scopes": scopes}).to_string();
        let answer = client.post(&path, body).await;
        assert_eq!(answer.status, status, "{scopes}: {answer:?}");
        assert!(answer.text.contains(lacks), "{scopes}: {answer:?}");
    }
    // The rejected requests created nothing.
    let listed = owner.get(&path).await.json();
    assert_eq!(listed["device_keys"].as_array().unwrap().len(), 4);
    // The command line is for operators.
    let made = command(
        &identity.database,
        &["device-key", "create", "--organisation", &a, "--name", "x", "--scopes", "metrics:read"],
    );
    assert!(made.status.success(), "{made:?}");
}

// curl --anyauth and small senders send a password only after a challenge.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_a_credential_gets_a_basic_challenge_too() {
    let upstream = harness::Upstream::start(crate::support::responses::ok).await;
    let identity = identity_fixture(&upstream.url(), &[]).await;
    let a = identity.organisation().await;
    let key = identity.device_key(&a, json!({"name": "hub"})).await;
    let key = key["key"].as_str().unwrap();
    for path in ["/api/v1/push", "/otlp/v1/metrics"] {
        let answer = identity.proxy.client().post(path, "").await;
        let offers: Vec<_> = answer.headers.get_all("www-authenticate").iter().collect();
        assert_eq!(offers, ["Bearer", "Basic realm=\"device keys\""], "{answer:?}");
        let output = std::process::Command::new("curl")
            .args(["--silent", "--anyauth", "--user", &format!("hub:{key}")])
            .args(["--output", "/dev/null", "--write-out", "%{http_code}"])
            .args(["--request", "POST", "--header", "Content-Type: application/x-protobuf"])
            .arg(format!("{}{path}", identity.proxy.url()))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "200", "{output:?}");
    }
    let answer = identity.proxy.client().get("/prometheus/api/v1/query?query=up").await;
    let offers: Vec<_> = answer.headers.get_all("www-authenticate").iter().collect();
    assert_eq!(offers, ["Bearer"], "a browser would ask a person for a password");
}
