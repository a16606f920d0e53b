//! Every reason that can be provoked from outside, provoked.

use std::collections::BTreeSet;
use std::time::Duration;

use harness::{
    Answer, Client, Issuer, ORG_A, ORG_B, Postgres, Proxy, RawUpstream, SigningKey, TokenBuilder,
    free_port, raw_exchange, wait_until,
};
use http::Method;
use mimir_tenant_proxy::reason::Reason;
use serde_json::{Value, json};
use strum::VariantArray as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{QUERY, lines, proxy_before, refusals};
use crate::support::identity::{IdentityFixture, Person, identity_fixture_on};

/// Reasons that this test does not provoke: why, and what does.
const ELSEWHERE: &[(&str, &str)] = &[
    ("admin_broken", "a fault of the proxy itself: no request provokes it"),
    ("conflict", "needs a held deletion that changes: rules::guard"),
    ("upstream_circuit_open", "needs an address that hangs: an_open_circuit_answers_at_once"),
    ("upstream_saturated", "a race of two workers: the limit of all is reached before"),
    (
        "memory_short",
        "needs memory that runs out: reads_are_shed_before_memory_runs_out_and_pushes_are_answered",
    ),
    (
        "processor_short",
        "needs a worker that is late: lists_and_reads_are_shed_while_the_processor_is_short",
    ),
];

const PUSH: &str = "/api/v1/push";

/// What was refused, and with which reason.
struct Provoked<'a> {
    proxy: &'a Proxy,
    all: Vec<(&'static str, String, u16)>,
}

impl<'a> Provoked<'a> {
    fn of(proxy: &'a Proxy) -> Self {
        Self { proxy, all: Vec::new() }
    }

    fn note(&mut self, reason: &'static str, answer: &Answer) {
        let id = answer.header("x-request-id").to_owned();
        assert!(!id.is_empty(), "{reason}: {answer:?}");
        self.all.push((reason, id, answer.status.as_u16()));
    }

