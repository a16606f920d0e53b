//! Notification channels and routes as organisations wrote them.
//!
//! What is read here decides what is taken out of Mimir, so a reading is whole or it fails: one
//! statement sees organisations, channels with their secrets, routes and tombstones at one moment, and
//! every value comes as a text, so that none can make its row fail.

use std::collections::{HashMap, HashSet};

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::alert_rule_sync::MOST_DELETED;
use super::alert_rules::{Excess, Tombstones, excess_of, organisation_of};
use super::organisations::spellings;
use super::queries::{CHANNEL_TEXTS, Lookup, Queries, ROUTE_TEXTS, measure_of};
use super::{Store, StoreError, statement};
use crate::config::Secret;
use crate::tenancy::OrganisationId;

/// A row of `notification_channel`. What it means is for `channels` to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelRow {
    pub id: Uuid,
    pub organisation: OrganisationId,
    pub name: Option<String>,
    /// `webhook`, `email` and so on.
    pub kind: Option<String>,
    /// JSON.
    pub settings: Option<String>,
    /// JSON, with the secrets themselves. A mask stands where the row has one and no secret is stored.
    pub secrets: Option<Secret>,
    /// Whether it counts; yes if it does not say.
    pub enabled: Option<String>,
    /// Whether it gets what no route sends anywhere; no if it does not say.
    pub is_default: Option<String>,
    /// When it was made, in microseconds since the epoch.
    pub created_at_micros: Option<i64>,
    /// Whether it was too large to be read; then there are no texts.
    pub excess: Excess,
}

/// A row of `notification_route`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteRow {
    pub id: Uuid,
    pub organisation: OrganisationId,
    /// A UUID, if it is right.
    pub channel: Option<String>,
    /// A whole number, if it is right.
    pub position: Option<String>,
    /// JSON.
    pub matchers: Option<String>,
    /// JSON.
    pub group_by: Option<String>,
    /// A duration, as Prometheus writes it.
    pub group_wait: Option<String>,
    /// A duration, as Prometheus writes it.
    pub group_interval: Option<String>,
    /// A duration, as Prometheus writes it.
    pub repeat_interval: Option<String>,
    /// JSON.
    pub mute_times: Option<String>,
    /// Whether later routes are tried, too; no if it does not say.
    pub continue_matching: Option<String>,
    /// Whether it counts; yes if it does not say.
    pub enabled: Option<String>,
    /// When it was made, in microseconds since the epoch.
    pub created_at_micros: Option<i64>,
    /// Whether it was too large to be read; then there are no texts.
    pub excess: Excess,
}

/// Everything of one organisation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotificationRows {
    pub channels: Vec<ChannelRow>,
    pub routes: Vec<RouteRow>,
    /// Channels that were deleted, and when (Postgres' own text). There may be more of them, and of routes, which are
    /// read when these are carried out.
    pub channel_tombstones: Tombstones,
    pub route_tombstones: Tombstones,
}

/// Some organisations, their channels and routes, at one moment.
#[derive(Clone, Debug, Default)]
pub struct NotificationSnapshot {
    /// Those of the organisations asked for that exist.
    pub existing: HashSet<OrganisationId>,
    /// Their rows; an organisation without any is not here.
    pub rows: HashMap<OrganisationId, NotificationRows>,
}

/// The texts of one channel.
pub const MOST_CHANNEL_BYTES: usize = 64 << 10;
/// The texts of one route.
pub const MOST_ROUTE_BYTES: usize = 64 << 10;
/// The texts of all channels of an organisation, and of all its routes.
pub const MOST_NOTIFICATION_BYTES: usize = 2 << 20;
/// Channels of an organisation that are read. Our table takes no more.
pub const MOST_CHANNELS: usize = 1000;
/// Routes of an organisation that are read. Our table takes no more.
pub const MOST_ROUTES: usize = 2000;
/// Tombstones of an organisation that are read at once. Its members can make any number of them, and those of one
/// must not take memory and time from the others. All its rows can be replaced twice before that shows.
const MOST_TOMBSTONES: usize = 2 * (MOST_CHANNELS + MOST_ROUTES);

impl Store {
    /// The channels and routes of some organisations.
    pub async fn notification_channels_of(
        &self,
        organisations: Vec<OrganisationId>,
    ) -> Result<NotificationSnapshot, StoreError> {
        let names = spellings(&organisations);
        let tombstones = self.own("notification_tombstone");
        let statuses = ["notification_channel_status", "notification_route_status"];
        let statuses = statuses.map(|table| self.own(table));
        // One statement sees one moment.
        let sql = move |queries: &Queries| snapshot(queries, &tombstones, &statuses);
        self.look_up(
            sql,
            |query| query.bind(names),
            |rows| {
                let mut snapshot = NotificationSnapshot::default();
                for row in &rows {
                    if let Err(problem) = snapshot.add(row) {
                        tracing::warn!(problem, "Invalid notification row skipped");
                    }
                }
                Ok(snapshot)
            },
        )
        .await
    }

