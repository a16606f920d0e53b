//! The look-ups: our own or the operator's, and the check at start that they give what is needed.
//!
//! Each stands inside one of ours (`select … from (query) as given`), which casts its columns to
//! the types that are read: an organisation may be a UUID or a text, a role an enum, a time
//! infinite. Columns that may be of any length come as they are, each with its size beside it.
//!
//! A value that cannot be cast fails its whole query. Who asks by keys asks again with fewer of them
//! (`directory`, `rules`); revocations, which are read whole, are then read as texts.

use sqlx::{
    AssertSqlSafe, Column as _, Executor as _, PgConnection, Row as _, SqlSafeStr as _,
    Statement as _, TypeInfo as _,
};

use uuid::Uuid;

use super::alert_rule_versions::{IS_PLAIN_TABLE, rule_versions};
use super::auth_tables::{self, Clients};
use super::bans::Bans;
use super::{StoreError, is_data_exception, moment};
use crate::config::{DatabaseConfig, QueriesConfig, TablesRead};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    Membership,
    DeviceKey,
    Revocation,
    Session,
    Organisation,
    AlertRule,
    NotificationChannel,
    NotificationRoute,
    OrganisationLimit,
}

/// The look-ups as they are sent.
#[derive(Default)]
pub(super) struct Queries {
    /// In the order of [`Lookup`].
    all: [String; LOOKUPS.len()],
    revocations_as_texts: String,
    bans: Bans,
    /// Why OAuth clients that sessions have are not seen, and what to do.
    unseen_clients: Option<String>,
    /// None if rules have no versions.
    rule_versions: Option<String>,
}

impl Queries {
    pub(super) fn of(&self, lookup: Lookup) -> &str {
        let sessions = self.bans.instead().filter(|_| lookup == Lookup::Session);
        sessions.unwrap_or(&self.all[lookup as usize])
    }

    /// Whether banned users' sessions are looked up.
    pub(super) fn bans(&self) -> &Bans {
        &self.bans
    }

    pub(super) fn unseen_clients(&self) -> Option<&str> {
        self.unseen_clients.as_deref()
    }

    /// The revocations with all columns as texts.
    pub(super) fn revocations_as_texts(&self) -> &str {
        &self.revocations_as_texts
    }

    /// The versions of rules and statuses; none if the rules are not in a table of ours.
    pub(super) fn rule_versions(&self) -> Option<&str> {
        self.rule_versions.as_deref()
    }
}

/// Columns of rules, channels and routes that may be of any length.
pub(super) const RULE_TEXTS: [&str; 8] = [
    "name",
    "expr",
    "for_duration",
    "keep_firing_for",
    "rule_group",
    "evaluation_interval",
    "labels",
    "annotations",
];
pub(super) const CHANNEL_TEXTS: [&str; 6] =
    ["name", "kind", "settings", "secrets", "enabled", "is_default"];
pub(super) const ROUTE_TEXTS: [&str; 10] = [
    "channel_id",
    "position",
    "matchers",
    "group_by",
    "group_wait",
    "group_interval",
    "repeat_interval",
    "mute_times",
    "continue_matching",
    "enabled",
];

/// The column with the size of such a column: bytes, 0 for null.
pub(super) fn measure_of(column: &str) -> String {
    format!("{column}_bytes")
}

/// One look-up: how it is configured, what it must give and may give, and our own query for it.
struct Wanted {
    lookup: Lookup,
    /// The configuration's key is this and `_query`.
    name: &'static str,
    columns: &'static [(&'static str, &'static str)],
    optional: &'static [(&'static str, &'static str, &'static str)],
    /// Those of any length: they come uncast, each with its size beside it ([`measure_of`]).
    measured: &'static [&'static str],
    parameter: Option<Parameter>,
    own: Own,
}

