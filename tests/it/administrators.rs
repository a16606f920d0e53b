//! Administrators of one organisation, who may be hostile to the others: what they ask of `/admin` delays nobody
//! else.

use std::time::{Duration, Instant};

use harness::{Client, Upstream, wait_until};
use http::Method;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::support::identity::{IdentityFixture, identity_fixture};
use crate::support::responses::ok;

const QUERY: &str = "/prometheus/api/v1/query?query=up";
const OVERLOADED: &str = "too many administrators' requests";

/// Gives an organisation this many keys, some of them made at the same time.
async fn add_keys(identity: &IdentityFixture, organisation: &str, keys: usize) {
    let sql = format!(
        "insert into device_key (organisation_id, name, key_hash, key_hint, created_at)
         select '{organisation}', rpad('hub-' || number || ' ', 180, 'x'), sha256(('{organisation}' || number)::bytea),
             'mtpd_', now() - (number / 10) * interval '1 second'
         from generate_series(1, {keys}) as number"
    );
    identity.database.execute(&sql).await;
}

/// Waits until statements wait for the locks of a test: only then it shows what they delay.
async fn statements_wait(identity: &IdentityFixture) {
    let sql = "select count(*)::text from pg_stat_activity
               where datname = current_database() and wait_event_type = 'Lock'";
    wait_until("statements wait for a lock", Duration::from_secs(5), async || {
        let rows = identity.database.query(sql).await;
        rows[0][0].as_deref() != Some("0")
    })
    .await;
}