    /// Tells every copy that an organisation's channels may have changed; anybody's if none is named.
    pub async fn announce_notification_channels(
        &self,
        organisation: Option<OrganisationId>,
    ) -> Result<(), StoreError> {
        let payload = match organisation {
            Some(organisation) => format!("notification_channel {organisation}"),
            None => "notification_channel".to_owned(),
        };
        let query = sqlx::query("select pg_notify($1, $2)").bind(super::feed::CHANNEL);
        self.execute(query.bind(payload)).await
    }

    /// Deletes tombstones that were carried out, unless the rows were deleted again since.
    ///
    /// They are carried out when Mimir has the document that the rows ask for. So are those, then, that were there and
    /// were not read because they are too many. Which ones were there is not known, only when they were made: that is
    /// when their transaction began, and it may have ended after the reading. No transaction takes a day. If one did,
    /// what it has deleted would be held, and not lost.
    ///
    /// Old tombstones of rules are also deleted without such an end, if no status says that Mimir has the rule. Here
    /// nothing is: a status has the state of the row, and what it says is `invalid` or `error` may be in the document.
    /// So every status would have to keep its tombstone, and until it is done all rows that were ever read have one.
    pub async fn forget_notification_tombstones(
        &self,
        organisation: OrganisationId,
        channels: Tombstones,
        routes: Tombstones,
    ) -> Result<(), StoreError> {
        let sql = format!(
            "delete from {} as tombstone using unnest($2::text[], $3::uuid[], $4::text[]) as done(kind, id, at) \
             where organisation_id = any($1) and tombstone.kind = done.kind and tombstone.id = done.id \
             and deleted_at <= at::timestamptz",
            self.own("notification_tombstone")
        );
        let names = spellings(std::slice::from_ref(&organisation));
        let channels = channels.into_iter().map(|(id, at)| ("channel", id, at));
        let routes = routes.into_iter().map(|(id, at)| ("route", id, at));
        let carried_out: Vec<(&str, Uuid, String)> = channels.chain(routes).collect();
        for batch in carried_out.chunks(MOST_DELETED) {
            let kinds: Vec<String> = batch.iter().map(|(kind, ..)| (*kind).to_owned()).collect();
            let ids: Vec<Uuid> = batch.iter().map(|(_, id, _)| *id).collect();
            let times: Vec<String> = batch.iter().map(|(.., at)| at.clone()).collect();
            let query = statement(sql.clone()).bind(names.clone());
            self.execute(query.bind(kinds).bind(ids).bind(times)).await?;
        }
        if carried_out.len() < MOST_TOMBSTONES {
            return Ok(());
        }
        let old = "deleted_at < now() - interval '1 day'";
        self.delete_in_parts("notification_tombstone", &organisation, old).await
    }
}

/// Organisations, their channels, routes and tombstones. Of the rows nothing is so large that it harms:
/// what is too much comes without its texts, youngest first. A row's texts come as one array, because a
/// union has the same columns throughout.
///
/// A deletion whose tombstone is not read looks like a lost row, which is held. What is held is never done, and the
/// tombstones of what is not done stay, so that the same ones would be read for ever. So those of rows that have a
/// status are read in any case, live ones first: until it is done, the status of what Mimir has stays. The others
/// explain nothing, and are read in the order of the index, as those of rules are.
fn snapshot(
    queries: &Queries,
    tombstone: &str,
    [channel_status, route_status]: &[String; 2],
) -> String {
    let organisation = queries.of(Lookup::Organisation);
    let channels = bounded(
        queries.of(Lookup::NotificationChannel),
        &CHANNEL_TEXTS,
        MOST_CHANNEL_BYTES,
        MOST_CHANNELS,
    );
    let routes =
        bounded(queries.of(Lookup::NotificationRoute), &ROUTE_TEXTS, MOST_ROUTE_BYTES, MOST_ROUTES);
    // As arrays, so that Postgres expects few of them and looks each one up.
    let crowded = format!(
        "array(select organisation_id from first_tombstones group by organisation_id having count(*) >= {MOST_TOMBSTONES})"
    );
    let known = |kind: &str, status: &str, id: &str| {
        format!(
            "select '{kind} tombstone', grave.id::text, grave.organisation_id, null, 0, array[grave.deleted_at::text] \
                 from unnest({crowded}) as crowded (name) \
                 cross join lateral unnest(array(select {id} from {status} \
                     where organisation_id = any(array[crowded.name, lower(crowded.name)]) \
                     order by state = 'live' desc limit {MOST_TOMBSTONES})) as known (id) \
                 join {tombstone} as grave on grave.organisation_id = crowded.name \
                     and grave.kind = '{kind}' and grave.id = known.id"
        )
    };
    format!(
        "with first_tombstones as (select graves.* from unnest($1::text[]) as asked (name) cross join lateral \
             (select kind, id, organisation_id, deleted_at from {tombstone} where organisation_id = asked.name \
              order by kind, id limit {MOST_TOMBSTONES}) as graves) \
         select 'channel' as what, * from ({channels}) as channels \
         union all select 'route', * from ({routes}) as routes \
         union all select 'organisation', null, organisation_id, null, 0, null \
             from ({organisation}) as known where organisation_id = any($1) \
         union all select kind || ' tombstone', id::text, organisation_id, null, 0, array[deleted_at::text] \
             from first_tombstones \
         union all {} union all {}",
        known("channel", channel_status, "channel_id"),
        known("route", route_status, "route_id")
    )
}

