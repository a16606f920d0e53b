//! `/admin` for rules, and Supabase's webhooks.

use harness::Client;
use http::Method;
use serde_json::{Value, json};

use super::{as_synced, in_mimir, rules_fixture};

const SECRET: &str = "a webhook secret that is long enough";

fn path(org: &str, rest: &str) -> String {
    format!("/admin/organisations/{org}/rules{rest}")
}

// An administrator sees the rules, states and reasons of their own organisation; viewers and other
// administrators do not.
#[tokio::test(flavor = "multi_thread")]
async fn an_admin_sees_the_rules_of_their_own_organisation_and_why_one_is_not_live() {
    let fixture = rules_fixture(&[]).await;
    let (org, other) =
        (fixture.identity.organisation().await, fixture.identity.organisation().await);
    let good = fixture.rule(&org, "Good", "up == 0").await;
    let bad = fixture.rule(&org, "Bad", "sum((").await;
    fixture.wait_state(&good, "live").await;
    fixture.wait_state(&bad, "invalid").await;
    let admin = fixture.identity.client(&fixture.identity.member(&org, "admin").await);
    let list = admin.get(&path(&org, "")).await.json();
    let rules = list["rules"].as_array().unwrap();
    assert_eq!(
        (as_synced(rules[0]["state"].as_str().unwrap()), rules[1]["state"].as_str()),
        ("live", Some("invalid"))
    );
    assert!(rules[0]["live_since"].is_string() && rules[0]["live_hash"].is_string(), "{list}");
    assert!(rules[1]["reason"].as_str().unwrap().contains("line 1, column"), "{list}");
    assert!(rules[1]["live_hash"].is_null(), "{list}");
    assert_eq!((in_mimir(&list["sync"]), list["sync"]["not_live"].as_u64()), (1, Some(1)));
    for (who, org) in [
        (fixture.identity.client(&fixture.identity.member(&org, "viewer").await), &org),
        (admin.clone(), &other),
        (fixture.identity.device(&org, &["rules:read"]).await, &org),
    ] {
        for (method, rest) in [(Method::GET, ""), (Method::GET, "/diff"), (Method::POST, "/sync")] {
            let answer = who.send(method, &path(org, rest), Vec::new()).await;
            assert_eq!(answer.status, 403, "{answer:?}");
        }
    }
    // The overview of all organisations is for operators.
    for (method, path) in
        [(Method::GET, "/admin/rules/status"), (Method::POST, "/admin/rules/sync")]
    {
        assert_eq!(admin.send(method, path, Vec::new()).await.status, 403);
    }
    let status = fixture.rule_status().await;
    assert_eq!(status["leader"]["is_leading"], true, "{status}");
    assert_eq!(status["complete"], true);
    assert!(status["full_resync_at"].is_string(), "{status}");
}

