//! The user and the password of the database change while the proxy runs.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use harness::{ChaosProxy, Database, Mimir, Postgres, Proxy, Upstream, wait_until};
use mimir_tenant_proxy::config::{DatabaseConfig, Environment, TablesRead};
use mimir_tenant_proxy::store::Store;
use serde_json::Value;

use crate::alert_events::SECRET;
use crate::database::listening;
use crate::reload::edit;
use crate::rules::{RulesFixture, SOON};
use crate::support::identity::{command_with, identity_fixture_without_migration};
use crate::support::responses::ok;

const QUERY: &str = "/prometheus/api/v1/query?query=up";
const LOST: &str = "LISTEN connection lost";
/// What is told of each reload.
const RELOADED: &str = "Configuration reloaded";
const NOT_RELOADED: &str = "Configuration not reloaded";

/// A cluster that asks for passwords, and a proxy with everything that connects to it.
struct Fixture {
    postgres: Postgres,
    database: Database,
    rules: RulesFixture,
}

async fn fixture() -> Fixture {
    let postgres = Postgres::start_with_tls().await;
    let database = postgres.database("login").await;
    let url = database.url();
    fixture_with(postgres, database, &url).await
}

/// With an address of the database that the proxy is to be given.
async fn fixture_with(postgres: Postgres, database: Database, url: &str) -> Fixture {
    migrate(&postgres, &database);
    let ca = format!("{:?}", postgres.ca_file().to_str().unwrap());
    let (mimir, secret) = (Mimir::shared().await.url(), format!("{SECRET:?}"));
    let settings = [
        ("rules.enabled", "true"),
        ("alert_events.enabled", "true"),
        ("alert_events.secret", &secret),
        ("database.tls", "\"verify-full\""),
        ("database.ca_file", &ca),
        ("reload.watch_interval", "\"100ms\""),
    ];
    let identity =
        identity_fixture_without_migration(database.clone(), url, &mimir, &settings).await;
    let rules = RulesFixture::of(identity, &mimir);
    listening(&rules.identity).await;
    Fixture { postgres, database, rules }
}

fn migrate(postgres: &Postgres, database: &Database) {
    let ca = postgres.ca_file().to_str().unwrap();
    let env = [("MTP__DATABASE__TLS", "verify-full"), ("MTP__DATABASE__CA_FILE", ca)];
    let migrated = command_with(database, &env, &["migrate"]);
    assert!(migrated.status.success(), "{migrated:?}");
}

impl Fixture {
    fn proxy(&self) -> &Proxy {
        &self.rules.identity.proxy
    }

    /// The database's address with another user and password.
    fn url(&self, login: &str) -> String {
        let url = self.database.url();
        let (_, place) = url.split_once('@').unwrap();
        format!("postgres://{login}@{place}")
    }

    /// Writes another address to the configuration file.
    fn write(&self, url: &str) {
        edit(&self.proxy().config, &[("database.url", &format!("{url:?}"))]);
    }

    /// The lines of the log with a message.
    fn lines(&self, message: &str) -> Vec<Value> {
        let log = self.proxy().process.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == message).collect()
    }

    /// Waits for another line with a message.
    async fn line_after(&self, before: usize, message: &str, longest: Duration) -> Value {
        wait_until(message, longest, async || self.lines(message).len() > before).await;
        self.lines(message)[before].clone()
    }

    /// Ends every connection, and sees that each part of the proxy has a new one.
    async fn all_connect_again(&self) {
        let refusals = self.refusals();
        // After a refused login there may be nothing to lose yet.
        listening(&self.rules.identity).await;
        let before = self.lines(LOST).len();
        assert!(self.postgres.kill_connections_of(&self.database).await > 0);
        let (rules, identity) = (&self.rules, &self.rules.identity);
        self.line_after(before, LOST, SOON).await;
        listening(identity).await;
        // Look-ups, what is listed for administrators, the leader with the sync of rules, and its watch over
        // alert events.
        let organisation = identity.organisation().await;
        let person = identity.member(&organisation, "viewer").await;
        assert_eq!(identity.client(&person).get(QUERY).await.status, 200);
        let path = format!("/admin/organisations/{organisation}/rules");
        assert_eq!(identity.service().get(&path).await.status, 200);
        let rule = rules.rule(&organisation, "Hot", "temperature > 50").await;
        rules.wait_state(&rule, "live").await;
        assert_eq!(self.refusals(), refusals, "{}", self.postgres.log());
    }

    /// How often the server has refused a password.
    fn refusals(&self) -> usize {
        self.postgres.log().matches("password authentication failed").count()
    }
}