/// The query on our own table, or on Supabase's.
enum Own {
    /// These columns of the table of the same name, where this condition holds.
    Table(&'static str, &'static str),
    /// What [`auth_tables`] makes.
    Sessions,
    /// Of these tables of ours, in this schema.
    Join(&'static [&'static str], fn(&str) -> String),
}

/// What a look-up is asked with.
enum Parameter {
    Uuids,
    Hashes,
    Texts,
}

/// In the order of [`Lookup`], which a test compares.
const LOOKUPS: [Wanted; 9] = [
    Wanted {
        lookup: Lookup::Membership,
        name: "membership",
        columns: &[("user_id", "uuid"), ("organisation_id", "text"), ("role", "text")],
        optional: &[("is_default", "boolean", "false")],
        measured: &[],
        parameter: Some(Parameter::Uuids),
        own: Own::Table("user_id, organisation_id, role, is_default", "where user_id = any($1)"),
    },
    Wanted {
        lookup: Lookup::DeviceKey,
        name: "device_key",
        columns: &[
            ("key_hash", "bytea"),
            ("id", "uuid"),
            ("organisation_id", "text"),
            ("name", "text"),
            ("scopes", "text[]"),
            ("expires_at", "timestamptz"),
            ("grace_seconds", "integer"),
            ("revoked_at", "timestamptz"),
        ],
        optional: &[],
        measured: &[],
        parameter: Some(Parameter::Hashes),
        own: Own::Table(
            "key_hash, id, organisation_id, name, scopes, expires_at, grace_seconds, revoked_at",
            "where key_hash = any($1)",
        ),
    },
    Wanted {
        lookup: Lookup::Revocation,
        name: "revocation",
        columns: &[("kind", "text"), ("value", "text"), ("issued_before", "timestamptz")],
        optional: &[],
        measured: &[],
        parameter: None,
        own: Own::Table(
            "kind, value, issued_before",
            "where expires_at is null or expires_at > now()",
        ),
    },
    Wanted {
        lookup: Lookup::Session,
        name: "session",
        columns: &[("id", "uuid")],
        optional: &[("oauth_client_id", "text", "null")],
        measured: &[],
        parameter: Some(Parameter::Uuids),
        own: Own::Sessions,
    },
    Wanted {
        lookup: Lookup::Organisation,
        name: "organisation",
        columns: &[("organisation_id", "text")],
        optional: &[("device_silent_after", "text", "null")],
        measured: &[],
        parameter: None,
        // As JSON: a table from before the column was added has it not.
        own: Own::Table(
            "id as organisation_id, to_jsonb(organisation) ->> 'device_silent_after' as device_silent_after",
            "",
        ),
    },
    // All texts: a value that cannot be read must not take its row with it, because a rule that is
    // not read is a rule that would be deleted.
    Wanted {
        lookup: Lookup::AlertRule,
        name: "alert_rule",
        columns: &[("id", "text"), ("organisation_id", "text"), ("name", "text"), ("expr", "text")],
        optional: &[
            ("for_duration", "text", "null"),
            ("keep_firing_for", "text", "null"),
            ("rule_group", "text", "null"),
            ("evaluation_interval", "text", "null"),
            ("labels", "text", "null"),
            ("annotations", "text", "null"),
            ("enabled", "text", "null"),
            ("created_at", "timestamptz", "null"),
        ],
        measured: &RULE_TEXTS,
        parameter: Some(Parameter::Texts),
        own: Own::Table(
            "id, organisation_id, name, expr, for_duration, keep_firing_for, rule_group, \
             evaluation_interval, labels, annotations, enabled, created_at",
            "where organisation_id = any($1)",
        ),
    },
    // All texts here, too, for the same reason.
    Wanted {
        lookup: Lookup::NotificationChannel,
        name: "notification_channel",
        columns: &[
            ("id", "text"),
            ("organisation_id", "text"),
            ("kind", "text"),
            ("settings", "text"),
            ("secrets", "text"),
        ],
        optional: &[
            ("name", "text", "null"),
            ("enabled", "text", "null"),
            ("is_default", "text", "null"),
            ("created_at", "timestamptz", "null"),
        ],
        measured: &CHANNEL_TEXTS,
        parameter: Some(Parameter::Texts),
        own: Own::Join(&["notification_channel", "notification_channel_secret"], own_channels),
    },
    Wanted {
        lookup: Lookup::NotificationRoute,
        name: "notification_route",
        columns: &[
            ("id", "text"),
            ("organisation_id", "text"),
            ("channel_id", "text"),
            ("matchers", "text"),
        ],
        optional: &[
            ("position", "text", "null"),
            ("group_by", "text", "null"),
            ("group_wait", "text", "null"),
            ("group_interval", "text", "null"),
            ("repeat_interval", "text", "null"),
            ("mute_times", "text", "null"),
            ("continue_matching", "text", "null"),
            ("enabled", "text", "null"),
            ("created_at", "timestamptz", "null"),
        ],
        measured: &ROUTE_TEXTS,
        parameter: Some(Parameter::Texts),
        own: Own::Table(
            "id, organisation_id, channel_id, position, matchers, group_by, group_wait, \
             group_interval, repeat_interval, mute_times, continue_matching, enabled, created_at",
            "where organisation_id = any($1)",
        ),
    },
    // All texts, too: a value that cannot be read must not take the other limits with it.
    Wanted {
        lookup: Lookup::OrganisationLimit,
        name: "organisation_limit",
        columns: &[("organisation_id", "text"), ("name", "text"), ("value", "text")],
        optional: &[],
        measured: &[],
        parameter: None,
        own: Own::Table("organisation_id, name, value", ""),
    },
];

