//! The deletion guard: empty tables, half of them, other databases.

use std::time::Duration;

use harness::{Mimir, Postgres, wait_until};

use super::{RulesFixture, SOON, confirmation, rules_fixture, rules_fixture_on};

async fn with_rules(fixture: &RulesFixture, count: usize) -> String {
    let org = fixture.identity.organisation().await;
    let sql = format!(
        "insert into alert_rule (organisation_id, name, expr) \
         select '{org}', 'A' || n, 'up == ' || n from generate_series(1, {count}) as n"
    );
    fixture.sql(&sql).await;
    wait_until("all are live", SOON, async || {
        fixture.states(&org).await.get("live") == Some(&count)
    })
    .await;
    org
}

async fn rules_in_mimir(fixture: &RulesFixture, org: &str) -> usize {
    fixture.groups(org).await.values().map(Vec::len).sum()
}

// Rows that are gone without having been deleted: a restored backup, a truncated table, the wrong
// table. The rules stay until an administrator confirms the deletion.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_table_deletes_nothing_until_it_is_confirmed() {
    let fixture = rules_fixture(&[]).await;
    let orgs = [with_rules(&fixture, 3).await, with_rules(&fixture, 1).await];
    fixture.sql("truncate alert_rule").await;
    wait_until("the deletion is held", SOON, async || {
        !fixture.rule_status().await["guard"].is_null()
    })
    .await;
    fixture.sync_all().await;
    assert_eq!(rules_in_mimir(&fixture, &orgs[0]).await, 3);
    assert_eq!(rules_in_mimir(&fixture, &orgs[1]).await, 1);
    let held = "mimir_tenant_proxy_rules_guards_held{scope=\"overall\"}";
    assert_eq!(fixture.identity.proxy.metric(held).await, 1.0);
    // A wrong ID confirms nothing.
    let service = fixture.identity.service();
    let path = "/admin/rules/guard/confirm";
    assert_eq!(service.post(path, "{\"guard\": \"0000\"}").await.status, 404);
    assert_eq!(rules_in_mimir(&fixture, &orgs[0]).await, 3);
    let status = fixture.rule_status().await;
    fixture.finished(service.post(path, confirmation(&status["guard"])).await).await;
    wait_until("they are deleted", SOON, async || {
        rules_in_mimir(&fixture, &orgs[0]).await + rules_in_mimir(&fixture, &orgs[1]).await == 0
    })
    .await;
    wait_until("nothing is held", SOON, async || fixture.rule_status().await["guard"].is_null())
        .await;
    assert_eq!(fixture.identity.proxy.metric(held).await, 0.0);
}

// Half a table: what an interrupted restore leaves. Triggers do not fire there.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_table_deletes_nothing() {
    let fixture = rules_fixture(&[]).await;
    let org = with_rules(&fixture, 10).await;
    fixture
        .sql(
            "set session_replication_role = replica; \
             delete from alert_rule where id in (select id from alert_rule order by id limit 5)",
        )
        .await;
    fixture.sync_all().await;
    assert_eq!(rules_in_mimir(&fixture, &org).await, 10);
    fixture.sync(&org).await;
    assert_eq!(rules_in_mimir(&fixture, &org).await, 10);
    let path = format!("/admin/organisations/{org}/rules");
    let service = fixture.identity.service();
    let list = service.get(&path).await.json();
    let guard = &list["sync"]["guard"];
    assert!(guard["reason"].as_str().unwrap().contains('5'), "{list}");
    // New rules wait as well, and their reason names the hold.
    let id = fixture.rule(&org, "New", "up == 99").await;
    fixture.wait_state(&id, "pending").await;
    assert!(fixture.status(&id).await.1.contains("administrator"));
    let guard = service.get(&path).await.json()["sync"]["guard"].clone();
    let confirm = format!("{path}/guard/confirm");
    fixture.finished(service.post(&confirm, confirmation(&guard)).await).await;
    fixture.wait_state(&id, "live").await;
    assert_eq!(rules_in_mimir(&fixture, &org).await, 6);
}

// A hold ends when its rows come back.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_back_end_the_hold() {
    let fixture = rules_fixture(&[]).await;
    let org = with_rules(&fixture, 4).await;
    fixture.sql("create table saved as table alert_rule; truncate alert_rule").await;
    fixture.sync_all().await;
    assert_eq!(rules_in_mimir(&fixture, &org).await, 4);
    let before = fixture.writes().await;
    fixture.sql("insert into alert_rule select * from saved").await;
    fixture.sync_all().await;
    assert!(fixture.rule_status().await["guard"].is_null());
    assert_eq!(fixture.states(&org).await.get("live"), Some(&4));
    assert_eq!(fixture.writes().await, before, "nothing had to be written");
}