/// The rows of a query with their texts, if they are not too large. What is too large is never made a text,
/// and is not in memory while rows are sorted and summed: it may be hundreds of megabytes. `offset 0` keeps
/// Postgres from measuring twice.
fn bounded(query: &str, texts: &[&str], most_bytes: usize, most_rows: usize) -> String {
    let of_each = |of: fn(&str) -> String, with: &str| {
        texts.iter().map(|text| of(text)).collect::<Vec<_>>().join(with)
    };
    let sizes = of_each(measure_of, " + ");
    let made = of_each(|text| format!("{text}::text"), ", ");
    let texts = texts.join(", ");
    format!(
        "with sized as (select id, organisation_id, created_at, {texts}, {sizes} as bytes \
             from ({query}) as measured offset 0), \
         summed as (select *, row_number() over w as number, \
             sum(case when bytes > {most_bytes} then 0 else bytes end) over w as total from sized \
             window w as (partition by organisation_id order by created_at nulls first, id)), \
         judged as (select *, case when bytes > {most_bytes} then 1 \
             when total > {MOST_NOTIFICATION_BYTES} or number > {most_rows} then 2 else 0 end as excess \
             from summed) \
         select id, organisation_id, created_at, excess, \
             case when excess = 0 then array[{made}] end as texts from judged"
    )
}

impl NotificationSnapshot {
    fn add(&mut self, row: &PgRow) -> Result<(), String> {
        let wrong = |error: sqlx::Error| error.to_string();
        let what: &str = row.try_get("what").map_err(wrong)?;
        if what == "organisation" {
            self.existing.extend(organisation_of(row));
            return Ok(());
        }
        let id: Option<&str> = row.try_get("id").map_err(wrong)?;
        let id = id.unwrap_or_default();
        let id = Uuid::try_parse(id).map_err(|_| format!("its id is not a UUID: {id:?}"))?;
        let organisation = organisation_of(row)
            .ok_or_else(|| format!("{what} {id}: no tenant can have its organisation"))?;
        let texts: Option<Vec<Option<String>>> = row.try_get("texts").map_err(wrong)?;
        let mut texts = texts.unwrap_or_default().into_iter();
        let mut next = || texts.next().flatten();
        let created: Option<f64> = row.try_get("created_at").map_err(wrong)?;
        #[expect(clippy::cast_possible_truncation, reason = "saturates, which keeps the order")]
        let created_at_micros = created.map(|seconds| (seconds * 1e6) as i64);
        let excess = excess_of(row)?;
        let rows = self.rows.entry(organisation.clone()).or_default();
        match what {
            // In the order of the columns' names above.
            "channel" => rows.channels.push(ChannelRow {
                id,
                organisation,
                name: next(),
                kind: next(),
                settings: next(),
                secrets: next().map(|text| Secret::new(&text)),
                enabled: next(),
                is_default: next(),
                created_at_micros,
                excess,
            }),
            "route" => rows.routes.push(RouteRow {
                id,
                organisation,
                channel: next(),
                position: next(),
                matchers: next(),
                group_by: next(),
                group_wait: next(),
                group_interval: next(),
                repeat_interval: next(),
                mute_times: next(),
                continue_matching: next(),
                enabled: next(),
                created_at_micros,
                excess,
            }),
            "channel tombstone" => {
                rows.channel_tombstones.insert(id, next().unwrap_or_default());
            }
            "route tombstone" => {
                rows.route_tombstones.insert(id, next().unwrap_or_default());
            }
            other => return Err(format!("unknown kind of row: {other:?}")),
        }
        Ok(())
    }
}
