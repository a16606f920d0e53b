//! The kinds of channel, and what the settings and secrets of each may be.
//!
//! What an author cannot set here has no place in the document: no template, no address but the channel's
//! own, no file of Mimir's disk, no proxy.

use url::Url;

use super::Operator;
use super::fault::Collector;
use super::json::{Secrets, Settings, nested};
use super::secret::SecretText;
use super::targets;
use crate::config::EmailRelay;
use crate::rules::spec::refusal::quoted;

/// Where a channel's notifications go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Webhook(Webhook),
    Email(Email),
    Slack(Slack),
    PagerDuty(PagerDuty),
    Opsgenie(Opsgenie),
    Telegram(Telegram),
    /// Its webhook's address.
    Discord(SecretText),
    MsTeams(MsTeams),
}

impl Kind {
    /// The name of its integration in Alertmanager's metrics.
    pub(crate) fn integration(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Email(_) => "email",
            Self::Slack(_) => "slack",
            Self::PagerDuty(_) => "pagerduty",
            Self::Opsgenie(_) => "opsgenie",
            Self::Telegram(_) => "telegram",
            Self::Discord(_) => "discord",
            Self::MsTeams(MsTeams { format: TeamsFormat::Workflow, .. }) => "msteamsv2",
            Self::MsTeams(_) => "msteams",
        }
    }
}

