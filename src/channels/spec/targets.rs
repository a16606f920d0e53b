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
//! another host in it. That parser must not refuse it either: Alertmanager would log the whole address,
//! with the secret in it. So a host has only the characters of host names, and the rest is printable ASCII.

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
    if !url.as_str().bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wanted("of printable characters"));
    }
    match url.host() {
        None => Err(wanted("with a host")),
        Some(Host::Domain(name)) if !is_name(name) => {
            Err(wanted("with a host of letters, digits, -, _ and dots"))
        }
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

/// A domain that mail may go to, in ASCII. Literal addresses are none.
pub fn mail_domain(domain: &str, allow_private: bool) -> Option<String> {
    let Ok(Host::Domain(name)) = Host::parse(domain) else { return None };
    let is_plain = is_name(&name) && !name.ends_with('.') && !name.contains('_');
    (is_plain && (allow_private || is_public_name(&name))).then_some(name)
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

/// Public by its number, and from within Azure the platform's own agent: DNS, DHCP, and a machine's
/// configuration with its keys.
const AZURE: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

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
    !is_special && ip != AZURE
}

/// Only global unicast, `2000::/3`, without what holds an IPv4 address or is no host's. That leaves out
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

/// Endings that public names do not have: of special use
/// (<https://www.iana.org/assignments/special-use-domain-names>), withheld because private networks use
/// them (ICANN's name collisions), or given by container platforms, clouds, routers and VPNs. The list
/// cannot be whole, which is why Mimir's firewall looks at the address, too.
const PRIVATE_ENDINGS: [&str; 77] = [
    // Special use. `arpa` covers home.arpa, in-addr.arpa, ip6.arpa and others.
    "alt",
    "arpa",
    "example",
    "internal",
    "invalid",
    "local",
    "localhost",
    "onion",
    "test",
    // Name collisions.
    "belkin",
    "corp",
    "dhcp",
    "dlink",
    "domain",
    "home",
    "intern",
    "intra",
    "intranet",
    "ip",
    "lan",
    "localdomain",
    "mail",
    "openstacklocal",
    "priv",
    "private",
    "router",
    "workgroup",
    "wpad",
    // The same, less often.
    "adlocal",
    "bbrouter",
    "gateway",
    "loc",
    "lokal",
    "modem",
    "nas",
    "server",
    "servers",
    "totolink",
    "wlan",
    "workstation",
    "wrt",
    "zyxel",
    // Containers, and service discovery.
    "cluster",
    "consul",
    "container",
    "containers",
    "docker",
    "incus",
    "k8s",
    "kube",
    "kubernetes",
    "lxc",
    "lxd",
    "marathon",
    "mesos",
    "minikube",
    "nomad",
    "pod",
    "podman",
    "rancher",
    "service",
    "svc",
    "swarm",
    "vagrant",
    "vault",
    "vm",
    "weave",
    // Names that resolve to another address inside of a network: clouds', their metadata services', routers'.
    "flycast",
    "fritz.box",
    "internal.cloudapp.net",
    "metadata.goog",
    "metadata.tencentyun.com",
    "novalocal",
    "oraclevcn.com",
    // Names that resolve to any address that they spell.
    "localtest.me",
    "nip.io",
    "sslip.io",
];

/// A host's name in what Go's parser takes: labels of at most 63 characters. A final dot ends a full name.
fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(is_plain);
    name.len() <= 253 && name.strip_suffix('.').unwrap_or(name).split('.').all(is_label)
}

