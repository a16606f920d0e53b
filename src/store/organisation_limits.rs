//! Limits of single organisations, as rows.

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::queries::{Lookup, Queries};
use super::{Store, StoreError};

/// One limit, as it is written. What is null is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitRow {
    pub organisation: String,
    pub name: String,
    pub value: String,
}

/// Rows that are read. With more, nothing is.
pub const MOST_LIMIT_ROWS: usize = 200_000;
/// Characters of each column that are read; no limit is longer.
const LONGEST: usize = 200;

impl Store {
    /// All rows.
    pub async fn organisation_limits(&self) -> Result<Vec<LimitRow>, StoreError> {
        let sql = |queries: &Queries| {
            format!(
                "select left(organisation_id, {LONGEST}) as organisation_id, \
                 left(name, {LONGEST}) as name, left(value, {LONGEST}) as value \
                 from ({}) as limits limit {}",
                queries.of(Lookup::OrganisationLimit),
                MOST_LIMIT_ROWS + 1
            )
        };
        self.look_up(sql, |query| query, |rows| read(&rows)).await
    }
}

fn read(rows: &[PgRow]) -> Result<Vec<LimitRow>, StoreError> {
    if rows.len() > MOST_LIMIT_ROWS {
        return Err(StoreError::Unavailable(format!(
            "there are more than {MOST_LIMIT_ROWS} limits of organisations"
        )));
    }
    let text = |row: &PgRow, name: &str| {
        let text: Option<String> = row.try_get(name)?;
        Ok::<_, sqlx::Error>(text.unwrap_or_default())
    };
    let read = |row: &PgRow| {
        Ok(LimitRow {
            organisation: text(row, "organisation_id")?,
            name: text(row, "name")?,
            value: text(row, "value")?,
        })
    };
    rows.iter().map(read).collect::<Result<_, sqlx::Error>>().map_err(StoreError::from)
}
