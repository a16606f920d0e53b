//! The deletion guard: of one organisation's document, and of all organisations that are gone. Pure.
//!
//! A deleted row and a row that could not be read look alike. A lost channel is a missed notification,
//! which goes unnoticed; one that stays for too long is noticed and harmless. So a channel or route that
//! is in Mimir's document, and has neither a row nor a tombstone, holds every write of its organisation
//! until an administrator confirms it. There is no threshold: the lost channel may be the only one.
//!
//! A channel whose row has the mask of a secret that is not stored is lost in the same way: without the
//! secret it is invalid, and its author did not remove it.
//!
//! An organisation that is gone for good and one that is only not listed look alike, too, and the rows of the
//! latter are all there. So organisations that are gone are judged together ([`Purges`]), as their rules are.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use time::OffsetDateTime;
use uuid::Uuid;

use super::document::{Live, Observed};
use super::spec::Rows;
use super::spec::channel::has_lost_a_secret;
use crate::config::GuardConfig;
use crate::rules::plan::guard::is_much;
use crate::store::GuardHeld;
use crate::tenancy::OrganisationId;

/// What would go and has no explanation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) channels: BTreeSet<Uuid>,
    pub(crate) routes: BTreeSet<Uuid>,
    /// Channels that have a row, and whose secrets are lost.
    pub(crate) without_secrets: BTreeSet<Uuid>,
}

/// Finds what is in the document and has neither a row nor a tombstone, or has lost its secrets.
pub(crate) fn missing(live: &Live, rows: &Rows) -> Missing {
    let channels: BTreeSet<Uuid> = rows.channels.iter().map(|row| row.id).collect();
    let routes: BTreeSet<Uuid> = rows.routes.iter().map(|row| row.id).collect();
    let is_lost = |id: &&Uuid| !channels.contains(id) && !rows.channel_tombstones.contains_key(id);
    let is_lost_route =
        |id: &&Uuid| !routes.contains(id) && !rows.route_tombstones.contains_key(id);
    let lost_secrets = rows.channels.iter().filter(|row| has_lost_a_secret(row)).map(|row| row.id);
    Missing {
        channels: live.channels.iter().filter(is_lost).copied().collect(),
        routes: live.routes.iter().filter(is_lost_route).copied().collect(),
        without_secrets: lost_secrets.filter(|id| live.channels.contains(id)).collect(),
    }
}

impl Missing {
    pub(crate) fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.routes.is_empty() && self.without_secrets.is_empty()
    }

    /// The hold, whose ID is a digest of what would go and of nothing else: a confirmation is for these
    /// rows and no others.
    pub(crate) fn held(&self, live: &Live) -> GuardHeld {
        let mut text = String::new();
        let kinds = [
            ("channel", &self.channels),
            ("route", &self.routes),
            ("secrets", &self.without_secrets),
        ];
        for (kind, ids) in kinds {
            for id in ids {
                let _ = writeln!(text, "{kind} {id}");
            }
        }
        let of = |gone: &BTreeSet<Uuid>, all: usize, what: &str| {
            (!gone.is_empty()).then(|| format!("{} of {all} {what}", gone.len()))
        };
        let parts = [
            of(&self.channels, live.channels.len(), "channels"),
            of(&self.routes, live.routes.len(), "routes"),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let deleted = (!parts.is_empty()).then(|| {
            format!(
                "{} would be deleted, and the database has no record of their deletion",
                parts.join(" and ")
            )
        });
        let lost = of(&self.without_secrets, live.channels.len(), "channels").map(|channels| {
            format!(
                "{channels} would be deleted, because their secrets are not stored any more and \
                 their rows have only the masks"
            )
        });
        let reasons: Vec<String> = deleted.into_iter().chain(lost).collect();
        GuardHeld {
            id: short(&hex::encode(digest(&SHA256, text.as_bytes()))),
            reason: reasons.join("; "),
        }
    }
}

