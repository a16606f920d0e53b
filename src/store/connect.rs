//! Pools, session settings, TLS, and why a connection could not be made.

use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions, PgSslMode};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool, Postgres};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::StoreError;
use crate::config::{DatabaseConfig, DatabaseTls};

/// Idle connections are closed, so that a database that moved is noticed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// How long a login that the server has refused is not tried again. An address that goes on trying is locked out:
/// by Supabase's pooler for two minutes (<https://github.com/orgs/supabase/discussions/45688>).
const REFUSED_FOR: Duration = Duration::from_secs(30);

/// Where the server is, and as whom the next connection logs in. One for all stores of a database.
pub(super) struct Server {
    options: ArcSwap<PgConnectOptions>,
    connect_timeout: Duration,
    pools: Mutex<Vec<PgPool>>,
    /// Until when the login is not tried again, and why.
    refused: Mutex<Option<(Instant, StoreError)>>,
}

impl Server {
    pub(super) fn new(config: &DatabaseConfig) -> Result<Self, StoreError> {
        let options = ArcSwap::from_pointee(options_of(config)?);
        Ok(Self {
            options,
            connect_timeout: config.connect_timeout,
            pools: Mutex::default(),
            refused: Mutex::default(),
        })
    }

    /// Has new connections log in as another server's do. Open ones stay.
    pub(super) fn log_in_like(&self, other: &Self) {
        let options = other.options.load_full();
        for pool in &*self.pools.lock() {
            pool.set_connect_options(PgConnectOptions::clone(&options));
        }
        self.options.store(options);
        *self.refused.lock() = None;
    }

    /// Whether the login was refused a moment ago, and why.
    pub(super) fn refusal(&self) -> Option<StoreError> {
        let refused = self.refused.lock();
        refused.as_ref().filter(|(until, _)| Instant::now() < *until).map(|(_, why)| why.clone())
    }

    pub(super) fn pool(&self, config: &DatabaseConfig, connections: u32) -> PgPool {
        let settings = settings(config);
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(self.connect_timeout)
            .idle_timeout(IDLE_TIMEOUT)
            .after_connect(move |connection, _| {
                let settings = AssertSqlSafe(settings.clone());
                Box::pin(async move { connection.execute(settings).await.map(drop) })
            })
            .connect_lazy_with(PgConnectOptions::clone(&self.options.load()));
        self.pools.lock().push(pool.clone());
        pool
    }

    /// The pool of the one connection that listens.
    fn listening_pool(&self, login: &PgConnectOptions) -> PgPool {
        PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(self.connect_timeout)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(login.clone())
    }

    /// Connects once, to learn why it fails: a pool only says that it waited.
    pub(super) async fn try_once(&self) -> Result<(), StoreError> {
        let connection = self.connect().await?;
        connection.close().await?;
        Ok(())
    }

