//! Whether Mimir can be reached without the proxy. It trusts every X-Scope-OrgID that it gets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Finding, Profile};

pub(super) fn public(profile: &Profile) -> Vec<Finding> {
    let (http, grpc) = ("server.http_listen_address", "server.grpc_listen_address");
    let (of_http, of_grpc) = (listener(profile, http), listener(profile, grpc));
    match (of_http, of_grpc) {
        // Usually one mistake, so one finding.
        (Some(mut both), Some(grpc)) if (both.check, &both.wrong) == (grpc.check, &grpc.wrong) => {
            both.wrong += ", and so is server.grpc_listen_address";
            vec![both]
        }
        (http, grpc) => http.into_iter().chain(grpc).collect(),
    }
}

fn listener(profile: &Profile, key: &str) -> Option<Finding> {
    // An empty value that is written out, perhaps as a variable's default, is intended.
    let written = match profile.get(key) {
        None => "",
        Some(node) => node.text().filter(|text| !text.is_empty())?,
    };
    if written.starts_with('[') {
        let wrong = "has brackets, which Mimir adds itself: it does not start";
        return Some(profile.error(
            "listen-address",
            key,
            wrong,
            "the address alone, such as '::'",
        ));
    }
    let (check, right) = (
        "public-listener",
        "an address of a private network: who reaches Mimir directly can act as any tenant",
    );
    let address = written.parse::<IpAddr>().ok();
    let is_everywhere =
        written.is_empty() || address.is_some_and(|address| address.is_unspecified());
    if is_everywhere {
        if !profile.is_for_fly() {
            let wrong = if written.is_empty() {
                "is missing (Mimir listens on every address of the machine)"
            } else {
                "is every address of the machine"
            };
            return Some(profile.warning(check, key, wrong, right));
        }
        // On Fly a machine's own addresses are private; but the private network is IPv6.
        if address == Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) {
            let wrong = "is IPv4 only, and Fly's private network is IPv6: no machine reaches it";
            return Some(profile.error(check, key, wrong, "'::' there, which is IPv4 too"));
        }
        return None;
    }
    let is_public = address.is_some_and(|address| !is_private(address));
    is_public.then(|| profile.warning(check, key, "is a public address", right))
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            // 100.64.0.0/10 is shared address space (RFC 6598).
            let is_shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || is_shared
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_private(v4.into()),
            None => is_private_v6(v6),
        },
    }
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    let first = address.segments()[0];
    // fc00::/7 (Fly's fdaa:: among them), fe80::/10.
    address.is_loopback() || first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfe80
}
