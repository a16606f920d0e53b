//! Postgres: the connections and the only SQL.
//!
//! This reads rows and notifications; what they mean is decided by the stages. Everything runs on
//! the runtime that the store was made on, whichever thread asks: a connection is served by the
//! reactor that opened it, and workers come and go.
//!
//! Nothing from the database is trusted to be right: a row that cannot be read is left out, with a
//! line in the log, and does not affect others.

mod alert_event_copies;
mod alert_events;
mod alert_rule_guard;
mod alert_rule_leader;
mod alert_rule_requests;
mod alert_rule_status;
mod alert_rule_sync;
mod alert_rule_versions;
mod alert_rules;
mod auth_tables;
mod bans;
mod connect;
mod device_keys;
mod feed;
mod identity;
mod leadership;
mod login;
mod memberships;
mod migrations;
mod moment;
mod notification_channels;
mod notification_status;
mod notification_sync;
mod organisation_limits;
mod organisations;
mod overview;
mod privileges;
mod queries;
mod revocations;
mod silent_devices;

use std::sync::Arc;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::postgres::{PgArguments, PgDatabaseError, PgRow};
use sqlx::{AssertSqlSafe, PgPool, Postgres, Row as _};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::config::{DatabaseConfig, TablesRead};

pub use crate::labels::NotificationState;
pub use alert_event_copies::{CopyState, UsesWritten, Watch};
pub use alert_events::{
    AlertChanges, AlertEventRow, AlertKey, AlertStart, AlertWriteError, AskedAlert, EndedBecause,
    LoadedAlerts, Millis, Overdue, OverdueBounds, OverdueStart, Pairs, StoredAlertEvent,
};
pub use alert_rule_guard::{Confirmed, GuardHeld, GuardRow, HeldRule};
pub use alert_rule_leader::LeaderRow;
pub use alert_rule_requests::{NewSyncRequest, SyncRequest};
pub use alert_rule_status::RuleStatusRow;
pub use alert_rule_sync::SyncRow;
pub use alert_rule_versions::{RowVersions, RuleVersions};
pub use alert_rules::{
    AlertRuleRow, Excess, MOST_ORGANISATION_BYTES, MOST_ROW_BYTES, MOST_ROWS, RulesSnapshot,
    Tombstones,
};
pub use device_keys::{
    DeviceKeyRow, DeviceKeysWanted, KeyHash, ListedDeviceKey, MOST_KEYS, NewDeviceKey,
};
pub use feed::{Feed, TableChange};
#[cfg(test)]
pub(crate) use leadership::SILENCE;
pub(crate) use leadership::{BEAT, LEASE, Leadership, PgSession, Session};
pub use login::LONGEST_LOGIN_PAUSE;
pub use memberships::{RolesInUse, UserSession};
pub use migrations::{Migrated, migrate};
pub use notification_channels::{
    ChannelRow, MOST_CHANNEL_BYTES, MOST_CHANNELS, MOST_NOTIFICATION_BYTES, MOST_ROUTE_BYTES,
    MOST_ROUTES, NotificationRows, NotificationSnapshot, RouteRow,
};
pub use notification_status::{NotificationKind, NotificationStatusRow};
pub use notification_sync::{NotificationConfirmed, NotificationSyncRow};
pub use organisation_limits::{LimitRow, MOST_LIMIT_ROWS};
pub use overview::{CountsByState, MemberRow, OrganisationSummary, OrganisationsWanted};
pub use revocations::{
    ListedRevocation, MOST_REVOCATIONS_DELETED, MOST_REVOCATIONS_LISTED, NewRevocation,
    RevocationKind, RevocationRow,
};
pub use silent_devices::{RefusedSilences, SilenceBounds, SilenceChanges, SilenceLimits};

use connect::Server;
use identity::Identity;
use queries::{Lookup, Queries};

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    /// For look-ups, on which requests wait.
    lookups: PgPool,
    /// For operators and for what is written: however much that is, look-ups go on.
    side: PgPool,
    /// For lists, and for all else that administrators of organisations ask: however much that is, what is on the
    /// side goes on, for operators and revocations above all.
    lists: PgPool,
    runtime: Handle,
    server: Arc<Server>,
    config: DatabaseConfig,
    tables: TablesRead,
    /// What the check has found.
    checked: Arc<OnceCell<Checked>>,
}

struct Checked {
    /// They fit the tables.
    queries: Queries,
    /// None if the server does not say which database it is.
    identity: Option<Identity>,
}