    /// Makes a connection outside the pools.
    pub(super) async fn connect(&self) -> Result<PgConnection, StoreError> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        let login = self.options.load_full();
        let connecting = PgConnection::connect_with(&login);
        match timeout(self.connect_timeout, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(self.not_connected(&error, &login)),
            Err(_) => Err(self.late()),
        }
    }

    /// Takes a connection from a pool. sqlx retries a refused one until its time is over and then only
    /// says that it waited, so whether the server can be reached is tried beside it.
    pub(super) async fn acquire(
        &self,
        pool: &PgPool,
    ) -> Result<PoolConnection<Postgres>, StoreError> {
        if let Some(refusal) = self.refusal() {
            // An open one is as good as before.
            return pool.try_acquire().ok_or(refusal);
        }
        let login = self.options.load_full();
        let unreachable = async {
            // A connection that is idle or quickly made needs no second opinion.
            sleep(PROBE_AFTER).await;
            match self.reach().await {
                Ok(()) => std::future::pending().await,
                Err(error) => error,
            }
        };
        tokio::select! {
            biased;
            acquired = pool.acquire() => match acquired {
                Ok(connection) => Ok(connection),
                Err(sqlx::Error::PoolTimedOut) => Err(self.why_late(pool).await),
                Err(error) => Err(self.not_connected(&error, &login)),
            },
            error = unreachable => Err(error),
        }
    }

    /// Why a pool has not given a connection in time: none can be made, or all are in use.
    async fn why_late(&self, pool: &PgPool) -> StoreError {
        let (most, waited) = (pool.options().get_max_connections(), self.connect_timeout);
        let in_use =
            StoreError::Unavailable(format!("no connection was free for {waited:?}, of {most}"));
        let Ok(_permit) = DIAGNOSIS.try_acquire() else { return in_use };
        match timeout(LONGEST_DIAGNOSIS, self.connect()).await {
            Ok(Err(error)) => error,
            Ok(Ok(_)) => in_use,
            Err(_) => self.late(),
        }
    }

    /// Makes the connection that listens.
    pub(super) async fn listener(&self) -> Result<PgListener, StoreError> {
        self.reach().await?;
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        let login = self.options.load_full();
        let pool = self.listening_pool(&login);
        match PgListener::connect_with(&pool).await {
            Ok(listener) => Ok(listener),
            Err(sqlx::Error::PoolTimedOut) => Err(self.late()),
            Err(error) => Err(self.not_connected(&error, &login)),
        }
    }

    /// Opens a TCP connection to the server and closes it.
    pub(super) async fn reach(&self) -> Result<(), StoreError> {
        let options = self.options.load_full();
        let connecting = async {
            match socket(&options) {
                Some(path) => UnixStream::connect(path).await.map(drop),
                None => {
                    TcpStream::connect((options.get_host(), options.get_port())).await.map(drop)
                }
            }
        };
        match timeout(self.connect_timeout, connecting).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(StoreError::Unreachable(format!("{}: {error}", self.place()))),
            Err(_) => Err(self.late()),
        }
    }

    fn late(&self) -> StoreError {
        let waited = self.connect_timeout;
        StoreError::Unreachable(format!("{}: no connection within {waited:?}", self.place()))
    }

    /// Why a connection with this login could not be made.
    fn not_connected(&self, error: &sqlx::Error, login: &Arc<PgConnectOptions>) -> StoreError {
        let why = not_connected(error, &self.place());
        if is_login_refused(error) && Arc::ptr_eq(login, &self.options.load()) {
            *self.refused.lock() = Some((Instant::now() + REFUSED_FOR, why.clone()));
        }
        why
    }

    fn place(&self) -> String {
        place(&self.options.load())
    }
}

/// What every connection is told. The server ends a query that takes too long: one that we only
/// stopped waiting for would hold its connection. Rows that row-level security would hide from us
/// become an error: with hidden rows, members would look unknown.
fn settings(config: &DatabaseConfig) -> String {
    let limit = config.query_timeout.as_millis();
    format!("set statement_timeout = {limit}; set row_security = off")
}

/// How long to wait for a connection before trying whether the server can be reached.
const PROBE_AFTER: Duration = Duration::from_millis(50);
/// How long the diagnosis may take.
const LONGEST_DIAGNOSIS: Duration = Duration::from_secs(1);

/// One diagnosis at a time in the process: it makes a connection beyond those of the pools.
static DIAGNOSIS: Semaphore = Semaphore::const_new(1);

/// Why a connection could not be made. An error that the server itself sends is not a network's.
fn not_connected(error: &sqlx::Error, place: &str) -> StoreError {
    match error {
        sqlx::Error::Database(database) => {
            let problem = format!("{place}: {}", database.message());
            let code = database.code();
            match StoreError::of_code(code.as_deref(), problem.clone()) {
                // It starts, stops, or has no connection left: nothing can be read.
                StoreError::Unavailable(problem) if code.as_deref() == Some(CANNOT_CONNECT_NOW) => {
                    StoreError::Unreachable(problem)
                }
                other => other,
            }
        }
        sqlx::Error::Io(error) => StoreError::Unreachable(format!("{place}: {error}")),
        error => StoreError::Unavailable(format!("{place}: {}", super::describe(error))),
    }
}

/// Whether the server knows the user and the password, and does not let them in; or Supabase's pooler does not let
/// anyone in, because it has refused too many.
fn is_login_refused(error: &sqlx::Error) -> bool {
    let Some(database) = error.as_database_error() else { return false };
    // Class 28: invalid authorization specification.
    database.code().is_some_and(|code| code.starts_with("28"))
        || database.message().starts_with("Circuit breaker open")
}

/// `cannot_connect_now`: the server starts or shuts down.
const CANNOT_CONNECT_NOW: &str = "57P03";

