//! The status of each channel and route. Only the leader writes it; the organisation's members read it.

use std::collections::HashMap;

use serde::Serialize;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::alert_rules::organisation_of;
use super::{Store, StoreError, moment, statement};
use crate::batch_size::BatchSize;
use crate::labels::NotificationState;
use crate::tenancy::OrganisationId;

/// What a status is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NotificationKind {
    Channel,
    Route,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotificationStatusRow {
    pub kind: NotificationKind,
    pub id: Uuid,
    pub organisation: OrganisationId,
    pub state: NotificationState,
    /// Why it is not live, in words for its author. It never holds a secret.
    pub reason: String,
    /// When it was last written to Mimir. Given only where it was written now; else the database keeps
    /// what it has, as long as the state stays live.
    pub synced_at: Option<OffsetDateTime>,
}

/// Rows in one statement.
const BATCH: usize = 1000;

impl NotificationKind {
    pub const ALL: [Self; 2] = [Self::Channel, Self::Route];

    /// The name in `notification_tombstone` and everywhere else.
    pub fn name(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::Route => "route",
        }
    }

    fn table(self) -> (&'static str, &'static str) {
        match self {
            Self::Channel => ("notification_channel_status", "channel_id"),
            Self::Route => ("notification_route_status", "route_id"),
        }
    }
}

/// The state of a name in the table.
fn state_of(name: &str) -> Option<NotificationState> {
    NotificationState::ALL.into_iter().find(|state| state.name() == name)
}

impl Store {
    /// The statuses of some organisations' channels and routes.
    pub async fn notification_statuses_of(
        &self,
        organisations: Vec<OrganisationId>,
    ) -> Result<Vec<NotificationStatusRow>, StoreError> {
        let names: Vec<String> = organisations.iter().map(ToString::to_string).collect();
        let selects = NotificationKind::ALL.map(|kind| {
            let (table, id) = kind.table();
            format!(
                "select '{}' as kind, {id} as id, organisation_id, state, reason, {} from {} \
                 where organisation_id = any($1)",
                kind.name(),
                moment::select("synced_at"),
                self.own(table)
            )
        });
        let sql = selects.join(" union all ");
        self.fetch(statement(sql).bind(names), |rows| {
            Ok(rows.iter().filter_map(|row| read_status(row).ok().flatten()).collect())
        })
        .await
    }

    /// How many channels and routes of each organisation are live.
    pub async fn live_notifications(&self) -> Result<HashMap<OrganisationId, usize>, StoreError> {
        let selects = NotificationKind::ALL.map(|kind| {
            let (table, _) = kind.table();
            format!("select organisation_id, state from {}", self.own(table))
        });
        let sql = format!(
            "select organisation_id, count(*) as live from ({}) as status \
             where state = 'live' group by organisation_id",
            selects.join(" union all ")
        );
        self.fetch(statement(sql), |rows| {
            let read = |row: &PgRow| {
                let live: i64 = row.try_get("live").ok()?;
                Some((organisation_of(row)?, usize::try_from(live).ok()?))
            };
            Ok(rows.iter().filter_map(read).collect())
        })
        .await
    }

    /// Writes statuses, and forgets those of rows that are gone.
    pub async fn write_notification_statuses(
        &self,
        written: Vec<NotificationStatusRow>,
        gone: Vec<(NotificationKind, OrganisationId, Uuid)>,
    ) -> Result<(), StoreError> {
        for kind in NotificationKind::ALL {
            let rows: Vec<&NotificationStatusRow> =
                written.iter().filter(|row| row.kind == kind).collect();
            in_parts(&rows, |batch| self.write_notification_batch(kind, batch)).await?;
            let gone: Vec<(&OrganisationId, Uuid)> = gone
                .iter()
                .filter(|(of, ..)| *of == kind)
                .map(|(_, organisation, id)| (organisation, *id))
                .collect();
            in_parts(&gone, |batch| self.forget_notification_batch(kind, batch)).await?;
        }
        Ok(())
    }

