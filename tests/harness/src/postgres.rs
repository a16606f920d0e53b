//! A real PostgreSQL: a fresh cluster on loopback, quick because it need not survive a power cut.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::certificates::Certificates;
use crate::database::Database;
use crate::process::{Process, free_port, wait_until};
use crate::scratch::Scratch;
use crate::user;

/// A running cluster.
pub struct Postgres {
    process: Process,
    port: u16,
    tls: Option<Tls>,
    scratch: Scratch,
}

struct Tls {
    files: Certificates,
    password: String,
}

/// From the network only with TLS and a password; by the socket the harness itself comes in.
const TLS_ONLY: &str = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";

impl Postgres {
    /// The cluster that all tests of one process share; each test takes a database of its own. It
    /// ends with the process. Who wants to stop a cluster starts one of its own.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// Starts a cluster that lets everybody in from loopback, without TLS.
    pub async fn start() -> Self {
        Self::create(None, Scratch::with_prefix("postgres-")).await
    }

    /// Starts a cluster that wants TLS and a password (SCRAM) from everybody on the network. Its
    /// certificate is for `127.0.0.1` and `localhost`, signed by [`Postgres::ca_file`].
    pub async fn start_with_tls() -> Self {
        let scratch = Scratch::with_prefix("postgres-");
        let files = Certificates::make(scratch.path());
        let password = uuid::Uuid::new_v4().simple().to_string();
        Self::create(Some(Tls { files, password }), scratch).await
    }

    /// Its first process, the parent of all others.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Starts a hot standby of this cluster: it replays what this one writes, and answers reads. One for
    /// each cluster, and without TLS.
    pub async fn standby(&self) -> Self {
        let scratch = Scratch::with_prefix("postgres-");
        user::give(scratch.path());
        base_backup(scratch.path(), self.scratch.path(), self.port).await;
        let port = free_port();
        let process = run(scratch.path(), port, None);
        let mut standby = Self { process, port, tls: None, scratch };
        standby.wait_ready().await;
        standby
    }

    /// A standby's own copy of a database of its primary.
    pub fn copy_of(&self, database: &Database) -> Database {
        self.named(database.name())
    }

    async fn create(tls: Option<Tls>, scratch: Scratch) -> Self {
        user::give(scratch.path());
        initdb(scratch.path()).await;
        if tls.is_some() {
            let file = scratch.path().join("data/pg_hba.conf");
            std::fs::write(file, TLS_ONLY).expect("pg_hba.conf");
        }
        let port = free_port();
        let process = run(scratch.path(), port, tls.as_ref());
        let mut cluster = Self { process, port, tls, scratch };
        cluster.wait_ready().await;
        if let Some(tls) = &cluster.tls {
            let sql = format!("ALTER ROLE postgres PASSWORD '{}'", tls.password);
            cluster.maintenance().execute(&sql).await;
        }
        cluster
    }

    /// A fresh, empty database. Its name begins with a prefix of lower-case letters, digits and
    /// underscores, of 30 characters at most, and is used once.
    pub async fn database(&self, name_prefix: &str) -> Database {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(name_prefix.len() <= 30 && name_prefix.chars().all(plain), "{name_prefix:?}");
        let name = format!("{name_prefix}_{}", uuid::Uuid::new_v4().simple());
        // Not template1: it cannot be copied while somebody is connected to it.
        let sql = format!("CREATE DATABASE \"{name}\" TEMPLATE template0");
        self.maintenance().execute(&sql).await;
        self.named(&name)
    }

    /// Ends every other connection to a database, as a failover or an administrator does, waits
    /// until they are gone, and says how many there were.
    pub async fn kill_connections_of(&self, database: &Database) -> usize {
        let sql = format!(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity \
             WHERE datname = '{}' AND backend_type = 'client backend'",
            database.name()
        );
        self.maintenance().query(&sql).await.len()
    }

    /// Stops it as an administrator does (fast shutdown: connections are ended) and waits until it
    /// is gone.
    pub async fn stop(&mut self) {
        if self.process.is_running() {
            self.process.signal("INT");
        }
        let process = &mut self.process;
        wait_until("PostgreSQL stops", PATIENCE, async || !process.is_running()).await;
    }

