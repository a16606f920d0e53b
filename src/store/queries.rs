//! The look-ups: our own or the operator's, and the proof at the start that they give what is
//! needed.
//!
//! Each stands inside one of ours (`select … from (query) as given`), which casts its columns to
//! the types that are read: an organisation may be a UUID or a text, a role an enum, a time
//! infinite.

use sqlx::{
    AssertSqlSafe, Column as _, Executor as _, PgConnection, PgPool, Row as _, SqlSafeStr as _,
    Statement as _,
};

use uuid::Uuid;

use super::{StoreError, connect, moment};
use crate::config::DatabaseConfig;

/// The look-ups as they are sent.
pub(super) struct Queries {
    pub(super) membership: String,
    pub(super) device_key: String,
    pub(super) revocation: String,
    pub(super) session: String,
    pub(super) organisation: String,
    pub(super) alert_rule: String,
}

/// One look-up: how it is configured, what it must give, and what it may.
struct Wanted {
    key: &'static str,
    columns: &'static [(&'static str, &'static str)],
    optional: &'static [(&'static str, &'static str, &'static str)],
    parameter: Option<Parameter>,
}

/// What a look-up is asked with.
enum Parameter {
    Uuids,
    Hashes,
    Texts,
}

const MEMBERSHIP: Wanted = Wanted {
    key: "membership_query",
    columns: &[("user_id", "uuid"), ("organisation_id", "text"), ("role", "text")],
    optional: &[("is_default", "boolean", "false")],
    parameter: Some(Parameter::Uuids),
};

const DEVICE_KEY: Wanted = Wanted {
    key: "device_key_query",
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
    parameter: Some(Parameter::Hashes),
};

const REVOCATION: Wanted = Wanted {
    key: "revocation_query",
    columns: &[("kind", "text"), ("value", "text"), ("issued_before", "timestamptz")],
    optional: &[],
    parameter: None,
};

const SESSION: Wanted = Wanted {
    key: "session_query",
    columns: &[("id", "uuid")],
    optional: &[],
    parameter: Some(Parameter::Uuids),
};

const ORGANISATION: Wanted = Wanted {
    key: "organisation_query",
    columns: &[("organisation_id", "text")],
    optional: &[],
    parameter: None,
};

/// All texts: a value that cannot be read must not take its row with it, because a rule that is not
/// read is a rule that would be deleted.
const ALERT_RULE: Wanted = Wanted {
    key: "alert_rule_query",
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
    parameter: Some(Parameter::Texts),
};

/// A table of ours. The schema is a plain identifier by its configuration.
pub(super) fn table(schema: &str, name: &str) -> String {
    format!("\"{schema}\".{name}")
}

