//! Limits of single devices, and limits from the database.

use std::time::{Duration, Instant};

use harness::{Client, Postgres, ProxyOptions, Upstream, wait_until};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::identity::{
    ADMIN_KEY, IdentityFixture, command, command_with, identity_fixture, identity_fixture_on,
};
use crate::support::responses::ok;
use crate::support::single::PUSH;

const OTLP: &str = "/otlp/v1/metrics";
const SHORT: [(&str, &str); 2] = [("limits.burst", "\"1s\""), ("limits.max_wait", "\"0ms\"")];

async fn device(identity: &IdentityFixture, organisation: &str) -> Client {
    // Any number of the letter x is a message of protobuf.
    let device = identity.device(organisation, &["metrics:write", "metrics:read"]).await;
    device.header("content-type", "application/x-protobuf")
}

async fn set_limit(identity: &IdentityFixture, organisation: &str, name: &str, value: &str) {
    let sql = format!(
        "insert into organisation_limit (organisation_id, name, value) \
         values ('{organisation}', '{name}', '{value}') \
         on conflict (organisation_id, name) do update set value = excluded.value"
    );
    identity.database.execute(&sql).await;
}

async fn limits_of(identity: &IdentityFixture, organisation: &str) -> Value {
    identity.service().get(&format!("/admin/organisations/{organisation}/limits")).await.json()
}

/// Statuses of some pushes, one after the other.
async fn pushes(client: &Client, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(client.post(PUSH, "x").await.status.as_u16());
    }
    statuses
}

fn passed(statuses: &[u16]) -> usize {
    statuses.iter().filter(|status| **status == 200).count()
}

// A broken hub in a loop: what it sends beyond its limit is refused with the device named, and of its
// organisation and of others every request passes.
#[tokio::test(flavor = "multi_thread")]
async fn one_device_over_its_limit_takes_nothing_from_others() {
    let upstream = Upstream::start(ok).await;
    let mut settings = SHORT.to_vec();
    settings.extend([
        ("limits.device_push_requests_per_second", "20"),
        ("limits.device_otlp_bytes_per_second", "1000"),
        // Enough for the others, and not for what the broken one sends.
        ("limits.push_requests_per_second", "150"),
    ]);
    let identity = identity_fixture(&upstream.url(), &settings).await;
    let (a, b) = (identity.organisation().await, identity.organisation().await);
    let broken = device(&identity, &a).await;
    let mut others = Vec::new();
    for organisation in [&a, &a, &a, &a, &b] {
        others.push(device(&identity, organisation).await);
    }
    others.push(identity.client(&identity.member(&a, "editor").await));
    let until = Instant::now() + Duration::from_secs(3);
    let mut loops = JoinSet::new();
    for _ in 0..4 {
        let broken = broken.clone();
        loops.spawn(async move {
            let mut statuses = Vec::new();
            while Instant::now() < until {
                statuses.push(broken.post(PUSH, "x").await.status.as_u16());
            }
            statuses
        });
    }
    let mut calm = JoinSet::new();
    for other in others.clone() {
        calm.spawn(async move {
            let mut statuses = Vec::new();
            while Instant::now() < until {
                statuses.push(other.post(PUSH, "x").await.status.as_u16());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            statuses
        });
    }
    let calm = calm.join_all().await.concat();
    let flood = loops.join_all().await.concat();
    println!(
        "{} of {} pass of the broken device, {} of the others",
        passed(&flood),
        flood.len(),
        calm.len()
    );
    assert!(calm.len() > 50 && passed(&calm) == calm.len(), "{calm:?}");
    assert!((40..=100).contains(&passed(&flood)), "{}", passed(&flood));
    assert!(flood.len() > 5 * passed(&flood), "{}", flood.len());
    let refused = broken.post(PUSH, "x").await;
    let refused = if refused.status == 503 { refused } else { pushed_until_refused(&broken).await };
    assert!(refused.text.contains("the device exceeds its requests per second"), "{refused:?}");
    let after: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=4).contains(&after), "{refused:?}");
    // Bytes are charged when they have come.
    assert_eq!(broken.post(OTLP, vec![b'x'; 8000]).await.status, 200);
    let refused = broken.post(OTLP, "x").await;
    assert_eq!(refused.status, 503, "by OTLP: {refused:?}");
    let after: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=4).contains(&after), "{refused:?}");
    assert_eq!(others[0].post(OTLP, vec![b'x'; 800]).await.status, 200);
    the_device_is_named(&identity, &a, &broken).await;
}

async fn pushed_until_refused(client: &Client) -> harness::Answer {
    for _ in 0..10_000 {
        let answer = client.post(PUSH, "x").await;
        if answer.status == 503 {
            return answer;
        }
    }
    panic!("no push was refused");
}

