//! All organisations with what belongs to each in numbers, page by page, and the members of one. For
//! people; nothing is decided by it.

use std::collections::BTreeMap;

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::alert_rules::organisation_of;
use super::queries::{Lookup, Queries};
use super::{Store, StoreError, moment, statement};
use crate::tenancy::{OrganisationId, Role, UserId};

/// How many of each there are, by state.
pub type CountsByState = BTreeMap<String, u64>;

/// An organisation in numbers. What is not read from our tables is not counted.
#[derive(Clone, Debug)]
pub struct OrganisationSummary {
    pub organisation: OrganisationId,
    /// What its row calls it; empty if that is not known.
    pub name: String,
    pub rules: Option<CountsByState>,
    pub channels: Option<CountsByState>,
    pub devices: Option<CountsByState>,
    /// When a device was last seen, to within a minute or so.
    pub last_device_use: Option<OffsetDateTime>,
    pub members: Option<u64>,
    /// Whether something is wrong or waits for a confirmation.
    pub has_problem: bool,
}

/// Which organisations are wanted.
#[derive(Clone, Debug, Default)]
pub struct OrganisationsWanted {
    /// A part of the identifier or the name; all if empty.
    pub filter: String,
    /// Only those after this one; from the beginning if empty.
    pub after: String,
    pub with_problems_only: bool,
    pub limit: usize,
}

/// A member, as its row says.
#[derive(Clone, Debug)]
pub struct MemberRow {
    pub user: UserId,
    pub role: Role,
    pub is_default: bool,
    pub since: Option<OffsetDateTime>,
}

impl Store {
    /// A page of the organisations, by identifier, and how many there are on all pages.
    pub async fn organisation_page(
        &self,
        wanted: OrganisationsWanted,
    ) -> Result<(Vec<OrganisationSummary>, u64), StoreError> {
        let parts = self.summary_parts();
        let sql = move |queries: &Queries| parts.sql(queries.of(Lookup::Organisation));
        let limit = i64::try_from(wanted.limit).unwrap_or(i64::MAX);
        let OrganisationsWanted { filter, after, with_problems_only, .. } = wanted;
        self.look_up(
            sql,
            move |query| query.bind(filter).bind(after).bind(limit).bind(with_problems_only),
            |rows| {
                let total = rows.first().map_or(Ok(0), |row| row.try_get::<i64, _>("total"))?;
                let summaries = rows.iter().filter_map(|row| read_summary(row).transpose());
                Ok((summaries.collect::<Result<_, _>>()?, u64::try_from(total).unwrap_or(0)))
            },
        )
        .await
    }

    fn summary_parts(&self) -> SummaryParts {
        let (config, tables) = (&self.0.config, self.0.tables);
        let given = &config.queries;
        let own = |name: &str, is_elsewhere: bool| (!is_elsewhere).then(|| self.own(name));
        SummaryParts {
            names: own("organisation", given.organisation.is_some()),
            members: own("membership", given.membership.is_some()),
            devices: own("device_key", given.device_key.is_some()),
            rules: tables.rules.then(|| Counted {
                rows: own("alert_rule", given.alert_rule.is_some()),
                status: self.own("alert_rule_status"),
                sync: self.own("alert_rule_sync"),
                key: "rule_id",
            }),
            channels: tables.channels.then(|| Counted {
                rows: own("notification_channel", given.notification_channel.is_some()),
                status: self.own("notification_channel_status"),
                sync: self.own("notification_sync"),
                key: "channel_id",
            }),
        }
    }

    /// The members of an organisation, by identifier, after `after`; those whose identifier or role
    /// holds `filter`. An error if a query of the operator's is read in place of our table: it answers
    /// for users and not for organisations.
    pub async fn members_of(
        &self,
        organisation: &OrganisationId,
        filter: String,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<MemberRow>, StoreError> {
        if self.reads_memberships_elsewhere() {
            return Err(StoreError::Elsewhere("membership"));
        }
        let sql = format!(
            "select user_id, role::text as role, is_default, {} from {} as member \
             where organisation_id = $1 and ($2::uuid is null or user_id > $2) \
             and ($3 = '' or position(lower($3) in lower(user_id::text || ' ' || role::text)) > 0) \
             order by user_id limit $4",
            moment::select("created_at"),
            self.own("membership")
        );
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let query = statement(sql)
            .bind(organisation.as_str().to_owned())
            .bind(after)
            .bind(filter)
            .bind(limit);
        self.fetch(query, |rows| {
            let read = |row: &PgRow| {
                Ok(MemberRow {
                    user: UserId(row.try_get("user_id")?),
                    role: Role::new(row.try_get("role")?),
                    is_default: row.try_get::<Option<bool>, _>("is_default")?.unwrap_or(false),
                    since: moment::shown(row.try_get("created_at")?),
                })
            };
            rows.iter().map(read).collect::<Result<_, sqlx::Error>>().map_err(StoreError::from)
        })
        .await
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.execute(statement("select 1".to_owned())).await
    }
}

/// The tables that are counted; none where they are not ours, or not read.
struct SummaryParts {
    names: Option<String>,
    members: Option<String>,
    devices: Option<String>,
    rules: Option<Counted>,
    channels: Option<Counted>,
}

struct Counted {
    /// The rows themselves; none if they are not in a table of ours.
    rows: Option<String>,
    status: String,
    sync: String,
    /// The column of the status that names the row.
    key: &'static str,
}

impl Counted {
    fn by_state(&self) -> String {
        let Self { status, key, .. } = self;
        // A row that was not looked at yet has no status.
        let from = match &self.rows {
            None => {
                format!("{status} as status where status.organisation_id = page.organisation_id")
            }
            Some(rows) => format!(
                "{rows} as one left join {status} as status on status.{key} = one.id \
                 where one.organisation_id = page.organisation_id"
            ),
        };
        format!(
            "(select coalesce(json_object_agg(state, number), '{{}}')::text from \
             (select coalesce(status.state, 'pending') as state, count(*) as number from {from} \
             group by 1) as counted)"
        )
    }