/// Channels with their secrets, which stand in a table of their own. A mask of the row whose secret is not
/// stored stays: so a secret that is lost is told from one that was never there.
fn own_channels(schema: &str) -> String {
    format!(
        "select id, channel.organisation_id, name, kind, settings, \
         case when mask.secrets is null or jsonb_typeof(secret.secrets) <> 'object' then secret.secrets \
             else mask.secrets || coalesce(secret.secrets, '{{}}') end as secrets, \
         enabled, is_default, channel.created_at from {} as channel \
         left join {} as secret on secret.channel_id = channel.id \
         left join lateral (select jsonb_object_agg(key, value) as secrets from jsonb_each( \
             case when jsonb_typeof(channel.secrets) = 'object' then channel.secrets end) \
             where value = '\"<secret>\"') as mask on true \
         where channel.organisation_id = any($1)",
        table(schema, "notification_channel"),
        table(schema, "notification_channel_secret")
    )
}

impl Lookup {
    /// The operator's query in its place.
    fn given(self, given: &QueriesConfig) -> Option<&String> {
        match self {
            Self::Membership => given.membership.as_ref(),
            Self::DeviceKey => given.device_key.as_ref(),
            Self::Revocation => given.revocation.as_ref(),
            Self::Session => given.session.as_ref(),
            Self::Organisation => given.organisation.as_ref(),
            Self::AlertRule => given.alert_rule.as_ref(),
            Self::NotificationChannel => given.notification_channel.as_ref(),
            Self::NotificationRoute => given.notification_route.as_ref(),
            Self::OrganisationLimit => given.organisation_limit.as_ref(),
        }
    }

    fn is_read(self, tables: TablesRead) -> bool {
        match self {
            Self::Membership | Self::DeviceKey | Self::Revocation => true,
            Self::Session => tables.sessions,
            Self::Organisation => tables.organisations || tables.rules || tables.channels,
            Self::AlertRule => tables.rules,
            Self::NotificationChannel | Self::NotificationRoute => tables.channels,
            Self::OrganisationLimit => tables.limits,
        }
    }
}

