//! The most recent requests that were not served, for `GET /admin/refusals`: what an operator wants to see
//! of them without a search in the log, also while there are too many to log each.
//!
//! Each reason has a ring of its own, so a flood of one pushes out none of another. In a full ring the source
//! with the most refusals loses its oldest, so that one source does not push out the others: a principal, or
//! the network of a client that is not known. One for the process: workers that refuse at the same time are
//! rare, and a ring is locked for the time of a move. A request that is served does not come here.

use std::array;
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use strum::{EnumCount as _, VariantArray as _};
use time::OffsetDateTime;

use crate::client_network::client_network;
use crate::reason::Reason;

/// Requests of one reason that are kept.
pub const KEPT_PER_REASON: usize = 32;
/// Characters of a text of the client's.
const LONGEST: usize = 256;

/// A request that was not served. No query string, no header, no body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub at: OffsetDateTime,
    pub request_id: String,
    pub status: u16,
    pub reason: Reason,
    /// None where no route was found.
    pub surface: Option<&'static str>,
    /// What was granted, several with `|` between them, or the organisation of the path.
    pub organisation: Option<String>,
    /// What the selector named and was not granted.
    pub asked: Option<String>,
    pub method: String,
    pub path: String,
    pub client: IpAddr,
    /// The kind of the principal, and its identifier.
    pub principal: Option<(&'static str, String)>,
    /// What the log says beyond the reason.
    pub detail: Option<String>,
}

#[derive(PartialEq, Eq)]
enum Source<'a> {
    Principal(&'static str, &'a str),
    Network(IpAddr),
}

/// Which of them are asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub reason: Option<Reason>,
    /// Granted, or asked for.
    pub organisation: Option<String>,
}

/// The rings of all reasons.
pub struct Refusals {
    rings: [Mutex<VecDeque<Refusal>>; Reason::COUNT],
    counts: [AtomicU64; Reason::COUNT],
    overwritten: AtomicU64,
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            rings: array::from_fn(|_| Mutex::default()),
            counts: array::from_fn(|_| AtomicU64::new(0)),
            overwritten: AtomicU64::new(0),
        }
    }
}

impl Refusals {
    /// Keeps a refusal, in place of an older one if need be.
    pub fn add(&self, refusal: Refusal) {
        let at = refusal.reason as usize;
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        let refusal = refusal.bounded();
        let mut ring = self.rings[at].lock();
        if ring.len() >= KEPT_PER_REASON {
            let index = least_missed(&ring, &refusal);
            ring.remove(index);
            self.overwritten.fetch_add(1, Ordering::Relaxed);
        }
        ring.push_back(refusal);
    }

    /// The newest ones, the newest first.
    pub fn newest(&self, limit: usize, filter: &Filter) -> Vec<Refusal> {
        let rings = self.rings.iter().zip(Reason::VARIANTS);
        let rings = rings.filter(|(_, reason)| filter.reason.is_none_or(|one| one == **reason));
        let mut found = Vec::new();
        for (ring, _) in rings {
            let ring = ring.lock();
            found.extend(ring.iter().rev().filter(|one| filter.takes(one)).take(limit).cloned());
        }
        found.sort_by_key(|refusal| Reverse(refusal.at));
        found.truncate(limit);
        found
    }

    /// How many there were of each reason since the start, without those that never occurred.
    pub fn counts(&self) -> impl Iterator<Item = (Reason, u64)> {
        let counts = Reason::VARIANTS.iter().zip(&self.counts);
        let counts = counts.map(|(reason, count)| (*reason, count.load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0)
    }

    /// How many are not in the rings any more.
    pub fn overwritten(&self) -> u64 {
        self.overwritten.load(Ordering::Relaxed)
    }
}

impl Refusal {
    /// Whose request it was. What the request names, such as an organisation, is the client's choice.
    fn source(&self) -> Source<'_> {
        match &self.principal {
            Some((kind, id)) => Source::Principal(kind, id),
            None => Source::Network(client_network(self.client)),
        }
    }

    fn bounded(mut self) -> Self {
        cut(&mut self.method);
        cut(&mut self.path);
        for text in [&mut self.organisation, &mut self.asked, &mut self.detail] {
            text.iter_mut().for_each(cut);
        }
        self
    }
}

