//! Requested syncs, as a leader knows them: each is started once.

use std::collections::HashSet;

use uuid::Uuid;

use crate::store::SyncRequest;

#[derive(Default)]
pub(crate) struct Requests {
    /// Started, and not yet known to be finished in the table. A finished one is listed there until the
    /// status writer has written its end.
    taken: HashSet<Uuid>,
    reading: Reading,
}

/// One reading at a time, because the results of two could arrive in the wrong order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reading {
    #[default]
    No,
    Yes,
    /// And once more after that: another request came meanwhile.
    Again,
}

impl Requests {
    /// There may be a new request; returns whether to read the table now.
    pub(crate) fn notify(&mut self) -> bool {
        let now = self.reading == Reading::No;
        self.reading = if now { Reading::Yes } else { Reading::Again };
        now
    }

    /// A reading has ended or failed; returns whether another one has to follow.
    pub(crate) fn end_reading(&mut self) -> bool {
        std::mem::take(&mut self.reading) == Reading::Again
    }

    /// Returns the unfinished requests that were not started yet.
    pub(crate) fn take_new(&mut self, unfinished: Vec<SyncRequest>) -> Vec<SyncRequest> {
        let listed: HashSet<Uuid> = unfinished.iter().map(|request| request.id).collect();
        self.taken.retain(|id| listed.contains(id));
        unfinished.into_iter().filter(|request| self.taken.insert(request.id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: u128) -> SyncRequest {
        SyncRequest {
            id: Uuid::from_u128(id),
            organisation: None,
            requested_at: None,
            started_at: None,
            finished_at: None,
            done: 0,
            total: 0,
            outcome: String::new(),
        }
    }

    fn take(requests: &mut Requests, listed: &[u128]) -> Vec<u128> {
        let taken = requests.take_new(listed.iter().map(|id| request(*id)).collect());
        taken.iter().map(|request| request.id.as_u128()).collect()
    }

    // Seen: read between the end of a sync and the write of that end, the sync started again.
    #[test]
    fn each_request_is_started_once() {
        let mut requests = Requests::default();
        assert_eq!(take(&mut requests, &[1, 2]), [1, 2]);
        assert_eq!(take(&mut requests, &[1, 2, 3]), [3]);
        assert!(take(&mut requests, &[2]).is_empty());
        assert_eq!(requests.taken.len(), 1, "finished requests are forgotten");
    }

    #[test]
    fn one_reading_at_a_time_and_no_request_is_missed() {
        let mut requests = Requests::default();
        assert!(requests.notify());
        assert!(!requests.notify() && !requests.notify());
        assert!(requests.end_reading());
        assert!(requests.notify());
        assert!(!requests.end_reading());
    }
}
