//! Events of alerts, and what holds for those of silent devices too: how many are open, and when they are deleted.
//! What was reported of an alert is kept by its starts; the rows that people see are made of them above this module
//! ([`Store::update_alert_events`] asks for that), in one transaction.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::time::timeout;
use uuid::Uuid;

use super::organisations::spellings;
use super::{PgQuery, Store, StoreError, statement};
use crate::tenancy::OrganisationId;

/// Milliseconds since the epoch, as precise as Mimir's ruler is.
pub type Millis = i64;

/// Labels or annotations.
pub type Pairs = BTreeMap<String, String>;

/// One alert, through all its events.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AlertKey {
    pub organisation: OrganisationId,
    /// Of the labels, as Alertmanager has it.
    pub fingerprint: String,
}

/// All that was reported of an alert that began to fire at a time. Every field only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlertStart {
    /// The latest time until which it was said to fire.
    pub valid_until: Option<Millis>,
    /// When it was last said to fire, by our clock.
    pub firing_seen: Option<Millis>,
    pub resolved_at: Option<Millis>,
    /// When that was last said, by our clock.
    pub resolved_seen: Option<Millis>,
    /// The value of `valid_until` at which the leader gave it up.
    pub expired_at: Option<Millis>,
}

/// Why an event is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndedBecause {
    /// It was not reported any more.
    Expired,
    /// The rule says so.
    Resolved,
    /// The device reports again.
    Reported,
    /// The key was revoked or has expired, or nobody watches it any more.
    Withdrawn,
}

/// A row of `alert_event` for an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertEventRow {
    pub id: Uuid,
    pub key: AlertKey,
    pub rule: Option<Uuid>,
    pub labels: Pairs,
    pub annotations: Pairs,
    pub started_at: Millis,
    pub ended: Option<(Millis, EndedBecause)>,
}

/// An event and what it was made of, by the times at which the alert began to fire.
#[derive(Clone, Debug)]
pub struct StoredAlertEvent {
    pub row: AlertEventRow,
    /// None if they are lost, such as after a restore without them.
    pub starts: BTreeMap<Millis, AlertStart>,
    /// When the row was last written.
    pub updated_at: Millis,
}

/// An alert about which something new is to be written.
#[derive(Clone, Debug)]
pub struct AskedAlert {
    pub key: AlertKey,
    /// Events that ended before that are not read.
    pub since: Millis,
    /// Rules that are to be its rule, if they are the organisation's.
    pub rules: Vec<Uuid>,
}

/// What there is of the alerts that were asked for.
#[derive(Clone, Debug, Default)]
pub struct LoadedAlerts {
    pub events: HashMap<AlertKey, Vec<StoredAlertEvent>>,
    /// Open events of the organisations' alerts.
    pub open: HashMap<OrganisationId, usize>,
    /// Of the rules asked for those that are the organisation's.
    pub rules: HashSet<(OrganisationId, Uuid)>,
    /// Organisations that are not there.
    pub absent: HashSet<OrganisationId>,
    /// Organisations that another transaction is about to delete or to rename, and their events with them.
    pub leaving: HashSet<OrganisationId>,
}

/// What is to be written. Rows are whole: there or not.
#[derive(Clone, Debug, Default)]
pub struct AlertChanges {
    /// Events that are part of another one.
    pub deleted: Vec<Uuid>,
    pub ended: Vec<AlertEventRow>,
    pub open: Vec<AlertEventRow>,
    pub starts: Vec<(AlertKey, Uuid, Millis, AlertStart)>,
    /// Starts that need not be remembered.
    pub forgotten: Vec<(AlertKey, Millis)>,
}

/// Why nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlertWriteError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database takes something else, but not this.
    #[error("the database refuses it: {0}")]
    Refused(String),
}

impl From<sqlx::Error> for AlertWriteError {
    fn from(error: sqlx::Error) -> Self {
        let problem = error.as_database_error().map(|database| database.message().to_owned());
        match (StoreError::from(error), problem) {
            (error, Some(problem)) if error.is_refusal() => Self::Refused(problem),
            (error, _) => Self::Store(error),
        }
    }
}

