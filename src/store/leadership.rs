//! Leader election: the copy whose session holds an advisory lock writes alert rules.
//!
//! The lock ends with its session, and the server ends a session that is silent for a few seconds
//! (`idle_session_timeout`): a leader that is killed, cut off or frozen loses the lock within
//! [`SILENCE`]. The leader itself stops writing earlier than that, [`Leadership::beat`] by beat, so
//! that two copies never write at the same time.
//!
//! An advisory lock is the server's on which it was taken: a standby has locks of its own, and old rows.
//! So nobody leads on a server in recovery. A server does not go back into recovery without a restart,
//! which ends all sessions, so a leader need not ask again.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use tokio::time::{Instant, timeout};

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
    /// A round trip.
    fn ping(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;

    fn close(self) -> impl Future<Output = ()> + Send;
}

impl Session for PgConnection {
    async fn ping(&mut self) -> Result<(), StoreError> {
        Ok(sqlx::Connection::ping(self).await?)
    }

    async fn close(self) {
        let _ = sqlx::Connection::close(self).await;
    }
}

/// A session with Postgres.
pub(crate) type PgSession = PgConnection;

/// A session that holds the lock.
pub(crate) struct Leadership<S = PgConnection> {
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
        let beat = timeout(HEARTBEAT_TIMEOUT, self.session.ping()).await;
        beat.map_err(|_| StoreError::Unavailable("no answer to the heartbeat".to_owned()))??;
        Ok(began + LEASE)
    }

    pub(crate) async fn resign(self) {
        let _ = timeout(HEARTBEAT_TIMEOUT, self.session.close()).await;
    }
}

impl Store {
    /// Tries to become the leader; returns until when it may write. An error if the server is a standby.
    pub(crate) async fn try_lead(&self) -> Result<Option<(Leadership, Instant)>, StoreError> {
        let store = self.clone();
        let key = self.0.config.schema.clone();
        self.run(async move {
            let mut connection = store.0.server.connect().await?;
            let silence = SILENCE.as_millis();
            let settings = format!(
                "set idle_session_timeout = {silence}; set statement_timeout = {silence}; \
                 set tcp_user_timeout = {silence}"
            );
            sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut connection).await?;
            let began = Instant::now();
            let query = sqlx::query(
                "select is_standby, case when is_standby then false \
                 else pg_try_advisory_lock(hashtext($1), hashtext($2)) end as led \
                 from pg_is_in_recovery() as is_standby",
            );
            let query = query.bind(LOCK).bind(&key).persistent(false);
            let row = query.fetch_one(&mut connection).await?;
            if row.try_get("led")? {
                return Ok(Some(Leadership::won(connection, began)));
            }
            sqlx::Connection::close(connection).await?;
            if row.try_get("is_standby")? {
                return Err(StoreError::Unfit(STANDBY.to_owned()));
            }
            Ok(None)
        })
        .await
    }

    pub async fn is_led(&self) -> Result<bool, StoreError> {
        // pg_locks shows the two signed keys of a lock as unsigned numbers.
        let query = "select exists (select from pg_locks where locktype = 'advisory' and granted \
                     and objsubid = 2 and database = (select oid from pg_database where datname = current_database()) \
                     and classid::bigint = hashtext($1)::bigint & 4294967295 \
                     and objid::bigint = hashtext($2)::bigint & 4294967295) as led";
        let query = sqlx::query(query).bind(LOCK).bind(&self.0.config.schema);
        self.fetch(query, |rows| {
            Ok(rows.first().is_some_and(|row| row.try_get("led").unwrap_or(false)))
        })
        .await
    }
}

const STANDBY: &str = "the server is a standby (in recovery), on which no copy can lead; \
                       database.url has to lead to the primary";

/// Together with the schema: copies that write the same status tables compete for one lock, even
/// if their namespaces differ.
const LOCK: &str = "mimir_tenant_proxy_rules";