/// A table of ours. The schema is a plain identifier by its configuration.
pub(super) fn table(schema: &str, name: &str) -> String {
    format!("\"{schema}\".{name}")
}

/// Sees that every look-up that is needed gives its columns, and that row-level security does not
/// hide rows from us: then every member would be unknown, and every sender's data lost.
pub(super) async fn check(
    connection: &mut PgConnection,
    config: &DatabaseConfig,
    tables: TablesRead,
) -> Result<Queries, StoreError> {
    let mut queries = Queries::default();
    for (at, wanted) in LOOKUPS.iter().enumerate() {
        let is_read = wanted.lookup.is_read(tables);
        let query = match (wanted.lookup.given(&config.queries), &wanted.own) {
            (Some(given), _) => given.clone(),
            (None, Own::Sessions) => auth_tables::sessions(false),
            (None, Own::Table(columns, condition)) => {
                if is_read {
                    check_visible(connection, config, wanted.name).await?;
                }
                let table = table(&config.schema, wanted.name);
                format!("select {columns} from {table} {condition}")
            }
            (None, Own::Join(names, query)) => {
                for name in names.iter().filter(|_| is_read) {
                    check_visible(connection, config, name).await?;
                }
                query(&config.schema)
            }
        };
        if wanted.lookup == Lookup::Revocation {
            queries.revocations_as_texts = as_texts(wanted, &query);
        }
        queries.all[at] = if !is_read {
            query
        } else if wanted.lookup == Lookup::Session && config.queries.session.is_none() {
            // First: if this is refused, that is what is wrong, and not bans.
            auth_tables::check_sessions(connection).await?;
            let clients = Clients::find(connection).await?;
            let with_client = matches!(clients, Clients::Seen);
            if let Clients::Unseen(why) = clients {
                queries.unseen_clients = Some(why);
            }
            let all = wrap(connection, wanted, &auth_tables::sessions(with_client)).await?;
            let unless_banned = auth_tables::sessions_unless_banned(with_client);
            queries.bans = Bans::find(connection, all.clone(), unless_banned.clone()).await?;
            if queries.bans.are_read() {
                wrap(connection, wanted, &unless_banned).await?
            } else {
                all
            }
        } else {
            wrap(connection, wanted, &query).await?
        };
    }
    if tables.rules {
        check_visible(connection, config, "alert_rule_status").await?;
    }
    if tables.channels {
        check_visible(connection, config, "notification_channel_status").await?;
    }
    if tables.events {
        check_visible(connection, config, "alert_event").await?;
    }
    if tables.rules && Lookup::AlertRule.given(&config.queries).is_none() {
        queries.rule_versions = check_rule_versions(connection, config, &queries).await?;
    }
    Ok(queries)
}

/// The statement for the versions of rules, if `alert_rule` is a plain table and our rights are for all of it.
/// Run once with an empty list.
async fn check_rule_versions(
    connection: &mut PgConnection,
    config: &DatabaseConfig,
    queries: &Queries,
) -> Result<Option<String>, StoreError> {
    let [rule, status, tombstone] = ["alert_rule", "alert_rule_status", "alert_rule_tombstone"]
        .map(|name| table(&config.schema, name));
    let asked = sqlx::query(IS_PLAIN_TABLE).bind(&rule).persistent(false);
    let is_plain: bool = asked.fetch_one(&mut *connection).await?.try_get("is_plain")?;
    let sql = rule_versions(queries, &rule, &status, &tombstone);
    let problem = if is_plain {
        let asked = sqlx::query(AssertSqlSafe(sql.clone())).bind(Vec::<String>::new());
        match asked.persistent(false).fetch_all(connection).await {
            Ok(_) => return Ok(Some(sql)),
            Err(sqlx::Error::Database(error)) if !is_passing(error.code().as_deref()) => {
                error.message().to_owned()
            }
            Err(error) => return Err(error.into()),
        }
    } else {
        format!("{rule} is not a plain table")
    };
    // Nothing is wrong: it takes longer.
    tracing::info!(
        reason = problem,
        "No row versions of alert rules; every full resync reads all rules"
    );
    Ok(None)
}

