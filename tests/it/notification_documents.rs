//! Documents of channels and routes, as the real Mimir 3 and the Alertmanager of a Mimir 2.17 take them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use harness::{Client, Mimir, part};
use mimir_tenant_proxy::channels::document::{Document, Observed, TEST_LABEL};
use mimir_tenant_proxy::channels::spec::{
    ChannelRow, Desired, Operator, RouteRow, Rows, State, desired,
};
use mimir_tenant_proxy::config::{DashboardUrl, EmailRelay, Secret};
use mimir_tenant_proxy::store::Excess;
use mimir_tenant_proxy::tenancy::OrganisationId;
use serde_json::{Value, json};
use uuid::Uuid;

async fn as_tenant() -> Client {
    Mimir::shared().await.as_tenant(&harness::fresh_organisation())
}

fn operator() -> Operator {
    Operator {
        dashboard_url: DashboardUrl::parse("https://app.example.org/{organisation_id}/alerts").ok(),
        email: Some(EmailRelay {
            smarthost: "[fdaa::3]:25".to_owned(),
            from: "alerts@example.org".to_owned(),
            hello: Some("proxy.internal".to_owned()),
            require_tls: true,
        }),
        pagerduty_url: "https://events.eu.pagerduty.com/v2/enqueue".parse().ok(),
        opsgenie_url: "https://api.eu.opsgenie.com".parse().ok(),
        telegram_url: "https://telegram.example.org/".parse().ok(),
        allow_private_targets: false,
        min_group_interval: std::time::Duration::from_secs(10),
        max_channels: 100,
        max_routes: 200,
    }
}

fn organisation() -> OrganisationId {
    OrganisationId::parse("acme").unwrap()
}

fn channel(kind: &str, settings: &Value, secrets: &Value) -> ChannelRow {
    ChannelRow {
        id: Uuid::new_v4(),
        organisation: organisation(),
        name: Some(kind.to_owned()),
        kind: Some(kind.to_owned()),
        settings: Some(settings.to_string()),
        secrets: Some(Secret::new(&secrets.to_string())),
        enabled: Some("true".to_owned()),
        is_default: None,
        created_at_micros: None,
        excess: Excess::None,
    }
}

fn route(channel: &ChannelRow, matchers: &[&str]) -> RouteRow {
    RouteRow {
        id: Uuid::new_v4(),
        organisation: organisation(),
        channel: Some(channel.id.to_string()),
        position: None,
        matchers: Some(json!(matchers).to_string()),
        group_by: None,
        group_wait: None,
        group_interval: None,
        repeat_interval: None,
        mute_times: None,
        continue_matching: None,
        enabled: None,
        created_at_micros: None,
        excess: Excess::None,
    }
}

fn read(channels: Vec<ChannelRow>, routes: Vec<RouteRow>) -> Desired {
    let rows = Rows { channels, routes, ..Rows::default() };
    desired(&rows, &operator(), &organisation(), &BTreeMap::new())
}

/// The document of rows that are all right.
fn document(channels: Vec<ChannelRow>, routes: Vec<RouteRow>) -> Document {
    let desired = read(channels, routes);
    for (state, reason) in desired.channels.values().chain(desired.routes.values()) {
        assert_eq!(*state, State::Live, "{reason}");
    }
    desired.document.unwrap()
}

const URL: &str = "https://hooks.example.org/a%20b?token=c&d={e}";

/// Each kind with nothing but what it needs, and with everything that it may have, as far as both Mimirs
/// know it.
fn every_channel() -> Vec<ChannelRow> {
    let url = json!({"url": URL});
    let key = "0123456789abcdef0123456789ABCDEF";
    let token = "123456:ABC-DEF_ghijklmnopqrstuvwxyz";
    vec![
        channel("webhook", &json!({}), &url),
        channel(
            "webhook",
            &json!({"max_alerts": 5, "send_resolved": false}),
            &json!({"url": URL, "token": "t"}),
        ),
        channel(
            "webhook",
            &json!({"username": "u \"ä\""}),
            &json!({"url": URL, "password": "p: '\"\\#ü🦀"}),
        ),
        channel("email", &json!({"to": "a@example.org"}), &json!({})),
        channel("email", &json!({"to": ["a@example.org", "o'b+c@müller.example.org"]}), &json!({})),
        channel("slack", &json!({}), &url),
        channel(
            "slack",
            &json!({"channel": "#alerts", "username": "Alerts: <ä>", "icon_emoji": ":bell:"}),
            &json!({"token": "xoxb-1-2-abc"}),
        ),
        channel("pagerduty", &json!({}), &json!({"routing_key": key})),
        channel(
            "pagerduty",
            &json!({"severity": "warning", "class": "c", "component": "d", "group": "- e"}),
            &json!({"routing_key": key}),
        ),
        channel("opsgenie", &json!({}), &json!({"api_key": "0a-1b"})),
        channel(
            "opsgenie",
            &json!({"priority": "P2", "tags": ["a", "b c"], "responders": [
                {"type": "team", "name": "ops"}, {"type": "user", "username": "a@example.org"},
                {"type": "escalation", "id": "1"}, {"type": "schedule", "name": "night"}]}),
            &json!({"api_key": "0a-1b"}),
        ),
        channel(
            "telegram",
            &json!({"chat_id": -1_001_234_567_890_i64}),
            &json!({"bot_token": token}),
        ),
        channel(
            "telegram",
            &json!({"chat_id": "42", "silent": true}),
            &json!({"bot_token": token}),
        ),
        channel("discord", &json!({}), &url),
        channel("msteams", &json!({"format": "connector"}), &url),
    ]
}