/// An organisation that is not listed.
#[derive(Clone, Debug)]
pub(crate) struct Gone {
    pub(crate) organisation: OrganisationId,
    pub(crate) since: OffsetDateTime,
    /// Its grace period is over.
    pub(crate) is_due: bool,
    /// Its channels and routes in Mimir.
    pub(crate) live: usize,
    /// What is held of it so far.
    pub(crate) held: Option<GuardHeld>,
}

/// What may become of the document of an organisation that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Purge {
    /// The next full resync judges it.
    Unjudged,
    Allowed,
    Held(GuardHeld),
}

/// The judgement of one full resync over the organisations that are gone.
#[derive(Debug, Default)]
pub(crate) struct Purges(HashMap<OrganisationId, Purge>);

impl Purges {
    /// `observed` is the number of live channels and routes of all organisations.
    pub(crate) fn judge(
        gone: &[Gone],
        observed: usize,
        is_any_listed: bool,
        config: &GuardConfig,
    ) -> Self {
        let live = gone.iter().map(|one| one.live).fold(0, usize::saturating_add);
        // One organisation that is deleted is an everyday change, however much it has.
        let is_together =
            gone.len() > 1 && is_much(live, observed, config.overall_count, config.overall_share);
        let reason = if !is_any_listed {
            // That is no deletion but the wrong database, or a wrong query.
            Some("the database lists no organisation at all".to_owned())
        } else if is_together {
            Some(format!(
                "{} organisations are not listed any more; {live} of the {observed} channels and \
                 routes of all organisations would be deleted",
                gone.len()
            ))
        } else {
            None
        };
        let judged = gone.iter().filter(|one| one.is_due).map(|one| {
            let id = purge_id(one);
            // Confirmed one by one, the last ones would be too few to be held.
            let before = one.held.as_ref().filter(|held| held.id == id).cloned();
            let held = match &reason {
                Some(reason) => Some(GuardHeld { id, reason: reason.clone() }),
                None => before,
            };
            (one.organisation.clone(), held.map_or(Purge::Allowed, Purge::Held))
        });
        Self(judged.collect())
    }

    pub(crate) fn of(&self, organisation: &OrganisationId) -> Purge {
        self.0.get(organisation).cloned().unwrap_or(Purge::Unjudged)
    }
}

/// A confirmation is for this organisation, and for this time that it is gone.
fn purge_id(gone: &Gone) -> String {
    let text = format!("purge {} {}", gone.organisation, gone.since.unix_timestamp());
    short(&hex::encode(digest(&SHA256, text.as_bytes())))
}

/// The hold of a foreign document.
pub(crate) fn foreign(observed: &Observed) -> GuardHeld {
    GuardHeld {
        id: short(&observed.digest()),
        reason: "Mimir has an Alertmanager configuration for this organisation that the proxy did \
                 not write, and it would be replaced"
            .to_owned(),
    }
}

/// The beginning of a digest in hexadecimal: as long as the IDs of rules' holds.
fn short(digest: &str) -> String {
    const DIGITS: usize = 16;
    digest.chars().take(DIGITS).collect()
}

#[cfg(test)]
mod tests {
    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::*;
    use crate::channels::tests::{channel_row, route_row};
    use crate::config::Secret;
    use crate::store::ChannelRow;

    fn ids(range: std::ops::Range<u128>) -> impl Strategy<Value = BTreeSet<Uuid>> {
        btree_set(range.prop_map(Uuid::from_u128), 0..12)
    }

    fn rows(
        channels: &BTreeSet<Uuid>,
        routes: &BTreeSet<Uuid>,
        dead_channels: &BTreeSet<Uuid>,
        dead_routes: &BTreeSet<Uuid>,
    ) -> Rows {
        let at = |id: &Uuid| (*id, "2026-01-01".to_owned());
        Rows {
            channels: channels.iter().map(|id| channel_row(*id)).collect(),
            routes: routes.iter().map(|id| route_row(*id, Uuid::nil())).collect(),
            channel_tombstones: dead_channels.iter().map(at).collect(),
            route_tombstones: dead_routes.iter().map(at).collect(),
        }
    }