// A request that is reset leaves its statement to the database. By the hundred these took all connections: look-ups
// and revocations waited for them until their timeouts.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_administrator_delays_no_look_up_and_no_revocation() {
    let upstream = Upstream::start(ok).await;
    let identity = identity_fixture(&upstream.url(), &[]).await;
    let (a, b) = (identity.organisation().await, identity.organisation().await);
    let hostile = identity.member(&a, "admin").await;
    let admin = Client::h2c(&identity.proxy.url()).bearer(&hostile.token);
    assert_eq!(admin.get("/admin/whoami").await.status, 200);
    let mut unknown = Vec::new();
    for _ in 0..5 {
        unknown.push(identity.client(&identity.member(&b, "viewer").await));
    }
    // What is asked of these takes until its timeout.
    let locks = identity.database.client().await;
    let lock = "begin; lock table organisation, device_key in access exclusive mode";
    locks.batch_execute(lock).await.unwrap();
    for _ in 0..4 {
        let mut flood = JoinSet::new();
        for what in ["limits", "device-keys"] {
            for _ in 0..40 {
                let (admin, path) = (admin.clone(), format!("/admin/organisations/{a}/{what}"));
                flood.spawn(async move {
                    let asked = admin.try_send(Method::GET, &path, "");
                    drop(timeout(Duration::from_millis(100), asked).await);
                });
            }
        }
        flood.join_all().await;
    }
    statements_wait(&identity).await;
    let began = Instant::now();
    let body = json!({"kind": "jti", "value": "x"}).to_string();
    let revoked = identity.service().post("/admin/revocations", body).await;
    assert_eq!(revoked.status, 201, "{revoked:?}");
    for client in &unknown {
        let answer = client.get(QUERY).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let took = began.elapsed();
    println!("a revocation and five look-ups took {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    locks.batch_execute("rollback").await.unwrap();
}

// All lists have one connection. While one organisation's statements hold it, the operator looks into what is going
// on, and another organisation waits for one statement and not for all of them.
#[tokio::test(flavor = "multi_thread")]
async fn statements_of_one_organisation_delay_no_service_and_no_operator() {
    let upstream = Upstream::start(ok).await;
    let identity = identity_fixture(&upstream.url(), &[]).await;
    let (a, b) = (identity.organisation().await, identity.organisation().await);
    let hostile = identity.client(&identity.member(&a, "admin").await);
    let other = identity.client(&identity.member(&b, "admin").await);
    let service = identity.service();
    let keys = |organisation: &str| format!("/admin/organisations/{organisation}/device-keys");
    for (client, organisation) in [(&hostile, &a), (&other, &b), (&service, &a)] {
        assert_eq!(client.get(&keys(organisation)).await.status, 200);
    }
    // With a key, a list is one statement: without, whether the organisation exists is another.
    identity.device_key(&b, json!({"name": "hub"})).await;
    // A new key takes until its timeout, and to read them takes no time.
    let locks = identity.database.client().await;
    locks.batch_execute("begin; lock table device_key in share mode").await.unwrap();
    let mut creating = JoinSet::new();
    for _ in 0..8 {
        let (hostile, path) = (hostile.clone(), keys(&a));
        let body = json!({"name": "hub"}).to_string();
        creating.spawn(async move { hostile.post(&path, body).await });
    }
    sleep(Duration::from_millis(300)).await;
    statements_wait(&identity).await;
    assert!(creating.try_join_next().is_none(), "no key is created meanwhile");
    let of_other = tokio::spawn({
        let path = keys(&b);
        async move {
            let began = Instant::now();
            (other.get(&path).await, began.elapsed())
        }
    });
    let about_a = ["device-keys", "members", "limits"];
    let about_a = about_a.map(|what| format!("/admin/organisations/{a}/{what}"));
    for path in about_a.iter().map(String::as_str).chain(["/admin/organisations"]) {
        let began = Instant::now();
        let answer = service.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let took = began.elapsed();
        assert!(took < Duration::from_millis(500), "{path}: {took:?}");
    }
    let (answer, took) = of_other.await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    println!("another organisation's list took {took:?}");
    // `database.query_timeout` is 2 s.
    assert!(took < Duration::from_secs(3), "{took:?}");
    creating.shutdown().await;
    locks.batch_execute("rollback").await.unwrap();
}

// What is over an organisation's bound is told so, and concerns no other organisation and no operator.
#[tokio::test(flavor = "multi_thread")]
async fn an_organisation_has_so_many_requests_to_admin_at_a_time() {
    let upstream = Upstream::start(ok).await;
    let identity = identity_fixture(&upstream.url(), &[]).await;
    let (a, b) = (identity.organisation().await, identity.organisation().await);
    let admin = identity.client(&identity.member(&a, "admin").await);
    let other = identity.client(&identity.member(&b, "admin").await);
    let path = format!("/admin/organisations/{a}/device-keys");
    assert_eq!(admin.get(&path).await.status, 200);
    let locks = identity.database.client().await;
    locks.batch_execute("begin; lock table device_key in access exclusive mode").await.unwrap();
    let mut asking = JoinSet::new();
    for _ in 0..80 {
        let (admin, path) = (admin.clone(), path.clone());
        asking.spawn(async move { admin.get(&path).await });
    }
    sleep(Duration::from_millis(200)).await;
    statements_wait(&identity).await;
    let began = Instant::now();
    assert_eq!(identity.service().get("/admin/revocations").await.status, 200);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let members = other.get(&format!("/admin/organisations/{b}/members")).await;
    assert_eq!(members.status, 200, "{members:?}");
    let answers = asking.join_all().await;
    let refused: Vec<_> =
        answers.iter().filter(|answer| answer.text.contains(OVERLOADED)).collect();
    assert!(refused.len() >= 16, "{} of {}", refused.len(), answers.len());
    for answer in refused {
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
    }
    locks.batch_execute("rollback").await.unwrap();
    assert_eq!(admin.get(&path).await.status, 200);
}

// Each answer that nobody reads takes memory until its timeout, so an organisation has no more of them than slots.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_read_keeps_its_slot() {
    const SLOTS: usize = 2;
    let upstream = Upstream::start(ok).await;
    let identity = identity_fixture(&upstream.url(), &[]).await;
    let (a, b) = (identity.organisation().await, identity.organisation().await);
    let person = identity.member(&a, "admin").await;
    let (admin, other) =
        (identity.client(&person), identity.client(&identity.member(&b, "admin").await));
    add_keys(&identity, &a, 1000).await;
    let path = format!("/admin/organisations/{a}/device-keys");
    let (one, small) = (admin.get(&path).await.json(), format!("{path}?limit=1"));
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", person.token);
    let mut silent = Vec::new();
    for _ in 0..SLOTS {
        let mut socket =
            TcpStream::connect(&identity.proxy.url()["http://".len()..]).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        let come = async {
            while socket.peek(&mut head).await.unwrap() < head.len() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(10), come).await.expect("an answer begins");
        assert_eq!(&head, b"HTTP/1.1 200");
        silent.push(socket);
    }
    let refused = admin.get(&small).await;
    assert!(refused.status == 503 && refused.text.contains(OVERLOADED), "{refused:?}");
    // Another organisation, and a revocation, do not wait for these.
    let of_other = other.get(&format!("/admin/organisations/{b}/device-keys")).await;
    assert_eq!(of_other.status, 200, "{of_other:?}");
    let key = format!("{path}/{}", one["device_keys"][0]["id"].as_str().unwrap());
    assert_eq!(admin.send(Method::DELETE, &key, "").await.status, 200);
    drop(silent);
    wait_until("the slots are free", Duration::from_secs(10), async || {
        admin.get(&small).await.status == 200
    })
    .await;
}