// A hosted database's password is changed where it is hosted. All connections of the process, on four
// threads, are made with the new one from then on, and nothing is restarted.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_is_used_without_a_restart() {
    let fixture = fixture().await;
    fixture.database.execute("alter role postgres password 'another'").await;
    fixture.write(&fixture.url("postgres:another"));
    let line = fixture.line_after(0, RELOADED, SOON).await;
    assert_eq!(line["keys"], "database.url");
    fixture.all_connect_again().await;
    assert!(!fixture.proxy().process.log().contains("another"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_role_is_used_if_it_has_the_rights() {
    let fixture = fixture().await;
    let create = "create role second login bypassrls password 'word'";
    fixture.database.execute(create).await;
    fixture.write(&fixture.url("second:word"));
    let line = fixture.line_after(0, NOT_RELOADED, SOON).await;
    let problem = line["problem"].as_str().unwrap();
    assert!(problem.contains("permission denied"), "{problem}");
    // With what the start needs alone, no administrator could change anything.
    fixture.database.execute("grant select on all tables in schema public to second").await;
    fixture.proxy().process.signal("HUP");
    let line = fixture.line_after(1, NOT_RELOADED, SOON).await;
    let problem = line["problem"].as_str().unwrap();
    assert!(problem.contains("insert"), "{problem}");
    fixture.database.execute("grant all on all tables in schema public to second").await;
    fixture.proxy().process.signal("HUP");
    let line = fixture.line_after(0, RELOADED, SOON).await;
    assert_eq!(line["keys"], "database.url");
    fixture.all_connect_again().await;
    let sql = "select distinct usename from pg_stat_activity where application_name = 'mimir-tenant-proxy'";
    assert_eq!(fixture.database.query(sql).await, [[Some("second".to_owned())]]);
}

// The file may be changed before the database is. The old password is in force until the new one is taken. It is
// tried again later, or at once if that is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_the_database_refuses_is_not_used() {
    let fixture = fixture().await;
    fixture.write(&fixture.url("postgres:early"));
    let line = fixture.line_after(0, NOT_RELOADED, SOON).await;
    let problem = line["problem"].as_str().unwrap();
    assert_eq!(line["key"], "database.url");
    assert!(problem.contains("password authentication failed"), "{problem}");
    assert!(!fixture.proxy().process.log().contains("early"));
    let identity = &fixture.rules.identity;
    let person = identity.member(&identity.organisation().await, "viewer").await;
    assert_eq!(identity.client(&person).get(QUERY).await.status, 200);
    fixture.database.execute("alter role postgres password 'early'").await;
    fixture.proxy().process.signal("HUP");
    fixture.line_after(0, RELOADED, SOON).await;
    fixture.all_connect_again().await;
}

// Supabase locks out an address that goes on with a wrong password (supabase discussion 45688), so that the right
// one is of no use for minutes. Requests that need the database wait for it, with 503.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_was_refused_is_not_repeated_with_each_request() {
    let fixture = fixture().await;
    let identity = &fixture.rules.identity;
    let organisation = identity.organisation().await;
    fixture.database.execute("alter role postgres password 'another'").await;
    assert!(fixture.postgres.kill_connections_of(&fixture.database).await > 0);
    let list = format!("/admin/organisations/{organisation}/rules");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(8) {
        let people = join_all((0..20).map(|_| identity.member(&organisation, "viewer"))).await;
        let members: Vec<_> = people.iter().map(|person| identity.client(person)).collect();
        let service = identity.service();
        let lists = join_all((0..20).map(|_| service.get(&list)));
        let (of_members, of_admins) =
            tokio::join!(join_all(members.iter().map(|member| member.get(QUERY))), lists);
        for answer in of_members.iter().chain(&of_admins) {
            assert_eq!(answer.status, 503, "{answer:?}");
            assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
        }
    }
    // That of the first, and of those that were on their way by then: ten are what Supabase takes.
    let refusals = fixture.refusals();
    assert!((1..=6).contains(&refusals), "{refusals}");
    assert!(fixture.proxy().process.log().contains("; not tried again for"));
    fixture.write(&fixture.url("postgres:another"));
    fixture.line_after(0, RELOADED, SOON).await;
    fixture.all_connect_again().await;
}

