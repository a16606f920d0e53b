//! Whether the look-up of sessions leaves out those of banned users.
//!
//! Supabase's ban (`auth.users.banned_until`) ends no session, and prevents only that its tokens are renewed. Not
//! every role may read it, and a database of the operator's own need not have it: then sessions are looked up
//! without.

use std::time::Duration;

use parking_lot::Mutex;
use sqlx::{PgConnection, Row as _};
use tokio::time::Instant;

use super::auth_tables::ask;
use super::queries::is_passing;
use super::{Store, StoreError};

/// How often bans that were lost are asked for.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// What a store knows of bans.
#[derive(Debug, Default)]
pub(super) struct Bans {
    /// The look-up of all sessions, if bans were read when the store was checked.
    without: Option<String>,
    /// The look-up that leaves out those of banned users.
    with: String,
    /// When bans that were read and cannot be any more were last asked for.
    lost: Mutex<Option<Instant>>,
    /// Why bans that there are were not seen when the store was checked, and what to do.
    unseen: Option<String>,
}

impl Bans {
    /// Sees whether bans can be read; `all` is the look-up of all sessions, which was checked.
    pub(super) async fn find(
        connection: &mut PgConnection,
        all: String,
        with: String,
    ) -> Result<Self, StoreError> {
        let sight = Sight::read(connection, &with).await?;
        sight.log();
        let without = matches!(sight, Sight::Seen).then_some(all);
        Ok(Self { without, with, lost: Mutex::default(), unseen: sight.remedy() })
    }

    /// Whether banned users' sessions are left out.
    pub(super) fn are_read(&self) -> bool {
        self.without.is_some() && self.lost.lock().is_none()
    }

    /// The look-up to use in place of the one with bans, while these are lost.
    pub(super) fn instead(&self) -> Option<&str> {
        self.without.as_deref().filter(|_| !self.are_read())
    }

    /// Why bans that there are were not seen when the store was checked, and what to do.
    pub(super) fn unseen(&self) -> Option<&str> {
        self.unseen.as_deref()
    }

    /// Whether it is time to see whether lost bans can be read again. True for one who asks.
    pub(super) fn is_to_ask_again(&self) -> bool {
        let mut lost = self.lost.lock();
        let is_due = lost.is_some_and(|asked| asked.elapsed() >= ASK_AGAIN);
        if is_due {
            *lost = Some(Instant::now());
        }
        is_due
    }

    /// Sees whether bans that were read can be read now. If only they cannot be, sessions are looked up without them:
    /// otherwise all users would lose access, and not only those who are banned.
    pub(super) async fn ask_again(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let Some(without) = &self.without else { return Ok(()) };
        ask(connection, without).await?;
        let sight = Sight::read(connection, &self.with).await?;
        let mut lost = self.lost.lock();
        if matches!(sight, Sight::Seen) {
            if lost.take().is_some() {
                tracing::info!("Bans are seen again");
            }
        } else if lost.replace(Instant::now()).is_none() {
            sight.log_lost();
        }
        Ok(())
    }
}

impl Store {
    /// Why banned users do not lose access with their sessions, although the database has bans, and what to do; none
    /// if they do, or if sessions are not checked. Known once the store is checked.
    pub fn unseen_bans(&self) -> Option<String> {
        let checked = self.0.checked.get()?;
        checked.queries.bans().unseen().map(str::to_owned)
    }

    /// Why it is not seen which OAuth clients sessions were opened for, although the database has it, and what to do.
    pub fn unseen_clients(&self) -> Option<String> {
        self.0.checked.get()?.queries.unseen_clients().map(str::to_owned)
    }

    /// Sees that the role of this store, which was checked, may read bans if another one reads them. That one would
    /// be refused every look-up of sessions with this login. One that was not checked yet finds out by itself.
    pub fn check_bans_like(&self, other: &Self) -> Result<(), StoreError> {
        let reads_bans =
            |store: &Self| store.0.checked.get().map(|checked| checked.queries.bans().are_read());
        if reads_bans(other) != Some(true) || reads_bans(self) != Some(false) {
            return Ok(());
        }
        let why = self.unseen_bans().unwrap_or_else(|| "auth.users has none".to_owned());
        Err(StoreError::Unfit(format!("the role sees no bans, and the one in use does; {why}")))
    }

