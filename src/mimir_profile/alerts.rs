//! Where the ruler sends alerts: to an Alertmanager, and to the proxy's private port.

use percent_encoding::percent_decode_str;

use super::expansion::is_unknown;
use super::ours::Receiver;
use super::{Finding, MimirVersion, Profile};

/// The list of addresses, separated by commas, each of which gets every alert.
const URLS: &str = "limits.ruler_alertmanager_client_config.alertmanager_url";
/// Its name before 2.17.
const DEPRECATED: &str = "ruler.alertmanager_url";

/// Rules without an Alertmanager: they are evaluated and fire, and no one is notified.
pub(super) fn nowhere(profile: &Profile) -> Vec<Finding> {
    let ruler = profile.get("ruler").map_or(&[][..], |ruler| ruler.entries());
    let has_rules = profile.assumptions.ours.is_some_and(|ours| ours.rules)
        || profile.get("ruler_storage").is_some()
        || ruler.iter().any(|entry| !["ring", "tenant_federation"].contains(&entry.key.as_str()));
    if !has_rules || urls(profile).is_some() || !runs_rulers(profile) {
        return Vec::new();
    }
    let wrong = "is missing, so rules fire and no one is notified";
    let right = "the address of an Alertmanager, or of this Mimir's own behind target: \
                 all,alertmanager: http://127.0.0.1:8080/alertmanager";
    vec![profile.warning("alerts-nowhere", key(profile), wrong, right)]
}

/// The key that 2.17 replaced. It still works, and where both are set it is the only one that does
/// (`initRuntimeConfig` in Mimir's `modules.go`).
pub(super) fn deprecated_key(profile: &Profile) -> Vec<Finding> {
    let Some(old) = profile.text(DEPRECATED).filter(|_| knows_the_new_key(profile)) else {
        return Vec::new();
    };
    let check = "alertmanager-url-deprecated";
    match profile.text(URLS) {
        Some(new) if new != old && !is_unknown(new) && !is_unknown(old) => {
            let wrong = format!("replaces {URLS}, which is set too and has no effect");
            vec![profile.error(check, DEPRECATED, &wrong, "leave it out")]
        }
        _ => {
            let right = format!("{URLS}, with the same value");
            vec![profile.warning(check, DEPRECATED, "is deprecated since Mimir 2.17", &right)]
        }
    }
}

/// The proxy waits for alerts on its private port, where the ruler must show the secret of
/// `alert_events.secret`.
pub(super) fn events(profile: &Profile) -> Vec<Finding> {
    let ours = profile.assumptions.ours.and_then(|ours| ours.alert_events);
    let list = urls(profile).filter(|_| runs_rulers(profile));
    // Without any address there is a finding already.
    let (Some(ours), Some(list)) = (ours, list) else { return Vec::new() };
    let check = "alert-events-receiver";
    let right = "a second address, of the proxy's private port, with alert_events.secret as its \
                 password: http://mimir:<secret>@<proxy>:9090/alertmanager";
    let addresses: Vec<Address> = list.split(',').filter_map(Address::read).collect();
    let own = own_port(profile);
    let of_all = of_all(profile);
    let candidates: Vec<&Address> = addresses
        .iter()
        .filter(|address| !address.is_mimirs(own))
        .filter(|address| of_all[1].is_some() || address.is_evident(&ours))
        .collect();
    let problem = |address: &Address| address.problem(&ours, of_all);
    let good = candidates.iter().filter(|address| problem(address).is_none()).count();
    let is_known = addresses.iter().all(|address| !address.is_unknown());
    if good > 0 {
        let is_only = candidates.iter().all(|address| address.is_evident(&ours));
        if good == addresses.len() && is_only && is_known {
            let wrong = "has only the proxy's address: alerts become rows, and no one is notified";
            let right = "an Alertmanager's address too, such as that of this Mimir's own: \
                         http://127.0.0.1:8080/alertmanager";
            return vec![profile.warning("alerts-nowhere", key(profile), wrong, right)];
        }
        return Vec::new();
    }
    // What is most likely meant for us, if none is right.
    let meant = candidates.into_iter().max_by_key(|address| {
        let is_at = |port: u16| address.port == Some(port);
        (is_at(ours.private_port), is_at(ours.public_port), !address.user_info.is_empty())
    });
    let meant = meant.filter(|address| is_known || address.port == Some(ours.private_port));
    match meant {
        Some(address) => {
            let wrong = problem(address).unwrap_or_default();
            vec![profile.error(check, key(profile), wrong, right)]
        }
        // An address that is not known may be ours.
        None if !is_known => Vec::new(),
        None => {
            let wrong = if addresses.len() > 1 {
                "has no address with a password while our alert_events is on: the proxy refuses its alerts"
            } else {
                "has no second address while our alert_events is on: no alert becomes a row"
            };
            vec![profile.error(check, key(profile), wrong, right)]
        }
    }
}

