//! Whether a request that failed is sent again. Pure.
//!
//! A request that was never sent may go anywhere. One that may have been done is resent only if the
//! route is [repeatable](crate::route::Route::is_repeatable), and at one other instance only: if it
//! is what kills instances, it must not kill all of them. Nothing is resent once the head of a
//! response has been passed on.

use std::time::Duration;

/// How a request that was sent failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// Its connection was a kept one, and closed this long after it was sent.
    OnKept(Duration),
    /// Its connection was a new one.
    OnNew,
    /// The instance answered that it does nothing now.
    Unavailable,
}

/// What has been done about it so far, and what could be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Repeats {
    /// It may be done twice, and its body is there to be sent again.
    pub(super) possible: bool,
    /// It has been sent to the same instance again, because a kept connection had been closed.
    pub(super) renewed: bool,
    /// It has been sent to another instance.
    pub(super) moved: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// To the same instance by a new connection: it had closed the old one before our request came.
    Renew,
    /// To another instance, if the budget allows it.
    Move,
    /// The failure is the answer.
    GiveUp,
}

/// How soon after a request a connection closes that had been closed before it: a way there and
/// back. Later it was the request, or the end of the instance, that closed it.
pub(super) const STALE: Duration = Duration::from_secs(1);

/// Whether the connection had been closed before the request came: no fault of the instance.
pub(super) fn is_stale(broken: Broken) -> bool {
    matches!(broken, Broken::OnKept(after) if after < STALE)
}

pub(super) fn next(broken: Broken, so_far: Repeats) -> Next {
    if !so_far.possible {
        Next::GiveUp
    } else if is_stale(broken) && !so_far.renewed {
        Next::Renew
    } else if so_far.moved {
        Next::GiveUp
    } else {
        Next::Move
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn broken() -> impl Strategy<Value = Broken> {
        prop_oneof![
            (0u64..5000).prop_map(|after| Broken::OnKept(Duration::from_millis(after))),
            Just(Broken::OnNew),
            Just(Broken::Unavailable),
        ]
    }

    proptest! {
        #[test]
        fn what_may_not_be_done_twice_is_not(broken in broken(), renewed: bool, moved: bool) {
            let so_far = Repeats { possible: false, renewed, moved };
            prop_assert_eq!(next(broken, so_far), Next::GiveUp);
        }

        #[test]
        fn a_request_is_sent_three_times_at_most(failures in proptest::collection::vec(broken(), 3..8)) {
            let mut so_far = Repeats { possible: true, ..Repeats::default() };
            let mut sent = 1;
            for broken in failures {
                match next(broken, so_far) {
                    Next::GiveUp => break,
                    Next::Renew => so_far.renewed = true,
                    Next::Move => so_far.moved = true,
                }
                sent += 1;
            }
            prop_assert!(sent <= 3);
        }
    }
}
