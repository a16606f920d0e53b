//! Leader election: the copy whose session holds an advisory lock writes alert rules.
//!
//! The lock ends with its session, and the server ends a session that is silent for a few seconds
//! (`idle_session_timeout`): a leader that is killed, cut off or frozen loses the lock within
//! [`SILENCE`]. The leader itself stops writing earlier than that, [`Leadership::beat`] by beat, so
//! that two copies never write at the same time.
//!
//! All of this needs a session. A pooler may become one that lends a server connection for one transaction only, and
//! then answers beats from any of them, while the lock stays with one that others use. So each beat proves that its
//! answer comes from the very session that has taken the lock, and that it still has it.
//!
//! An advisory lock is the server's on which it was taken: a standby has locks of its own, and old rows.
//! So nobody leads on a server in recovery. A server does not go back into recovery without a restart,
//! which ends all sessions, so a leader need not ask again.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::connect::{Server, Sessions};
use super::feed::behind_a_pooler;
use super::{Store, StoreError};

/// The server ends the leader's session after this long without a query.
pub(crate) const SILENCE: Duration = Duration::from_secs(4);
/// How long the leader may write, from the start of its last successful heartbeat. It is shorter than
/// [`SILENCE`] by enough for a request that has just been sent to arrive at Mimir.
pub(crate) const LEASE: Duration = Duration::from_millis(2500);
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(2);

/// What a leadership needs of its session with the server. A simulation has another
/// (`election::simulation`).
pub(crate) trait Session: Send {
    /// A round trip that proves that this session holds the lock.
    fn prove(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;

    fn close(self) -> impl Future<Output = ()> + Send;
}

/// A session with Postgres that has taken the lock.
pub(crate) struct PgSession {
    connection: PgConnection,
    server: Arc<Server>,
    /// Only the session that has taken the lock has this as its [`MARK`].
    mark: String,
    /// The two keys of the lock, as `pg_locks` shows them.
    keys: (i64, i64),
}

/// A lock that a session has just taken.
struct Locked {
    mark: String,
    keys: (i64, i64),
    asked: Instant,
}

impl PgSession {
    fn is_marked(&self) -> String {
        // Our own words and hexadecimal digits: nothing to be quoted.
        format!("current_setting('{MARK}', true) is not distinct from '{}'", self.mark)
    }
}

impl Session for PgSession {
    async fn prove(&mut self) -> Result<(), StoreError> {
        // One message and one answer. A prepared statement is two, which a transaction pooler may send to two servers.
        let (class, object) = self.keys;
        let sql = format!(
            "select {} and exists (select from pg_locks where {IS_HELD} and pid = pg_backend_pid() \
             and classid::bigint = {class} and objid::bigint = {object}) as is_held",
            self.is_marked()
        );
        let row = self.connection.fetch_one(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
        if !row.try_get::<bool, _>("is_held")? {
            return Err(StoreError::Unfit(NOT_HELD.to_owned()));
        }
        // By luck, all beats may reach the session that has the lock. The feed sees what is in between.
        match self.server.sessions() {
            Sessions::Lost => Err(behind_a_pooler()),
            Sessions::Kept | Sessions::Unknown => Ok(()),
        }
    }

    async fn close(mut self) {
        // Behind a transaction pooler the session stays. What is another session's is not touched.
        let sql = format!("select pg_advisory_unlock_all() where {}", self.is_marked());
        let _ = self.connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await;
        let _ = self.connection.close().await;
    }
}

/// A session that holds the lock.
pub(crate) struct Leadership<S = PgSession> {
    session: S,
}

/// How often the leader sends a heartbeat.
pub(crate) const BEAT: Duration = Duration::from_millis(700);

impl<S: Session> Leadership<S> {
    /// A session that holds the lock, which was asked for at a time, and until when it may write.
    pub(crate) fn won(session: S, asked: Instant) -> (Self, Instant) {
        (Self { session }, asked + LEASE)
    }

    /// Sends a heartbeat and returns the time until which this copy may write.
    pub(crate) async fn beat(&mut self) -> Result<Instant, StoreError> {
        let began = Instant::now();
        let beat = timeout(HEARTBEAT_TIMEOUT, self.session.prove()).await;
        beat.map_err(|_| StoreError::Unavailable("no answer to the heartbeat".to_owned()))??;
        Ok(began + LEASE)
    }