/// What only Mimir 3 knows.
fn of_mimir_3() -> Vec<ChannelRow> {
    let token = json!({"bot_token": "123456:ABC-DEF_ghijklmnopqrstuvwxyz"});
    vec![
        channel("telegram", &json!({"chat_id": 42, "message_thread_id": 7}), &token),
        channel("msteams", &json!({}), &json!({"url": URL})),
    ]
}

/// Every column of a route.
fn every_route(channels: &[ChannelRow]) -> Vec<RouteRow> {
    let mut all =
        route(&channels[0], &[r#"severity=~"crit.*|page",team!="a\"b\\c""#, "site!~'x'", "empty="]);
    all.position = Some("-1".to_owned());
    all.group_by = Some(json!(["alertname", "site"]).to_string());
    all.group_wait = Some("0s".to_owned());
    all.group_interval = Some("1m30s".to_owned());
    all.repeat_interval = Some("1d".to_owned());
    all.continue_matching = Some("true".to_owned());
    let times = json!([
        {"times": [{"start_time": "00:00", "end_time": "24:00"}], "weekdays": ["saturday", "monday:friday"],
            "days_of_month": [1, "5:7", "-3:-1"], "months": ["january:march", 12], "years": [2026, "2027:2030"],
            "location": "Europe/Berlin"},
        {"weekdays": ["Sunday"]},
    ]);
    all.mute_times = Some(times.to_string());
    let mut each = route(&channels[1], &[]);
    each.group_by = Some(json!(["..."]).to_string());
    let mut together = route(&channels[2], &["ä=ö"]);
    together.matchers = Some(json!([]).to_string());
    together.group_by = Some(json!([]).to_string());
    vec![all, each, together]
}

/// What the Alertmanager of a Mimir 2.17 says to a document: what it prints, or its error.
fn mimir_2(document: &Document, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(part("alertmanager-2"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(document.body().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn mimir_takes_every_kind_with_every_option_and_gives_it_back_as_it_was() {
    let mut channels = every_channel();
    channels.extend(of_mimir_3());
    channels[0].is_default = Some("true".to_owned());
    channels[3].is_default = Some("true".to_owned());
    let routes = every_route(&channels);
    let document = document(channels, routes);
    let tenant = as_tenant().await;
    let answer = tenant.post("/api/v1/alerts", document.body()).await;
    assert_eq!(answer.status, 201, "{}\n{}", answer.text, document.redacted());
    let stored = tenant.get("/api/v1/alerts").await;
    assert_eq!(stored.status, 200, "{}", stored.text);
    let observed = Observed::parse(&stored.text).unwrap();
    assert!(document.is(&observed), "{}", stored.text);
    assert_eq!(observed.live().as_ref(), Some(document.live()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alertmanager_of_mimir_2_takes_every_kind_that_it_knows() {
    let channels = every_channel();
    let routes = every_route(&channels);
    let whole = document(channels, routes);
    assert_eq!(mimir_2(&whole, &["check"]), Ok(String::new()), "{}", whole.redacted());
    for (newer, words) in of_mimir_3().into_iter().zip(["message_thread_id", "msteamsv2_configs"]) {
        let refused = mimir_2(&document(vec![newer], Vec::new()), &["check"]).unwrap_err();
        assert!(refused.contains(words), "{refused}");
    }
}

// What rows can hold that only Mimir judges: it names what it refuses, and nothing of the rest is stored.
#[tokio::test(flavor = "multi_thread")]
async fn what_mimir_alone_can_judge_is_refused_in_its_words() {
    let tenant = as_tenant().await;
    let refused = async |change: fn(&mut RouteRow)| {
        let channels = every_channel();
        let mut route = route(&channels[0], &["a=b"]);
        change(&mut route);
        let answer = tenant.post("/api/v1/alerts", document(channels, vec![route]).body()).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        answer.text
    };
    let zone = refused(|route| {
        route.mute_times = Some(json!([{"location": "Europe/Nowhere"}]).to_string());
    })
    .await;
    assert!(zone.contains("Europe/Nowhere"), "{zone}");
    let pattern =
        refused(|route| route.matchers = Some(json!(["a=~\"x{2,1}\""]).to_string())).await;
    assert!(pattern.contains("error parsing regexp"), "{pattern}");
    let name = refused(|route| route.matchers = Some(json!(["\"a b\"=\"c\""]).to_string())).await;
    assert!(name.contains("bad matcher format"), "{name}");
    assert_eq!(tenant.get("/api/v1/alerts").await.status, 404);
}

// The texts of notifications, as Alertmanager expands them.
#[tokio::test(flavor = "multi_thread")]
async fn notifications_link_to_the_dashboard_and_to_nothing_of_mimirs() {
    let document = document(every_channel(), Vec::new());
    let all = [
        "mimir_tenant_proxy.text",
        "mimir_tenant_proxy.markdown",
        "mimir_tenant_proxy.firing",
        "mimir_tenant_proxy.resolved",
        "mimir_tenant_proxy.slack",
        "mimir_tenant_proxy.html",
        "mimir_tenant_proxy.severity",
        "slack.default.title",
        "telegram.default.message",
        "discord.default.message",
        "opsgenie.default.source",
        "pagerduty.default.clientURL",
        "__alertmanagerURL",
    ];
    let mut texts = BTreeMap::new();
    for name in all {
        let text = mimir_2(&document, &["expand", name]).unwrap();
        for hidden in
            ["g0.expr", "mimir.internal", "rule-4711", "alert_rule_id", "Source", "<no value>"]
        {
            assert!(!text.contains(hidden), "{name} holds {hidden}: {text}");
        }
        texts.insert(name, text);
    }
    let url = "https://app.example.org/acme/alerts";
    for name in
        ["mimir_tenant_proxy.text", "mimir_tenant_proxy.markdown", "mimir_tenant_proxy.html"]
    {
        assert!(texts[name].contains(url), "{name}: {}", texts[name]);
        assert!(texts[name].contains("summary"), "{name}: {}", texts[name]);
    }
    assert_eq!(texts["__alertmanagerURL"], url);
    assert_eq!(texts["mimir_tenant_proxy.severity"], "critical");
    let slack = &texts["mimir_tenant_proxy.slack"];
    // A device that names itself so would call everybody of the channel.
    assert!(slack.contains("&lt;!channel&gt;") && !slack.contains("<!channel>"), "{slack}");
    let html = &texts["mimir_tenant_proxy.html"];
    assert!(
        html.contains("It is &lt;hot&gt; &amp;") && html.contains(&format!("href=\"{url}\"")),
        "{html}"
    );
}

// `Reach` against Alertmanager's own routing: an alert with just these labels reaches a channel or does not.
#[tokio::test(flavor = "multi_thread")]
async fn alerts_go_where_reach_says() {
    let channels = every_channel();
    let routes = vec![
        route(&channels[1], &[r#"severity="critical""#, r#"team=~"a|b""#]),
        route(&channels[2], &[r#"severity!="critical""#, r#"site!~"x.*""#, r#"site!="""#]),
        route(&channels[0], &[r#"team="""#, "severity=critical"]),
    ];
    let with_default = {
        let mut channels = channels.clone();
        channels[5].is_default = Some("true".to_owned());
        channels[6].is_default = Some("true".to_owned());
        read(channels, routes.clone())
    };
    let without = read(channels.clone(), routes);
    let mut outcomes = BTreeMap::new();
    let values = ["", "critical", "a", "x1"];
    let test = channels[4].id.to_string();
    for severity in values {
        for team in values {
            for site in ["", "x1", "y"] {
                for tested in ["", "no-channel", &test] {
                    if !tested.is_empty() && !(severity, team, site).eq(&("", "", "")) {
                        continue;
                    }
                    let all = [
                        ("severity", severity),
                        ("team", team),
                        ("site", site),
                        (TEST_LABEL, tested),
                    ];
                    let known: BTreeMap<String, String> = all
                        .iter()
                        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                        .collect();
                    let pairs: Vec<String> = all
                        .iter()
                        .filter(|(_, value)| !value.is_empty())
                        .map(|(name, value)| format!("{name}={value}"))
                        .collect();
                    for desired in [&without, &with_default] {
                        let mut arguments = vec!["routes"];
                        arguments.extend(pairs.iter().map(String::as_str));
                        let receivers =
                            mimir_2(desired.document.as_ref().unwrap(), &arguments).unwrap();
                        let reaches = receivers.lines().any(|receiver| receiver != "nobody");
                        assert_eq!(
                            desired.reach.reaches(&known),
                            Some(reaches),
                            "{pairs:?}: {receivers}"
                        );
                        *outcomes
                            .entry(receivers.lines().count().min(2) * usize::from(reaches))
                            .or_insert(0) += 1;
                    }
                    if tested == test {
                        let receivers = mimir_2(
                            with_default.document.as_ref().unwrap(),
                            &["routes", &pairs[0]],
                        )
                        .unwrap();
                        assert_eq!(receivers.trim(), test, "a test goes to its channel alone");
                    }
                }
            }
        }
    }
    // None, one and both default channels.
    assert_eq!(outcomes.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
}
