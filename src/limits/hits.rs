//! Which organisations a limit has refused, for operators. Counted where a request is refused, so
//! that one that is admitted pays nothing for it.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use strum::EnumCount as _;
use tokio::time::Instant;

use super::LimitError;
use crate::route::Surface;
use crate::tenancy::OrganisationId;

/// Organisations that are remembered. The one whose last refusal is the oldest makes room.
const MOST: usize = 1000;

/// The limits of an organisation, by the names in answers.
const LIMITS: [&str; 4] = ["requests_per_second", "bytes_per_second", "in_flight", "share"];

#[derive(Default)]
pub(super) struct Hits(Mutex<HashMap<OrganisationId, Counts>>);

struct Counts {
    refused: [[u64; LIMITS.len()]; Surface::COUNT],
    last: Instant,
}

/// Refusals of one organisation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrganisationHits {
    /// How often each limit has refused, by surface; those that never did are left out.
    pub refused: Vec<(Surface, &'static str, u64)>,
    pub total: u64,
    /// How long ago the last one was.
    pub last: Option<Duration>,
}

impl Hits {
    /// A request was refused. What is no limit of the organisation's own is not counted.
    pub(super) fn note(&self, organisation: &OrganisationId, surface: Surface, error: &LimitError) {
        let limit = match error {
            LimitError::Requests { .. } => 0,
            LimitError::Bytes { .. } => 1,
            LimitError::InFlight { .. } => 2,
            LimitError::Share => 3,
            LimitError::All => return,
        };
        let now = Instant::now();
        let mut hits = self.0.lock();
        if hits.len() >= MOST && !hits.contains_key(organisation) {
            let oldest = hits.iter().min_by_key(|(_, counts)| counts.last);
            if let Some(oldest) = oldest.map(|(organisation, _)| organisation.clone()) {
                hits.remove(&oldest);
            }
        }
        let new = || Counts { refused: Default::default(), last: now };
        let counts = hits.entry(organisation.clone()).or_insert_with(new);
        counts.refused[surface as usize][limit] += 1;
        counts.last = now;
    }

    pub(super) fn of(&self, organisation: &OrganisationId) -> OrganisationHits {
        self.0.lock().get(organisation).map(Counts::report).unwrap_or_default()
    }

    pub(super) fn all(&self) -> HashMap<OrganisationId, OrganisationHits> {
        let hits = self.0.lock();
        hits.iter().map(|(organisation, counts)| (organisation.clone(), counts.report())).collect()
    }
}

impl Counts {
    fn report(&self) -> OrganisationHits {
        let mut report =
            OrganisationHits { last: Some(self.last.elapsed()), ..OrganisationHits::default() };
        for (surface, limits) in Surface::ALL.iter().zip(&self.refused) {
            for (name, count) in LIMITS.iter().zip(limits).filter(|(_, count)| **count > 0) {
                report.refused.push((*surface, name, *count));
                report.total += count;
            }
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn organisation(number: usize) -> OrganisationId {
        OrganisationId::parse(&format!("org-{number}")).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_counted_by_surface_and_limit() {
        let hits = Hits::default();
        let bytes = LimitError::Bytes { retry_after: Duration::ZERO };
        for error in [&bytes, &bytes, &LimitError::Share, &LimitError::All] {
            hits.note(&organisation(1), Surface::Push, error);
        }
        tokio::time::advance(Duration::from_secs(5)).await;
        let report = hits.of(&organisation(1));
        let refused = [(Surface::Push, "bytes_per_second", 2), (Surface::Push, "share", 1)];
        assert_eq!(report.refused, refused);
        assert_eq!((report.total, report.last), (3, Some(Duration::from_secs(5))));
        assert_eq!(hits.of(&organisation(2)), OrganisationHits::default());
    }

    // A flood by ever new organisations must not take memory.
    #[tokio::test(start_paused = true)]
    async fn only_so_many_are_remembered_and_the_oldest_makes_room() {
        let hits = Hits::default();
        for number in 0..MOST + 10 {
            hits.note(&organisation(number), Surface::Query, &LimitError::Share);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(hits.all().len(), MOST);
        assert_eq!(hits.of(&organisation(9)).total, 0);
        assert_eq!(hits.of(&organisation(10)).total, 1);
    }
}
