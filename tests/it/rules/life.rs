//! The life of a row: insert, update, disable, delete, move; live within a moment, evaluated by
//! Mimir, without changes to other groups.

use std::time::{Duration, Instant};

use harness::{Mimir, Postgres, samples, wait_until};
use serde_json::{Value, json};

use super::relay::Relay;
use super::{RulesFixture, SOON, rules_fixture, rules_fixture_on, write_group};

// From the issue: each change is live in the ruler in p99 < 250 ms from its commit. A timed test
// would fail on a busy machine, so this one prints the times and only fails if a change never
// arrives.
#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_a_row_goes_live_within_a_moment() {
    let fixture = rules_fixture(&[]).await;
    let org = fixture.identity.organisation().await;
    let mut taken: Vec<(&str, Duration)> = Vec::new();
    let rounds: usize =
        std::env::var_os("MTP_ROUNDS").map_or(5, |n| n.to_str().unwrap().parse().unwrap());
    let first = fixture.rule(&org, "Keeper", "vector(1) > 0").await;
    fixture.wait_state(&first, "live").await;
    for round in 0..rounds {
        let began = Instant::now();
        let id = fixture.rule(&org, "Hot", "temperature > 50").await;
        fixture.wait_groups(&org, &[("default", &["Keeper", "Hot"])]).await;
        taken.push(("insert", began.elapsed()));

        let change = async |what: &'static str, sql: String, wanted: &[(&str, &[&str])]| {
            let began = Instant::now();
            fixture.sql(&format!("update alert_rule set {sql} where id = '{id}'")).await;
            fixture.wait_groups(&org, wanted).await;
            (what, began.elapsed())
        };
        let both: &[(&str, &[&str])] = &[("default", &["Keeper", "Hotter"])];
        taken.push(change("update", "name = 'Hotter'".to_owned(), both).await);
        let moved: &[(&str, &[&str])] = &[("default", &["Keeper"]), ("site", &["Hotter"])];
        taken.push(change("move", "rule_group = 'site'".to_owned(), moved).await);
        let began = Instant::now();
        fixture
            .sql(&format!("update alert_rule set evaluation_interval = '15s' where id = '{id}'"))
            .await;
        wait_until("the interval is Mimir's", SOON, async || {
            let answer =
                fixture.ruler(&org).get("/prometheus/config/v1/rules/alert_rule/site").await;
            answer.text.contains("interval: 15s")
        })
        .await;
        taken.push(("interval", began.elapsed()));
        let gone: &[(&str, &[&str])] = &[("default", &["Keeper"])];
        taken.push(change("disable", "enabled = false".to_owned(), gone).await);
        taken.push(change("enable", "enabled = true".to_owned(), moved).await);
        let began = Instant::now();
        fixture.sql(&format!("delete from alert_rule where id = '{id}'")).await;
        fixture.wait_groups(&org, gone).await;
        taken.push(("delete", began.elapsed()));
        assert_eq!(fixture.groups(&org).await.len(), 1, "round {round}");
        // A status is deleted with its rule.
        wait_until("the status is gone", SOON, async || fixture.status(&id).await.0.is_empty())
            .await;
    }
    let mut all: Vec<Duration> = taken.iter().map(|(_, took)| *took).collect();
    all.sort();
    for what in ["insert", "update", "move", "interval", "disable", "enable", "delete"] {
        let mut of: Vec<Duration> =
            taken.iter().filter(|(name, _)| *name == what).map(|(_, took)| *took).collect();
        of.sort();
        println!("{what}: median {:?}, longest {:?}", of[of.len() / 2], of[of.len() - 1]);
    }
    println!(
        "all {}: median {:?}, p99 {:?}",
        all.len(),
        all[all.len() / 2],
        all[all.len() * 99 / 100]
    );
}

