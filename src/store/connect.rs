//! Pools, session settings, TLS, and why a connection could not be made.

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions, PgSslMode};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool, Postgres};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::StoreError;
use super::login::{Admission, Login, Outcome};
use crate::config::{DatabaseConfig, DatabaseTls};

/// Idle connections are closed, so that a database that moved is noticed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Where the server is, and as whom connections log in. One for all stores of a database.
pub(super) struct Server {
    login: Login,
    connect_timeout: Duration,
    query_timeout: Duration,
    pools: Mutex<Vec<PgPool>>,
    sessions: Mutex<Sessions>,
}

/// Whether a connection leads to one session of the server for as long as it lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sessions {
    /// It was not proven yet, or not since the feed was lost.
    #[default]
    Unknown,
    Kept,
    /// A transaction pooler is in between.
    Lost,
}

impl Server {
    pub(super) fn new(config: &DatabaseConfig) -> Result<Self, StoreError> {
        let login = Login::new(options_of(config)?);
        let DatabaseConfig { connect_timeout, query_timeout, .. } = *config;
        let (pools, sessions) = Default::default();
        Ok(Self { login, connect_timeout, query_timeout, pools, sessions })
    }

    pub(super) fn login(&self) -> &Login {
        &self.login
    }

    pub(super) fn sessions(&self) -> Sessions {
        *self.sessions.lock()
    }

    /// What was proven of a connection holds for all: they go the same way.
    pub(super) fn note_sessions(&self, sessions: Sessions) {
        *self.sessions.lock() = sessions;
    }

    /// Has new connections log in as another server's do. Open ones stay.
    pub(super) fn log_in_like(&self, other: &Self) {
        let options = other.login.options();
        for pool in &*self.pools.lock() {
            pool.set_connect_options(PgConnectOptions::clone(&options));
        }
        self.login.replace(options);
    }

    /// Whether both log in with the same name.
    pub(super) fn has_user_of(&self, other: &Self) -> bool {
        self.login.options().get_username() == other.login.options().get_username()
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
            .connect_lazy_with(PgConnectOptions::clone(&self.login.options()));
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
        if let Admission::Refused(refusal) = self.login.admit() {
            return Err(refusal);
        }
        self.connect_once().await
    }

    async fn connect_once(&self) -> Result<PgConnection, StoreError> {
        let login = self.login.options();
        let connecting = PgConnection::connect_with(&login);
        let Ok(connected) = timeout(self.connect_timeout, connecting).await else {
            self.login.note(&login, Outcome::Failed);
            return Err(self.late());
        };
        self.noted(&login, connected)
    }

    /// Takes a connection from a pool; while the login is refused, an open one.
    pub(super) async fn acquire(&self, pool: &PgPool) -> Result<Pooled, StoreError> {
        let connection = self.acquire_any(pool).await?;
        Ok(Pooled { connection, is_to_close: false, give_back: self.query_timeout })
    }

    async fn acquire_any(&self, pool: &PgPool) -> Result<PoolConnection<Postgres>, StoreError> {
        match self.unless_refused(pool).await {
            Ok(connection) => Ok(connection),
            Err(error) => match self.login.refusal() {
                Some(refusal) => self.open_one(pool, refusal).await,
                None => Err(error),
            },
        }
    }

    async fn unless_refused(&self, pool: &PgPool) -> Result<PoolConnection<Postgres>, StoreError> {
        match self.login.admit() {
            Admission::Free => {}
            Admission::Once => self.connect_once().await?.close().await?,
            Admission::Refused(refusal) => return Err(refusal),
        }
        tokio::select! {
            biased;
            acquired = self.open_or_new(pool) => acquired,
            refusal = self.login.until_refused() => Err(refusal),
        }
    }

    /// sqlx retries a refused connection until its time is over and then only says that it waited, so whether the
    /// server can be reached is tried beside it.
    async fn open_or_new(&self, pool: &PgPool) -> Result<PoolConnection<Postgres>, StoreError> {
        let login = self.login.options();
        let unreachable = async {
            // A connection that is idle or quickly made needs no second opinion.
            sleep(PROBE_AFTER).await;
            match self.reach().await {
                Ok(()) => std::future::pending().await,
                Err(error) => error,
            }
        };
        // sqlx goes on trying to make one, also while the server has none left for it.
        let given_back = async {
            sleep(MAKING_TAKES).await;
            loop {
                if let Some(connection) = open_and_idle(pool) {
                    return connection;
                }
                sleep(BETWEEN_LOOKS).await;
            }
        };
        tokio::select! {
            biased;
            acquired = pool.acquire() => match acquired {
                Err(sqlx::Error::PoolTimedOut) => Err(self.why_late(pool).await),
                // An open one says nothing of the login.
                Ok(connection) => Ok(connection),
                error => self.noted(&login, error),
            },
            connection = given_back => Ok(connection),
            error = unreachable => Err(error),
        }
    }

