//! The pool, and how the server proves who it is.

use std::str::FromStr as _;

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};

use super::StoreError;
use crate::config::{DatabaseConfig, DatabaseTls};

/// Connections that nobody needs are closed: a database that moved is noticed.
const IDLE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(300);

pub(super) fn pool(config: &DatabaseConfig) -> Result<PgPool, StoreError> {
    let options = PgPoolOptions::new()
        .max_connections(config.max_connections)
        .acquire_timeout(config.connect_timeout)
        .idle_timeout(IDLE_TIMEOUT);
    Ok(options.connect_lazy_with(options_of(config)?))
}

/// The pool of the one connection that listens.
pub(super) fn listening_pool(config: &DatabaseConfig) -> Result<PgPool, StoreError> {
    let options = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(config.connect_timeout)
        .idle_timeout(None)
        .max_lifetime(None);
    Ok(options.connect_lazy_with(options_of(config)?))
}

pub(super) fn options_of(config: &DatabaseConfig) -> Result<PgConnectOptions, StoreError> {
    let unreadable = || StoreError::Unfit("database.url cannot be read".to_owned());
    let url = std::str::from_utf8(config.url.expose()).map_err(|_| unreadable())?;
    let options = PgConnectOptions::from_str(url).map_err(|_| unreadable())?;
    let options = options.application_name("mimir-tenant-proxy");
    Ok(match &config.tls {
        DatabaseTls::Off => options.ssl_mode(PgSslMode::Disable),
        DatabaseTls::VerifyFull(None) => options.ssl_mode(PgSslMode::VerifyFull),
        DatabaseTls::VerifyFull(Some(file)) => {
            options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert(file)
        }
    })
}
