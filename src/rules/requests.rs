//! Syncs that somebody asked for, as a leader's term knows them: each is taken up once.

use std::collections::HashSet;

use uuid::Uuid;

use crate::store::SyncRequest;

/// The requests of a term.
#[derive(Default)]
pub(super) struct Requests {
    /// Taken up, and not known to be finished in the table: what has ended is listed there until the
    /// ledger has written its end.
    taken: HashSet<Uuid>,
    reading: Reading,
}

/// One reading at a time: the results of two could come in the wrong order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reading {
    #[default]
    No,
    Yes,
    /// And once more after that: somebody asked meanwhile.
    Again,
}

impl Requests {
    /// Somebody may have asked; says whether to read the table now.
    pub(super) fn hear(&mut self) -> bool {
        let now = self.reading == Reading::No;
        self.reading = if now { Reading::Yes } else { Reading::Again };
        now
    }

    /// A reading has ended, well or not; says whether there is to be another.
    pub(super) fn end_reading(&mut self) -> bool {
        std::mem::take(&mut self.reading) == Reading::Again
    }

    /// Takes up those of the unfinished ones that are new.
    pub(super) fn take(&mut self, unfinished: Vec<SyncRequest>) -> Vec<SyncRequest> {
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
        let taken = requests.take(listed.iter().map(|id| request(*id)).collect());
        taken.iter().map(|request| request.id.as_u128()).collect()
    }

    // Read between the end of a sync and the moment when that is written, it began anew.
    #[test]
    fn each_is_taken_up_once() {
        let mut requests = Requests::default();
        assert_eq!(take(&mut requests, &[1, 2]), [1, 2]);
        assert_eq!(take(&mut requests, &[1, 2, 3]), [3]);
        assert!(take(&mut requests, &[2]).is_empty());
        assert_eq!(requests.taken.len(), 1, "nothing is remembered of what is finished");
    }

    #[test]
    fn one_reads_at_a_time_and_nothing_is_missed() {
        let mut requests = Requests::default();
        assert!(requests.hear());
        assert!(!requests.hear() && !requests.hear());
        assert!(requests.end_reading());
        assert!(requests.hear());
        assert!(!requests.end_reading());
    }
}