    async fn forget_notification_batch(
        &self,
        kind: NotificationKind,
        gone: &[(&OrganisationId, Uuid)],
    ) -> Result<(), StoreError> {
        let (table, id) = kind.table();
        // A row that moved is another organisation's by now.
        let sql = format!(
            "delete from {} using unnest($1::text[], $2::uuid[]) as gone(organisation, row) \
             where organisation_id = organisation and {id} = row",
            self.own(table)
        );
        let names = gone.iter().map(|(organisation, _)| organisation.to_string());
        let ids = gone.iter().map(|(_, id)| *id);
        let query = statement(sql).bind(names.collect::<Vec<String>>());
        self.execute(query.bind(ids.collect::<Vec<Uuid>>())).await
    }

    async fn write_notification_batch(
        &self,
        kind: NotificationKind,
        batch: &[&NotificationStatusRow],
    ) -> Result<(), StoreError> {
        let (table, id) = kind.table();
        let sql = format!(
            "insert into {} as kept ({id}, organisation_id, state, reason, synced_at) \
             select row, organisation, state, left(reason, 4000), at from \
             unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[]) \
                 as new(row, organisation, state, reason, at) \
             on conflict ({id}) do update set organisation_id = excluded.organisation_id, \
                 state = excluded.state, reason = excluded.reason, updated_at = now(), \
                 synced_at = case when excluded.state = 'live' \
                     then coalesce(excluded.synced_at, kept.synced_at) end",
            self.own(table)
        );
        let column = |of: fn(&NotificationStatusRow) -> String| -> Vec<String> {
            batch.iter().map(|row| of(row)).collect()
        };
        let query = statement(sql)
            .bind(batch.iter().map(|row| row.id).collect::<Vec<Uuid>>())
            .bind(column(|row| row.organisation.to_string()))
            .bind(column(|row| row.state.name().to_owned()))
            // Postgres takes no NUL in a text.
            .bind(column(|row| row.reason.replace('\0', "\u{fffd}")))
            .bind(batch.iter().map(|row| row.synced_at).collect::<Vec<Option<OffsetDateTime>>>());
        self.execute(query).await
    }
}

/// Writes rows, so many in a statement. Fewer after one that was not done in the time of a query, which would not be done
/// in it the next time either.
async fn in_parts<'a, T, W: Future<Output = Result<(), StoreError>>>(
    rows: &'a [T],
    write: impl Fn(&'a [T]) -> W,
) -> Result<(), StoreError> {
    let (mut size, mut left) = (BatchSize::new(BATCH), rows);
    while !left.is_empty() {
        let (batch, after) = left.split_at(size.get().min(left.len()));
        match write(batch).await {
            Ok(()) => left = after,
            Err(StoreError::Unavailable(_)) if batch.len() > 1 => size.was_too_much(batch.len()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn read_status(row: &PgRow) -> Result<Option<NotificationStatusRow>, sqlx::Error> {
    let organisation = OrganisationId::parse(row.try_get("organisation_id")?).ok();
    let state = state_of(row.try_get("state")?);
    let (Some(organisation), Some(state)) = (organisation, state) else { return Ok(None) };
    let kind = match row.try_get("kind")? {
        "channel" => NotificationKind::Channel,
        _ => NotificationKind::Route,
    };
    Ok(Some(NotificationStatusRow {
        kind,
        id: row.try_get("id")?,
        organisation,
        state,
        reason: row.try_get("reason")?,
        synced_at: moment::shown(row.try_get("synced_at")?),
    }))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    // A batch that takes longer than a query may was tried again as it was, at each sync of the organisation.
    #[tokio::test]
    async fn a_batch_that_is_too_much_is_halved_until_it_passes() {
        let (rows, sizes, written) = ([0; 200], RefCell::default(), RefCell::new(0));
        let write = |fast: usize| {
            let (sizes, written): (&RefCell<Vec<usize>>, &RefCell<usize>) = (&sizes, &written);
            move |batch: &[i32]| {
                sizes.borrow_mut().push(batch.len());
                if batch.len() > fast {
                    return std::future::ready(Err(StoreError::Unavailable("late".to_owned())));
                }
                *written.borrow_mut() += batch.len();
                std::future::ready(Ok(()))
            }
        };
        in_parts(&rows, write(60)).await.unwrap();
        assert_eq!(*written.borrow(), rows.len());
        assert_eq!(*sizes.borrow(), [200, 100, 50, 50, 50, 50]);
        // Not even one: the database is away.
        assert!(in_parts(&rows[..2], write(0)).await.is_err());
        assert_eq!(sizes.borrow()[6..], [2, 1]);
    }
}
