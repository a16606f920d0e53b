//! Events of devices that are silent: which begin and which end, as the database itself finds out by the last use of
//! each device key. Only the leader asks for it.

use std::collections::HashSet;
use std::time::Duration;

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::queries::{Lookup, Queries};
use super::{Store, StoreError, statement};
use crate::tenancy::OrganisationId;

/// How long organisations' devices may be silent, in seconds.
pub type SilenceLimits = Vec<(OrganisationId, f64)>;

/// Organisations whose silent devices the database refuses to write, each with its error.
pub type RefusedSilences = Vec<(String, String)>;

/// What one check of devices has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SilenceChanges {
    pub begun: u64,
    pub not_begun: RefusedSilences,
    pub ended: u64,
    pub not_ended: RefusedSilences,
}

/// How much one check of devices does.
#[derive(Clone, Copy, Debug)]
pub struct SilenceBounds {
    /// Open events of an organisation's silent devices.
    pub max_open: usize,
    /// Rows that one statement writes.
    pub rows: usize,
}

/// Characters of a duration; no duration is longer.
const LONGEST_SILENCE: usize = 100;

impl Store {
    /// How long the devices of organisations may be silent, as they have it (a duration). Of a longer text, which a
    /// table of the operator's own may have, only the beginning comes: no duration, however it goes on.
    pub async fn silence_limits(&self) -> Result<Vec<(OrganisationId, String)>, StoreError> {
        let sql = |queries: &Queries| {
            format!(
                "select organisation_id, case when octet_length(device_silent_after) <= {LONGEST_SILENCE} \
                     then device_silent_after else left(device_silent_after, {LONGEST_SILENCE}) || '…' end \
                     as device_silent_after \
                 from ({}) as known where device_silent_after is not null",
                queries.of(Lookup::Organisation)
            )
        };
        self.look_up(
            sql,
            |query| query,
            |rows| {
                let read = |row: &PgRow| -> Result<Option<(OrganisationId, String)>, sqlx::Error> {
                    let organisation = OrganisationId::parse(row.try_get("organisation_id")?).ok();
                    let after = row.try_get("device_silent_after")?;
                    Ok(organisation.map(|organisation| (organisation, after)))
                };
                rows.iter()
                    .filter_map(|row| read(row).transpose())
                    .collect::<Result<_, _>>()
                    .map_err(Into::into)
            },
        )
        .await
    }

    /// Ends the events of devices that report again or are not watched any more, and begins those
    /// of devices that are silent for too long. `allowance` is what the last use may be late by, and
    /// nothing counts that was before the leader began to watch.
    ///
    /// What the database refuses for one organisation, such as a device's name, keeps back no other. As many rows as
    /// one statement may write, or more, mean that there may be more.
    pub async fn update_silent_devices(
        &self,
        limits: SilenceLimits,
        allowance: Duration,
        watched_for: f64,
        most: SilenceBounds,
    ) -> Result<SilenceChanges, StoreError> {
        if self.0.config.queries.device_key.is_some() {
            // When a key of an operator's own table was used is not known.
            return Ok(SilenceChanges::default());
        }
        let (ended, not_ended) = self.end_silences(&limits, most).await?;
        let (begun, not_begun) = self.begin_silences(limits, allowance, watched_for, most).await?;
        Ok(SilenceChanges { begun, not_begun, ended, not_ended })
    }

    async fn end_silences(
        &self,
        limits: &[(OrganisationId, f64)],
        most: SilenceBounds,
    ) -> Result<(u64, RefusedSilences), StoreError> {
        let (events, keys) = (self.own("alert_event"), self.table("device_key")?);
        let judged = format!(
            "select open.id, open.organisation_id, key.last_used_at, \
                 coalesce(key.last_used_at > open.started_at, false) as reports, \
                 coalesce({USABLE_KEY}, false) and watched.organisation is not null as is_watched \
             from {events} as open left join {keys} as key \
                 on key.id = open.device_key_id and key.organisation_id = open.organisation_id \
             left join unnest($1::text[]) as watched(organisation) on watched.organisation = open.organisation_id \
             where open.kind = 'device_silent' and open.state = 'firing'"
        );
        let watched: Vec<String> = limits.iter().map(|(of, _)| of.to_string()).collect();
        let sql = format!(
            "select distinct organisation_id from ({judged}) as judged where reports or not is_watched"
        );
        let query = statement(sql).bind(watched.clone());
        let due = self.fetch(query, |rows| read_organisations(&rows)).await?;
        let sql = format!(
            "update {events} as event set state = 'resolved', updated_at = now(), \
                 ended_at = case when judged.reports then judged.last_used_at else now() end, \
                 ended_because = case when judged.reports then 'reported' else 'withdrawn' end \
             from (select * from ({judged} and open.organisation_id = any($2)) as all_judged \
                   where reports or not is_watched limit $3) as judged \
             where event.id = judged.id returning 1 as one"
        );
        let end = |organisations: Vec<String>| {
            let query = statement(sql.clone()).bind(watched.clone()).bind(organisations);
            let query = query.bind(whole(most.rows));
            self.fetch(query, |rows| Ok(rows.len() as u64))
        };
        unless_refused(due, end).await
    }

