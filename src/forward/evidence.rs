//! Evidence against an instance: failed requests, and whose they were. Pure.
//!
//! A connection that cannot be made is the instance's alone. A status, an answer that breaks off
//! and one that never begins can all be the doing of one organisation's own requests: a remote read
//! that Mimir answers with 500, a query that runs for longer than we wait. If they counted like any
//! other failure, one organisation could have instances ejected that serve everybody else. So they
//! count only if the requests of several organisations show the same, and of each only a part.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::tenancy::OrganisationId;

/// Whose request failed: an organisation, in a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Requester(u64);

/// Failures in a row.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    /// Those that no request can cause.
    certain: u32,
    /// Those that a request can cause, by organisation.
    by: Vec<(Requester, u32)>,
}

/// Organisations that are remembered: more than one is what matters.
const MOST_REQUESTERS: usize = 16;

impl Requester {
    /// All federated reads are one: who names several organisations could otherwise pass for
    /// many.
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
    /// A failure that no request can cause.
    pub(super) fn add_certain(&mut self) {
        self.certain = self.certain.saturating_add(1);
    }

    /// A failure that a request of one organisation may have caused.
    pub(super) fn add(&mut self, requester: Requester) {
        if let Some((_, count)) = self.by.iter_mut().find(|(known, _)| *known == requester) {
            *count = count.saturating_add(1);
        } else if self.by.len() < MOST_REQUESTERS {
            self.by.push((requester, 1));
        }
    }

    /// Whether it is enough: as many failures as the policy wants, of which one organisation can
    /// contribute half at most, and so never all.
    pub(super) fn suffices(&self, wanted: u32) -> bool {
        if self.certain >= wanted {
            return true;
        }
        let wanted = wanted.max(2);
        let of_each = wanted.div_ceil(2);
        let sum = |sum: u32, count: u32| sum.saturating_add(count.min(of_each));
        self.by.iter().map(|(_, count)| *count).fold(self.certain, sum) >= wanted
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.certain == 0 && self.by.is_empty()
    }

    /// Something went well.
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
        // However much one organisation's own requests fail, it is never enough.
        #[test]
        fn one_organisation_is_never_enough(failures in 0u32..10_000, wanted in 1u32..1000) {
            let mut evidence = Evidence::default();
            for _ in 0..failures {
                evidence.add(requester(1));
            }
            prop_assert!(!evidence.suffices(wanted));
            prop_assert_eq!(evidence.is_empty(), failures == 0);
        }

        // What fails everybody's requests is found out after as many as the policy wants of each.
        #[test]
        fn several_organisations_are_enough(organisations in 2u8..40, wanted in 1u32..50) {
            let mut evidence = Evidence::default();
            for _ in 0..wanted {
                for number in 0..organisations {
                    evidence.add(requester(number));
                }
            }
            prop_assert!(evidence.suffices(wanted));
        }

        // It is the number of failures that the policy wants, not more, if they are spread.
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
        fn what_no_request_can_cause_counts_by_itself(wanted in 1u32..1000) {
            let mut evidence = Evidence::default();
            for _ in 0..wanted {
                prop_assert!(!evidence.suffices(wanted));
                evidence.add_certain();
            }
            prop_assert!(evidence.suffices(wanted));
        }
    }

    #[test]
    fn a_federated_caller_is_one_requester() {
        let of = |names: &[&str]| {
            let names = names.iter().map(|name| OrganisationId::parse(name).unwrap());
            Requester::of(&names.collect::<Vec<_>>())
        };
        assert_eq!(of(&["a", "b"]), of(&["b", "c"]));
        assert_ne!(of(&["a"]), of(&["a", "b"]));
        assert_ne!(of(&["a"]), of(&["b"]));
    }
}
