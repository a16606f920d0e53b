//! Postgres: the connections and the only SQL.
//!
//! What is read here is hints and rows; what they mean is decided by the stages. Everything runs
//! on the runtime that the store was made on, whoever asks: a connection belongs to the threads
//! that serve it, and workers come and go.
//!
//! Nothing from the database is trusted to be right: a row that cannot be read is left out, with a
//! line in the log, and never takes others with it.

mod connect;
mod device_keys;
mod feed;
mod memberships;
mod migrations;
mod moment;
mod queries;
mod revocations;
mod sessions;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::config::DatabaseConfig;

pub use device_keys::{DeviceKeyRow, KeyHash, ListedDeviceKey, NewDeviceKey};
pub use feed::{Change, Feed};
pub use migrations::{Migrated, migrate};
pub use revocations::{ListedRevocation, NewRevocation, RevocationKind, RevocationRow};

use queries::Queries;

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    pool: PgPool,
    runtime: Handle,
    config: DatabaseConfig,
    /// The queries, once they have been seen to fit the tables.
    queries: OnceCell<Queries>,
}

/// Why the database gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// It cannot be reached, is too slow, or failed.
    Unavailable(String),
    /// It is there, but is not as it must be: an operator has to do something.
    Unfit(String),
    /// What was to be written speaks of something that is not there.
    Missing(&'static str),
}

impl Store {
    /// Makes a store that connects when it is first used. To be called on the runtime that is to
    /// serve it.
    pub fn new(config: &DatabaseConfig) -> Result<Self, StoreError> {
        let pool = connect::pool(config)?;
        Ok(Self(Arc::new(Inner {
            pool,
            runtime: Handle::current(),
            config: config.clone(),
            queries: OnceCell::new(),
        })))
    }

    /// Sees whether the tables, or the operator's queries, give what is needed. Done once; until
    /// then nothing is read.
    pub async fn check(&self) -> Result<(), StoreError> {
        let store = self.clone();
        self.run(async move { store.queries().await.map(|_| ()) }).await
    }

    async fn queries(&self) -> Result<&Queries, StoreError> {
        let inner = &self.0;
        inner.queries.get_or_try_init(|| queries::check(&inner.pool, &inner.config)).await
    }

    /// Runs some work on the store's runtime, within the time that a query may take.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let patience = self.0.config.connect_timeout + self.0.config.query_timeout;
        let late = move |_| {
            StoreError::Unavailable(format!("the database gave no answer in {patience:?}"))
        };
        let work = self.0.runtime.spawn(async move { timeout(patience, work).await });
        match work.await {
            Ok(outcome) => outcome.map_err(late)?,
            Err(_) => Err(StoreError::Unavailable("the process ends".to_owned())),
        }
    }

    fn table(&self, name: &str) -> String {
        queries::table(&self.0.config.schema, name)
    }

    /// How long one look into the database may take.
    pub fn patience(&self) -> Duration {
        self.0.config.query_timeout
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        // https://www.postgresql.org/docs/current/errcodes-appendix.html
        const FOREIGN_KEY: &str = "23503";
        // What is not there, or may not be touched, does not come by itself.
        const UNFIT: [&str; 5] = ["42P01", "42703", "42883", "42501", "3F000"];
        let code = error.as_database_error().and_then(|error| error.code());
        match code.as_deref() {
            Some(FOREIGN_KEY) => Self::Missing("organisation"),
            Some(code) if UNFIT.contains(&code) => Self::Unfit(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(problem) => write!(f, "the database is not available: {problem}"),
            Self::Unfit(problem) => write!(f, "the database is not as it must be: {problem}"),
            Self::Missing(what) => write!(f, "there is no such {what}"),
        }
    }
}