/// The index of the oldest refusal of the source that has the most, with the one that is to come.
fn least_missed(ring: &VecDeque<Refusal>, next: &Refusal) -> usize {
    let count = |one: &Refusal| {
        let like = ring.iter().chain([next]).filter(|other| other.source() == one.source());
        like.count()
    };
    // Of several the first.
    let most = ring.iter().enumerate().max_by_key(|(at, one)| (count(one), Reverse(*at)));
    most.map_or(0, |(at, _)| at)
}

impl Filter {
    fn takes(&self, refusal: &Refusal) -> bool {
        let Some(wanted) = &self.organisation else { return true };
        let names = |text: &Option<String>| {
            text.as_ref().is_some_and(|text| text.split('|').any(|one| one == wanted))
        };
        names(&refusal.organisation) || names(&refusal.asked)
    }
}

/// Cuts a text, and gives back the memory of the rest.
fn cut(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(end);
    }
    text.shrink_to_fit();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(reason: Reason, client: u8, second: i64) -> Refusal {
        Refusal {
            at: OffsetDateTime::from_unix_timestamp(second).unwrap(),
            request_id: format!("{second}"),
            status: 403,
            reason,
            surface: Some("query"),
            organisation: None,
            asked: None,
            method: "GET".to_owned(),
            path: "/".to_owned(),
            client: [10, 0, 0, client].into(),
            principal: None,
            detail: None,
        }
    }

    #[test]
    fn a_flood_of_one_reason_or_source_pushes_out_no_other() {
        let refusals = Refusals::default();
        refusals.add(refusal(Reason::NotAMember, 1, 0));
        refusals.add(refusal(Reason::NoCredential, 2, 1));
        for second in 2..10_000 {
            refusals.add(refusal(Reason::NoCredential, 3, second));
        }
        for second in 10_000..10_020 {
            refusals.add(refusal(Reason::NoCredential, 4, second));
        }
        let of = |reason| Filter { reason, ..Filter::default() };
        assert_eq!(refusals.newest(100, &of(Some(Reason::NotAMember))).len(), 1);
        let all = refusals.newest(100, &of(Some(Reason::NoCredential)));
        assert_eq!(all.len(), KEPT_PER_REASON);
        let of_client = |last: u8| {
            all.iter().filter(|one| one.client == IpAddr::from([10, 0, 0, last])).count()
        };
        // The one of the second client is there still; the flood made room for the fourth.
        assert_eq!((of_client(2), of_client(3), of_client(4)), (1, 15, 16));
        assert_eq!(refusals.counts().map(|(_, count)| count).sum::<u64>(), 10_020);
        assert_eq!(refusals.overwritten(), 10_020 - KEPT_PER_REASON as u64 - 1);
    }

    // What a request names is the client's choice, and so are the addresses of its network.
    #[test]
    fn one_source_is_one_whatever_it_names() {
        let refusals = Refusals::default();
        refusals.add(refusal(Reason::NotAMember, 1, 0));
        for second in 1..1000_i64 {
            let organisation = Some(format!("org-{second}"));
            let principal = Some(("user", "victor".to_owned()));
            let last = u16::try_from(second).unwrap();
            let client = [0x2001, 0xdb8, 0, 0, 0, 0, 0, last].into();
            let of_user =
                Refusal { organisation, principal, ..refusal(Reason::NotAMember, 2, second) };
            refusals.add(Refusal { client, principal: None, ..of_user.clone() });
            refusals.add(of_user);
        }
        let all = refusals.newest(100, &Filter::default());
        assert_eq!(all.iter().filter(|one| one.request_id == "0").count(), 1);
    }

    #[test]
    fn the_newest_come_first_and_texts_are_bounded() {
        let refusals = Refusals::default();
        for second in 0..5 {
            let reason = if second % 2 == 0 { Reason::NoRoute } else { Reason::NotAMember };
            let organisation = Some(format!("org-{second}"));
            let path = "/é".repeat(10_000);
            refusals.add(Refusal { organisation, path, ..refusal(reason, 1, second) });
        }
        let newest = refusals.newest(3, &Filter::default());
        let ids: Vec<_> = newest.iter().map(|one| one.request_id.as_str()).collect();
        assert_eq!(ids, ["4", "3", "2"]);
        assert_eq!(newest[0].path.chars().count(), LONGEST);
        let of_two = Filter { organisation: Some("org-2".to_owned()), ..Filter::default() };
        assert_eq!(refusals.newest(3, &of_two).len(), 1);
        let asked = Refusal { asked: Some("a|org-2".to_owned()), ..refusal(Reason::Expired, 1, 9) };
        refusals.add(asked);
        assert_eq!(refusals.newest(3, &of_two).len(), 2);
    }
}
