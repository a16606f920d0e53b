//! The commands of docs/operations/backup.md, run by an operator who is no superuser.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::{Database, Mimir, Postgres, Proxy, fresh_organisation, wait_until};

use super::{pieces_of, root};
use crate::migrations::says;
use crate::rules::{RulesFixture, SOON, confirmation, groups_of, rules_fixture_on};

/// Tables in the dump.
const TABLES: [&str; 9] = [
    "organisation",
    "membership",
    "device_key",
    "revocation",
    "alert_rule",
    "notification_channel",
    "notification_channel_secret",
    "notification_route",
    "organisation_limit",
];
const QUERY: &str = "/prometheus/api/v1/query?query=up";

/// The operator: a shell with the database's programs and ours, in a directory of its own.
struct Operator {
    directory: tempfile::TempDir,
    path: OsString,
    mimir: String,
}

/// The database's own programs: Debian's wrappers choose a cluster themselves.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let numbered = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())));
    let homes = numbered.map(|(version, home)| (version, home.join("bin")));
    homes.filter(|(_, bin)| bin.join("postgres").exists()).max().map(|(_, bin)| bin)
}

/// The only code block of the page that contains a text.
fn documented(text: &str) -> String {
    let page = root().join("docs/operations/backup.md");
    let mut found = pieces_of(&page).into_iter().filter(|piece| piece.text.contains(text));
    let piece = found.next().unwrap();
    assert!(found.next().is_none(), "{text}");
    piece.text
}

/// As Supabase's role `postgres`: it owns our tables and is no superuser.
fn url_of(database: &Database) -> String {
    database.url().replace("//postgres@", "//keeper@")
}

impl Operator {
    fn new(mimir: String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(Proxy::binary(), directory.path().join("mimir-tenant-proxy"))
            .unwrap();
        let first = std::iter::once(directory.path().to_owned()).chain(programs());
        let rest = std::env::var_os("PATH").unwrap();
        let path = std::env::join_paths(first.chain(std::env::split_paths(&rest))).unwrap();
        Self { directory, path, mimir }
    }

    fn runs(&self, database: &Database, script: &str) -> (Option<i32>, String) {
        let url = url_of(database);
        let output = Command::new("sh")
            .args(["-c", script])
            .current_dir(&self.directory)
            .env("PATH", &self.path)
            .env("DATABASE_URL", &url)
            .env("MTP__DATABASE__URL", &url)
            .env("MTP__AUTH__ISSUER", "http://127.0.0.1:1/auth/v1")
            .env("MTP__UPSTREAM__URLS", &self.mimir)
            .output()
            .unwrap();
        says(&output)
    }

    fn succeeds(&self, database: &Database, script: &str) -> String {
        let (code, text) = self.runs(database, script);
        assert_eq!(code, Some(0), "{script}: {text}");
        text
    }

    /// The schema. Recent programs write a random word into it.
    fn shape(&self, database: &Database) -> String {
        let dumped = self.succeeds(database, "pg_dump --schema-only \"$DATABASE_URL\"");
        dumped.lines().filter(|line| !line.contains("restrict ")).collect::<Vec<_>>().join("\n")
    }

    fn dump(&self) -> PathBuf {
        Path::new(self.directory.path()).join("mimir-tenant-proxy.dump")
    }
}

/// A database of a Supabase project.
async fn project(cluster: &Postgres, name: &str) -> Database {
    let database = cluster.database(name).await;
    database.execute("grant all on schema public to keeper").await;
    database
}

/// The rows of a table, without columns that change while a proxy runs.
async fn rows(database: &Database) -> BTreeMap<&'static str, Vec<String>> {
    let mut all = BTreeMap::new();
    for table in TABLES {
        let sql =
            format!("select (to_jsonb(t) - 'last_used_at')::text from {table} as t order by 1");
        let read = database.query(&sql).await;
        all.insert(table, read.into_iter().flatten().flatten().collect());
    }
    all
}

async fn add_rules(fixture: &RulesFixture, organisation: &str, prefix: &str, count: usize) {
    let sql = format!(
        "insert into alert_rule (organisation_id, name, expr) \
         select '{organisation}', '{prefix}' || n, 'up == ' || n from generate_series(1, {count}) as n"
    );
    fixture.sql(&sql).await;
}

async fn in_mimir(fixture: &RulesFixture, organisation: &str) -> Vec<String> {
    let mut alerts: Vec<String> =
        fixture.groups(organisation).await.into_values().flatten().collect();
    alerts.sort();
    alerts
}

