//! `check-config --connect`: a dry start against everything that the configuration names.

use std::process::Command;

use bytes::Bytes;
use harness::{Issuer, Mimir, Postgres, Proxy, Received, Upstream, free_port};
use http::{Response, StatusCode};

use crate::database::{login, migrated};
use crate::support::identity::{command, command_with};
use crate::support::responses::{Body, full, ok};

/// The exit code and the output of both streams.
fn connect(lines: &str) -> (i32, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("proxy.toml");
    std::fs::write(&file, lines).unwrap();
    let mut command = Command::new(Proxy::binary());
    command.args(["check-config", "--connect", "--config"]).arg(&file);
    let output = command.output().unwrap();
    let said =
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), said)
}

fn configuration(issuer: &str, upstream: &str, rest: &str) -> String {
    format!("auth.issuer = {issuer:?}\nupstream.urls = [{upstream:?}]\n{rest}\n")
}

fn line<'a>(said: &'a str, start: &str) -> &'a str {
    said.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}\n{said}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_asks_key_set_database_and_mimir_and_names_roles_that_may_do_nothing() {
    let (issuer, mimir) = (Issuer::start().await, Mimir::shared().await);
    let database = Postgres::shared().await.database("connect").await;
    let url = database.url();
    let with = |more: &str| {
        let rest = format!("database.url = {url:?}\nrules.enabled = true\n{more}");
        connect(&configuration(&issuer.url(), &mimir.url(), &rest))
    };
    let (code, said) = with("");
    assert_eq!(code, 64, "no tables yet: {said}");
    assert!(line(&said, "WRONG   database").contains("migrate"), "{said}");

    assert!(command(&database, &["migrate"]).status.success());
    let org = harness::fresh_organisation();
    database.execute(&format!("insert into organisation (id) values ('{org}')")).await;
    for role in ["billing", "viewer", "viewer"] {
        let sql = format!(
            "insert into membership (user_id, organisation_id, role) values (gen_random_uuid(), '{org}', '{role}')"
        );
        database.execute(&sql).await;
    }
    let (code, said) = with("");
    assert_eq!(code, 64, "{said}");
    assert!(line(&said, "WRONG   roles").contains("\"billing\" (1 memberships)"), "{said}");
    assert!(!said.contains("viewer"), "{said}");

    let (code, said) = with("roles.billing = [\"rules:read\"]\nchannels.enabled = true");
    assert_eq!(code, 0, "{said}");
    let all = ["key set", "database", "roles", "ruler", "channels"];
    for about in all {
        line(&said, &format!("ok      {about}"));
    }
    let of_mimir = line(&said, "ok      mimir");
    for words in ["ready", "keeps tenants apart", "Grafana Mimir "] {
        assert!(of_mimir.contains(words), "{of_mimir}");
    }
    // Nothing is written: no tenant is created.
    let none = reqwest::Client::new()
        .get(format!("{}/prometheus/config/v1/rules", mimir.url()))
        .header("x-scope-orgid", "mimir-tenant-proxy-check")
        .send()
        .await
        .unwrap();
    assert_eq!(none.text().await.unwrap().trim(), "{}");
}

// 69 (EX_UNAVAILABLE): a retry may help. Other faults are reported all the same.
#[tokio::test(flavor = "multi_thread")]
async fn unavailable_is_distinguished_from_wrong() {
    let issuer = Issuer::start().await;
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let port = free_port();
    let database = format!(
        "database.url = \"postgres://u:secret-word@127.0.0.1:{port}/d\"\ndatabase.connect_timeout = \"1s\""
    );
    let (code, said) = connect(&configuration(&issuer.url(), &nowhere, &database));
    assert_eq!(code, 69, "{said}");
    line(&said, "ok      key set");
    assert!(line(&said, "AWAY    database").contains(&format!("127.0.0.1:{port}")), "{said}");
    assert!(line(&said, "AWAY    mimir").contains("refused"), "{said}");
    assert!(!said.contains("secret-word"), "{said}");

    // Frozen: connections are accepted and nothing is answered. Broken: connections end
    // immediately.
    let frozen = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let broken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [&frozen, &broken].map(|one| one.local_addr().unwrap());
    std::thread::spawn(move || broken.incoming().for_each(drop));
    for address in addresses {
        let database = format!(
            "database.url = \"postgres://u:secret-word@{address}/d\"\ndatabase.connect_timeout = \"1s\""
        );
        let (code, said) = connect(&configuration(&issuer.url(), &nowhere, &database));
        assert_eq!(code, 69, "{said}");
        assert!(line(&said, "AWAY    database").contains(&address.to_string()), "{said}");
    }

    let names = "upstream.connect_timeout = \"1s\"";
    let (code, said) = connect(&configuration(&issuer.url(), "http://nowhere.invalid:1", names));
    assert_eq!(code, 69, "{said}");
    assert!(line(&said, "AWAY    mimir").contains("nowhere.invalid"), "{said}");

    for (status, wanted, word) in [
        (404, 64, "WRONG"),
        (401, 64, "WRONG"),
        (403, 64, "WRONG"),
        (503, 69, "AWAY"),
        (429, 69, "AWAY"),
    ] {
        issuer.answer_with(status);
        let (code, said) = connect(&configuration(&issuer.url(), &nowhere, ""));
        assert_eq!(code, wanted, "{said}");
        let key_set = line(&said, &format!("{word:<7} key set"));
        assert!(key_set.contains(&status.to_string()), "{said}");
    }

    issuer.answer_with(200);
    issuer.publish(&[]);
    let (code, said) = connect(&configuration(&issuer.url(), &nowhere, ""));
    assert_eq!(code, 64, "a set without keys refuses everybody: {said}");
    line(&said, "WRONG   key set");

    let (code, said) = connect("auth.issuer = 1\n");
    assert_eq!(code, 64);
    assert!(said.contains("nothing was asked") && !said.contains("AWAY"), "{said}");
}

