//! Tokens revoked before they expire: by user, by session, or one by one.
//!
//! All revocations are kept in memory and checked on every request, so that they apply to cached
//! tokens too. They are read again on every change and once a minute, and twice a second while the
//! `LISTEN` connection is lost. Until the first read, when they are too old, and when a change is
//! known and cannot be read, users get 503: the fault is ours.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::principal::User;
use super::refusal::{Refusal, RevokedUser};
use crate::backoff::Backoff;
use crate::clock::{self, boot_instant, elapsed_since};
use crate::store::{Feed, MOST_REVOCATIONS_DELETED, RevocationKind, RevocationRow, Store};
use crate::telemetry::Metrics;

pub struct Revocations {
    state: ArcSwapOption<State>,
    /// When the oldest unread change was announced, in milliseconds since the start; 0 for none.
    unread_since: AtomicU64,
    /// The same for the newest change, read or not.
    newest_change: AtomicU64,
    began: Instant,
    /// The machine's suspensions that are known.
    absences: AtomicU64,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Until {
    /// Those issued until then, in seconds since the epoch.
    Issued(i64),
    Ever,
}

const READ_EVERY: Duration = Duration::from_secs(60);
const UNWATCHED: Duration = Duration::from_millis(500);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(2);
/// How often rows that have ended are deleted, and how soon again while there are more.
const TIDY_EVERY: Duration = Duration::from_secs(3600);
const TIDY_AGAIN: Duration = Duration::from_secs(1);
/// How long an announced change may stay unread.
const LONGEST_UNREAD: Duration = Duration::from_secs(1);

impl Revocations {
    /// Nothing is known yet, so every user is refused (503).
    pub fn new(max_age: Duration, metrics: Arc<Metrics>) -> Self {
        // What is read once a minute is not too old within that minute.
        let max_age = max_age.max(2 * READ_EVERY);
        Self {
            state: ArcSwapOption::empty(),
            unread_since: AtomicU64::new(0),
            newest_change: AtomicU64::new(0),
            began: boot_instant(),
            absences: AtomicU64::new(clock::absences()),
            wake: Notify::new(),
            max_age,
            metrics,
        }
    }

    pub(super) fn check(&self, user: &User) -> Result<(), Refusal> {
        self.note_absence();
        let state = self.state.load();
        let state = state.as_ref().filter(|state| elapsed_since(state.read_at) <= self.max_age);
        match state {
            Some(state) if !self.is_behind() => match state.list.strikes(user) {
                None => Ok(()),
                Some(until) => {
                    let until_issued = until != Until::Ever;
                    Err(Refusal::Revoked(RevokedUser { user: user.id(), until_issued }))
                }
            },
            _ => Err(Refusal::DatabaseUnavailable),
        }
    }

    /// Whether an announced change has been unread for too long. Known-outdated data is not used.
    fn is_behind(&self) -> bool {
        let unread_since = self.unread_since.load(Ordering::SeqCst);
        unread_since > 0
            && elapsed_since(self.began) > Duration::from_millis(unread_since) + LONGEST_UNREAD
    }

    /// How long ago the revocations were read; none if they never were.
    pub fn age(&self) -> Option<Duration> {
        self.state.load().as_ref().map(|state| elapsed_since(state.read_at))
    }

    /// Whether some revocations are about a user's token.
    pub fn are_about(rows: &[RevocationRow], user: &User) -> bool {
        List::of(rows).strikes(user).is_some()
    }