async fn check_visible(
    connection: &mut PgConnection,
    config: &DatabaseConfig,
    name: &str,
) -> Result<(), StoreError> {
    let query = "select to_regclass($1) is not null as is_there, \
                 coalesce(row_security_active(to_regclass($1)), false) as is_hidden, current_user::text as us";
    let table = table(&config.schema, name);
    let row = sqlx::query(query).bind(&table).persistent(false).fetch_one(connection).await?;
    if !row.try_get::<bool, _>("is_there")? {
        let name = ["_secret", "_status"]
            .into_iter()
            .find_map(|end| name.strip_suffix(end))
            .unwrap_or(name);
        let or_yours = if LOOKUPS.iter().any(|wanted| wanted.name == name) {
            format!(", or set database.{name}_query for tables of your own")
        } else {
            String::new()
        };
        return Err(StoreError::Unfit(format!(
            "there is no table {table}; create it with `mimir-tenant-proxy migrate`{or_yours}"
        )));
    }
    if row.try_get::<bool, _>("is_hidden")? {
        let us: String = row.try_get("us")?;
        return Err(StoreError::Unfit(format!(
            "row-level security hides rows of {table} from the role {us}; connect as the table's \
             owner, or: alter role {us} bypassrls"
        )));
    }
    Ok(())
}

async fn wrap(
    connection: &mut PgConnection,
    wanted: &Wanted,
    query: &str,
) -> Result<String, StoreError> {
    let unfit =
        |problem: String| StoreError::Unfit(format!("database.{}_query: {problem}", wanted.name));
    let query = query.trim().trim_end_matches(';');
    let asked_with = match wanted.parameter {
        None => "none",
        Some(Parameter::Uuids) => "$1, a uuid[]",
        Some(Parameter::Hashes) => "$1, a bytea[]",
        Some(Parameter::Texts) => "$1, a text[]",
    };
    let failed = |error: sqlx::Error| match &error {
        sqlx::Error::Database(database) if !is_passing(database.code().as_deref()) => {
            let problem = database.message();
            unfit(format!("{problem} (parameters that it gets: {asked_with})"))
        }
        _ => StoreError::from(error),
    };
    let sql = AssertSqlSafe(query.to_owned()).into_sql_str();
    let statement = (&mut *connection).prepare(sql).await.map_err(failed)?;
    let given: Vec<String> =
        statement.columns().iter().map(|column| column.name().to_owned()).collect();
    let is_jsonb = |name: &str| {
        let mut columns = statement.columns().iter();
        columns.any(|column| column.name() == name && column.type_info().name() == "JSONB")
    };
    let missing: Vec<&str> = wanted
        .columns
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !given.iter().any(|column| column == name))
        .collect();
    if !missing.is_empty() {
        let needed: Vec<String> =
            wanted.columns.iter().map(|(name, kind)| format!("{name} {kind}")).collect();
        return Err(unfit(format!(
            "gives no column {}; it gives {} and must give {}",
            missing.join(", "),
            given.join(", "),
            needed.join(", ")
        )));
    }
    let parameters = match statement.parameters() {
        None => 0,
        Some(sqlx::Either::Left(types)) => types.len(),
        Some(sqlx::Either::Right(count)) => count,
    };
    if parameters != usize::from(wanted.parameter.is_some()) {
        return Err(unfit(format!("has {parameters} parameters and must have {asked_with}")));
    }
    let read = |column: &(&str, &str)| {
        if wanted.measured.contains(&column.0) {
            measured(column.0, is_jsonb(column.0))
        } else {
            cast(column)
        }
    };
    let mut columns: Vec<String> = wanted.columns.iter().map(read).collect();
    for (name, kind, default) in wanted.optional {
        let is_given = given.iter().any(|column| column == name);
        columns.push(if is_given {
            read(&(name, kind))
        } else {
            let kind = if *kind == "timestamptz" { "float8" } else { kind };
            let none = format!("{default}::{kind} as {name}");
            if wanted.measured.contains(name) {
                format!("{none}, 0::bigint as {}", measure_of(name))
            } else {
                none
            }
        });
    }
    // The line break ends a comment that the query may end with.
    let wrapped = format!("select {} from ({query}\n) as given", columns.join(", "));
    // Run once with an empty list: a wrong parameter type and missing rights show only then.
    // Organisations and limits may be many, and one is enough for that.
    let enough = if wanted.lookup == Lookup::Revocation { "" } else { " limit 1" };
    let sql = AssertSqlSafe(format!("{wrapped}{enough}"));
    let asked = match wanted.parameter {
        None => sqlx::query(sql),
        Some(Parameter::Uuids) => sqlx::query(sql).bind(Vec::<Uuid>::new()),
        Some(Parameter::Hashes) => sqlx::query(sql).bind(Vec::<Vec<u8>>::new()),
        Some(Parameter::Texts) => sqlx::query(sql).bind(Vec::<String>::new()),
    };
    match asked.persistent(false).fetch_all(&mut *connection).await {
        // One row of them must not keep the proxy from starting.
        Err(error) if wanted.lookup == Lookup::Revocation && is_of_data(&error) => {
            let asked = sqlx::query(AssertSqlSafe(as_texts(wanted, query)));
            asked.persistent(false).fetch_all(&mut *connection).await.map_err(failed)?;
        }
        Err(error) => return Err(failed(error)),
        Ok(_) => {}
    }
    Ok(wrapped)
}

