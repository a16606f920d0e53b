//! Whether rulers are heard at all: with a wrong secret, or if no post can be read or kept, no report
//! arrives, and silence means nothing.
//!
//! Each copy knows what came to itself, and only the leader's knowledge counts.
//!
//! - For whom a post speaks is not known without the secret, or if it names no tenant. The leader is deaf to all while
//!   such posts come and no others. Any post of a ruler that has the secret ends that, so a sender without it keeps no
//!   alert open. Where only some rulers have it, alerts of the others expire.
//! - Otherwise it is known. The leader is deaf to one organisation while posts of its tenant come and nothing of any is
//!   taken. So one whose alerts are malformed keeps no alert of another one open.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::message::LONGEST_VALID;
use crate::labels::AlertPost;
use crate::tenancy::OrganisationId;

/// A ruler repeats a firing alert every minute (`ruler.resend_delay`), and says that it holds for four.
/// So after this time without an accepted post, and before any alert expires, it is clear.
const SILENCE: Duration = Duration::from_secs(120);
/// After this time it makes no difference that it was deaf: no alert holds for longer than one report says.
const REMEMBERED: Duration = Duration::from_millis(LONGEST_VALID.unsigned_abs());
/// The same for nearly all alerts, which hold for some minutes: where there are too many organisations to remember.
const SETTLED: Duration = Duration::from_secs(3600);
/// Organisations that it was deaf to within that time. What is refused of others counts as if it were refused of all.
const MOST: usize = 10_000;

/// Who sent a post.
pub(crate) enum Sender {
    /// Who has not shown the secret, or has not named one tenant.
    Unknown,
    /// A ruler, for a tenant: that of an organisation, or of none.
    Ruler(Option<OrganisationId>),
}

/// For how many seconds reports could arrive.
pub(crate) struct WatchedFor {
    pub(crate) all: f64,
    /// Of organisations of which they could for less time.
    pub(crate) some: Vec<(OrganisationId, f64)>,
}

#[derive(Default)]
pub(crate) struct Heard(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Of unknown senders, and of all others.
    all: Posts,
    /// Of organisations that it was deaf to.
    organisations: HashMap<OrganisationId, Posts>,
}

/// When each last was.
#[derive(Default)]
struct Posts {
    accepted: Option<Instant>,
    refused: Option<Instant>,
    /// When it was last seen to be deaf.
    deaf: Option<Instant>,
}

impl Posts {
    fn note(&mut self, is_accepted: bool, now: Instant) {
        let at = if is_accepted { &mut self.accepted } else { &mut self.refused };
        *at = Some(now);
        // A copy that does not lead is not asked, and may lead next.
        self.last_deaf(now);
    }

    /// The last time at which it was deaf.
    fn last_deaf(&mut self, now: Instant) -> Option<Instant> {
        let is_recent = |at: Option<Instant>| at.is_some_and(|at| now < at + SILENCE);
        if is_recent(self.refused) && !is_recent(self.accepted) {
            self.deaf = Some(now);
        }
        self.deaf
    }
}

impl Known {
    fn note(&mut self, organisation: OrganisationId, is_accepted: bool, now: Instant) {
        if let Some(posts) = self.organisations.get_mut(&organisation) {
            return posts.note(is_accepted, now);
        }
        // What was accepted before the first refusal is not remembered: it is deaf until something is again.
        if !is_accepted {
            for older in [REMEMBERED, SETTLED] {
                if self.organisations.len() >= MOST {
                    self.forget_old(now, older);
                }
            }
            if self.organisations.len() < MOST {
                self.organisations.entry(organisation).or_default().note(false, now);
            } else {
                self.all.deaf = Some(now);
            }
        }
    }

    fn forget_old(&mut self, now: Instant, older: Duration) {
        let is_remembered = |deaf: Instant| now < deaf + older;
        self.organisations.retain(|_, posts| posts.last_deaf(now).is_some_and(is_remembered));
    }
}

