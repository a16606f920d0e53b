//! Notification channels and routes as organisations wrote them.
//!
//! What is read here decides what is taken out of Mimir, so a reading is whole or it fails: one
//! statement sees organisations, channels with their secrets, routes and tombstones at one moment, and
//! every value comes as a text, so that none can make its row fail.

use std::collections::{HashMap, HashSet};

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

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
    /// Channels that were deleted, and when (Postgres' own text).
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

impl Store {
    /// The channels and routes of some organisations.
    pub async fn notification_channels_of(
        &self,
        organisations: Vec<OrganisationId>,
    ) -> Result<NotificationSnapshot, StoreError> {
        let names = spellings(&organisations);
        let tombstones = self.own("notification_tombstone");
        // One statement sees one moment.
        let sql = move |queries: &Queries| snapshot(queries, &tombstones);
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
    pub async fn forget_notification_tombstones(
        &self,
        organisation: OrganisationId,
        channels: Tombstones,
        routes: Tombstones,
    ) -> Result<(), StoreError> {
        let sql = format!(
            "delete from {} as tombstone using unnest($2::text[], $3::uuid[], $4::text[]) as done(kind, id, at) \
             where organisation_id = $1 and tombstone.kind = done.kind and tombstone.id = done.id \
             and deleted_at <= at::timestamptz",
            self.own("notification_tombstone")
        );
        let channels = channels.into_iter().map(|(id, at)| ("channel", id, at));
        let routes = routes.into_iter().map(|(id, at)| ("route", id, at));
        let (mut kinds, mut ids, mut times) = (Vec::new(), Vec::new(), Vec::new());
        for (kind, id, at) in channels.chain(routes) {
            kinds.push(kind.to_owned());
            ids.push(id);
            times.push(at);
        }
        let query = statement(sql).bind(organisation.to_string());
        self.execute(query.bind(kinds).bind(ids).bind(times)).await
    }
}

/// Organisations, their channels, routes and tombstones. Of the rows nothing is so large that it harms:
/// what is too much comes without its texts, youngest first. A row's texts come as one array, because a
/// union has the same columns throughout.
fn snapshot(queries: &Queries, tombstone: &str) -> String {
    let organisation = queries.of(Lookup::Organisation);
    let channels = bounded(
        queries.of(Lookup::NotificationChannel),
        &CHANNEL_TEXTS,
        MOST_CHANNEL_BYTES,
        MOST_CHANNELS,
    );
    let routes =
        bounded(queries.of(Lookup::NotificationRoute), &ROUTE_TEXTS, MOST_ROUTE_BYTES, MOST_ROUTES);
    format!(
        "select 'channel' as what, * from ({channels}) as channels \
         union all select 'route', * from ({routes}) as routes \
         union all select 'organisation', null, organisation_id, null, 0, null \
             from ({organisation}) as known where organisation_id = any($1) \
         union all select kind || ' tombstone', id::text, organisation_id, null, 0, array[deleted_at::text] \
             from {tombstone} where organisation_id = any($1)"
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
