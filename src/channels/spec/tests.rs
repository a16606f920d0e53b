use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::config::Secret;

fn operator() -> Operator {
    Operator { max_channels: 3, max_routes: 2, ..crate::channels::tests::operator() }
}

fn organisation() -> OrganisationId {
    OrganisationId::parse("acme").unwrap()
}

fn channel(id: u128, kind: &str, settings: &str, secrets: &str) -> ChannelRow {
    ChannelRow {
        id: Uuid::from_u128(id),
        organisation: organisation(),
        name: None,
        kind: Some(kind.to_owned()),
        settings: Some(settings.to_owned()),
        secrets: Some(Secret::new(secrets)),
        enabled: None,
        is_default: None,
        created_at_micros: i64::try_from(id).ok(),
        excess: Excess::None,
    }
}

fn good(id: u128) -> ChannelRow {
    channel(id, "webhook", "{}", r#"{"url": "https://hooks.example.org/x"}"#)
}

fn route(id: u128, channel: u128) -> RouteRow {
    RouteRow {
        id: Uuid::from_u128(id),
        organisation: organisation(),
        channel: Some(Uuid::from_u128(channel).to_string()),
        position: None,
        matchers: None,
        group_by: None,
        group_wait: None,
        group_interval: None,
        repeat_interval: None,
        mute_times: None,
        continue_matching: None,
        enabled: None,
        created_at_micros: i64::try_from(id).ok(),
        excess: Excess::None,
    }
}

fn read(channels: Vec<ChannelRow>, routes: Vec<RouteRow>) -> Desired {
    let rows = Rows { channels, routes, ..Rows::default() };
    desired(&rows, &operator(), &organisation(), &BTreeMap::new())
}

fn state_of(row: ChannelRow, operator: &Operator) -> (State, String) {
    let id = row.id;
    let rows = Rows { channels: vec![row], ..Rows::default() };
    desired(&rows, operator, &organisation(), &BTreeMap::new()).channels.remove(&id).unwrap()
}

// Each with what its author reads. A secret in the wrong place or form is never repeated.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_is_wrong_with_a_channel_is_said_in_its_authors_words() {
    let url = r#"{"url": "https://hooks.example.org/x"}"#;
    for (kind, settings, secrets, words) in [
        ("", "{}", "{}", "kind: is empty; should be one of webhook"),
        ("weebhook", "{}", url, "kind: \"weebhook\" is not known; did you mean webhook?"),
        ("sms", "{}", url, "kind: \"sms\" is not known; there are webhook"),
        ("webhook", "{}", "{}", "secrets.url: is missing: the address"),
        ("webhook", "[]", url, "settings: is a list; should be an object"),
        ("webhook", "{", url, "settings: is not valid JSON, line 1"),
        ("webhook", "{\"send_resolve\": true}", url, "did you mean send_resolved?"),
        (
            "webhook",
            "{\"send_resolved\": \"yes\"}",
            url,
            "settings.send_resolved: is a text; should be true or false",
        ),
        (
            "webhook",
            "{\"max_alerts\": -1}",
            url,
            "settings.max_alerts: should be a whole number from 0",
        ),
        ("webhook", "{\"url\": \"https://n33dle\"}", url, ""),
        ("webhook", "{\"username\": \"a\"}", url, "secrets.password: is missing"),
        (
            "webhook",
            "{}",
            r#"{"url": "https://hooks.example.org/", "password": "n33dle"}"#,
            "settings.username: is missing",
        ),
        (
            "webhook",
            "{\"username\": \"a\"}",
            r#"{"url": "https://hooks.example.org/", "token": "n33dle"}"#,
            "set one",
        ),
        (
            "webhook",
            "{\"username\": \"a:b\"}",
            r#"{"url": "https://hooks.example.org/", "password": "n33dle"}"#,
            "colon",
        ),
        ("webhook", "{}", r#"{"url": "n33dle"}"#, "secrets.url: should be an https address"),
        ("webhook", "{}", r#"{"url": "http://10.0.0.1/n33dle"}"#, "not on the public internet"),
        (
            "webhook",
            "{}",
            r#"{"url": "http://mimir.internal/n33dle"}"#,
            "not on the public internet",
        ),
        ("webhook", "{}", r#"{"url": 4711}"#, "secrets.url: should be a text"),
        (
            "webhook",
            "{}",
            r#"{"url": "<secret>"}"#,
            "secrets.url: is not stored, and the row has only",
        ),
        ("webhook", "{}", r#""n33dle""#, "secrets: should be an object"),
        (
            "webhook",
            "{}",
            r#"{"url": "https://hooks.example.org/", "https://n33dle": ""}"#,
            "no plain word",
        ),
        (
            "webhook",
            "{}",
            r#"{"url": "https://hooks.example.org/", "tokn": "n33dle"}"#,
            "did you mean token?",
        ),
        ("webhook", "{}", r#"{"url": "https://hooks.example.org/?{{.n33dle}}"}"#, "template"),
        ("email", "{\"to\": \"a@example.org\"}", "{}", "kind: e-mail is not available here"),
        ("slack", "{}", "{}", "secrets.url: is missing: the address of an incoming webhook"),
        ("slack", "{}", r#"{"token": "xoxb-n33dle"}"#, "settings.channel: is missing"),
        (
            "slack",
            "{}",
            r#"{"token": "xoxb-n33dle", "url": "https://hooks.slack.com/"}"#,
            "set one",
        ),
        ("slack", "{\"channel\": \"{{ .x }}\"}", url, "settings.channel: holds {{"),
        ("slack", "{\"channel\": \"a\\nb\"}", url, "U+000A"),
        ("pagerduty", "{}", r#"{"routing_key": "n33dle"}"#, "32 letters and digits"),
        (
            "pagerduty",
            "{\"severity\": \"page\"}",
            r#"{"routing_key": "0123456789abcdef0123456789abcdef"}"#,
            "one of critical, error",
        ),
        ("pagerduty", "{}", r#"{"integration_key": "n33dle"}"#, "secrets.routing_key: is missing"),
        ("opsgenie", "{}", r#"{"api_key": "n33dle ä"}"#, "secrets.api_key: should be"),
        ("opsgenie", "{\"priority\": \"1\"}", r#"{"api_key": "k"}"#, "one of P1, P2"),
        ("opsgenie", "{\"tags\": [\"a,b\"]}", r#"{"api_key": "k"}"#, "comma"),
        (
            "opsgenie",
            "{\"responders\": [{\"type\": \"team\"}]}",
            r#"{"api_key": "k"}"#,
            "settings.responders",
        ),
        (
            "opsgenie",
            "{\"responders\": [{\"type\": \"team\", \"nam\": \"x\"}]}",
            r#"{"api_key": "k"}"#,
            "did you mean name?",
        ),
        (
            "telegram",
            "{\"chat_id\": 1}",
            r#"{"bot_token": "1:../n33dle"}"#,
            "secrets.bot_token: should be a bot's token",
        ),
        (
            "telegram",
            "{}",
            r#"{"bot_token": "1:aaaaaaaaaaaaaaaaaaaaaaaaa"}"#,
            "settings.chat_id: is missing",
        ),
        (
            "telegram",
            "{\"chat_id\": \"x\"}",
            r#"{"bot_token": "1:aaaaaaaaaaaaaaaaaaaaaaaaa"}"#,
            "settings.chat_id: should be a whole number",
        ),
        ("discord", "{}", r#"{"webhook_url": "https://n33dle"}"#, "secrets.url: is missing"),
        ("msteams", "{\"format\": \"card\"}", url, "one of workflow, connector"),
    ] {
        let (state, reason) = state_of(channel(1, kind, settings, secrets), &operator());
        assert_eq!(state, State::Invalid, "{kind} {settings} {secrets}");
        assert!(reason.contains(words), "{kind} {settings}: {reason}");
        assert!(!reason.contains("n33dle"), "{reason}");
    }
}

fn relay() -> EmailRelay {
    EmailRelay {
        smarthost: "relay:25".to_owned(),
        from: "a@example.org".to_owned(),
        hello: None,
        require_tls: false,
    }
}

#[test]
fn addresses_of_email_are_plain_ones() {
    let operator = Operator { email: Some(relay()), ..operator() };
    let state =
        |to: Value| state_of(channel(1, "email", &json!({"to": to}).to_string(), "{}"), &operator);
    for right in [
        json!("a@example.org"),
        json!(["a@example.org", "b+c@müller.example.org"]),
        json!("o'brien_jr.x=y#1&z~@example.org"),
    ] {
        assert_eq!(state(right), (State::Live, String::new()));
    }
    for wrong in [
        json!(""),
        json!([]),
        json!("a"),
        json!("a@b, c@d"),
        json!("A <a@example.org>"),
        json!("a@b@c"),
        json!("\"a\"@example.org"),
        json!("a@[127.0.0.1]"),
        json!("a@example..org"),
        json!("a@example.org\r\nBcc: b@example.org"),
        json!("{{ .x }}@example.org"),
        json!(7),
        json!(vec!["a@example.org"; 51]),
        json!("root%mimir.internal@example.org"),
        json!("mimir!root@example.org"),
        json!("|sh@example.org"),
        json!("-oQ/tmp@example.org"),
        json!("/var/mail/root@example.org"),
        json!("`id`@example.org"),
        json!("$x@example.org"),
        json!("a\\@example.org"),
        json!("\"a b\"@example.org"),
        json!("ä@example.org"),
        json!(".a@example.org"),
        json!("a..b@example.org"),
        json!(format!("{}@example.org", "a".repeat(65))),
        json!("root@localhost"),
        json!("root@relay"),
        json!("root@relay.internal"),
        json!("root@relay.corp"),
        json!("a@127.0.0.1"),
        json!("a@2130706433"),
        json!("a@[::1]"),
        json!("a@a_b.example.org"),
        json!("a@example.org."),
    ] {
        let (state, reason) = state(wrong.clone());
        assert_eq!(state, State::Invalid, "{wrong}");
        assert!(reason.starts_with("settings.to: "), "{wrong}: {reason}");
    }
}

// One line of the mail's head has all of them.
#[test]
fn recipients_fit_into_one_line() {
    let operator = Operator { email: Some(relay()), ..operator() };
    let list = |count: usize, last: &str| {
        let mut to: Vec<String> = (0..count).map(|at| format!("on-call{at:02}@ex.ample")).collect();
        to.push(last.to_owned());
        to
    };
    let last = |bytes: usize| format!("{}@example.org", "a".repeat(bytes - "@example.org".len()));
    let used = "To: ".len() + 44 * ("on-call00@ex.ample".len() + 2);
    for (bytes, is_right) in [(998 - used, true), (998 - used + 1, false)] {
        // Several, because none has room for all.
        let (first, second) = (bytes / 2 - 1, bytes - bytes / 2 - 1);
        let mut to = list(44, &last(first));
        to.push(last(second));
        let line = format!("To: {}", to.join(", "));
        let row = channel(1, "email", &json!({ "to": to }).to_string(), "{}");
        let (state, reason) = state_of(row, &operator);
        assert_eq!(line.len() <= 998, is_right, "{}", line.len());
        assert_eq!(state == State::Live, is_right, "{reason}");
        if !is_right {
            assert!(reason.contains("999 bytes in one line"), "{reason}");
            continue;
        }
        let rows = vec![channel(1, "email", &json!({ "to": to }).to_string(), "{}")];
        let rows = Rows { channels: rows, ..Rows::default() };
        let document =
            desired(&rows, &operator, &organisation(), &BTreeMap::new()).document.unwrap();
        assert!(document.body().contains(&to.join(", ")));
    }
}

#[test]
fn a_route_without_a_live_channel_is_left_out_and_the_rest_goes_live() {
    let mut disabled = good(2);
    disabled.enabled = Some("false".to_owned());
    let broken = channel(3, "webhook", "{}", "{}");
    let desired =
        read(vec![good(1), disabled, broken], vec![route(11, 1), route(12, 2), route(13, 3)]);
    let state = |id: u128| desired.routes[&Uuid::from_u128(id)].clone();
    assert_eq!(state(11), (State::Live, String::new()));
    for (id, state_of_channel, words) in
        [(12, State::Disabled, "is disabled"), (13, State::Invalid, "is invalid")]
    {
        let (state, reason) = state(id);
        assert_eq!(state, state_of_channel);
        assert!(reason.contains(words) && reason.contains("default channels"), "{reason}");
    }
    let live = desired.document.unwrap().live().clone();
    assert_eq!(live.channels, [Uuid::from_u128(1)].into());
    assert_eq!(live.routes, [Uuid::from_u128(11)].into());
    let nowhere =
        read(vec![good(1)], vec![route(11, 9)]).routes.remove(&Uuid::from_u128(11)).unwrap();
    assert!(nowhere.1.contains("there is no such channel"), "{}", nowhere.1);
}

#[test]
fn older_rows_come_first_where_there_are_too_many() {
    let desired =
        read((1..=5).rev().map(good).collect(), (11..=14).rev().map(|id| route(id, 1)).collect());
    let states = |all: &BTreeMap<Uuid, (State, String)>| {
        all.values().map(|(state, _)| *state).collect::<Vec<_>>()
    };
    use State::{Live, OverLimit};
    assert_eq!(states(&desired.channels), [Live, Live, Live, OverLimit, OverLimit]);
    assert_eq!(states(&desired.routes), [Live, Live, OverLimit, OverLimit]);
    // A broken one takes no room.
    let mut rows: Vec<ChannelRow> = (2..=4).map(good).collect();
    rows.push(channel(1, "webhook", "{}", "{}"));
    assert_eq!(states(&read(rows, Vec::new()).channels), [State::Invalid, Live, Live, Live]);
}

// Matchers that nobody could pay for were compiled before anything of the row was refused.
#[test]
fn patterns_of_all_routes_have_one_bound() {
    let matching = |id: u128, matchers: Vec<String>| RouteRow {
        matchers: Some(json!(matchers).to_string()),
        ..route(id, 1)
    };
    let heavy = |count: usize| vec![r#"site=~"(\\w{100}){100}""#.to_owned(); count];
    let rows = vec![
        matching(11, heavy(20)),
        matching(12, vec!["a=\"b\"".to_owned(); 33]),
        matching(13, heavy(20)),
        matching(14, vec![r#"site=~"a|b""#.to_owned()]),
    ];
    let operator = Operator { max_routes: 10, ..operator() };
    let rows = Rows { channels: vec![good(1)], routes: rows, ..Rows::default() };
    let desired = desired(&rows, &operator, &organisation(), &BTreeMap::new());
    let state = |id: u128| &desired.routes[&Uuid::from_u128(id)];
    assert_eq!(state(11).0, State::Live);
    assert!(state(12).1.contains("are 33; at most 32"), "{}", state(12).1);
    assert!(
        state(13).1.contains("too large with those of the organisation's other"),
        "{}",
        state(13).1
    );
    assert_eq!(state(14).0, State::Live, "what still fits");
}

#[test]
fn what_mimir_refuses_is_left_out_with_its_words() {
    let rows = Rows {
        channels: vec![good(1), good(2)],
        routes: vec![route(11, 1), route(12, 2)],
        ..Rows::default()
    };
    let refused =
        Omissions::from([(Uuid::from_u128(1), LeftOut::Refused("no such thing".to_owned()))]);
    let without = desired(&rows, &operator(), &organisation(), &refused);
    let reason = &without.channels[&Uuid::from_u128(1)];
    assert_eq!(reason.1, "Mimir's Alertmanager refuses it: no such thing");
    assert_eq!(without.routes[&Uuid::from_u128(11)].0, State::Invalid);
    assert_eq!(without.document.unwrap().live().channels, [Uuid::from_u128(2)].into());
    let refused = Omissions::from([(Uuid::from_u128(11), LeftOut::Refused("no zone".to_owned()))]);
    let without = desired(&rows, &operator(), &organisation(), &refused);
    assert_eq!(without.document.unwrap().live().routes, [Uuid::from_u128(12)].into());
    let all = [1, 2].map(|id| (Uuid::from_u128(id), LeftOut::NotTried)).into();
    assert!(desired(&rows, &operator(), &organisation(), &all).document.is_none());
    assert!(read(Vec::new(), Vec::new()).document.is_none());
}

#[test]
fn what_is_wrong_with_a_route_is_said_in_its_authors_words() {
    let wrong = |change: &dyn Fn(&mut RouteRow)| {
        let mut row = route(11, 1);
        change(&mut row);
        let (state, reason) =
            read(vec![good(1)], vec![row]).routes.remove(&Uuid::from_u128(11)).unwrap();
        assert_eq!(state, State::Invalid, "{reason}");
        reason
    };
    let text = |text: &str| Some(text.to_owned());
    for (reason, words) in [
        (wrong(&|row| row.channel = None), "channel_id: should be the id of a channel"),
        (
            wrong(&|row| row.position = text("first")),
            "position: \"first\" should be a whole number",
        ),
        (
            wrong(&|row| row.matchers = text("{}")),
            "matchers: is an object in JSON; should be a list",
        ),
        (wrong(&|row| row.matchers = text("[1]")), "matchers: holds a number"),
        (wrong(&|row| row.matchers = text(r#"["a"]"#)), "matchers: \"a\" is not a matcher"),
        (
            wrong(&|row| row.matchers = text(r#"["a=~\"(\""]"#)),
            "not a regular expression: found open group without closing",
        ),
        (
            wrong(&|row| row.group_by = text(r#"["a b"]"#)),
            "group_by: \"a b\" is not a label's name",
        ),
        (wrong(&|row| row.group_by = text(r#"["a", "a"]"#)), "twice"),
        (wrong(&|row| row.group_by = text(r#"["a", "..."]"#)), "write it alone"),
        (
            wrong(&|row| row.group_wait = text("5 minutes")),
            "group_wait: \"5 minutes\" is no duration",
        ),
        (
            wrong(&|row| row.group_interval = text("9s")),
            "group_interval: is 9s; should be from 10s",
        ),
        (
            wrong(&|row| {
                row.group_by = text(r#"["..."]"#);
                row.group_interval = text("29s");
            }),
            "group_interval: is 29s; should be from 30s",
        ),
        (
            wrong(&|row| row.repeat_interval = text("1s")),
            "repeat_interval: is 1s; should be from 1m",
        ),
        (wrong(&|row| row.repeat_interval = text("1y")), "repeat_interval: is 1y"),
        (
            wrong(&|row| row.continue_matching = text("maybe")),
            "continue_matching: should be true or false",
        ),
        (wrong(&|row| row.mute_times = text("[{}]")), "mute_times: holds an empty interval"),
        (wrong(&|row| row.excess = Excess::Row), "larger than 64 KiB"),
    ] {
        assert!(reason.contains(words), "{reason}");
    }
}

// Each flush of a group may be a line in Mimir's log, so an operator says how often there may be one.
#[test]
fn the_shortest_group_interval_is_the_operators() {
    let state = |seconds: u64, group_by: &str, group_interval: &str| {
        let operator = Operator { min_group_interval: Duration::from_secs(seconds), ..operator() };
        let row = RouteRow {
            group_by: Some(group_by.to_owned()),
            group_wait: Some("0s".to_owned()),
            group_interval: Some(group_interval.to_owned()),
            ..route(11, 1)
        };
        let rows = Rows { channels: vec![good(1)], routes: vec![row], ..Rows::default() };
        let mut read = desired(&rows, &operator, &organisation(), &BTreeMap::new());
        read.routes.remove(&Uuid::from_u128(11)).unwrap().0
    };
    for (seconds, group_by, group_interval, wanted) in [
        (10, r#"["alertname"]"#, "10s", State::Live),
        (10, r#"["alertname"]"#, "9999ms", State::Invalid),
        (10, r#"["..."]"#, "30s", State::Live),
        (10, r#"["..."]"#, "10s", State::Invalid),
        (10, r#"["..."]"#, "", State::Live),
        (1, r#"["alertname"]"#, "1s", State::Live),
        (1, r#"["..."]"#, "1s", State::Invalid),
        (60, "[]", "59s", State::Invalid),
    ] {
        let got = state(seconds, group_by, group_interval);
        assert_eq!(got, wanted, "{seconds} {group_by} {group_interval}");
    }
}
