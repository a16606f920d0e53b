//! Silences: who may create and expire them, their author, and what must stay unreachable.

use harness::{Client, Mimir};
use http::Method;
use serde_json::{Value, json};

use super::*;

/// Log lines of the audit about silences.
fn audit(fixture: &AlertsFixture) -> Vec<Value> {
    let log = fixture.identity.proxy.process.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["target"] == "audit" && line["message"] == "Silence").collect()
}

// The whole of it: who may, who is told, and what is written down.
#[tokio::test(flavor = "multi_thread")]
async fn editors_silence_viewers_read_and_others_see_nothing() {
    let fixture = alerts_fixture(&[("log.filter", "\"error\"")]).await;
    let editor = fixture.identity.member(&fixture.a, "editor").await;
    let editor_client = fixture.with_email(&editor, "alice@example.com");
    let viewer = fixture.of_a("viewer").await;
    let (owner_of_b, service) = (fixture.of_b("owner").await, fixture.identity.service());
    fixture.hasten().await;
    fixture.fire("Hot").await;

    // The author is the editor, whatever the page says.
    let id = make(&editor_client, "Hot").await;
    let made = viewer.get(&path_of(&id)).await.json();
    assert_eq!(made["createdBy"], "alice@example.com", "{made}");
    assert_eq!(made["comment"], "on purpose");
    assert_eq!(made["status"]["state"], "active");
    for target in [SILENCES, "/alertmanager/api/v2/silences?filter=alertname%3D%22Hot%22"] {
        assert!(viewer.get(target).await.text.contains(&id), "{target}");
    }
    wait_until("the alert is silenced", Duration::from_secs(10), async || {
        let alerts = viewer.get(ALERTS).await.json();
        alerts[0]["status"]["silencedBy"] == json!([id])
    })
    .await;

    // A viewer may not, nor a device, whatever its row says.
    let device = fixture.identity.device(&fixture.a, &["alerts:read"]).await;
    assert_eq!(device.get(ALERTS).await.status, 200);
    for client in [&viewer, &device] {
        let refused = json(client).post(SILENCES, silence("Hot").to_string()).await;
        assert_eq!(refused.status, 403, "{refused:?}");
        assert!(error(&refused).contains("alerts:write"), "{refused:?}");
        assert_eq!(client.send(Method::DELETE, &path_of(&id), "").await.status, 403);
    }

    // B neither sees it nor ends it, by id or by selector.
    for target in [ALERTS, "/alertmanager/api/v2/alerts/groups", SILENCES] {
        let seen = owner_of_b.get(target).await;
        assert_eq!((seen.status.as_u16(), seen.text.trim()), (200, "[]"), "{target}");
    }
    assert_eq!(owner_of_b.get(&path_of(&id)).await.status, 404);
    assert_eq!(owner_of_b.send(Method::DELETE, &path_of(&id), "").await.status, 404);
    let mut taken = silence("Hot");
    taken["id"] = json!(id);
    let taken = json(&owner_of_b).post(SILENCES, taken.to_string()).await;
    assert_eq!(taken.status, 404, "{taken:?}");
    let posing = owner_of_b.clone().header("x-scope-orgid", &fixture.a);
    assert_eq!(posing.send(Method::DELETE, &path_of(&id), "").await.status, 403);
    assert_eq!(viewer.get(&path_of(&id)).await.json()["status"]["state"], "active");

    // A service acts under its own name, and one organisation at a time.
    let both = format!("{}|{}", fixture.a, fixture.b);
    for method in [Method::GET, Method::POST] {
        let several = service.clone().header("x-scope-orgid", &both);
        assert_eq!(several.send(method, SILENCES, "").await.status, 400);
    }
    let service = service.header("x-scope-orgid", &fixture.a);
    let by_service = make(&service, "Hot").await;
    assert_eq!(viewer.get(&path_of(&by_service)).await.json()["createdBy"], "admin_key");

    // Without an address the author is the user's id.
    let by_id = make(&fixture.with_email(&editor, ""), "Hot").await;
    assert_eq!(viewer.get(&path_of(&by_id)).await.json()["createdBy"], editor.id.to_string());

    // It is ended once, and again.
    for _ in 0..2 {
        assert_eq!(editor_client.send(Method::DELETE, &path_of(&id), "").await.status, 200);
    }
    assert_eq!(viewer.get(&path_of(&id)).await.json()["status"]["state"], "expired");

    // Each change is in the audit log, whatever the log leaves out, and nothing of what it matches.
    wait_until("the audit is written", Duration::from_secs(5), async || audit(&fixture).len() >= 7)
        .await;
    let lines = audit(&fixture);
    let post = "POST /alertmanager/api/v2/silences";
    let first = &lines[0];
    assert_eq!((&first["action"], &first["outcome"]), (&json!(post), &json!("done")), "{first}");
    assert_eq!(first["principal.id"], editor.id.to_string());
    assert_eq!((&first["organisation.id"], &first["target.id"]), (&json!(fixture.a), &json!(id)));
    assert!(first["silence.ends_at"].as_str().unwrap().starts_with("20"), "{first}");
    let of_b: Vec<&Value> =
        lines.iter().filter(|line| line["organisation.id"] == fixture.b.as_str()).collect();
    assert!(of_b.iter().all(|line| line["outcome"] == "refused_by_mimir"), "{of_b:#?}");
    assert_eq!(of_b.len(), 2);
    let ended = lines.iter().filter(|line| {
        line["action"] == "DELETE /alertmanager/api/v2/silence/{silence}"
            && line["outcome"] == "done"
            && line["target.id"] == id.as_str()
    });
    assert_eq!(ended.count(), 2);
    assert!(lines.iter().all(|line| !line.to_string().contains("Hot")), "{lines:#?}");
}

