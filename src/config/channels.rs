//! `[channels]`

use std::time::Duration;

use url::Url;

use super::RulesConfig;
use super::reader::{Raw, Section};
use super::shown::Shown;
use super::values::{duration, number, switch, text, unwritten, url};
use crate::mimir::MimirConfig;

/// How notification channels and routes get from Postgres to Mimir's Alertmanager.
#[derive(Clone, Debug)]
pub struct ChannelsConfig {
    /// Whether this process takes part in writing them. The leader of the rules does.
    pub enabled: bool,
    /// Where the Alertmanager's configuration interface is.
    pub urls: Vec<Url>,
    /// How often a full resync runs, whether or not changes were announced.
    pub reconcile_interval: Duration,
    /// Where the links of a notification lead.
    pub dashboard_url: Option<DashboardUrl>,
    /// The relay for channels of kind `email`; without one they are invalid.
    pub email: Option<EmailRelay>,
    /// `PagerDuty`'s Events API, if not the public one.
    pub pagerduty_url: Option<Url>,
    /// Opsgenie's API, if not the public one.
    pub opsgenie_url: Option<Url>,
    /// Telegram's bot API, if not the public one.
    pub telegram_url: Option<Url>,
    /// Whether channels may name addresses of a private network.
    pub allow_private_targets: bool,
    /// The shortest `group_interval` that a route may have.
    pub min_group_interval: Duration,
    /// Channels of an organisation that are written; older ones come first.
    pub max_channels: usize,
    /// Routes of an organisation that are written.
    pub max_routes: usize,
}

impl ChannelsConfig {
    /// How Mimir's Alertmanager is reached.
    pub fn mimir(&self, rules: &RulesConfig) -> MimirConfig {
        MimirConfig { urls: self.urls.clone(), ..rules.mimir() }
    }
}

/// The operator's SMTP relay. It asks for no credentials, because they would stand in every tenant's
/// configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmailRelay {
    /// `host:port`.
    pub smarthost: String,
    /// The sender's address.
    pub from: String,
    /// The name in `EHLO`; Alertmanager's own host name if there is none.
    pub hello: Option<String>,
    /// Whether STARTTLS must succeed.
    pub require_tls: bool,
}

/// The address of an organisation's own page, such as `https://app.example.com/{organisation_id}/alerts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DashboardUrl {
    before: String,
    /// What follows the organisation; none if the address does not name it.
    after: Option<String>,
}

const PLACEHOLDER: &str = "{organisation_id}";

impl DashboardUrl {
    /// An `http` or `https` address that holds the placeholder at most once.
    pub fn parse(address: &str) -> Result<Self, String> {
        let wanted =
            format!("must be an address such as \"https://app.example.com/{PLACEHOLDER}\"");
        let (before, after) = match address.split_once(PLACEHOLDER) {
            Some((before, after)) => (before, Some(after)),
            None => (address, None),
        };
        let rest = [before, after.unwrap_or_default()].concat();
        if let Some((problem, _)) = unwritten(&rest) {
            return Err(format!("{wanted}: it {problem}"));
        }
        if rest.contains(['{', '}', '"', '\'', '<', '>', '`']) {
            return Err(format!(
                "{wanted}: it may hold {PLACEHOLDER} once, and no other braces or quotes"
            ));
        }
        let sample = after.map_or(before.to_owned(), |after| [before, "sample", after].concat());
        let url = Url::parse(&sample).map_err(|error| format!("{wanted}: {error}"))?;
        // The placeholder may not stand in the host: an organisation's name would choose whose page it is.
        let host_is_fixed = Url::parse(before).is_ok_and(|fixed| fixed.host() == url.host());
        if !matches!(url.scheme(), "http" | "https") || !host_is_fixed || !url.username().is_empty()
        {
            return Err(wanted);
        }
        Ok(Self { before: before.to_owned(), after: after.map(str::to_owned) })
    }