async fn the_device_is_named(identity: &IdentityFixture, organisation: &str, broken: &Client) {
    let whoami = broken.get("/admin/whoami").await.json();
    let id = whoami["principal"]["id"].as_str().or(whoami["id"].as_str()).unwrap().to_owned();
    let report = identity.service().get("/admin/limits").await.json();
    let devices = report["devices"].as_array().unwrap();
    assert_eq!((devices.len(), &report["devices_total"]), (1, &json!(1)), "{report:#}");
    let device = &devices[0];
    assert_eq!((&device["id"], &device["kind"]), (&json!(id), &json!("device")));
    assert_eq!(device["organisation"], json!(organisation));
    assert!(device["refused_total"].as_u64().unwrap() > 100, "{device}");
    let by: Vec<_> = device["refused"].as_array().unwrap().iter().map(|by| &by["limit"]).collect();
    assert_eq!(by, ["requests_per_second", "bytes_per_second"], "{device}");
    let own = limits_of(identity, organisation).await;
    assert_eq!((&own["refused_total"], own["devices"].as_array().unwrap().len()), (&json!(0), 1));
    assert_eq!(own["device_limits"]["push"]["requests_per_second"], 20);
    assert_eq!(own["sources"]["device_push_requests_per_second"], "config");
    assert_eq!(own["sources"]["device_query_in_flight"], "default");
    for (metric, wanted) in [("limited_devices", 1.0), ("limited_organisations", 0.0)] {
        let metric = format!("mimir_tenant_proxy_{metric}");
        assert_eq!(identity.proxy.metric(&metric).await, wanted, "{metric}");
    }
    let reason = "mimir_tenant_proxy_requests_total{surface=\"push\",outcome=\"rejected\",reason=\"device_request_rate\"}";
    assert!(identity.proxy.metric(reason).await > 100.0);
    // One line for all of it.
    let log = identity.proxy.process.log();
    let lines: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &Value| line["message"] == "Device over its limit")
        .collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(
        (&lines[0]["principal.id"], &lines[0]["organisation.id"]),
        (&json!(id), &json!(organisation))
    );
    // Accounts that owe nothing are forgotten.
    wait_until("no accounts", Duration::from_secs(30), async || {
        identity.proxy.metric("mimir_tenant_proxy_device_accounts").await == 0.0
    })
    .await;
}

// A row holds within a second, on every copy, for accounts that exist, and its end as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_from_the_database_holds_on_every_copy_within_a_second() {
    let upstream = Upstream::start(ok).await;
    let mut settings = SHORT.to_vec();
    settings.push(("limits.from_database", "true"));
    let identity = identity_fixture(&upstream.url(), &settings).await;
    let options = ProxyOptions::new(&identity.issuer.url(), &upstream.url())
        .set("database.url", &format!("{:?}", identity.database.url()))
        .set("auth.admin_key", &format!("{ADMIN_KEY:?}"));
    let options = settings.iter().fold(options, |options, (key, value)| options.set(key, value));
    let second = options.start().await;
    let (a, b) = (identity.organisation().await, identity.organisation().await);
    let key = identity.device_key(&a, json!({"name": "hub"})).await;
    let key = key["key"].as_str().unwrap();
    let copies = [identity.proxy.client().bearer(key), second.client().bearer(key)];
    let other = device(&identity, &b).await;
    for client in copies.iter().chain([&other]) {
        assert_eq!(passed(&pushes(client, 20).await), 20);
    }
    // A thousand a second of burst, then two.
    for name in ["push_requests_per_second", "device_push_requests_per_second"] {
        set_limit(&identity, &a, name, "2").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        for client in &copies {
            assert!(passed(&pushes(client, 20).await) < 10, "{name}");
        }
        assert_eq!(passed(&pushes(&other, 20).await), 20, "{name}");
        let limits = limits_of(&identity, &a).await;
        assert_eq!(limits["sources"][name], "database", "{limits:#}");
        assert_eq!(limits["has_own_limits"], true);
        let sql = format!("delete from organisation_limit where organisation_id = '{a}'");
        identity.database.execute(&sql).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        for client in &copies {
            assert_eq!(passed(&pushes(client, 20).await), 20, "{name}");
        }
        assert_eq!(limits_of(&identity, &a).await["sources"][name], "default");
    }
    // An organisation that is gone takes its rows along.
    set_limit(&identity, &b, "push_in_flight", "7").await;
    wait_until("the row is read", Duration::from_secs(1), async || {
        limits_of(&identity, &b).await["limits"]["push"]["in_flight"] == 7
    })
    .await;
    assert_eq!(identity.proxy.metric("mimir_tenant_proxy_limit_rows").await, 1.0);
    identity.database.execute(&format!("delete from organisation where id = '{b}'")).await;
    wait_until("no rows", Duration::from_secs(1), async || {
        identity.proxy.metric("mimir_tenant_proxy_limit_rows").await == 0.0
    })
    .await;
}