/// Whether an error is the server's state at the moment, and not the query's fault
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
pub(super) fn is_passing(code: Option<&str>) -> bool {
    const CLASSES: [&str; 7] = ["08", "25", "40", "53", "55", "57", "58"];
    code.is_none_or(|code| CLASSES.iter().any(|class| code.starts_with(class)))
}

fn is_of_data(error: &sqlx::Error) -> bool {
    let database = error.as_database_error();
    database.is_some_and(|error| error.code().is_some_and(|code| is_data_exception(&code)))
}

/// A look-up with its columns as texts, as which every value can be read.
fn as_texts(wanted: &Wanted, query: &str) -> String {
    let query = query.trim().trim_end_matches(';');
    let columns: Vec<String> =
        wanted.columns.iter().map(|(name, _)| format!("{name}::text as {name}")).collect();
    format!("select {} from ({query}\n) as given", columns.join(", "))
}

/// A column in the type that is read. A time that is not given is no number.
fn cast((name, kind): &(&str, &str)) -> String {
    if *kind == "timestamptz" { moment::select(name) } else { format!("{name}::{kind} as {name}") }
}

/// A column as it is, and its size. That of a text is known without reading it. JSON would have to be made a
/// text, which takes seconds for some hundreds of megabytes: its binary form is measured, which is about as
/// long, and is not even decompressed if that is too much already.
fn measured(name: &str, is_jsonb: bool) -> String {
    /// As much as any row may have.
    const TOO_MUCH: usize = 256 << 10;
    let size = if is_jsonb {
        // An empty path gives the whole value, in memory.
        format!(
            "case when pg_column_size({name}) > {TOO_MUCH} then pg_column_size({name}) \
             else pg_column_size({name} #> '{{}}') end"
        )
    } else {
        format!("octet_length({name}::text)")
    };
    format!("{name}, coalesce({size}, 0)::bigint as {}", measure_of(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_look_up_stands_at_its_place() {
        for (at, wanted) in LOOKUPS.iter().enumerate() {
            assert_eq!(wanted.lookup as usize, at, "{}", wanted.name);
        }
    }
}
