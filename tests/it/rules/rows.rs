//! Who may read and write rows and statuses through Supabase's API, and an operator's own tables.

use harness::{Database, Postgres, wait_until};
use mimir_tenant_proxy::config::{DatabaseConfig, Environment, TablesRead};
use mimir_tenant_proxy::labels::RuleState;
use mimir_tenant_proxy::store::{
    Confirmed, GuardHeld, GuardRow, HeldRule, LeaderRow, RuleStatusRow, Store, SyncRow, Tombstones,
};
use mimir_tenant_proxy::tenancy::OrganisationId;
use uuid::Uuid;

use super::{SOON, rules_fixture, rules_fixture_on};
use crate::notification_rows::few_at_once;
use crate::support::identity::command;

/// Runs SQL as `PostgREST` does for a user, in a transaction that is rolled back.
async fn as_user(database: &Database, user: Uuid, sql: &str) -> Result<u64, String> {
    let client = database.client().await;
    client.batch_execute("begin; set local role authenticated").await.unwrap();
    let claims =
        format!("select set_config('request.jwt.claims', '{{\"sub\": \"{user}\"}}', true)");
    client.batch_execute(&claims).await.unwrap();
    let done = client.execute(sql, &[]).await.map_err(|error| {
        error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned())
    });
    let ended = if done.is_ok() { "commit" } else { "rollback" };
    client.batch_execute(ended).await.unwrap();
    done
}

// An organisation's editors write its rules, its viewers read them with their states, and no one
// else reads or writes them. Only the proxy writes statuses.
#[tokio::test(flavor = "multi_thread")]
async fn row_level_security_keeps_rules_and_statuses_apart() {
    let postgres = Postgres::start().await;
    let database = postgres.database("rules").await;
    database.execute("create role anon nologin; create role authenticated nologin").await;
    let mimir = harness::Mimir::shared().await.url();
    let fixture = rules_fixture_on(database, &mimir, &mimir, &[]).await;
    let (a, b) = (fixture.identity.organisation().await, fixture.identity.organisation().await);
    let editor = fixture.identity.member(&a, "editor").await.id;
    let viewer = fixture.identity.member(&a, "viewer").await.id;
    let stranger = fixture.identity.member(&b, "owner").await.id;
    let database = &fixture.identity.database;
    let insert = format!(
        "insert into alert_rule (organisation_id, name, expr) values ('{a}', 'Up', 'up == 0')"
    );
    assert_eq!(as_user(database, editor, &insert).await, Ok(1));
    for user in [viewer, stranger] {
        let refused = as_user(database, user, &insert).await;
        assert!(
            refused.as_ref().is_err_and(|why| why.contains("row-level security")),
            "{refused:?}"
        );
    }
    let id = database.query("select id from alert_rule").await[0][0].clone().unwrap();
    fixture.wait_state(&id, "live").await;
    for (user, sees) in [(editor, 1), (viewer, 1), (stranger, 0)] {
        for table in ["alert_rule", "alert_rule_status"] {
            let sql = format!("select * from {table}");
            assert_eq!(as_user(database, user, &sql).await, Ok(sees), "{table}");
        }
    }
    for (user, changes) in [(viewer, 0), (stranger, 0), (editor, 1)] {
        let sql = format!("update alert_rule set name = 'Other' where id = '{id}'");
        assert_eq!(as_user(database, user, &sql).await, Ok(changes));
    }
    for forbidden in [
        format!("update alert_rule set organisation_id = '{b}' where id = '{id}'"),
        format!("update alert_rule_status set state = 'live' where rule_id = '{id}'"),
        "delete from alert_rule_status".to_owned(),
        "select * from alert_rule_sync".to_owned(),
        "select * from alert_rule_tombstone".to_owned(),
        "select * from alert_rule_guard".to_owned(),
        "insert into alert_rule_sync_request default values".to_owned(),
        "truncate alert_rule".to_owned(),
    ] {
        let refused = as_user(database, editor, &forbidden).await;
        assert!(
            refused.as_ref().is_err_and(|why| why.contains("permission denied")),
            "{forbidden}: {refused:?}"
        );
    }
    // A deletion through the API leaves a tombstone, and is carried out.
    let delete = format!("delete from alert_rule where id = '{id}'");
    assert_eq!(as_user(database, stranger, &delete).await, Ok(0));
    assert_eq!(as_user(database, editor, &delete).await, Ok(1));
    fixture.wait_groups(&a, &[]).await;
}