// Open connections are used, and a request that finds all of them in use waits for one.
#[tokio::test(flavor = "multi_thread")]
async fn open_connections_serve_while_the_login_is_refused() {
    let fixture = fixture().await;
    let identity = &fixture.rules.identity;
    let organisation = identity.organisation().await;
    let list = format!("/admin/organisations/{organisation}/rules");
    let service = identity.service();
    let all = async || {
        let answers = join_all((0..30).map(|_| service.get(&list))).await;
        answers.iter().filter(|answer| answer.status == 200).count()
    };
    assert_eq!(all().await, 30);
    fixture.database.execute("alter role postgres password 'another'").await;
    // The connection that listens.
    let sql = "select pg_terminate_backend(pid, 10000) from pg_stat_activity where pid <> pg_backend_pid() \
               and (query ilike 'listen%' or query like '%pg_listening_channels%')";
    fixture.database.execute(sql).await;
    wait_until("a login is refused", SOON, async || fixture.refusals() > 0).await;
    for _ in 0..5 {
        assert_eq!(all().await, 30);
    }
    assert_eq!(fixture.refusals(), 1);
}

// A database that is not named has the user's name, and Supabase's pooler finds the project by the user
// (`postgres.<ref>`). Devices would be unknown there, and drop what they have.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_leads_to_another_database_is_not_used() {
    let postgres = Postgres::start_with_tls().await;
    let databases = [postgres.database("one").await, postgres.database("two").await];
    migrate(&postgres, &databases[1]);
    for database in &databases {
        let role = database.name();
        let sql = format!("create role \"{role}\" superuser login password 'word'");
        database.execute(&sql).await;
    }
    let [one, two] = databases;
    let place = one.url().split_once('@').unwrap().1.split_once('/').unwrap().0.to_owned();
    let url = |database: &Database| format!("postgres://{}:word@{place}", database.name());
    let fixture = fixture_with(postgres, one.clone(), &url(&one)).await;
    fixture.write(&url(&two));
    let line = fixture.line_after(0, NOT_RELOADED, SOON).await;
    assert_eq!(line["key"], "database.url");
    assert!(line["problem"].as_str().unwrap().contains("only its user and its password"), "{line}");
}

// Where the address alone does not tell, the database does.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_known_with_any_login() {
    let postgres = Postgres::shared().await;
    let (one, two) = (postgres.database("one").await, postgres.database("two").await);
    let stores: Vec<Store> = [&one, &one, &two]
        .into_iter()
        .map(|database| {
            assert!(command_with(database, &[], &["migrate"]).status.success());
            let env = Environment::from_vars([("MTP__DATABASE__URL".to_owned(), database.url())]);
            let config = DatabaseConfig::load(None, &env).unwrap();
            Store::new(&config, TablesRead::default()).unwrap()
        })
        .collect();
    assert!(stores[0].is_same_database(&stores[1]), "nothing was read yet");
    stores[0].check_all().await.unwrap();
    assert!(!stores[0].is_same_database(&stores[1]), "it has not said which it is");
    stores[1].check_all().await.unwrap();
    stores[2].check_all().await.unwrap();
    assert!(stores[0].is_same_database(&stores[1]));
    assert!(!stores[0].is_same_database(&stores[2]));
}

// Nothing else may ever be loaded if this one waits for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_says_no_more_after_the_login_holds_up_no_reload() {
    let postgres = Postgres::start().await;
    let chaos = ChaosProxy::start(postgres.address()).await;
    let database = postgres.database("silent").await;
    database.execute("create role second superuser login").await;
    assert!(command_with(&database, &[], &["migrate"]).status.success());
    let upstream = Upstream::start(ok).await;
    let url = database.url_through(chaos.address());
    let watch = ("reload.watch_interval", "\"100ms\"");
    let identity =
        identity_fixture_without_migration(database.clone(), &url, &upstream.url(), &[watch]).await;
    let rules = RulesFixture::of(identity, &upstream.url());
    listening(&rules.identity).await;
    let fixture = Fixture { postgres, database, rules };
    // The login is let through, and what follows it is not.
    chaos.freeze_uploads_after(195);
    fixture.write(&url.replace("postgres@", "second@"));
    let line = fixture.line_after(0, NOT_RELOADED, SOON).await;
    assert!(line["problem"].as_str().unwrap().contains("no answer in 30s"), "{line}");
    chaos.calm();
    fixture.proxy().process.signal("HUP");
    fixture.line_after(0, RELOADED, SOON).await;
}

// Connections that are open would lead to the old database, and new ones to the new.
#[tokio::test(flavor = "multi_thread")]
async fn another_database_needs_a_restart() {
    let fixture = fixture().await;
    let other = fixture.postgres.database("other").await;
    fixture.write(&other.url());
    let line = fixture.line_after(0, NOT_RELOADED, SOON).await;
    assert_eq!(line["key"], "database.url");
    assert!(line["problem"].as_str().unwrap().contains("only its user and its password"), "{line}");
}