/// What is told where [`events`] finds nothing because a variable without a value may hold the proxy's address or its
/// secret. None where both are known, or where there is a finding.
pub(super) fn uncompared(profile: &Profile) -> Option<String> {
    let ours = profile.assumptions.ours.and_then(|ours| ours.alert_events)?;
    let list = urls(profile).filter(|_| runs_rulers(profile))?;
    let (own, of_all) = (own_port(profile), of_all(profile));
    let is_compared = |address: &Address| {
        let password = of_all[1].unwrap_or(address.user_info);
        !address.is_mimirs(own)
            && address.port.is_some()
            && address.is_evident(&ours)
            && !is_unknown(password)
            && address.problem(&ours, of_all).is_none()
    };
    let has_unknown = is_unknown(list) || of_all[1].is_some_and(is_unknown);
    let is_known = list.split(',').filter_map(Address::read).any(|address| is_compared(&address));
    if !has_unknown || is_known || !events(profile).is_empty() {
        return None;
    }
    let (line, key) = (profile.document.line(key(profile)), key(profile));
    Some(format!(
        "line {line}: note: {key}: has a variable whose value is not known here, so the address and the secret of \
         alert events are not compared; set every variable of the file and use --expand-env"
    ))
}

/// The user and the password that Mimir sends to every address, instead of their own.
fn of_all(profile: &Profile) -> [Option<&str>; 2] {
    ["username", "password"].map(|name| {
        profile.text(&format!("limits.ruler_alertmanager_client_config.basic_auth_{name}"))
    })
}

/// Mimir reads each part of the list as it is, a space included: it then fails for every tenant
/// (`buildNotifierConfig` in Mimir's `notifier.go`), and no rule is evaluated.
pub(super) fn spaces(profile: &Profile) -> Vec<Finding> {
    let Some(list) = urls(profile) else { return Vec::new() };
    if !list.contains(char::is_whitespace) {
        return Vec::new();
    }
    let wrong = "has a space in it, so the ruler cannot read it and evaluates no rules";
    let right = "addresses with a comma between them, and nothing else";
    vec![profile.error("alertmanager-url-space", key(profile), wrong, right)]
}

/// An Alertmanager's address is that of its prefix: Mimir adds the rest of the path.
pub(super) fn paths(profile: &Profile) -> Vec<Finding> {
    let Some(list) = urls(profile) else { return Vec::new() };
    let check = "alertmanager-url-path";
    let is_whole = |url: &str| url.trim().trim_end_matches('/').ends_with("/api/v2/alerts");
    if list.split(',').any(is_whole) {
        let wrong = "ends with /api/v2/alerts, which Mimir adds: the Alertmanager answers 404";
        let right = "the address up to and with /alertmanager";
        return vec![profile.error(check, key(profile), wrong, right)];
    }
    let prefix = profile.text("api.alertmanager_http_prefix").unwrap_or(PATH);
    let own = own_port(profile).filter(|_| profile.runs_alertmanager() && !is_unknown(prefix));
    let lacks = |address: &Address| {
        let path = address.path.trim_end_matches('/');
        address.is_mimirs(own) && !is_unknown(path) && path != prefix.trim_end_matches('/')
    };
    if own.is_none() || !list.split(',').filter_map(Address::read).any(|address| lacks(&address)) {
        return Vec::new();
    }
    let wrong = format!("has this Mimir's own address without {prefix}: it answers 404");
    let right = format!("the address up to and with {prefix}");
    vec![profile.error(check, key(profile), &wrong, &right)]
}