/// A start of an open event that is to be given up.
#[derive(Clone, Debug)]
pub struct OverdueStart {
    pub key: AlertKey,
    pub at: Millis,
    /// Until when it was said to fire; the present time if that is lost.
    pub until: Millis,
    /// Nothing is stored of it, so whether its time is over is not known.
    pub is_lost: bool,
}

/// Some of what is overdue.
#[derive(Clone, Debug)]
pub struct Overdue {
    /// Events, those included whose rows cannot be read.
    pub events: usize,
    pub starts: Vec<OverdueStart>,
}

/// How much of what is overdue is read at once.
#[derive(Clone, Copy, Debug)]
pub struct OverdueBounds {
    pub events: usize,
    /// The labels and annotations of these events have not many more bytes together.
    pub bytes: i64,
    /// So many events are left out, in the order of their ids.
    pub passed_over: usize,
}

impl EndedBecause {
    pub const ALL: [Self; 4] = [Self::Expired, Self::Resolved, Self::Reported, Self::Withdrawn];

    pub fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Resolved => "resolved",
            Self::Reported => "reported",
            Self::Withdrawn => "withdrawn",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|because| because.name() == name)
    }
}

/// Serialises what is written about one organisation's alerts by several copies.
const LOCK: &str = "mimir_tenant_proxy_alert_event";