    proptest! {
        // The property that the whole guard is: nothing that is live goes without a row or a tombstone.
        #[test]
        fn what_is_live_has_a_row_or_a_tombstone_or_is_missing(
            live in ids(0..20), live_routes in ids(20..40), channels in ids(0..20), routes in ids(20..40),
            dead in ids(0..20), dead_routes in ids(20..40),
        ) {
            let found = missing(
                &Live { channels: live.clone(), routes: live_routes.clone() },
                &rows(&channels, &routes, &dead, &dead_routes),
            );
            for id in &live {
                let is_explained = channels.contains(id) || dead.contains(id);
                prop_assert_eq!(found.channels.contains(id), !is_explained);
            }
            for id in &live_routes {
                let is_explained = routes.contains(id) || dead_routes.contains(id);
                prop_assert_eq!(found.routes.contains(id), !is_explained);
            }
            prop_assert!(found.channels.is_subset(&live) && found.routes.is_subset(&live_routes));
        }

        // A route's tombstone does not explain a channel of the same identifier, nor the other way round.
        #[test]
        fn an_explanation_is_of_its_own_kind(id in any::<u128>()) {
            let id = BTreeSet::from([Uuid::from_u128(id)]);
            let none = BTreeSet::new();
            let live = Live { channels: id.clone(), routes: id.clone() };
            let found = missing(&live, &rows(&none, &none, &id, &none));
            prop_assert_eq!((found.channels.len(), found.routes.len()), (0, 1));
            let found = missing(&live, &rows(&none, &id, &none, &none));
            prop_assert_eq!((found.channels.len(), found.routes.len()), (1, 0));
        }

        // A confirmation is for exactly what was shown.
        #[test]
        fn an_id_is_of_what_would_go_and_of_nothing_else(
            one in ids(0..20), other in ids(0..20), live in ids(0..20), more in ids(0..20),
        ) {
            let of = |channels: &BTreeSet<Uuid>, live: &BTreeSet<Uuid>| {
                let missing = Missing { channels: channels.clone(), ..Missing::default() };
                missing.held(&Live { channels: live.clone(), routes: BTreeSet::new() }).id
            };
            prop_assert_eq!(of(&one, &live) == of(&other, &more), one == other);
        }
    }

    #[test]
    fn a_hold_says_what_would_go() {
        let id = |number| Uuid::from_u128(number);
        let live = Live { channels: [id(1), id(2)].into(), routes: [id(3), id(4), id(5)].into() };
        let held = Missing {
            channels: [id(1)].into(),
            routes: [id(3), id(4)].into(),
            without_secrets: BTreeSet::new(),
        }
        .held(&live);
        assert_eq!(
            held.reason,
            "1 of 2 channels and 2 of 3 routes would be deleted, and the database has no record of \
             their deletion"
        );
        assert_eq!(held.id.len(), 16);
        let lost = Missing { without_secrets: [id(1)].into(), ..Missing::default() }.held(&live);
        assert_eq!(
            lost.reason,
            "1 of 2 channels would be deleted, because their secrets are not stored any more and \
             their rows have only the masks"
        );
        // A confirmation of one is not one of the other.
        let gone = Missing { channels: [id(1)].into(), ..Missing::default() }.held(&live);
        assert_ne!(lost.id, gone.id);
    }

    fn gone(name: &str, live: usize) -> Gone {
        Gone {
            organisation: OrganisationId::parse(name).unwrap(),
            since: OffsetDateTime::UNIX_EPOCH,
            is_due: true,
            live,
            held: None,
        }
    }

    fn guard_of(purges: &Purges, one: &Gone) -> Option<GuardHeld> {
        match purges.of(&one.organisation) {
            Purge::Held(held) => Some(held),
            Purge::Allowed | Purge::Unjudged => None,
        }
    }

