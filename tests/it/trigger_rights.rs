//! Trigger functions that run as the owner of our tables: nobody else may use them, and whoever could gets
//! nothing by it.

use harness::{Database, Postgres};

use crate::migrations::{Defaults, supabase_project};
use crate::support::identity::command_with;

const DENIED: &str = "42501";
/// The roles of Supabase's API.
const CALLERS: [&str; 3] = ["anon", "authenticated", "service_role"];

/// Functions that run as the owner and that a role of the API may execute.
const MEANT_FOR_CALLERS: [&str; 0] = [];

/// A database with Supabase's default privileges, and our tables in `schema`.
async fn supabase(schema: &str, defaults: Defaults) -> (Postgres, Database) {
    let (cluster, database) = supabase_project(defaults).await;
    let migrated = command_with(&database, &[("MTP__DATABASE__SCHEMA", schema)], &["migrate"]);
    assert!(migrated.status.success(), "{migrated:?}");
    (cluster, database)
}

async fn texts(database: &Database, sql: &str) -> Vec<String> {
    database.query(sql).await.into_iter().flatten().flatten().collect()
}

// All of them, also those that a later migration adds.
#[tokio::test(flavor = "multi_thread")]
async fn no_function_that_runs_as_the_owner_is_a_callers_to_execute() {
    let everywhere = Defaults::ALL
        .into_iter()
        .flat_map(|defaults| ["public", "tenancy"].map(|schema| (schema, defaults)));
    for (schema, defaults) in everywhere {
        let (_cluster, database) = supabase(schema, defaults).await;
        let ours = format!("pronamespace = '{schema}'::regnamespace and prosecdef");
        let all = texts(&database, &format!("select proname from pg_proc where {ours}")).await;
        assert!(all.len() >= 6, "{all:?}");
        let callable = texts(
            &database,
            &format!(
                "select proname || ' by ' || rolname from pg_proc, pg_roles
                 where {ours} and rolname = any(array['anon', 'authenticated', 'service_role'])
                     and has_function_privilege(pg_roles.oid, pg_proc.oid, 'execute')"
            ),
        )
        .await;
        assert_eq!(callable, MEANT_FOR_CALLERS, "{schema}, {defaults:?}");
        let public = texts(
            &database,
            &format!(
                "select proname from pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) as granted
                 where {ours} and granted.grantee = 0"
            ),
        )
        .await;
        assert!(public.is_empty(), "{public:?}");
        // A caller's temporary schema is looked in first if it is not named, and it must not be before ours.
        let loose = texts(
            &database,
            &format!(
                "select proname || ': ' || coalesce(proconfig::text, 'none') from pg_proc
                 where {ours} and not coalesce(proconfig @> array['search_path=pg_catalog, pg_temp'], false)"
            ),
        )
        .await;
        assert!(loose.is_empty(), "{loose:?}");
        // The schema of whatever fired it is the caller's choice.
        let led = texts(
            &database,
            &format!("select proname from pg_proc where {ours} and prosrc ~ 'tg_table_'"),
        )
        .await;
        assert!(led.is_empty(), "{led:?}");
    }
}

/// An attacker's own tables, with a function of ours as their trigger. The first has the name of ours, and a
/// trigger that tells whose rights it has.
fn attack(function: &str, arguments: &str) -> String {
    format!(
        "create temp table alert_event (organisation_id text);
         create function pg_temp.evil() returns trigger language plpgsql as $$ begin
             raise exception 'as %: %', current_user, (select string_agg(secrets::text, '') from public.notification_channel_secret);
         end $$;
         insert into alert_event values ('x');
         create trigger e before delete on alert_event for each row execute function pg_temp.evil();
         create temp table mine (id text, organisation_id text, kind text, secrets jsonb);
         insert into mine values ('x', 'x', 'webhook', '{{}}');
         create trigger z after delete on mine for each row execute function public.{function}({arguments});
         delete from mine"
    )
}

