//! The keys in Consul under which rings are kept.

use super::expansion::is_unknown;
use super::rings::{Ring, used, written};
use super::{Finding, Profile};

fn kept_at(ring: &Ring, profile: &Profile) -> String {
    format!("{}{}", ring.prefix(profile).unwrap_or(ring.default_prefix), ring.name)
}

/// Two rings at one key are one ring: rulers then appear as ingesters and get samples. The rings of
/// ingester and ruler have the same name, so one prefix for all rings is enough. (Seen on Consul.)
pub(super) fn shared(profile: &Profile) -> Vec<Finding> {
    let rings: Vec<&Ring> = used(profile).filter(|ring| ring.is_on_consul(profile)).collect();
    let mut findings = Vec::new();
    for (at, ring) in rings.iter().enumerate() {
        let key = kept_at(ring, profile);
        let Some(other) = rings[..at].iter().find(|other| kept_at(other, profile) == key) else {
            continue;
        };
        let wrong = format!("keeps this ring at {key}, where {} is kept as well", other.path);
        let right = "give it a prefix of its own, such as ${CONSUL_PREFIX}/rulers/";
        findings.push(profile.error("ring-key-shared", &ring.key("kvstore.prefix"), &wrong, right));
    }
    findings
}

/// The ring's name directly follows the prefix.
pub(super) fn without_slash(profile: &Profile) -> Vec<Finding> {
    let on_consul = written(profile).filter(|ring| ring.is_on_consul(profile));
    on_consul
        .filter_map(|ring| {
            let prefix = ring.prefix(profile)?;
            // What ends in a variable may end in a slash.
            if prefix.ends_with('/') || prefix.ends_with('⟧') {
                return None;
            }
            let wrong = format!("is '{prefix}', which makes the key '{}'", kept_at(ring, profile));
            let key = ring.key("kvstore.prefix");
            Some(profile.error("ring-prefix-without-slash", &key, &wrong, "end it with a slash"))
        })
        .collect()
}

/// A token of Fly's may write only below its own prefix; Mimir's default prefix is not there.
pub(super) fn outside_of_the_token(profile: &Profile) -> Vec<Finding> {
    let on_consul = used(profile).filter(|ring| ring.is_on_consul(profile));
    on_consul
        .filter(|ring| ring.prefix(profile).is_none())
        .filter(|ring| {
            let token = ring.consul(profile, "acl_token").unwrap_or_default();
            !token.is_empty() && (is_unknown(token) || profile.is_for_fly())
        })
        .map(|ring| {
            let wrong = format!(
                "is missing, and the default '{}' may be outside of what the token can write",
                ring.default_prefix
            );
            let right =
                "put the prefix that came with the token before it: ${CONSUL_PREFIX}/collectors/";
            profile.warning("ring-prefix-outside-token", &ring.key("kvstore.prefix"), &wrong, right)
        })
        .collect()
}
