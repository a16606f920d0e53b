//! Supabase's own tables of sessions and users: the look-up of sessions, and what our role sees of them.
//!
//! They are not ours. On Supabase's platform nobody but Supabase can grant the use of their schema, and row-level
//! security is on in all of them, without a policy.

use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use super::StoreError;
use super::queries::is_passing;

/// What an operator does whose role cannot read the tables.
const OR_BY_A_FUNCTION: &str = "or, where nobody may do that, as on Supabase's platform, read them by a function: \
                                \"Sessions by a function\" in docs/operations/supabase.md";

/// The look-up of sessions that go on.
pub(super) fn sessions(with_client: bool) -> String {
    let client = if with_client { ", oauth_client_id" } else { "" };
    format!(
        "select id{client} from auth.sessions where id = any($1) \
         and (not_after is null or not_after > now())"
    )
}

/// The same without those of banned users.
pub(super) fn sessions_unless_banned(with_client: bool) -> String {
    let client = if with_client { ", oauth_client_id" } else { "" };
    format!(
        "select id{client} from auth.sessions as session where id = any($1) \
         and (not_after is null or not_after > now()) \
         and not exists (select from auth.users as banned \
             where banned.id = session.user_id and banned.banned_until > now())"
    )
}

/// Sees that the role reads all sessions.
pub(super) async fn check_sessions(connection: &mut PgConnection) -> Result<(), StoreError> {
    let asked = ask(connection, &sessions(false)).await;
    match asked {
        Err(sqlx::Error::Database(error)) if !is_passing(error.code().as_deref()) => {
            let problem = error.message();
            Err(StoreError::Unfit(format!(
                "auth.check_sessions: auth.sessions cannot be read: {problem}; give the role usage on schema \
                 auth, select on auth.sessions, and bypassrls, {OR_BY_A_FUNCTION}"
            )))
        }
        other => Ok(other?),
    }
}

/// Whether sessions tell which OAuth client they were opened for.
pub(super) enum Clients {
    Seen,
    /// Supabase Auth before the autumn of 2025, or a table of the operator's own.
    Absent,
    /// Why not, and what to do.
    Unseen(String),
}

impl Clients {
    /// To be asked when the sessions themselves can be read.
    pub(super) async fn find(connection: &mut PgConnection) -> Result<Self, StoreError> {
        const UNDEFINED_COLUMN: &str = "42703";
        const INSUFFICIENT_PRIVILEGE: &str = "42501";
        let Err(error) = ask(connection, &sessions(true)).await else { return Ok(Self::Seen) };
        let Some(database) = error.as_database_error() else { return Err(error.into()) };
        let unseen = match database.code().as_deref() {
            Some(UNDEFINED_COLUMN) => return Ok(Self::Absent),
            Some(INSUFFICIENT_PRIVILEGE) => {
                let row = sqlx::query("select quote_ident(current_user) as us").persistent(false);
                let us: String = row.fetch_one(connection).await?.try_get("us")?;
                format!("run: grant select (oauth_client_id) on auth.sessions to {us}")
            }
            _ => return Err(error.into()),
        };
        tracing::warn!(
            reason = database.message(),
            remedy = unseen,
            "OAuth clients of sessions are not seen; only a token's claims tell its client"
        );
        Ok(Self::Unseen(unseen))
    }
}

/// Runs a look-up for nobody: what is wrong with it shows.
pub(super) async fn ask(connection: &mut PgConnection, sql: &str) -> Result<(), sqlx::Error> {
    let asked = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).bind(Vec::<Uuid>::new());
    asked.persistent(false).fetch_all(connection).await.map(|_| ())
}