/// Why the database gave no answer, by what can be done about it.
///
/// It has no sources but texts: it is compared, cloned for every request that waited for the same
/// look-up, and never shows what sqlx may have put into its own errors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("the database cannot be reached: {0}")]
    Unreachable(String),
    /// It is too slow, or failed.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// It takes or reads something else, but not this: a value that is not of its kind, or that a constraint or an
    /// operator's trigger forbids. The same again would fail again.
    #[error("the database refuses it: {0}")]
    Refused(String),
    /// An operator has to do something.
    #[error("the database cannot be used: {0}")]
    Unfit(String),
    /// A table without any row, which says nothing of what it was asked for.
    #[error("the table {0} is empty")]
    Empty(&'static str),
    /// A foreign key points to nothing.
    #[error("there is no such {0}")]
    Missing(&'static str),
    /// A query of the operator's is read in place of this table of ours.
    #[error("these are read by database.{0}_query; make and change them there")]
    Elsewhere(&'static str),
    #[error("there are {0} already; revoke some")]
    Full(usize),
    /// What must be there once only.
    #[error("there is one already")]
    Taken,
}

impl Store {
    /// The store of a process: `database.max_connections` for look-ups, and [`SIDE_CONNECTIONS`] and
    /// [`LIST_CONNECTIONS`] more. It connects when it is first used. To be called on the runtime that
    /// is to serve it.
    pub fn new(config: &DatabaseConfig, tables: TablesRead) -> Result<Self, StoreError> {
        let server = Arc::new(Server::new(config)?);
        Ok(Self(Arc::new(Inner {
            lookups: server.pool(config, config.max_connections),
            side: server.pool(config, SIDE_CONNECTIONS),
            lists: server.pool(config, LIST_CONNECTIONS),
            runtime: Handle::current(),
            server,
            config: config.clone(),
            tables,
            checked: Arc::default(),
        })))
    }

    /// A further store of the same database, with this many connections for everything. To be called on the runtime
    /// that is to serve it: a connection is served by the one that made it, and to read very many rules on the main
    /// one would hold up look-ups.
    pub fn beside(&self, connections: u32) -> Self {
        let Inner { server, config, tables, .. } = &*self.0;
        let pool = server.pool(config, connections);
        // Requests look sessions up, and they ask the first one.
        let tables = TablesRead { sessions: false, ..*tables };
        self.on(&pool, Handle::current(), tables, Arc::default())
    }

    /// This store with its connections for operators, for everything, look-ups too.
    pub fn for_operators(&self) -> Self {
        self.with(&self.0.side)
    }

    /// This store with its connections for lists, for everything, look-ups too.
    pub fn for_lists(&self) -> Self {
        self.with(&self.0.lists)
    }

    fn with(&self, pool: &PgPool) -> Self {
        let Inner { runtime, tables, checked, .. } = &*self.0;
        self.on(pool, runtime.clone(), *tables, Arc::clone(checked))
    }

    fn on(
        &self,
        pool: &PgPool,
        runtime: Handle,
        tables: TablesRead,
        checked: Arc<OnceCell<Checked>>,
    ) -> Self {
        let Inner { server, config, .. } = &*self.0;
        Self(Arc::new(Inner {
            lookups: pool.clone(),
            side: pool.clone(),
            lists: pool.clone(),
            runtime,
            server: Arc::clone(server),
            config: config.clone(),
            tables,
            checked,
        }))
    }

    /// Has new connections, those of stores beside it as well, log in with the user and the password of another
    /// store of the same database. Open ones stay, so nothing is interrupted.
    pub fn log_in_like(&self, other: &Self) {
        self.0.server.log_in_like(&other.0.server);
    }

    /// Whether the server has just refused the user and the password.
    pub fn is_login_refused(&self) -> bool {
        self.0.server.login().refusal().is_some()
    }

    /// The user and the password may be tried again at once, whenever they were refused.
    pub fn forget_refusal(&self) {
        self.0.server.login().forget_refusal();
    }

    /// Whether another store, which was checked, is of the same database.
    pub fn is_same_database(&self, other: &Self) -> bool {
        match (self.0.checked.get(), other.0.checked.get()) {
            // Nothing was read yet.
            (None, _) => true,
            (Some(own), Some(others)) => own.identity.is_some() && own.identity == others.identity,
            (Some(_), None) => false,
        }
    }

    /// Whether both log in with the same name.
    pub fn has_user_of(&self, other: &Self) -> bool {
        self.0.server.has_user_of(&other.0.server)
    }

    /// Checks that the tables, or the operator's queries, give what is needed. Done once; until then
    /// nothing is read.
    pub async fn check(&self) -> Result<(), StoreError> {
        let store = self.clone();
        self.run(async move { store.queries().await.map(|_| ()) }).await
    }

    async fn queries(&self) -> Result<&Queries, StoreError> {
        let inner = &self.0;
        let check = async || {
            let mut connection = inner.server.acquire(&inner.lookups).await?;
            // It is closed when this is done, and with it the statements that were looked at.
            connection.close_on_drop();
            let identity = Identity::read(&mut connection).await?;
            let queries = queries::check(&mut connection, &inner.config, inner.tables).await?;
            Ok::<_, StoreError>(Checked { queries, identity })
        };
        inner.checked.get_or_try_init(check).await.map(|checked| &checked.queries)
    }

    /// Runs some work on the store's runtime, within the time that a query may take.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let mut limit = self.0.config.connect_timeout + self.0.config.query_timeout;
        if !self.0.checked.initialized() {
            // The check of the queries takes a dozen round trips; cut off every time, it would never
            // succeed on a distant database.
            limit += FIRST_CHECK;
        }
        let late =
            move |_| StoreError::Unavailable(format!("the database gave no answer in {limit:?}"));
        let work = self.0.runtime.spawn(async move { timeout(limit, work).await });
        match work.await {
            Ok(outcome) => outcome.map_err(late)?,
            Err(error) if error.is_panic() => {
                Err(StoreError::Unavailable("its answer could not be read".to_owned()))
            }
            Err(_) => Err(StoreError::Unavailable("the process is shutting down".to_owned())),
        }
    }

    /// Asks one of the look-ups, on which requests wait, or a query that is made of them.
    async fn look_up<T: Send + 'static>(
        &self,
        sql: impl FnOnce(&Queries) -> String + Send + 'static,
        bind: impl FnOnce(PgQuery<'static>) -> PgQuery<'static> + Send + 'static,
        read: impl FnOnce(Vec<PgRow>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        self.run(async move {
            let queries = store.queries().await?;
            let mut sql = sql(queries);
            let is_of_sessions = sql == queries.of(Lookup::Session);
            let bans = queries.bans();
            if is_of_sessions && bans.is_to_ask_again() {
                store.ask_for_bans_again(bans).await;
                // With bans, if they are seen again.
                queries.of(Lookup::Session).clone_into(&mut sql);
            }
            let reads_bans = is_of_sessions && bans.are_read();
            let rows = store.rows(&store.0.lookups, bind(statement(sql))).await;
            if reads_bans && matches!(rows, Err(StoreError::Unfit(_))) {
                store.ask_for_bans_again(bans).await;
            }
            read(rows?)
        })
        .await
    }

    /// Whether there is a row in a table or a query.
    async fn has_rows(
        &self,
        from: impl FnOnce(&Queries) -> String + Send + 'static,
    ) -> Result<bool, StoreError> {
        let sql = |queries: &Queries| {
            format!("select exists (select from {}) as is_there", from(queries))
        };
        let read = |rows: Vec<PgRow>| {
            let is_there: Option<bool> =
                rows.first().map(|row| row.try_get("is_there")).transpose()?;
            Ok(is_there.unwrap_or(false))
        };
        self.look_up(sql, |query| query, read).await
    }

    /// An error if there is none. `what` is the table's name.
    async fn unless_empty(
        &self,
        what: &'static str,
        from: impl FnOnce(&Queries) -> String + Send + 'static,
    ) -> Result<(), StoreError> {
        if self.has_rows(from).await? {
            return Ok(());
        }
        Err(StoreError::Empty(what))
    }

    /// Runs a statement on a side connection and reads its rows. They are read on the store's
    /// runtime, where a row that makes sqlx panic harms nothing but this call.
    async fn fetch<T: Send + 'static>(
        &self,
        query: PgQuery<'static>,
        read: impl FnOnce(Vec<PgRow>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        self.run(async move { read(store.rows(&store.0.side, query).await?) }).await
    }

    /// Runs a statement on a side connection.
    async fn execute(&self, query: PgQuery<'static>) -> Result<(), StoreError> {
        self.fetch(query, |_| Ok(())).await
    }

    /// Sends one query and takes its rows. A connection that gives no answer in time is closed: given
    /// back, it would be waited for.
    async fn rows(&self, pool: &PgPool, query: PgQuery<'_>) -> Result<Vec<PgRow>, StoreError> {
        let mut connection = self.0.server.acquire(pool).await?;
        // The server's own limit, which is a little shorter, is the usual way.
        let limit = self.0.config.query_timeout + Duration::from_millis(500);
        // Not kept under a name: `select *` changes with its tables.
        let rows = query.persistent(false).fetch_all(&mut *connection);
        if let Ok(rows) = timeout(limit, rows).await {
            return Ok(rows?);
        }
        connection.close_on_drop();
        Err(StoreError::Unavailable(format!("no answer in {limit:?}")))
    }

    /// A table of ours, to be written or listed. Where a query of the operator's is read in its
    /// place, what was written to it would count for nothing.
    fn table(&self, name: &'static str) -> Result<String, StoreError> {
        let queries = &self.0.config.queries;
        let is_elsewhere = match name {
            "device_key" => queries.device_key.is_some(),
            "revocation" => queries.revocation.is_some(),
            "alert_rule" => queries.alert_rule.is_some(),
            _ => false,
        };
        if is_elsewhere {
            return Err(StoreError::Elsewhere(name));
        }
        Ok(queries::table(&self.0.config.schema, name))
    }
}

type PgQuery<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

/// A statement that is put together here, of nothing but our own words and the configuration.
fn statement(sql: String) -> PgQuery<'static> {
    sqlx::query(AssertSqlSafe(sql))
}

/// A text as Postgres can store it: it takes no NUL, not in JSON either.
pub(crate) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// The same, and no longer than the columns that have reasons and problems keep it (4,000 characters).
pub(crate) fn shortened(text: &str) -> String {
    const LONGEST: usize = 2000;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => storable(&format!("{}…", &text[..end])),
        None => storable(text),
    }
}

