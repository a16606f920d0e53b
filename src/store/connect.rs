//! The pools, what every connection is told, and how the server proves who it is.

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool};
use tokio::time::timeout;

use super::StoreError;
use crate::config::{DatabaseConfig, DatabaseTls};

/// Connections that nobody needs are closed: a database that moved is noticed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

pub(super) fn pool(config: &DatabaseConfig, connections: u32) -> Result<PgPool, StoreError> {
    let settings = settings(config);
    let options = PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(config.connect_timeout)
        .idle_timeout(IDLE_TIMEOUT)
        .after_connect(move |connection, _| {
            let settings = AssertSqlSafe(settings.clone());
            Box::pin(async move { connection.execute(settings).await.map(drop) })
        });
    Ok(options.connect_lazy_with(options_of(config)?))
}

/// What every connection is told. The server ends a query that takes too long, and with it whatever
/// it waited for: a query that we only stopped listening to would hold its connection. Where
/// row-level security would hide rows from us it is to be an error: hidden, every member would be a
/// stranger.
fn settings(config: &DatabaseConfig) -> String {
    let limit = config.query_timeout.as_millis();
    format!("set statement_timeout = {limit}; set row_security = off")
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

/// Connects once, to know why it cannot be done: a pool only says that it waited.
pub(super) async fn try_once(config: &DatabaseConfig) -> Result<(), StoreError> {
    let options = options_of(config)?;
    let late =
        |_| StoreError::Unavailable(format!("no connection in {:?}", config.connect_timeout));
    let connecting = PgConnection::connect_with(&options);
    let connection = timeout(config.connect_timeout, connecting).await.map_err(late)??;
    connection.close().await?;
    Ok(())
}

pub(super) fn options_of(config: &DatabaseConfig) -> Result<PgConnectOptions, StoreError> {
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

    fn host(url: &str) -> String {
        let text = format!(
            "[auth]\nissuer = \"https://a.supabase.co/auth/v1\"\n[upstream]\nurls = [\"http://m\"]\n\
             [database]\nurl = {url:?}"
        );
        let config = Config::read(&text, &Environment::default()).unwrap().database.unwrap();
        options_of(&config).unwrap().get_host().to_owned()
    }

    #[test]
    fn an_ipv6_address_has_no_brackets_for_the_resolver() {
        assert_eq!(host("postgres://u:p@[fdaa:0:1::3]:5432/d"), "fdaa:0:1::3");
        assert_eq!(host("postgres://postgres.ref:p@db.supabase.co:5432/d"), "db.supabase.co");
    }
}