    /// The organisations with a problem, or a deletion that waits.
    fn troubled(&self, more: &str) -> String {
        format!(
            "select organisation_id::text from {} where problem <> '' or guard_id is not null{more}",
            self.sync
        )
    }
}

impl SummaryParts {
    fn sql(&self, organisations: &str) -> String {
        // Ours has each once, with a name. A query of the operator's may be of memberships.
        let known = match &self.names {
            Some(table) => format!("select id::text as organisation_id, name from {table}"),
            None => format!(
                "select distinct organisation_id::text as organisation_id, ''::text as name \
                 from ({organisations}) as given where organisation_id is not null"
            ),
        };
        let devices = self.devices.as_ref().map(|table| {
            format!(
                "(select json_build_object(\
                 'active', count(*) filter (where revoked_at is null and not is_over), \
                 'expired', count(*) filter (where revoked_at is null and is_over), \
                 'revoked', count(*) filter (where revoked_at is not null))::text \
                 from (select revoked_at, coalesce(expires_at + make_interval(secs => grace_seconds) < now(), false) as is_over \
                 from {table} where organisation_id = page.organisation_id) as key)"
            )
        });
        let used = self.devices.as_ref().map(|table| {
            format!(
                "(select extract(epoch from max(last_used_at))::float8 from {table} \
                 where organisation_id = page.organisation_id)"
            )
        });
        let members = self.members.as_ref().map(|table| {
            format!("(select count(*) from {table} where organisation_id = page.organisation_id)")
        });
        let rules = self.rules.as_ref();
        let troubled = [
            rules.map(|rules| rules.troubled(" or failing + not_live > 0")),
            self.channels.as_ref().map(|channels| channels.troubled("")),
        ];
        let troubled: Vec<String> = troubled.into_iter().flatten().collect();
        let troubled = if troubled.is_empty() {
            "select null::text as organisation_id where false".to_owned()
        } else {
            troubled.join(" union ")
        };
        let counts = |counted: &Option<Counted>| {
            counted.as_ref().map_or("null::text".to_owned(), Counted::by_state)
        };
        let text = |part: Option<String>| part.unwrap_or("null::text".to_owned());
        format!(
            "with known as ({known}), \
             troubled as materialized ({troubled}), \
             wanted as materialized (select organisation_id, coalesce(name, '') as name from known \
             where ($1 = '' or position(lower($1) in lower(organisation_id || ' ' || coalesce(name, ''))) > 0) \
             and (not $4 or organisation_id in (select organisation_id from troubled))), \
             page as (select * from wanted where organisation_id collate \"C\" > $2 \
             order by organisation_id collate \"C\" limit $3) \
             select page.*, page.organisation_id in (select organisation_id from troubled) as has_problem, \
             (select count(*) from wanted) as total, {} as rules, {} as channels, \
             {} as devices, {} as last_used, {} as members \
             from page order by organisation_id collate \"C\"",
            counts(&self.rules),
            counts(&self.channels),
            text(devices),
            used.unwrap_or("null::float8".to_owned()),
            members.unwrap_or("null::bigint".to_owned()),
        )
    }
}

/// None for an identifier that no tenant can have.
fn read_summary(row: &PgRow) -> Result<Option<OrganisationSummary>, StoreError> {
    let Some(organisation) = organisation_of(row) else { return Ok(None) };
    let counts = |column: &str| {
        let text: Option<String> = row.try_get(column)?;
        Ok::<_, StoreError>(text.map(|text| serde_json::from_str(&text).unwrap_or_default()))
    };
    let members: Option<i64> = row.try_get("members")?;
    Ok(Some(OrganisationSummary {
        organisation,
        name: row.try_get("name")?,
        rules: counts("rules")?,
        channels: counts("channels")?,
        devices: counts("devices")?,
        last_device_use: moment::shown(row.try_get("last_used")?),
        members: members.and_then(|members| u64::try_from(members).ok()),
        has_problem: row.try_get("has_problem")?,
    }))
}