// Before, the hold of a truncated table could be confirmed after its rows had come back, until the
// next full resync, and the next loss of the same rules then passed.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_has_ended_cannot_be_confirmed() {
    let fixture = rules_fixture(&[("rules.reconcile_interval", "\"1h\"")]).await;
    let orgs = [with_rules(&fixture, 4).await, with_rules(&fixture, 3).await];
    fixture.sync_all().await;
    fixture.sql("create table saved as table alert_rule; truncate alert_rule").await;
    fixture.sync_all().await;
    let guard = fixture.rule_status().await["guard"].clone();
    assert!(!guard.is_null());
    // Only the triggers of the rows cause a reconcile.
    fixture.sql("insert into alert_rule select * from saved").await;
    wait_until("the hold has ended", SOON, async || fixture.rule_status().await["guard"].is_null())
        .await;
    let service = fixture.identity.service();
    let refused = service.post("/admin/rules/guard/confirm", confirmation(&guard)).await;
    assert_eq!(refused.status, 409, "{refused:?}");
    fixture.sql("truncate alert_rule").await;
    fixture.sync_all().await;
    assert_eq!(rules_in_mimir(&fixture, &orgs[0]).await, 4);
    assert_eq!(rules_in_mimir(&fixture, &orgs[1]).await, 3);
}

// Rows that were really deleted go immediately, the last rule too; but not very many together.
#[tokio::test(flavor = "multi_thread")]
async fn deleted_rows_lose_their_rules_and_very_many_are_held() {
    let fixture = rules_fixture(&[]).await;
    let few = with_rules(&fixture, 3).await;
    let many = with_rules(&fixture, 40).await;
    fixture.sql(&format!("delete from alert_rule where organisation_id = '{few}'")).await;
    fixture.wait_groups(&few, &[]).await;
    fixture.sql(&format!("delete from alert_rule where organisation_id = '{many}'")).await;
    let path = format!("/admin/organisations/{many}/rules");
    let service = fixture.identity.service();
    wait_until("it is held", SOON, async || {
        !service.get(&path).await.json()["sync"]["guard"].is_null()
    })
    .await;
    assert_eq!(rules_in_mimir(&fixture, &many).await, 40);
    let guard = service.get(&path).await.json()["sync"]["guard"].clone();
    let answer = service.post(&format!("{path}/guard/confirm"), confirmation(&guard)).await;
    fixture.finished(answer).await;
    fixture.wait_groups(&many, &[]).await;
}

// The database is replaced with an empty one: no organisation exists, and nothing is deleted.
#[tokio::test(flavor = "multi_thread")]
async fn another_database_deletes_nothing() {
    let fixture = rules_fixture(&[("rules.organisation_grace", "\"0s\"")]).await;
    let org = with_rules(&fixture, 5).await;
    fixture
        .sql(
            "set session_replication_role = replica; \
             delete from alert_rule; delete from membership; delete from organisation",
        )
        .await;
    fixture.sync_all().await;
    fixture.sync_all().await;
    assert_eq!(rules_in_mimir(&fixture, &org).await, 5);
    // A fresh one, with only the tables.
    let mimir = Mimir::shared().await.url();
    let database = Postgres::shared().await.database("rules").await;
    let other =
        rules_fixture_on(database, &mimir, &mimir, &[("rules.organisation_grace", "\"0s\"")]).await;
    other.sync_all().await;
    // And one with the organisation, without its rules.
    other.sql(&format!("insert into organisation (id) values ('{org}')")).await;
    other.sync_all().await;
    other.sync(&org).await;
    assert_eq!(rules_in_mimir(&other, &org).await, 5);
}

