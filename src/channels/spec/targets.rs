//! Addresses that channels may name: `http` and `https`, on the public internet.
//!
//! Whoever writes a channel makes Mimir send requests. From where Mimir stands, an address of a private
//! network may be a database, a cloud's metadata service or Mimir itself. So a literal address must be a
//! public one, and a name must not be one that only private networks have. A public name can still
//! resolve to a private address: Mimir's receivers firewall
//! (`limits.alertmanager_receivers_firewall_block_private_addresses`) refuses that when it dials.
//!
//! The address is parsed as browsers do (<https://url.spec.whatwg.org>), which turns all spellings of an
//! IPv4 address into one, and what is given to Mimir is the parsed form: so Go's parser cannot find
//! another host in it.

use std::net::{Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// The longest address.
const MOST_BYTES: usize = 2048;

/// Reads an address. Errors never repeat it: it may hold a secret.
pub fn parse(address: &str, allow_private: bool) -> Result<Url, String> {
    let wanted = |problem: &str| format!("should be an https address, {problem}");
    if address.len() > MOST_BYTES {
        return Err(format!("is longer than {MOST_BYTES} bytes"));
    }
    if address.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err(wanted("without white space and backslashes"));
    }
    if has_lone_percent(address) {
        return Err(wanted("in which % is followed by two hexadecimal digits"));
    }
    let url = Url::parse(address).map_err(|error| wanted(&format!("and is none: {error}")))?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err("should begin with https://".to_owned());
    }
    // A parser takes the user for the host where a password holds a slash.
    if !url.username().is_empty()
        || url.password().is_some()
        || address.contains('@') && has_user(address)
    {
        return Err(wanted("without a user and a password in it"));
    }
    if url.fragment().is_some() {
        return Err(wanted("without a fragment (#)"));
    }
    if url.port() == Some(0) {
        return Err(wanted("with a port from 1 to 65535"));
    }
    if url.as_str().contains("{{") {
        return Err("holds {{, which begins a template; templates are not supported".to_owned());
    }
    match url.host() {
        None => Err(wanted("with a host")),
        Some(_) if allow_private => Ok(url),
        Some(Host::Ipv4(ip)) if is_public_v4(ip) => Ok(url),
        Some(Host::Ipv6(ip)) if is_public_v6(ip) => Ok(url),
        Some(Host::Ipv4(_) | Host::Ipv6(_)) => {
            Err("is an address that is not on the public internet".to_owned())
        }
        Some(Host::Domain(name)) if is_public_name(name) => Ok(url),
        Some(Host::Domain(_)) => Err("names a host that is not on the public internet".to_owned()),
    }
}