// A row may contain anything: an invalid one has a reason, and the others go live.
#[tokio::test(flavor = "multi_thread")]
async fn no_row_prevents_another_from_going_live() {
    let fixture = rules_fixture(&[]).await;
    let org = fixture.identity.organisation().await;
    let good = fixture.rule(&org, "Good", "up == 0").await;
    let strange = [
        "name = ''",
        "name = repeat('x', 100000)",
        "name = E'a\\nb'",
        "expr = ''",
        "expr = repeat('(', 30000)",
        "expr = E'up\\u0001'",
        "labels = '[]'",
        "labels = '\"x\"'",
        "labels = 'null'",
        "labels = '{\"a b\": \"c\"}'",
        "labels = (select jsonb_object_agg('l' || n, 'v') from generate_series(1, 1000) as n)",
        "annotations = '{\"a\": {\"b\": 1}}'",
        "annotations = jsonb_build_object('a', repeat('x', 1000000))",
        "rule_group = ''",
        "rule_group = '../../other'",
        "rule_group = E'a\\tb'",
        "rule_group = '%2e%2e'",
        "for_duration = '-5m'",
        "for_duration = '99999999999y'",
        "keep_firing_for = 'x'",
        "evaluation_interval = '1ms'",
        "created_at = 'infinity'",
        "created_at = '-infinity'",
    ];
    // A table from before migration 8, or an operator's own, has no limits on the size of a row.
    for column in ["labels", "annotations"] {
        let drop = format!("alter table alert_rule drop constraint alert_rule_{column}_size");
        fixture.identity.database.execute(&drop).await;
    }
    for what in strange {
        fixture.rule_with(&org, "Strange", "up == 1", what).await;
    }
    fixture.sync(&org).await;
    fixture.wait_state(&good, "live").await;
    let states = fixture.states(&org).await;
    assert_eq!(states.values().sum::<usize>(), strange.len() + 1, "{states:?}");
    assert!(!states.contains_key("error") && !states.contains_key("pending"), "{states:?}");
    assert!(states["invalid"] >= 15, "{states:?}");
    let all = fixture.ruler(&org).get("/prometheus/config/v1/rules").await;
    assert_eq!(all.status, 200, "{all:?}");
    // Each live rule can be deleted again.
    fixture.sql(&format!("update alert_rule set enabled = false where organisation_id = '{org}' and id <> '{good}'")).await;
    fixture.wait_groups(&org, &[("default", &["Good"])]).await;
}

// A project's own table, with a query and the two triggers of docs/operations/rules.md.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_the_operators_own_is_synced() {
    let mimir = harness::Mimir::shared().await.url();
    let database = Postgres::shared().await.database("rules").await;
    let text = include_str!("../../../docs/operations/rules.md");
    let block = |mark: &str| {
        let from = text.split_once(&format!("<!-- {mark} -->")).unwrap().1;
        let from = from.split_once("```").unwrap().1.split_once('\n').unwrap().1;
        from.split_once("```").unwrap().0.to_owned()
    };
    database.execute(&format!("create schema mimir; {}", block("own table"))).await;
    let toml: toml::Table = block("own query").parse().unwrap();
    let query = toml["database"]["alert_rule_query"].to_string();
    let env = [("MTP__DATABASE__SCHEMA", "mimir")];
    assert!(crate::support::identity::command_with(&database, &env, &["migrate"]).status.success());
    database.execute(&block("own triggers")).await;
    let settings = [
        ("database.schema", "\"mimir\""),
        ("database.alert_rule_query", &*query),
        ("tenancy.membership", "\"claims\""),
    ];
    let mut all = vec![("rules.enabled", "true")];
    all.extend_from_slice(&settings);
    let url = database.url();
    let identity =
        crate::support::identity::identity_fixture_without_migration(database, &url, &mimir, &all)
            .await;
    let fixture = super::RulesFixture { identity, mimir };
    let org = harness::fresh_organisation();
    fixture.sql(&format!("insert into mimir.organisation (id) values ('{org}')")).await;
    fixture
        .sql(&format!(
            "insert into public.alarms (project, title, query) values ('{org}', 'Up', 'up == 0')"
        ))
        .await;
    fixture.wait_groups(&org, &[("default", &["Up"])]).await;
    fixture.sql("update public.alarms set title = 'Down', hold_seconds = 300").await;
    fixture.wait_groups(&org, &[("default", &["Down"])]).await;
    let text = fixture.ruler(&org).get("/prometheus/config/v1/rules").await.text;
    assert!(text.contains("for: 5m"), "{text}");
    fixture.sql("delete from public.alarms").await;
    fixture.wait_groups(&org, &[]).await;
}

