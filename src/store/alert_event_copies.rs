//! Whether reports of alerts, and uses of device keys, can have come to the database. Each copy says so of itself, and
//! the leader reads what all have said.

use std::time::Duration;

use sqlx::Row as _;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Store, StoreError, statement};
use crate::tenancy::OrganisationId;

/// What a copy says of itself.
#[derive(Clone, Debug)]
pub struct CopyState {
    /// It may have missed reports of every organisation's alerts.
    pub misses_all: bool,
    /// It may have missed those of these.
    pub misses: Vec<OrganisationId>,
    pub uses: UsesWritten,
}

/// Which uses of device keys are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsesWritten {
    /// All that were noted until then.
    Until(Instant),
    /// All: the process ends, and no more are noted.
    All,
}

/// What the leader may conclude from silence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Watch {
    /// For how many seconds a leader has watched without a break.
    pub seconds: f64,
    /// Copies of which nothing is known now.
    pub unheard: u64,
    /// Copies that have not yet written uses of device keys.
    pub behind: u64,
}

/// How long a copy that says nothing counts as one that receives reports and cannot write them. Then it is gone, and
/// rulers send to the others.
const GONE: Duration = Duration::from_secs(600);

impl Store {
    /// Notes that a copy writes what it receives, and what it may have missed. If it has not said so for longer than
    /// `silence`, or never before, it may have missed all.
    pub async fn note_copy(
        &self,
        id: Uuid,
        silence: Duration,
        state: CopyState,
    ) -> Result<(), StoreError> {
        let CopyState { misses_all, misses, uses } = state;
        let (copies, gaps) = (self.own("alert_event_copy"), self.own("alert_event_gap"));
        // All parts see the row as it was before. In one order, so that two copies do not wait for each other.
        let sql = format!(
            "with said as (insert into {copies} as known (id, seen_at, uses_at) \
                 values ($1, now(), coalesce(now() - make_interval(secs => $2), 'infinity')) \
                 on conflict (id) do update set seen_at = excluded.seen_at, \
                     uses_at = greatest(known.uses_at, excluded.uses_at)), \
             missed as (select unnest($3::text[]) as organisation union \
                 select '' where $4 or not exists (select from {copies} \
                     where id = $1 and seen_at > now() - make_interval(secs => $5))) \
             insert into {gaps} as known (organisation_id, ended_at) \
             select organisation, now() from missed order by organisation \
             on conflict (organisation_id) do update set ended_at = greatest(known.ended_at, excluded.ended_at)"
        );
        let misses: Vec<String> = misses.iter().map(OrganisationId::to_string).collect();
        let uses_age = match uses {
            UsesWritten::All => None,
            UsesWritten::Until(then) => Some(then.elapsed().as_secs_f64()),
        };
        let query = statement(sql).bind(id).bind(uses_age);
        self.execute(query.bind(misses).bind(misses_all).bind(silence.as_secs_f64())).await
    }

    /// Notes that a leader watches; a break of more than `silence` begins a new watch. While a copy says nothing for
    /// as long, reports may be missed. One that is gone may have taken uses of device keys with it, unless it said that
    /// it wrote them all: that begins a new watch, too. `uses_late` is by how much they may be late.
    pub async fn watch_alert_events(
        &self,
        silence: Duration,
        uses_late: Duration,
    ) -> Result<Watch, StoreError> {
        let (copies, gaps) = (self.own("alert_event_copy"), self.own("alert_event_gap"));
        let sql = format!(
            "with counted as (select count(*) filter (where seen_at < now() - make_interval(secs => $1)) as unheard, \
                 count(*) filter (where uses_at < now() - make_interval(secs => $2)) as behind from {copies}), \
             gap as (insert into {gaps} as known (organisation_id, ended_at) \
                 select '', now() from counted where unheard > 0 \
                 on conflict (organisation_id) do update set ended_at = greatest(known.ended_at, excluded.ended_at)), \
             gone as (delete from {copies} where seen_at < now() - make_interval(secs => $3) returning uses_at) \
             update {} set watched_at = now(), watching_since = case \
                 when watched_at > now() - make_interval(secs => $1) \
                     and not exists (select from gone where uses_at < 'infinity') then watching_since else now() end \
             returning extract(epoch from now() - watching_since)::float8 as seconds, \
                 (select unheard from counted) as unheard, (select behind from counted) as behind",
            self.own("alert_event_watch")
        );
        let query = statement(sql).bind(silence.as_secs_f64());
        let query = query.bind(uses_late.as_secs_f64()).bind(GONE.as_secs_f64());
        self.fetch(query, |rows| {
            let row = rows.first().ok_or_else(|| {
                StoreError::Unfit("the row of alert_event_watch is missing".to_owned())
            })?;
            let count = |column| -> Result<u64, sqlx::Error> {
                Ok(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0))
            };
            let (unheard, behind) = (count("unheard")?, count("behind")?);
            Ok(Watch { seconds: row.try_get("seconds")?, unheard, behind })
        })
        .await
    }

    /// Deletes gaps of longer ago than an alert can hold.
    pub async fn forget_alert_event_gaps(&self, longest: Duration) -> Result<(), StoreError> {
        let sql = format!(
            "delete from {} where ended_at < now() - make_interval(secs => $1)",
            self.own("alert_event_gap")
        );
        self.execute(statement(sql).bind(longest.as_secs_f64())).await
    }
}