// A query of the operator's own that fails, or returns nothing any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_fails_or_returns_nothing_deletes_nothing() {
    let postgres = Postgres::shared().await;
    let database = postgres.database("rules").await;
    database
        .execute(
            "create table flag (is_on boolean not null, is_broken boolean not null); \
             insert into flag values (true, false); \
             create table theirs (id uuid primary key default gen_random_uuid(), org text, title text, q text)",
        )
        .await;
    let mimir = Mimir::shared().await.url();
    let query = "select id, org as organisation_id, title as name, q as expr from theirs, flag \
                 where org = any($1) and is_on and 1 / case when is_broken then 0 else 1 end = 1";
    let settings = [
        ("database.alert_rule_query", &*format!("{query:?}")),
        ("rules.reconcile_interval", "\"1s\""),
    ];
    let fixture = rules_fixture_on(database, &mimir, &mimir, &settings).await;
    let org = fixture.identity.organisation().await;
    fixture.sql(&format!("insert into theirs (org, title, q) values ('{org}', 'A', 'up == 0'), ('{org}', 'B', 'up == 1')")).await;
    fixture.sync(&org).await;
    assert_eq!(rules_in_mimir(&fixture, &org).await, 2);
    for fault in ["is_broken = true", "is_broken = false, is_on = false"] {
        fixture.sql(&format!("update flag set {fault}")).await;
        tokio::time::sleep(Duration::from_millis(2500)).await;
        fixture.sync(&org).await;
        assert_eq!(rules_in_mimir(&fixture, &org).await, 2, "{fault}");
    }
}

// An organisation that was deleted keeps its rules for the grace period; then they are deleted, and
// no others.
#[tokio::test(flavor = "multi_thread")]
async fn an_organisation_that_is_gone_loses_its_namespace_after_the_grace() {
    let settings = [("rules.organisation_grace", "\"3s\""), ("rules.reconcile_interval", "\"1s\"")];
    let fixture = rules_fixture(&settings).await;
    let (gone, stays) = (with_rules(&fixture, 2).await, with_rules(&fixture, 8).await);
    super::write_group(&fixture.ruler(&gone), "theirs", "theirs", "Theirs").await;
    let deleted = std::time::Instant::now();
    fixture.sql(&format!("delete from organisation where id = '{gone}'")).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(rules_in_mimir(&fixture, &gone).await, 2);
    fixture.wait_groups(&gone, &[]).await;
    assert!(deleted.elapsed() >= Duration::from_secs(3), "{:?}", deleted.elapsed());
    assert_eq!(rules_in_mimir(&fixture, &stays).await, 8);
    let all = fixture.ruler(&gone).get("/prometheus/config/v1/rules").await.text;
    assert!(all.contains("Theirs"), "{all}");
    wait_until("nothing is known of it any more", SOON, async || {
        let left = "select count(*) from (select organisation_id from alert_rule_status union all \
                    select organisation_id from alert_rule_sync union all \
                    select organisation_id from alert_rule_tombstone) as known";
        let sql = format!("{left} where organisation_id = '{gone}'");
        fixture.identity.database.query(&sql).await[0][0].as_deref() == Some("0")
    })
    .await;
}

// An organisation that comes back in time keeps all its rules.
#[tokio::test(flavor = "multi_thread")]
async fn an_organisation_that_comes_back_in_time_keeps_its_rules() {
    let settings = [("rules.organisation_grace", "\"1h\""), ("rules.reconcile_interval", "\"1s\"")];
    let fixture = rules_fixture(&settings).await;
    let org = with_rules(&fixture, 2).await;
    fixture
        .sql(&format!(
            "create table saved as table alert_rule; delete from organisation where id = '{org}'"
        ))
        .await;
    wait_until("it is missed", SOON, async || {
        fixture.rule_status().await.to_string().contains("absent_since\":\"2")
    })
    .await;
    fixture.sql(&format!("insert into organisation (id) values ('{org}'); insert into alert_rule select * from saved")).await;
    wait_until("it is back", SOON, async || {
        !fixture.rule_status().await.to_string().contains("absent_since\":\"2")
    })
    .await;
    assert_eq!(rules_in_mimir(&fixture, &org).await, 2);
    assert_eq!(fixture.states(&org).await.get("live"), Some(&2));
}

