//! What an instance leaves in the rings when it stops.

use super::{Finding, Profile};

/// An instance that does not unregister stays in the ring as unhealthy. Writes to it fail on one
/// replica until an operator forgets it by hand. With stable names and persistent disks this is
/// intended.
pub(super) fn graceful_leave(profile: &Profile) -> Vec<Finding> {
    let rings = ["ingester.ring", "store_gateway.sharding_ring"];
    let keys = rings.map(|ring| format!("{ring}.unregister_on_shutdown"));
    keys.iter()
        .filter(|key| profile.is(key, false))
        .map(|key| {
            let wrong = "is false, so a machine that is replaced stays in the ring as unhealthy";
            let right = "leave it true, unless every machine comes back with its name and disk";
            profile.warning("graceful-leave", key, wrong, right)
        })
        .collect()
}