    /// Starts it again after [`Postgres::stop`], with the same port and the same data, and waits
    /// until it takes connections.
    pub async fn start_again(&mut self) {
        assert!(!self.process.is_running(), "PostgreSQL is still running");
        self.process = run(self.scratch.path(), self.port, self.tls.as_ref());
        self.wait_ready().await;
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// What it has logged since its last start.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The authority (PEM) that signed its certificate.
    ///
    /// # Panics
    /// If it is without TLS.
    pub fn ca_file(&self) -> &Path {
        &self.tls().files.ca
    }

    /// An authority (PEM) that did not: a client that trusts only this one must refuse it.
    ///
    /// # Panics
    /// If it is without TLS.
    pub fn other_ca_file(&self) -> &Path {
        &self.tls().files.other_ca
    }

    fn tls(&self) -> &Tls {
        self.tls.as_ref().expect("a cluster that was started with TLS")
    }

    fn named(&self, name: &str) -> Database {
        let password = self.tls.as_ref().map(|tls| tls.password.clone());
        Database::new(name, self.address(), password, self.scratch.path())
    }

    fn maintenance(&self) -> Database {
        self.named("postgres")
    }

    async fn wait_ready(&mut self) {
        let database = self.maintenance();
        let process = &mut self.process;
        wait_until("PostgreSQL takes connections", PATIENCE, async || {
            assert!(process.is_running(), "PostgreSQL does not start\n{}", process.log());
            database.connect().await.is_ok()
        })
        .await;
    }
}

impl Drop for Postgres {
    /// Killed, it would leave a segment of shared memory behind, of which there can be few thousand.
    fn drop(&mut self) {
        if self.process.is_running() {
            self.process.signal("QUIT");
            self.process.wait(PATIENCE);
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

/// Where PostgreSQL's programs are: Debian keeps those of every version in a directory of its own,
/// of which the newest is taken; elsewhere they are on the PATH.
pub(crate) fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let numbered = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())));
    let homes = numbered.map(|(version, home)| (version, home.join("bin")));
    let newest = homes.filter(|(_, bin)| bin.join("postgres").exists()).max();
    let on_path = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).find(|directory| directory.join("initdb").exists())
    };
    let found = newest.map(|(_, bin)| bin).or_else(on_path);
    found.expect("PostgreSQL is not there; run scripts/parts postgres")
}

async fn initdb(directory: &Path) {
    let mut command = Command::new("setpriv");
    command.args(user::options()).arg("--").arg(programs().join("initdb"));
    command.args(["--auth=trust", "--no-sync", "-U", "postgres", "-E", "UTF8"]);
    command.args(["--locale=C.UTF-8", "--wal-segsize=1", "-D", "data"]).current_dir(directory);
    let output = command.output().await.expect("setpriv");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "initdb: {said}");
}

/// Copies a running cluster, ready to follow it. The slot keeps what the copy has not had yet.
async fn base_backup(directory: &Path, socket: &Path, port: u16) {
    let mut command = Command::new("setpriv");
    command.args(user::options()).arg("--").arg(programs().join("pg_basebackup"));
    command.args(["-U", "postgres", "-p", &port.to_string(), "-h"]).arg(socket);
    command.args(["--write-recovery-conf", "--create-slot", "--slot=standby"]);
    command.args(["--checkpoint=fast", "--no-sync", "-D", "data"]).current_dir(directory);
    let output = command.output().await.expect("setpriv");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "pg_basebackup: {said}");
}

fn run(directory: &Path, port: u16, tls: Option<&Tls>) -> Process {
    // An immediate shutdown, for the reason that Drop has.
    let privileges = [&["--pdeathsig", "QUIT"], user::options()].concat();
    let mut settings = vec![
        "listen_addresses=127.0.0.1".to_owned(),
        format!("port={port}"),
        format!("unix_socket_directories={}", directory.display()),
        "max_connections=200".to_owned(),
        "fsync=off".to_owned(),
        "log_min_messages=warning".to_owned(),
    ];
    if let Some(tls) = tls {
        settings.push("ssl=on".to_owned());
        settings.push(format!("ssl_cert_file={}", tls.files.certificate.display()));
        settings.push(format!("ssl_key_file={}", tls.files.key.display()));
    }
    let program = programs().join("postgres");
    Process::start_with("postgres", &privileges, &program, directory, |command| {
        command.args(["-D", "data"]).current_dir(directory);
        for setting in &settings {
            command.arg("-c").arg(setting);
        }
    })
}

#[cfg(test)]
mod tests;