/// What the check of the queries may take beyond that.
const FIRST_CHECK: Duration = Duration::from_secs(20);
/// The target of the events that tell Postgres's notices, with their severity as the level.
pub const NOTICES: &str = "sqlx::postgres::notice";
/// Connections for operators, their services and what is written, beside `database.max_connections`.
pub const SIDE_CONNECTIONS: u32 = 2;
/// Connections for lists, and for all else that administrators of organisations ask of the tables.
pub const LIST_CONNECTIONS: u32 = 1;

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error.as_database_error() {
            None => Self::Unavailable(describe(&error)),
            Some(database) => {
                let problem = database.message().to_owned();
                let error = Self::of_code(database.code().as_deref(), problem.clone());
                // A function that refuses a row may give its error any code.
                if is_raised(database) && !error.is_refusal() {
                    return Self::Refused(problem);
                }
                error
            }
        }
    }
}

/// Whether `raise` of PL/pgSQL has made the error: Postgres tells the function of its own source.
fn is_raised(database: &dyn DatabaseError) -> bool {
    let database = database.try_downcast_ref::<PgDatabaseError>();
    database.and_then(PgDatabaseError::routine) == Some("exec_stmt_raise")
}

impl StoreError {
    /// Whether the same again would fail again, although the database takes other things.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Missing(_) | Self::Taken)
    }

    /// What an error of the server's means
    /// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
    fn of_code(code: Option<&str>, problem: String) -> Self {
        const FOREIGN_KEY: &str = "23503";
        const UNIQUE: &str = "23505";
        // Missing tables, rights and logins do not mend themselves.
        const UNFIT: [&str; 8] =
            ["42P01", "42703", "42883", "42501", "3F000", "28P01", "28000", "3D000"];
        // What a trigger does with the row (09, 27), a function that comes to no case or no end (20, 2F) or is in
        // another language (38, 39), a subquery with several rows, a constraint, a view's check (44), a limit of the
        // server's such as that of an index, and what a function in PL/pgSQL raises. What hits every row, such as a
        // missing table, is in none of these classes.
        const OF_A_ROW: [&str; 11] =
            ["09", "20", "21", "23", "27", "2F", "38", "39", "44", "54", "P0"];
        match code {
            Some(FOREIGN_KEY) => Self::Missing("organisation"),
            Some(UNIQUE) => Self::Taken,
            Some(code) if UNFIT.contains(&code) => Self::Unfit(problem),
            Some(code)
                if is_data_exception(code)
                    || OF_A_ROW.iter().any(|class| code.starts_with(class)) =>
            {
                Self::Refused(problem)
            }
            _ => Self::Unavailable(problem),
        }
    }
}