// The alert fires as its author wrote it: name, labels, annotations with their templates.
#[tokio::test(flavor = "multi_thread")]
async fn an_alert_fires_with_the_labels_and_annotations_of_its_row() {
    let fixture = rules_fixture(&[]).await;
    let org = fixture.identity.organisation().await;
    let device = fixture.identity.device(&org, &["metrics:write"]).await;
    let client = device
        .header("content-encoding", "snappy")
        .header("content-type", "application/x-protobuf");
    let body = samples::remote_write("temperature", &[("hub", "17")], 71.5);
    assert_eq!(client.post("/api/v1/push", body).await.status, 200);
    fixture
        .rule_with(
            &org,
            "TooHot",
            "temperature > 50",
            "evaluation_interval = '1s', labels = '{\"severity\": \"page\", \"tier\": 1}', \
             annotations = '{\"summary\": \"hub {{ $labels.hub }} is at {{ $value }}\\nlook: at it # now\"}'",
        )
        .await;
    let admin = fixture.identity.client(&fixture.identity.member(&org, "viewer").await);
    let mut alert = Value::Null;
    wait_until("the alert fires", Duration::from_secs(90), async || {
        let alerts = admin.get("/prometheus/api/v1/alerts").await.json();
        alert = alerts["data"]["alerts"][0].clone();
        alert["state"] == "firing"
    })
    .await;
    assert_eq!(
        alert["labels"],
        json!({"alertname": "TooHot", "hub": "17", "severity": "page", "tier": "1"})
    );
    assert_eq!(alert["annotations"]["summary"], "hub 17 is at 71.5\nlook: at it # now");
}

async fn settled(fixture: &RulesFixture) -> f64 {
    fixture.sync_all().await;
    fixture.sync_all().await;
    fixture.writes().await
}

// alloy#5461: because of differences of form only, another syncer wrote 20,000 rules in each round.
#[tokio::test(flavor = "multi_thread")]
async fn differences_of_form_alone_are_never_written() {
    let fixture = rules_fixture(&[]).await;
    let org = fixture.identity.organisation().await;
    let id = fixture
        .rule_with(
            &org,
            "Load",
            "sum by (job)(rate(node_cpu_seconds_total[5m]))>0.5",
            "for_duration = '300s', labels = '{\"b\": \"2\", \"a\": \"1\"}'",
        )
        .await;
    fixture.wait_state(&id, "live").await;
    let before = settled(&fixture).await;
    for same in [
        "for_duration = '5m'",
        "labels = '{\"a\": \"1\", \"b\": \"2\"}'",
        "evaluation_interval = '60s'",
        "expr = E'\\n  sum by (job) (\\n    rate(node_cpu_seconds_total[5m])\\n  ) > 0.5  # half\\n'",
        "keep_firing_for = null",
    ] {
        fixture.sql(&format!("update alert_rule set {same} where id = '{id}'")).await;
        fixture.sync(&org).await;
        assert_eq!(fixture.writes().await, before, "{same}");
        assert_eq!(fixture.status(&id).await.0, "live", "{same}");
    }
    // Real differences are written.
    fixture.sql(&format!("update alert_rule set for_duration = '6m' where id = '{id}'")).await;
    fixture.sync(&org).await;
    assert_eq!(fixture.writes().await, before + 1.0);
}

// A hundred reconciles without changes write nothing, and another formatting of our own rules is
// left as it is.
#[tokio::test(flavor = "multi_thread")]
async fn another_formatting_of_our_group_is_not_rewritten() {
    let fixture = rules_fixture(&[]).await;
    let org = fixture.identity.organisation().await;
    let id = fixture.rule(&org, "Up", "up == 0").await;
    fixture.wait_state(&id, "live").await;
    let before = settled(&fixture).await;
    let yaml = format!(
        "name: default\ninterval: 60s\nrules:\n- alert: Up\n  expr: |\n    up\n      == 0\n  for: 0s\n  annotations: {{alert_rule_id: {id}}}\n"
    );
    let ruler = fixture.ruler(&org);
    let path = "/prometheus/config/v1/rules/alert_rule";
    assert_eq!(ruler.post(path, yaml).await.status, 202);
    fixture.sync(&org).await;
    assert_eq!(fixture.writes().await, before);
    // A change of someone else in our namespace is reverted by the next full resync.
    let yaml = "name: default\ninterval: 60s\nrules:\n- alert: Up\n  expr: up == 1\n";
    assert_eq!(ruler.post(path, yaml).await.status, 202);
    fixture.sync_all().await;
    assert_eq!(fixture.writes().await, before + 1.0);
}

