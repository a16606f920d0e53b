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
struct Posts {
    accepted_at: Option<Instant>,
    refused_at: Option<Instant>,
    /// When it was last seen to be deaf.
    deaf_at: Option<Instant>,
}

impl Heard {
    pub(crate) fn note(&self, post: AlertPost) {
        let mut posts = self.0.lock();
        let at = match post {
            AlertPost::Unauthorised => &mut posts.refused_at,
            _ => &mut posts.accepted_at,
        };
        *at = Some(Instant::now());
    }

    /// For how many seconds reports could arrive: none while it is deaf, and without end if it never was.
    pub(crate) fn watched_for(&self) -> f64 {
        let now = Instant::now();
        let mut posts = self.0.lock();
        let is_recent = |at: Option<Instant>| at.is_some_and(|at| now < at + SILENCE);
        if is_recent(posts.refused_at) && !is_recent(posts.accepted_at) {
            posts.deaf_at = Some(now);
        }
        posts.deaf_at.map_or(f64::INFINITY, |at| (now - at).as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn refused_posts_alone_mean_that_no_report_could_arrive() {
        let pass = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        let heard = Heard::default();
        assert_eq!(heard.watched_for(), f64::INFINITY, "no post is no sign of a wrong secret");
        heard.note(AlertPost::Accepted);
        heard.note(AlertPost::Unauthorised);
        assert_eq!(heard.watched_for(), f64::INFINITY, "one ruler has the secret");
        for _ in 0..5 {
            pass(60).await;
            heard.note(AlertPost::Unauthorised);
        }
        assert_eq!(heard.watched_for(), 0.0);
        // The secret is right again: it counts from now on.
        pass(30).await;
        heard.note(AlertPost::UnknownOrganisation);
        assert_eq!(heard.watched_for(), 30.0);
        pass(300).await;
        assert_eq!(heard.watched_for(), 330.0);
    }

    #[tokio::test(start_paused = true)]
    async fn rulers_that_are_gone_are_not_waited_for() {
        let heard = Heard::default();
        heard.note(AlertPost::Unauthorised);
        assert_eq!(heard.watched_for(), 0.0);
        tokio::time::advance(SILENCE).await;
        assert_eq!(heard.watched_for(), SILENCE.as_secs_f64());
    }
}