// Go matches names of fields without regard to case, and the last counts: seen here on Mimir itself.
#[tokio::test(flavor = "multi_thread")]
async fn the_author_of_a_silence_cannot_be_smuggled() {
    let fixture = alerts_fixture(&[]).await;
    let editor = fixture.of_a("editor").await;
    let with = |more: &str| {
        let plain = silence("Hot").to_string();
        format!("{}, {more}}}", plain.strip_suffix('}').unwrap())
    };
    let authors = async |client: &Client| -> Vec<String> {
        let all = client.get(SILENCES).await.json();
        let each = all.as_array().unwrap().iter();
        each.map(|silence| silence["createdBy"].as_str().unwrap().to_owned()).collect()
    };
    let smuggled = with(r#""CREATEDBY": "somebody else""#);
    let direct = fixture.mimir.as_tenant(&fixture.b);
    assert_eq!(json(&direct).post(SILENCES, smuggled.clone()).await.status, 200);
    assert_eq!(authors(&direct).await, ["somebody else"]);

    for body in [&smuggled, &with(r#""createdby": "x""#), &with(r#""EndsAt": "x""#)] {
        let refused = json(&editor).post(SILENCES, body.clone()).await;
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(error(&refused).contains("another case"), "{refused:?}");
    }
    for more in [r#""createdBy": "somebody else""#, r#""created\u0042y": "somebody else""#] {
        let made = json(&editor).post(SILENCES, with(more)).await;
        assert_eq!(made.status, 200, "{made:?}");
    }
    let authors = authors(&editor).await;
    assert_eq!(authors.len(), 2);
    assert!(authors.iter().all(|author| !author.contains("somebody")), "{authors:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silence_is_a_small_json_object_in_the_clear() {
    let fixture = alerts_fixture(&[]).await;
    let editor = fixture.of_a("editor").await;
    let mut large = silence("Hot");
    large["comment"] = json!("x".repeat(64 << 10));
    let (whole, large) = (silence("Hot").to_string(), large.to_string());
    let typed = |content_type: &str| editor.clone().header("content-type", content_type);
    for (client, body, status, words) in [
        (json(&editor), large, 413, "65536 bytes"),
        (json(&editor).header("content-encoding", "gzip"), whole.clone(), 415, "not compressed"),
        (typed("text/plain"), whole.clone(), 415, "application/json"),
        (typed("application/x-www-form-urlencoded"), whole.clone(), 415, "application/json"),
        (editor.clone(), whole.clone(), 415, "application/json"),
        (json(&editor), String::new(), 400, "not valid JSON"),
        (json(&editor), "{".to_owned(), 400, "not valid JSON"),
        (json(&editor), format!("[{whole}]"), 400, "object"),
    ] {
        let refused = client.post(SILENCES, body).await;
        assert_eq!(refused.status, status, "{refused:?}");
        assert!(error(&refused).contains(words), "{refused:?}");
    }
    // What the silence says is Mimir's to judge, in its own words.
    let refused = json(&editor).post(SILENCES, "{}").await;
    assert_eq!(refused.status, 422, "{refused:?}");
    assert!(refused.text.contains("is required"), "{refused:?}");
    let mut over = silence("Hot");
    over["endsAt"] = json!("2020-01-01T00:00:00Z");
    let refused = json(&editor).post(SILENCES, over.to_string()).await;
    assert_eq!((refused.status.as_u16(), &refused.text[..1]), (400, "\""), "{refused:?}");
    assert_eq!(editor.get(SILENCES).await.text.trim(), "[]");

    // In pieces, over HTTP/2, with a type that says more.
    let pieces: Vec<_> = whole.as_bytes().chunks(7).map(bytes::Bytes::copy_from_slice).collect();
    let pieces = futures_util::stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>));
    let client = typed("application/json; charset=utf-8");
    let made = client.post(SILENCES, reqwest::Body::wrap_stream(pieces)).await;
    assert_eq!(made.status, 200, "{made:?}");
    let owner = fixture.identity.member(&fixture.a, "owner").await;
    let h2c = Client::h2c(&fixture.identity.proxy.url()).bearer(&owner.token);
    let id = make(&h2c, "Cold").await;
    assert_eq!(h2c.send(Method::DELETE, &path_of(&id), "").await.status, 200);
}

// An empty 200 would read as "nothing is silenced" (observatorium/api answers so).
#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_cannot_be_read_is_an_error() {
    let fixture = alerts_fixture(&[]).await;
    let viewer = fixture.of_a("viewer").await;
    for target in [SILENCES, ALERTS, "/alertmanager/api/v2/alerts/groups"] {
        let refused = viewer.get(&format!("{target}?filter=%7Bfoo")).await;
        assert_eq!(refused.status, 400, "{target}: {refused:?}");
        assert!(refused.text.contains("bad matcher format"), "{refused:?}");
    }
    let named = viewer.get(&path_of("not-a-uuid")).await;
    assert_eq!(named.status, 400, "{named:?}");
    assert!(error(&named).contains("UUID"), "{named:?}");
}