// Other syncers delete what others wrote (alloy#200). Only the configured namespace is ours.
#[tokio::test(flavor = "multi_thread")]
async fn other_namespaces_and_other_tenants_are_never_touched() {
    let fixture = rules_fixture(&[]).await;
    let (org, other) =
        (fixture.identity.organisation().await, fixture.identity.organisation().await);
    for tenant in [&org, &other] {
        write_group(&fixture.ruler(tenant), "theirs", "theirs", "Theirs").await;
        write_group(&fixture.ruler(tenant), "alert_rule2", "near", "Near").await;
    }
    let id = fixture.rule(&org, "Ours", "up == 0").await;
    fixture.wait_state(&id, "live").await;
    fixture.sql(&format!("delete from alert_rule where id = '{id}'")).await;
    fixture.wait_groups(&org, &[]).await;
    fixture.sync_all().await;
    for tenant in [&org, &other] {
        let all = fixture.ruler(tenant).get("/prometheus/config/v1/rules").await.text;
        assert!(all.contains("Theirs") && all.contains("Near") && !all.contains("Ours"), "{all}");
    }
    assert!(fixture.groups(&other).await.is_empty());
}

/// Runs a full resync, and gives the number of organisations whose rules it has read, by its log.
async fn rules_read(fixture: &RulesFixture) -> u64 {
    const FINISHED: &str = "Full resync of alert rules finished";
    let finished = || {
        let log = fixture.identity.proxy.process.log();
        log.lines().filter(|line| line.contains(FINISHED)).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = finished().len();
    fixture.sync_all().await;
    let mut lines = finished();
    wait_until("it is logged", SOON, async || {
        lines = finished();
        lines.len() > before
    })
    .await;
    let line: Value = serde_json::from_str(&lines[before]).unwrap();
    line["read"].as_u64().unwrap()
}

/// Three organisations with two live rules each, and a table of which no change is notified.
async fn unnoticed(settings: &[(&str, &str)]) -> (RulesFixture, Vec<String>, Vec<String>) {
    let hourly = [("rules.reconcile_interval", "\"1h\""), ("rules.health_interval", "\"1h\"")];
    let fixture = rules_fixture(&[&hourly, settings].concat()).await;
    let (mut orgs, mut ids) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let org = fixture.identity.organisation().await;
        for name in ["Up", "Down"] {
            let id = fixture.rule(&org, name, "up == 0").await;
            fixture.wait_state(&id, "live").await;
            ids.push(id);
        }
        orgs.push(org);
    }
    fixture.sql("alter table alert_rule disable trigger alert_rule_changed").await;
    // What was written is compared once.
    fixture.sync_all().await;
    (fixture, orgs, ids)
}