// The attack: a table in the caller's temporary schema, and code in its trigger that ran as the owner.
#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_of_ours_on_a_callers_table_runs_nothing() {
    for defaults in Defaults::ALL {
        let (_cluster, database) = supabase("public", defaults).await;
        our_triggers_run_nothing_on_a_callers_table(&database).await;
    }
}

async fn our_triggers_run_nothing_on_a_callers_table(database: &Database) {
    database
        .execute(
            "insert into organisation (id) values ('a');
             insert into notification_channel (organisation_id, kind, secrets)
             values ('a', 'webhook', '{\"url\": \"https://hooks.example.com/n33dle\"}')",
        )
        .await;
    let functions = [
        ("mimir_tenant_proxy_forget_events", ""),
        ("mimir_tenant_proxy_rename_events", ""),
        ("mimir_tenant_proxy_keep_secrets", ""),
        ("mimir_tenant_proxy_forget_aside", ""),
        ("mimir_tenant_proxy_count", ""),
        ("mimir_tenant_proxy_at_most", "'1', 'x'"),
        ("mimir_tenant_proxy_bury", "'id', 'organisation_id'"),
        ("mimir_tenant_proxy_bury_notification", "'channel', 'id', 'organisation_id'"),
    ];
    let all = texts(
        database,
        "select proname from pg_proc where pronamespace = 'public'::regnamespace and prosecdef",
    )
    .await;
    for name in &all {
        assert!(functions.iter().any(|(function, _)| function == name), "no attack on {name}");
    }
    // As it is, and as it would be if somebody granted everything again.
    for is_granted in [false, true] {
        if is_granted {
            let sql = "grant execute on all functions in schema public to anon, authenticated, service_role";
            database.execute(sql).await;
        }
        for (function, arguments) in functions {
            for role in CALLERS {
                let session = format!("set role {role}");
                let refusal =
                    database.try_query(&session, &attack(function, arguments)).await.unwrap_err();
                assert_eq!(refusal.code, DENIED, "{function} by {role}: {}", refusal.text);
                let words =
                    if is_granted { "this trigger" } else { "permission denied for function" };
                assert!(refusal.text.contains(words), "{function} by {role}: {}", refusal.text);
                assert!(!refusal.text.contains("n33dle"), "{}", refusal.text);
            }
        }
    }
    // Ours still do what they are for.
    database
        .execute(
            "insert into alert_event (organisation_id, kind, fingerprint, state, started_at)
             values ('a', 'alert', 'x', 'firing', now()), ('b', 'alert', 'x', 'firing', now())",
        )
        .await;
    for (change, left) in [
        ("update organisation set id = 'c' where id = 'a' returning id", &["b", "c"][..]),
        ("delete from organisation where id = 'c' returning id", &["b"][..]),
    ] {
        let changed = database.try_query("set role service_role", change).await;
        assert_eq!(changed.map(|rows| rows.len()).map_err(|refusal| refusal.text), Ok(1));
        let events = "select organisation_id from alert_event order by 1";
        assert_eq!(texts(database, events).await, left, "{change}");
    }
}

// Seen: a form sent the mask with a line break after it, which replaced the secret. The proxy trims what it reads, so the
// trigger takes the same characters for blank.
#[tokio::test(flavor = "multi_thread")]
async fn a_mask_with_white_space_around_it_keeps_the_secret() {
    let (_cluster, database) = supabase("public", Defaults::Everything).await;
    database
        .execute(
            "insert into organisation (id) values ('a');
             insert into notification_channel (organisation_id, kind, secrets)
             values ('a', 'webhook', '{\"token\": \"t\", \"url\": \"u\"}')",
        )
        .await;
    let update = async |token: &str| {
        let secrets = serde_json::json!({"url": "<secret>", "token": token}).to_string();
        let sql = format!("update notification_channel set secrets = '{secrets}'");
        database.execute(&sql).await;
        let read = "select secrets ->> 'token' from notification_channel_secret
                    union all select secrets ->> 'token' from notification_channel";
        texts(&database, read).await
    };
    let blanks: Vec<char> =
        ('\u{1}'..=char::MAX).filter(|c| c.is_whitespace() || *c == '\u{feff}').collect();
    assert!(blanks.len() > 20, "{blanks:?}");
    for blank in &blanks {
        let kept = update(&format!("{blank}<secret>{blank}{blank}")).await;
        assert_eq!(kept, ["t", "<secret>"], "{blank:?}");
    }
    // Characters that look blank and that the proxy does not trim, and a text that only holds the mask.
    for token in ["<secret>\u{200b}", "<secret>\u{180e}", "<secret> x", "x <secret>", " t "] {
        assert_eq!(update(token).await, [token, "<secret>"]);
    }
    let all: String = blanks.iter().collect();
    assert!(update(&all).await.is_empty(), "a blank text removes it, as an empty one does");
    // A backup that is restored brings masks.
    let insert = "insert into notification_channel (organisation_id, kind, secrets)
                  values ('a', 'webhook', '{\"url\": \"<secret>\\n\"}') returning secrets ->> 'url'";
    assert_eq!(texts(&database, insert).await, ["<secret>"]);
}

