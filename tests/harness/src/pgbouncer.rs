//! A real PgBouncer before a PostgreSQL, as hosted databases have it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tokio_postgres::NoTls;

use crate::database::Database;
use crate::parts::part;
use crate::postgres::Postgres;
use crate::process::{Process, free_port, wait_until};
use crate::user;

const CONFIG: &str = "pgbouncer.ini";

/// A running PgBouncer.
pub struct PgBouncer {
    process: Process,
    port: u16,
    postgres: SocketAddr,
    directory: TempDir,
}

impl PgBouncer {
    /// Starts one that lends a server connection for one transaction only, so that what a session
    /// keeps (prepared statements, advisory locks, `SET`, `LISTEN`) does not hold.
    pub async fn transaction(postgres: &Postgres) -> Self {
        Self::start("transaction", postgres.address()).await
    }

    /// Starts one that lends a server connection for as long as the client stays.
    pub async fn session(postgres: &Postgres) -> Self {
        Self::start("session", postgres.address()).await
    }

    async fn start(pool_mode: &str, postgres: SocketAddr) -> Self {
        let directory = TempDir::with_prefix("pgbouncer-").expect("directory");
        let port = free_port();
        let program = part("pgbouncer");
        let config = directory.path().join(CONFIG);
        let text = configuration(pool_mode, port, postgres) + prepared_statements(&program);
        std::fs::write(&config, text).expect("config");
        user::give(directory.path());
        let privileges = [&["--pdeathsig", "KILL"], user::options()].concat();
        let process =
            Process::start_with("pgbouncer", &privileges, &program, directory.path(), |command| {
                command.arg(&config);
            });
        let mut bouncer = Self { process, port, postgres, directory };
        bouncer.wait_ready().await;
        bouncer
    }

    /// From now on it lends a server connection for one transaction only, also to clients that are connected.
    pub async fn become_transaction(&self) {
        self.reload("transaction").await;
    }

    /// From now on it lends a server connection for as long as the client stays.
    pub async fn become_session(&self) {
        self.reload("session").await;
    }

    async fn reload(&self, pool_mode: &str) {
        let text = configuration(pool_mode, self.port, self.postgres)
            + prepared_statements(&part("pgbouncer"));
        std::fs::write(self.directory.path().join(CONFIG), text).expect("config");
        let connected = tokio_postgres::connect(&self.console(), NoTls).await;
        let (client, connection) = connected.expect("console");
        tokio::spawn(connection);
        client.simple_query("RELOAD").await.expect("reload");
    }

    /// Its own database, which it answers without a server.
    fn console(&self) -> String {
        format!("postgres://postgres@{}/pgbouncer", self.address())
    }

    /// The address of a database by way of it. The database is one of the cluster it was started
    /// for.
    pub fn url(&self, database: &Database) -> String {
        database.url_through(self.address())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    async fn wait_ready(&mut self) {
        let console = self.console();
        let process = &mut self.process;
        wait_until("PgBouncer takes connections", Duration::from_secs(20), async || {
            assert!(process.is_running(), "PgBouncer does not start\n{}", process.log());
            tokio_postgres::connect(&console, NoTls).await.is_ok()
        })
        .await;
    }
}

fn configuration(pool_mode: &str, port: u16, postgres: SocketAddr) -> String {
    let (host, server_port) = (postgres.ip(), postgres.port());
    format!(
        "[databases]\n\
         * = host={host} port={server_port} user=postgres\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\n\
         listen_port = {port}\n\
         unix_socket_dir =\n\
         auth_type = any\n\
         admin_users = postgres\n\
         pool_mode = {pool_mode}\n\
         max_client_conn = 500\n\
         ; how soon it tries again after the server was away: the default would be 15 s\n\
         server_login_retry = 0.2\n\
         ; sqlx and JDBC send it at the start\n\
         ignore_startup_parameters = extra_float_digits\n"
    )
}

/// From 1.21 on PgBouncer can follow prepared statements through its pool, and later versions do so
/// by default. That is switched off: a proxy that works without works with it.
fn prepared_statements(program: &Path) -> &'static str {
    let output = Command::new(program).arg("--version").output().expect("pgbouncer");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.split_whitespace().nth(1).unwrap_or_default();
    let version: Vec<u32> = words.split('.').filter_map(|part| part.parse().ok()).collect();
    if version.as_slice() >= [1, 21].as_slice() { "max_prepared_statements = 0\n" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn client(url: &str) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("connection");
        tokio::spawn(connection);
        client
    }

    async fn server(client: &tokio_postgres::Client) -> String {
        let answer = client.simple_query("SELECT pg_backend_pid()").await.expect("answer");
        let row = answer.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        row.expect("row").to_owned()
    }

    /// Two clients take turns on one server connection, or have one each.
    #[tokio::test]
    async fn clients_share_a_server_in_transaction_mode_and_not_in_session_mode() {
        let postgres = Postgres::shared().await;
        let database = postgres.database("bounced").await;
        let bouncer = PgBouncer::transaction(postgres).await;
        let url = bouncer.url(&database);
        let (one, other) = (client(&url).await, client(&url).await);
        assert_eq!(server(&one).await, server(&other).await, "{}", bouncer.log());

        let bouncer = PgBouncer::session(postgres).await;
        let url = bouncer.url(&database);
        let (one, other) = (client(&url).await, client(&url).await);
        assert_ne!(server(&one).await, server(&other).await, "{}", bouncer.log());
    }

    #[tokio::test]
    async fn a_restarted_server_is_found_again() {
        let mut postgres = Postgres::start().await;
        let database = postgres.database("bounced").await;
        let bouncer = PgBouncer::transaction(&postgres).await;
        let url = bouncer.url(&database);
        server(&client(&url).await).await;
        postgres.stop().await;
        postgres.start_again().await;
        wait_until("PgBouncer has a server again", Duration::from_secs(20), async || {
            let connected = tokio_postgres::connect(&url, NoTls).await;
            let Ok((client, connection)) = connected else { return false };
            tokio::spawn(connection);
            client.simple_query("SELECT 1").await.is_ok()
        })
        .await;
    }
}
