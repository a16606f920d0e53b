//! Tokens withdrawn before their time: by user, by session, or one by one.
//!
//! All withdrawals are held in memory and looked at with every request, so that they strike cached
//! tokens too. They are read anew on every change and once a minute. Until they have been read once,
//! or when they are too old, no user's token is believed: that is ours to blame.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::principal::User;
use super::refusal::Refusal;
use crate::store::{RevocationKind, RevocationRow, Store};
use crate::telemetry::Metrics;

/// What has been withdrawn.
pub struct Revocations {
    state: ArcSwapOption<State>,
    wake: Notify,
    max_age: Duration,
    metrics: Arc<Metrics>,
}

struct State {
    list: List,
    read_at: Instant,
}

#[derive(Default)]
struct List {
    subjects: HashMap<Uuid, Until>,
    sessions: HashMap<Box<str>, Until>,
    tokens: HashMap<Box<str>, Until>,
}

/// Which tokens are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Until {
    /// Those issued until then, in seconds since the epoch.
    Issued(i64),
    /// All.
    Ever,
}

const READ_EVERY: Duration = Duration::from_secs(60);
const FIRST_RETRY: Duration = Duration::from_millis(200);

impl Revocations {
    /// Knows of no withdrawal yet, and therefore believes nobody.
    pub fn new(max_age: Duration, metrics: Arc<Metrics>) -> Self {
        // What is read once a minute is not too old within that minute.
        let max_age = max_age.max(2 * READ_EVERY);
        Self { state: ArcSwapOption::empty(), wake: Notify::new(), max_age, metrics }
    }

    pub(super) fn check(&self, user: &User) -> Result<(), Refusal> {
        let state = self.state.load();
        let state = state.as_ref().filter(|state| state.read_at.elapsed() <= self.max_age);
        match state {
            None => Err(Refusal::DatabaseUnavailable),
            Some(state) if state.list.covers(user) => Err(Refusal::Revoked),
            Some(_) => Ok(()),
        }
    }

    /// Whether some withdrawals are about a user's token.
    pub fn are_about(rows: &[RevocationRow], user: &User) -> bool {
        List::of(rows).covers(user)
    }

    /// Something has been withdrawn, or may have been.
    pub fn invalidate(&self) {
        self.wake.notify_one();
    }

    /// Reads all withdrawals at once, at every change, and once a minute, until it is cancelled.
    pub async fn run(&self, store: Store, cancelled: CancellationToken) {
        let mut retry = FIRST_RETRY;
        loop {
            let pause = match store.revocations().await {
                Ok(rows) => {
                    self.adopt(&rows);
                    retry = FIRST_RETRY;
                    READ_EVERY
                }
                Err(error) => {
                    tracing::warn!(%error, "Revocations not read");
                    retry = (retry * 2).min(Duration::from_secs(5));
                    retry
                }
            };
            tokio::select! {
                () = cancelled.cancelled() => return,
                () = sleep(pause) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    fn adopt(&self, rows: &[RevocationRow]) {
        let list = List::of(rows);
        self.metrics.revocations.set(f64::from(u32::try_from(rows.len()).unwrap_or(u32::MAX)));
        self.state.store(Some(Arc::new(State { list, read_at: Instant::now() })));
    }
}

impl List {
    fn of(rows: &[RevocationRow]) -> Self {
        let mut list = Self::default();
        for row in rows {
            let until = row.issued_before.map_or(Until::Ever, Until::Issued);
            let noted = match row.kind {
                RevocationKind::Subject => match Uuid::try_parse(&row.value) {
                    Ok(user) => list.subjects.entry(user).or_insert(until),
                    Err(_) => {
                        tracing::error!(value = row.value, "Revocation of a sub that is no UUID");
                        continue;
                    }
                },
                RevocationKind::Session => {
                    list.sessions.entry(row.value.as_str().into()).or_insert(until)
                }
                RevocationKind::TokenId => {
                    list.tokens.entry(row.value.as_str().into()).or_insert(until)
                }
            };
            *noted = until.max(*noted);
        }
        list
    }

    fn covers(&self, user: &User) -> bool {
        let of_session = user.session_id().and_then(|id| self.sessions.get(id));
        let of_token = user.token_id().and_then(|id| self.tokens.get(id));
        let of_subject = self.subjects.get(&user.id().0);
        [of_subject, of_session, of_token].into_iter().flatten().any(|until| match until {
            Until::Ever => true,
            // A token that does not say when it was issued may be old.
            Until::Issued(last) => user.issued_at().is_none_or(|at| at <= *last),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::principal::samples;
    use crate::telemetry::MetricNames;

    fn row(kind: RevocationKind, value: &str, issued_before: Option<i64>) -> RevocationRow {
        RevocationRow { kind, value: value.to_owned(), issued_before }
    }

    #[test]
    fn a_withdrawal_strikes_by_user_by_session_and_by_token() {
        let user = samples::user();
        let strikes = |row: RevocationRow| List::of(&[row]).covers(&user);
        let id = user.id().to_string();
        assert!(strikes(row(RevocationKind::Subject, &id, None)));
        assert!(strikes(row(RevocationKind::Subject, &id.to_uppercase(), None)));
        assert!(strikes(row(RevocationKind::Session, samples::SESSION, None)));
        assert!(strikes(row(RevocationKind::TokenId, samples::TOKEN_ID, None)));
        assert!(!strikes(row(RevocationKind::Subject, &Uuid::new_v4().to_string(), None)));
        assert!(!strikes(row(RevocationKind::Session, samples::TOKEN_ID, None)));
        assert!(!strikes(row(RevocationKind::TokenId, samples::SESSION, None)));
    }

    #[test]
    fn only_tokens_of_before_may_be_meant_and_the_widest_row_counts() {
        let user = samples::user();
        let until = |last| row(RevocationKind::Session, samples::SESSION, last);
        assert!(List::of(&[until(Some(samples::ISSUED_AT))]).covers(&user));
        assert!(!List::of(&[until(Some(samples::ISSUED_AT - 1))]).covers(&user));
        let both = [until(Some(0)), until(None)];
        assert!(List::of(&both).covers(&user));
        assert!(List::of(&[both[1].clone(), both[0].clone()]).covers(&user));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_believed_before_the_withdrawals_are_known_or_when_they_are_old() {
        let metrics = Arc::new(Metrics::register(&MetricNames::default()));
        let revocations = Revocations::new(Duration::from_secs(600), metrics);
        let user = samples::user();
        assert_eq!(revocations.check(&user), Err(Refusal::DatabaseUnavailable));
        revocations.adopt(&[]);
        assert_eq!(revocations.check(&user), Ok(()));
        sleep(Duration::from_secs(601)).await;
        assert_eq!(revocations.check(&user), Err(Refusal::DatabaseUnavailable));
        revocations.adopt(&[row(RevocationKind::Subject, &user.id().to_string(), None)]);
        assert_eq!(revocations.check(&user), Err(Refusal::Revoked));
    }
}
