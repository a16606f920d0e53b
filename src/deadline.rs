//! [`Deadline`]: a timer for the unusual case, in hand-written futures.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline that moves with every sign of life. It costs nothing until something has to be waited
/// for, and moving it later costs nothing either: a timer that ends too early is reset.
#[derive(Default)]
pub struct Deadline(Option<Pin<Box<Sleep>>>);

impl Deadline {
    /// Whether a time has passed; if not, the task is woken when it has.
    pub fn is_past(&mut self, time: Instant, cx: &mut Context<'_>) -> bool {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(time)));
        if timer.deadline() > time {
            timer.as_mut().reset(time);
        }
        while let Poll::Ready(()) = timer.as_mut().poll(cx) {
            if Instant::now() >= time {
                return true;
            }
            timer.as_mut().reset(time);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    /// Waits until a deadline has passed that moves after each wake-up.
    async fn wait(mut times: Vec<Instant>) -> Instant {
        let mut deadline = Deadline::default();
        times.reverse();
        poll_fn(|cx| {
            let time = if times.len() > 1 { times.pop() } else { times.last().copied() };
            if deadline.is_past(time.unwrap_or_else(Instant::now), cx) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        Instant::now()
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_can_move_later_and_earlier() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(wait(vec![at(5)]).await, at(5));
        assert_eq!(wait(vec![at(10), at(20)]).await.duration_since(at(20)).as_secs(), 0);
    }
}