    pub(crate) async fn resign(self) {
        let _ = timeout(HEARTBEAT_TIMEOUT, self.session.close()).await;
    }
}

impl Store {
    /// Tries to become the leader; returns until when it may write. An error if the server is a standby, or behind a
    /// transaction pooler.
    pub(crate) async fn try_lead(&self) -> Result<Option<(Leadership, Instant)>, StoreError> {
        let store = self.clone();
        self.run(async move {
            let mut connection = store.0.server.connect().await?;
            match store.try_lock(&mut connection).await {
                Ok(Some(Locked { mark, keys, asked })) => {
                    let server = Arc::clone(&store.0.server);
                    let session = PgSession { connection, server, mark, keys };
                    Ok(Some(Leadership::won(session, asked)))
                }
                other => {
                    let _ = connection.close().await;
                    other.map(|_| None)
                }
            }
        })
        .await
    }

    /// Takes the lock if it is free.
    async fn try_lock(&self, connection: &mut PgConnection) -> Result<Option<Locked>, StoreError> {
        let key = &self.0.config.schema;
        // A session may take its own lock again and again. Behind a transaction pooler several copies share one, so the
        // lock is not even asked for while anybody has it.
        let query = format!("select pg_is_in_recovery() as is_standby, {} as is_led", is_led());
        let query = sqlx::query(AssertSqlSafe(query)).bind(LOCK).bind(key).persistent(false);
        let row = query.fetch_one(&mut *connection).await?;
        if row.try_get("is_standby")? {
            return Err(StoreError::Unfit(STANDBY.to_owned()));
        }
        if row.try_get("is_led")? {
            return Ok(None);
        }
        // Before anything is set, which would stay with a session of everybody's.
        match self.0.server.sessions() {
            Sessions::Kept => {}
            Sessions::Lost => return Err(behind_a_pooler()),
            Sessions::Unknown => self.prove_sessions().await?,
        }
        let silence = SILENCE.as_millis();
        let settings = format!(
            "set idle_session_timeout = {silence}; set statement_timeout = {silence}; \
             set tcp_user_timeout = {silence}"
        );
        connection.execute(sqlx::raw_sql(AssertSqlSafe(settings))).await?;
        let (mark, asked) = (Uuid::new_v4().simple().to_string(), Instant::now());
        let query = format!(
            "select {CLASS} as class, {OBJECT} as object, is_led, \
             case when is_led then set_config('{MARK}', $3, false) end as mark \
             from pg_try_advisory_lock(hashtext($1), hashtext($2)) as is_led"
        );
        let query = sqlx::query(AssertSqlSafe(query)).bind(LOCK).bind(key).bind(&mark);
        let row = query.persistent(false).fetch_one(&mut *connection).await?;
        let keys = (row.try_get("class")?, row.try_get("object")?);
        Ok(row.try_get::<bool, _>("is_led")?.then_some(Locked { mark, keys, asked }))
    }

    pub async fn is_led(&self) -> Result<bool, StoreError> {
        let query = sqlx::query(AssertSqlSafe(format!("select {} as led", is_led())));
        let query = query.bind(LOCK).bind(self.0.config.schema.clone());
        self.fetch(query, |rows| {
            Ok(rows.first().is_some_and(|row| row.try_get("led").unwrap_or(false)))
        })
        .await
    }
}

/// Selects from `pg_locks` the advisory locks with two keys that are held in this database.
const IS_HELD: &str = "locktype = 'advisory' and granted and objsubid = 2 \
                       and database = (select oid from pg_database where datname = current_database())";

/// The two keys of the lock of `$1` and `$2`: `pg_locks` shows the signed numbers as unsigned ones.
const CLASS: &str = "(hashtext($1)::bigint & 4294967295)";
const OBJECT: &str = "(hashtext($2)::bigint & 4294967295)";

/// Whether anybody has the lock of `$1` and `$2`.
fn is_led() -> String {
    format!(
        "exists (select from pg_locks where {IS_HELD} and classid::bigint = {CLASS} and objid::bigint = {OBJECT})"
    )
}

/// A setting of our own, in the session that has taken the lock.
const MARK: &str = "mimir_tenant_proxy.leadership";

const NOT_HELD: &str = "the connection of the leader's lock leads to another session, or that has lost the lock, as \
                        behind a transaction pooler; use the direct connection or the session pooler, both on port \
                        5432 on Supabase";

const STANDBY: &str = "the server is a standby (in recovery), on which no copy can lead; \
                       database.url has to lead to the primary";

/// Together with the schema: copies that write the same status tables compete for one lock, even
/// if their namespaces differ.
const LOCK: &str = "mimir_tenant_proxy_rules";