// Whoever has no rights on other rows still cannot crowd others out.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_counted_in_another_schema_too() {
    for defaults in Defaults::ALL {
        let (_cluster, database) = supabase("tenancy", defaults).await;
        database.execute("insert into tenancy.organisation (id) values ('a')").await;
        let session = "set role service_role";
        for (sql, words) in [
            (
                "insert into tenancy.alert_rule (organisation_id, name, expr)
                 select 'a', 'r' || n, 'up' from generate_series(1, 5001) as n",
                "5000 alert rules",
            ),
            (
                "insert into tenancy.notification_channel (organisation_id, kind)
                 select 'a', 'webhook' from generate_series(1, 1001)",
                "1000 notification channels",
            ),
        ] {
            let refusal = database.try_query(session, sql).await.unwrap_err();
            assert!(refusal.text.contains(words), "{}", refusal.text);
        }
    }
}

// Two transactions at the same time do not see each other's rows.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_transactions_at_the_same_time_are_counted_together() {
    let (_cluster, database) = supabase("public", Defaults::Everything).await;
    database.execute("insert into organisation (id) values ('a'), ('b')").await;
    for (insert, half, words) in [
        (
            "insert into alert_rule (organisation_id, name, expr) select '{}', 'r' || n, 'up'",
            3000,
            "5000 alert rules",
        ),
        (
            "insert into notification_channel (organisation_id, kind) select '{}', 'webhook'",
            600,
            "1000 notification channels",
        ),
    ] {
        let insert = |organisation: &str| {
            let insert = insert.replace("{}", organisation);
            format!("{insert} from generate_series(1, {half}) as n")
        };
        let (first, second) = (database.client().await, database.client().await);
        first.batch_execute(&format!("begin; {}", insert("a"))).await.unwrap();
        // Another organisation's do not wait.
        database.execute(&insert("b")).await;
        let more = insert("a");
        let (refused, ()) = tokio::join!(second.batch_execute(&more), async {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            first.batch_execute("commit").await.unwrap();
        });
        let refused = refused.unwrap_err();
        let refused = refused.as_db_error().unwrap().message().to_owned();
        assert!(refused.contains(words), "{refused}");
    }
}

// Each lock takes memory of the server until its transaction ends: with one for each organisation a restore of 10,000
// failed, and had others fail.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_of_many_organisations_takes_few_locks() {
    let (_cluster, database) = supabase("public", Defaults::Everything).await;
    let client = database.client().await;
    client
        .batch_execute(
            "begin;
             insert into organisation (id) select 'o' || n from generate_series(1, 20000) as n;
             insert into alert_rule (organisation_id, name, expr) select id, 'r', 'up' from organisation;
             insert into notification_channel (organisation_id, kind) select id, 'webhook' from organisation",
        )
        .await
        .unwrap();
    let locks = "select count(*) from pg_locks where locktype = 'advisory'";
    let locks: i64 = client.query_one(locks, &[]).await.unwrap().get(0);
    assert!((1..=512).contains(&locks), "{locks}");
    client.batch_execute("commit").await.unwrap();
}