/// Alertmanager's JSON, by POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    pub url: SecretText,
    pub authorization: Option<Authorization>,
    /// Alerts in one request; the rest is counted in it.
    pub max_alerts: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorization {
    Bearer(SecretText),
    Basic { username: String, password: SecretText },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    /// Plain addresses; never empty.
    pub to: Vec<String>,
    pub relay: EmailRelay,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slack {
    pub access: SlackAccess,
    /// The name of a channel, or a channel's or user's ID.
    pub channel: Option<String>,
    pub username: Option<String>,
    /// As `:bell:`.
    pub icon_emoji: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlackAccess {
    /// An incoming webhook's address, of Slack or of what understands the same (Mattermost, Rocket.Chat).
    Webhook(SecretText),
    /// A bot's token, for Slack's own API.
    Token(SecretText),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagerDuty {
    /// The integration key of the Events API, version 2.
    pub routing_key: SecretText,
    pub url: Option<Url>,
    /// The severity of every event; else that of the alert's label `severity`.
    pub severity: Option<&'static str>,
    pub class: Option<String>,
    pub component: Option<String>,
    pub group: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opsgenie {
    pub api_key: SecretText,
    pub url: Option<Url>,
    pub priority: Option<&'static str>,
    pub tags: Vec<String>,
    pub responders: Vec<Responder>,
}

/// Who is told, by one of three.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Responder {
    pub kind: &'static str,
    /// `id`, `name` or `username`.
    pub by: &'static str,
    pub value: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telegram {
    pub bot_token: SecretText,
    pub url: Option<Url>,
    /// Never 0.
    pub chat_id: i64,
    /// A topic of a group. Mimir 3 knows it.
    pub message_thread_id: Option<u32>,
    /// Without a sound.
    pub silent: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MsTeams {
    pub url: SecretText,
    pub format: TeamsFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TeamsFormat {
    /// An adaptive card, for a webhook of Power Automate (Workflows). Mimir 3 knows it.
    Workflow,
    /// A message card, for a connector of Office 365, which Microsoft has ended, and for Mimir 2.17.
    Connector,
}

impl Kind {
    /// All secrets of a channel.
    pub fn secrets(&self) -> Vec<&SecretText> {
        match self {
            Self::Webhook(Webhook { url, authorization, max_alerts: _ }) => match authorization {
                None => vec![url],
                Some(Authorization::Bearer(secret)) => vec![url, secret],
                Some(Authorization::Basic { username: _, password }) => vec![url, password],
            },
            Self::Email(Email { to: _, relay: _ }) => Vec::new(),
            Self::Slack(slack) => match &slack.access {
                SlackAccess::Webhook(secret) | SlackAccess::Token(secret) => vec![secret],
            },
            Self::PagerDuty(pagerduty) => vec![&pagerduty.routing_key],
            Self::Opsgenie(opsgenie) => vec![&opsgenie.api_key],
            Self::Telegram(telegram) => vec![&telegram.bot_token],
            Self::Discord(url) => vec![url],
            Self::MsTeams(teams) => vec![&teams.url],
        }
    }
}

/// The names in the column `kind`.
pub const NAMES: [&str; 8] =
    ["webhook", "email", "slack", "pagerduty", "opsgenie", "telegram", "discord", "msteams"];

/// All keys of `secrets`, of any kind: in `settings` they are told to be misplaced.
const SECRET_KEYS: [&str; 6] = ["url", "token", "password", "routing_key", "api_key", "bot_token"];

/// Names of channels, users and the like.
const NAME_BYTES: usize = 200;
const MOST_RECIPIENTS: usize = 50;
/// An address of e-mail, and what stands before its `@` (RFC 5321, 4.5.3.1).
const ADDRESS_BYTES: usize = 254;
const LOCAL_BYTES: usize = 64;
/// Alertmanager writes all addresses into one line, which it does not fold: longer than this (RFC 5322, 2.1.1),
/// relays refuse the mail or break the line anywhere.
const LINE_BYTES: usize = 998;
const TO: &str = "To: ";
/// Between the addresses of one channel.
const SEPARATOR: &str = ", ";
const SEVERITIES: &[&str] = &["critical", "error", "warning", "info"];
const PRIORITIES: &[&str] = &["P1", "P2", "P3", "P4", "P5"];
const RESPONDERS: &[&str] = &["team", "user", "escalation", "schedule"];
const FORMATS: &[&str] = &["workflow", "connector"];

/// Reads the settings and secrets of a kind, to the last key. Gives nothing if it is wrong, and says why.
pub(super) fn read(
    name: &str,
    settings: Settings,
    secrets: Secrets,
    operator: &Operator,
    faults: &mut Collector,
) -> Option<(Kind, bool)> {
    let mut reader = Reader { settings, secrets, operator, faults };
    let send_resolved = reader.settings.switch("send_resolved", true, reader.faults);
    let kind = match name {
        "webhook" => reader.webhook().map(Kind::Webhook),
        "email" => reader.email().map(Kind::Email),
        "slack" => reader.slack().map(Kind::Slack),
        "pagerduty" => reader.pagerduty().map(Kind::PagerDuty),
        "opsgenie" => reader.opsgenie().map(Kind::Opsgenie),
        "telegram" => reader.telegram().map(Kind::Telegram),
        "discord" => reader.target().map(Kind::Discord),
        "msteams" => reader.msteams().map(Kind::MsTeams),
        _ => None,
    };
    let Reader { settings, secrets, faults, .. } = reader;
    settings.finish(&SECRET_KEYS, faults);
    secrets.finish(faults);
    kind.map(|kind| (kind, send_resolved))
}

struct Reader<'a> {
    settings: Settings,
    secrets: Secrets,
    operator: &'a Operator,
    faults: &'a mut Collector,
}

impl Reader<'_> {
    /// `secrets.url`: an address, in the form in which it is given to Mimir.
    fn target(&mut self) -> Option<SecretText> {
        let wanted = "the address that notifications are sent to";
        let url = self.secrets.required("url", wanted, self.faults)?;
        self.checked(&url)
    }

    fn checked(&mut self, url: &SecretText) -> Option<SecretText> {
        match targets::parse(url.expose(), self.operator.allow_private_targets) {
            Ok(url) => Some(SecretText::new(url.as_str())),
            Err(problem) => {
                self.faults.add("secrets.url", problem);
                None
            }
        }
    }

    /// A key that is put together of these characters only: it becomes part of an address or a header.
    fn key(
        &mut self,
        key: &'static str,
        wanted: &str,
        is_right: fn(&str) -> bool,
    ) -> Option<SecretText> {
        let secret = self.secrets.required(key, wanted, self.faults)?;
        if is_right(secret.expose()) {
            return Some(secret);
        }
        self.faults.add(format!("secrets.{key}"), format!("should be {wanted}"));
        None
    }

    fn webhook(&mut self) -> Option<Webhook> {
        let url = self.target();
        let username = self.settings.text("username", NAME_BYTES, self.faults);
        let password = self.secrets.text("password", self.faults);
        let token = self.secrets.text("token", self.faults);
        let max_alerts = self.settings.number("max_alerts", (0, 10_000), self.faults);
        let authorization = match (username, password, token) {
            (None, None, None) => None,
            (None, None, Some(token)) => Some(Authorization::Bearer(token)),
            (Some(username), Some(password), None) => {
                if username.contains(':') {
                    self.faults.add("settings.username", "holds a colon, which ends it (RFC 7617)");
                }
                Some(Authorization::Basic { username, password })
            }
            (_, _, Some(_)) => {
                self.faults.add("secrets.token", "is set beside a username or a password; set one");
                None
            }
            (Some(_), None, None) => {
                self.faults.add("secrets.password", "is missing: settings.username is set");
                None
            }
            (None, Some(_), None) => {
                self.faults.add("settings.username", "is missing: secrets.password is set");
                None
            }
        };
        Some(Webhook {
            url: url?,
            authorization,
            max_alerts: max_alerts
                .and_then(|most| u32::try_from(most).ok())
                .filter(|most| *most > 0),
        })
    }

    fn email(&mut self) -> Option<Email> {
        let given = self.settings.texts("to", MOST_RECIPIENTS, ADDRESS_BYTES, self.faults);
        let mut to = Vec::new();
        for text in &given {
            if let Some(address) = address(text, self.operator.allow_private_targets) {
                to.push(address);
            } else {
                let fault = "should be a plain e-mail address of a public domain";
                self.faults.add("settings.to", format!("{} {fault}", quoted(text)));
            }
        }
        if given.is_empty() && self.faults.is_empty() {
            self.faults.add("settings.to", "is missing: an e-mail address, or a list of them");
        }
        let line = TO.len() + to.join(SEPARATOR).len();
        if line > LINE_BYTES {
            let fault = format!(
                "addresses are {line} bytes in one line, with `{}`; a line of a mail has at most {LINE_BYTES}: use \
                 a mailing list, or several channels",
                TO.trim_end()
            );
            self.faults.add("settings.to", fault);
        }
        let Some(relay) = self.operator.email.clone() else {
            self.faults
                .add("kind", "e-mail is not available here: the operator has set up no relay");
            return None;
        };
        Some(Email { to, relay })
    }

    fn slack(&mut self) -> Option<Slack> {
        let url = self.secrets.text("url", self.faults);
        let token = self.secrets.text("token", self.faults);
        let channel = self.settings.text("channel", NAME_BYTES, self.faults);
        let username = self.settings.text("username", NAME_BYTES, self.faults);
        let icon_emoji = self.settings.text("icon_emoji", NAME_BYTES, self.faults);
        let access = match (url, token) {
            (Some(url), None) => self.checked(&url).map(SlackAccess::Webhook),
            (None, Some(token)) if is_token(token.expose()) => {
                if channel.is_none() {
                    self.faults
                        .add("settings.channel", "is missing: a bot posts where it is told to");
                }
                Some(SlackAccess::Token(token))
            }
            (None, Some(_)) => {
                self.faults.add("secrets.token", "should be a bot's token, such as xoxb-…");
                None
            }
            (Some(_), Some(_)) => {
                self.faults.add("secrets.token", "is set beside secrets.url; set one");
                None
            }
            (None, None) => {
                let wanted = "is missing: the address of an incoming webhook, or a bot's token as \
                              secrets.token";
                self.faults.add("secrets.url", wanted);
                None
            }
        };
        Some(Slack { access: access?, channel, username, icon_emoji })
    }

    fn pagerduty(&mut self) -> Option<PagerDuty> {
        let wanted = "the integration key of an Events API v2 integration, 32 letters and digits";
        let routing_key = self.key("routing_key", wanted, |key| {
            key.len() == 32 && key.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
        let severity = self.settings.word("severity", SEVERITIES, self.faults);
        let class = self.settings.text("class", NAME_BYTES, self.faults);
        let component = self.settings.text("component", NAME_BYTES, self.faults);
        let group = self.settings.text("group", NAME_BYTES, self.faults);
        let url = self.operator.pagerduty_url.clone();
        Some(PagerDuty { routing_key: routing_key?, url, severity, class, component, group })
    }

    fn opsgenie(&mut self) -> Option<Opsgenie> {
        let api_key = self.key("api_key", "the API key of an integration", is_token);
        let priority = self.settings.word("priority", PRIORITIES, self.faults);
        let tags = self.settings.texts("tags", 20, 50, self.faults);
        if let Some(tag) = tags.iter().find(|tag| tag.contains(',')) {
            // They are sent as one text.
            self.faults.add("settings.tags", format!("{} holds a comma", quoted(tag)));
        }
        let mut responders = Vec::new();
        for object in self.settings.objects("responders", 50, self.faults) {
            responders.extend(responder(object, self.faults));
        }
        let url = self.operator.opsgenie_url.clone();
        Some(Opsgenie { api_key: api_key?, url, priority, tags, responders })
    }

    fn telegram(&mut self) -> Option<Telegram> {
        let wanted = "a bot's token, such as 123456:ABC-DEF…";
        let bot_token = self.key("bot_token", wanted, |token| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
            token.split_once(':').is_some_and(|(id, rest)| {
                !id.is_empty()
                    && id.bytes().all(|byte| byte.is_ascii_digit())
                    && rest.len() >= 20
                    && rest.bytes().all(is_plain)
            })
        });
        let is_faultless = self.faults.is_empty();
        let chat_id = self.settings.number("chat_id", (i64::MIN, i64::MAX), self.faults);
        if chat_id.is_none_or(|id| id == 0) && is_faultless == self.faults.is_empty() {
            let wanted = "is missing: the number of a chat, which is negative for a group";
            self.faults.add("settings.chat_id", wanted);
        }
        let thread =
            self.settings.number("message_thread_id", (1, i64::from(i32::MAX)), self.faults);
        let silent = self.settings.switch("silent", false, self.faults);
        Some(Telegram {
            bot_token: bot_token?,
            url: self.operator.telegram_url.clone(),
            chat_id: chat_id?,
            message_thread_id: thread.and_then(|thread| u32::try_from(thread).ok()),
            silent,
        })
    }

    fn msteams(&mut self) -> Option<MsTeams> {
        let url = self.target();
        let format = match self.settings.word("format", FORMATS, self.faults) {
            Some("connector") => TeamsFormat::Connector,
            _ => TeamsFormat::Workflow,
        };
        Some(MsTeams { url: url?, format })
    }
}

fn responder(
    object: serde_json::Map<String, serde_json::Value>,
    faults: &mut Collector,
) -> Option<Responder> {
    let mut settings = nested("settings.responders", object);
    let kind = settings.word("type", RESPONDERS, faults);
    let mut named = Vec::new();
    for by in ["id", "name", "username"] {
        if let Some(value) = settings.text(by, NAME_BYTES, faults) {
            named.push((by, value));
        }
    }
    settings.finish(&[], faults);
    let (Some(kind), [_]) = (kind, named.as_slice()) else {
        let wanted = "each should have a type (team, user, escalation or schedule) and one of id, name and \
                      username";
        faults.add("settings.responders", wanted);
        return None;
    };
    let (by, value) = named.pop()?;
    Some(Responder { kind, by, value })
}

/// What may stand in a header.
fn is_token(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A bare address, with its domain in ASCII. What Go's parser would take for more than one, or for a name
/// beside an address, has characters that are not here; nor are those that mean a route to other hosts (`%`,
/// `!`), or a file or a command to an old relay (`/`, `|`, and `-` in front). Letters of other scripts would
/// need a relay that has SMTPUTF8, and make a line longer than it looks.
fn address(text: &str, allow_private: bool) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".+_-='&#~".contains(&byte);
    let (local, domain) = text.split_once('@')?;
    let is_local = local.len() <= LOCAL_BYTES
        && local.bytes().all(is_plain)
        && !local.starts_with('-')
        && !local.split('.').any(str::is_empty);
    let domain = targets::mail_domain(domain, allow_private)?;
    is_local.then(|| format!("{local}@{domain}"))
}
