//! Networks, such as `10.0.0.0/8`.

use std::net::IpAddr;

use super::shown::Shown;

/// The addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    bits: u32,
}

impl Network {
    /// An address alone is a network of one. Bits behind the prefix must be 0: they would be a mistake.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wanted = || {
            format!("'{text}' is not a network; write one such as \"10.0.0.0/8\" or \"fdaa::/16\"")
        };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let first: IpAddr = address.parse().map_err(|_| wanted())?;
        let most = if first.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            // No sign and no leading zeros, which other programs read otherwise.
            Some(bits)
                if bits.len() > 1 && !bits.starts_with(|c: char| ('1'..='9').contains(&c)) =>
            {
                return Err(wanted());
            }
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(wanted)?,
            None => most,
        };
        let network = Self { first, bits };
        if network.prefix(first) == number(first) {
            return Ok(network);
        }
        Err(format!("'{text}' has bits behind its prefix of {bits}; {}", wanted()))
    }

    /// Whether an address is in it. An IPv4 address is the same in the form of IPv6.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4() && self.prefix(address) == number(self.first)
    }

    fn prefix(&self, address: IpAddr) -> u128 {
        let width = if self.first.is_ipv4() { 32 } else { 128 };
        let rest = width - self.bits;
        number(address).checked_shr(rest).and_then(|top| top.checked_shl(rest)).unwrap_or(0)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

impl Shown for Network {
    fn shown(&self) -> String {
        format!("{}/{}", self.first, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        Network::parse(network).unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn a_network_contains_what_begins_with_its_bits() {
        for (network, address, is_in) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("10.0.0.7", "10.0.0.7", true),
            ("10.0.0.7", "10.0.0.8", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "fdaa::1", true),
            ("::/0", "::ffff:10.0.0.1", false),
            ("fdaa::/16", "fdaa:ffff::1", true),
            ("fdaa::/16", "fdab::1", false),
            ("::1/128", "::1", true),
        ] {
            assert_eq!(contains(network, address), is_in, "{network} {address}");
        }
    }

    #[test]
    fn what_may_be_a_mistake_is_no_network() {
        for text in [
            "",
            "10",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.1/8",
            "fdaa::1/16",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "/8",
            "10.0.0.0/8/8",
            "localhost",
            "*",
            "::ffff:10.0.0.0/8",
        ] {
            assert!(Network::parse(text).is_err(), "{text}");
        }
    }
}
