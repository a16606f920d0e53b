//! Whether rulers are heard at all: with a wrong secret, or if no post can be read or kept, no report
//! arrives, and silence means nothing.
//!
//! Each copy knows what came to itself, and only the leader's knowledge counts. It is deaf while posts
//! come and all of them are refused. One accepted post ends that, so a sender without the secret, or of what
//! is malformed, keeps no alert open where another ruler's posts are taken. Where only some rulers
//! are refused, alerts of those expire: which organisations they speak for is not known of a post
//! without the secret.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::labels::AlertPost;

/// A ruler repeats a firing alert every minute (`ruler.resend_delay`), and says that it holds for four.
/// So after this time without an accepted post, and before any alert expires, it is clear.
const SILENCE: Duration = Duration::from_secs(120);

#[derive(Default)]
pub(crate) struct Heard(Mutex<Posts>);

#[derive(Default)]
/// When each last was.
struct Posts {
    accepted: Option<Instant>,
    refused: Option<Instant>,
    /// When it was last seen to be deaf.
    deaf: Option<Instant>,
}

impl Heard {
    /// A post was answered, and so many of its alerts are in the buffer.
    pub(crate) fn note(&self, post: AlertPost, taken: usize) {
        let is_accepted = match post {
            // If nothing was taken, there was nothing to take.
            AlertPost::Accepted | AlertPost::UnknownOrganisation => true,
            // Some of its alerts may have been taken all the same.
            AlertPost::Malformed | AlertPost::NoRoom => taken > 0,
            AlertPost::Unauthorised | AlertPost::TooLarge | AlertPost::Busy => false,
        };
        let mut posts = self.0.lock();
        let at = if is_accepted { &mut posts.accepted } else { &mut posts.refused };
        *at = Some(Instant::now());
    }

    /// For how many seconds reports could arrive: none while it is deaf, and without end if it never was.
    pub(crate) fn watched_for(&self) -> f64 {
        let now = Instant::now();
        let mut posts = self.0.lock();
        let is_recent = |at: Option<Instant>| at.is_some_and(|at| now < at + SILENCE);
        if is_recent(posts.refused) && !is_recent(posts.accepted) {
            posts.deaf = Some(now);
        }
        posts.deaf.map_or(f64::INFINITY, |at| (now - at).as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(heard: &Heard) -> u64 {
        Duration::from_secs_f64(heard.watched_for()).as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn refused_posts_alone_mean_that_no_report_could_arrive() {
        let pass = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        let heard = Heard::default();
        assert!(heard.watched_for().is_infinite(), "no post is no sign of a wrong secret");
        heard.note(AlertPost::Accepted, 1);
        heard.note(AlertPost::Unauthorised, 0);
        assert!(heard.watched_for().is_infinite(), "one ruler has the secret");
        for _ in 0..5 {
            pass(60).await;
            heard.note(AlertPost::Unauthorised, 0);
        }
        assert_eq!(seconds(&heard), 0);
        // The secret is right again: it counts from now on.
        pass(30).await;
        heard.note(AlertPost::UnknownOrganisation, 0);
        assert_eq!(seconds(&heard), 30);
        pass(300).await;
        assert_eq!(seconds(&heard), 330);
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
            (Unauthorised, 0, true),
        ] {
            let heard = Heard::default();
            heard.note(post, taken);
            assert_eq!(heard.watched_for() == 0.0, is_deaf, "{post:?}, {taken}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn malformed_posts_of_one_tenant_do_not_make_the_leader_deaf_to_others() {
        let heard = Heard::default();
        for _ in 0..10 {
            heard.note(AlertPost::Accepted, 1);
            for _ in 0..6 {
                heard.note(AlertPost::Malformed, 0);
                tokio::time::advance(Duration::from_secs(10)).await;
                assert!(heard.watched_for().is_infinite());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rulers_that_are_gone_are_not_waited_for() {
        let heard = Heard::default();
        heard.note(AlertPost::Unauthorised, 0);
        assert_eq!(seconds(&heard), 0);
        tokio::time::advance(SILENCE).await;
        assert_eq!(seconds(&heard), SILENCE.as_secs());
    }
}
