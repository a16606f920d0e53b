//! The decision: pure, and the only place that makes a [`Grant`].

use std::sync::Arc;

use super::selector::Selector;
use super::{Denial, Grant};
use crate::authn::{ClaimedOrganisations, Principal};
use crate::config::TenancyConfig;
use crate::route::Route;
use crate::tenancy::OrganisationId;

pub(super) fn decide(
    config: &TenancyConfig,
    principal: &Arc<Principal>,
    route: &'static Route,
    selector: &Selector,
) -> Result<Grant, Denial> {
    let organisation = choose(principal.organisations(), selector)?;
    if !config.user_scopes.contains(route.scope) {
        return Err(Denial::Scope(route.scope));
    }
    let tenant = config.template.tenant_of(organisation).map_err(Denial::NoTenant)?;
    Ok(Grant {
        principal: Arc::clone(principal),
        route,
        organisation: organisation.clone(),
        tenant,
    })
}

/// The one organisation among the caller's own that a request is about.
fn choose<'a>(
    claimed: &'a ClaimedOrganisations,
    selector: &Selector,
) -> Result<&'a OrganisationId, Denial> {
    let own = match claimed {
        ClaimedOrganisations::Listed(own) => own,
        ClaimedOrganisations::Missing => return Err(Denial::NoOrganisation),
        ClaimedOrganisations::Unreadable(problem) => {
            return Err(Denial::UnreadableClaim(problem.clone()));
        }
    };
    match (selector, own.as_slice()) {
        (Selector::One(wanted), own) => {
            own.iter().find(|id| *id == wanted).ok_or(Denial::NotAMember)
        }
        (Selector::Impossible, _) => Err(Denial::NotAMember),
        (Selector::None, [only]) => Ok(only),
        (Selector::None, own) => Err(Denial::NameOne(own.to_vec())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(names: &[String]) -> Vec<OrganisationId> {
        names.iter().map(|name| OrganisationId::parse(name).unwrap()).collect()
    }

    fn claimed(names: &[&str]) -> ClaimedOrganisations {
        ClaimedOrganisations::Listed(ids(&names
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()))
    }

    fn one(name: &str) -> Selector {
        Selector::One(OrganisationId::parse(name).unwrap())
    }

    #[test]
    fn a_member_of_one_needs_no_selector() {
        assert_eq!(choose(&claimed(&["a"]), &Selector::None).unwrap().as_str(), "a");
        assert_eq!(choose(&claimed(&["a"]), &one("a")).unwrap().as_str(), "a");
    }

    #[test]
    fn a_member_of_several_names_one() {
        let both = claimed(&["a", "b"]);
        assert_eq!(choose(&both, &one("b")).unwrap().as_str(), "b");
        assert!(
            matches!(choose(&both, &Selector::None), Err(Denial::NameOne(own)) if own.len() == 2)
        );
    }

    #[test]
    fn foreign_unknown_and_impossible_organisations_look_the_same() {
        let own = claimed(&["a"]);
        for selector in [one("b"), one("no-such-organisation"), Selector::Impossible] {
            assert_eq!(choose(&own, &selector), Err(Denial::NotAMember));
        }
    }

    proptest! {
        // The one property that the product exists for.
        #[test]
        fn nobody_is_granted_what_is_not_theirs(
            own in proptest::collection::vec("[a-d]{1,2}", 0..4),
            wanted in proptest::option::of("[a-d]{1,2}"),
        ) {
            let claimed = ClaimedOrganisations::Listed(ids(&own));
            let selector = wanted.as_deref().map_or(Selector::None, one);
            if let Ok(granted) = choose(&claimed, &selector) {
                prop_assert!(own.iter().any(|name| name == granted.as_str()));
                prop_assert!(wanted.is_none_or(|wanted| wanted == granted.as_str()));
            }
        }
    }
}