/// Sees that every look-up gives its columns, and that row-level security does not hide rows from
/// us: then every member would be a stranger, and every sender's data lost.
pub(super) async fn check(pool: &PgPool, config: &DatabaseConfig) -> Result<Queries, StoreError> {
    let mut connection = connect::acquire(pool, config).await?;
    // It is closed when this is done, and with it the statements that were looked at.
    connection.close_on_drop();
    let connection = &mut *connection;
    let own = |name: &str, columns: &str, condition: &str| {
        format!("select {columns} from {} {condition}", table(&config.schema, name))
    };
    let given = &config.queries;
    let membership = given.membership.clone().unwrap_or_else(|| {
        own("membership", "user_id, organisation_id, role, is_default", "where user_id = any($1)")
    });
    let device_key = given.device_key.clone().unwrap_or_else(|| {
        let columns =
            "key_hash, id, organisation_id, name, scopes, expires_at, grace_seconds, revoked_at";
        own("device_key", columns, "where key_hash = any($1)")
    });
    let revocation = given.revocation.clone().unwrap_or_else(|| {
        let condition = "where expires_at is null or expires_at > now()";
        own("revocation", "kind, value, issued_before", condition)
    });
    for (name, is_own) in [
        ("membership", given.membership.is_none()),
        ("device_key", given.device_key.is_none()),
        ("revocation", given.revocation.is_none()),
    ] {
        if is_own {
            check_visible(connection, config, name).await?;
        }
    }
    let session = given.session.clone().unwrap_or_else(|| {
        "select id from auth.sessions where id = any($1) and (not_after is null or not_after > now())"
            .to_owned()
    });
    let organisation = given
        .organisation
        .clone()
        .unwrap_or_else(|| own("organisation", "id as organisation_id", ""));
    let alert_rule = given.alert_rule.clone().unwrap_or_else(|| {
        let columns = "id, organisation_id, name, expr, for_duration, keep_firing_for, rule_group, \
                       evaluation_interval, labels, annotations, enabled, created_at";
        own("alert_rule", columns, "where organisation_id = any($1)")
    });
    let reads_organisations = config.reads_rules || config.knows_organisations;
    if reads_organisations && given.organisation.is_none() {
        check_visible(connection, config, "organisation").await?;
    }
    if config.reads_rules {
        for (name, is_own) in
            [("alert_rule", given.alert_rule.is_none()), ("alert_rule_status", true)]
        {
            if is_own {
                check_visible(connection, config, name).await?;
            }
        }
    }
    Ok(Queries {
        organisation: if reads_organisations {
            wrap(connection, &ORGANISATION, &organisation).await?
        } else {
            organisation
        },
        alert_rule: if config.reads_rules {
            wrap(connection, &ALERT_RULE, &alert_rule).await?
        } else {
            alert_rule
        },
        membership: wrap(connection, &MEMBERSHIP, &membership).await?,
        device_key: wrap(connection, &DEVICE_KEY, &device_key).await?,
        revocation: wrap(connection, &REVOCATION, &revocation).await?,
        session: if config.reads_sessions {
            wrap(connection, &SESSION, &session).await?
        } else {
            session
        },
    })
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
        return Err(StoreError::Unfit(format!(
            "there is no table {table}; create it with `mimir-tenant-proxy migrate`, or set \
             database.{name}_query for tables of your own"
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
    let unfit = |problem: String| StoreError::Unfit(format!("database.{}: {problem}", wanted.key));
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
    let mut columns: Vec<String> = wanted.columns.iter().map(cast).collect();
    for (name, kind, default) in wanted.optional {
        let is_given = given.iter().any(|column| column == name);
        columns.push(if is_given {
            cast(&(name, kind))
        } else {
            let kind = if *kind == "timestamptz" { "float8" } else { kind };
            format!("{default}::{kind} as {name}")
        });
    }
    // The line break ends a comment that the query may end with.
    let wrapped = format!("select {} from ({query}\n) as given", columns.join(", "));
    // Asked once for nobody: whether the parameter has the right type, and whether we may read, shows
    // only when it is run.
    let sql = AssertSqlSafe(wrapped.clone());
    let asked = match wanted.parameter {
        None => sqlx::query(sql),
        Some(Parameter::Uuids) => sqlx::query(sql).bind(Vec::<Uuid>::new()),
        Some(Parameter::Hashes) => sqlx::query(sql).bind(Vec::<Vec<u8>>::new()),
        Some(Parameter::Texts) => sqlx::query(sql).bind(Vec::<String>::new()),
    };
    asked.persistent(false).fetch_all(&mut *connection).await.map_err(failed)?;
    Ok(wrapped)
}

/// Whether an error is the server's state at the moment, and not the query's fault
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
fn is_passing(code: Option<&str>) -> bool {
    const CLASSES: [&str; 7] = ["08", "25", "40", "53", "55", "57", "58"];
    code.is_none_or(|code| CLASSES.iter().any(|class| code.starts_with(class)))
}

/// A column in the type that is read. A time that is not given is no number.
fn cast((name, kind): &(&str, &str)) -> String {
    if *kind == "timestamptz" { moment::select(name) } else { format!("{name}::{kind} as {name}") }
}