    // The same counts and shares as for rules: 50 and a fifth.
    #[test]
    fn organisations_that_are_gone_are_judged_together() {
        let config = GuardConfig::default();
        let judged = |all: &[Gone], observed| Purges::judge(all, observed, true, &config);
        let (one, other) = (gone("acme", 25), gone("umbrella", 25));
        let both = [one.clone(), other.clone()];
        let held = judged(&both, 250);
        let reason = guard_of(&held, &one).unwrap().reason;
        assert!(
            reason.starts_with("2 organisations") && reason.contains("50 of the 250"),
            "{reason}"
        );
        assert_ne!(guard_of(&held, &one).unwrap().id, guard_of(&held, &other).unwrap().id);
        assert_eq!(judged(&both, 251).of(&one.organisation), Purge::Allowed, "less than the share");
        let fewer = [one.clone(), gone("umbrella", 24)];
        assert_eq!(judged(&fewer, 60).of(&one.organisation), Purge::Allowed, "less than the count");
        // One alone, however much it has.
        let large = gone("acme", 200);
        assert_eq!(judged(&[large], 200).of(&one.organisation), Purge::Allowed);
        // In their grace period they count, and nothing is to be done.
        let early = Gone { is_due: false, ..other.clone() };
        let held = judged(&[one.clone(), early], 250);
        assert!(guard_of(&held, &one).is_some());
        assert_eq!(held.of(&other.organisation), Purge::Unjudged);
        assert_eq!(Purges::default().of(&one.organisation), Purge::Unjudged);
    }

    #[test]
    fn without_any_organisation_nothing_is_purged() {
        let one = gone("acme", 1);
        let none = Purges::judge(std::slice::from_ref(&one), 1, false, &GuardConfig::default());
        assert!(guard_of(&none, &one).unwrap().reason.contains("no organisation at all"));
    }

    // Of two that were held one was confirmed and purged: the other one was not.
    #[test]
    fn what_was_held_stays_held_while_it_is_gone() {
        let config = GuardConfig::default();
        let both = [gone("acme", 25), gone("umbrella", 25)];
        let held = guard_of(&Purges::judge(&both, 50, true, &config), &both[1]).unwrap();
        let left = Gone { held: Some(held.clone()), ..both[1].clone() };
        let judged = Purges::judge(std::slice::from_ref(&left), 25, true, &config);
        assert_eq!(guard_of(&judged, &left), Some(held));
        // It was listed in between, or what is held of it are its rows.
        let again = Gone { since: left.since + std::time::Duration::from_secs(60), ..left.clone() };
        let judged = Purges::judge(std::slice::from_ref(&again), 25, true, &config);
        assert_eq!(judged.of(&again.organisation), Purge::Allowed);
    }

    #[test]
    fn a_live_channel_with_a_mask_and_no_secret_is_missing() {
        let id = |number| Uuid::from_u128(number);
        let live = Live { channels: [id(1), id(2), id(3)].into(), routes: BTreeSet::new() };
        let row = |number, secrets: &str, enabled: &str| ChannelRow {
            secrets: Some(Secret::new(secrets)),
            enabled: Some(enabled.to_owned()),
            ..channel_row(id(number))
        };
        let lost = r#"{"url": "<secret>"}"#;
        let rows = Rows {
            channels: vec![
                row(1, lost, "true"),
                row(2, r#"{"url": "https://hooks.example.org/x"}"#, "true"),
                // Its author has switched it off.
                row(3, lost, "false"),
                // It is not in the document, so nothing is lost with it.
                row(4, lost, "true"),
            ],
            ..Rows::default()
        };
        let found = missing(&live, &rows);
        assert_eq!(found, Missing { without_secrets: [id(1)].into(), ..Missing::default() });
        // A secret that its author has removed.
        let removed = Rows { channels: vec![row(1, "{}", "true")], ..rows };
        let live = Live { channels: [id(1)].into(), routes: BTreeSet::new() };
        assert!(missing(&live, &removed).is_empty());
    }
}
