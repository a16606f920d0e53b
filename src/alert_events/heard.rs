//! Whether rulers are heard at all: with a wrong secret no report arrives, and silence means nothing.
//!
//! Each copy knows what came to itself, and only the leader's knowledge counts. It is deaf while posts
//! come and all of them are refused. One accepted post ends that, so whoever posts without the secret
//! keeps no alert open where a ruler has it. Where only some rulers have a wrong secret, alerts of those
//! expire: which organisations they speak for is not known of a post that is refused.

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
    pub(crate) fn note(&self, post: AlertPost) {
        let mut posts = self.0.lock();
        let at = match post {
            AlertPost::Unauthorised => &mut posts.refused,
            _ => &mut posts.accepted,
        };
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
        heard.note(AlertPost::Accepted);
        heard.note(AlertPost::Unauthorised);
        assert!(heard.watched_for().is_infinite(), "one ruler has the secret");
        for _ in 0..5 {
            pass(60).await;
            heard.note(AlertPost::Unauthorised);
        }
        assert_eq!(seconds(&heard), 0);
        // The secret is right again: it counts from now on.
        pass(30).await;
        heard.note(AlertPost::UnknownOrganisation);
        assert_eq!(seconds(&heard), 30);
        pass(300).await;
        assert_eq!(seconds(&heard), 330);
    }

    #[tokio::test(start_paused = true)]
    async fn rulers_that_are_gone_are_not_waited_for() {
        let heard = Heard::default();
        heard.note(AlertPost::Unauthorised);
        assert_eq!(seconds(&heard), 0);
        tokio::time::advance(SILENCE).await;
        assert_eq!(seconds(&heard), SILENCE.as_secs());
    }
}