impl Store {
    /// Reads what there is of some alerts, lets `decide` say what is to be written, and writes it, all in
    /// one transaction and one organisation at a time, whichever copies write.
    pub async fn update_alert_events<T: Send + 'static>(
        &self,
        asked: Vec<AskedAlert>,
        decide: impl FnOnce(LoadedAlerts) -> (AlertChanges, T) + Send + 'static,
    ) -> Result<T, AlertWriteError> {
        let store = self.clone();
        let work = async move {
            let config = &store.0.config;
            let mut connection = store.0.server.acquire(&store.0.side).await?;
            let written = store.write_alert_events(&mut connection, asked, decide);
            // All statements together, so that a lock that does not come holds up no more than one batch.
            let limit = config.query_timeout + Duration::from_millis(500);
            match timeout(limit, written).await {
                Ok(Ok(done)) => Ok(Ok(done)),
                Ok(Err(error)) => {
                    // In the middle of a transaction.
                    connection.close_on_drop();
                    match error {
                        AlertWriteError::Refused(problem) => Ok(Err(problem)),
                        AlertWriteError::Store(error) => Err(error),
                    }
                }
                Err(_) => {
                    connection.close_on_drop();
                    Err(StoreError::Unavailable(format!("no answer in {limit:?}")))
                }
            }
        };
        self.run(work).await?.map_err(AlertWriteError::Refused)
    }

    async fn write_alert_events<T>(
        &self,
        connection: &mut PgConnection,
        asked: Vec<AskedAlert>,
        decide: impl FnOnce(LoadedAlerts) -> (AlertChanges, T),
    ) -> Result<T, AlertWriteError> {
        let mut transaction = connection.begin().await?;
        let all: HashSet<OrganisationId> =
            asked.iter().map(|alert| alert.key.organisation.clone()).collect();
        let organisations: Vec<String> = all.iter().map(OrganisationId::to_string).collect();
        // In one order, so that two copies do not wait for each other. Later statements see what the
        // copy that held the lock has written.
        let sql = format!(
            "select pg_advisory_xact_lock(hashtext($2), number), {} as may_lock from \
             (select distinct hashtext(name) as number from unnest($1::text[]) as name \
              order by number offset 0) as ordered",
            self.may_lock_organisations()
        );
        let query = statement(sql).bind(organisations.clone()).bind(LOCK).persistent(false);
        let locked = query.fetch_all(&mut *transaction).await?;
        let may_lock = locked.first().map(|row| row.try_get("may_lock")).transpose()?;
        let mut loaded = LoadedAlerts::default();
        // Before the events are read: those of an organisation that is not locked may be deleted at any time.
        self.lock_organisations(&mut transaction, all, may_lock.unwrap_or(false), &mut loaded)
            .await?;
        self.load_events(&mut transaction, &asked, &mut loaded).await?;
        self.load_counts(&mut transaction, organisations, &asked, &mut loaded).await?;
        let (changes, done) = decide(loaded);
        self.write_changes(&mut transaction, changes).await?;
        transaction.commit().await?;
        Ok(done)
    }

    /// Whether the organisations are in a table of ours and the role may lock its rows, for which Postgres wants a
    /// right to update: an expression.
    pub(super) fn may_lock_organisations(&self) -> String {
        if self.0.config.queries.organisation.is_some() {
            return "false".to_owned();
        }
        format!(
            "coalesce((select relkind in ('r', 'p') and has_any_column_privilege(oid, 'update') \
             from pg_class where oid = to_regclass('{}')), false)",
            self.own("organisation")
        )
    }

    /// Keeps organisations where they are until the transaction ends, as a foreign key would, and notes those that
    /// are not there: an event that is written while its organisation is deleted would stay for the next organisation
    /// of the same identifier. It waits for no other transaction: one that deletes an organisation and takes long
    /// must not hold up the alerts of all others. A role that may not lock rows only reads them; then an event that
    /// is written in the moment of the deletion can stay.
    async fn lock_organisations(
        &self,
        connection: &mut PgConnection,
        organisations: HashSet<OrganisationId>,
        may_lock: bool,
        loaded: &mut LoadedAlerts,
    ) -> Result<(), AlertWriteError> {
        if self.0.config.queries.organisation.is_some() {
            // Nothing is deleted with an organisation of the operator's own tables.
            return Ok(());
        }
        let table = self.own("organisation");
        let lock = if may_lock { "for key share skip locked" } else { "" };
        let sql = format!(
            "with locked as (select id from {table} where id = any($1) {lock}) \
             select known.id, locked.id is not null as is_locked \
             from {table} as known left join locked on locked.id = known.id where known.id = any($1)"
        );
        let wanted: Vec<OrganisationId> = organisations.iter().cloned().collect();
        let query = statement(sql).bind(spellings(&wanted)).persistent(false);
        let rows = query.fetch_all(&mut *connection).await?;
        loaded.absent = organisations;
        for row in &rows {
            let Ok(organisation) = OrganisationId::parse(row.try_get("id")?) else { continue };
            loaded.absent.remove(&organisation);
            if !row.try_get::<bool, _>("is_locked")? {
                loaded.leaving.insert(organisation);
            }
        }
        if rows.is_empty() {
            // An empty table says nothing of any organisation: it is still to be filled, or was emptied by mistake.
            let sql = format!("select exists (select from {table}) as is_there");
            let row = statement(sql).persistent(false).fetch_one(connection).await?;
            if !row.try_get::<bool, _>("is_there")? {
                return Err(StoreError::Empty("organisation").into());
            }
        }
        Ok(())
    }

    async fn load_events(
        &self,
        connection: &mut PgConnection,
        asked: &[AskedAlert],
        loaded: &mut LoadedAlerts,
    ) -> Result<(), sqlx::Error> {
        let (events, starts) = (self.own("alert_event"), self.own("alert_event_start"));
        // The texts of an event come with its first start alone: there may be dozens.
        let sql = format!(
            "select event.id, event.organisation_id, event.fingerprint, event.rule_id, \
             case when {is_first} then event.labels::text end as labels, \
             case when {is_first} then event.annotations::text end as annotations, {event_started}, {ended}, event.ended_because, \
             {updated}, {start_started}, {valid}, {firing}, {resolved}, {resolved_seen}, {expired} \
             from unnest($1::text[], $2::text[], $3::float8[]) as asked(organisation, fingerprint, since) \
             join {events} as event on event.organisation_id = asked.organisation \
                 and event.fingerprint = asked.fingerprint \
                 and (event.ended_at is null or event.ended_at >= to_timestamp(asked.since)) \
             left join {starts} as start on start.event_id = event.id \
             where event.kind = 'alert'",
            is_first = "row_number() over (partition by event.id \
                order by isfinite(start.started_at) desc, start.started_at) = 1",
            event_started = millis_of("event.started_at", "event_started_at"),
            ended = millis_of("event.ended_at", "ended_at"),
            updated = millis_of("event.updated_at", "updated_at"),
            start_started = millis_of("start.started_at", "start_started_at"),
            valid = millis_of("start.valid_until", "valid_until"),
            firing = millis_of("start.firing_seen_at", "firing_seen_at"),
            resolved = millis_of("start.resolved_at", "resolved_at"),
            resolved_seen = millis_of("start.resolved_seen_at", "resolved_seen_at"),
            expired = millis_of("start.expired_at", "expired_at"),
        );
        let (organisations, fingerprints) = columns(asked.iter().map(|alert| &alert.key));
        let since: Vec<f64> = asked.iter().map(|alert| seconds(alert.since)).collect();
        let query = statement(sql).bind(organisations).bind(fingerprints).bind(since);
        for row in &query.persistent(false).fetch_all(connection).await? {
            let Some(event) = read_event(row)? else { continue };
            let is_first = row.try_get::<Option<&str>, _>("labels")?.is_some();
            let events = loaded.events.entry(event.key.clone()).or_default();
            let at = events.iter().position(|stored| stored.row.id == event.id);
            let at = at.unwrap_or(events.len());
            if at == events.len() {
                let updated_at = millis(row, "updated_at")?.unwrap_or(event.started_at);
                let starts = BTreeMap::new();
                events.push(StoredAlertEvent { row: event, starts, updated_at });
            } else if is_first {
                events[at].row = event;
            }
            events[at].starts.extend(read_start(row)?);
        }
        Ok(())
    }

    async fn load_counts(
        &self,
        connection: &mut PgConnection,
        organisations: Vec<String>,
        asked: &[AskedAlert],
        loaded: &mut LoadedAlerts,
    ) -> Result<(), sqlx::Error> {
        // The status is there for rules of an operator's own table, too; the row is there before it.
        let of_rows = if self.0.config.queries.alert_rule.is_none() {
            format!(
                " union all select 1 from {} where id = asked.rule \
                 and organisation_id = asked.organisation",
                self.own("alert_rule")
            )
        } else {
            String::new()
        };
        // One look-up by key for each rule asked: the limit keeps Postgres from joining whole tables.
        let sql = format!(
            "select organisation_id, null::uuid as rule, count(*) as open from {} \
             where state = 'firing' and kind = 'alert' and organisation_id = any($1) group by organisation_id \
             union all select asked.organisation, asked.rule, 0 from \
             (select distinct * from unnest($2::text[], $3::uuid[]) as given(organisation, rule)) as asked \
             cross join lateral (select 1 from {} where rule_id = asked.rule \
             and organisation_id = asked.organisation{of_rows} limit 1) as known",
            self.own("alert_event"),
            self.own("alert_rule_status"),
        );
        let rules = asked.iter().flat_map(|alert| {
            alert.rules.iter().map(|rule| (alert.key.organisation.to_string(), *rule))
        });
        let (owners, rules): (Vec<String>, Vec<Uuid>) = rules.unzip();
        let query = statement(sql).bind(organisations).bind(owners).bind(rules);
        for row in &query.persistent(false).fetch_all(connection).await? {
            let Ok(organisation) = OrganisationId::parse(row.try_get("organisation_id")?) else {
                continue;
            };
            if let Some(rule) = row.try_get::<Option<Uuid>, _>("rule")? {
                loaded.rules.insert((organisation, rule));
            } else {
                let open = usize::try_from(row.try_get::<i64, _>("open")?).unwrap_or(0);
                loaded.open.insert(organisation, open);
            }
        }
        Ok(())
    }

    async fn write_changes(
        &self,
        connection: &mut PgConnection,
        changes: AlertChanges,
    ) -> Result<(), sqlx::Error> {
        let AlertChanges { deleted, ended, open, starts, forgotten } = changes;
        // What goes or ends comes first: an alert is never open twice. With an event its starts go, and
        // come again with the event that it is part of.
        if !deleted.is_empty() {
            let sql = format!("delete from {} where id = any($1)", self.own("alert_event"));
            run(connection, statement(sql).bind(deleted)).await?;
        }
        for rows in [ended, open] {
            if !rows.is_empty() {
                run(connection, self.upsert_events(rows)).await?;
            }
        }
        if !starts.is_empty() {
            run(connection, self.upsert_starts(starts)).await?;
        }
        if !forgotten.is_empty() {
            let sql = format!(
                "delete from {} using unnest($1::text[], $2::text[], $3::float8[]) as gone(organisation, print, at) \
                 where organisation_id = organisation and fingerprint = print and started_at = to_timestamp(at)",
                self.own("alert_event_start")
            );
            let (organisations, fingerprints) = columns(forgotten.iter().map(|(key, _)| key));
            let at: Vec<f64> = forgotten.iter().map(|(_, at)| seconds(*at)).collect();
            run(connection, statement(sql).bind(organisations).bind(fingerprints).bind(at)).await?;
        }
        Ok(())
    }

    fn upsert_events(&self, rows: Vec<AlertEventRow>) -> PgQuery<'static> {
        let sql = format!(
            "insert into {} (id, organisation_id, kind, rule_id, fingerprint, labels, annotations, state, started_at, ended_at, ended_because) \
             select id, organisation, 'alert', rule, print, labels::jsonb, annotations::jsonb, \
                 case when ended is null then 'firing' else 'resolved' end, to_timestamp(started), to_timestamp(ended), because \
             from unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::float8[], $8::float8[], $9::text[]) \
                 as new(id, organisation, print, rule, labels, annotations, started, ended, because) \
             on conflict (id) do update set rule_id = excluded.rule_id, annotations = excluded.annotations, \
                 state = excluded.state, started_at = excluded.started_at, ended_at = excluded.ended_at, \
                 ended_because = excluded.ended_because, updated_at = now()",
            self.own("alert_event")
        );
        let (organisations, fingerprints) = columns(rows.iter().map(|row| &row.key));
        let text = |pairs: &Pairs| serde_json::to_string(pairs).unwrap_or_default();
        let ended = |row: &AlertEventRow| row.ended.map(|(at, _)| seconds(at));
        let because = |row: &AlertEventRow| row.ended.map(|(_, because)| because.name().to_owned());
        statement(sql)
            .bind(rows.iter().map(|row| row.id).collect::<Vec<_>>())
            .bind(organisations)
            .bind(fingerprints)
            .bind(rows.iter().map(|row| row.rule).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| text(&row.labels)).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| text(&row.annotations)).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| seconds(row.started_at)).collect::<Vec<_>>())
            .bind(rows.iter().map(ended).collect::<Vec<_>>())
            .bind(rows.iter().map(because).collect::<Vec<_>>())
    }

    fn upsert_starts(&self, starts: Vec<(AlertKey, Uuid, Millis, AlertStart)>) -> PgQuery<'static> {
        let sql = format!(
            "insert into {} (organisation_id, fingerprint, event_id, started_at, valid_until, firing_seen_at, resolved_at, resolved_seen_at, expired_at) \
             select organisation, print, event, to_timestamp(at), to_timestamp(valid), to_timestamp(firing), \
                 to_timestamp(resolved), to_timestamp(resolved_seen), to_timestamp(expired) \
             from unnest($1::text[], $2::text[], $3::uuid[], $4::float8[], $5::float8[], $6::float8[], $7::float8[], $8::float8[], $9::float8[]) \
                 as new(organisation, print, event, at, valid, firing, resolved, resolved_seen, expired) \
             on conflict (organisation_id, fingerprint, started_at) do update set event_id = excluded.event_id, \
                 valid_until = excluded.valid_until, firing_seen_at = excluded.firing_seen_at, \
                 resolved_at = excluded.resolved_at, resolved_seen_at = excluded.resolved_seen_at, \
                 expired_at = excluded.expired_at",
            self.own("alert_event_start")
        );
        let (organisations, fingerprints) = columns(starts.iter().map(|(key, ..)| key));
        let column = |of: fn(&AlertStart) -> Option<Millis>| -> Vec<Option<f64>> {
            starts.iter().map(|(_, _, _, start)| of(start).map(seconds)).collect()
        };
        statement(sql)
            .bind(organisations)
            .bind(fingerprints)
            .bind(starts.iter().map(|(_, event, ..)| *event).collect::<Vec<_>>())
            .bind(starts.iter().map(|(_, _, at, _)| seconds(*at)).collect::<Vec<_>>())
            .bind(column(|start| start.valid_until))
            .bind(column(|start| start.firing_seen))
            .bind(column(|start| start.resolved_at))
            .bind(column(|start| start.resolved_seen))
            .bind(column(|start| start.expired_at))
    }

    /// Alerts of open events whose time is over by more than `grace`, with the starts that are to be
    /// given up. Only those that would have been reported again by now: a leader that has watched for
    /// less than an alert's own time knows nothing yet. That is `watched_for` seconds, and no more than since the
    /// last gap in which reports of the organisation may not have arrived. Events without a start come with one that
    /// is lost.
    pub async fn overdue_alerts(
        &self,
        grace: Duration,
        watched_for: f64,
        most: OverdueBounds,
    ) -> Result<Overdue, StoreError> {
        let (events, starts) = (self.own("alert_event"), self.own("alert_event_start"));
        let sql = format!(
            "with found as (select event.id from {events} as event left join {starts} as start on start.event_id = event.id \
                 left join {gaps} as gap on gap.organisation_id in ('', event.organisation_id) \
                 where event.state = 'firing' and event.kind = 'alert' group by event.id \
                 having count(start.event_id) = 0 or (max(start.valid_until) < now() - make_interval(secs => $1) \
                 and max(extract(epoch from start.valid_until - start.firing_seen_at))::float8 \
                     < least($2, extract(epoch from now() - max(gap.ended_at))::float8)) \
                 order by event.id limit $3 offset $5), \
             measured as (select event.id, sum(octet_length(event.labels::text) + octet_length(event.annotations::text)) \
                     over (order by event.id rows between unbounded preceding and 1 preceding) as before \
                 from found join {events} as event on event.id = found.id), \
             overdue as (select id from measured where coalesce(before, 0) < $4) \
             select event.id, event.organisation_id, event.fingerprint, {}, {}, start.event_id is null as is_lost \
             from overdue join {events} as event on event.id = overdue.id \
             left join {starts} as start on start.event_id = event.id \
             where start.event_id is null or start.valid_until is not null",
            millis_of("coalesce(start.started_at, event.started_at)", "at"),
            millis_of("coalesce(start.valid_until, now())", "until"),
            gaps = self.own("alert_event_gap"),
        );
        let query = statement(sql).bind(grace.as_secs_f64()).bind(watched_for);
        let bigint = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let query = query.bind(bigint(most.events)).bind(most.bytes).bind(bigint(most.passed_over));
        self.fetch(query, |rows| {
            let read = |row: &PgRow| -> Result<Option<OverdueStart>, sqlx::Error> {
                let Some(key) = read_key(row)? else { return Ok(None) };
                let is_lost = row.try_get("is_lost")?;
                let times = millis(row, "at")?.zip(millis(row, "until")?);
                Ok(times.map(|(at, until)| OverdueStart { key, at, until, is_lost }))
            };
            let ids = rows.iter().map(|row| row.try_get("id"));
            let ids: HashSet<Uuid> = ids.collect::<Result<_, _>>()?;
            let starts = rows.iter().filter_map(|row| read(row).transpose());
            Ok(Overdue { events: ids.len(), starts: starts.collect::<Result<_, _>>()? })
        })
        .await
    }

    /// Deletes some events that ended longer ago than `retention`, or that are more than an organisation
    /// may have: so many with one statement, which has `database.query_timeout`. True if there may be more of them.
    pub async fn purge_alert_events(
        &self,
        retention: Duration,
        most: usize,
        at_once: usize,
    ) -> Result<bool, StoreError> {
        let events = self.own("alert_event");
        let sql = format!(
            "delete from {events} where id in (select id from {events} where state = 'resolved' \
             and ended_at < now() - make_interval(secs => $1) limit {at_once}) returning 1 as one"
        );
        let query = statement(sql).bind(retention.as_secs_f64());
        let old = self.fetch(query, |rows| Ok(rows.len())).await?;
        let sql = format!(
            "delete from {events} where id in (select id from (select id, \
                 row_number() over (partition by organisation_id order by ended_at desc, id) as number \
                 from {events} where state = 'resolved' and organisation_id in \
                     (select organisation_id from {events} where state = 'resolved' \
                      group by organisation_id having count(*) > $1 limit 10)) as ranked \
                 where number > $1 limit {at_once}) returning 1 as one"
        );
        let query = statement(sql).bind(i64::try_from(most).unwrap_or(i64::MAX));
        let many = self.fetch(query, |rows| Ok(rows.len())).await?;
        Ok(old == at_once || many == at_once)
    }

    /// Open events: of alerts, and of silent devices.
    pub async fn open_alert_events(&self) -> Result<(u64, u64), StoreError> {
        let sql = format!(
            "select count(*) filter (where kind = 'alert') as alerts, \
             count(*) filter (where kind = 'device_silent') as devices from {} where state = 'firing'",
            self.own("alert_event")
        );
        self.fetch(statement(sql), |rows| {
            let count = |column: &str| -> Result<u64, sqlx::Error> {
                let count: Option<i64> = rows.first().map(|row| row.try_get(column)).transpose()?;
                Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0))
            };
            Ok((count("alerts")?, count("devices")?))
        })
        .await
    }
}