// Seen: the copy that noted the absence wrote its own clock's time, and the next leader compared it with its
// own. One whose clock was a day ahead deleted the rules at once. Here Postgres' clock is a day behind.
#[tokio::test(flavor = "multi_thread")]
async fn the_absence_of_an_organisation_is_timed_by_postgres() {
    let mimir = Mimir::shared().await.url();
    let database = Postgres::shared().await.database("rules").await;
    let sql = "create schema behind; create function behind.now() returns timestamptz stable \
               language sql as 'select pg_catalog.now() - interval ''1 day'''";
    database.execute(sql).await;
    let path = "set search_path = public, behind, pg_catalog";
    database.execute(&format!("alter database {} {path}", database.name())).await;
    let settings = [("rules.organisation_grace", "\"1h\""), ("rules.reconcile_interval", "\"1s\"")];
    let fixture = rules_fixture_on(database, &mimir, &mimir, &settings).await;
    let org = with_rules(&fixture, 2).await;
    fixture.sql(&format!("delete from organisation where id = '{org}'")).await;
    let absent = format!(
        "select absent_since between now() - interval '1 minute' and now() from alert_rule_sync \
         where organisation_id = '{org}'"
    );
    wait_until("it is missed since a time of Postgres' clock", SOON, async || {
        fixture.identity.database.query(&absent).await[0][0].as_deref() == Some("t")
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(rules_in_mimir(&fixture, &org).await, 2);
}

// A row that is deleted and inserted again with its ID (an upsert, a restore) leaves a tombstone
// that explains nothing: a later loss counts as missing.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_tombstone_does_not_explain_a_later_loss() {
    let fixture = rules_fixture(&[]).await;
    let org = with_rules(&fixture, 5).await;
    fixture
        .sql(
            "create table saved as table alert_rule; \
             begin; delete from alert_rule; insert into alert_rule select * from saved; commit",
        )
        .await;
    fixture.sync(&org).await;
    assert_eq!(fixture.states(&org).await.get("live"), Some(&5));
    fixture.sql("truncate alert_rule").await;
    fixture.sync_all().await;
    fixture.sync(&org).await;
    assert_eq!(rules_in_mimir(&fixture, &org).await, 5);
}

// Rules that are deleted one after another, each during the reconcile of the one before, are all
// gone.
#[tokio::test(flavor = "multi_thread")]
async fn deletions_that_follow_one_another_are_all_carried_out() {
    let fixture = rules_fixture(&[]).await;
    let org = with_rules(&fixture, 3).await;
    for n in 1..=3 {
        fixture.sql(&format!("delete from alert_rule where name = 'A{n}'")).await;
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    fixture.wait_groups(&org, &[]).await;
    assert_eq!(
        fixture
            .identity
            .proxy
            .metric("mimir_tenant_proxy_rules_guards_held{scope=\"tenant\"}")
            .await,
        0.0
    );
}

// A few deletions in each of many tenants are a large one, also between full resyncs.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_in_many_organisations_is_held_between_full_resyncs() {
    // Concurrent reconciles do not see each other's deletions, so only two run at a time.
    let fixture = rules_fixture(&[("rules.concurrency", "2")]).await;
    let mut orgs = Vec::new();
    for _ in 0..12 {
        orgs.push(with_rules(&fixture, 10).await);
    }
    fixture.sync_all().await;
    fixture.sql("delete from alert_rule").await;
    wait_until("the deletion is held", SOON, async || {
        !fixture.rule_status().await["guard"].is_null()
    })
    .await;
    let mut left = 0;
    for org in &orgs {
        left += rules_in_mimir(&fixture, org).await;
    }
    // The deletions before the threshold were made: 50 rules, and those of concurrent reconciles.
    assert!((40..=80).contains(&left), "{left}");
    println!("{left} of 120 are left");
}

// A rule that moves to another organisation is live there only.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_moves_to_another_organisation_is_live_there_only() {
    let fixture = rules_fixture(&[]).await;
    let (one, other) = (with_rules(&fixture, 1).await, with_rules(&fixture, 1).await);
    let id = fixture.rule(&one, "Moves", "up == 0").await;
    fixture.wait_state(&id, "live").await;
    fixture
        .sql(&format!("update alert_rule set organisation_id = '{other}' where id = '{id}'"))
        .await;
    fixture.wait_groups(&one, &[("default", &["A1"])]).await;
    fixture.wait_groups(&other, &[("default", &["A1", "Moves"])]).await;
    wait_until("its status is the other's", SOON, async || {
        let states = fixture.states(&other).await;
        states.get("live") == Some(&2) && fixture.states(&one).await.get("live") == Some(&1)
    })
    .await;
}

