//! From the ID of a refused request by docs/runbooks/refusals.md to one log line that names the cause.

use std::time::Duration;

use harness::{Answer, Client, Upstream, free_port, wait_until};
use http::Method;
use serde_json::{Value, json};

use crate::documents::root;
use crate::support::identity::{IdentityFixture, Person, identity_fixture, push};
use crate::support::responses::ok;

const QUERY: &str = "/prometheus/api/v1/query?query=up";

/// Follows the runbook: the line with the ID, and what the table says of its reason.
async fn cause_of(fixture: &IdentityFixture, answer: &Answer, about: &str) -> String {
    let id = answer.header("x-request-id").to_owned();
    assert!(!id.is_empty(), "{about}: {answer:?}");
    let mut found = Vec::new();
    // Lines are written in batches.
    wait_until(&format!("{about}: the line"), Duration::from_secs(10), async || {
        let log = fixture.proxy.process.log();
        let lines = log.lines().filter(|line| line.contains(&format!("\"request.id\":\"{id}\"")));
        let lines = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
        found = lines.filter(|line| line["message"] == "Request").collect();
        !found.is_empty()
    })
    .await;
    assert_eq!(found.len(), 1, "{about}: {found:?}");
    let line = &found[0];
    let reason = line["reason"].as_str().unwrap_or_else(|| panic!("{about}: {line}")).to_owned();
    let status = answer.status.as_u16();
    assert_eq!(line["http.status"], status, "{about}");
    let reference = std::fs::read_to_string(root().join("docs/reference/reasons.md")).unwrap();
    let row = reference.lines().find(|row| row.starts_with(&format!("| `{reason}` |")));
    let cells: Vec<&str> = row.unwrap_or_else(|| panic!("{reason}")).split(" | ").collect();
    assert!(cells[1].split(", ").any(|known| known == status.to_string()), "{about}: {cells:?}");
    assert_eq!(line["outcome"], cells[2], "{about}");
    reason
}

fn with(fixture: &IdentityFixture, token: &str) -> Client {
    fixture.proxy.client().bearer(token)
}

#[expect(clippy::too_many_lines, reason = "a case for each reason")]
#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_leads_to_one_log_line_that_names_the_cause() {
    let upstream = Upstream::start(ok).await;
    let settings = [("cors.allowed_origins", "[\"https://app.example.com\"]")];
    let fixture = identity_fixture(&upstream.url(), &settings).await;
    let (org, other) = (fixture.organisation().await, fixture.organisation().await);
    let viewer = fixture.member(&org, "viewer").await;
    let editor = fixture.member(&org, "editor").await;
    let both = fixture.member(&org, "viewer").await;
    fixture.join(&both, &other, "viewer").await;
    let nobody = fixture.person();
    let token = |person: &Person| {
        let token = fixture.issuer.token().claim("sub", json!(person.id.to_string()));
        token.claim("session_id", json!(person.session.to_string()))
    };
    let key = fixture.device_key(&org, json!({"name": "hub", "scopes": ["metrics:read"]})).await;
    let text = key["key"].as_str().unwrap().to_owned();
    let mut mistyped = text.clone();
    mistyped.pop();
    let revoked =
        fixture.device_key(&org, json!({"name": "old", "scopes": ["metrics:read"]})).await;
    let path =
        format!("/admin/organisations/{org}/device-keys/{}", revoked["id"].as_str().unwrap());
    let gone = fixture.service().send(Method::DELETE, &path, "").await;
    assert!(gone.status.is_success(), "{gone:?}");

    let proxy = fixture.proxy.client();
    let member = fixture.client(&viewer);
    let nested = format!("{}1{}", "(".repeat(200), ")".repeat(200));
    let absent = format!("/admin/organisations/{org}/device-keys/{}", uuid::Uuid::new_v4());
    let preflight = proxy
        .clone()
        .header("origin", "https://elsewhere.example")
        .header("access-control-request-method", "GET");
    let selecting = |value: &str| member.clone().header("x-scope-orgid", value);
    let cases: Vec<(&str, Answer)> = vec![
        ("origin_not_allowed", preflight.send(Method::OPTIONS, QUERY, "").await),
        ("no_route", proxy.get("/nothing").await),
        ("method_not_allowed", member.send(Method::PUT, "/api/v1/push", "").await),
        ("malformed_target", member.get("/prometheus/api/v1/query?query=up;x=1").await),
        ("unsupported_content_type", {
            let text = fixture.client(&editor).header("content-type", "text/plain");
            text.post("/alertmanager/api/v2/silences", "{}").await
        }),
        (
            "expression_limit",
            member.post_form("/prometheus/api/v1/query", &format!("query={nested}")).await,
        ),
        ("no_credential", proxy.get(QUERY).await),
        (
            "malformed_credential",
            proxy.clone().header("authorization", "Digest x").get(QUERY).await,
        ),
        ("malformed_token", with(&fixture, "a.b.c").get(QUERY).await),
        ("bad_signature", with(&fixture, &token(&viewer).with_signature("AAAA")).get(QUERY).await),
        (
            "malformed_claims",
            with(&fixture, &token(&viewer).without("sub").sign()).get(QUERY).await,
        ),
        (
            "wrong_issuer",
            with(&fixture, &token(&viewer).claim("iss", json!("x")).sign()).get(QUERY).await,
        ),
        (
            "wrong_role",
            with(&fixture, &token(&viewer).claim("role", json!("anon")).sign()).get(QUERY).await,
        ),
        (
            "wrong_audience",
            with(&fixture, &token(&viewer).claim("aud", json!("x")).sign()).get(QUERY).await,
        ),
        ("expired", with(&fixture, &token(&viewer).expires_in(-3600).sign()).get(QUERY).await),
        (
            "anonymous",
            with(&fixture, &token(&viewer).claim("is_anonymous", json!(true)).sign())
                .get(QUERY)
                .await,
        ),
        ("malformed_device_key", with(&fixture, &mistyped).get(QUERY).await),
        ("revoked_device_key", with(&fixture, revoked["key"].as_str().unwrap()).get(QUERY).await),
        ("malformed_selector", selecting("a, b").get(QUERY).await),
        ("no_selector", fixture.client(&both).get(QUERY).await),
        ("no_organisation", fixture.client(&nobody).get(QUERY).await),
        ("not_a_member", selecting(&other).get(QUERY).await),
        ("missing_scope", push(&member, "up").await),
        ("not_found", fixture.service().send(Method::DELETE, &absent, "").await),
    ];
    for (reason, answer) in cases {
        assert_eq!(cause_of(&fixture, &answer, reason).await, reason);
    }

    // What is broken, and a limit, need a proxy of their own.
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let broken = identity_fixture(&nowhere, &[]).await;
    let org = broken.organisation().await;
    let viewer = broken.member(&org, "viewer").await;
    let answer = broken.client(&viewer).get(QUERY).await;
    assert_eq!(cause_of(&broken, &answer, "upstream").await, "upstream_unreachable");
    let limits = [
        ("limits.query_requests_per_second", "1"),
        ("limits.burst", "\"1s\""),
        ("limits.max_wait", "\"0s\""),
    ];
    let limited = identity_fixture(&upstream.url(), &limits).await;
    let org = limited.organisation().await;
    let viewer = limited.member(&org, "viewer").await;
    let mut answer = limited.client(&viewer).get(QUERY).await;
    for _ in 0..5 {
        if answer.status != 200 {
            break;
        }
        answer = limited.client(&viewer).get(QUERY).await;
    }
    assert_eq!(cause_of(&limited, &answer, "limit").await, "request_rate");
}