async fn run(connection: &mut PgConnection, query: PgQuery<'static>) -> Result<(), sqlx::Error> {
    query.persistent(false).execute(connection).await.map(drop)
}

fn columns<'a>(keys: impl Iterator<Item = &'a AlertKey>) -> (Vec<String>, Vec<String>) {
    keys.map(|key| (key.organisation.to_string(), key.fingerprint.clone())).unzip()
}

/// Milliseconds of this era fit exactly, also as seconds that Postgres rounds to microseconds.
#[expect(clippy::cast_precision_loss, reason = "within 2^53")]
fn seconds(at: Millis) -> f64 {
    at as f64 / 1000.0
}

fn millis_of(column: &str, name: &str) -> String {
    format!("round(extract(epoch from {column}) * 1000)::float8 as {name}")
}

fn millis(row: &PgRow, column: &str) -> Result<Option<Millis>, sqlx::Error> {
    let read: Option<f64> = row.try_get(column)?;
    // An infinite time is none of ours.
    #[expect(clippy::cast_possible_truncation, reason = "within 2^53")]
    Ok(read.filter(|read| read.abs() < 9e15).map(|read| read as i64))
}

fn read_key(row: &PgRow) -> Result<Option<AlertKey>, sqlx::Error> {
    let fingerprint: String = row.try_get("fingerprint")?;
    let organisation = OrganisationId::parse(row.try_get("organisation_id")?).ok();
    Ok(organisation.map(|organisation| AlertKey { organisation, fingerprint }))
}