    /// The page of one organisation. An identifier's characters need no escape in a path or a query
    /// ([`OrganisationId`](crate::tenancy::OrganisationId)), except the quote, which would end an HTML
    /// attribute.
    pub fn of(&self, organisation: &crate::tenancy::OrganisationId) -> String {
        match &self.after {
            None => self.before.clone(),
            Some(after) => {
                let organisation = organisation.as_str().replace('\'', "%27");
                [self.before.as_str(), &organisation, after].concat()
            }
        }
    }
}

/// Without what follows a question mark, which may be a credential.
impl Shown for DashboardUrl {
    fn shown(&self) -> String {
        let after = self.after.as_deref().map(|after| format!("{PLACEHOLDER}{after}"));
        let whole = format!("{}{}", self.before, after.unwrap_or_default());
        whole.split(['?', '#']).next().unwrap_or_default().to_owned()
    }
}

/// The shortest interval that makes sense: a full resync reads everything.
const SHORTEST_RECONCILE: Duration = Duration::from_secs(1);

/// Three times this, for routes with `["..."]`, must not be more than what routes that say nothing have: 5m.
const LONGEST_MIN_GROUP_INTERVAL: Duration = Duration::from_secs(100);

pub(super) fn read(section: &mut Section<'_>, rules: &RulesConfig) -> ChannelsConfig {
    let second = Duration::from_secs(1);
    let enabled = section.get("enabled", false, switch);
    if enabled && !rules.enabled {
        let problem = "needs rules.enabled: the leader of the rules writes the channels, too";
        section.fault("enabled", problem.to_owned());
    }
    let urls = section.get_list("urls", rules.urls.clone(), |address| {
        let read = url(Raw::Text(address.clone()), "http://mimir.internal:8080")?;
        if read.path() == "/" { Ok(read) } else { Err(format!("'{address}' must have no path")) }
    });
    if urls.is_empty() && section.says("urls") && !section.is_faulty("urls") {
        section.fault("urls", "must hold at least one address".to_owned());
    }
    let api = |example: &'static str| move |raw| optional(raw, |raw| url(raw, example));
    ChannelsConfig {
        enabled,
        urls,
        reconcile_interval: section.get("reconcile_interval", 300 * second, |raw| {
            duration(raw, SHORTEST_RECONCILE, 86_400 * second)
        }),
        dashboard_url: section.get("dashboard_url", None, |raw| {
            optional(raw, |raw| text(raw).and_then(|address| DashboardUrl::parse(&address)))
        }),
        email: read_email(section),
        pagerduty_url: section.get(
            "pagerduty_url",
            None,
            api("https://events.eu.pagerduty.com/v2/enqueue"),
        ),
        opsgenie_url: section.get("opsgenie_url", None, api("https://api.eu.opsgenie.com/")),
        telegram_url: section.get("telegram_url", None, api("https://telegram.example.com")),
        allow_private_targets: section.get("allow_private_targets", false, switch),
        min_group_interval: section.get("min_group_interval", 10 * second, |raw| {
            duration(raw, second, LONGEST_MIN_GROUP_INTERVAL)
        }),
        max_channels: section.get("max_channels", 100, |raw| number(raw, 1, 1000)),
        max_routes: section.get("max_routes", 200, |raw| number(raw, 1, 2000)),
    }
}

fn read_email(section: &mut Section<'_>) -> Option<EmailRelay> {
    let smarthost =
        section.get("email_smarthost", None, |raw| optional(raw, |raw| smarthost(&text(raw)?)));
    let from = section.get("email_from", None, |raw| optional(raw, |raw| address(text(raw)?)));
    let hello = section.get("email_hello", None, |raw| optional(raw, |raw| host(text(raw)?)));
    let require_tls = section.get("email_require_tls", false, switch);
    let is_faulty = section.is_faulty("email_smarthost") || section.is_faulty("email_from");
    match (smarthost, from) {
        (Some(smarthost), Some(from)) => Some(EmailRelay { smarthost, from, hello, require_tls }),
        (Some(_), None) if !is_faulty => {
            let problem = "is missing: the sender's address, such as \"alerts@example.com\"";
            section.fault("email_from", problem.to_owned());
            None
        }
        (None, _) if !is_faulty => {
            for key in ["email_from", "email_hello", "email_require_tls"] {
                if section.says(key) {
                    section.fault(key, "has no effect without email_smarthost".to_owned());
                }
            }
            None
        }
        _ => None,
    }
}

