//! Tokens revoked before they expire.

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::queries::{Lookup, Queries};
use super::{Store, StoreError, moment, statement};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RevocationKind {
    Subject,
    /// The sign-in that they stem from.
    Session,
    /// One token by its own identifier.
    TokenId,
}

/// One revocation, as it is enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationRow {
    pub kind: RevocationKind,
    pub value: String,
    /// Only tokens issued until then, in seconds since the epoch, that second included; all if none.
    pub issued_before: Option<i64>,
}

#[derive(Clone, Debug)]
pub struct NewRevocation {
    pub kind: RevocationKind,
    pub value: String,
    /// Only tokens issued until then.
    pub issued_before: Option<OffsetDateTime>,
    pub expires_at: Option<OffsetDateTime>,
    pub reason: String,
    pub created_by: String,
}

/// A revocation, as an administrator sees it.
#[derive(Clone, Debug)]
pub struct ListedRevocation {
    pub id: Uuid,
    pub revocation: NewRevocation,
    pub created_at: Option<OffsetDateTime>,
}

impl RevocationKind {
    pub const ALL: [Self; 3] = [Self::Subject, Self::Session, Self::TokenId];

    /// The name in the table, which is the claim's.
    pub fn name(self) -> &'static str {
        match self {
            Self::Subject => "sub",
            Self::Session => "session_id",
            Self::TokenId => "jti",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// The most that are listed.
pub const MOST_REVOCATIONS_LISTED: usize = 10_000;
/// The most that are deleted at once: a statement has `database.query_timeout`.
pub const MOST_REVOCATIONS_DELETED: usize = 2000;
/// The rows that may be deleted: those that have stopped to count, and are still listed for a day. What has
/// no end has no such time, and `null < …` holds for none.
const ENDED: &str = "expires_at < now() - interval '1 day'";

impl Store {
    pub async fn revocations(&self) -> Result<Vec<RevocationRow>, StoreError> {
        let sql = |queries: &Queries| queries.of(Lookup::Revocation).to_owned();
        let read = |rows: Vec<PgRow>| Ok(read_rows(&rows, typed_time));
        match self.look_up(sql, |query| query, read).await {
            // A time of the operator's own table is none. Postgres reads more forms of times than we
            // do, so texts are only read then.
            Err(StoreError::Refused(_)) => {
                let sql = |queries: &Queries| queries.revocations_as_texts().to_owned();
                let read = |rows: Vec<PgRow>| Ok(read_rows(&rows, written_time));
                self.look_up(sql, |query| query, read).await
            }
            read => read,
        }
    }

    /// Writes a revocation and gives its identifier.
    pub async fn add_revocation(&self, new: NewRevocation) -> Result<Uuid, StoreError> {
        let sql = format!(
            "insert into {} (kind, value, issued_before, expires_at, reason, created_by) \
             values ($1, $2, $3, $4, $5, $6) returning id",
            self.table("revocation")?
        );
        let query = statement(sql)
            .bind(new.kind.name())
            .bind(new.value)
            .bind(new.issued_before)
            .bind(new.expires_at)
            .bind(new.reason)
            .bind(new.created_by);
        self.fetch(query, |rows| {
            let row = rows.first().ok_or(StoreError::Missing("revocation"))?;
            Ok(row.try_get("id")?)
        })
        .await
    }

    /// Takes a revocation back. Says whether there was one.
    pub async fn remove_revocation(&self, id: Uuid) -> Result<bool, StoreError> {
        let table = self.table("revocation")?;
        let sql = format!("delete from {table} where id = $1 returning id");
        self.fetch(statement(sql).bind(id), |rows| Ok(!rows.is_empty())).await
    }

    /// Deletes revocations that ended more than a day ago, [`MOST_REVOCATIONS_DELETED`] at most, and says how
    /// many it asked to be deleted. Never one without an end, and none where an operator's query is read.
    pub async fn delete_ended_revocations(&self) -> Result<usize, StoreError> {
        let table = match self.table("revocation") {
            Err(StoreError::Elsewhere(_)) => return Ok(0),
            table => table?,
        };
        // Found first: a deletion of no row is announced to every copy, too, and each reads all of them again.
        let sql = format!(
            "select id from {table} where {ENDED} order by id limit {MOST_REVOCATIONS_DELETED}"
        );
        let ended: Vec<Uuid> = self
            .fetch(statement(sql), |rows| {
                let id = |row: &PgRow| row.try_get::<Uuid, _>("id").map_err(StoreError::from);
                rows.iter().map(id).collect()
            })
            .await?;
        if ended.is_empty() {
            return Ok(0);
        }
        let found = ended.len();
        // Once more, because an end may have been moved meanwhile.
        let sql = format!("delete from {table} where id = any($1) and {ENDED}");
        self.execute(statement(sql).bind(ended)).await?;
        Ok(found)
    }

    pub async fn list_revocations(&self) -> Result<Vec<ListedRevocation>, StoreError> {
        let times = ["issued_before", "expires_at", "created_at"].map(moment::select);
        let sql = format!(
            "select id, kind, value, reason, created_by, {} from {} as revocation \
             order by revocation.created_at desc limit {MOST_REVOCATIONS_LISTED}",
            times.join(", "),
            self.table("revocation")?
        );
        self.fetch(statement(sql), |rows| {
            rows.iter().map(|row| read_listed(row).map_err(StoreError::from)).collect()
        })
        .await
    }
}

/// How the time of a row is read; none for all times.
type ReadTime = fn(&PgRow) -> Result<Option<i64>, sqlx::Error>;

fn read_rows(rows: &[PgRow], time: ReadTime) -> Vec<RevocationRow> {
    let mut read = Vec::with_capacity(rows.len());
    for row in rows {
        match read_row(row, time) {
            Ok(revocation) => read.push(revocation),
            Err(problem) => tracing::error!(problem, "Invalid revocation row skipped"),
        }
    }
    read
}

/// Until a time that never comes is all of them. A token says when it was issued in whole seconds: rounded up, the next
/// second's would be struck, which whoever signs in again at once gets.
fn typed_time(row: &PgRow) -> Result<Option<i64>, sqlx::Error> {
    Ok(moment::second_of(row.try_get("issued_before")?))
}

/// Where the time is none, whose tokens are meant is still known: better all of them are refused than
/// none.
fn written_time(row: &PgRow) -> Result<Option<i64>, sqlx::Error> {
    let Some(text) = row.try_get::<Option<&str>, _>("issued_before")? else { return Ok(None) };
    Ok(moment::parse(text).unwrap_or_else(|error| {
        tracing::error!(
            %error,
            revocation.issued_before = text,
            "Revocation counts for all tokens: its time cannot be read"
        );
        None
    }))
}

fn read_row(row: &PgRow, time: ReadTime) -> Result<RevocationRow, String> {
    let wrong = |error: sqlx::Error| error.to_string();
    let kind: &str = row.try_get("kind").map_err(wrong)?;
    let kind = RevocationKind::parse(kind).ok_or_else(|| format!("unknown kind {kind:?}"))?;
    let value: String = row.try_get("value").map_err(wrong)?;
    let issued_before = time(row).map_err(wrong)?;
    Ok(RevocationRow { kind, value, issued_before })
}

fn read_listed(row: &PgRow) -> Result<ListedRevocation, sqlx::Error> {
    let kind: &str = row.try_get("kind")?;
    let kind = RevocationKind::parse(kind).ok_or(sqlx::Error::RowNotFound)?;
    let revocation = NewRevocation {
        kind,
        value: row.try_get("value")?,
        issued_before: moment::shown(row.try_get("issued_before")?),
        expires_at: moment::shown(row.try_get("expires_at")?),
        reason: row.try_get("reason")?,
        created_by: row.try_get("created_by")?,
    };
    Ok(ListedRevocation {
        id: row.try_get("id")?,
        revocation,
        created_at: moment::shown(row.try_get("created_at")?),
    })
}
