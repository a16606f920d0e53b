//! Evidence against an instance: failed requests, and whose they were. Pure.
//!
//! A failed connection is the instance's fault alone. A status, a truncated response and a missing
//! response can all be caused by one organisation's requests: a remote read that Mimir answers with
//! 500, a query that exceeds our timeout. If they counted like other failures, one organisation
//! could have instances ejected that serve all. So they count only if the requests of several
//! organisations fail in the same way, and only a part of each.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::tenancy::OrganisationId;

/// Whose request failed: a hash of the organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Requester(u64);

/// Consecutive failures.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    /// Failures that no request can cause.
    certain: u32,
    /// Failures that a request can cause, by organisation.
    by: Vec<(Requester, u32)>,
}

/// The number of organisations that are remembered. Two are enough.
const MOST_REQUESTERS: usize = 16;

impl Requester {
    /// All federated reads count as one requester: a caller could otherwise pass for many by naming
    /// several organisations.
    pub(super) fn of(organisations: &[OrganisationId]) -> Self {
        let mut hasher = DefaultHasher::new();
        match organisations {
            [one] => one.hash(&mut hasher),
            _ => "federated".hash(&mut hasher),
        }
        Self(hasher.finish())
    }
}

impl Evidence {
    /// Records a failure that no request can cause.
    pub(super) fn add_certain(&mut self) {
        self.certain = self.certain.saturating_add(1);
    }

    /// Records a failure that a request of one organisation may have caused.
    pub(super) fn add(&mut self, requester: Requester) {
        if let Some((_, count)) = self.by.iter_mut().find(|(known, _)| *known == requester) {
            *count = count.saturating_add(1);
        } else if self.by.len() < MOST_REQUESTERS {
            self.by.push((requester, 1));
        }
    }

    /// Whether it is enough: as many failures as the policy requires, of which one organisation
    /// contributes at most half, and so never all.
    pub(super) fn suffices(&self, wanted: u32) -> bool {
        if self.certain >= wanted {
            return true;
        }
        let wanted = wanted.max(2);
        let of_each = wanted.div_ceil(2);
        let sum = |sum: u32, count: u32| sum.saturating_add(count.min(of_each));
        self.by.iter().map(|(_, count)| *count).fold(self.certain, sum) >= wanted
    }

    pub(super) fn is_empty(&self) -> bool {
        self.certain == 0 && self.by.is_empty()
    }

    /// A request succeeded.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn requester(number: u8) -> Requester {
        Requester::of(&[OrganisationId::parse(&format!("org-{number}")).unwrap()])
    }

    proptest! {
        // Failures of a single organisation are never enough, however many.
        #[test]
        fn failures_of_one_organisation_are_never_enough(failures in 0u32..10_000, wanted in 1u32..1000) {
            let mut evidence = Evidence::default();
            for _ in 0..failures {
                evidence.add(requester(1));
            }
            prop_assert!(!evidence.suffices(wanted));
            prop_assert_eq!(evidence.is_empty(), failures == 0);
        }

        // Failures of all organisations are detected after as many as the policy requires of each.
        #[test]
        fn failures_of_several_organisations_are_enough(organisations in 2u8..40, wanted in 1u32..50) {
            let mut evidence = Evidence::default();
            for _ in 0..wanted {
                for number in 0..organisations {
                    evidence.add(requester(number));
                }
            }
            prop_assert!(evidence.suffices(wanted));
        }

        // If they are spread over many organisations, exactly the required number is enough.
        #[test]
        fn spread_failures_count_one_by_one(wanted in 2u32..16) {
            let mut evidence = Evidence::default();
            for number in 0..wanted {
                prop_assert!(!evidence.suffices(wanted));
                evidence.add(requester(u8::try_from(number).unwrap()));
            }
            prop_assert!(evidence.suffices(wanted));
        }

        #[test]
        fn failures_that_no_request_can_cause_count_without_others(wanted in 1u32..1000) {
            let mut evidence = Evidence::default();
            for _ in 0..wanted {
                prop_assert!(!evidence.suffices(wanted));
                evidence.add_certain();
            }
            prop_assert!(evidence.suffices(wanted));
        }
    }

    #[test]
    fn federated_reads_are_one_requester() {
        let of = |names: &[&str]| {
            let names = names.iter().map(|name| OrganisationId::parse(name).unwrap());
            Requester::of(&names.collect::<Vec<_>>())
        };
        assert_eq!(of(&["a", "b"]), of(&["b", "c"]));
        assert_ne!(of(&["a"]), of(&["a", "b"]));
        assert_ne!(of(&["a"]), of(&["b"]));
    }
}