// A dry run and a diff report what would change, and change nothing; then a sync does exactly that.
#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_a_sync_then_does() {
    let fixture = rules_fixture(&[("rules.reconcile_interval", "\"1h\"")]).await;
    let org = fixture.identity.organisation().await;
    let id = fixture.rule(&org, "Up", "up == 0").await;
    fixture.wait_state(&id, "live").await;
    // The first full resync is over, and with the database triggers off there is no notification.
    fixture.sync_all().await;
    fixture
        .sql(&format!(
            "set session_replication_role = replica; \
             update alert_rule set expr = 'up == 7' where id = '{id}'; \
             insert into alert_rule (organisation_id, name, expr, rule_group) values \
             ('{org}', 'New', 'vector(1)', 'other'), ('{org}', 'Broken', 'sum((', 'other')"
        ))
        .await;
    let before = fixture.writes().await;
    let service = fixture.identity.service();
    let diff = service.get(&path(&org, "/diff")).await.json();
    let dry = service.post(&path(&org, "/sync?dry_run=true"), "").await.json();
    assert_eq!(diff, dry);
    assert_eq!(diff["in_sync"], false);
    let text = diff["diff"].as_str().unwrap();
    assert!(
        text.contains("-  expr: \"up == 0\"") && text.contains("+  expr: \"up == 7\""),
        "{text}"
    );
    let actions: Vec<(&str, &str)> = diff["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| (change["group"].as_str().unwrap(), change["action"].as_str().unwrap()))
        .collect();
    assert!(
        actions.contains(&("default", "update")) && actions.contains(&("other", "create")),
        "{diff}"
    );
    assert!(diff["not_live"][0]["reason"].as_str().unwrap().contains("line 1"), "{diff}");
    let all = service.post("/admin/rules/sync?dry_run=true", "").await.json();
    assert_eq!(all["organisations"][0]["organisation"], org, "{all}");
    assert_eq!(all["complete"], true);
    assert_eq!(fixture.writes().await, before);
    assert_eq!(service.post(&path(&org, "/sync?dry_run=maybe"), "").await.status, 400);
    assert_eq!(service.post(&path(&org, "/sync?dryrun=true"), "").await.status, 400);
    let twice = path(&org, "/sync?dry_run=true&dry_run=false");
    assert_eq!(service.post(&twice, "").await.status, 400);
    for sync in [path(&org, "/sync"), "/admin/rules/sync".to_owned()] {
        let in_the_body = service.post(&sync, "{\"dry_run\": true}").await;
        assert_eq!(in_the_body.status, 400, "{in_the_body:?}");
    }
    assert_eq!(fixture.writes().await, before, "a word that is neither is no permission");

    let done = fixture.sync(&org).await;
    assert_eq!(in_mimir(&done["outcome"]["rules"]), 2, "{done}");
    assert_eq!(done["outcome"]["rules"]["invalid"], 1, "{done}");
    let poll = service.get(done["poll"].as_str().unwrap()).await.json();
    assert_eq!(poll["state"], "done");
    assert_eq!(service.get(&path(&org, "/diff")).await.json()["in_sync"], true);
    for (method, to) in [("GET", ""), ("GET", "/diff"), ("POST", "/sync")] {
        let answer = service.send(method.parse().unwrap(), &path("nosuch", to), "").await;
        assert_eq!(answer.status, 404, "{method} {to}: {answer:?}");
    }
    // The progress of another organisation's sync is not visible.
    let other = fixture.identity.organisation().await;
    let foreign = done["poll"].as_str().unwrap().replace(&org, &other);
    assert_eq!(service.get(&foreign).await.status, 404);
}

fn hook(kind: &str, record: Value, old: Value) -> String {
    json!({"type": kind, "table": "alert_rule", "schema": "public", "record": record, "old_record": old})
        .to_string()
}