impl Heard {
    /// A post was answered, and so many of its alerts are in the buffer.
    pub(crate) fn note(&self, sender: Sender, post: AlertPost, taken: usize) {
        let is_accepted = match post {
            // If nothing was taken, there was nothing to take.
            AlertPost::Accepted | AlertPost::UnknownOrganisation => true,
            // Some of its alerts may have been taken all the same.
            AlertPost::Malformed | AlertPost::NoRoom => taken > 0,
            AlertPost::Unauthorised | AlertPost::TooLarge | AlertPost::Busy => false,
        };
        let now = Instant::now();
        let mut known = self.0.lock();
        match sender {
            Sender::Unknown => known.all.note(false, now),
            Sender::Ruler(organisation) => {
                known.all.note(true, now);
                if let Some(organisation) = organisation {
                    known.note(organisation, is_accepted, now);
                }
            }
        }
    }

    /// For how long reports could arrive: not at all while it is deaf, and without end if it never was.
    pub(crate) fn watched_for(&self) -> WatchedFor {
        let now = Instant::now();
        let mut known = self.0.lock();
        known.forget_old(now, REMEMBERED);
        let since = |deaf: Instant| (now - deaf).as_secs_f64();
        let all = known.all.last_deaf(now).map_or(f64::INFINITY, since);
        let some = known.organisations.iter_mut().filter_map(|(organisation, posts)| {
            Some((organisation.clone(), since(posts.last_deaf(now)?)))
        });
        WatchedFor { all, some: some.collect() }
    }