// A row that was deleted and exists again is not deleted: its tombstone does not explain a later
// loss.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_exist_again_leave_no_evidence_of_their_deletion() {
    const SAVE: &str = "begin; create temp table kept as table alert_rule;";
    const BACK: &str = "insert into alert_rule select * from kept; commit;";
    for (what, change) in [
        ("in one transaction", format!("{SAVE} delete from alert_rule; {BACK}")),
        (
            "with their organisation",
            format!(
                "{SAVE} create temp table them as table organisation; delete from organisation; \
                 insert into organisation select * from them; {BACK}"
            ),
        ),
        (
            "after a move and back",
            "begin; insert into organisation (id) values ('elsewhere'); \
             create temp table whose as select id, organisation_id from alert_rule; \
             update alert_rule set organisation_id = 'elsewhere'; \
             update alert_rule as rule set organisation_id = whose.organisation_id \
             from whose where whose.id = rule.id; delete from organisation where id = 'elsewhere'; commit"
                .to_owned(),
        ),
        (
            "without triggers",
            format!("{SAVE} delete from alert_rule; set local session_replication_role = replica; {BACK}"),
        ),
    ] {
        let fixture = rules_fixture(&[]).await;
        let org = with_rules(&fixture, 6).await;
        fixture.sync_all().await;
        fixture.sql(&change).await;
        fixture.sync_all().await;
        assert_eq!(rules_in_mimir(&fixture, &org).await, 6, "{what}");
        let left =
            format!("select count(*) from alert_rule_tombstone where organisation_id = '{org}'");
        wait_until("no tombstone is left", SOON, async || {
            fixture.identity.database.query(&left).await[0][0].as_deref() == Some("0")
        })
        .await;
        fixture.sql("truncate alert_rule").await;
        fixture.sync_all().await;
        fixture.sync(&org).await;
        assert_eq!(rules_in_mimir(&fixture, &org).await, 6, "{what}");
    }
}

/// Deletes rows as an interrupted restore does: no trigger fires.
async fn lose(fixture: &RulesFixture, condition: &str) {
    fixture
        .sql(&format!(
            "set session_replication_role = replica; delete from alert_rule where {condition}"
        ))
        .await;
}

async fn held(fixture: &RulesFixture, org: &str) -> serde_json::Value {
    let path = format!("/admin/organisations/{org}/rules");
    fixture.identity.service().get(&path).await.json()["sync"]["guard"].clone()
}

async fn confirm(fixture: &RulesFixture, org: &str, guard: &serde_json::Value) -> harness::Answer {
    let path = format!("/admin/organisations/{org}/rules/guard/confirm");
    fixture.identity.service().post(&path, confirmation(guard)).await
}

async fn names_in_mimir(fixture: &RulesFixture, org: &str) -> std::collections::BTreeSet<String> {
    fixture.groups(org).await.into_values().flatten().collect()
}

/// The names of the rules that Mimir has by their statuses.
async fn names_live(fixture: &RulesFixture, org: &str) -> std::collections::BTreeSet<String> {
    let sql = format!(
        "select name from alert_rule join alert_rule_status on rule_id = id \
         where state in ('stored', 'live', 'failing') and alert_rule.organisation_id = '{org}'"
    );
    let rows = fixture.identity.database.query(&sql).await;
    rows.into_iter().filter_map(|row| row[0].clone()).collect()
}

// Issue 11, section 2: with a rule that Mimir rejects, each confirmation was answered with `held`
// and another ID. A confirmation covers the rules that would be deleted, not the plan.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_rule_does_not_keep_a_deletion_from_being_confirmed() {
    let fixture = rules_fixture(&[]).await;
    let org = with_rules(&fixture, 30).await;
    let refused = fixture.rule(&org, "Refused", "sum(up").await;
    fixture.wait_state(&refused, "invalid").await;
    lose(&fixture, "name in (select 'A' || n from generate_series(1, 15) as n)").await;
    fixture.sync(&org).await;
    let guard = held(&fixture, &org).await;
    fixture.sync(&org).await;
    assert_eq!(
        held(&fixture, &org).await["id"],
        guard["id"],
        "the same rules, the same identifier"
    );
    assert_eq!(guard["rules"].as_array().unwrap().len(), 15, "{guard}");
    let done = fixture.finished(confirm(&fixture, &org, &guard).await).await;
    assert!(done["outcome"]["guard"].is_null(), "{done}");
    let left = names_in_mimir(&fixture, &org).await;
    assert_eq!(left, (16..=30).map(|n| format!("A{n}")).collect());
    assert_eq!(names_live(&fixture, &org).await, left);
    assert!(held(&fixture, &org).await.is_null());
}