// A configuration with a secret in every field of Alertmanager's that can hold one, of which Mimir
// masks only those that are declared as secrets.
pub(super) const SECRETS: &str = r##"
global:
  smtp_smarthost: "relay.example.com:587"
  smtp_from: "hunter2@example.com"
  smtp_auth_username: "hunter2"
  smtp_auth_password: "hunter2"
  slack_api_url: "https://hooks.slack.com/services/hunter2"
route:
  receiver: all
receivers:
- name: all
  webhook_configs:
  - url: "https://hook.example.com/hunter2?token=hunter2"
    http_config:
      authorization: {type: Bearer, credentials: hunter2}
      http_headers: {X-Api-Key: {values: ["hunter2"], secrets: ["hunter2"]}}
  email_configs:
  - to: "alice@example.com"
    headers: {X-Token: hunter2}
  pagerduty_configs:
  - {routing_key: hunter2, details: {key: hunter2}}
  slack_configs:
  - {channel: "#x", title: "hunter2"}
"##;

/// What would show a configuration, and what a caller gets.
const CONFIGURATIONS: [(&str, u16); 5] = [
    (STATUS, 200),
    ("/api/v1/alerts", 404),
    ("/multitenant_alertmanager/configs", 404),
    ("/alertmanager/api/v1/status", 404),
    ("/api/v1/grafana/config", 404),
];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_configuration_can_be_read() {
    let fixture = alerts_fixture(&[]).await;
    fixture.mimir.configure_alertmanager(&fixture.a, SECRETS).await;
    let direct = fixture.mimir.as_tenant(&fixture.a);
    let shown = direct.get(STATUS).await.text;
    assert!(shown.contains("hunter2"), "Mimir masks more than it did: {shown}");
    let owner = fixture.of_a("owner").await;
    let service = fixture.identity.service().header("x-scope-orgid", &fixture.a);
    for client in [owner.clone(), service, owner.clone().header("accept-encoding", "gzip")] {
        for (target, status) in CONFIGURATIONS {
            let answer = client.get(target).await;
            assert_eq!(answer.status, status, "{target}: {answer:?}");
            assert!(!answer.text.contains("hunter2"), "{target}: {answer:?}");
        }
        // The receivers' names are no secret: a page says where an alert goes.
        assert_eq!(
            client.get("/alertmanager/api/v2/receivers").await.text.trim(),
            r#"[{"name":"all"}]"#
        );
    }
    // What is left is as it was.
    let (status, direct) = (owner.get(STATUS).await, direct.get(STATUS).await.json());
    assert_eq!(status.header("content-length"), status.body.len().to_string());
    assert_eq!(status.json()["versionInfo"], direct["versionInfo"]);
    assert_eq!(status.json()["uptime"], direct["uptime"]);
    assert!(status.json()["config"]["original"].as_str().unwrap().contains("not shown"));
    // And over HTTP/2.
    let member = fixture.identity.member(&fixture.a, "viewer").await;
    let h2c = Client::h2c(&fixture.identity.proxy.url()).bearer(&member.token);
    assert_eq!(h2c.get(STATUS).await.text, status.text);
}