// Rows that are no limit: told in the log, a metric, /admin and check-config, and neither do they lift
// a limit nor does anything stop to pass. The table refuses what can be refused there.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_row_is_told_and_leaves_the_limit_that_was() {
    let upstream = Upstream::start(ok).await;
    let own = "\"select organisation_id, name, value from odd_limit\"";
    let mut settings = SHORT.to_vec();
    settings.push(("database.organisation_limit_query", own));
    let database = Postgres::shared().await.database("limits").await;
    database
        .execute(
            "create table odd_limit (organisation_id text, name text, value text); \
             insert into odd_limit values ('x', 'push_in_flight', '5')",
        )
        .await;
    let identity = identity_fixture_on(database, &upstream.url(), &settings).await;
    let a = identity.organisation().await;
    let hub = device(&identity, &a).await;
    let notify = "select pg_notify('mimir_tenant_proxy', 'organisation_limit')";
    let put = async |rows: &str| {
        let sql = format!("truncate odd_limit; insert into odd_limit values {rows}; {notify}");
        identity.database.execute(&sql).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    put(&format!("('{a}', 'push_requests_per_second', '2')")).await;
    assert!(passed(&pushes(&hub, 20).await) < 10);
    for wrong in ["'0'", "'-1'", "null", "'lots'", "repeat('9', 1000000)"] {
        put(&format!(
            "('{a}', 'push_requests_per_second', {wrong}), ('{a}', 'pushes', '1'), (null, '', '')"
        ))
        .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let statuses = pushes(&hub, 20).await;
        assert!((1..10).contains(&passed(&statuses)), "{wrong}: {statuses:?}");
        assert_eq!(identity.proxy.metric("mimir_tenant_proxy_limit_rows_invalid").await, 3.0);
        let limits = limits_of(&identity, &a).await;
        assert_eq!(limits["limits"]["push"]["requests_per_second"], 2, "{wrong}: {limits:#}");
        let problems = limits["problems"].as_array().unwrap();
        assert_eq!(problems.len(), 2, "{limits:#}");
        assert!(problems[0]["problem"].as_str().unwrap().contains("the last valid one holds"));
    }
    let log = identity.proxy.process.log();
    assert!(log.contains("Invalid limit row") && !log.contains("99999"), "{log}");
    let all = identity.service().get("/admin/limits").await.json();
    assert_eq!((&all["rows"]["invalid"], &all["rows"]["organisations"]), (&json!(3), &json!(1)));
    let query = ("MTP__DATABASE__ORGANISATION_LIMIT_QUERY", own.trim_matches('"'));
    let checked = command_with(&identity.database, &[query], &["check-config", "--connect"]);
    let told = format!(
        "{}{}",
        String::from_utf8_lossy(&checked.stdout),
        String::from_utf8_lossy(&checked.stderr)
    );
    assert!(
        told.contains("no limits") && told.contains("\"pushes\"") && !checked.status.success(),
        "{told}"
    );
    // Ours.
    for wrong in ["0", "-1", "", "1e9", "10 MB"] {
        let sql = format!(
            "insert into organisation_limit values ('{a}', 'push_bytes_per_second', '{wrong}')"
        );
        let refusal = identity.database.try_query("", &sql).await.unwrap_err();
        // A violated check, and no mistake in the statement.
        assert_eq!(refusal.code, "23514", "{wrong}: {refusal:?}");
    }
    for right in ["1", "1MiB", "20 GiB", "none"] {
        set_limit(&identity, &a, "push_bytes_per_second", right).await;
    }
}

// The last limits hold while the database is away, however long, and what changed meanwhile holds when it
// is back. A copy that starts without it has the configuration's.
#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_while_the_database_is_away() {
    let mut postgres = Postgres::start().await;
    let upstream = Upstream::start(ok).await;
    let mut settings = SHORT.to_vec();
    settings.extend([("limits.from_database", "true"), ("tenancy.membership", "\"claims\"")]);
    let database = postgres.database("limits").await;
    let identity = identity_fixture_on(database, &upstream.url(), &settings).await;
    let a = identity.organisation().await;
    let hub = device(&identity, &a).await;
    set_limit(&identity, &a, "push_requests_per_second", "2").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(passed(&pushes(&hub, 20).await) < 10);
    postgres.stop().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let statuses = pushes(&hub, 20).await;
    assert!((1..10).contains(&passed(&statuses)), "{statuses:?}");
    assert!(identity.proxy.metric("mimir_tenant_proxy_limit_row_read_failures_total").await > 0.0);
    postgres.start_again().await;
    set_limit(&identity, &a, "push_requests_per_second", "none").await;
    wait_until("the new limit holds", Duration::from_secs(20), async || {
        limits_of(&identity, &a).await["limits"]["push"]["requests_per_second"].is_null()
    })
    .await;
    assert_eq!(passed(&pushes(&hub, 20).await), 20);
}

// Without the table, a proxy that is told to read it does not start with limits that nobody gave it.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_missing_is_told() {
    let database = Postgres::shared().await.database("limits").await;
    assert!(command(&database, &["migrate"]).status.success());
    database.execute("drop table organisation_limit").await;
    let from_database = ("MTP__LIMITS__FROM_DATABASE", "true");
    let checked = command_with(&database, &[from_database], &["check-config", "--connect"]);
    let told = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(
        told.contains("there is no table") && told.contains("organisation_limit"),
        "{checked:?}"
    );
}