// The same with several groups, and a rule that only a write shows to be invalid: a rule that moved
// between groups was in neither, and its status said live.
#[tokio::test(flavor = "multi_thread")]
async fn a_confirmed_deletion_is_carried_out_completely() {
    let fixture = rules_fixture(&[]).await;
    let org = with_rules(&fixture, 50).await;
    let broken = "update alert_rule set annotations = '{\"summary\": \"{{ nosuch }}\"}'";
    fixture
        .sql(&format!(
            "set session_replication_role = replica; {broken} where name = 'A30'; \
             delete from alert_rule where name in (select 'A' || n from generate_series(1, 49, 2) as n)"
        ))
        .await;
    fixture.rule(&org, "Refused", "sum(up").await;
    wait_until("the deletion is held", SOON, async || !held(&fixture, &org).await.is_null()).await;
    assert_eq!(
        names_in_mimir(&fixture, &org).await.len(),
        50,
        "nothing is written while it is held"
    );
    let guard = held(&fixture, &org).await;
    let done = fixture.finished(confirm(&fixture, &org, &guard).await).await;
    assert!(done["outcome"]["guard"].is_null(), "{done}");
    let mut left: std::collections::BTreeSet<String> =
        (1..=25).map(|n| format!("A{}", 2 * n)).collect();
    left.remove("A30");
    assert_eq!(names_in_mimir(&fixture, &org).await, left);
    assert_eq!(names_live(&fixture, &org).await, left);
}

// An outdated confirmation says what has changed, and what is held now. The confirmation of a
// deletion that has become smaller is still valid.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_identifier_says_what_has_changed() {
    let fixture = rules_fixture(&[("rules.reconcile_interval", "\"1h\"")]).await;
    let org = with_rules(&fixture, 12).await;
    fixture.sync_all().await;
    fixture.sql("create table saved as table alert_rule").await;
    lose(&fixture, "name in ('A1', 'A2', 'A3', 'A4')").await;
    fixture.sync(&org).await;
    let first = held(&fixture, &org).await;
    lose(&fixture, "name in ('A5', 'A6')").await;
    fixture.sync(&org).await;
    let second = held(&fixture, &org).await;
    assert_ne!(first["id"], second["id"]);
    let stale = confirm(&fixture, &org, &first).await;
    assert_eq!(stale.status, 409, "{stale:?}");
    for part in ["2 more rules", "A5", "A6", second["id"].as_str().unwrap()] {
        assert!(stale.text.contains(part), "{stale:?}");
    }
    // Before the next reconcile, one more is lost: it was not confirmed.
    lose(&fixture, "name = 'A7'").await;
    let done = fixture.finished(confirm(&fixture, &org, &second).await).await;
    let reason = done["outcome"]["guard"]["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.contains("more than what was confirmed: A7"), "{done}");
    assert_eq!(rules_in_mimir(&fixture, &org).await, 12);
    // The unconfirmed ones are back.
    let third = held(&fixture, &org).await;
    fixture.sql("insert into alert_rule select * from saved where name in ('A6', 'A7')").await;
    let left: std::collections::BTreeSet<String> = (6..=12).map(|n| format!("A{n}")).collect();
    wait_until("what was confirmed is gone", SOON, async || {
        names_in_mimir(&fixture, &org).await == left && names_live(&fixture, &org).await == left
    })
    .await;
    wait_until("nothing waits", SOON, async || held(&fixture, &org).await.is_null()).await;
    let over = confirm(&fixture, &org, &third).await;
    assert!(over.status == 409 && over.text.contains("is no longer held"), "{over:?}");
}

// A deletion that has become smaller is covered by its earlier confirmation.
#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_also_counts_for_a_part() {
    let fixture = rules_fixture(&[("rules.reconcile_interval", "\"1h\"")]).await;
    let org = with_rules(&fixture, 6).await;
    fixture.sync_all().await;
    fixture.sql("create table saved as table alert_rule").await;
    lose(&fixture, "name in ('A1', 'A2', 'A3', 'A4')").await;
    fixture.sync(&org).await;
    let larger = held(&fixture, &org).await;
    fixture.sql("insert into alert_rule select * from saved where name in ('A3', 'A4')").await;
    fixture.sync(&org).await;
    let smaller = held(&fixture, &org).await;
    assert!(!smaller.is_null() && smaller["id"] != larger["id"], "{smaller}");
    fixture.finished(confirm(&fixture, &org, &larger).await).await;
    let left: std::collections::BTreeSet<String> = (3..=6).map(|n| format!("A{n}")).collect();
    assert_eq!(names_in_mimir(&fixture, &org).await, left);
    assert_eq!(names_live(&fixture, &org).await, left);
}