fn knows_the_new_key(profile: &Profile) -> bool {
    profile.assumptions.mimir >= MimirVersion(2, 17)
}

/// The list that Mimir uses.
fn urls(profile: &Profile) -> Option<&str> {
    profile.text(DEPRECATED).or_else(|| profile.text(URLS))
}

/// The key of that list; if there is none, the one to set.
fn key(profile: &Profile) -> &'static str {
    let is_old = profile.text(DEPRECATED).is_some() || !knows_the_new_key(profile);
    if is_old { DEPRECATED } else { URLS }
}

fn runs_rulers(profile: &Profile) -> bool {
    ["all", "ruler", "backend"].iter().any(|target| profile.targets(target))
}

/// Where Mimir's own Alertmanager is, and where the proxy takes alerts.
const PATH: &str = "/alertmanager";

/// The port of Mimir's own HTTP server; none if it is not known.
fn own_port(profile: &Profile) -> Option<u16> {
    match profile.get("server.http_listen_port") {
        None => Some(8080),
        Some(node) => node.text()?.parse().ok(),
    }
}

/// One address of the list, as Go's `url.Parse` takes it apart.
struct Address<'a> {
    is_https: bool,
    user_info: &'a str,
    host: &'a str,
    /// None if it is not known.
    port: Option<u16>,
    path: &'a str,
}

impl<'a> Address<'a> {
    /// None for the empty one, which Mimir leaves out.
    fn read(url: &'a str) -> Option<Self> {
        let url = url.trim();
        if url.is_empty() {
            return None;
        }
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user_info, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        let is_https = scheme.ends_with("https");
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
            _ if is_unknown(place) => (place, None),
            _ => (place, Some(if is_https { 443 } else { 80 })),
        };
        Some(Self { is_https, user_info, host, port, path })
    }

    /// Whether a variable without a value may be an address of its own, or hold more of them.
    fn is_unknown(&self) -> bool {
        is_unknown(self.host) || self.port.is_none() || is_unknown(self.path)
    }

    /// Whether it is the Mimir that reads it.
    fn is_mimirs(&self, own: Option<u16>) -> bool {
        let is_here = matches!(self.host, "localhost" | "[::1]") || self.host.starts_with("127.");
        is_here && own.is_some() && self.port == own && self.user_info.is_empty()
    }

    /// Whether it looks like the proxy's: no other receiver needs a password here.
    fn is_evident(&self, ours: &Receiver) -> bool {
        !self.user_info.is_empty() || self.port == Some(ours.private_port)
    }

    /// Why the proxy does not get alerts that are sent to it. `of_all` are the user and the password
    /// that Mimir sends to every address instead of their own.
    fn problem(&self, ours: &Receiver, of_all: [Option<&str>; 2]) -> Option<&'static str> {
        let of_url = self.user_info.split_once(':').map(|(_, password)| password);
        let is_decoded = of_all.iter().all(Option::is_none);
        let password = if is_decoded { of_url } else { of_all[1] }.unwrap_or_default();
        let is_wrong = || {
            let shown: Vec<u8> =
                if is_decoded { percent_decode_str(password).collect() } else { password.into() };
            !is_unknown(password) && !ours.secret.is(&shown)
        };
        // A variable may be both, the user and the password.
        let is_missing = password.is_empty() && !(is_decoded && is_unknown(self.user_info));
        let is_private = self.port == Some(ours.private_port);
        let is_public = self.port == Some(ours.public_port);
        if is_missing {
            Some("has the proxy's address without a password: the proxy refuses its alerts")
        } else if !password.is_empty() && is_wrong() {
            Some(
                "has another password in the proxy's address than our alert_events.secret: the proxy \
                 refuses its alerts",
            )
        } else if is_private && self.is_https {
            Some("has the proxy's private port with https, which it does not speak")
        } else if is_public && !is_private {
            Some("has the proxy's public port, which takes no alerts")
        } else if !is_unknown(self.path) && self.path.trim_end_matches('/') != PATH {
            Some("has the proxy's address without /alertmanager: the proxy answers 404")
        } else {
            None
        }
    }
}
