//! Which organisations and devices a limit has refused, for operators. Counted where a request is
//! refused, so that one that is admitted pays nothing for it.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use strum::EnumCount as _;
use tokio::time::Instant;

use super::devices::Device;
use super::{LimitError, Whose};
use crate::per_second::PerSecond;
use crate::route::Surface;
use crate::tenancy::OrganisationId;

/// Organisations, and devices, that are remembered. The one whose last refusal is the oldest makes room.
const MOST: usize = 1000;

/// The limits, by the names in answers.
const LIMITS: [&str; 4] = ["requests_per_second", "bytes_per_second", "in_flight", "share"];

/// Whoever is refused again and again gets a line in the log this often.
const LINE_INTERVAL: Duration = Duration::from_secs(60);
/// Lines in a second, however many are refused.
const LINES_PER_SECOND: u32 = 10;
/// Who was refused within this time counts as being over a limit.
const RECENT: Duration = Duration::from_secs(300);

#[derive(Default)]
pub(super) struct Hits {
    organisations: Who<OrganisationId>,
    devices: Who<(OrganisationId, Device)>,
    lines: PerSecond,
}

struct Who<K>(Mutex<HashMap<K, Counts>>);

impl<K> Default for Who<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

struct Counts {
    refused: [[u64; LIMITS.len()]; Surface::COUNT],
    last: Instant,
    /// When the log last had a line, and how many were refused since.
    line: Option<Instant>,
    since_line: u64,
}

/// Refusals of one organisation, or of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// How often each limit has refused, by surface; those that never did are left out.
    pub refused: Vec<(Surface, &'static str, u64)>,
    pub total: u64,
    /// How long ago the last one was.
    pub last: Option<Duration>,
}

impl Hits {
    /// A request was refused. What is no limit of the organisation or the device is not counted. `second` is
    /// the time, for the number of lines in it.
    pub(super) fn note(
        &self,
        organisation: &OrganisationId,
        device: Option<Device>,
        surface: Surface,
        error: &LimitError,
        second: u64,
    ) {
        let (whose, limit) = match error {
            LimitError::Requests { whose, .. } => (*whose, 0),
            LimitError::Bytes { whose, .. } => (*whose, 1),
            LimitError::InFlight { whose } => (*whose, 2),
            LimitError::Share => (Whose::Organisation, 3),
            LimitError::All | LimitError::Memory | LimitError::Processor => return,
        };
        let may_log = || self.lines.take(second, LINES_PER_SECOND);
        if let (Whose::Device, Some(device)) = (whose, device) {
            let key = (organisation.clone(), device);
            if let Some(count) = self.devices.note(key, surface, limit, may_log) {
                tracing::info!(
                    organisation.id = %organisation,
                    principal.kind = device.kind(),
                    principal.id = %device.id(),
                    route.surface = surface.name(),
                    limit = LIMITS[limit],
                    refused = count,
                    "Device over its limit"
                );
            }
        } else {
            let noted = self.organisations.note(organisation.clone(), surface, limit, may_log);
            if let Some(count) = noted {
                tracing::info!(
                    organisation.id = %organisation,
                    route.surface = surface.name(),
                    limit = LIMITS[limit],
                    refused = count,
                    "Organisation over its limit"
                );
            }
        }
    }

    pub(super) fn of(&self, organisation: &OrganisationId) -> Refused {
        self.organisations.0.lock().get(organisation).map(Counts::report).unwrap_or_default()
    }

    pub(super) fn all(&self) -> HashMap<OrganisationId, Refused> {
        self.organisations.all()
    }

    pub(super) fn devices(&self) -> HashMap<(OrganisationId, Device), Refused> {
        self.devices.all()
    }

    /// Organisations and devices that were refused recently.
    pub(super) fn recent(&self) -> (usize, usize) {
        (self.organisations.recent(), self.devices.recent())
    }
}