// A full resync reads the rules of those organisations that have changed, and finds every change: of a row,
// of a status, and in Mimir.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_resync_reads_only_what_has_changed() {
    let (fixture, orgs, ids) = unnoticed(&[]).await;
    assert_eq!(rules_read(&fixture).await, 0);
    let writes = fixture.writes().await;

    fixture.sql(&format!("update alert_rule set expr = 'up == 1' where id = '{}'", ids[0])).await;
    assert_eq!(rules_read(&fixture).await, 1);
    assert_eq!(fixture.writes().await, writes + 1.0);
    let path = "/prometheus/config/v1/rules/alert_rule/default";
    let changed = fixture.ruler(&orgs[0]).get(path).await.text;
    assert!(changed.contains("expr: up == 1"), "{changed}");

    // What was written is compared once; then nothing is read.
    assert_eq!(rules_read(&fixture).await, 1);
    assert_eq!(rules_read(&fixture).await, 0);

    // A row that is written as it was has another version, and is read, and is the same.
    fixture.sql(&format!("update alert_rule set expr = expr where id = '{}'", ids[0])).await;
    assert_eq!((rules_read(&fixture).await, rules_read(&fixture).await), (1, 0));
    assert_eq!(fixture.writes().await, writes + 1.0);

    // One that moves changes two organisations.
    let moved =
        format!("set organisation_id = '{}', name = 'Moved' where id = '{}'", orgs[1], ids[0]);
    fixture.sql(&format!("update alert_rule {moved}")).await;
    assert_eq!(rules_read(&fixture).await, 2);
    fixture.wait_groups(&orgs[1], &[("default", &["Moved", "Up", "Down"])]).await;
    fixture.wait_groups(&orgs[0], &[("default", &["Down"])]).await;

    fixture
        .sql(&format!(
            "insert into alert_rule (organisation_id, name, expr) values ('{}', 'New', 'up == 0')",
            orgs[2]
        ))
        .await;
    rules_read(&fixture).await;
    fixture.wait_groups(&orgs[2], &[("default", &["Up", "Down", "New"])]).await;

    // Mimir's rules are compared although the rows have not changed.
    fixture.sync_all().await;
    assert_eq!(rules_read(&fixture).await, 0);
    write_group(&fixture.ruler(&orgs[2]), "alert_rule", "default", "Theirs").await;
    assert_eq!(rules_read(&fixture).await, 0, "the reconcile reads them, not the full resync");
    fixture.wait_groups(&orgs[2], &[("default", &["Up", "Down", "New"])]).await;
}

// Writes of other sessions to the table of statuses are undone, whether or not rows have changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_resync_finds_changed_statuses_of_unchanged_rules() {
    let (fixture, _, ids) = unnoticed(&[]).await;
    assert_eq!(rules_read(&fixture).await, 0);
    for forged in [
        format!(
            "update alert_rule_status set state = 'invalid', reason = 'no' where rule_id = '{}'",
            ids[0]
        ),
        format!("update alert_rule_status set rule_hash = 'other' where rule_id = '{}'", ids[1]),
        format!("delete from alert_rule_status where rule_id = '{}'", ids[2]),
        "truncate alert_rule_status".to_owned(),
    ] {
        fixture.sql(&forged).await;
        fixture.sync_all().await;
        for id in &ids {
            fixture.wait_state(id, "live").await;
        }
        let hashes = "select count(*) from alert_rule_status where rule_hash = 'other'";
        let rows = fixture.identity.database.query(hashes).await;
        assert_eq!(rows[0][0].as_deref(), Some("0"), "{forged}");
    }
}

// Columns can change without any row: by what they have by default, and by their names.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_resync_finds_what_changes_with_the_table() {
    let (fixture, orgs, _) = unnoticed(&[]).await;
    assert_eq!(rules_read(&fixture).await, 0);
    let rule_of = async |org: &String| {
        fixture.ruler(org).get("/prometheus/config/v1/rules/alert_rule/default").await.text
    };
    fixture
        .sql(
            "alter table alert_rule drop column labels; \
             alter table alert_rule add column labels jsonb default '{\"severity\": \"page\"}'",
        )
        .await;
    assert_eq!(rules_read(&fixture).await, 3);
    for org in &orgs {
        let stored = rule_of(org).await;
        assert!(stored.contains("severity: page"), "{stored}");
    }
    fixture.sync_all().await;
    assert_eq!(rules_read(&fixture).await, 0);

    fixture.sql("alter table alert_rule add column new_expr text; update alert_rule set new_expr = 'up == 1'").await;
    fixture.sync_all().await;
    assert_eq!(rules_read(&fixture).await, 0);
    fixture
        .sql(
            "alter table alert_rule rename column expr to old_expr; \
             alter table alert_rule rename column new_expr to expr",
        )
        .await;
    assert_eq!(rules_read(&fixture).await, 3);
    for org in &orgs {
        let stored = rule_of(org).await;
        assert!(stored.contains("expr: up == 1"), "{stored}");
    }
}

