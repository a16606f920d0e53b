//! A proxy with a database of its own: organisations, users and devices.

use std::process::{Command, Output};
use std::time::Duration;

use harness::{
    Answer, Client, Database, Issuer, Postgres, Proxy, ProxyOptions, samples, wait_until,
};
use serde_json::{Value, json};
use uuid::Uuid;

/// The admin key of these tests.
pub(crate) const ADMIN_KEY: &str = "an-admin-key-of-more-than-thirty-two-bytes";

pub(crate) struct IdentityFixture {
    pub(crate) issuer: Issuer,
    pub(crate) database: Database,
    pub(crate) proxy: Proxy,
}

/// A user with a session.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) id: Uuid,
    pub(crate) session: Uuid,
    pub(crate) token: String,
}

/// A proxy in front of an upstream, with an empty, migrated database in the shared cluster.
pub(crate) async fn identity_fixture(upstream: &str, settings: &[(&str, &str)]) -> IdentityFixture {
    let database = Postgres::shared().await.database("identity").await;
    identity_fixture_on(database, upstream, settings).await
}

/// The same with a database of the test's own.
pub(crate) async fn identity_fixture_on(
    database: Database,
    upstream: &str,
    settings: &[(&str, &str)],
) -> IdentityFixture {
    let migrated = command(&database, &["migrate"]);
    assert!(migrated.status.success(), "{migrated:?}");
    let url = database.url();
    identity_fixture_without_migration(database, &url, upstream, settings).await
}

/// The same, with existing tables and another URL of the database.
pub(crate) async fn identity_fixture_without_migration(
    database: Database,
    url: &str,
    upstream: &str,
    settings: &[(&str, &str)],
) -> IdentityFixture {
    let issuer = Issuer::start().await;
    let options = ProxyOptions::new(&issuer.url(), upstream)
        .set("database.url", &format!("{url:?}"))
        .set("auth.admin_key", &format!("{ADMIN_KEY:?}"));
    let options = settings.iter().fold(options, |options, (key, value)| options.set(key, value));
    let proxy = options.start().await;
    IdentityFixture { issuer, database, proxy }
}

/// Pushes one sample of a metric, as a sender does.
pub(crate) async fn push(client: &Client, metric: &str) -> Answer {
    let client = client.clone().header("content-encoding", "snappy");
    let client = client.header("content-type", "application/x-protobuf");
    client.post("/api/v1/push", samples::remote_write(metric, &[], 1.0)).await
}

/// Runs a command of the proxy with a database.
pub(crate) fn command(database: &Database, args: &[&str]) -> Output {
    command_with(database, &[], args)
}

/// The same, with more of the configuration in the environment.
pub(crate) fn command_with(database: &Database, env: &[(&str, &str)], args: &[&str]) -> Output {
    Command::new(Proxy::binary())
        .args(args)
        .env("MTP__DATABASE__URL", database.url())
        .env("MTP__AUTH__ISSUER", "http://127.0.0.1:1/auth/v1")
        .env("MTP__UPSTREAM__URLS", "http://127.0.0.1:1")
        .envs(env.iter().copied())
        .output()
        .unwrap()
}

impl IdentityFixture {
    /// A new organisation with a name of its own.
    pub(crate) async fn organisation(&self) -> String {
        let id = harness::fresh_organisation();
        self.database.execute(&format!("insert into organisation (id) values ('{id}')")).await;
        id
    }

    /// A new user without memberships.
    pub(crate) fn person(&self) -> Person {
        let (id, session) = (Uuid::new_v4(), Uuid::new_v4());
        Person { id, session, token: self.token_of(id, session) }
    }

    pub(crate) fn token_of(&self, id: Uuid, session: Uuid) -> String {
        let token = self.issuer.token().claim("sub", json!(id.to_string()));
        token.claim("session_id", json!(session.to_string())).sign()
    }

    /// A new user in an organisation.
    pub(crate) async fn member(&self, organisation: &str, role: &str) -> Person {
        let person = self.person();
        self.join(&person, organisation, role).await;
        person
    }

    pub(crate) async fn join(&self, person: &Person, organisation: &str, role: &str) {
        let id = person.id;
        let sql = format!(
            "insert into membership (user_id, organisation_id, role) values ('{id}', '{organisation}', '{role}')"
        );
        self.database.execute(&sql).await;
    }

    pub(crate) async fn leave(&self, person: &Person, organisation: &str) {
        let id = person.id;
        let sql = format!(
            "delete from membership where user_id = '{id}' and organisation_id = '{organisation}'"
        );
        self.database.execute(&sql).await;
    }

    pub(crate) fn client(&self, person: &Person) -> Client {
        self.proxy.client().bearer(&person.token)
    }

    /// An operator's client.
    pub(crate) fn service(&self) -> Client {
        self.proxy.client().bearer(ADMIN_KEY)
    }

    /// A new device key, created by a service.
    pub(crate) async fn device_key(&self, organisation: &str, request: Value) -> Value {
        let path = format!("/admin/organisations/{organisation}/device-keys");
        let answer = self.service().post(&path, request.to_string()).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()
    }

    /// A client with a new device key with some scopes.
    pub(crate) async fn device(&self, organisation: &str, scopes: &[&str]) -> Client {
        let key = self.device_key(organisation, json!({"name": "hub", "scopes": scopes})).await;
        self.proxy.client().bearer(key["key"].as_str().unwrap())
    }

    /// The access log's lines with a path, once there are some. Lines are written in batches.
    pub(crate) async fn log_of(&self, path: &str) -> Vec<Value> {
        let mut lines = Vec::new();
        wait_until(&format!("{path} is in the log"), Duration::from_secs(10), async || {
            tokio::time::sleep(Duration::from_millis(300)).await;
            lines = self.proxy.access_log(path);
            !lines.is_empty()
        })
        .await;
        lines
    }

    /// The lines of the audit log.
    pub(crate) fn audit(&self) -> Vec<Value> {
        let log = self.proxy.process.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == "Admin action").collect()
    }
}