    /// Since when it hears all, and one organisation, in whole seconds; none if it always did.
    #[cfg(test)]
    pub(crate) fn seconds(&self, organisation: &OrganisationId) -> (Option<u64>, Option<u64>) {
        let WatchedFor { all, some } = self.watched_for();
        let one = some.into_iter().find(|(other, _)| other == organisation);
        let whole = |seconds| Some(Duration::try_from_secs_f64(seconds).ok()?.as_secs());
        (whole(all), one.and_then(|(_, seconds)| whole(seconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn organisation(name: &str) -> OrganisationId {
        OrganisationId::parse(name).unwrap()
    }

    fn ruler(name: &str) -> Sender {
        Sender::Ruler(Some(organisation(name)))
    }

    /// Since when it hears all, and the organisation `a`.
    fn seconds(heard: &Heard) -> (Option<u64>, Option<u64>) {
        heard.seconds(&organisation("a"))
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn posts_without_the_secret_alone_mean_that_no_report_could_arrive() {
        let heard = Heard::default();
        assert_eq!(seconds(&heard), (None, None), "without a post nothing shows a wrong secret");
        heard.note(ruler("b"), AlertPost::Accepted, 1);
        heard.note(Sender::Unknown, AlertPost::Unauthorised, 0);
        assert_eq!(seconds(&heard), (None, None), "one ruler has the secret");
        for _ in 0..5 {
            pass(60).await;
            heard.note(Sender::Unknown, AlertPost::Unauthorised, 0);
        }
        assert_eq!(seconds(&heard), (Some(0), None));
        // The secret is right again: it counts from now on.
        pass(30).await;
        heard.note(Sender::Ruler(None), AlertPost::UnknownOrganisation, 0);
        assert_eq!(seconds(&heard), (Some(30), None));
        pass(300).await;
        assert_eq!(seconds(&heard), (Some(330), None));
    }

    // Nothing of such a post is known: what fires by it would seem to be over.
    #[tokio::test(start_paused = true)]
    async fn a_post_of_which_nothing_is_taken_is_not_heard() {
        use AlertPost::{
            Accepted, Busy, Malformed, NoRoom, TooLarge, Unauthorised, UnknownOrganisation,
        };
        for (post, taken, is_deaf) in [
            (Accepted, 1, false),
            (Accepted, 0, false),
            (UnknownOrganisation, 0, false),
            (Malformed, 1, false),
            (NoRoom, 1, false),
            (Malformed, 0, true),
            (NoRoom, 0, true),
            (TooLarge, 0, true),
            (Busy, 0, true),
        ] {
            let heard = Heard::default();
            heard.note(ruler("a"), post, taken);
            let expected = (None, is_deaf.then_some(0));
            assert_eq!(seconds(&heard), expected, "{post:?}, {taken}");
        }
        for post in [Unauthorised, Malformed] {
            let heard = Heard::default();
            heard.note(Sender::Unknown, post, 0);
            assert_eq!(seconds(&heard), (Some(0), None), "{post:?}");
        }
    }

    // One with an alert of more than 64 KiB kept the events of all organisations open.
    #[tokio::test(start_paused = true)]
    async fn posts_of_one_tenant_of_which_nothing_is_taken_concern_no_other() {
        let heard = Heard::default();
        for minute in 0..10 {
            heard.note(ruler("a"), AlertPost::Malformed, 0);
            // Nor does what is taken of others help this one.
            heard.note(ruler("b"), AlertPost::Accepted, 1);
            pass(60).await;
            assert_eq!(seconds(&heard), (None, Some(0)), "{minute}");
            assert_eq!(heard.seconds(&organisation("b")), (None, None));
        }
        // Nothing is refused any more, or something is taken.
        pass(60).await;
        assert_eq!(seconds(&heard), (None, Some(60)));
        heard.note(ruler("a"), AlertPost::NoRoom, 0);
        pass(10).await;
        heard.note(ruler("a"), AlertPost::NoRoom, 1);
        assert_eq!(seconds(&heard), (None, Some(10)));
        pass(60).await;
        heard.note(ruler("a"), AlertPost::Malformed, 0);
        assert_eq!(seconds(&heard), (None, Some(70)), "what was taken counts");
        pass(60).await;
        assert_eq!(seconds(&heard), (None, Some(0)), "for a while");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_of_a_tenant_shows_that_its_ruler_has_the_secret() {
        let heard = Heard::default();
        heard.note(ruler("a"), AlertPost::TooLarge, 0);
        heard.note(Sender::Unknown, AlertPost::Unauthorised, 0);
        assert_eq!(seconds(&heard), (None, Some(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn rulers_that_are_gone_are_not_waited_for() {
        let heard = Heard::default();
        heard.note(Sender::Unknown, AlertPost::Unauthorised, 0);
        assert_eq!(seconds(&heard), (Some(0), None));
        pass(SILENCE.as_secs()).await;
        assert_eq!(seconds(&heard), (Some(SILENCE.as_secs()), None));
    }

    #[tokio::test(start_paused = true)]
    async fn organisations_are_remembered_up_to_a_bound_and_beyond_it_all_are_left_alone() {
        let heard = Heard::default();
        for number in 0..MOST {
            heard.note(ruler(&format!("org-{number}")), AlertPost::NoRoom, 0);
        }
        assert_eq!(seconds(&heard), (None, None));
        heard.note(ruler("org-7"), AlertPost::NoRoom, 0);
        heard.note(ruler("a"), AlertPost::Accepted, 1);
        assert_eq!(seconds(&heard), (None, None), "neither needs another place");
        heard.note(ruler("a"), AlertPost::NoRoom, 0);
        assert_eq!(seconds(&heard), (Some(0), None));
        assert_eq!(heard.watched_for().some.len(), MOST);
        // After an hour without another refusal they make room, and after days also where there is some.
        tokio::time::advance(SETTLED).await;
        heard.note(ruler("org-7"), AlertPost::NoRoom, 0);
        heard.note(ruler("b"), AlertPost::NoRoom, 0);
        assert_eq!(heard.0.lock().organisations.len(), 2);
        assert_eq!(seconds(&heard), (Some(SETTLED.as_secs()), None));
        tokio::time::advance(REMEMBERED + SILENCE).await;
        heard.note(ruler("a"), AlertPost::NoRoom, 0);
        assert_eq!(heard.watched_for().some.len(), 1);
        let since = (SETTLED + REMEMBERED + SILENCE).as_secs();
        assert_eq!(seconds(&heard), (Some(since), Some(0)));
        tokio::time::advance(REMEMBERED + SILENCE).await;
        assert!(heard.watched_for().some.is_empty());
    }
}