// An operator's own tables with our names are not changed, and the error says what to do.
#[tokio::test(flavor = "multi_thread")]
async fn another_table_called_alert_rule_is_not_changed() {
    let database = Postgres::shared().await.database("rules").await;
    database.execute("create table alert_rule (id bigint)").await;
    let output = command(&database, &["migrate"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("alert_rule_query"), "{text}");
    assert_eq!(database.query("select * from alert_rule").await.len(), 0);
}

// The procedure of docs/operations/rules.md after the first migration in a schema that has another
// table called alert_rule: our tables move, with all their rows.
#[tokio::test(flavor = "multi_thread")]
async fn our_tables_can_move_away_from_another_table_with_their_name() {
    let database = Postgres::shared().await.database("rules").await;
    assert!(command(&database, &["migrate"]).status.success());
    // As it was before the second migration.
    database
        .execute(
            "insert into organisation (id) values ('acme');
             do $$
             declare made text;
             begin
                 for made in select format('drop table %I cascade', tablename) from pg_tables
                         where schemaname = 'public' and tablename not in ('organisation', 'membership',
                             'device_key', 'revocation', 'mimir_tenant_proxy_migration')
                     union all select format('drop trigger %I on organisation', tgname) from pg_trigger
                         where tgrelid = 'organisation'::regclass and not tgisinternal
                 loop execute made; end loop;
                 for made in select format('drop function %s cascade', oid::regprocedure) from pg_proc
                         where proname like 'mimir_tenant_proxy%'
                           and proname not in ('mimir_tenant_proxy_notify', 'mimir_tenant_proxy_user')
                 loop execute made; end loop;
             end $$;
             alter table organisation drop column device_silent_after;
             delete from mimir_tenant_proxy_migration where version >= 2;
             create table alert_rule (id bigint)",
        )
        .await;
    assert!(!command(&database, &["migrate"]).status.success());
    let moved =
        ["organisation", "membership", "device_key", "revocation", "mimir_tenant_proxy_migration"]
            .map(|table| format!("alter table {table} set schema mimir"))
            .join("; ");
    database
        .execute(&format!(
            "create schema mimir; {moved};
             alter function mimir_tenant_proxy_notify set schema mimir;
             alter function mimir_tenant_proxy_user set schema mimir"
        ))
        .await;
    let env = [("MTP__DATABASE__SCHEMA", "mimir")];
    let output = crate::support::identity::command_with(&database, &env, &["migrate"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let left = format!("{} steps taken", crate::migrations::steps() - 1);
    assert!(output.status.success() && text.contains(&left), "{output:?}");
    assert_eq!(database.query("select id from mimir.organisation").await.len(), 1);
    assert_eq!(database.query("select * from mimir.alert_rule").await.len(), 0);
}

// An organisation that is renamed and renamed back keeps its rules' statuses.
#[tokio::test(flavor = "multi_thread")]
async fn statuses_follow_an_organisation_that_is_renamed_and_renamed_back() {
    let fixture = rules_fixture(&[]).await;
    let org = fixture.identity.organisation().await;
    let id = fixture.rule(&org, "Up", "up == 0").await;
    fixture.wait_state(&id, "live").await;
    let whose = async |wanted: &str| {
        let sql = format!("select organisation_id from alert_rule_status where rule_id = '{id}'");
        wait_until(&format!("the status is {wanted}'s"), SOON, async || {
            fixture.identity.database.query(&sql).await[0][0].as_deref() == Some(wanted)
        })
        .await;
    };
    let other = format!("{org}-renamed");
    fixture.sql(&format!("update organisation set id = '{other}' where id = '{org}'")).await;
    whose(&other).await;
    fixture.sql(&format!("update organisation set id = '{org}' where id = '{other}'")).await;
    whose(&org).await;
    assert_eq!(fixture.status(&id).await.0, "live");
}

// A rule in Mimir may have a NUL in its name, and what is held names rules; Postgres stores none.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_deletion_whose_reason_has_a_nul_is_written() {
    let database = Postgres::shared().await.database("nul").await;
    assert!(command(&database, &["migrate"]).status.success());
    let variables = vec![("MTP__DATABASE__URL".to_owned(), database.url())];
    let config = DatabaseConfig::load(None, &Environment::from_vars(variables)).unwrap();
    let store = Store::new(&config, TablesRead::default()).unwrap();
    let organisation = OrganisationId::parse("a").unwrap();
    let held = |reason: &str| GuardHeld { id: "a1".to_owned(), reason: reason.to_owned() };
    let row = SyncRow {
        organisation: organisation.clone(),
        tenant: "a".to_owned(),
        stored: 0,
        live: 0,
        failing: 0,
        not_in_mimir: 0,
        synced_at: None,
        problem: "A\0B".to_owned(),
        problem_since: None,
        absent_since: None,
        guard: Some(held("A\0B")),
        guard_since: None,
        shown_rules_per_group: None,
        shown_groups: None,
    };
    store.write_rule_syncs(vec![row]).await.unwrap();
    let read = store.rule_sync_of(organisation).await.unwrap().unwrap();
    assert_eq!(read.problem, "A\u{fffd}B");
    assert_eq!(read.guard, Some(held("A\u{fffd}B")));
}

// A UUID in a column of texts may be in capitals. Before, its organisation was listed and then not found, so
// that it had neither rules nor channels, and nothing said so.
#[tokio::test(flavor = "multi_thread")]
async fn an_organisation_whose_uuid_is_in_capitals_has_its_rules_and_channels() {
    let database = Postgres::shared().await.database("capitals").await;
    assert!(command(&database, &["migrate"]).status.success());
    let capitals = Uuid::new_v4().to_string().to_uppercase();
    let organisation = OrganisationId::parse(&capitals).unwrap();
    let sql = format!(
        "alter table organisation drop constraint organisation_id_check1; -- a table of the operator's has none
         insert into organisation (id) values ('{capitals}');
         insert into alert_rule (organisation_id, name, expr)
             values ('{capitals}', 'Stays', 'up'), ('{capitals}', 'Goes', 'up');
         delete from alert_rule where name = 'Goes';
         insert into notification_channel (organisation_id, kind) values ('{capitals}', 'email');
         create table theirs as select gen_random_uuid() as id, '{capitals}'::text as org"
    );
    database.execute(&sql).await;
    let theirs = "select id, org as organisation_id, 'A' as name, 'up' as expr \
                  from theirs where org = any($1)";
    for query in [None, Some(theirs)] {
        let mut variables = vec![("MTP__DATABASE__URL".to_owned(), database.url())];
        let query =
            query.map(|query| ("MTP__DATABASE__ALERT_RULE_QUERY".to_owned(), query.to_owned()));
        variables.extend(query);
        let config = DatabaseConfig::load(None, &Environment::from_vars(variables)).unwrap();
        let tables = TablesRead { rules: true, channels: true, ..TablesRead::default() };
        let store = Store::new(&config, tables).unwrap();
        assert!(store.organisations().await.unwrap().contains(&organisation));
        let asked = || vec![organisation.clone()];
        let existing = store.existing_organisations(asked()).await.unwrap();
        assert!(existing.contains(&organisation));
        let rules = store.alert_rules_of(asked()).await.unwrap();
        assert!(rules.existing.contains(&organisation));
        assert_eq!(rules.rows[&organisation].len(), 1);
        assert_eq!(rules.tombstones[&organisation].len(), 1);
        let channels = store.notification_channels_of(asked()).await.unwrap();
        assert!(channels.existing.contains(&organisation));
        assert_eq!(channels.rows[&organisation].channels.len(), 1);
    }
}

fn store_of(database: &Database) -> Store {
    let variables = vec![("MTP__DATABASE__URL".to_owned(), database.url())];
    let config = DatabaseConfig::load(None, &Environment::from_vars(variables)).unwrap();
    let tables = TablesRead { rules: true, channels: true, ..TablesRead::default() };
    Store::new(&config, tables).unwrap()
}

async fn count_in(database: &Database, table: &str) -> String {
    let sql = format!("select count(*) from {table}");
    database.query(&sql).await[0][0].clone().unwrap()
}

// An organisation that makes and deletes rules all day: all of its tombstones were read in each reconcile, and deleted
// in one statement. That took longer than a query may, and no status of any organisation was written after it.
#[tokio::test(flavor = "multi_thread")]
async fn however_many_rules_an_organisation_deletes_it_is_read_and_forgotten_in_parts() {
    let database = Postgres::shared().await.database("tombstones").await;
    assert!(command(&database, &["migrate"]).status.success());
    let last = Uuid::from_u128(u128::MAX);
    let tombstones_sql = |count: u32| {
        format!(
            "insert into alert_rule_tombstone (rule_id, organisation_id) \
             select lpad(to_hex(n), 32, '0')::uuid, 'a' from generate_series(1, {count}) as n"
        )
    };
    let guards = few_at_once("alert_rule_tombstone") + &few_at_once("alert_rule_status");
    database
        .execute(&format!(
            "{guards} insert into organisation (id) values ('a'), ('b'); {};
             insert into alert_rule_tombstone (rule_id, organisation_id)
                 values ('{last}', 'a'), ('{last}', 'b');
             insert into alert_rule_status (rule_id, organisation_id, state, rule_hash)
                 values ('{last}', 'a', 'live', 'h')",
            tombstones_sql(25_000)
        ))
        .await;
    let store = store_of(&database);
    let [a, b] = ["a", "b"].map(|name| OrganisationId::parse(name).unwrap());
    let both = || vec![a.clone(), b.clone()];
    let mut read = Vec::new();
    loop {
        let versions = store.rule_versions_of(both()).await.unwrap().unwrap();
        let mut snapshot = store.alert_rules_of(both()).await.unwrap();
        // The other one has no part in it.
        assert_eq!(snapshot.tombstones[&b].keys().collect::<Vec<_>>(), [&last]);
        let tombstones = snapshot.tombstones.remove(&a);
        // So a full resync reads its rules until nothing is left.
        assert_eq!(versions[&a].has_tombstones, tombstones.is_some());
        let Some(tombstones) = tombstones else { break };
        // What Mimir has is explained at once. If it had to wait for the others it would be held, and they with it.
        assert_eq!(tombstones.contains_key(&last), read.is_empty());
        read.push(tombstones.len());
        store.forget_tombstones(a.clone(), tombstones).await.unwrap();
    }
    assert_eq!(read, [10_001, 10_000, 5000]);

    // Its namespace is purged.
    let status = "insert into alert_rule_status (rule_id, organisation_id, state) \
                  select rule_id, 'a', 'invalid' from alert_rule_tombstone where organisation_id = 'a'";
    database
        .execute(&format!("delete from alert_rule_status; {}; {status}", tombstones_sql(5000)))
        .await;
    store.forget_rule_sync(a).await.unwrap();
    assert_eq!(count_in(&database, "alert_rule_status").await, "0");
    assert_eq!(count_in(&database, "alert_rule_tombstone").await, "1", "of the other organisation");
}

// A trigger on an operator's own table spells an organisation in a tombstone as that table does. Before, such tombstones
// were read and never deleted, and an organisation with channels and nothing else was not looked after.
#[tokio::test(flavor = "multi_thread")]
async fn tombstones_of_a_uuid_in_capitals_are_forgotten() {
    let database = Postgres::shared().await.database("capitals").await;
    assert!(command(&database, &["migrate"]).status.success());
    let capitals = Uuid::new_v4().to_string().to_uppercase();
    let organisation = OrganisationId::parse(&capitals).unwrap();
    let delete = format!(
        "insert into alert_rule (organisation_id, name, expr) values ('{capitals}', 'Goes', 'up');
         delete from alert_rule where name = 'Goes';
         insert into notification_channel (organisation_id, name, kind) values ('{capitals}', 'Goes', 'email');
         delete from notification_channel where name = 'Goes'"
    );
    database
        .execute(&format!(
            "alter table organisation drop constraint organisation_id_check1; -- a table of the operator's has none
             insert into organisation (id) values ('{capitals}');
             insert into notification_channel (organisation_id, kind) values ('{capitals}', 'email');
             {delete}"
        ))
        .await;
    let store = store_of(&database);
    let asked = || vec![organisation.clone()];
    let tombstones = store.alert_rules_of(asked()).await.unwrap().tombstones;
    let rules = tombstones[&organisation].clone();
    assert_eq!(rules.len(), 1);
    store.forget_tombstones(organisation.clone(), rules).await.unwrap();
    assert_eq!(count_in(&database, "alert_rule_tombstone").await, "0");

    let rows = store.notification_channels_of(asked()).await.unwrap().rows;
    let channels = rows[&organisation].channel_tombstones.clone();
    assert_eq!(channels.len(), 1);
    let forget =
        store.forget_notification_tombstones(organisation.clone(), channels, Tombstones::new());
    forget.await.unwrap();
    assert_eq!(count_in(&database, "notification_tombstone").await, "0");
    let found = store.notification_organisations().await.unwrap();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), asked());

    database.execute(&delete).await;
    store.forget_rule_sync(organisation.clone()).await.unwrap();
    store.forget_notification_sync(organisation.clone()).await.unwrap();
    for table in ["alert_rule_tombstone", "notification_tombstone"] {
        assert_eq!(count_in(&database, table).await, "0", "{table}");
    }
}

