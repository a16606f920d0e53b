//! What the proxy's role must be allowed in the tables of ours, for an operator whose role does not own
//! them: a missing right to write shows only when something is to be written.

use sqlx::Row as _;

use super::{Store, StoreError, queries};
use crate::config::{DatabaseConfig, TablesRead};

/// What is done with a table.
struct Need {
    table: &'static str,
    when: fn(&DatabaseConfig, TablesRead) -> bool,
    /// Each with the columns for which it suffices; none for the whole table.
    rights: &'static [(&'static str, &'static [&'static str])],
}

const READ: &[(&str, &[&str])] = &[("select", &[])];
/// What was deleted, until Mimir has it no more: triggers write it.
const TOMBSTONES: &[(&str, &[&str])] = &[("select", &[]), ("delete", &[])];
const ALL: &[(&str, &[&str])] =
    &[("select", &[]), ("insert", &[]), ("update", &[]), ("delete", &[])];
const ALL_BUT_DELETE: &[(&str, &[&str])] = &[("select", &[]), ("insert", &[]), ("update", &[])];
const NEW_DEVICE_KEY: &[&str] = &[
    "organisation_id",
    "name",
    "key_hash",
    "key_hint",
    "scopes",
    "expires_at",
    "grace_seconds",
    "created_by",
];
const NEW_REVOCATION: &[&str] =
    &["kind", "value", "issued_before", "expires_at", "reason", "created_by"];

const fn need(
    table: &'static str,
    when: fn(&DatabaseConfig, TablesRead) -> bool,
    rights: &'static [(&'static str, &'static [&'static str])],
) -> Need {
    Need { table, when, rights }
}

const NEEDS: [Need; 25] = [
    need("organisation", |config, _| config.queries.organisation.is_none(), READ),
    // A key's organisation is noted where members are read elsewhere.
    need(
        "organisation",
        |config, _| config.queries.membership.is_some() && config.queries.device_key.is_none(),
        &[("insert", &["id"])],
    ),
    need(
        "membership",
        |config, _| config.queries.membership.is_none(),
        &[("select", &["user_id", "organisation_id", "role", "is_default"])],
    ),
    need(
        "device_key",
        |config, _| config.queries.device_key.is_none(),
        &[("select", &[]), ("insert", NEW_DEVICE_KEY), ("update", &["revoked_at", "last_used_at"])],
    ),
    need(
        "revocation",
        |config, _| config.queries.revocation.is_none(),
        &[("select", &[]), ("insert", NEW_REVOCATION), ("delete", &[])],
    ),
    need(
        "organisation_limit",
        |config, tables| tables.limits && config.queries.organisation_limit.is_none(),
        READ,
    ),
    need("alert_rule", |config, tables| tables.rules && config.queries.alert_rule.is_none(), READ),
    need("alert_rule_status", |_, tables| tables.rules, ALL),
    need("alert_rule_tombstone", |_, tables| tables.rules, TOMBSTONES),
    need("alert_rule_sync", |_, tables| tables.rules, ALL),
    need("alert_rule_leader", |_, tables| tables.rules, ALL_BUT_DELETE),
    need("alert_rule_sync_request", |_, tables| tables.rules, ALL),
    need("alert_rule_guard", |_, tables| tables.rules, ALL),
    need(
        "notification_channel",
        |config, tables| tables.channels && config.queries.notification_channel.is_none(),
        READ,
    ),
    need(
        "notification_channel_secret",
        |config, tables| tables.channels && config.queries.notification_channel.is_none(),
        READ,
    ),
    need(
        "notification_route",
        |config, tables| tables.channels && config.queries.notification_route.is_none(),
        READ,
    ),
    need("notification_channel_status", |_, tables| tables.channels, ALL),
    need("notification_route_status", |_, tables| tables.channels, ALL),
    need("notification_tombstone", |_, tables| tables.channels, TOMBSTONES),
    need("notification_sync", |_, tables| tables.channels, ALL),
    need("alert_event", |_, tables| tables.events, ALL),
    need("alert_event_start", |_, tables| tables.events, ALL),
    need("alert_event_copy", |_, tables| tables.events, ALL),
    need("alert_event_gap", |_, tables| tables.events, ALL),
    need(
        "alert_event_watch",
        |_, tables| tables.events,
        &[("select", &[]), ("update", &["watched_at", "watching_since"])],
    ),
];

impl Store {
    /// Sees that the role may do in our tables what is done there. All that is missing is told at once.
    pub async fn check_privileges(&self) -> Result<(), StoreError> {
        let store = self.clone();
        self.run(async move { check(&store).await }).await
    }
}

async fn check(store: &Store) -> Result<(), StoreError> {
    let (config, tables) = (&store.0.config, store.0.tables);
    let mut connection = store.0.server.acquire(&store.0.lookups).await?;
    let (mut missing, mut us) = (Vec::new(), String::new());
    for Need { table, when, rights } in NEEDS {
        if !when(config, tables) {
            continue;
        }
        let name = queries::table(&config.schema, table);
        let mut lacking = Vec::new();
        for (right, columns) in rights {
            let sql = "select current_user::text as us, to_regclass($1) is null \
                       or has_table_privilege(to_regclass($1), $2) or (cardinality($3::text[]) > 0 \
                       and (select bool_and(has_column_privilege(to_regclass($1), name, $2)) \
                            from unnest($3::text[]) as name)) as may";
            let columns: Vec<&str> = columns.to_vec();
            let query = sqlx::query(sql).bind(&name).bind(*right).bind(columns).persistent(false);
            let row = query.fetch_one(&mut *connection).await?;
            us = row.try_get("us")?;
            if row.try_get::<Option<bool>, _>("may")? != Some(true) {
                lacking.push(*right);
            }
        }
        if !lacking.is_empty() {
            missing.push(format!("{} on {table}", lacking.join(", ")));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(StoreError::Unfit(format!(
        "the role {us} lacks rights: {}; docs/operations/supabase.md lists the grants",
        missing.join("; ")
    )))
}