/// A Mimir that is not ready.
async fn starting(_: Received) -> Response<Body> {
    let mut answer = Response::new(full(Bytes::from_static(b"Ingester not ready: starting\n")));
    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    answer
}

/// A server that is not Mimir.
async fn another(request: Received) -> Response<Body> {
    let mut answer = Response::new(full("ready"));
    if request.target != "/ready" {
        *answer.status_mut() = StatusCode::NOT_FOUND;
    }
    answer
}

// An upstream that answers without the tenant header serves everyone everything.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_without_multitenancy_is_found() {
    let issuer = Issuer::start().await;
    let open = Mimir::start_with(&["-auth.multitenancy-enabled=false"]).await;
    let (code, said) = connect(&configuration(&issuer.url(), &open.url(), ""));
    assert_eq!(code, 64, "{said}");
    assert!(line(&said, "WRONG   mimir").contains("multitenancy_enabled: true"), "{said}");

    let fake = Upstream::start(ok).await;
    let (code, said) = connect(&configuration(&issuer.url(), &fake.url(), ""));
    assert_eq!(code, 64, "{said}");

    let other = Upstream::start(another).await;
    let (code, said) = connect(&configuration(&issuer.url(), &other.url(), ""));
    assert_eq!(code, 64, "{said}");
    assert!(line(&said, "WRONG   mimir").contains("is it Mimir"), "{said}");

    let starting = Upstream::start(starting).await;
    let (code, said) = connect(&configuration(&issuer.url(), &starting.url(), ""));
    assert_eq!(code, 69, "{said}");
    assert!(line(&said, "AWAY    mimir").contains("Ingester not ready"), "{said}");
}

/// A Mimir without an Alertmanager, as far as that is asked.
async fn without_alertmanager(request: Received) -> Response<Body> {
    let mut answer = Response::new(full("404 page not found"));
    if request.target.starts_with("/api/v1/alerts") {
        *answer.status_mut() = StatusCode::NOT_FOUND;
    }
    answer
}

// `target: all`: channels would stay in the state `error`.
#[tokio::test(flavor = "multi_thread")]
async fn channels_without_an_alertmanager_are_found() {
    let (issuer, mimir) = (Issuer::start().await, Upstream::start(without_alertmanager).await);
    let database = migrated("no_alertmanager").await;
    let rest = format!(
        "database.url = {:?}\nrules.enabled = true\nchannels.enabled = true",
        database.url()
    );
    let (code, said) = connect(&configuration(&issuer.url(), &mimir.url(), &rest));
    assert_eq!(code, 64, "{said}");
    assert!(line(&said, "WRONG   channels").contains("all,alertmanager"), "{said}");
}

/// The grants that docs/operations/supabase.md lists, for this role.
fn documented_grants(role: &str) -> String {
    let page = include_str!("../../docs/operations/supabase.md");
    let (_, list) = page.split_once("-- grants: everybody\n").unwrap();
    let (list, _) = list.split_once("```").unwrap();
    let grants: Vec<String> = list
        .split(';')
        .filter(|statement| !statement.contains("create role") && !statement.trim().is_empty())
        .map(|statement| statement.replace("to proxy", &format!("to {role}")))
        .collect();
    assert!(grants.len() >= 12, "{grants:?}");
    grants.join(";")
}

