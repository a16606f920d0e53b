//! The address at which other instances reach an instance.

use super::rings::{used, written};
use super::{Finding, Profile};

/// Keys of a ring that are often put one or two levels too deep. Mimir does not start with them
/// there.
pub(super) const OF_THE_RING: [&str; 7] = [
    "instance_addr",
    "instance_id",
    "instance_port",
    "instance_interface_names",
    "instance_enable_ipv6",
    "instance_availability_zone",
    "replication_factor",
];

pub(super) fn misplaced(profile: &Profile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for ring in written(profile) {
        for place in ["kvstore", "kvstore.consul", "kvstore.etcd"] {
            let names = OF_THE_RING.iter().map(|name| (name, ring.key(&format!("{place}.{name}"))));
            findings.extend(names.filter(|(_, key)| profile.get(key).is_some()).map(
                |(name, key)| {
                    let wrong = format!("does not belong in {place}: Mimir does not start");
                    let right = format!("move it beside kvstore: {}", ring.key(name));
                    profile.error("instance-addr-misplaced", &key, &wrong, &right)
                },
            ));
        }
    }
    findings
}

/// On Fly Mimir detects the machine's own IPv4 address, which no other machine can reach; elsewhere a
/// reason to set the address of one ring holds for all rings. Rings on memberlist are left out: they
/// find their address in another way.
pub(super) fn missing(profile: &Profile) -> Vec<Finding> {
    let mut any = used(profile).filter(|ring| ring.is_on_consul(profile));
    let is_written = any.any(|ring| profile.text(&ring.key("instance_addr")).is_some())
        || profile.text("frontend.address").is_some();
    if !is_written && !profile.is_for_fly() {
        return Vec::new();
    }
    let on_consul = used(profile).filter(|ring| ring.is_on_consul(profile));
    on_consul
        .filter(|ring| profile.text(&ring.key("instance_addr")).is_none())
        .filter(|ring| !profile.is(&ring.key("instance_enable_ipv6"), true))
        // Then it is in the wrong place, which has its own finding.
        .filter(|ring| {
            let misplaced = ["kvstore.instance_addr", "kvstore.consul.instance_addr"];
            misplaced.iter().all(|key| profile.get(&ring.key(key)).is_none())
        })
        .map(|ring| {
            let wrong = "is missing, so Mimir puts the address that it detects into the ring: on Fly an \
                         IPv4 address that no other machine reaches";
            let right = "set it to the machine's private name or IPv6, such as ${FLY_ALLOC_ID}.vm.${FLY_APP_NAME}.internal";
            profile.error("instance-addr-missing", &ring.key("instance_addr"), wrong, right)
        })
        .collect()
}

/// Queriers send their answers to the address that the frontend gives them: no ring, but the same
/// trap. Where the rings' addresses must be set, this one must be, too.
pub(super) fn of_the_frontend(profile: &Profile) -> Vec<Finding> {
    let key = "frontend.address";
    let mut on_consul = used(profile).filter(|ring| ring.is_on_consul(profile));
    let is_written = on_consul.any(|ring| profile.text(&ring.key("instance_addr")).is_some());
    let is_told = profile.get(key).is_some() || profile.is("frontend.instance_enable_ipv6", true);
    if !is_written || is_told {
        return Vec::new();
    }
    let wrong = "is missing, so queriers get the address that Mimir detects";
    let right = "set it to the same as instance_addr";
    vec![profile.error("frontend-address-missing", key, wrong, right)]
}
