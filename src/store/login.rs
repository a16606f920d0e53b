//! As whom connections log in, and that a login which the server refuses is not tried again at once.
//!
//! Hosted databases lock out an address that goes on with a wrong password, and then the right one is of no use
//! either: Supabase's pooler for two minutes after ten refusals within two and a half
//! (<https://github.com/orgs/supabase/discussions/45688>). So after a refusal no connection of any store is made for
//! [`FIRST_PAUSE`]. Then one tries, and if it is refused, the next after twice that, up to [`LONGEST_LOGIN_PAUSE`].

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::StoreError;

const FIRST_PAUSE: Duration = Duration::from_secs(30);
/// Longer than Supabase's pooler locks out an address, and than it remembers a password that was changed.
pub const LONGEST_LOGIN_PAUSE: Duration = Duration::from_secs(150);

/// The user and the password, with the rest of the address. One for all stores of a database.
pub(super) struct Login {
    state: Mutex<State>,
    /// Tells those who wait for a connection that it is refused.
    refused: Notify,
}

struct State {
    options: Arc<PgConnectOptions>,
    refused: Option<Refused>,
}

struct Refused {
    why: StoreError,
    /// When one may try it again.
    until: Instant,
    /// How long nobody tries it after that.
    next_pause: Duration,
}

/// Whether a connection may be made.
pub(super) enum Admission {
    /// The login is good, as far as is known.
    Free,
    /// It was refused, and it is time for one attempt.
    Once,
    Refused(StoreError),
}

impl Login {
    pub(super) fn new(options: PgConnectOptions) -> Self {
        let state = State { options: Arc::new(options), refused: None };
        Self { state: Mutex::new(state), refused: Notify::new() }
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
        self.state.lock().refusal()
    }

    /// Whether the caller may connect.
    pub(super) fn admit(&self) -> Admission {
        let mut state = self.state.lock();
        if let Some(refusal) = state.refusal() {
            return Admission::Refused(refusal);
        }
        let Some(refused) = &mut state.refused else { return Admission::Free };
        // Everybody else goes on waiting, whatever becomes of the attempt.
        refused.until = Instant::now() + refused.next_pause;
        refused.next_pause = (2 * refused.next_pause).min(LONGEST_LOGIN_PAUSE);
        Admission::Once
    }

    /// Waits until it is refused.
    pub(super) async fn until_refused(&self) -> StoreError {
        loop {
            let refused = self.refused.notified();
            if let Some(refusal) = self.refusal() {
                return refusal;
            }
            refused.await;
        }
    }

    /// Notes what became of a connection with these options.
    pub(super) fn note(&self, options: &Arc<PgConnectOptions>, outcome: Outcome) {
        let mut state = self.state.lock();
        // What became of the login of before says nothing of this one.
        if !Arc::ptr_eq(options, &state.options) {
            return;
        }
        match outcome {
            Outcome::Connected => state.refused = None,
            Outcome::Failed => {
                // The next one may find out.
                if let Some(refused) = &mut state.refused {
                    refused.until = Instant::now();
                }
            }
            Outcome::Refused(why) => {
                let refused = state.refused.take();
                // One that was begun before the first refusal came is no further attempt.
                let (until, next_pause) = refused.map_or_else(
                    || (Instant::now() + FIRST_PAUSE, 2 * FIRST_PAUSE),
                    |refused| (refused.until, refused.next_pause),
                );
                state.refused = Some(Refused { why, until, next_pause });
                self.refused.notify_waiters();
            }
        }
    }
}

