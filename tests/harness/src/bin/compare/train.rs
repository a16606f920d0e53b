//! What `scripts/pgo` optimises for: the cases of the comparison, briefly, and the other ways in which
//! callers come, by the harness's own client.

use std::time::Duration;

use bytes::Bytes;
use harness::load::{Load, Until, request};
use harness::{Client, Issuer, ORG_A, Postgres, Proxy, ProxyOptions, Received, Upstream, showcase};
use http::Response;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use serde_json::json;

use crate::cases::QUERY;

const ADMIN_KEY: &str = "operator-key-of-at-least-thirty-two-characters";
/// As many as a small fleet has.
const USERS: usize = 200;
const DEVICES: usize = 50;
/// What one device sends at a time: a few samples, or what it kept during an outage.
const PUSHES: [usize; 3] = [1_500, 50 << 10, 1 << 20];

/// Serves all of it for so many seconds, and ends the proxy as an operator would: an instrumented build
/// writes its profile at its end.
pub async fn run(seconds: u64) {
    let issuer = Issuer::start().await;
    let upstream = Upstream::start(answer).await;
    let postgres = Postgres::start().await;
    let database = postgres.database("train").await;
    showcase::two_organisations(&database).await;
    let users: Vec<String> = (0..USERS).map(|_| uuid::Uuid::new_v4().to_string()).collect();
    let values: Vec<String> =
        users.iter().map(|user| format!("('{user}', '{ORG_A}', 'editor')")).collect();
    let insert = "insert into membership (user_id, organisation_id, role) values";
    database.execute(&format!("{insert} {}", values.join(", "))).await;
    let mut proxy = ProxyOptions::new(&issuer.url(), &upstream.url())
        .set("database.url", &format!("{:?}", database.url()))
        .set("auth.admin_key", &format!("{ADMIN_KEY:?}"))
        .start()
        .await;
    let token = |user: &String| issuer.token().claim("sub", json!(user)).sign();
    let tokens: Vec<String> = users.iter().map(|user| format!("Bearer {}", token(user))).collect();
    let devices = devices(&proxy).await;

    let parts = [
        ("reads", 6, reads(&tokens)),
        ("pushes", 5, pushes(&devices)),
        ("every token new", 2, reads(&fresh(&issuer, &users, seconds))),
        ("answers of 1 MiB", 1, streams(&tokens)),
    ];
    let all: u64 = parts.iter().map(|(_, share, _)| share).sum();
    for (name, share, requests) in &parts {
        let time = Duration::from_secs_f64((seconds * share) as f64 / all as f64);
        let address = harness::load::address(&proxy.url());
        let until = Until::After(time);
        let load = Load { address, requests, connections: 16, rate: None, until };
        let served = tokio::task::block_in_place(|| load.run());
        println!("{name}: {} requests", served.requests);
    }
    others(&proxy, &tokens[0]).await;
    proxy.process.signal("TERM");
    let status = proxy.process.wait(Duration::from_secs(60)).expect("the proxy's end");
    assert!(status.success(), "{status}\n{}", proxy.process.log());
}

fn reads(authorizations: &[String]) -> Vec<Vec<u8>> {
    let request =
        |authorization: &String| request("GET", &format!("{QUERY}?query=up"), authorization, b"");
    authorizations.iter().map(request).collect()
}

fn pushes(authorizations: &[String]) -> Vec<Vec<u8>> {
    let sizes = PUSHES.iter().cycle();
    let push = |(authorization, size): (&String, &usize)| {
        request("POST", "/api/v1/push", authorization, &vec![b'x'; *size])
    };
    authorizations.iter().zip(sizes).map(push).collect()
}

fn streams(authorizations: &[String]) -> Vec<Vec<u8>> {
    let request = |authorization: &String| request("GET", "/api/v1/user_stats", authorization, b"");
    authorizations.iter().map(request).collect()
}

/// Other tokens of the same users: after a sign-in, or when a token was refreshed.
fn fresh(issuer: &Issuer, users: &[String], seconds: u64) -> Vec<String> {
    let count = usize::try_from(seconds).expect("few") * 2_000;
    let users = users.iter().cycle().take(count);
    users
        .map(|user| format!("Bearer {}", issuer.token().claim("sub", json!(user)).sign()))
        .collect()
}

async fn devices(proxy: &Proxy) -> Vec<String> {
    let admin = proxy.client().bearer(ADMIN_KEY);
    let path = format!("/admin/organisations/{ORG_A}/device-keys");
    let mut keys = Vec::new();
    for number in 0..DEVICES {
        let made = admin.post(&path, json!({"name": format!("hub {number}")}).to_string()).await;
        assert_eq!(made.status, 201, "{made:?}");
        keys.push(format!("Bearer {}", made.json()["key"].as_str().expect("a key")));
    }
    keys
}

/// A little of HTTP/2, of refusals and of what operators read.
async fn others(proxy: &Proxy, authorization: &str) {
    let h2c = Client::h2c(&proxy.url()).header("authorization", authorization);
    let unknown = proxy.client().bearer("mtpd_unknown");
    for _ in 0..300 {
        assert_eq!(h2c.get(&format!("{QUERY}?query=up")).await.status, 200);
        assert_eq!(unknown.get(QUERY).await.status, 401);
    }
    let operator = Client::new(&proxy.internal_url());
    for _ in 0..20 {
        assert_eq!(operator.get("/metrics").await.status, 200);
        assert_eq!(operator.get("/ready").await.status, 200);
    }
}

async fn answer(received: Received) -> Response<BoxBody<Bytes, std::io::Error>> {
    let size = match (received.method.as_str(), received.target.as_str()) {
        ("GET", "/api/v1/user_stats") => 1 << 20,
        ("GET", _) => 1 << 10,
        _ => 0,
    };
    if let Some(mut body) = received.body {
        while let Some(Ok(_)) = body.frame().await {}
    }
    let body = Bytes::from(vec![b'x'; size]);
    Response::new(Full::new(body).map_err(|never| match never {}).boxed())
}
