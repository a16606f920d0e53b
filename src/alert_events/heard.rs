//! Whether rulers are heard at all: with a wrong secret, or if no post can be read or kept, no report
//! arrives, and silence means nothing.
//!
//! Each copy knows what came to itself, and says in the database to whom it is deaf ([`super::reception`]).
//!
//! - For whom a post speaks is not known without the secret, or if it names no tenant. A copy is deaf to all while
//!   such posts come to it and no others. Any post of a ruler that has the secret ends that, so where rulers post, a
//!   sender without it keeps no alert open. Where only some rulers have it, alerts of the others expire.
//! - Otherwise it is known. A copy is deaf to one organisation while posts of its tenant come and nothing of any is
//!   taken. So one whose alerts are malformed keeps no alert of another one open.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::labels::AlertPost;
use crate::tenancy::OrganisationId;

/// A ruler repeats a firing alert every minute (`ruler.resend_delay`), and says that it holds for four.
/// So after this time without an accepted post, and before any alert expires, it is clear.
const SILENCE: Duration = Duration::from_secs(120);
/// Organisations that it is deaf to. What is refused of others counts as if it were refused of all.
const MOST: usize = 10_000;

/// Who sent a post.
pub(crate) enum Sender {
    /// Who has not shown the secret, or has not named one tenant.
    Unknown,
    /// A ruler, for a tenant: that of an organisation, or of none.
    Ruler(Option<OrganisationId>),
}

#[derive(Default)]
pub(crate) struct Heard(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Of unknown senders, and of all others.
    all: Posts,
    /// Of organisations of which something was refused.
    organisations: HashMap<OrganisationId, Posts>,
    /// When something was refused of one that there was no room to remember.
    not_remembered: Option<Instant>,
}

/// When each last was.
#[derive(Default)]
struct Posts {
    accepted: Option<Instant>,
    refused: Option<Instant>,
}

fn is_recent(at: Option<Instant>, now: Instant) -> bool {
    at.is_some_and(|at| now < at + SILENCE)
}

impl Posts {
    fn note(&mut self, is_accepted: bool, now: Instant) {
        let at = if is_accepted { &mut self.accepted } else { &mut self.refused };
        *at = Some(now);
    }

    fn are_deaf(&self, now: Instant) -> bool {
        is_recent(self.refused, now) && !is_recent(self.accepted, now)
    }
}

impl Known {
    fn note(&mut self, organisation: OrganisationId, is_accepted: bool, now: Instant) {
        if let Some(posts) = self.organisations.get_mut(&organisation) {
            return posts.note(is_accepted, now);
        }
        // What was accepted before the first refusal is not remembered: it is deaf until something is again.
        if !is_accepted {
            if self.organisations.len() >= MOST {
                self.forget_old(now);
            }
            if self.organisations.len() < MOST {
                self.organisations.entry(organisation).or_default().note(false, now);
            } else {
                self.not_remembered = Some(now);
            }
        }
    }

    fn forget_old(&mut self, now: Instant) {
        self.organisations.retain(|_, posts| is_recent(posts.refused, now));
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

    /// Whether it is deaf to all, and the organisations that it is deaf to.
    pub(crate) fn deaf(&self) -> (bool, Vec<OrganisationId>) {
        let now = Instant::now();
        let mut known = self.0.lock();
        known.forget_old(now);
        let to_all = known.all.are_deaf(now) || is_recent(known.not_remembered, now);
        let some = known.organisations.iter().filter(|(_, posts)| posts.are_deaf(now));
        (to_all, some.map(|(organisation, _)| organisation.clone()).collect())
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

    /// Whether it is deaf to all, and to the organisation `a`.
    fn deaf(heard: &Heard) -> (bool, bool) {
        let (all, some) = heard.deaf();
        (all, some.contains(&organisation("a")))
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn posts_without_the_secret_alone_mean_that_no_report_could_arrive() {
        let heard = Heard::default();
        assert_eq!(deaf(&heard), (false, false), "without a post nothing shows a wrong secret");
        heard.note(ruler("b"), AlertPost::Accepted, 1);
        heard.note(Sender::Unknown, AlertPost::Unauthorised, 0);
        assert_eq!(deaf(&heard), (false, false), "one ruler has the secret");
        for _ in 0..5 {
            pass(60).await;
            heard.note(Sender::Unknown, AlertPost::Unauthorised, 0);
        }
        assert_eq!(deaf(&heard), (true, false));
        // The secret is right again.
        pass(30).await;
        heard.note(Sender::Ruler(None), AlertPost::UnknownOrganisation, 0);
        assert_eq!(deaf(&heard), (false, false));
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
            assert_eq!(deaf(&heard), (false, is_deaf), "{post:?}, {taken}");
        }
        for post in [Unauthorised, Malformed] {
            let heard = Heard::default();
            heard.note(Sender::Unknown, post, 0);
            assert_eq!(deaf(&heard), (true, false), "{post:?}");
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
            assert_eq!(heard.deaf(), (false, vec![organisation("a")]), "{minute}");
        }
        // Nothing is refused any more, or something is taken.
        pass(60).await;
        assert_eq!(deaf(&heard), (false, false));
        heard.note(ruler("a"), AlertPost::NoRoom, 0);
        pass(10).await;
        heard.note(ruler("a"), AlertPost::NoRoom, 1);
        assert_eq!(deaf(&heard), (false, false));
        pass(60).await;
        heard.note(ruler("a"), AlertPost::Malformed, 0);
        assert_eq!(deaf(&heard), (false, false), "what was taken counts");
        pass(60).await;
        assert_eq!(deaf(&heard), (false, true), "for a while");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_of_a_tenant_shows_that_its_ruler_has_the_secret() {
        let heard = Heard::default();
        heard.note(ruler("a"), AlertPost::TooLarge, 0);
        heard.note(Sender::Unknown, AlertPost::Unauthorised, 0);
        assert_eq!(deaf(&heard), (false, true));
    }

    #[tokio::test(start_paused = true)]
    async fn rulers_that_are_gone_are_not_waited_for() {
        let heard = Heard::default();
        heard.note(Sender::Unknown, AlertPost::Unauthorised, 0);
        assert_eq!(deaf(&heard), (true, false));
        pass(SILENCE.as_secs()).await;
        assert_eq!(deaf(&heard), (false, false));
    }

    #[tokio::test(start_paused = true)]
    async fn organisations_are_remembered_up_to_a_bound_and_beyond_it_all_are_left_alone() {
        let heard = Heard::default();
        for number in 0..MOST {
            heard.note(ruler(&format!("org-{number}")), AlertPost::NoRoom, 0);
        }
        heard.note(ruler("org-7"), AlertPost::NoRoom, 0);
        heard.note(ruler("a"), AlertPost::Accepted, 1);
        assert_eq!(deaf(&heard), (false, false), "neither needs more room");
        heard.note(ruler("a"), AlertPost::NoRoom, 0);
        assert_eq!(deaf(&heard), (true, false));
        assert_eq!(heard.deaf().1.len(), MOST);
        // Without another refusal they make room.
        pass(SILENCE.as_secs()).await;
        heard.note(ruler("a"), AlertPost::NoRoom, 0);
        assert_eq!(heard.deaf(), (false, vec![organisation("a")]));
        assert_eq!(heard.0.lock().organisations.len(), 1);
    }
}