/// Not a single label, which a resolver completes, and no private ending. Every top-level domain is of
/// letters, or begins with `xn--`.
fn is_public_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let is_private = PRIVATE_ENDINGS.iter().any(|ending| {
        name.strip_suffix(ending).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    });
    let is_whole = name.rsplit_once('.').is_some_and(|(_, last)| {
        let is_letters = last.len() > 1 && last.bytes().all(|byte| byte.is_ascii_alphabetic());
        is_letters || last.starts_with("xn--")
    });
    is_whole && !is_private
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
            "http://168.63.129.16/machine?comp=goalstate",
            "http://0xa83f8110/",
            "http://100.100.100.200/latest/meta-data/",
            "http://192.0.0.192/",
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
    fn names_that_only_private_networks_have_are_refused() {
        for name in [
            "relay",
            "mimir.default.svc",
            "mimir.default.svc.cluster.local",
            "mimir.service.consul",
            "MIMIR.service.CONSUL.",
            "mimir.docker",
            "host.docker.internal",
            "files.intern",
            "files.intra",
            "files.corp",
            "files.mail",
            "x.alt",
            "router.belkin",
            "router.dlink",
            "nas.home",
            "printer.lan",
            "speedport.ip",
            "fritz.box",
            "vm.openstacklocal",
            "vm.x.internal.cloudapp.net",
            "metadata.goog",
            "metadata.tencentyun.com",
            "1.0.168.192.in-addr.arpa",
            "resolver.arpa",
            "127.0.0.1.nip.io",
            "10-0-0-1.sslip.io",
            "localtest.me",
            // No top-level domain holds a digit, a hyphen or an underscore, or is one letter.
            "mimir.k8s-a",
            "mimir.lan1",
            "mimir.my_net",
            "mimir.x",
        ] {
            let address = format!("https://{name}/hook");
            let problem = parse(&address, false).unwrap_err();
            assert_eq!(problem, "names a host that is not on the public internet", "{name}");
            assert!(parse(&address, true).is_ok(), "{name}");
            assert_eq!(mail_domain(name.trim_end_matches('.'), false), None, "{name}");
        }
        for name in [
            "hooks.slack.com",
            "example.ad",
            "my-consul.example.org",
            "svc.example.org",
            "intern.example.de",
            "a_b.example.org",
            "xn--mller-kva.xn--p1ai",
            "пример.рф",
            "mail.example.org",
            "notlan.dev",
        ] {
            assert!(parse(&format!("https://{name}/hook"), false).is_ok(), "{name}");
        }
    }

    // Alertmanager logs a whole address that Go's parser refuses. These pass the parser of browsers.
    #[test]
    fn a_host_has_only_what_gos_parser_takes() {
        let long = format!("{}.example.org", "a".repeat(64));
        let longer = format!("{}example.org", "abcdefgh.".repeat(30));
        for host in [
            "a{b.example.org",
            "a}b.example.org",
            "a`b.example.org",
            "a{b}.example.org",
            "a\"b.example.org",
            "a'b.example.org",
            "a!b.example.org",
            "a$b.example.org",
            "a&b.example.org",
            "a(b).example.org",
            "a*b.example.org",
            "a+b.example.org",
            "a,b.example.org",
            "a;b.example.org",
            "a=b.example.org",
            "a~b.example.org",
            "a%7Bb.example.org",
            "a%60b.example.org",
            "a..example.org",
            long.as_str(),
            longer.as_str(),
        ] {
            for allow_private in [false, true] {
                let problem = parse(&format!("https://{host}/n33dle"), allow_private).unwrap_err();
                assert!(!problem.contains("n33dle") && !problem.contains("example"), "{problem}");
            }
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

        // What Go's `url.Parse` takes: no control characters, whole escapes, these characters in a host.
        #[test]
        fn what_passes_is_an_address_to_gos_parser(
            host in "[a-z0-9.{}`\"'!$&()*+,;=~%_^|<>\\[\\]:-]{0,20}", path in "\\PC{0,20}",
            allow_private: bool,
        ) {
            if let Ok(url) = parse(&format!("https://{host}/{path}"), allow_private) {
                let name = url.host_str().unwrap();
                let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
                let is_ipv6 = name.starts_with('[') && name.ends_with(']');
                prop_assert!(is_ipv6 || name.chars().all(is_plain), "{}", name);
                prop_assert!(!has_lone_percent(url.as_str()), "{}", url);
                prop_assert!(url.as_str().bytes().all(|byte| byte.is_ascii_graphic()), "{}", url);
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            let _ = parse(&text, false);
        }
    }
}