fn read_event(row: &PgRow) -> Result<Option<AlertEventRow>, sqlx::Error> {
    let Some(key) = read_key(row)? else { return Ok(None) };
    let Some(started_at) = millis(row, "event_started_at")? else { return Ok(None) };
    let because: Option<&str> = row.try_get("ended_because")?;
    let pairs = |column: &str| -> Result<Pairs, sqlx::Error> {
        let text: Option<&str> = row.try_get(column)?;
        Ok(text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default())
    };
    Ok(Some(AlertEventRow {
        id: row.try_get("id")?,
        key,
        rule: row.try_get("rule_id")?,
        labels: pairs("labels")?,
        annotations: pairs("annotations")?,
        started_at,
        ended: millis(row, "ended_at")?.zip(because.and_then(EndedBecause::parse)),
    }))
}

/// None if the event has lost it.
fn read_start(row: &PgRow) -> Result<Option<(Millis, AlertStart)>, sqlx::Error> {
    let Some(at) = millis(row, "start_started_at")? else { return Ok(None) };
    let start = AlertStart {
        valid_until: millis(row, "valid_until")?,
        firing_seen: millis(row, "firing_seen_at")?,
        resolved_at: millis(row, "resolved_at")?,
        resolved_seen: millis(row, "resolved_seen_at")?,
        expired_at: millis(row, "expired_at")?,
    };
    Ok(Some((at, start)))
}