/// Where the server is, for messages: host and port, or the socket; never the user or the password.
fn place(options: &PgConnectOptions) -> String {
    match socket(options) {
        Some(path) => path.display().to_string(),
        None if options.get_host().contains(':') => {
            format!("[{}]:{}", options.get_host(), options.get_port())
        }
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}

/// The Unix socket, where the address names a directory of one.
fn socket(options: &PgConnectOptions) -> Option<PathBuf> {
    let file = format!(".s.PGSQL.{}", options.get_port());
    let host = options.get_host();
    let directory = options.get_socket().cloned();
    let directory = directory.or_else(|| host.starts_with('/').then(|| PathBuf::from(host)));
    directory.map(|directory| directory.join(file))
}

fn options_of(config: &DatabaseConfig) -> Result<PgConnectOptions, StoreError> {
    let unreadable = || StoreError::Unfit("database.url cannot be read".to_owned());
    let url = std::str::from_utf8(config.url.expose()).map_err(|_| unreadable())?;
    let mut options = PgConnectOptions::from_str(url).map_err(|_| unreadable())?;
    // sqlx keeps the brackets of an IPv6 address, which no resolver knows.
    let host = options.get_host().to_owned();
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        options = options.host(address);
    }
    let options = options.application_name("mimir-tenant-proxy");
    Ok(match &config.tls {
        DatabaseTls::Off => options.ssl_mode(PgSslMode::Disable),
        DatabaseTls::VerifyFull(None) => options.ssl_mode(PgSslMode::VerifyFull),
        DatabaseTls::VerifyFull(Some(file)) => {
            options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert(file)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment};

    fn config(url: &str) -> DatabaseConfig {
        let text = format!(
            "[auth]\nissuer = \"https://a.supabase.co/auth/v1\"\n[upstream]\nurls = [\"http://m\"]\n\
             [database]\nurl = {url:?}\nconnect_timeout = \"5s\"\ntls = \"off\""
        );
        Config::read(&text, &Environment::default()).unwrap().database.unwrap()
    }

    fn host(url: &str) -> String {
        options_of(&config(url)).unwrap().get_host().to_owned()
    }

    // sqlx' pool tries for the whole of connect_timeout and then says "pool timed out".
    #[tokio::test]
    async fn a_refused_connection_is_told_at_once_and_by_its_cause() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = config(&format!("postgres://u:secret@{closed}/d"));
        let server = Server::new(&config).unwrap();
        let pool = server.pool(&config, 2);
        let began = Instant::now();
        let pooled = server.acquire(&pool).await.err().unwrap();
        let alone = server.try_once().await.unwrap_err();
        let reached = server.reach().await.unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        for error in [pooled, alone, reached] {
            assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
            let text = error.to_string();
            assert!(text.contains(&closed.to_string()) && text.contains("refused"), "{text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_name_that_is_not_found_is_named() {
        let server = Server::new(&config("postgres://u:p@no-such-host.invalid:5432/d")).unwrap();
        for error in [server.try_once().await.unwrap_err(), server.reach().await.unwrap_err()] {
            assert!(error.to_string().contains("no-such-host.invalid:5432"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_pool_whose_server_says_nothing_names_it() {
        // Takes connections and never answers.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        let config = DatabaseConfig {
            connect_timeout: Duration::from_millis(300),
            ..config(&format!("postgres://u:p@{address}/d"))
        };
        let server = Server::new(&config).unwrap();
        let error = server.acquire(&server.pool(&config, 2)).await.err().unwrap();
        let text = error.to_string();
        assert!(text.contains(&address.to_string()) && text.contains("300ms"), "{text}");
    }

    #[test]
    fn a_place_is_a_host_and_a_port_or_a_socket() {
        let place = |url: &str| place(&options_of(&config(url)).unwrap());
        assert_eq!(place("postgres://u:p@[fdaa:0:1::3]:5433/d"), "[fdaa:0:1::3]:5433");
        assert_eq!(place("postgres://u:p@db.example.com/d"), "db.example.com:5432");
        let socket = place("postgres:///d?host=/var/run/postgresql");
        assert_eq!(socket, "/var/run/postgresql/.s.PGSQL.5432");
    }

    #[test]
    fn an_ipv6_address_has_no_brackets_for_the_resolver() {
        assert_eq!(host("postgres://u:p@[fdaa:0:1::3]:5432/d"), "fdaa:0:1::3");
        assert_eq!(host("postgres://postgres.ref:p@db.supabase.co:5432/d"), "db.supabase.co");
    }
}