fn has_lone_percent(address: &str) -> bool {
    address.match_indices('%').any(|(at, _)| {
        let digits = address.as_bytes().get(at + 1..at + 3);
        !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

/// Whether an `@` stands before the path.
fn has_user(address: &str) -> bool {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
}

/// <https://www.iana.org/assignments/iana-ipv4-special-registry>
fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let is_special = match (a, b, c) {
        // This network, private, loopback, multicast, reserved and broadcast.
        (0 | 10 | 127 | 224..=255, _, _) => true,
        // Shared address space of providers.
        (100, 64..=127, _) => true,
        // Link-local, and with it the metadata service of every cloud.
        (169, 254, _) => true,
        (172, 16..=31, _) => true,
        // IETF protocol assignments, documentation, the old relays of 6to4.
        (192, 0, 0 | 2) | (192, 88, 99) => true,
        (192, 168, _) => true,
        // Benchmarks, and documentation.
        (198, 18 | 19, _) | (198, 51, 100) | (203, 0, 113) => true,
        _ => false,
    };
    !is_special
}

/// Only global unicast, 2000::/3, without what holds an IPv4 address or is no host's. That leaves out
/// unique local addresses (Fly.io's private network), link-local ones, and IPv4-mapped ones.
/// <https://www.iana.org/assignments/iana-ipv6-special-registry>
fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    let is_global_unicast = a & 0xe000 == 0x2000;
    let is_special = match (a, b) {
        // IETF protocol assignments, Teredo among them.
        (0x2001, 0..=0x01ff) => true,
        // Documentation.
        (0x2001, 0x0db8) | (0x3fff, 0..=0x0fff) => true,
        // 6to4, which holds an IPv4 address.
        (0x2002, _) => true,
        _ => false,
    };
    is_global_unicast && !is_special
}

/// Endings that public names do not have, and single labels, which a resolver completes.
const PRIVATE_ENDINGS: [&str; 17] = [
    "localhost",
    "localdomain",
    "local",
    "internal",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "home.arpa",
    "in-addr.arpa",
    "ip6.arpa",
    "flycast",
    "test",
    "example",
    "invalid",
    "onion",
];

fn is_public_name(name: &str) -> bool {
    // A final dot ends a full name; the parser leaves it.
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let is_whole = !name.is_empty() && name.split('.').all(|label| !label.is_empty());
    let is_private = PRIVATE_ENDINGS.iter().any(|ending| {
        name.strip_suffix(ending).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    });
    is_whole && name.contains('.') && !is_private
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_of_private_networks_are_refused_in_every_spelling() {
        for address in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://0x7f.1/",
            "http://127.0.0.1./",
            "http://１２７.０.０.１/",
            "http://%31%32%37.0.0.1/",
            "http://0/",
            "http://0.0.0.0:8080/",
            "http://10.1.2.3/",
            "http://172.16.0.1/",
            "http://172.31.255.255/",
            "http://192.168.1.1/",
            "http://100.64.0.1/",
            "http://169.254.169.254/latest/meta-data/",
            "http://2852039166/",
            "http://0xa9fea9fe/",
            "http://192.0.2.1/",
            "http://198.51.100.1/",
            "http://203.0.113.1/",
            "http://198.18.0.1/",
            "http://224.0.0.1/",
            "http://255.255.255.255/",
            "http://240.0.0.1/",
            "http://[::]/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:a9fe:a9fe]/",
            "http://[::ffff:8.8.8.8]/",
            "http://[::127.0.0.1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[64:ff9b:1::1]/",
            "http://[2002:7f00:1::]/",
            "http://[2001:0:1::1]/",
            "http://[2001:db8::1]/",
            "http://[fe80::1]/",
            "http://[fec0::1]/",
            "http://[fc00::1]/",
            "http://[fdaa:0:1::3]/",
            "http://[fd00:ec2::254]/",
            "http://[ff02::1]/",
            "http://localhost/",
            "http://LOCALHOST:9009/",
            "http://localhost./",
            "http://a.localhost/",
            "http://mimir/",
            "http://mimir./",
            "http://mimir.internal:8080/api/v1/alerts",
            "http://top1.nearest.of.mimir.internal./",
            "http://metadata.google.internal/",
            "http://printer.local/",
            "http://app.flycast/",
            "http://router.lan/",
            "http://ro\u{ad}uter.home.arpa/",
            "http://x.ｌocal/",
        ] {
            assert!(parse(address, false).is_err(), "{address}");
        }
    }

    #[test]
    fn addresses_that_two_parsers_read_differently_are_refused() {
        for address in [
            "",
            "hooks.example.org/x",
            "//hooks.example.org/x",
            "ftp://hooks.example.org/",
            "file:///etc/passwd",
            "gopher://hooks.example.org/",
            "javascript:alert(1)",
            "unix:///run/x.sock",
            "https://user:password@hooks.example.org/",
            "https://user@hooks.example.org/",
            "https://@hooks.example.org/",
            "https://127.0.0.1#@hooks.example.org/",
            "https://hooks.example.org\\@127.0.0.1/",
            "https://hooks.example.org/a b",
            "https://hooks.example.org/a\nb",
            "https://hooks.example.org/#secret",
            "https://hooks.example.org:0/",
            "https://hooks.example.org:99999/",
            "https://hooks.example.org/%zz",
            "https://hooks.example.org/%",
            "https://hooks..example.org/",
            "https://.example.org/",
            "https://hooks.example.org/?q={{ .GroupLabels }}",
            "https://hooks.example.org/?q={{.GroupLabels}}",
            "https://[::1%25eth0]/",
        ] {
            let problem = parse(address, true).err();
            let problem = problem.or_else(|| parse(address, false).err());
            let problem = problem.unwrap_or_else(|| panic!("{address}"));
            assert!(!problem.contains("secret") && !problem.contains("hooks"), "{problem}");
        }
    }

    #[test]
    fn public_addresses_are_given_on_as_they_were_parsed() {
        for (address, parsed) in [
            (
                "https://hooks.slack.com/services/T0/B0/x",
                "https://hooks.slack.com/services/T0/B0/x",
            ),
            ("https://HOOKS.example.org", "https://hooks.example.org/"),
            ("http://8.8.8.8:8080/a?b=c%20d", "http://8.8.8.8:8080/a?b=c%20d"),
            ("http://134744072/", "http://8.8.8.8/"),
            ("https://[2606:4700::1111]/", "https://[2606:4700::1111]/"),
            ("https://hooks.example.org./x", "https://hooks.example.org./x"),
            ("https://müller.example.org/ä", "https://xn--mller-kva.example.org/%C3%A4"),
            ("https://hooks.example.org/a@b", "https://hooks.example.org/a@b"),
            ("https://local.example.org/internal", "https://local.example.org/internal"),
        ] {
            assert_eq!(parse(address, false).as_ref().map(Url::as_str), Ok(parsed), "{address}");
        }
    }

    #[test]
    fn an_operator_may_allow_private_targets() {
        for address in
            ["http://127.0.0.1:9/", "http://relay/", "http://[fdaa::3]/", "http://a.internal/"]
        {
            assert!(parse(address, true).is_ok(), "{address}");
        }
    }

    proptest! {
        // The registry's list in the standard library's terms, which were written by others.
        #[test]
        fn no_private_ipv4_address_passes_in_any_spelling(bits in any::<u32>(), spelling in 0_usize..5) {
            let ip = Ipv4Addr::from_bits(bits);
            let [a, b, c, d] = ip.octets();
            let host = match spelling {
                0 => ip.to_string(),
                1 => bits.to_string(),
                2 => format!("0x{bits:x}"),
                3 => format!("0{a:o}.0x{b:x}.{}", u32::from(c) << 8 | u32::from(d)),
                _ => format!("{a}.{}", bits & 0xff_ffff),
            };
            let is_private = ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_multicast()
                || ip.is_broadcast() || ip.is_unspecified() || ip.is_documentation();
            let passes = parse(&format!("http://{host}/"), false).is_ok();
            prop_assert!(!(is_private && passes), "{host}");
            let mapped = parse(&format!("http://[{}]/", ip.to_ipv6_mapped()), false);
            prop_assert!(mapped.is_err());
        }

        #[test]
        fn only_global_unicast_ipv6_passes(bits in any::<u128>()) {
            let ip = Ipv6Addr::from_bits(bits);
            let passes = parse(&format!("http://[{ip}]/"), false).is_ok();
            let is_private = ip.is_loopback() || ip.is_unspecified() || ip.is_multicast()
                || ip.is_unique_local() || ip.is_unicast_link_local();
            prop_assert!(!(is_private && passes), "{ip}");
            prop_assert_eq!(passes && bits >> 125 != 1, false, "{}", ip);
        }

        #[test]
        fn what_is_given_on_is_read_back_to_the_same(text in "https?://[a-z0-9.\\[\\]:@%/?#{}\\\\ä-]{0,30}") {
            if let Ok(url) = parse(&text, false) {
                let again = parse(url.as_str(), false);
                prop_assert_eq!(again.as_ref(), Ok(&url));
                prop_assert!(url.username().is_empty() && !url.as_str().contains("{{"));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            let _ = parse(&text, false);
        }
    }
}