impl State {
    fn refusal(&self) -> Option<StoreError> {
        let refused = self.refused.as_ref()?;
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
}

/// What became of an attempt.
pub(super) enum Outcome {
    Connected,
    /// The server has refused the login.
    Refused(StoreError),
    /// For a reason that says nothing of the login.
    Failed,
}

impl Outcome {
    /// That of an error; `why` is what it means.
    pub(super) fn of(error: &sqlx::Error, why: &StoreError) -> Self {
        if is_refused(error) { Self::Refused(why.clone()) } else { Self::Failed }
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
    fn attempt(login: &Login, answer: Result<(), Said>) -> bool {
        if matches!(login.admit(), Admission::Refused(_)) {
            return false;
        }
        note(login, &login.options(), answer);
        true
    }

    fn note(login: &Login, options: &Arc<PgConnectOptions>, answer: Result<(), Said>) {
        match answer.map_err(sqlx::Error::from) {
            Ok(()) => login.note(options, Outcome::Connected),
            Err(error) => {
                let why = StoreError::Unfit(error.to_string());
                login.note(options, Outcome::of(&error, &why));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_login_is_tried_again_after_longer_and_longer_pauses() {
        let login = Login::new(options());
        for pause in [30, 60, 120, 150, 150] {
            assert!(attempt(&login, Err(WRONG)));
            // Others that were on their way.
            note(&login, &login.options(), Err(WRONG));
            advance(Duration::from_secs(pause - 1)).await;
            assert!(!attempt(&login, Ok(())), "{pause}");
            let refusal = login.refusal().unwrap().to_string();
            assert!(refusal.contains("failed; not tried again for 1 s"), "{refusal}");
            advance(Duration::from_secs(1)).await;
        }
        assert!(matches!(login.admit(), Admission::Once));
        assert!(matches!(login.admit(), Admission::Refused(_)), "one tries");
        note(&login, &login.options(), Ok(()));
        assert!(attempt(&login, Err(WRONG)));
        advance(Duration::from_secs(30)).await;
        assert!(login.refusal().is_none(), "the pauses begin with the first again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_starts_says_nothing_of_the_login() {
        let login = Login::new(options());
        assert!(attempt(&login, Err(WRONG)));
        advance(Duration::from_secs(30)).await;
        assert!(attempt(&login, Err(Said("57P03", "the database system is starting up"))));
        assert!(attempt(&login, Ok(())), "it is tried again at once");
        assert!(matches!(login.admit(), Admission::Free));
    }

    #[test]
    fn another_login_and_one_that_is_asked_for_are_tried_at_once() {
        let login = Login::new(options());
        assert!(attempt(&login, Err(WRONG)));
        assert!(!attempt(&login, Err(WRONG)));
        login.replace(Arc::new(options()));
        assert!(attempt(&login, Err(WRONG)));
        login.forget_refusal();
        assert!(attempt(&login, Ok(())));
    }

    #[test]
    fn a_refusal_of_the_login_of_before_says_nothing_of_the_new_one() {
        let login = Login::new(options());
        let before = login.options();
        login.replace(Arc::new(options()));
        note(&login, &before, Err(WRONG));
        assert_eq!(login.refusal(), None);
    }

    #[tokio::test]
    async fn who_waits_is_told_of_a_refusal() {
        let login = Login::new(options());
        let told = async {
            tokio::task::yield_now().await;
            assert!(attempt(&login, Err(WRONG)));
        };
        let (why, ()) = tokio::join!(login.until_refused(), told);
        assert!(why.to_string().contains("password"), "{why}");
        login.until_refused().await;
    }

    #[test]
    fn what_supabase_says_of_too_many_refusals_is_one() {
        for (said, is_refusal) in [
            (Said("XX000", "(ECIRCUITBREAKER) too many authentication failures"), true),
            (Said("XX000", "Circuit breaker open: too many failed attempts"), true),
            (Said("28000", "role \"u\" is not permitted to log in"), true),
            (Said("57P03", "the database system is starting up"), false),
            (Said("53300", "sorry, too many clients already"), false),
            (Said("3D000", "database \"d\" does not exist"), false),
        ] {
            let (login, text) = (Login::new(options()), said.1);
            attempt(&login, Err(said));
            assert_eq!(login.refusal().is_some(), is_refusal, "{text}");
        }
    }
}