    /// Waits for an open connection, if there is any.
    async fn open_one(
        &self,
        pool: &PgPool,
        refusal: StoreError,
    ) -> Result<PoolConnection<Postgres>, StoreError> {
        let deadline = Instant::now() + self.connect_timeout;
        loop {
            if let Some(connection) = open_and_idle(pool) {
                return Ok(connection);
            }
            if pool.size() == 0 || Instant::now() >= deadline {
                return Err(refusal);
            }
            sleep(BETWEEN_LOOKS).await;
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
        if let Admission::Refused(refusal) = self.login.admit() {
            return Err(refusal);
        }
        let login = self.login.options();
        let pool = self.listening_pool(&login);
        self.noted(&login, PgListener::connect_with(&pool).await)
    }

    /// Opens a TCP connection to the server and closes it.
    pub(super) async fn reach(&self) -> Result<(), StoreError> {
        let options = self.login.options();
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

    /// What became of a new connection, which says something of the login.
    fn noted<T>(
        &self,
        login: &Arc<PgConnectOptions>,
        connected: Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        match connected {
            Ok(connection) => {
                self.login.note(login, Outcome::Connected);
                Ok(connection)
            }
            Err(error) => {
                let why = self.not_connected(&error);
                self.login.note(login, Outcome::of(&error, &why));
                Err(why)
            }
        }
    }

    fn not_connected(&self, error: &sqlx::Error) -> StoreError {
        match error {
            sqlx::Error::PoolTimedOut => self.late(),
            error => not_connected(error, &self.place()),
        }
    }

    fn place(&self) -> String {
        place(&self.login.options())
    }
}

/// A connection of a pool, which it goes back to.
///
/// sqlx asks each connection whether it is alive before the pool has it again, and waits for the answer for ever: behind
/// a network that says nothing, or a server that stands still, each would hold a slot of the pool. So one that does not
/// answer in the time of a query is closed.
pub(super) struct Pooled {
    connection: PoolConnection<Postgres>,
    is_to_close: bool,
    give_back: Duration,
}

impl Pooled {
    pub(super) fn close_on_drop(&mut self) {
        self.is_to_close = true;
        self.connection.close_on_drop();
    }
}

impl Deref for Pooled {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if self.is_to_close {
            return;
        }
        // Dropped before it is done, it closes the connection and frees the slot.
        let (given_back, longest) = (self.connection.return_to_pool(), self.give_back);
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { timeout(longest, given_back).await });
        }
    }
}

/// A connection that is open and free.
fn open_and_idle(pool: &PgPool) -> Option<PoolConnection<Postgres>> {
    if pool.num_idle() == 0 { None } else { pool.try_acquire() }
}

/// What every connection is told. The server ends a query that takes too long: one that we only
/// stopped waiting for would hold its connection. Rows that row-level security would hide from us
/// become an error: with hidden rows, members would look unknown.
fn settings(config: &DatabaseConfig) -> String {
    let limit = config.query_timeout.as_millis();
    format!("set statement_timeout = {limit}; set row_security = off")
}

/// How often it is looked whether a connection was given back, while no new one can be made.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);
/// How long to wait for a connection before trying whether the server can be reached.
const PROBE_AFTER: Duration = Duration::from_millis(50);
/// How long making a connection may take before an open one that is free is taken instead.
const MAKING_TAKES: Duration = Duration::from_secs(1);
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

    /// A server that lets so many connections in, and answers so many queries on each; then it says nothing more.
    async fn a_server(lets_in: usize, answers: usize) -> DatabaseConfig {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        const LET_IN: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
        const FULL: &[u8] = b"E\0\0\0\x29SFATAL\0C53300\0Mtoo many connections\0\0";
        const DONE: &[u8] = b"C\0\0\0\x08SET\0Z\0\0\0\x05I";
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut left = lets_in;
            while let Ok((mut client, _)) = listener.accept().await {
                let mut buffer = [0; 4096];
                // A connection that only tries whether the server can be reached says nothing.
                if client.read(&mut buffer).await.is_ok_and(|read| read == 0) {
                    continue;
                }
                let Some(after) = left.checked_sub(1) else {
                    let _ = client.write_all(FULL).await;
                    continue;
                };
                left = after;
                tokio::spawn(async move {
                    let mut answer = LET_IN;
                    for _ in 0..=answers {
                        client.write_all(answer).await?;
                        if client.read(&mut buffer).await? == 0 {
                            break;
                        }
                        answer = DONE;
                    }
                    while client.read(&mut buffer).await? > 0 {}
                    Ok::<_, std::io::Error>(())
                });
            }
        });
        config(&format!("postgres://u:p@{address}/d"))
    }

    // sqlx waited for ever for the answer of a connection that was given back, and four such were a whole pool.
    #[tokio::test]
    async fn a_connection_that_stalls_when_it_is_given_back_frees_its_slot() {
        let query_timeout = Duration::from_millis(200);
        // Its settings are answered.
        let config = DatabaseConfig { query_timeout, ..a_server(usize::MAX, 1).await };
        let server = Server::new(&config).unwrap();
        let pool = server.pool(&config, 1);
        for _ in 0..3 {
            let began = Instant::now();
            let connection = server.acquire(&pool).await;
            assert!(connection.is_ok(), "{:?}", connection.err());
            assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        }
    }

    // While the server accepted no further connection, a query waited for a new one until it timed out, although an open
    // one had become free.
    #[tokio::test]
    async fn an_open_connection_serves_while_no_other_can_be_made() {
        let config = a_server(1, usize::MAX).await;
        let server = Server::new(&config).unwrap();
        let pool = server.pool(&config, 2);
        let first = server.acquire(&pool).await.unwrap();
        let began = Instant::now();
        let giving_back = async {
            sleep(Duration::from_millis(200)).await;
            drop(first);
        };
        let (second, ()) = tokio::join!(server.acquire(&pool), giving_back);
        assert!(second.is_ok(), "{:?}", second.err());
        assert!(began.elapsed() < config.connect_timeout, "{:?}", began.elapsed());
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
