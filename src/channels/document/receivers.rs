//! The receivers: one for each channel, named by its ID, which stays the same whatever is changed, because
//! Alertmanager remembers by the receiver's name what it has sent.

use super::templates as t;
use super::tree::NOBODY;
use super::yaml::Node;
use crate::channels::spec::SecretText;
use crate::channels::spec::channel::Channel;
use crate::channels::spec::kinds::{
    Authorization, Email, Kind, MsTeams, Opsgenie, PagerDuty, Slack, SlackAccess, TeamsFormat,
    Telegram, Webhook,
};

type Entries = Vec<(&'static str, Node)>;

/// What bots post to.
const SLACK_API: &str = "https://slack.com/api/chat.postMessage";

/// A redirection would lead a notification, and what it carries, to an address that no row names.
pub(super) fn global() -> Node {
    Node::Map(vec![("http_config", Node::Map(vec![no_redirects()]))])
}

fn no_redirects() -> (&'static str, Node) {
    ("follow_redirects", Node::Switch(false))
}

/// Receivers that notify nobody.
pub(super) fn names(channels: &[Channel]) -> Node {
    let named = channels.iter().map(|channel| Node::Map(vec![("name", Node::text(channel.id))]));
    Node::List(std::iter::once(nobody()).chain(named).collect())
}

fn nobody() -> Node {
    Node::Map(vec![("name", Node::text(NOBODY))])
}

pub(super) fn write(channels: &[Channel], dashboard: Option<&str>) -> Node {
    let mut receivers = vec![nobody()];
    for channel in channels {
        let (key, mut entries) = integration(&channel.kind, dashboard);
        entries.insert(0, ("send_resolved", Node::Switch(channel.send_resolved)));
        receivers.push(Node::Map(vec![
            ("name", Node::text(channel.id)),
            (key, Node::List(vec![Node::Map(entries)])),
        ]));
    }
    Node::List(receivers)
}

fn integration(kind: &Kind, dashboard: Option<&str>) -> (&'static str, Entries) {
    match kind {
        Kind::Webhook(webhook) => ("webhook_configs", of_webhook(webhook)),
        Kind::Email(email) => ("email_configs", of_email(email)),
        Kind::Slack(slack) => ("slack_configs", of_slack(slack)),
        Kind::PagerDuty(pagerduty) => ("pagerduty_configs", of_pagerduty(pagerduty, dashboard)),
        Kind::Opsgenie(opsgenie) => ("opsgenie_configs", of_opsgenie(opsgenie)),
        Kind::Telegram(telegram) => ("telegram_configs", of_telegram(telegram)),
        Kind::Discord(url) => (
            "discord_configs",
            vec![
                ("webhook_url", secret(url)),
                ("title", Node::text(t::call("discord.default.title"))),
                ("message", Node::text(t::call(t::TEXT))),
            ],
        ),
        Kind::MsTeams(teams) => of_msteams(teams),
    }
}

fn secret(secret: &SecretText) -> Node {
    Node::Secret(secret.clone())
}

fn add(entries: &mut Entries, key: &'static str, text: Option<&String>) {
    entries.extend(text.map(|text| (key, Node::text(text))));
}

fn bearer(token: &SecretText) -> Node {
    Node::Map(vec![
        no_redirects(),
        ("authorization", Node::Map(vec![("credentials", secret(token))])),
    ])
}

fn of_webhook(webhook: &Webhook) -> Entries {
    let Webhook { url, authorization, max_alerts } = webhook;
    let mut entries = vec![("url", secret(url))];
    entries.extend(max_alerts.map(|most| ("max_alerts", Node::Number(most.into()))));
    match authorization {
        None => {}
        Some(Authorization::Bearer(token)) => entries.push(("http_config", bearer(token))),
        Some(Authorization::Basic { username, password }) => {
            let basic = vec![("username", Node::text(username)), ("password", secret(password))];
            let http = vec![no_redirects(), ("basic_auth", Node::Map(basic))];
            entries.push(("http_config", Node::Map(http)));
        }
    }
    entries
}

fn of_email(email: &Email) -> Entries {
    let Email { to, relay } = email;
    let mut entries = vec![
        ("to", Node::text(to.join(", "))),
        ("from", Node::text(&relay.from)),
        ("smarthost", Node::text(&relay.smarthost)),
        ("require_tls", Node::Switch(relay.require_tls)),
    ];
    add(&mut entries, "hello", relay.hello.as_ref());
    entries.push(("headers", Node::Map(vec![("Subject", Node::text(t::call(t::EMAIL_SUBJECT)))])));
    entries.push(("html", Node::text(t::call(t::EMAIL_HTML))));
    entries.push(("text", Node::text(t::call(t::EMAIL_TEXT))));
    entries
}

fn of_slack(slack: &Slack) -> Entries {
    let Slack { access, channel, username, icon_emoji } = slack;
    let mut entries = match access {
        SlackAccess::Webhook(url) => vec![("api_url", secret(url))],
        SlackAccess::Token(token) => {
            vec![("api_url", Node::text(SLACK_API)), ("http_config", bearer(token))]
        }
    };
    add(&mut entries, "channel", channel.as_ref());
    add(&mut entries, "username", username.as_ref());
    add(&mut entries, "icon_emoji", icon_emoji.as_ref());
    entries.push(("title", Node::text(t::call(t::SLACK_TITLE))));
    entries.push(("title_link", Node::text(t::call(t::LINK))));
    entries.push(("text", Node::text(t::call(t::SLACK_TEXT))));
    entries.push(("fallback", Node::text(t::call(t::SLACK_TITLE))));
    entries
}

fn of_pagerduty(pagerduty: &PagerDuty, dashboard: Option<&str>) -> Entries {
    let PagerDuty { routing_key, url, severity, class, component, group } = pagerduty;
    let mut entries = vec![("routing_key", secret(routing_key))];
    add(&mut entries, "url", url.as_ref().map(ToString::to_string).as_ref());
    entries.push((
        "severity",
        match severity {
            Some(severity) => Node::text(severity),
            None => Node::text(t::call(t::PAGERDUTY_SEVERITY)),
        },
    ));
    add(&mut entries, "class", class.as_ref());
    add(&mut entries, "component", component.as_ref());
    add(&mut entries, "group", group.as_ref());
    entries.push(("client_url", Node::text(t::call(t::LINK))));
    // Alertmanager takes `client` for it, and PagerDuty refuses an event without.
    entries.push(("source", Node::text("Mimir")));
    if dashboard.is_none() {
        // A name without an address would be a link that leads nowhere.
        entries.push(("client", Node::text("")));
    }
    // Each of Alertmanager's own would hold the whole alerts, with the generator's links. From 0.28 on
    // Alertmanager reads a detail that is valid YAML as such, so that `#` in a label would cut the text off. No
    // YAML begins with a tab.
    let text = |alerts: &str, name: &str| {
        let text = ["{{ if ", alerts, " }}\t", &t::call(name), "{{ end }}"].concat();
        Node::text(text)
    };
    entries.push((
        "details",
        Node::Map(vec![
            ("firing", text(".Alerts.Firing", t::FIRING)),
            ("resolved", text(".Alerts.Resolved", t::RESOLVED)),
            ("num_firing", Node::text("{{ .Alerts.Firing | len }}")),
            ("num_resolved", Node::text("{{ .Alerts.Resolved | len }}")),
        ]),
    ));
    entries
}

fn of_opsgenie(opsgenie: &Opsgenie) -> Entries {
    let Opsgenie { api_key, url, priority, tags, responders } = opsgenie;
    let mut entries = vec![("api_key", secret(api_key))];
    add(&mut entries, "api_url", url.as_ref().map(ToString::to_string).as_ref());
    entries.extend(priority.map(|priority| ("priority", Node::text(priority))));
    if !tags.is_empty() {
        entries.push(("tags", Node::text(tags.join(","))));
    }
    if !responders.is_empty() {
        let responders = responders.iter().map(|responder| {
            let kind = ("type", Node::text(responder.kind));
            Node::Map(vec![(responder.by, Node::text(&responder.value)), kind])
        });
        entries.push(("responders", Node::List(responders.collect())));
    }
    entries.push(("description", Node::text(t::call(t::TEXT))));
    entries
}

fn of_telegram(telegram: &Telegram) -> Entries {
    let Telegram { bot_token, url, chat_id, message_thread_id, silent } = telegram;
    let mut entries = vec![("bot_token", secret(bot_token)), ("chat_id", Node::Number(*chat_id))];
    // Alertmanager puts a path behind it.
    let url = url.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned());
    add(&mut entries, "api_url", url.as_ref());
    entries.extend(message_thread_id.map(|id| ("message_thread_id", Node::Number(id.into()))));
    if *silent {
        entries.push(("disable_notifications", Node::Switch(true)));
    }
    // Plain text: in HTML a `<` in a label would make Telegram refuse the message.
    entries.push(("parse_mode", Node::text("")));
    entries.push(("message", Node::text(t::call(t::TEXT))));
    entries
}

fn of_msteams(teams: &MsTeams) -> (&'static str, Entries) {
    let MsTeams { url, format } = teams;
    let url = ("webhook_url", secret(url));
    let text = |name| Node::text(t::call(name));
    match format {
        TeamsFormat::Workflow => (
            "msteamsv2_configs",
            vec![url, ("title", text(t::SUBJECT)), ("text", text(t::MARKDOWN))],
        ),
        TeamsFormat::Connector => (
            "msteams_configs",
            vec![
                url,
                ("title", text(t::SUBJECT)),
                ("summary", text(t::SUBJECT)),
                ("text", text(t::MARKDOWN)),
            ],
        ),
    }
}