// Rules that a view gives have no versions: all are read each time, and the log says so.
#[tokio::test(flavor = "multi_thread")]
async fn rules_of_a_view_are_read_each_time() {
    let own = "select * from alert_rule where organisation_id = any($1)";
    let (fixture, orgs, ids) =
        unnoticed(&[("database.alert_rule_query", &format!("{own:?}"))]).await;
    assert_eq!((rules_read(&fixture).await, rules_read(&fixture).await), (3, 3));
    fixture.sql(&format!("update alert_rule set name = 'Other' where id = '{}'", ids[0])).await;
    fixture.sync_all().await;
    fixture.wait_groups(&orgs[0], &[("default", &["Other", "Down"])]).await;

    let (fixture, orgs, ids) = unnoticed(&[]).await;
    // It becomes a view while the proxy runs.
    fixture
        .sql(
            "alter table alert_rule rename to stored_rule; \
             create view alert_rule as select * from stored_rule",
        )
        .await;
    assert_eq!((rules_read(&fixture).await, rules_read(&fixture).await), (3, 3));
    let log = fixture.identity.proxy.process.log();
    assert!(log.contains("Row versions of alert rules not read"), "{log}");
    fixture.sql(&format!("update alert_rule set name = 'Other' where id = '{}'", ids[0])).await;
    fixture.sync_all().await;
    fixture.wait_groups(&orgs[0], &[("default", &["Other", "Down"])]).await;
}

// Where the operator allows a listing of all tenants, a full resync without changes takes one
// request, and changes are still found.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_resync_is_one_request_where_the_operator_allows_it() {
    // A Mimir of its own: the listing of a shared one has the rules of other tests, and fails while
    // they are written.
    let mimir = Mimir::start().await;
    let mimir = mimir.url();
    let relay = Relay::start(&mimir).await;
    let database = Postgres::shared().await.database("rules").await;
    let settings = [("rules.list_all_tenants", "true"), ("rules.reconcile_interval", "\"1h\"")];
    let fixture = rules_fixture_on(database, &mimir, &relay.url(), &settings).await;
    let mut orgs = Vec::new();
    for _ in 0..5 {
        let org = fixture.identity.organisation().await;
        let id = fixture.rule(&org, "Up", "up == 0").await;
        fixture.wait_state(&id, "live").await;
        orgs.push(org);
    }
    // One full resync to check that all agrees.
    fixture.sync_all().await;
    let (one, all) = ("/prometheus/config/v1/rules", "/ruler/rule_groups");
    let before = (relay.asked_for(one), relay.asked_for(all));
    fixture.sync_all().await;
    assert_eq!((relay.asked_for(one), relay.asked_for(all)), (before.0, before.1 + 1));
    // Someone else's change of one of our groups.
    let yaml = "name: default\nrules:\n- alert: Theirs\n  expr: up\n";
    let path = "/prometheus/config/v1/rules/alert_rule";
    let answer = fixture.ruler(&orgs[2]).post(path, yaml).await;
    assert_eq!(answer.status, 202);
    fixture.sync_all().await;
    assert!((1..=2).contains(&(relay.asked_for(one) - before.0)), "{}", relay.asked_for(one));
    let stored = fixture.ruler(&orgs[2]).get(&format!("{path}/default")).await.text;
    assert!(stored.contains("expr: up == 0"), "{stored}");
}
