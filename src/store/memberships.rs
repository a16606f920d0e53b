//! Who is in which organisations, and which of their sessions have not ended.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::queries::{Lookup, Queries};
use super::{Store, StoreError, statement};
use crate::tenancy::{Membership, OrganisationId, Role, UserId};

pub enum RolesInUse {
    /// Each with the number of its memberships.
    Counted(Vec<(Role, i64)>),
    /// They cannot be had: a query of the operator's answers for users, and we do not know them all.
    Unknown,
}

/// A session that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserSession {
    /// The OAuth client that it was opened for, if that is known.
    pub oauth_client: Option<Arc<str>>,
}

/// Organisations that one user is a member of. Each request of theirs looks through all of them.
const MOST_MEMBERSHIPS: usize = 2_000;

/// Users that a query of the operator's is asked for, to know the roles in use.
const MOST_USERS: usize = 10_000;

impl Store {
    /// The roles in use, for an operator to compare with `[roles]`.
    pub async fn roles_in_use(&self) -> Result<RolesInUse, StoreError> {
        let counted = |from: &str| {
            format!(
                "select role, count(*) as count from ({from}) as memberships \
                 group by role order by role"
            )
        };
        self.check().await?;
        if !self.reads_memberships_elsewhere() {
            let table = self.own("membership");
            let sql = counted(&format!("select role::text as role from {table}"));
            return self.fetch(statement(sql), |rows| Ok(read_roles(&rows))).await;
        }
        let users = statement(format!("select id from auth.users limit {MOST_USERS}"));
        let read = |rows: Vec<PgRow>| {
            Ok(rows.iter().filter_map(|row| row.try_get(0).ok()).collect::<Vec<Uuid>>())
        };
        let Ok(users) = self.fetch(users, read).await else { return Ok(RolesInUse::Unknown) };
        let sql = move |queries: &Queries| counted(queries.of(Lookup::Membership));
        self.look_up(sql, |query| query.bind(users), |rows| Ok(read_roles(&rows))).await
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
        let users: Vec<Uuid> = users.iter().map(|user| user.0).collect();
        let sql = |queries: &Queries| queries.of(Lookup::Membership).to_owned();
        self.look_up(
            sql,
            |query| query.bind(users),
            |rows| {
                let mut found: HashMap<UserId, Vec<Membership>> = HashMap::new();
                for row in &rows {
                    match read(row) {
                        Ok((user, membership)) => found.entry(user).or_default().push(membership),
                        Err(problem) => tracing::warn!(problem, "Invalid membership row skipped"),
                    }
                }
                for (user, own) in &mut found {
                    let dropped = tidy(own);
                    if dropped > 0 {
                        tracing::warn!(
                            principal.id = %user.0, dropped, kept = MOST_MEMBERSHIPS,
                            "A user has too many memberships; some do not count"
                        );
                    }
                }
                Ok(found)
            },
        )
        .await
    }

    /// Those of some sessions that have not ended (Supabase's `auth.sessions`).
    pub async fn sessions(
        &self,
        sessions: Vec<Uuid>,
    ) -> Result<HashMap<Uuid, UserSession>, StoreError> {
        let sql = |queries: &Queries| queries.of(Lookup::Session).to_owned();
        self.look_up(
            sql,
            |query| query.bind(sessions),
            |rows| {
                // A row without an identifier names no session.
                let read = |row: &PgRow| {
                    let id = row.try_get::<Option<Uuid>, _>("id").ok()??;
                    let client: Option<&str> = row.try_get("oauth_client_id").ok()?;
                    Some((id, UserSession { oauth_client: client.map(Into::into) }))
                };
                Ok(rows.iter().filter_map(read).collect())
            },
        )
        .await
    }
}

fn read_roles(rows: &[PgRow]) -> RolesInUse {
    let roles = rows.iter().filter_map(|row| {
        let role: Option<&str> = row.try_get("role").ok()?;
        Some((Role::new(role.unwrap_or_default()), row.try_get("count").ok()?))
    });
    RolesInUse::Counted(roles.collect())
}

/// Two spellings of one organisation are one membership; the first row counts. The order stays: of several defaults the
/// first is the default. Returns how many memberships were too many: the defaults stay, and of the others the first.
fn tidy(own: &mut Vec<Membership>) -> usize {
    let mut known = HashSet::with_capacity(own.len());
    own.retain(|membership| known.insert(membership.organisation.clone()));
    let dropped = own.len().saturating_sub(MOST_MEMBERSHIPS);
    if dropped > 0 {
        own.sort_by_key(|membership| !membership.is_default);
        own.truncate(MOST_MEMBERSHIPS);
    }
    dropped
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

#[cfg(test)]
mod tests {
    use super::*;

    fn membership(organisation: &str, role: &str, is_default: bool) -> Membership {
        let organisation = OrganisationId::parse(organisation).unwrap();
        Membership { organisation, role: Role::new(role), is_default }
    }

    #[test]
    fn of_two_rows_for_one_organisation_the_first_counts() {
        let mut own = vec![
            membership("b", "owner", false),
            membership("a", "viewer", true),
            membership("b", "viewer", true),
        ];
        assert_eq!(tidy(&mut own), 0);
        assert_eq!(own, [membership("b", "owner", false), membership("a", "viewer", true)]);
    }

    // Seen in review: somebody who makes organisations by a script had each reading compare all of them with each other.
    #[test]
    fn a_user_has_only_so_many_memberships_and_the_default_is_among_them() {
        let name = |number: usize| format!("org-{number:06}");
        let mut own: Vec<Membership> = (0..50_000)
            .map(|number| membership(&name(number), "owner", number == 49_999))
            .collect();
        assert_eq!(tidy(&mut own), 50_000 - MOST_MEMBERSHIPS);
        assert_eq!(own.len(), MOST_MEMBERSHIPS);
        assert_eq!(own[0], membership(&name(49_999), "owner", true));
        assert_eq!(own[1], membership(&name(0), "owner", false));
    }
}