// A full resync compares every status with what Mimir has.
#[tokio::test(flavor = "multi_thread")]
async fn statuses_are_compared_with_what_mimir_has() {
    let fixture = rules_fixture(&[("rules.reconcile_interval", "\"1s\"")]).await;
    let org = with_rules(&fixture, 4).await;
    let other = fixture.rule_with(&org, "Other", "up == 99", "rule_group = 'other'").await;
    fixture.wait_state(&other, "live").await;
    fixture.sync_all().await;
    fixture
        .sql(&format!(
            "insert into alert_rule_status (rule_id, organisation_id, state, rule_hash) \
             values (gen_random_uuid(), '{org}', 'live', 'forged'); \
             update alert_rule_status set state = 'error', reason = 'no' where rule_id = '{other}'; \
             delete from alert_rule_status where rule_id in (select id from alert_rule where name = 'A1')"
        ))
        .await;
    wait_until("all statuses are true", SOON, async || {
        fixture.states(&org).await == [("live".to_owned(), 5)].into()
    })
    .await;
    // Someone deletes a group during a hold, so that it cannot be written again.
    lose(&fixture, "name in ('A1', 'A2')").await;
    fixture.sync(&org).await;
    assert!(!held(&fixture, &org).await.is_null());
    let deleted = fixture
        .ruler(&org)
        .send(http::Method::DELETE, "/prometheus/config/v1/rules/alert_rule/other", Vec::new())
        .await;
    assert_eq!(deleted.status, 202);
    fixture.wait_state(&other, "pending").await;
    assert_eq!(names_live(&fixture, &org).await, ["A3".to_owned(), "A4".to_owned()].into());
}

// Issue 11, section 2: a mass deletion of one organisation does not delay another's changes,
// confirmed or not.
#[tokio::test(flavor = "multi_thread")]
async fn no_organisation_waits_for_the_mass_deletion_of_another() {
    const QUICK: Duration = Duration::from_secs(2);
    // A change that waited for a full resync would wait for ever.
    let fixture = rules_fixture(&[("rules.reconcile_interval", "\"1h\"")]).await;
    let mass = with_rules(&fixture, 60).await;
    let waiting = with_rules(&fixture, 40).await;
    let other = with_rules(&fixture, 6).await;
    fixture.sync_all().await;
    for org in [&mass, &waiting] {
        fixture.sql(&format!("delete from alert_rule where organisation_id = '{org}'")).await;
        wait_until("it is held", SOON, async || !held(&fixture, org).await.is_null()).await;
    }
    let guard = held(&fixture, &mass).await;
    fixture.finished(confirm(&fixture, &mass, &guard).await).await;
    assert_eq!(rules_in_mimir(&fixture, &mass).await, 0);
    for n in 1..=3 {
        let began = std::time::Instant::now();
        let deleted =
            format!("delete from alert_rule where organisation_id = '{other}' and name = 'A{n}'");
        fixture.sql(&deleted).await;
        wait_until("it is deleted", SOON, async || rules_in_mimir(&fixture, &other).await == 6 - n)
            .await;
        assert!(began.elapsed() < QUICK, "{:?}", began.elapsed());
        println!("a deletion is carried out after {:?}", began.elapsed());
    }
    let began = std::time::Instant::now();
    let id = fixture.rule(&other, "New", "up == 98").await;
    fixture.wait_state(&id, "live").await;
    assert!(began.elapsed() < QUICK, "{:?}", began.elapsed());
    assert_eq!(rules_in_mimir(&fixture, &waiting).await, 40);
}

// The same while a deletion in many organisations is held.
#[tokio::test(flavor = "multi_thread")]
async fn a_single_change_does_not_wait_while_a_deletion_in_many_organisations_is_held() {
    const QUICK: Duration = Duration::from_secs(2);
    let fixture = rules_fixture(&[("rules.reconcile_interval", "\"1h\"")]).await;
    let mut orgs = Vec::new();
    for _ in 0..10 {
        orgs.push(with_rules(&fixture, 20).await);
    }
    let other = with_rules(&fixture, 10).await;
    fixture.sync_all().await;
    // So few of each that its own guard permits it.
    let few = "name in ('A1', 'A2', 'A3', 'A4', 'A5')";
    lose(&fixture, &format!("{few} and organisation_id <> '{other}'")).await;
    fixture.sync_all().await;
    assert!(!fixture.rule_status().await["guard"].is_null());
    let began = std::time::Instant::now();
    let deleted =
        format!("delete from alert_rule where organisation_id = '{other}' and name = 'A1'");
    fixture.sql(&deleted).await;
    wait_until("it is deleted", SOON, async || rules_in_mimir(&fixture, &other).await == 9).await;
    assert!(began.elapsed() < QUICK, "{:?}", began.elapsed());
    // The rules of the held deletion stay, whatever triggers their organisation gets.
    let id = fixture.rule(&orgs[0], "New", "up == 98").await;
    fixture.wait_state(&id, "pending").await;
    for org in &orgs {
        assert_eq!(rules_in_mimir(&fixture, org).await, 20);
    }
    let guard = fixture.rule_status().await["guard"].clone();
    let path = "/admin/rules/guard/confirm";
    fixture.finished(fixture.identity.service().post(path, confirmation(&guard)).await).await;
    for org in &orgs[1..] {
        assert_eq!(rules_in_mimir(&fixture, org).await, 15);
    }
    fixture.wait_state(&id, "live").await;
}