async fn wait_in_mimir(fixture: &RulesFixture, organisation: &str, count: usize) {
    wait_until(&format!("{organisation} has {count} rules"), SOON, async || {
        in_mimir(fixture, organisation).await.len() == count
    })
    .await;
}

// A database in use is restored, completely or not at all; an empty one is filled. Then the proxy
// and Mimir do what the page says.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one story: a backup, changes, a restore")]
async fn a_backup_restores_a_used_database_and_fills_an_empty_one() {
    let (backup, restore) = (documented("pg_dump"), documented("psql"));
    let mimir = Mimir::shared().await.url();
    let operator = Operator::new(mimir.clone());
    let cluster = Postgres::start().await;
    // Supabase's roles, which the policies refer to. Roles are global to a cluster.
    let roles = "create role anon nologin; create role authenticated nologin; \
                 create role keeper login createdb createrole; grant anon, authenticated to keeper";
    cluster.database("roles").await.execute(roles).await;
    let living = project(&cluster, "living").await;
    operator.succeeds(&living, "mimir-tenant-proxy migrate");
    let fixture = rules_fixture_on(living.clone(), &mimir, &mimir, &[]).await;
    let identity = &fixture.identity;
    let (many, few, new) =
        (identity.organisation().await, identity.organisation().await, fresh_organisation());
    add_rules(&fixture, &many, "A", 10).await;
    add_rules(&fixture, &few, "A", 2).await;
    let (stays, leaves) =
        (identity.member(&many, "owner").await, identity.member(&few, "viewer").await);
    let device = identity.device(&many, &["metrics:read"]).await;
    fixture.sql("insert into revocation (kind, value) values ('jti', 'x')").await;
    let channel = format!(
        "insert into notification_channel (organisation_id, kind, secrets) \
         values ('{many}', 'webhook', '{{\"url\": \"https://then.example.org\"}}'); \
         insert into notification_route (organisation_id, channel_id) \
         select organisation_id, id from notification_channel; \
         insert into organisation_limit values ('{many}', 'push_in_flight', '9')"
    );
    fixture.sql(&channel).await;
    wait_in_mimir(&fixture, &many, 10).await;
    wait_in_mimir(&fixture, &few, 2).await;
    assert_eq!(device.get(QUERY).await.status, 200);

    operator.succeeds(&living, &backup);
    let (rows_then, shape_then) = (rows(&living).await, operator.shape(&living));
    assert!(shape_then.contains("own_alert_rule_statuses"), "{shape_then}");

    let comes = identity.member(&many, "owner").await;
    identity.leave(&leaves, &few).await;
    fixture
        .sql(&format!(
            "insert into organisation (id) values ('{new}'); delete from revocation; \
             update notification_channel set secrets = '{{\"url\": \"https://now.example.org\"}}'; \
             delete from notification_route; update organisation_limit set value = '8'; \
             update device_key set revoked_at = now(); delete from alert_rule where name = 'A1'; \
             update alert_rule set expr = 'up == 99' where name = 'A2'"
        ))
        .await;
    add_rules(&fixture, &many, "New", 2).await;
    add_rules(&fixture, &few, "New", 2).await;
    add_rules(&fixture, &new, "New", 1).await;
    for (organisation, count) in [(&many, 11), (&few, 3), (&new, 1)] {
        wait_in_mimir(&fixture, organisation, count).await;
    }
    assert_eq!(identity.client(&comes).get(QUERY).await.status, 200);
    let rows_changed = rows(&living).await;

    // A failure changes nothing: a dump that is broken or missing, a rejected row, someone else's
    // table.
    let whole = std::fs::read(operator.dump()).unwrap();
    std::fs::write(operator.dump(), &whole[..whole.len() - 100]).unwrap();
    assert_ne!(operator.runs(&living, &restore).0, Some(0));
    std::fs::remove_file(operator.dump()).unwrap();
    assert_ne!(operator.runs(&living, &restore).0, Some(0));
    std::fs::write(operator.dump(), &whole).unwrap();
    for (make, unmake) in [
        (
            "alter table alert_rule add constraint no check (name <> 'A1')",
            "alter table alert_rule drop constraint no",
        ),
        ("create table own (id text references organisation (id))", "drop table own"),
    ] {
        fixture.sql(make).await;
        let (code, text) = operator.runs(&living, &restore);
        assert!(code != Some(0) && text.contains("ERROR"), "{code:?} {text}");
        fixture.sql(unmake).await;
    }
    assert_eq!(rows(&living).await, rows_changed);

    let said = operator.succeeds(&living, &restore);
    assert!(said.contains("nothing to do"), "{said}");
    assert_eq!(rows(&living).await, rows_then);
    // Its secret is that of the backup, and stays when the row is written next.
    fixture.sql("update notification_channel set name = name").await;
    assert_eq!(
        rows(&living).await["notification_channel_secret"],
        rows_then["notification_channel_secret"]
    );
    assert_eq!(operator.shape(&living), shape_then);
    wait_until("members are those of the backup", Duration::from_secs(5), async || {
        let mut statuses = Vec::new();
        for person in [&stays, &leaves, &comes] {
            statuses.push(identity.client(person).get(QUERY).await.status.as_u16());
        }
        statuses == [200, 200, 403] && device.get(QUERY).await.status == 200
    })
    .await;
    the_rules_are_as_the_page_says(&fixture, &operator, [&many, &few, &new]).await;

    let empty = project(&cluster, "empty").await;
    let said = operator.succeeds(&empty, &restore);
    assert!(said.contains("steps taken"), "{said}");
    assert_eq!(rows(&empty).await, rows_then);
    assert_eq!(operator.shape(&empty), shape_then);
    let said = operator.succeeds(&empty, "mimir-tenant-proxy migrate");
    assert!(said.contains("nothing to do"), "{said}");
    operator.succeeds(&empty, "mimir-tenant-proxy rules diff");
    // What is unknown to the new database stays.
    let other =
        rules_fixture_on(empty.clone(), &mimir, &mimir, &[("rules.organisation_grace", "\"0s\"")])
            .await;
    other.sync_all().await;
    other.sync_all().await;
    assert_eq!(groups_of(&mimir, &new, "alert_rule").await.len(), 1);
    operator.succeeds(&empty, "mimir-tenant-proxy rules diff");

    // A dump with tables, by the page's other method.
    let old = format!("rm {}; {}", operator.dump().display(), backup.replace("--data-only", ""));
    operator.succeeds(&empty, &old);
    assert_ne!(operator.runs(&empty, &restore).0, Some(0));
    let line = restore.lines().find(|line| line.starts_with("pg_restore")).unwrap();
    let loops = format!("{} &&", documented("for table in").trim_end());
    empty.execute("delete from membership; delete from device_key").await;
    operator.succeeds(&empty, &restore.replace(line, &loops));
    let mut again = rows(&empty).await;
    assert_eq!(again.remove("alert_rule").map(|rules| rules.len()), Some(12));
    assert!(TABLES[..4].iter().all(|table| again[table] == rows_then[table]), "{again:?}");
}