    /// Waits until they have been read once.
    pub async fn first_read(&self) {
        while self.age().is_none() {
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn invalidate(&self) {
        let now = self.millis().max(1);
        self.newest_change.store(now, Ordering::SeqCst);
        self.note_unread(now);
        self.wake.notify_one();
    }

    /// What was announced while the machine was suspended may be lost.
    fn note_absence(&self) {
        let absences = clock::absences();
        if self.absences.swap(absences, Ordering::Relaxed) != absences {
            self.invalidate();
        }
    }

    /// The first change that is unread counts.
    fn note_unread(&self, at: u64) {
        let _ = self.unread_since.compare_exchange(0, at, Ordering::SeqCst, Ordering::SeqCst);
    }

    pub fn refresh(&self) {
        self.wake.notify_one();
    }

    fn millis(&self) -> u64 {
        u64::try_from(elapsed_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    /// Reads all revocations at start, on every change and at intervals, until it is cancelled.
    pub async fn run(&self, store: Store, feed: Arc<Feed>, cancelled: CancellationToken) {
        let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        loop {
            let began = self.millis();
            let pause = match store.revocations().await {
                Ok(rows) => {
                    self.adopt(&rows, began);
                    backoff.reset();
                    if feed.is_connected() { READ_EVERY } else { UNWATCHED }
                }
                Err(error) => {
                    tracing::warn!(%error, "Failed to read revocations");
                    self.metrics.revocation_failures.increment(1);
                    backoff.next_wait()
                }
            };
            tokio::select! {
                () = cancelled.cancelled() => return,
                () = clock::rest(pause) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// Deletes rows that have ended, until it is cancelled. All rows are read on every change, within the time
    /// of a query, and nobody else deletes any: a table that only grows would one day not be read in time,
    /// and all users would get 503. Beside [`Self::run`], whose next reading must not wait for that.
    pub async fn tidy(&self, store: Store, cancelled: CancellationToken) {
        loop {
            let pause = if self.age().is_some() {
                match store.delete_ended_revocations().await {
                    Ok(MOST_REVOCATIONS_DELETED) => TIDY_AGAIN,
                    Ok(_) => TIDY_EVERY,
                    Err(error) => {
                        tracing::warn!(%error, "Failed to delete ended revocations");
                        TIDY_EVERY
                    }
                }
            } else {
                // The database is away, which is told already.
                TIDY_AGAIN
            };
            tokio::select! {
                () = cancelled.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }

    /// Takes what was read; changes that came after the reading had begun are not in it.
    fn adopt(&self, rows: &[RevocationRow], began: u64) {
        let state = State { list: List::of(rows), read_at: boot_instant() };
        self.state.store(Some(Arc::new(state)));
        if self.unread_since.load(Ordering::SeqCst) <= began {
            self.unread_since.store(0, Ordering::SeqCst);
            let newest = self.newest_change.load(Ordering::SeqCst);
            if newest > began {
                self.note_unread(newest);
            }
        }
        self.metrics.revocations.set(f64::from(u32::try_from(rows.len()).unwrap_or(u32::MAX)));
    }
}

impl List {
    /// White space around a value is none of it, in a row as in a token: a row that was pasted with a line
    /// break and then struck nobody would leave the access that it is to end.
    fn of(rows: &[RevocationRow]) -> Self {
        let mut list = Self::default();
        for row in rows {
            let until = row.issued_before.map_or(Until::Ever, Until::Issued);
            let value = row.value.trim();
            let noted = match row.kind {
                RevocationKind::Subject => {
                    let Ok(user) = Uuid::try_parse(value) else {
                        tracing::error!(
                            value = row.value,
                            "Revocation ignored: its sub is not a UUID"
                        );
                        continue;
                    };
                    list.subjects.entry(user).or_insert(until)
                }
                RevocationKind::Session => list.sessions.entry(canonical(value)).or_insert(until),
                RevocationKind::TokenId => list.tokens.entry(value.into()).or_insert(until),
            };
            *noted = until.max(*noted);
        }
        list
    }

    /// The widest revocation that is about a user's token.
    fn strikes(&self, user: &User) -> Option<Until> {
        let of_session = user
            .session_id()
            .filter(|_| !self.sessions.is_empty())
            .and_then(|id| self.sessions.get(&canonical(id)));
        let of_token = user.token_id().and_then(|id| self.tokens.get(id.trim()));
        let of_subject = self.subjects.get(&user.id().0);
        let about = [of_subject, of_session, of_token].into_iter().flatten().copied();
        about
            .filter(|until| match until {
                Until::Ever => true,
                // A token that does not say when it was issued may be old.
                Until::Issued(last) => user.issued_at().is_none_or(|at| at <= *last),
            })
            .max()
    }
}

/// One spelling of a session's identifier, which is a UUID.
fn canonical(session: &str) -> Box<str> {
    let session = session.trim();
    match Uuid::try_parse(session) {
        Ok(id) => id.hyphenated().to_string().into(),
        Err(_) => session.into(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::authn::principal::samples;

    fn row(kind: RevocationKind, value: &str, issued_before: Option<i64>) -> RevocationRow {
        RevocationRow { kind, value: value.to_owned(), issued_before }
    }

    #[test]
    fn a_revocation_strikes_by_user_by_session_and_by_token() {
        let user = samples::user();
        let strikes = |row: RevocationRow| List::of(&[row]).strikes(&user).is_some();
        let id = user.id().to_string();
        assert!(strikes(row(RevocationKind::Subject, &id, None)));
        assert!(strikes(row(RevocationKind::Subject, &id.to_uppercase(), None)));
        assert!(strikes(row(RevocationKind::Session, samples::SESSION, None)));
        assert!(strikes(row(RevocationKind::Session, &samples::SESSION.to_uppercase(), None)));
        assert!(strikes(row(RevocationKind::TokenId, samples::TOKEN_ID, None)));
        assert!(!strikes(row(RevocationKind::Subject, &Uuid::new_v4().to_string(), None)));
        assert!(!strikes(row(RevocationKind::Session, samples::TOKEN_ID, None)));
        assert!(!strikes(row(RevocationKind::TokenId, samples::SESSION, None)));
    }

    // Seen: a row that was pasted with a line break struck nobody, and only a line of the log said so.
    #[test]
    fn white_space_around_a_value_does_not_matter() {
        let user = samples::user();
        let id = user.id().to_string();
        for (kind, value) in [
            (RevocationKind::Subject, id.as_str()),
            (RevocationKind::Session, samples::SESSION),
            (RevocationKind::TokenId, samples::TOKEN_ID),
        ] {
            for around in [format!("{value}\n"), format!(" {value}"), format!("\t{value} \r\n")] {
                let list = List::of(&[row(kind, &around, None)]);
                assert_eq!(list.strikes(&user), Some(Until::Ever), "{around:?}");
            }
        }
        // A session that is no UUID, and a token whose identifier has the white space itself.
        let claimed = user.claimed().clone();
        let odd = User::new(user.id(), Some("s 1 "), Some(" t 1"), None, None, claimed);
        assert!(List::of(&[row(RevocationKind::Session, "s 1", None)]).strikes(&odd).is_some());
        assert!(List::of(&[row(RevocationKind::TokenId, " t 1\n", None)]).strikes(&odd).is_some());
        assert!(List::of(&[row(RevocationKind::TokenId, "t1", None)]).strikes(&odd).is_none());
    }

    #[test]
    fn only_tokens_of_before_may_be_meant_and_the_widest_row_counts() {
        let user = samples::user();
        let until = |last| row(RevocationKind::Session, samples::SESSION, last);
        assert!(List::of(&[until(Some(samples::ISSUED_AT))]).strikes(&user).is_some());
        assert!(List::of(&[until(Some(samples::ISSUED_AT - 1))]).strikes(&user).is_none());
        let both = [until(Some(0)), until(None)];
        assert!(List::of(&both).strikes(&user).is_some());
        assert!(List::of(&[both[1].clone(), both[0].clone()]).strikes(&user).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_believed_before_the_revocations_are_known_or_when_they_are_old() {
        let metrics = Arc::new(Metrics::register());
        let revocations = Revocations::new(Duration::from_secs(600), metrics);
        let user = samples::user();
        assert_eq!(revocations.check(&user), Err(Refusal::DatabaseUnavailable));
        revocations.adopt(&[], 0);
        assert_eq!(revocations.check(&user), Ok(()));
        sleep(Duration::from_secs(601)).await;
        assert_eq!(revocations.check(&user), Err(Refusal::DatabaseUnavailable));
        revocations.adopt(&[row(RevocationKind::Subject, &user.id().to_string(), None)], 0);
        let struck = RevokedUser { user: user.id(), until_issued: false };
        assert_eq!(revocations.check(&user), Err(Refusal::Revoked(struck)));
    }

    // `Instant` stands still while the machine is suspended.
    #[tokio::test(start_paused = true)]
    async fn a_suspended_machine_reads_the_revocations_again_at_once() {
        let revocations = Revocations::new(Duration::from_secs(600), Arc::new(Metrics::register()));
        let user = samples::user();
        revocations.adopt(&[], 0);
        clock::suspend(Duration::from_secs(601));
        assert_eq!(revocations.check(&user), Err(Refusal::DatabaseUnavailable));
        revocations.adopt(&[], revocations.millis());
        assert_eq!(revocations.check(&user), Ok(()));
        // A shorter one: they are read at once, and believed for a second.
        clock::suspend(Duration::from_secs(60));
        assert_eq!(revocations.check(&user), Ok(()));
        assert!(timeout(Duration::ZERO, revocations.wake.notified()).await.is_ok());
        sleep(LONGEST_UNREAD * 2).await;
        assert_eq!(revocations.check(&user), Err(Refusal::DatabaseUnavailable));
        revocations.adopt(&[], revocations.millis());
        assert_eq!(revocations.check(&user), Ok(()));
    }

    // What is known to have changed is not believed, however long the database stays away.
    #[tokio::test(start_paused = true)]
    async fn a_change_that_cannot_be_read_makes_nobody_believed() {
        let metrics = Arc::new(Metrics::register());
        let revocations = Revocations::new(Duration::from_secs(600), metrics);
        let user = samples::user();
        revocations.adopt(&[], 0);
        sleep(Duration::from_secs(5)).await;
        revocations.invalidate();
        assert_eq!(revocations.check(&user), Ok(()));
        sleep(LONGEST_UNREAD * 2).await;
        assert_eq!(revocations.check(&user), Err(Refusal::DatabaseUnavailable));
        // A reading that had begun before the change says nothing about it.
        revocations.adopt(&[], 4000);
        assert_eq!(revocations.check(&user), Err(Refusal::DatabaseUnavailable));
        revocations.adopt(&[], revocations.millis());
        assert_eq!(revocations.check(&user), Ok(()));
        // Of two changes the second came while the first was being read.
        revocations.invalidate();
        sleep(Duration::from_millis(10)).await;
        let began = revocations.millis();
        sleep(Duration::from_millis(10)).await;
        revocations.invalidate();
        revocations.adopt(&[], began);
        sleep(LONGEST_UNREAD * 2).await;
        assert_eq!(revocations.check(&user), Err(Refusal::DatabaseUnavailable));
        revocations.adopt(&[], revocations.millis());
        assert_eq!(revocations.check(&user), Ok(()));
    }
}
