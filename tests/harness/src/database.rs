//! One database of a cluster, and a client of it that shares nothing with the proxy's own driver.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// An empty database. It goes away with its cluster.
///
/// What a test asks it passes by the cluster's socket, not by the network: neither TLS nor a broken
/// network is in the way of the test's own questions.
#[derive(Clone, Debug)]
pub struct Database {
    name: String,
    address: SocketAddr,
    password: Option<String>,
    socket: PathBuf,
}

/// How a server refuses a statement.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The SQLSTATE; empty if the server has none.
    pub code: String,
    /// Everything that it says: message, detail, hint, context.
    pub text: String,
}

impl Database {
    pub(crate) fn new(
        name: &str,
        address: SocketAddr,
        password: Option<String>,
        socket: &Path,
    ) -> Self {
        Self { name: name.to_owned(), address, password, socket: socket.to_owned() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address over the network, with the password if the cluster asks for one.
    pub fn url(&self) -> String {
        self.url_through(self.address)
    }

    /// Its address by way of something that stands before the cluster, such as a `ChaosProxy`.
    pub fn url_through(&self, address: SocketAddr) -> String {
        let password = self.password.as_ref().map(|word| format!(":{word}")).unwrap_or_default();
        format!("postgres://postgres{password}@{address}/{}", self.name)
    }

    /// Runs statements, separated by semicolons.
    ///
    /// # Panics
    /// If one fails; [`Database::client`] is for those that are meant to.
    pub async fn execute(&self, sql: &str) {
        let done = self.client().await.batch_execute(sql).await;
        done.unwrap_or_else(|e| panic!("{}: {e:?}: {sql}", self.name));
    }

    /// The rows of a query, every value as text, `None` for NULL.
    ///
    /// # Panics
    /// If it fails.
    pub async fn query(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let answer = self.client().await.simple_query(sql).await;
        let messages = answer.unwrap_or_else(|e| panic!("{}: {e:?}: {sql}", self.name));
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        rows.map(|row| (0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect()).collect()
    }

    /// The same in a session that begins with other statements, such as `set role`; or how the server
    /// refuses it.
    ///
    /// # Panics
    /// If the session cannot begin so.
    pub async fn try_query(
        &self,
        session: &str,
        sql: &str,
    ) -> Result<Vec<Vec<Option<String>>>, Refusal> {
        let client = self.client().await;
        client.batch_execute(session).await.unwrap_or_else(|e| panic!("{e:?}: {session}"));
        let messages = client.simple_query(sql).await.map_err(|error| Refusal {
            code: error.code().map(|code| code.code().to_owned()).unwrap_or_default(),
            text: format!("{error:?}"),
        })?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        Ok(rows
            .map(|row| (0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect())
            .collect())
    }

    /// A connection of its own, for transactions, locks and statements that fail. It ends when it is
    /// dropped.
    pub async fn client(&self) -> Client {
        self.connect().await.unwrap_or_else(|e| panic!("{}: {e:?}", self.name))
    }

    pub(crate) async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let mut config = Config::new();
        config.host_path(&self.socket).port(self.address.port()).user("postgres");
        let (client, connection) = config.dbname(&self.name).connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}