    fn note_raw(&mut self, reason: &'static str, answer: &str) {
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let lower = answer.to_lowercase();
        let id = lower.split("x-request-id: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let (Some(status), Some(id)) = (status, id) else { panic!("{reason}: {answer:?}") };
        self.all.push((reason, id.to_owned(), status));
    }

    /// From the identifier in the answer to the line, by the runbook: search the log for `request.id`, read
    /// `reason`, look it up in the reference. And to the entry in the list.
    async fn find_all(self, reference: &str) -> BTreeSet<&'static str> {
        let (proxy, all) = (self.proxy, self.all);
        wait_until("all lines are there", Duration::from_secs(20), async || {
            let lines = lines(proxy);
            all.iter().all(|(_, id, _)| lines.iter().any(|line| is_of(line, id)))
        })
        .await;
        let lines = lines(proxy);
        let mut wrong = Vec::new();
        for (reason, id, status) in &all {
            let found: Vec<_> = lines.iter().filter(|line| is_of(line, id)).collect();
            let [line] = &found[..] else { panic!("{reason}: {found:#?}") };
            // A response that breaks off had its status before.
            if line["reason"] != **reason || line["http.status"] != *status {
                wrong.push(format!("{reason} with {status}: {line}"));
                continue;
            }
            // An instance was asked, so the line names it.
            let was_asked = ["upstream_timeout", "upstream_unreachable", "upstream_unreadable"];
            if reason.starts_with("upstream_broken") || was_asked.contains(reason) {
                assert!(line["upstream.address"].is_string(), "{line}");
            }
            let row = reference.lines().find(|row| row.starts_with(&format!("| `{reason}` |")));
            let row = row.unwrap_or_else(|| panic!("{reason} is not in the reference"));
            let cells: Vec<&str> = row.split(" | ").collect();
            let mut known = cells[1].split(", ");
            let is_known = cells[1] == "Mimir's" || known.any(|one| one == status.to_string());
            if !is_known || line["outcome"] != cells[2] {
                wrong.push(format!("{reason} with {status}: {row}"));
            }
            let shown = refusals(proxy, &format!("?limit=1000&reason={reason}")).await;
            let shown = shown["refusals"].as_array().unwrap().clone();
            let found = shown.iter().find(|one| one["request_id"] == **id);
            assert_eq!(found.unwrap_or_else(|| panic!("{reason}: {shown:?}"))["status"], *status);
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        all.into_iter().map(|(reason, ..)| reason).collect()
    }
}

fn is_of(line: &Value, id: &str) -> bool {
    line["message"] == "Request" && line["request.id"] == id
}

/// An upstream that fails as the target asks: `…case=NAME`.
async fn failing_upstream() -> RawUpstream {
    RawUpstream::start(|mut socket| async move {
        let mut head = Vec::new();
        let mut buffer = [0; 8192];
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            match socket.read(&mut buffer).await {
                Ok(length) if length > 0 => head.extend_from_slice(&buffer[..length]),
                _ => return,
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let target = head.split(' ').nth(1).unwrap_or_default();
        let case = target.split("case=").nth(1).unwrap_or_default();
        let case = case.split(['&', ' ']).next().unwrap_or_default();
        let answer = |status: &str, kind: &str, text: &str| {
            format!(
                "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n{text}",
                text.len()
            )
        };
        let partly = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf".to_owned();
        let text = match case {
            "late" => {
                tokio::time::sleep(Duration::from_secs(20)).await;
                return;
            }
            "broken" => return,
            "half" => partly,
            "idle" => {
                let _ = socket.write_all(partly.as_bytes()).await;
                tokio::time::sleep(Duration::from_secs(20)).await;
                return;
            }
            "busy" => answer(
                "503 Service Unavailable",
                "text/plain",
                "Limit of concurrent GET requests reached (8), try again later.\n",
            ),
            "loading" => answer("406 Not Acceptable", "text/plain", "not loaded"),
            "unconfigured" => answer("412 Precondition Failed", "text/plain", "no configuration"),
            "absent" => answer("404 Not Found", "text/plain", "404 page not found"),
            "severed" => answer(
                "500 Internal Server Error",
                "application/json",
                r#"{"status":"error","errorType":"internal","error":"too many unhealthy instances in the ring"}"#,
            ),
            "unreadable" => answer("200 OK", "application/json", "<html>"),
            "hold" => {
                tokio::time::sleep(Duration::from_secs(4)).await;
                answer("200 OK", "application/json", "{}")
            }
            _ if target.contains("/config/v1/rules") || target.contains("/api/v1/alerts") => {
                answer("500 Internal Server Error", "text/plain", "broken")
            }
            // As Mimir, which answers when it has the body.
            _ if head.contains("waits") => {
                tokio::time::sleep(Duration::from_secs(20)).await;
                return;
            }
            _ if head.contains("moved-away") => answer("302 Found", "text/plain", "elsewhere"),
            _ if head.contains("gave-up") => answer("408 Request Timeout", "text/plain", ""),
            _ => answer("200 OK", "application/json", "{}"),
        };
        let _ = socket.write_all(text.as_bytes()).await;
        // What is still coming must not reset the connection.
        let _ = tokio::time::timeout(Duration::from_millis(300), socket.read(&mut buffer)).await;
    })
    .await
}

async fn signed_in(identity: &IdentityFixture, organisations: &[&str], role: &str) -> Person {
    let person = identity.person();
    let (session, user) = (person.session, person.id);
    let sql = format!("insert into auth.sessions (id, user_id) values ('{session}', '{user}')");
    identity.database.execute(&sql).await;
    for organisation in organisations {
        identity.join(&person, organisation, role).await;
    }
    person
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_leads_from_its_identifier_to_one_line_with_its_cause() {
    let reference = include_str!("../../../docs/reference/reasons.md");
    let upstream = failing_upstream().await;
    let (with_database, with_limits, away) = tokio::join!(
        by_request(&upstream, reference),
        by_limits(&upstream, reference),
        by_outages(reference)
    );
    let provoked: BTreeSet<_> = with_database.into_iter().chain(with_limits).chain(away).collect();
    let elsewhere: BTreeSet<_> = ELSEWHERE.iter().map(|(reason, _)| *reason).collect();
    let twice: Vec<_> = provoked.intersection(&elsewhere).collect();
    assert!(twice.is_empty(), "provoked after all: {twice:?}");
    let all: BTreeSet<_> = Reason::VARIANTS.iter().map(|reason| reason.name()).collect();
    let missing: Vec<_> = all.iter().filter(|one| !provoked.contains(*one)).collect();
    let missing: Vec<_> = missing.into_iter().filter(|one| !elsewhere.contains(*one)).collect();
    assert!(missing.is_empty(), "neither provoked nor excused: {missing:?}");
    println!("{} of {} reasons", provoked.len(), all.len());
}

/// What a request, its caller or Mimir is at fault for.
async fn by_request(upstream: &RawUpstream, reference: &str) -> BTreeSet<&'static str> {
    let database = Postgres::shared().await.database("refusals").await;
    // As Supabase Auth has it.
    database
        .execute("create schema auth; create table auth.sessions (id uuid primary key, user_id uuid not null, not_after timestamptz)")
        .await;
    let settings = [
        ("auth.admin_required_aal", "\"aal2\""),
        ("auth.check_sessions", "true"),
        ("auth.jwks_cool_down", "\"5s\""),
        ("limits.push_body_bytes", "\"1KiB\""),
        ("limits.body_idle_timeout", "\"500ms\""),
        ("upstream.response_timeout", "\"1s\""),
        ("upstream.idle_timeout", "\"500ms\""),
        ("upstream.eject_after", "1000"),
        ("rules.enabled", "true"),
        ("channels.enabled", "true"),
    ];
    let identity = identity_fixture_on(database, &upstream.url(), &settings).await;
    let proxy = &identity.proxy;
    let (a, b) = (identity.organisation().await, identity.organisation().await);
    let editor = signed_in(&identity, &[&a], "editor").await;
    let (client, base) = (identity.client(&editor), proxy.client());
    let mut found = Provoked::of(proxy);

    // The request itself.
    let preflight = base.clone().header("origin", "https://elsewhere.example");
    let preflight = preflight.header("access-control-request-method", "GET");
    found.note("origin_not_allowed", &preflight.send(Method::OPTIONS, QUERY, "").await);
    found.note("no_route", &base.get("/nowhere").await);
    found.note("method_not_allowed", &base.send(Method::PUT, PUSH, "").await);
    found.note("malformed_target", &base.get(&format!("{QUERY};x=1")).await);
    let large = base.clone().header("x-padding", &"x".repeat(33 << 10));
    found.note("head_too_large", &large.get(QUERY).await);
    found.note("unexpected_body", &client.send(Method::GET, "/prometheus/api/v1/rules", "x").await);
    let json = client.clone().header("content-type", "application/json");
    let text = client.clone().header("content-type", "text/plain");
    let silence = text.post("/alertmanager/api/v2/silences", "{}").await;
    found.note("unsupported_content_type", &silence);
    found.note(
        "malformed_silence",
        &json.post("/alertmanager/api/v2/silences", "{\"comment\"").await,
    );
    let deep = format!("/prometheus/api/v1/query?query={}1{}", "(".repeat(200), ")".repeat(200));
    found.note("expression_limit", &client.get(&deep).await);
    let nameless = raw_exchange(&proxy.url(), b"GET /nowhere HTTP/1.1\r\n\r\n").await;
    found.note_raw("malformed_request", &nameless);

    let writer = by_body(&identity, &mut found, &a).await;

    // Who.
    by_credential(&identity, &mut found, &a, &editor).await;

    // May they.
    let selecting = |selector: &str| client.clone().header("x-scope-orgid", selector);
    found.note("malformed_selector", &selecting("a|").get(QUERY).await);
    found.note("not_a_member", &selecting(&b).get(QUERY).await);
    let both = signed_in(&identity, &[&a, &b], "viewer").await;
    found.note("no_selector", &identity.client(&both).get(QUERY).await);
    let nowhere = signed_in(&identity, &[], "viewer").await;
    found.note("no_organisation", &identity.client(&nowhere).get(QUERY).await);
    let reserved = "__mimir_cluster";
    let sql = format!("insert into organisation (id) values ('{reserved}')");
    identity.database.execute(&sql).await;
    let reserved = signed_in(&identity, &[reserved], "viewer").await;
    found.note("no_tenant", &identity.client(&reserved).get(QUERY).await);
    found.note("missing_scope", &writer.get(QUERY).await);
    found.note("service_only", &client.get("/admin/revocations").await);
    let by_password = identity.client(&signed_in(&identity, &[&a], "admin").await);
    let keys = by_password.get(&format!("/admin/organisations/{a}/device-keys")).await;
    found.note("second_factor_missing", &keys);

    // What Mimir does, and does not.
    for (reason, case) in [
        ("upstream_timeout", "late"),
        ("upstream_broken", "broken"),
        ("upstream_severed", "severed"),
    ] {
        found.note(reason, &client.get(&format!("{QUERY}&case={case}")).await);
    }
    for (reason, case) in [("upstream_broken_body", "half"), ("upstream_idle_body", "idle")] {
        let answer = client.open(Method::GET, &format!("{QUERY}&case={case}"), "").await;
        let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
        found.all.push((reason, id, answer.status().as_u16()));
        assert!(answer.bytes().await.is_err(), "{case}");
    }
    for (reason, case) in [
        ("alertmanager_busy", "busy"),
        ("alertmanager_loading", "loading"),
        ("alertmanager_unconfigured", "unconfigured"),
        ("alertmanager_absent", "absent"),
    ] {
        found.note(reason, &client.get(&format!("/alertmanager/api/v2/alerts?case={case}")).await);
    }
    found.note(
        "upstream_unreadable",
        &client.get("/alertmanager/api/v2/status?case=unreadable").await,
    );

    // The proxy's own interface.
    let service = identity.service();
    let missing = "00000000-0000-4000-8000-000000000000";
    let path = format!("/admin/organisations/{a}/device-keys/{missing}");
    found.note("not_found", &service.get(&path).await);
    let diff = |what: &str| format!("/admin/organisations/{a}/{what}/diff");
    found.note("ruler_unavailable", &service.get(&diff("rules")).await);
    found.note("alertmanager_unavailable", &service.get(&diff("channels")).await);
    found.find_all(reference).await
}

/// What is wrong with a body, and what Mimir says of it. A client that may only write.
async fn by_body(
    identity: &IdentityFixture,
    found: &mut Provoked<'_>,
    organisation: &str,
) -> Client {
    let proxy = &identity.proxy;
    let writer = identity.device(organisation, &["metrics:write"]).await;
    let key = identity
        .device_key(organisation, json!({"name": "raw", "scopes": ["metrics:write"]}))
        .await;
    let head = format!(
        "POST {PUSH} HTTP/1.1\r\nHost: proxy\r\nAuthorization: Bearer {}\r\n",
        key["key"].as_str().unwrap()
    );
    found.note("body_too_large", &writer.post(PUSH, vec![b'x'; 2 << 10]).await);
    let raw =
        async |rest: &str| raw_exchange(&proxy.url(), format!("{head}{rest}").as_bytes()).await;
    found.note_raw("body_slow", &raw("User-Agent: waits\r\nContent-Length: 10\r\n\r\nhalf").await);
    found.note_raw("body_malformed", &raw("Transfer-Encoding: chunked\r\n\r\nzz\r\n").await);
    found.note_raw("body_incomplete", &half_closed(proxy, &head).await);
    let gave_up = writer.clone().header("user-agent", "gave-up");
    found.note("body_slow_for_upstream", &gave_up.post(PUSH, "x").await);
    let moved = writer.clone().header("user-agent", "moved-away");
    found.note("upstream_misdirected", &moved.post(PUSH, "x").await);
    let exporter = writer.clone().header("content-type", "application/json");
    found.note("body_too_deep", &exporter.post("/otlp/v1/metrics", "[".repeat(101)).await);
    let zstd = exporter.header("content-encoding", "zstd");
    found.note("unsupported_content_encoding", &zstd.post("/otlp/v1/metrics", "x").await);
    writer
}

async fn by_credential(
    identity: &IdentityFixture,
    found: &mut Provoked<'_>,
    organisation: &str,
    person: &Person,
) {
    let base = identity.proxy.client();
    found.note("no_credential", &base.get(QUERY).await);
    let basic = base.clone().header("authorization", "Negotiate YTpi");
    found.note("malformed_credential", &basic.get(QUERY).await);
    let with = async |token: &str| base.clone().bearer(token).get(QUERY).await;
    found.note("malformed_token", &with("a.b.c").await);
    let issuer = &identity.issuer;
    let user = || {
        let token = issuer.token().claim("sub", json!(person.id.to_string()));
        token.claim("session_id", json!(person.session.to_string()))
    };
    let none = user().header("alg", json!("none")).with_signature("");
    found.note("wrong_algorithm", &with(&none).await);
    found.note("bad_signature", &with(&user().with_signature("AAAA")).await);
    let unknown = |name: &str| SigningKey::generate(name, harness::Algorithm::ES256);
    found.note("unknown_key", &with(&user().signed_by(&unknown("never-1")).sign()).await);
    found.note("key_pending", &with(&user().signed_by(&unknown("never-2")).sign()).await);
    let later = harness::samples::now_ms() / 1000 + 600;
    let elsewhere = "https://elsewhere.example/auth/v1";
    let claims: [(&'static str, TokenBuilder); 8] = [
        ("malformed_claims", user().without("sub")),
        ("wrong_issuer", user().claim("iss", json!(elsewhere))),
        ("wrong_role", user().claim("role", json!("supabase_admin"))),
        ("wrong_audience", user().claim("aud", json!("other"))),
        ("expired", user().expires_in(-60)),
        ("not_yet_valid", user().claim("nbf", json!(later))),
        ("anonymous", user().claim("is_anonymous", json!(true))),
        ("oauth_client", user().claim("client_id", json!("app"))),
    ];
    for (reason, token) in claims {
        found.note(reason, &with(&token.sign()).await);
    }
    found.note("session_ended", &identity.client(&identity.person()).get(QUERY).await);
    let revoked = signed_in(identity, &[organisation], "viewer").await;
    let sql = format!(
        "insert into revocation (kind, value) values ('session_id', '{}')",
        revoked.session
    );
    identity.database.execute(&sql).await;
    let client = identity.client(&revoked);
    let mut last = client.get(QUERY).await;
    wait_until("it is revoked", Duration::from_secs(10), async || {
        last = client.get(QUERY).await;
        last.status == 401
    })
    .await;
    found.note("revoked", &last);

    found.note("malformed_device_key", &with("mtpd_0").await);
    let key = identity.device_key(organisation, json!({"name": "x", "scopes": ["metrics:read"]}));
    let known = key.await;
    let known = known["key"].as_str().unwrap();
    for (reason, column) in
        [("revoked_device_key", "revoked_at"), ("expired_device_key", "expires_at")]
    {
        let request = json!({"name": reason, "scopes": ["metrics:read"]});
        let key = identity.device_key(organisation, request).await;
        let (id, key) = (key["id"].as_str().unwrap(), key["key"].as_str().unwrap());
        let sql = format!(
            "update device_key set {column} = now() - interval '30 days' where id = '{id}'"
        );
        identity.database.execute(&sql).await;
        let mut last = with(key).await;
        wait_until("it has ended", Duration::from_secs(10), async || {
            last = with(key).await;
            last.status == 401
        })
        .await;
        found.note(reason, &last);
    }
    let sql = "delete from device_key where name = 'x'";
    identity.database.execute(sql).await;
    let mut last = with(known).await;
    wait_until("it is unknown", Duration::from_secs(10), async || {
        last = with(known).await;
        last.status == 401
    })
    .await;
    found.note("unknown_device_key", &last);
}

/// Half a body, and no more to come.
async fn half_closed(proxy: &Proxy, head: &str) -> String {
    let address = proxy.url().replace("http://", "");
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("{head}Content-Length: 10\r\n\r\nhalf");
    socket.write_all(request.as_bytes()).await.unwrap();
    socket.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// What an organisation's limits refuse.
async fn by_limits(upstream: &RawUpstream, reference: &str) -> BTreeSet<&'static str> {
    let issuer = Issuer::start().await;
    let of =
        |proxy: &Proxy, organisation: &str| proxy.client().bearer(&issuer.user_of(organisation));
    let held = format!("{QUERY}&case=hold");
    let mut all = BTreeSet::new();

    let rates = [
        (
            "request_rate",
            "limits.query_requests_per_second",
            "byte_rate",
            "limits.push_bytes_per_second",
        ),
        (
            "device_request_rate",
            "limits.device_query_requests_per_second",
            "device_byte_rate",
            "limits.device_push_bytes_per_second",
        ),
    ];
    for (requests, of_requests, bytes, of_bytes) in rates {
        let settings = [
            (of_requests, "1"),
            (of_bytes, "\"1KiB\""),
            ("limits.burst", "\"1s\""),
            ("limits.max_wait", "\"0s\""),
        ];
        let proxy = proxy_before(&issuer, &upstream.url(), &settings).await;
        let mut found = Provoked::of(&proxy);
        let client = of(&proxy, ORG_A);
        found.note(requests, &until_refused(&client, Method::GET, QUERY, 0).await);
        found.note(bytes, &until_refused(&client, Method::POST, PUSH, 4 << 10).await);
        all.extend(found.find_all(reference).await);
    }

    let cases = [
        ("requests_in_flight", ("limits.query_in_flight", "1"), ORG_A),
        ("device_requests_in_flight", ("limits.device_query_in_flight", "1"), ORG_A),
        ("organisation_share", ("limits.organisation_percent", "10"), ORG_A),
        ("overloaded", ("limits.in_flight", "1"), ORG_B),
    ];
    for (reason, setting, second) in cases {
        let mut settings = vec![("limits.in_flight", "4"), ("limits.max_wait", "\"0s\"")];
        settings.retain(|(key, _)| *key != setting.0);
        settings.push(setting);
        let proxy = proxy_before(&issuer, &upstream.url(), &settings).await;
        let first = of(&proxy, ORG_A);
        let second = if second == ORG_A { first.clone() } else { of(&proxy, second) };
        let holding: Vec<_> = (0..3)
            .map(|_| {
                let (first, held) = (first.clone(), held.clone());
                tokio::spawn(async move { first.get(&held).await })
            })
            .collect();
        wait_until("one is held", Duration::from_secs(10), async || {
            proxy.metric("mimir_tenant_proxy_requests_in_flight").await > 0.0
        })
        .await;
        let mut found = Provoked::of(&proxy);
        found.note(reason, &second.get(&held).await);
        all.extend(found.find_all(reference).await);
        for one in holding {
            one.await.unwrap();
        }
    }
    all
}

async fn until_refused(client: &Client, method: Method, target: &str, bytes: usize) -> Answer {
    for _ in 0..20 {
        let answer = client.send(method.clone(), target, vec![b'x'; bytes]).await;
        if answer.status.as_u16() >= 400 {
            return answer;
        }
    }
    panic!("{target} is never refused")
}

/// What the proxy cannot reach.
async fn by_outages(reference: &str) -> BTreeSet<&'static str> {
    let issuer = Issuer::start().await;
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let mut all = BTreeSet::new();

    let without_keys = format!("\"{nowhere}/keys\"");
    let database = "\"postgres://nobody:nothing@127.0.0.1:1/none\"";
    type Case<'a> = (&'static str, &'a str, Vec<(&'a str, &'a str)>);
    let cases: [Case<'_>; 4] = [
        ("upstream_unreachable", &nowhere, vec![]),
        ("upstream_unresolved", "http://nowhere.invalid:1", vec![]),
        (
            "keys_unavailable",
            &nowhere,
            vec![("auth.jwks_url", &*without_keys), ("auth.jwks_allow_http", "true")],
        ),
        ("database_unavailable", &nowhere, vec![("database.url", database)]),
    ];
    for (reason, upstream, settings) in cases {
        let proxy = proxy_before(&issuer, upstream, &settings).await;
        let mut found = Provoked::of(&proxy);
        let client = proxy.client().bearer(&issuer.user_of(ORG_A));
        found.note(reason, &client.get(QUERY).await);
        all.extend(found.find_all(reference).await);
    }
    all
}