/// Class 22, data exceptions: a text that is no UUID, a number that is too large, a time that is none.
fn is_data_exception(code: &str) -> bool {
    code.starts_with("22")
}

/// An error for operators. Of the server's errors only the message: sqlx adds a line of Postgres'
/// own source.
fn describe(error: &sqlx::Error) -> String {
    let text = error
        .as_database_error()
        .map_or_else(|| error.to_string(), |database| database.message().to_owned());
    if text.contains("certificate") {
        return format!(
            "{text}; database.ca_file names the authority that the certificate is checked against \
             (Supabase: Project Settings, Database, SSL)"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    // A row that is refused is left out or dropped; what fails for every row is an outage and loses nothing.
    #[test]
    fn errors_of_one_row_are_refusals_and_errors_of_all_rows_are_not() {
        let is_refusal = |code: &str| StoreError::of_code(Some(code), String::new()).is_refusal();
        for code in [
            "09000", "20000", "21000", "22P02", "23502", "23503", "23505", "23514", "27000",
            "2F005", "38000", "39004", "44000", "54000", "P0001", "P0002", "P0004",
        ] {
            assert!(is_refusal(code), "{code}");
        }
        for code in [
            "08006", "25006", "40001", "40P01", "42501", "42P01", "42883", "53100", "53300",
            "55P03", "57014", "57P01", "58030", "XX000",
        ] {
            assert!(!is_refusal(code), "{code}");
        }
    }
}