// Long reasons of many rules were one statement of many megabytes, which was tried again for ever if that took longer
// than a query may.
#[tokio::test(flavor = "multi_thread")]
async fn statuses_with_long_reasons_are_written_in_parts() {
    let database = Postgres::shared().await.database("reasons").await;
    assert!(command(&database, &["migrate"]).status.success());
    let sql = "create function not_much() returns trigger language plpgsql as \
               'begin if (select sum(octet_length(reason)) from fresh) > 1048576 then \
                    raise ''too much at once''; end if; return null; end'; \
               create trigger not_much after insert on alert_rule_status referencing new table as fresh \
                   for each statement execute function not_much();";
    database.execute(&format!("{sql} {}", few_at_once("alert_rule_status"))).await;
    let store = store_of(&database);
    let organisation = OrganisationId::parse("a").unwrap();
    let row = |number: u128| RuleStatusRow {
        rule: Uuid::from_u128(number),
        organisation: organisation.clone(),
        state: RuleState::Invalid,
        reason: if number < 1000 { "ß".repeat(5000) } else { String::new() },
        rule_hash: None,
        other_hashes: Vec::new(),
        refused_hash: None,
        synced_at: None,
        evaluated_at: None,
        notifies: None,
    };
    let rows: Vec<RuleStatusRow> = (0..3000).map(row).collect();
    let gone = rows.iter().map(|row| (organisation.clone(), row.rule)).collect();
    store.write_rule_statuses(rows, Vec::new()).await.unwrap();
    let read = store.rule_statuses_of(vec![organisation.clone()]).await.unwrap();
    let long = read.iter().filter(|row| row.reason == "ß".repeat(4000)).count();
    assert_eq!((read.len(), long), (3000, 1000));
    store.write_rule_statuses(Vec::new(), gone).await.unwrap();
    assert!(store.rule_statuses_of(vec![organisation]).await.unwrap().is_empty());
}