// An answer with all keys of a large organisation has megabytes.
#[tokio::test(flavor = "multi_thread")]
async fn device_keys_are_listed_page_by_page() {
    let upstream = Upstream::start(ok).await;
    let identity = identity_fixture(&upstream.url(), &[]).await;
    let (a, b) = (identity.organisation().await, identity.organisation().await);
    let admin = identity.client(&identity.member(&a, "admin").await);
    add_keys(&identity, &a, 1005).await;
    let foreign = identity.device_key(&b, json!({"name": "hub"})).await;
    let path = format!("/admin/organisations/{a}/device-keys");
    let page = async |parameters: &str| {
        let answer = admin.get(&format!("{path}{parameters}")).await;
        assert_eq!(answer.status, 200, "{parameters}: {answer:?}");
        let json = answer.json();
        let keys = json["device_keys"].as_array().unwrap().iter();
        let ids: Vec<String> = keys.map(|key| key["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(json["complete"], json["next"].is_null(), "{parameters}");
        let next = json["next"].as_str().map(str::to_owned);
        assert!(next.is_none() || next.as_ref() == ids.last(), "{parameters}");
        (ids, next)
    };
    let sql = "select id::text from device_key where organisation_id = '";
    let sql = format!("{sql}{a}' order by created_at desc, id");
    let all: Vec<String> =
        identity.database.query(&sql).await.into_iter().flatten().flatten().collect();
    // As a client asks that knows of no pages.
    let (first, next) = page("").await;
    assert_eq!(first, all[..1000]);
    let (rest, end) = page(&format!("?after={}", next.unwrap())).await;
    assert_eq!((rest, end), (all[1000..].to_vec(), None));
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let (ids, next) = page(&format!("?limit=335&after={after}")).await;
        found.extend(ids);
        let Some(next) = next else { break };
        after = next;
    }
    assert_eq!(found, all);
    for (filter, count) in [("HUB-77%20", 1), ("metrics:write", 10), (all[7].as_str(), 1), ("y", 0)]
    {
        let (ids, _) = page(&format!("?limit=10&filter={filter}")).await;
        assert_eq!(ids.len(), count, "{filter}");
    }
    let (foreign, nobodys) = (foreign["id"].as_str().unwrap(), uuid::Uuid::new_v4());
    for wrong in [
        "limit=1001".to_owned(),
        "after=x".to_owned(),
        format!("after={foreign}"),
        format!("after={nobodys}"),
        "page=2".to_owned(),
    ] {
        let answer = admin.get(&format!("{path}?{wrong}")).await;
        assert_eq!(answer.status, 400, "{wrong}: {answer:?}");
    }
    // The command line lists them all.
    let args = ["device-key", "list", "--organisation", &a, "--json"];
    let listed = crate::support::identity::command(&identity.database, &args).stdout;
    let listed: Vec<serde_json::Value> = serde_json::from_slice(&listed).unwrap();
    assert_eq!(listed.len(), 1005);
}