/// A text that may be empty.
fn optional<T>(raw: Raw, read: impl FnOnce(Raw) -> Result<T, String>) -> Result<Option<T>, String> {
    let text = text(raw)?;
    if text.is_empty() { Ok(None) } else { read(Raw::Text(text)).map(Some) }
}

fn smarthost(text: &str) -> Result<String, String> {
    let wanted = || "must be host:port, such as \"smtp.internal:587\"".to_owned();
    let (name, port) = text.rsplit_once(':').ok_or_else(wanted)?;
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    let is_address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .is_some_and(|name| name.parse::<std::net::Ipv6Addr>().is_ok());
    if is_port && (is_address || host(name.to_owned()).is_ok()) {
        Ok(text.to_owned())
    } else {
        Err(wanted())
    }
}

/// A host name or an IPv4 address.
fn host(text: String) -> Result<String, String> {
    let is_plain = !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    if is_plain { Ok(text) } else { Err("must be a host name".to_owned()) }
}

/// A bare address, as it stands in an SMTP envelope: it is written into every tenant's configuration.
fn address(text: String) -> Result<String, String> {
    let is_plain = text.split_once('@').is_some_and(|(local, domain)| {
        let is_local =
            |byte: u8| byte.is_ascii_alphanumeric() || b".!#$%&'*+/=?^_`{|}~-".contains(&byte);
        !local.is_empty() && local.bytes().all(is_local) && host(domain.to_owned()).is_ok()
    });
    if is_plain && !text.contains("{{") {
        Ok(text)
    } else {
        Err("must be an e-mail address, such as \"alerts@example.com\"".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenancy::OrganisationId;

    #[test]
    fn a_dashboards_address_names_the_organisation_at_most_once_and_never_in_the_host() {
        let acme = OrganisationId::parse("acme").unwrap();
        for (address, page) in [
            (
                "https://app.example.com/{organisation_id}/alerts",
                "https://app.example.com/acme/alerts",
            ),
            ("https://app.example.com/?org={organisation_id}", "https://app.example.com/?org=acme"),
            ("https://app.example.com/#/{organisation_id}", "https://app.example.com/#/acme"),
            ("http://localhost:3000", "http://localhost:3000"),
        ] {
            assert_eq!(DashboardUrl::parse(address).unwrap().of(&acme), page);
        }
        for wrong in [
            "https://{organisation_id}.example.com/",
            "https://{organisation_id}",
            "https://example.com:{organisation_id}/",
            "https://a@example.com/{organisation_id}",
            "https://example.com/{organisation_id}/{organisation_id}",
            "https://example.com/{organisation}",
            "https://example.com/{{ .x }}",
            "https://example.com/\"",
            "javascript:{organisation_id}",
            "ftp://example.com/",
            "example.com/{organisation_id}",
            "https://example.com/a b",
        ] {
            assert!(DashboardUrl::parse(wrong).is_err(), "{wrong}");
        }
        let quote = OrganisationId::parse("o'brien").unwrap();
        let url = DashboardUrl::parse("https://example.com/{organisation_id}").unwrap();
        assert_eq!(url.of(&quote), "https://example.com/o%27brien");
    }

    #[test]
    fn a_relay_is_a_host_and_a_port() {
        for right in ["smtp.internal:25", "10.0.0.1:587", "[fdaa::3]:25", "relay:465"] {
            assert!(smarthost(right).is_ok(), "{right}");
        }
        for wrong in ["smtp.internal", ":25", "a b:25", "a:0", "a:99999", "fdaa::3", "smtp://a:25"]
        {
            assert!(smarthost(wrong).is_err(), "{wrong}");
        }
        for right in ["alerts@example.com", "a+b@x"] {
            assert!(address(right.to_owned()).is_ok(), "{right}");
        }
        for wrong in ["alerts", "A <a@example.com>", "a@b@c", "@x", "a@", "{{.x}}@example.com"] {
            assert!(address(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