// A hold of all organisations was read in one statement. That took longer than a query may, so no copy could begin to
// lead, and nobody's rules were synced.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_of_many_organisations_is_read_confirmed_and_forgotten_in_parts() {
    const ORGANISATIONS: usize = 1200;
    const RULES: usize = 20;
    let database = Postgres::shared().await.database("holds").await;
    assert!(command(&database, &["migrate"]).status.success());
    let store = store_of(&database);
    let held = |number: usize| {
        let rule = |rule: usize| HeldRule {
            key: Uuid::from_u128((number * RULES + rule) as u128).to_string(),
            name: Uuid::new_v4().simple().to_string().repeat(6),
            group: "alerts".to_owned(),
            why: "it is unknown to the database".to_owned(),
        };
        GuardRow {
            id: "hold".to_owned(),
            organisation: OrganisationId::parse(&format!("organisation-{number}")).unwrap(),
            is_overall: true,
            rules: (0..RULES).map(rule).collect(),
        }
    };
    let mut rows: Vec<GuardRow> = (0..ORGANISATIONS).map(held).collect();
    rows.sort_by(|a, b| a.organisation.cmp(&b.organisation));
    store.write_guards(rows.clone()).await.unwrap();
    let guard = Some(GuardHeld { id: "hold".to_owned(), reason: "many".to_owned() });
    store.write_rule_leader(LeaderRow { guard, ..LeaderRow::default() }).await.unwrap();
    // Each statement that reads or confirms more than a part of them fails.
    let sizes = "select count(*)::text, max(pg_column_size(rules))::text from alert_rule_guard";
    println!("{:?}", database.query(sizes).await);
    database
        .execute(
            "create function not_much() returns trigger language plpgsql as \
             'begin if (select count(*) from fresh) > 500 then raise ''too much at once''; end if; return null; end'; \
             create trigger not_much after update on alert_rule_guard referencing new table as fresh \
                 for each statement execute function not_much();",
        )
        .await;

    let mut read = store.guard_rows("hold".to_owned(), None).await.unwrap();
    read.sort_by(|a, b| a.organisation.cmp(&b.organisation));
    assert!(read == rows, "{} of {ORGANISATIONS} are read", read.len());
    let keys = store.held_keys("hold".to_owned()).await.unwrap();
    assert_eq!(
        keys.values().map(std::collections::HashSet::len).sum::<usize>(),
        ORGANISATIONS * RULES
    );
    assert!(store.confirmed_deletions().await.unwrap().is_empty());
    let confirmed = store.confirm_guard(None, "hold".to_owned(), "test".to_owned()).await.unwrap();
    assert_eq!(confirmed, Confirmed::Noted);
    assert_eq!(store.confirmed_deletions().await.unwrap(), keys);

    store.write_rule_leader(LeaderRow::default()).await.unwrap();
    database.execute("drop trigger not_much on alert_rule_guard; update alert_rule_guard set held_at = now() - interval '2 days'").await;
    database.execute(&few_at_once("alert_rule_guard")).await;
    store.forget_old_rule_notes().await.unwrap();
    assert_eq!(count_in(&database, "alert_rule_guard").await, "0");
}

// Every organisation's sync, with its problem, was one statement as well.
#[tokio::test(flavor = "multi_thread")]
async fn however_many_syncs_there_are_all_are_read() {
    const ORGANISATIONS: usize = 2000;
    let database = Postgres::shared().await.database("syncs").await;
    assert!(command(&database, &["migrate"]).status.success());
    let store = store_of(&database);
    let sync = |number: usize| {
        let organisation = OrganisationId::parse(&format!("organisation-{number}")).unwrap();
        SyncRow { problem: "x".repeat(500), ..SyncRow::new(&organisation) }
    };
    store.write_rule_syncs((0..ORGANISATIONS).map(sync).collect()).await.unwrap();
    let read = store.rule_syncs().await.unwrap();
    let names: std::collections::HashSet<_> = read.iter().map(|sync| &sync.organisation).collect();
    assert_eq!((read.len(), names.len()), (ORGANISATIONS, ORGANISATIONS));
    let one = store.rule_sync_of(read[7].organisation.clone()).await.unwrap();
    assert_eq!(one.as_ref(), Some(&read[7]));
}