// Supabase's webhooks: one secret, all three types; a trigger and never the data.
#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_a_trigger_and_never_the_data() {
    let settings =
        [("rules.webhook_secret", &*format!("{SECRET:?}")), ("rules.reconcile_interval", "\"1h\"")];
    let fixture = rules_fixture(&settings).await;
    let org = fixture.identity.organisation().await;
    fixture.sync_all().await;
    fixture.sql("alter table alert_rule disable trigger user").await;
    let base = fixture.identity.proxy.client();
    let hooks = base.clone().bearer(SECRET);
    let to = "/admin/webhooks/alert-rule";
    let row = json!({"id": "x", "organisation_id": org, "expr": "never believed"});

    let id = fixture.rule(&org, "Up", "up == 0").await;
    for wrong in [
        base.clone(),
        base.clone().bearer("another secret that is long enough"),
        base.clone().bearer(&fixture.identity.member(&org, "owner").await.token),
        fixture.identity.service(),
        base.clone().header("x-webhook-secret", "wrong"),
    ] {
        let answer = wrong.post(to, hook("INSERT", row.clone(), Value::Null)).await;
        assert_eq!(answer.status, 401, "{answer:?}");
    }
    // And the secret gives no other access.
    for path in ["/admin/whoami", "/admin/rules/status", "/prometheus/api/v1/rules"] {
        assert_eq!(hooks.get(path).await.status, 401, "{path}");
    }
    assert!(fixture.groups(&org).await.is_empty());

    let answer = hooks.post(to, hook("INSERT", row.clone(), Value::Null)).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    fixture.wait_groups(&org, &[("default", &["Up"])]).await;
    fixture.sql(&format!("update alert_rule set name = 'Down' where id = '{id}'")).await;
    let own_header = base.header("x-webhook-secret", SECRET);
    own_header.post(to, hook("UPDATE", row.clone(), row.clone())).await;
    fixture.wait_groups(&org, &[("default", &["Down"])]).await;
    // A tombstone distinguishes a deletion from a loss; without database triggers it has to be
    // written.
    fixture.sql(&format!("delete from alert_rule where id = '{id}'; insert into alert_rule_tombstone (rule_id, organisation_id) values ('{id}', '{org}')")).await;
    hooks.post(to, hook("DELETE", Value::Null, row)).await;
    fixture.wait_groups(&org, &[]).await;
    // One that names no organisation triggers all of them; one that is not JSON is an error.
    fixture.rule(&org, "Again", "up == 0").await;
    assert_eq!(hooks.post(to, "{}").await.status, 202);
    fixture.wait_groups(&org, &[("default", &["Again"])]).await;
    assert_eq!(hooks.post(to, "not json").await.status, 400);
    assert_eq!(hooks.post(to, "[]").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_secret_there_are_no_webhooks() {
    let fixture = rules_fixture(&[]).await;
    for client in [fixture.identity.proxy.client().bearer(""), fixture.identity.proxy.client()] {
        let answer = client.post("/admin/webhooks/alert-rule", "{}").await;
        assert_eq!(answer.status, 401, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_of_admin_matches_its_responses() {
    let fixture = rules_fixture(&[]).await;
    let org = fixture.identity.organisation().await;
    let id = fixture.rule(&org, "Up", "up == 0").await;
    fixture.wait_state(&id, "live").await;
    let service = fixture.identity.service();
    let member = fixture.identity.client(&fixture.identity.member(&org, "viewer").await);
    fixture.identity.device_key(&org, json!({"name": "hub"})).await;
    let revocation = json!({"kind": "jti", "value": org});
    let revoked = service.post("/admin/revocations", revocation.to_string()).await;
    assert_eq!(revoked.status, 201, "{revoked:?}");
    let description = service.get("/admin/openapi.json").await.json();
    assert!(description["openapi"].as_str().unwrap().starts_with("3."), "{description}");
    // Every field of a response is described, and every required one exists.
    for (described, given) in [
        ("/admin/organisations/{organisation}/rules", service.get(&path(&org, "")).await),
        ("/admin/organisations/{organisation}/rules/diff", service.get(&path(&org, "/diff")).await),
        ("/admin/rules/status", service.get("/admin/rules/status").await),
        (
            "/admin/organisations/{organisation}/device-keys",
            service.get(&format!("/admin/organisations/{org}/device-keys")).await,
        ),
        ("/admin/revocations", service.get("/admin/revocations").await),
        ("/admin/whoami", service.get("/admin/whoami").await),
        ("/admin/whoami", member.get("/admin/whoami").await),
    ] {
        let schema = &description["paths"][described]["get"]["responses"]["200"]["content"]["application/json"]
            ["schema"];
        fits(&description, schema, &given.json(), described);
    }
}

/// Whether a value matches a schema, as far as objects, lists and references go.
fn fits(description: &Value, schema: &Value, value: &Value, about: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = description.pointer(reference.trim_start_matches('#')).unwrap();
        return fits(description, target, value, about);
    }
    if value.is_null() {
        let text = schema.to_string();
        assert!(
            text.contains("\"null\"") || schema.as_object().is_none_or(serde_json::Map::is_empty),
            "{about}: null for {schema}"
        );
        return;
    }
    if let Some(all) = schema["allOf"].as_array() {
        let known: Vec<String> = all.iter().flat_map(|part| fields(description, part)).collect();
        for field in value.as_object().unwrap().keys() {
            assert!(known.contains(field), "{about}: {field} is not described");
        }
        return;
    }
    if let Some(some) = schema["oneOf"].as_array() {
        let real = some.iter().find(|part| part["type"] != "null").unwrap();
        return fits(description, real, value, about);
    }
    if let Some(items) = value.as_array() {
        for item in items {
            fits(description, &schema["items"], item, about);
        }
    }
    if let (Some(object), Some(properties)) = (value.as_object(), schema["properties"].as_object())
    {
        for (field, value) in object {
            let of = properties.get(field);
            assert!(of.is_some(), "{about}: {field} is not described");
            let of = of.unwrap();
            fits(description, of, value, &format!("{about}.{field}"));
        }
        for required in schema["required"].as_array().into_iter().flatten() {
            assert!(
                object.contains_key(required.as_str().unwrap()),
                "{about}: {required} is missing"
            );
        }
    }
}

fn fields(description: &Value, schema: &Value) -> Vec<String> {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => description.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    schema["properties"].as_object().map(|all| all.keys().cloned().collect()).unwrap_or_default()
}

// An alert on a metric that does not exist never fires.
#[tokio::test(flavor = "multi_thread")]
async fn alerts_and_documents_name_metrics_that_exist() {
    let fixture = rules_fixture(&[]).await;
    let org = fixture.identity.organisation().await;
    let id = fixture.rule(&org, "Up", "up == 0").await;
    fixture.wait_state(&id, "live").await;
    let exposed = Client::new(&fixture.identity.proxy.internal_url()).get("/metrics").await.text;
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let alerts = root.join("config/monitoring/alerts.yaml");
    let checked = std::process::Command::new("promtool")
        .args(["check", "rules"])
        .arg(&alerts)
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");
    for file in [alerts, root.join("docs/operations/rules.md")] {
        let text = std::fs::read_to_string(&file)
            .unwrap()
            .replace("`…_rules_", "`mimir_tenant_proxy_rules_");
        let names = text.split("mimir_tenant_proxy_rules_").skip(1).map(|rest| {
            let end =
                rest.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(rest.len());
            format!("mimir_tenant_proxy_rules_{}", &rest[..end])
        });
        let names: std::collections::BTreeSet<String> = names.collect();
        assert!(names.len() >= 5, "{names:?}");
        for name in names {
            assert!(exposed.contains(&name), "{}: {name}", file.display());
        }
    }
}

// A rule that Mimir rejects for more than its expression is not a difference that a sync could
// remove.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_rule_is_not_a_difference() {
    let fixture = rules_fixture(&[]).await;
    let org = fixture.identity.organisation().await;
    fixture.rule(&org, "Good", "up == 0").await;
    let id = fixture.rule_with(&org, "Bad", "up", "annotations = '{\"a\": \"{{ 0xzz }}\"}'").await;
    fixture.wait_state(&id, "invalid").await;
    let service = fixture.identity.service();
    let diff = service.get(&path(&org, "/diff")).await.json();
    assert_eq!(diff["in_sync"], true, "{diff}");
    assert!(diff["not_live"][0]["reason"].as_str().unwrap().contains("template"), "{diff}");
    // When it changes it is one, until Mimir has rejected it.
    fixture
        .sql(&format!(
            "set session_replication_role = replica; \
             update alert_rule set annotations = '{{}}' where id = '{id}'"
        ))
        .await;
    let diff = service.get(&path(&org, "/diff")).await.json();
    assert_eq!(diff["in_sync"], false, "{diff}");
}

// Seen: a request with an invalid organisation was taken for a request to sync everybody.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_an_invalid_organisation_is_nobodys() {
    let fixture = rules_fixture(&[]).await;
    fixture.identity.organisation().await;
    let sql = "insert into alert_rule_sync_request (organisation_id) values ('a/b')";
    fixture.sql(sql).await;
    fixture.sync_all().await;
    let sql = "select organisation_id, finished_at is null, outcome->>'problem' \
               from alert_rule_sync_request order by organisation_id nulls last";
    let rows = fixture.identity.database.query(sql).await;
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(rows[0], [text("a/b"), text("f"), text("organisation_id is invalid")], "{rows:?}");
    assert_eq!(rows[1], [None, text("f"), None], "{rows:?}");
}
