//! The deletion guard of one organisation's document. Pure.
//!
//! A deleted row and a row that could not be read look alike. A lost channel is a missed notification,
//! which goes unnoticed; one that stays for too long is noticed and harmless. So a channel or route that
//! is in Mimir's document, and has neither a row nor a tombstone, holds every write of its organisation
//! until an administrator confirms it. There is no threshold: the lost channel may be the only one.
//!
//! A channel whose row has the mask of a secret that is not stored is lost in the same way: without the
//! secret it is invalid, and its author did not remove it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use uuid::Uuid;

use super::document::{Live, Observed};
use super::spec::Rows;
use super::spec::channel::has_lost_a_secret;
use crate::store::GuardHeld;

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