// Alerts come from the ruler alone, and configuration from whoever operates Mimir.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_forged_or_configured() {
    let fixture = alerts_fixture(&[]).await;
    let owner = json(&fixture.of_a("owner").await);
    let service = json(&fixture.identity.service()).header("x-scope-orgid", &fixture.a);
    let alert = json!([{"labels": {"alertname": "Forged"}}]).to_string();
    let document = json!({"alertmanager_config": "route: {receiver: x}"}).to_string();
    for client in [owner, service] {
        for (method, target, body) in [
            (Method::POST, ALERTS, &alert),
            (Method::PUT, ALERTS, &alert),
            (Method::POST, "/alertmanager/api/v1/alerts", &alert),
            (Method::POST, "/alertmanager/api/v2/alerts/", &alert),
            (Method::POST, "/alertmanager//api/v2/alerts", &alert),
            (Method::POST, "/api/v1/alerts", &document),
            (Method::DELETE, "/api/v1/alerts", &String::new()),
            (Method::POST, "/alertmanager/-/reload", &String::new()),
            (Method::POST, "/multitenant_alertmanager/delete_tenant_config", &String::new()),
        ] {
            let answer = client.send(method.clone(), target, body.clone()).await;
            let refused = [404, 405].contains(&answer.status.as_u16());
            assert!(refused, "{method} {target}: {answer:?}");
        }
    }
    let direct = fixture.mimir.as_tenant(&fixture.a);
    assert_eq!(direct.get(ALERTS).await.text.trim(), "[]");
    let stored = direct.get("/api/v1/alerts").await;
    assert!(!stored.text.contains("receiver: x"), "{stored:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_may_end_a_silence() {
    let fixture =
        alerts_fixture(&[("cors.allowed_origins", "[\"https://app.example.com\"]")]).await;
    let page = fixture.identity.proxy.client().header("origin", "https://app.example.com");
    for method in ["GET", "POST", "DELETE"] {
        let wanted = "authorization,content-type,x-scope-orgid";
        let asking = page.clone().header("access-control-request-method", method);
        let asking = asking.header("access-control-request-headers", wanted);
        let answer = asking.send(Method::OPTIONS, &path_of("x"), "").await;
        assert_eq!(answer.status, 204, "{answer:?}");
        assert!(answer.header("access-control-allow-methods").contains(method), "{answer:?}");
        for name in wanted.split(',') {
            assert!(answer.header("access-control-allow-headers").contains(name), "{answer:?}");
        }
    }
    let editor = fixture.of_a("editor").await.header("origin", "https://app.example.com");
    let id = make(&editor, "Hot").await;
    for (target, method) in [(SILENCES, Method::GET), (path_of(&id).as_str(), Method::DELETE)] {
        let answer = editor.send(method, target, "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), "https://app.example.com");
    }
}

// What the isolation above rests on.
#[tokio::test(flavor = "multi_thread")]
async fn silences_by_id_are_the_tenant_s_own_at_mimir_too() {
    let mimir = Mimir::shared().await;
    let (a, b) = (harness::fresh_organisation(), harness::fresh_organisation());
    let id = make(&mimir.as_tenant(&a), "Hot").await;
    assert_eq!(mimir.as_tenant(&b).send(Method::DELETE, &path_of(&id), "").await.status, 404);
    assert_eq!(mimir.as_tenant(&a).get(&path_of(&id)).await.status, 200);
}
