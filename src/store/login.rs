//! As whom connections log in, and that a login which the server refuses is not tried again at once.
//!
//! Hosted databases lock out an address that goes on with a wrong password, and then the right one is of no use
//! either: Supabase's pooler for two minutes after ten refusals within two and a half
//! (<https://github.com/orgs/supabase/discussions/45688>). So there is one attempt at a time, for all stores of a
//! process, and after a refusal none for [`FIRST_PAUSE`], twice that after another, up to [`LAST_PAUSE`].

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::StoreError;

const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LAST_PAUSE: Duration = Duration::from_secs(150);

/// The user and the password, with the rest of the address.
pub(super) struct Login {
    state: Mutex<State>,
    /// Whose attempt it is.
    turn: Semaphore,
}

struct State {
    options: Arc<PgConnectOptions>,
    refused: Option<Refused>,
}

struct Refused {
    why: StoreError,
    /// When it may be tried again.
    until: Instant,
    pause: Duration,
}

/// Why an attempt gave nothing.
pub(super) enum Attempt {
    /// None was made, because of an earlier one.
    Refused(StoreError),
    Failed(sqlx::Error),
}

impl Login {
    pub(super) fn new(options: PgConnectOptions) -> Self {
        let state = Mutex::new(State { options: Arc::new(options), refused: None });
        Self { state, turn: Semaphore::new(1) }
    }

    pub(super) fn options(&self) -> Arc<PgConnectOptions> {
        Arc::clone(&self.state.lock().options)
    }

    /// Another user or password is used from now on.
    pub(super) fn replace(&self, options: Arc<PgConnectOptions>) {
        *self.state.lock() = State { options, refused: None };
    }

    /// It may be tried again at once.
    pub(super) fn forget_refusal(&self) {
        self.state.lock().refused = None;
    }

    /// Why it is not tried now.
    pub(super) fn refusal(&self) -> Option<StoreError> {
        let state = self.state.lock();
        let refused = state.refused.as_ref()?;
        let left = refused.until.saturating_duration_since(Instant::now()).as_millis();
        if left == 0 {
            return None;
        }
        let again = format!("; not tried again for {} s", left.div_ceil(1000));
        Some(match &refused.why {
            StoreError::Unfit(why) => StoreError::Unfit(format!("{why}{again}")),
            StoreError::Unavailable(why) => StoreError::Unavailable(format!("{why}{again}")),
            other => other.clone(),
        })
    }

    /// Connects, if that may be tried. `describe` says what an error means.
    pub(super) async fn attempt<T>(
        &self,
        connect: impl AsyncFnOnce(&PgConnectOptions) -> Result<T, sqlx::Error>,
        describe: impl FnOnce(&sqlx::Error) -> StoreError,
    ) -> Result<T, Attempt> {
        // It is never closed.
        let _turn = self.turn.acquire().await;
        if let Some(refusal) = self.refusal() {
            return Err(Attempt::Refused(refusal));
        }
        let options = self.options();
        let connected = connect(&options).await;
        let refusal = connected.as_ref().err().filter(|error| is_refused(error)).map(describe);
        let mut state = self.state.lock();
        // What became of the login of before says nothing of this one.
        if Arc::ptr_eq(&options, &state.options) {
            if let Some(why) = refusal {
                let last = state.refused.as_ref().map(|refused| refused.pause);
                let pause = last.map_or(FIRST_PAUSE, |last| (2 * last).min(LAST_PAUSE));
                state.refused = Some(Refused { why, until: Instant::now() + pause, pause });
            } else if connected.is_ok() {
                state.refused = None;
            }
        }
        drop(state);
        connected.map_err(Attempt::Failed)
    }
}

/// Whether the server does not let this user in with this password; or Supabase's pooler lets no one in, because it
/// has refused too many (`Circuit breaker open` in its older versions, `(ECIRCUITBREAKER)` in the newer).
fn is_refused(error: &sqlx::Error) -> bool {
    let Some(database) = error.as_database_error() else { return false };
    let says = |text| database.message().contains(text);
    // Class 28: invalid authorization specification.
    database.code().is_some_and(|code| code.starts_with("28"))
        || says("Circuit breaker open")
        || says("ECIRCUITBREAKER")
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::str::FromStr as _;

    use sqlx::error::{DatabaseError, ErrorKind};
    use tokio::time::advance;

    use super::*;

    /// What a server says.
    #[derive(Debug, thiserror::Error)]
    #[error("{1}")]
    struct Said(&'static str, &'static str);

    impl DatabaseError for Said {
        fn message(&self) -> &str {
            self.1
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.into())
        }

        fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    const WRONG: Said = Said("28P01", "password authentication failed");

    fn options() -> PgConnectOptions {
        PgConnectOptions::from_str("postgres://u:p@h/d").unwrap()
    }

    /// Whether an attempt was made.
    async fn attempt(login: &Login, answer: Result<(), Said>) -> bool {
        let connect = async |_: &PgConnectOptions| answer.map_err(sqlx::Error::from);
        let outcome = login.attempt(connect, |error| StoreError::Unfit(error.to_string())).await;
        !matches!(outcome, Err(Attempt::Refused(_)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_login_is_tried_again_after_longer_and_longer_pauses() {
        let login = Login::new(options());
        for pause in [30, 60, 120, 150, 150] {
            assert!(attempt(&login, Err(WRONG)).await);
            advance(Duration::from_secs(pause - 1)).await;
            assert!(!attempt(&login, Ok(())).await, "{pause}");
            let refusal = login.refusal().unwrap().to_string();
            assert!(refusal.contains("failed; not tried again for 1 s"), "{refusal}");
            advance(Duration::from_secs(1)).await;
        }
        assert!(attempt(&login, Ok(())).await);
        assert!(attempt(&login, Err(WRONG)).await);
        advance(Duration::from_secs(30)).await;
        assert!(login.refusal().is_none(), "the pauses begin anew");
    }

    #[tokio::test]
    async fn another_login_and_one_that_is_asked_for_are_tried_at_once() {
        let login = Login::new(options());
        attempt(&login, Err(WRONG)).await;
        login.replace(Arc::new(options()));
        assert!(attempt(&login, Err(WRONG)).await);
        login.forget_refusal();
        assert!(attempt(&login, Ok(())).await);
    }

    #[tokio::test]
    async fn a_refusal_of_the_login_of_before_says_nothing_of_the_new_one() {
        let login = Login::new(options());
        let connect = async |_: &PgConnectOptions| {
            login.replace(Arc::new(options()));
            Err::<(), _>(sqlx::Error::from(WRONG))
        };
        let _ = login.attempt(connect, |error| StoreError::Unfit(error.to_string())).await;
        assert_eq!(login.refusal(), None);
    }

    #[tokio::test]
    async fn what_supabase_says_of_too_many_refusals_is_one() {
        for (said, is_refusal) in [
            (Said("XX000", "(ECIRCUITBREAKER) too many authentication failures"), true),
            (Said("XX000", "Circuit breaker open: too many failed attempts"), true),
            (Said("28000", "role \"u\" is not permitted to log in"), true),
            (Said("57P03", "the database system is starting up"), false),
            (Said("53300", "sorry, too many clients already"), false),
            (Said("3D000", "database \"d\" does not exist"), false),
        ] {
            let (login, text) = (Login::new(options()), said.1);
            attempt(&login, Err(said)).await;
            assert_eq!(login.refusal().is_some(), is_refusal, "{text}");
        }
    }
}