    /// After a look-up of sessions with bans was refused: the right to see them may have been taken away, or tables
    /// are changed. If it is that, sessions are looked up without bans from the next time on.
    pub(super) async fn ask_for_bans_again(&self, bans: &Bans) {
        let Ok(mut connection) = self.0.server.acquire(&self.0.lookups).await else { return };
        if let Err(error) = bans.ask_again(&mut connection).await {
            // The look-up fails with what is wrong, and the next one comes here again.
            tracing::debug!(%error, "Bans not checked");
        }
    }
}

/// Whether the role sees who is banned.
enum Sight {
    Seen,
    /// There are none: the tables are not Supabase's, or are from before it had bans. Why the query cannot be run.
    Absent(String),
    /// Roles that were set up before bans were looked at may not see them.
    Hidden {
        problem: String,
        /// What the role lacks, if that is why.
        grant: Option<String>,
    },
}

impl Sight {
    /// To be asked when the sessions themselves can be read.
    async fn read(connection: &mut PgConnection, with: &str) -> Result<Self, StoreError> {
        // A schema, a table, a column or an operator between its types that does not exist.
        const ABSENT: [&str; 4] = ["3F000", "42P01", "42703", "42883"];
        const INSUFFICIENT_PRIVILEGE: &str = "42501";
        let Err(error) = ask(connection, with).await else {
            return Ok(Self::Seen);
        };
        let Some(database) = error.as_database_error() else { return Err(error.into()) };
        let (code, problem) = (database.code(), database.message().to_owned());
        match code.as_deref() {
            // XX: an error within the server, or of a pooler.
            code if is_passing(code) || code.is_some_and(|code| code.starts_with("XX")) => {
                Err(error.into())
            }
            Some(code) if ABSENT.contains(&code) => Ok(Self::Absent(problem)),
            Some(INSUFFICIENT_PRIVILEGE) => {
                Ok(Self::Hidden { problem, grant: missing_grant(connection).await? })
            }
            _ => Ok(Self::Hidden { problem, grant: None }),
        }
    }

    /// What an operator is to do, for a message.
    fn remedy(&self) -> Option<String> {
        match self {
            Self::Seen | Self::Absent(_) => None,
            Self::Hidden { grant: Some(grant), .. } => Some(format!("run: {grant}")),
            Self::Hidden { problem, grant: None } => {
                Some(format!("auth.users cannot be read: {problem}"))
            }
        }
    }

    fn log(&self) {
        match self {
            Self::Absent(reason) => tracing::info!(reason, "The database has no bans of users"),
            Self::Seen | Self::Hidden { .. } => self.log_lost(),
        }
    }

    /// Where there were bans before, that there are none is a fault, too.
    fn log_lost(&self) {
        let (reason, grant) = match self {
            Self::Seen => return,
            Self::Absent(problem) => (problem, None),
            Self::Hidden { problem, grant } => (problem, grant.as_ref()),
        };
        tracing::warn!(
            reason,
            grant,
            "Bans are not seen: a banned user keeps access until the session or the token ends"
        );
    }
}

/// What the role must be given to see bans. None if it has these rights and is refused all the same.
async fn missing_grant(connection: &mut PgConnection) -> Result<Option<String>, StoreError> {
    let sql = "select quote_ident(current_user) as us, \
               has_column_privilege(to_regclass('auth.users'), 'id', 'select') \
                   and has_column_privilege(to_regclass('auth.users'), 'banned_until', 'select') as may_read_users, \
               has_column_privilege(to_regclass('auth.sessions'), 'user_id', 'select') as may_read_sessions, \
               not row_security_active(to_regclass('auth.users')) as sees_all_users";
    let row = sqlx::query(sql).persistent(false).fetch_one(connection).await?;
    let us: String = row.try_get("us")?;
    // Null where there is no such table.
    let lacks =
        |right: &str| Ok::<_, sqlx::Error>(row.try_get::<Option<bool>, _>(right)? == Some(false));
    let mut grants = Vec::new();
    if lacks("may_read_sessions")? {
        grants.push(format!("grant select (user_id) on auth.sessions to {us}"));
    }
    if lacks("may_read_users")? {
        grants.push(format!("grant select (id, banned_until) on auth.users to {us}"));
    }
    if lacks("sees_all_users")? {
        grants.push(format!("alter role {us} bypassrls"));
    }
    Ok((!grants.is_empty()).then(|| grants.join("; ")))
}