// Seen: `ok database` for a role that could read everything and write nothing.
#[tokio::test(flavor = "multi_thread")]
async fn every_right_that_the_role_lacks_is_told_at_once() {
    let (issuer, mimir) = (Issuer::start().await, Mimir::shared().await);
    let database = migrated("rights").await;
    let rights = "alter role $role bypassrls; grant select on all tables in schema public to $role";
    let (role, url) = login(&database, rights).await;
    let asked = || {
        let rest = format!(
            "database.url = {url:?}\nrules.enabled = true\nchannels.enabled = true\n\
             alert_events.enabled = true\nalert_events.secret = \"a-secret-of-the-ruler\"\n\
             limits.from_database = true"
        );
        connect(&configuration(&issuer.url(), &mimir.url(), &rest))
    };
    let (code, said) = asked();
    assert_eq!(code, 64, "{said}");
    let wrong = line(&said, "WRONG   database");
    for words in [
        "insert, update on device_key",
        "insert, delete on revocation",
        "insert, update, delete on alert_rule_status",
        "delete on alert_rule_tombstone",
        "insert, update, delete on notification_sync",
        "insert, update, delete on alert_event;",
        "insert, update, delete on alert_event_copy",
        "update on alert_event_watch",
        &role,
    ] {
        assert!(wrong.contains(words), "{words}: {wrong}");
    }
    for words in ["on membership", "on notification_channel;", "select"] {
        assert!(!wrong.contains(words), "{words}: {wrong}");
    }

    database.execute(&format!("revoke all on all tables in schema public from {role}")).await;
    database.execute(&documented_grants(&role)).await;
    let (code, said) = asked();
    assert_eq!(code, 0, "{said}");
    // A right to the columns alone is enough, and one column less is not.
    database
        .execute(&format!(
            "revoke update on device_key from {role}; \
             grant update (revoked_at, last_used_at) on device_key to {role}"
        ))
        .await;
    assert_eq!(asked().0, 0);
    database.execute(&format!("revoke update (last_used_at) on device_key from {role}")).await;
    let (code, said) = asked();
    assert_eq!(code, 64, "{said}");
    assert!(
        line(&said, "WRONG   database").contains("lacks rights: update on device_key;"),
        "{said}"
    );
}

// The list is complete: a role with these grants alone does what writes to each of the tables.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_with_the_documented_grants_writes_all_tables() {
    let mimir = Mimir::shared().await;
    let database = migrated("granted").await;
    let (role, url) = login(&database, "alter role $role bypassrls").await;
    database.execute(&documented_grants(&role)).await;
    let org = harness::fresh_organisation();
    let of_org = format!("insert into organisation (id) values ('{org}')");
    database.execute(&of_org).await;
    let mimir_url = mimir.url();
    let environment = [
        ("MTP__DATABASE__URL", url.as_str()),
        ("MTP__UPSTREAM__URLS", mimir_url.as_str()),
        ("MTP__RULES__ENABLED", "true"),
        ("MTP__CHANNELS__ENABLED", "true"),
    ];
    let run = |args: &[&str]| {
        let output = command_with(&database, &environment, args);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert!(output.status.success(), "{args:?}: {said}");
        said
    };
    run(&["device-key", "create", "--organisation", &org, "--name", "hub", "--json"]);
    let keys = database.query("select id::text from device_key").await;
    let key = keys[0][0].clone().unwrap();
    run(&["device-key", "revoke", "--organisation", &org, &key]);
    let rule = format!(
        "insert into alert_rule (organisation_id, name, expr) values ('{org}', 'Hot', 'up == 0')"
    );
    database.execute(&rule).await;
    let channel = format!(
        "insert into notification_channel (organisation_id, name, kind, settings, secrets, is_default) \
         values ('{org}', 'a', 'webhook', '{{}}', '{{\"url\": \"https://example.com/\"}}', true)"
    );
    database.execute(&channel).await;
    run(&["rules", "sync", "--organisation", &org]);
    run(&["channels", "sync", "--organisation", &org]);
    database.execute("delete from alert_rule; delete from notification_channel").await;
    run(&["rules", "sync", "--organisation", &org]);
    run(&["channels", "sync", "--organisation", &org]);
    let left = "select (select count(*) from alert_rule_status) + \
                (select count(*) from notification_channel_status) + \
                (select count(*) from alert_rule_tombstone) + \
                (select count(*) from notification_tombstone) = 0";
    let left = database.query(&format!("select ({left})::text")).await;
    assert_eq!(left[0][0].as_deref(), Some("true"));
}
