//! Whether a failed request is sent again. Pure.
//!
//! A request that was never sent may go to any instance. One that may have been executed is resent
//! only if the route is [repeatable](crate::route::Route::is_repeatable), and to one other instance
//! only: a request that kills instances must not kill all of them. Nothing is resent once the head
//! of a response has been forwarded.

use std::time::Duration;

/// How a request that was sent failed at its instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendFailure {
    /// On a kept connection, which closed this long after it was sent.
    OnKept(Duration),
    /// On a new connection.
    OnNew,
    /// The instance answered 503: it has not executed it.
    Unavailable,
}

/// The attempts so far, and what is possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Repeats {
    /// The request is repeatable, and its body was kept.
    pub(super) possible: bool,
    /// It was sent to the same instance again, because a kept connection had been closed.
    pub(super) renewed: bool,
    /// It was sent to another instance.
    pub(super) moved: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// To the same instance on a new connection: it had closed the old one before the request
    /// arrived.
    Renew,
    /// To another instance, if the budget allows it.
    Move,
    /// Not at all: the failure is the response.
    GiveUp,
}

/// If a connection closes within this time after a request was sent, it had been closed before the
/// request arrived: one round trip. Later, the request or the end of the instance closed it.
pub(super) const STALE: Duration = Duration::from_secs(1);

/// Whether the connection had been closed before the request arrived, which is not a fault of the
/// instance.
pub(super) fn is_stale(failure: SendFailure) -> bool {
    matches!(failure, SendFailure::OnKept(after) if after < STALE)
}

pub(super) fn next(failure: SendFailure, so_far: Repeats) -> Next {
    if !so_far.possible {
        Next::GiveUp
    } else if is_stale(failure) && !so_far.renewed {
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

    fn failure() -> impl Strategy<Value = SendFailure> {
        prop_oneof![
            (0u64..5000).prop_map(|after| SendFailure::OnKept(Duration::from_millis(after))),
            Just(SendFailure::OnNew),
            Just(SendFailure::Unavailable),
        ]
    }

    proptest! {
        #[test]
        fn a_request_that_is_not_repeatable_is_not_resent(failure in failure(), renewed: bool, moved: bool) {
            let so_far = Repeats { possible: false, renewed, moved };
            prop_assert_eq!(next(failure, so_far), Next::GiveUp);
        }

        #[test]
        fn a_request_is_sent_three_times_at_most(failures in proptest::collection::vec(failure(), 3..8)) {
            let mut so_far = Repeats { possible: true, ..Repeats::default() };
            let mut sent = 1;
            for failure in failures {
                match next(failure, so_far) {
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