/// A few rules are deleted without confirmation; more are held with all that should come back; an
/// organisation that is gone keeps its rules for a while.
async fn the_rules_are_as_the_page_says(
    fixture: &RulesFixture,
    operator: &Operator,
    [many, few, new]: [&str; 3],
) {
    let living = &fixture.identity.database;
    wait_in_mimir(fixture, many, 10).await;
    assert!(in_mimir(fixture, many).await.contains(&"A1".to_owned()));
    let (code, diff) = operator.runs(living, "mimir-tenant-proxy rules diff");
    assert!(code == Some(1) && diff.contains("# held until it is confirmed"), "{code:?} {diff}");
    let (code, said) = operator.runs(living, "mimir-tenant-proxy rules sync");
    assert!(code == Some(1) && said.contains("1 held"), "{code:?} {said}");
    assert_eq!(in_mimir(fixture, few).await, ["A2", "New1", "New2"]);
    assert_eq!(in_mimir(fixture, new).await, ["New1"]);
    let held = "mimir_tenant_proxy_rules_guards_held{scope=\"tenant\"}";
    assert_eq!(fixture.identity.proxy.metric(held).await.to_string(), "1");
    let path = format!("/admin/organisations/{few}/rules");
    let service = fixture.identity.service();
    let guard = service.get(&path).await.json()["sync"]["guard"].clone();
    let confirm = format!("{path}/guard/confirm");
    fixture.finished(service.post(&confirm, confirmation(&guard)).await).await;
    wait_in_mimir(fixture, few, 2).await;
    assert_eq!(in_mimir(fixture, few).await, ["A1", "A2"]);
    operator.succeeds(living, "mimir-tenant-proxy rules diff");
}