// Issue 11, section 3: triggers that name unknown organisations take one query for hundreds, beside
// everything else.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_unknown_organisations_delays_no_other() {
    let fixture = rules_fixture(&[("rules.reconcile_interval", "\"1h\"")]).await;
    let org = with_rules(&fixture, 1).await;
    fixture.sync_all().await;
    for round in 0..3 {
        let fresh = fixture.identity.organisation().await;
        fixture
            .sql(&format!(
                "select count(pg_notify('mimir_tenant_proxy', 'alert_rule flood-{round}-' || n)) \
                 from generate_series(1, 10000) as n"
            ))
            .await;
        let began = std::time::Instant::now();
        let known = fixture.rule(&org, &format!("Known{round}"), "up == 0").await;
        let new = fixture.rule(&fresh, "New", "up == 0").await;
        fixture.wait_state(&known, "live").await;
        let took = began.elapsed();
        fixture.wait_state(&new, "live").await;
        println!("known: {took:?}, new: {:?}", began.elapsed());
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }
}

// Only the operator sees that a deletion takes rules of many organisations, for example that a table is
// empty. Before, an organisation's administrator could let its part of it pass.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_deletion_in_many_organisations_is_the_operators_to_confirm() {
    let fixture = rules_fixture(&[]).await;
    let orgs = [with_rules(&fixture, 3).await, with_rules(&fixture, 2).await];
    fixture.sync_all().await;
    fixture.sql("truncate alert_rule").await;
    fixture.sync_all().await;
    let overall = fixture.rule_status().await["guard"].clone();
    assert!(!overall.is_null());
    let mut part = serde_json::Value::Null;
    wait_until("its part is held", SOON, async || {
        part = held(&fixture, &orgs[0]).await;
        !part.is_null()
    })
    .await;
    let admin = fixture.identity.member(&orgs[0], "admin").await;
    let path = format!("/admin/organisations/{}/rules/guard/confirm", orgs[0]);
    for guard in [&part, &overall] {
        let answer = fixture.identity.client(&admin).post(&path, confirmation(guard)).await;
        assert_eq!(answer.status, 409, "{answer:?}");
        assert!(answer.text.contains("operator"), "{answer:?}");
    }
    fixture.sync_all().await;
    fixture.sync(&orgs[0]).await;
    assert_eq!(rules_in_mimir(&fixture, &orgs[0]).await, 3);
    assert_eq!(rules_in_mimir(&fixture, &orgs[1]).await, 2);

    let service = fixture.identity.service();
    let answer = service.post("/admin/rules/guard/confirm", confirmation(&overall)).await;
    fixture.finished(answer).await;
    for org in &orgs {
        fixture.wait_groups(org, &[]).await;
    }
}

// The organisation that they have moved to is synced first, for instance after a time without a leader. The statuses go
// with the rows, so that nothing but the annotation says which row a rule of the first one was made from.
#[tokio::test(flavor = "multi_thread")]
async fn rules_whose_statuses_have_moved_before_them_are_not_held() {
    let fixture = rules_fixture(&[]).await;
    let (one, other) = (with_rules(&fixture, 3).await, with_rules(&fixture, 1).await);
    fixture
        .sql(&format!(
            "set session_replication_role = replica; \
             insert into alert_rule_tombstone (rule_id, organisation_id) \
                 select id, organisation_id from alert_rule where organisation_id = '{one}'; \
             update alert_rule set organisation_id = '{other}', rule_group = 'moved' \
                 where organisation_id = '{one}'"
        ))
        .await;
    fixture.sync(&other).await;
    fixture.sync_all().await;
    wait_until("they have left the first", SOON, async || {
        assert!(fixture.rule_status().await["guard"].is_null());
        rules_in_mimir(&fixture, &one).await == 0
    })
    .await;
    assert_eq!(rules_in_mimir(&fixture, &other).await, 4);
    let held = "mimir_tenant_proxy_rules_guards_held{scope=\"tenant\"}";
    assert_eq!(fixture.identity.proxy.metric(held).await, 0.0);
}