impl<K: Clone + Eq + Hash> Who<K> {
    /// Counts a refusal. If the log is to have a line: how many there were since the last one.
    fn note(
        &self,
        who: K,
        surface: Surface,
        limit: usize,
        may_log: impl FnOnce() -> bool,
    ) -> Option<u64> {
        let now = Instant::now();
        let mut hits = self.0.lock();
        if hits.len() >= MOST && !hits.contains_key(&who) {
            let oldest = hits.iter().min_by_key(|(_, counts)| counts.last);
            if let Some(oldest) = oldest.map(|(who, _)| who.clone()) {
                hits.remove(&oldest);
            }
        }
        let new = || Counts { refused: Default::default(), last: now, line: None, since_line: 0 };
        let counts = hits.entry(who).or_insert_with(new);
        counts.refused[surface as usize][limit] += 1;
        counts.last = now;
        counts.since_line += 1;
        let is_due = counts.line.is_none_or(|line| now >= line + LINE_INTERVAL);
        (is_due && may_log()).then(|| {
            counts.line = Some(now);
            std::mem::take(&mut counts.since_line)
        })
    }

    fn all(&self) -> HashMap<K, Refused> {
        self.0.lock().iter().map(|(who, counts)| (who.clone(), counts.report())).collect()
    }

    fn recent(&self) -> usize {
        self.0.lock().values().filter(|counts| counts.last.elapsed() < RECENT).count()
    }
}

impl Counts {
    fn report(&self) -> Refused {
        let mut report = Refused { last: Some(self.last.elapsed()), ..Refused::default() };
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
    use uuid::Uuid;

    use super::*;
    use crate::tenancy::DeviceId;

    fn organisation(number: usize) -> OrganisationId {
        OrganisationId::parse(&format!("org-{number}")).unwrap()
    }

    fn bytes(whose: Whose) -> LimitError {
        LimitError::Bytes { whose, retry_after: Duration::ZERO }
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_counted_by_surface_and_limit() {
        let (hits, own) = (Hits::default(), bytes(Whose::Organisation));
        for error in [&own, &own, &LimitError::Share, &LimitError::All] {
            hits.note(&organisation(1), None, Surface::Push, error, 1);
        }
        tokio::time::advance(Duration::from_secs(5)).await;
        let report = hits.of(&organisation(1));
        let refused = [(Surface::Push, "bytes_per_second", 2), (Surface::Push, "share", 1)];
        assert_eq!(report.refused, refused);
        assert_eq!((report.total, report.last), (3, Some(Duration::from_secs(5))));
        assert_eq!(hits.of(&organisation(2)), Refused::default());
    }

    // Its organisation is not over a limit because one of its devices is.
    #[tokio::test(start_paused = true)]
    async fn a_device_is_counted_for_itself() {
        let (hits, device) = (Hits::default(), Device::Key(DeviceId(Uuid::new_v4())));
        hits.note(&organisation(1), Some(device), Surface::Otlp, &bytes(Whose::Device), 1);
        assert_eq!(hits.of(&organisation(1)).total, 0);
        let devices = hits.devices();
        assert_eq!(devices[&(organisation(1), device)].total, 1);
        assert_eq!(hits.recent(), (0, 1));
        tokio::time::advance(RECENT).await;
        assert_eq!((hits.recent(), hits.devices().len()), ((0, 0), 1));
    }

    // A flood by ever new organisations must not take memory.
    #[tokio::test(start_paused = true)]
    async fn only_so_many_are_remembered_and_the_oldest_makes_room() {
        let hits = Hits::default();
        for number in 0..MOST + 10 {
            hits.note(&organisation(number), None, Surface::Query, &LimitError::Share, 1);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(hits.all().len(), MOST);
        assert_eq!(hits.of(&organisation(9)).total, 0);
        assert_eq!(hits.of(&organisation(10)).total, 1);
    }

    // A flood does not fill the log, whether it is one device's or a whole fleet's.
    #[tokio::test(start_paused = true)]
    async fn a_line_a_minute_for_each_and_few_a_second_in_all() {
        let (who, lines) = (Who::default(), PerSecond::default());
        let note = |device: usize, second: u64| {
            who.note(device, Surface::Push, 0, || lines.take(second, LINES_PER_SECOND))
        };
        assert_eq!((note(1, 1), note(1, 1), note(1, 2)), (Some(1), None, None));
        tokio::time::advance(LINE_INTERVAL).await;
        assert_eq!(note(1, 61), Some(3), "with what was refused meanwhile");
        let logged = (2..1000).filter(|device| note(*device, 62).is_some()).count();
        assert_eq!(logged, LINES_PER_SECOND as usize);
        // Who got no line gets one later.
        assert_eq!(note(999, 63), Some(2));
    }
}