    async fn begin_silences(
        &self,
        limits: SilenceLimits,
        allowance: Duration,
        watched_for: f64,
        most: SilenceBounds,
    ) -> Result<(u64, RefusedSilences), StoreError> {
        let (events, keys) = (self.own("alert_event"), self.table("device_key")?);
        // Alerts and silent devices do not take each other's room.
        let silent = format!(
            "select key.organisation_id, key.id, key.last_used_at, jsonb_build_object('device', key.name) as labels, \
                 row_number() over (partition by key.organisation_id order by key.last_used_at, key.id) \
                 + (select count(*) from {events} as open where open.organisation_id = key.organisation_id \
                    and open.kind = 'device_silent' and open.state = 'firing') as number \
             from unnest($1::text[], $2::float8[]) as watched(organisation, after) \
             join {keys} as key on key.organisation_id = watched.organisation \
             where {USABLE_KEY} and key.last_used_at is not null \
               and least(extract(epoch from now() - key.last_used_at)::float8, $4::float8) > watched.after + $3::float8 \
               and not exists (select from {events} as open where open.organisation_id = key.organisation_id \
                               and open.fingerprint = 'device_silent:' || key.id and open.state = 'firing')"
        );
        let bound = |sql: String, limits: Vec<&(OrganisationId, f64)>| {
            let (organisations, after): (Vec<String>, Vec<f64>) =
                limits.into_iter().map(|(of, after)| (of.to_string(), *after)).unzip();
            let query = statement(sql).bind(organisations).bind(after);
            let query = query.bind(allowance.as_secs_f64()).bind(watched_for);
            query.bind(whole(most.max_open))
        };
        let may_lock = self.may_lock_organisations();
        let sql = format!(
            "select distinct organisation_id, {may_lock} as may_lock from ({silent}) as silent where number <= $5"
        );
        let read = |rows: Vec<PgRow>| {
            let may_lock = rows.first().map(|row| row.try_get("may_lock")).transpose()?;
            Ok((read_organisations(&rows)?, may_lock.unwrap_or(false)))
        };
        let (due, may_lock) = self.fetch(bound(sql, limits.iter().collect()), read).await?;
        // Locked for the reason that those of alerts are.
        let (locked, is_locked) = if may_lock {
            (
                format!(
                    "with locked as (select id from {} where id = any($1) for key share skip locked) ",
                    self.own("organisation")
                ),
                "organisation_id in (select id from locked) and",
            )
        } else {
            (String::new(), "")
        };
        let sql = format!(
            "{locked}insert into {events} (organisation_id, kind, device_key_id, fingerprint, labels, annotations, state, started_at) \
             select organisation_id, 'device_silent', id, 'device_silent:' || id, labels, '{{}}', 'firing', last_used_at \
             from ({silent}) as silent where {is_locked} number <= $5 limit $6 \
             on conflict do nothing returning 1 as one"
        );
        let begin = |organisations: Vec<String>| {
            let wanted: HashSet<String> = organisations.into_iter().collect();
            let limits = limits.iter().filter(|(of, _)| wanted.contains(of.as_str())).collect();
            let query = bound(sql.clone(), limits).bind(whole(most.rows));
            self.fetch(query, |rows| Ok(rows.len() as u64))
        };
        unless_refused(due, begin).await
    }
}

fn whole(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A key after its grace can report nothing.
const USABLE_KEY: &str = "key.revoked_at is null and (key.expires_at is null \
     or key.expires_at + make_interval(secs => key.grace_seconds) > now())";

/// Writes for all of some organisations at once; if the database refuses that, for each of them alone, without those
/// that it refuses.
async fn unless_refused<W: Future<Output = Result<u64, StoreError>>>(
    organisations: Vec<String>,
    write: impl Fn(Vec<String>) -> W,
) -> Result<(u64, RefusedSilences), StoreError> {
    if organisations.is_empty() {
        return Ok((0, Vec::new()));
    }
    match write(organisations.clone()).await {
        Ok(written) => return Ok((written, Vec::new())),
        Err(error) if error.is_refusal() => {}
        Err(error) => return Err(error),
    }
    let (mut all, mut refused) = (0, Vec::new());
    for organisation in organisations {
        match write(vec![organisation.clone()]).await {
            Ok(written) => all += written,
            Err(error) if error.is_refusal() => refused.push((organisation, error.to_string())),
            Err(error) => return Err(error),
        }
    }
    Ok((all, refused))
}

fn read_organisations(rows: &[PgRow]) -> Result<Vec<String>, StoreError> {
    rows.iter().map(|row| Ok(row.try_get("organisation_id")?)).collect()
}
