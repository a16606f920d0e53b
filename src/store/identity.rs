//! Which database a connection leads to. The address alone does not say: a pooler may choose the server by the login.

use sqlx::{PgConnection, Row as _};

use super::{StoreError, queries};

/// A database: the cluster's number, which its standbys share, and the database's number there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity(String);

impl Identity {
    /// None if the server does not say.
    pub(super) async fn read(connection: &mut PgConnection) -> Result<Option<Self>, StoreError> {
        let query = "select system_identifier || ' ' || oid as identity from pg_control_system(), pg_database \
                     where datname = current_database()";
        match sqlx::query(query).persistent(false).fetch_one(connection).await {
            Ok(row) => Ok(Some(Self(row.try_get("identity")?))),
            Err(sqlx::Error::Database(error)) if !queries::is_passing(error.code().as_deref()) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}
