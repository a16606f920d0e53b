//! Who is in which organisations.

use std::collections::HashMap;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _};
use uuid::Uuid;

use super::{Store, StoreError, queries};
use crate::tenancy::{Membership, OrganisationId, Role, UserId};

/// The roles that memberships have.
pub enum RolesInUse {
    /// Each with the number of its memberships.
    Counted(Vec<(Role, i64)>),
    /// They cannot be had: a query of the operator's answers for users, and we do not know them all.
    Unknown,
}

/// Users that a query of the operator's is asked for, to know the roles in use.
const MOST_USERS: usize = 10_000;

impl Store {
    /// The roles in use, for an operator to compare with `[roles]`.
    pub async fn roles_in_use(&self) -> Result<RolesInUse, StoreError> {
        let store = self.clone();
        self.run(async move {
            let query = store.queries().await?.membership.clone();
            let counted = |from: &str| {
                AssertSqlSafe(format!(
                    "select role, count(*) as count from ({from}) as memberships group by role order by role"
                ))
            };
            let rows = if store.reads_memberships_elsewhere() {
                let users = format!("select id from auth.users limit {MOST_USERS}");
                let users = store.rows(&store.0.side_pool, sqlx::query(AssertSqlSafe(users))).await;
                let Ok(users) = users else { return Ok(RolesInUse::Unknown) };
                let users: Vec<Uuid> = users.iter().filter_map(|row| row.try_get(0).ok()).collect();
                let query = counted(&query);
                store.rows(&store.0.side_pool, sqlx::query(query).bind(users)).await?
            } else {
                let table = queries::table(&store.0.config.schema, "membership");
                let query = counted(&format!("select role::text as role from {table}"));
                store.rows(&store.0.side_pool, sqlx::query(query)).await?
            };
            let roles = rows.iter().filter_map(|row| {
                let role: Option<&str> = row.try_get("role").ok()?;
                Some((Role::new(role.unwrap_or_default()), row.try_get("count").ok()?))
            });
            Ok(RolesInUse::Counted(roles.collect()))
        })
        .await
    }

    /// Whether a query of the operator's says who is where, and not our tables.
    pub fn reads_memberships_elsewhere(&self) -> bool {
        self.0.config.queries.membership.is_some()
    }

    /// The memberships of some users. A user without any is left out.
    pub async fn memberships_of(
        &self,
        users: Vec<UserId>,
    ) -> Result<HashMap<UserId, Vec<Membership>>, StoreError> {
        let store = self.clone();
        self.run(async move {
            let users: Vec<Uuid> = users.iter().map(|user| user.0).collect();
            let query = AssertSqlSafe(store.queries().await?.membership.clone());
            let rows = store.rows(&store.0.pool, sqlx::query(query).bind(users)).await?;
            let mut found: HashMap<UserId, Vec<Membership>> = HashMap::new();
            for row in &rows {
                match read(row) {
                    Ok((user, membership)) => add(found.entry(user).or_default(), membership),
                    Err(problem) => tracing::warn!(problem, "Membership left out"),
                }
            }
            Ok(found)
        })
        .await
    }
}

/// Two spellings of one organisation are one membership; the first row counts.
fn add(own: &mut Vec<Membership>, membership: Membership) {
    if own.iter().all(|known| known.organisation != membership.organisation) {
        own.push(membership);
    }
}

fn read(row: &PgRow) -> Result<(UserId, Membership), String> {
    let wrong = |error: sqlx::Error| error.to_string();
    let user = UserId(row.try_get("user_id").map_err(wrong)?);
    let organisation: &str = row.try_get("organisation_id").map_err(wrong)?;
    let organisation =
        OrganisationId::parse(organisation).map_err(|error| format!("user {user}: {error}"))?;
    let role = Role::new(row.try_get("role").map_err(wrong)?);
    let is_default: Option<bool> = row.try_get("is_default").map_err(wrong)?;
    let is_default = is_default.unwrap_or(false);
    Ok((user, Membership { organisation, role, is_default }))
}
