use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::channels::spec::{ChannelRow, RouteRow, Rows, State, desired};
use crate::config::{DashboardUrl, EmailRelay, Secret};
use crate::store::Excess;

fn operator() -> Operator {
    let relay = EmailRelay {
        smarthost: "relay.internal:25".to_owned(),
        from: "alerts@example.com".to_owned(),
        hello: Some("proxy.internal".to_owned()),
        require_tls: true,
    };
    Operator {
        dashboard_url: DashboardUrl::parse(
            "https://app.example.org/{organisation_id}/alerts?a=b&c=d",
        )
        .ok(),
        email: Some(relay),
        ..crate::channels::tests::operator()
    }
}

fn acme() -> OrganisationId {
    OrganisationId::parse("acme").unwrap()
}

fn channel(id: u128, kind: &str, settings: &Value, secrets: &Value) -> ChannelRow {
    ChannelRow {
        id: Uuid::from_u128(id),
        organisation: acme(),
        name: None,
        kind: Some(kind.to_owned()),
        settings: Some(settings.to_string()),
        secrets: Some(Secret::new(&secrets.to_string())),
        enabled: None,
        is_default: None,
        created_at_micros: Some(i64::try_from(id).unwrap()),
        excess: Excess::None,
    }
}

fn route(id: u128, channel: u128, matchers: &Value) -> RouteRow {
    RouteRow {
        id: Uuid::from_u128(id),
        organisation: acme(),
        channel: Some(Uuid::from_u128(channel).to_string()),
        position: None,
        matchers: Some(matchers.to_string()),
        group_by: None,
        group_wait: None,
        group_interval: None,
        repeat_interval: None,
        mute_times: None,
        continue_matching: None,
        enabled: None,
        created_at_micros: Some(i64::try_from(id).unwrap()),
        excess: Excess::None,
    }
}

fn read(yaml: &str) -> Value {
    let documents = Parsed::read_all(yaml).map_err(|error| error.reason).unwrap();
    assert_eq!(documents.len(), 1);
    assert!(documents[0].repeated().is_empty());
    documents[0].to_json()
}

fn written(rows: &Rows) -> Document {
    let desired = desired(rows, &operator(), &acme(), &BTreeMap::new());
    desired.document.unwrap_or_else(|| panic!("{:?}", desired.channels))
}

// PagerDuty's Events API requires payload.source. Alertmanager takes `client` for it, which is empty without a
// dashboard.
#[test]
fn events_for_pagerduty_have_a_source_with_and_without_a_dashboard() {
    let mut rows = Rows::default();
    let key = json!({"routing_key": "0123456789abcdef0123456789abcdef"});
    rows.channels.push(channel(1, "pagerduty", &json!({}), &key));
    for operator in [operator(), Operator { dashboard_url: None, ..operator() }] {
        let document = desired(&rows, &operator, &acme(), &BTreeMap::new()).document.unwrap();
        let receiver = &read(&document.config)["receivers"][1];
        assert_eq!(receiver["pagerduty_configs"][0]["source"], "Mimir", "{receiver}");
    }
}

#[test]
fn a_document_says_what_the_rows_say() {
    let url = "https://hooks.example.org/secret-path";
    let mut rows = Rows::default();
    rows.channels.push(channel(1, "webhook", &json!({"max_alerts": 7}), &json!({"url": url})));
    rows.channels.push(channel(
        2,
        "discord",
        &json!({"send_resolved": false}),
        &json!({"url": url}),
    ));
    rows.channels[1].is_default = Some("true".to_owned());
    rows.routes.push(route(3, 1, &json!(["severity=\"critical\"", "team=~\"a|b\""])));
    rows.routes[0].group_by = Some(json!(["alertname", "site"]).to_string());
    rows.routes[0].group_wait = Some("10s".to_owned());
    rows.routes[0].mute_times =
        Some(json!([{"weekdays": ["Sunday"], "years": [2026]}]).to_string());
    let document = written(&rows);
    let [first, second, third] = [1, 2, 3].map(|id| Uuid::from_u128(id).to_string());
    let head = format!("{MARKER}\n# channel {first}\n# channel {second}\n# route {third}\n");
    assert!(document.config.starts_with(&head), "{}", document.config);
    let config = read(&document.config);
    let test = |id: &String| {
        json!({"receiver": id, "matchers": [format!("mimir_tenant_proxy_test=\"{id}\"")],
            "group_by": ["..."], "group_wait": "0s"})
    };
    assert_eq!(
        config["route"],
        json!({
            "receiver": "nobody", "group_by": ["alertname"], "group_wait": "30s", "group_interval": "5m",
            "repeat_interval": "4h",
            "routes": [
                test(&first),
                test(&second),
                {"receiver": first, "matchers": ["severity=\"critical\"", "team=~\"a|b\""],
                    "group_by": ["alertname", "site"], "group_wait": "10s", "mute_time_intervals": [third],
                    "continue": false},
                {"receiver": second, "continue": false},
            ],
        })
    );
    assert_eq!(
        config["time_intervals"],
        json!([{"name": third, "time_intervals": [{"weekdays": ["sunday"], "years": ["2026"]}]}])
    );
    assert_eq!(
        config["receivers"][1],
        json!({"name": first, "webhook_configs": [{"send_resolved": true, "url": url, "max_alerts": 7}]})
    );
    assert_eq!(config["receivers"][2]["discord_configs"][0]["send_resolved"], json!(false));
    assert_eq!(config["global"], json!({"http_config": {"follow_redirects": false}}));
    let body = read(&document.body());
    assert_eq!(body["alertmanager_config"], json!(document.config));
    let observed = Observed::parse(&document.body()).unwrap();
    assert!(document.is(&observed) && !observed.is_foreign() && !observed.is_empty());
    assert_eq!(observed.live().as_ref(), Some(document.live()));
    assert!(!document.redacted().contains("secret-path"));
    assert!(document.redacted().contains("max_alerts: 7"));
    let words = format!("unsupported scheme in \"{url}\", /secret-path");
    assert_eq!(document.scrubbed(&words), "unsupported scheme in \"<secret>\", <secret>");
}

// What reaches the reader of a notification leads to the dashboard or nowhere.
#[test]
fn templates_hold_no_link_of_mimirs() {
    for dashboard in [Some("https://app.example.org/acme?a=b&c=d"), None] {
        let files = templates::files(dashboard);
        let text = &files[templates::FILE];
        assert!(!text.contains("GeneratorURL") && !text.contains("ExternalURL"));
        assert!(!text.contains("DASHBOARD_URL") && !text.contains("LINK_HTML"));
        assert_eq!(text.contains("https://app.example.org/acme?a=b&c=d"), dashboard.is_some());
        assert_eq!(
            text.contains("href=\"https://app.example.org/acme?a=b&amp;c=d\""),
            dashboard.is_some()
        );
        assert!(text.is_ascii());
    }
}

#[test]
fn a_document_without_the_marker_is_foreign_and_an_empty_one_is_nobodys() {
    let foreign = "template_files: {}\nalertmanager_config: |\n    route: {receiver: x}\n";
    let foreign = Observed::parse(foreign).unwrap();
    assert!(foreign.is_foreign() && foreign.live().is_none());
    assert_eq!(foreign.redacted(), "");
    assert_eq!(diff_texts(Some(&foreign), None), (String::new(), String::new()));
    for empty in [
        "template_files: {}\nalertmanager_config: \"\"\n",
        "alertmanager_config: ''",
        "alertmanager_config:\n",
    ] {
        let observed = Observed::parse(empty).unwrap();
        assert!(observed.is_empty() && !observed.is_foreign(), "{empty}");
    }
    for wrong in [
        "",
        "- a",
        "alertmanager_config: [a]",
        "a: [",
        "a: b\n---\nc: d",
        // Of something else that listens there: "nothing is stored" would be a lie.
        "<html>login</html>\n",
        "{\"status\":\"success\",\"data\":{}}\n",
        "template_files: {}\n",
    ] {
        let parsed = Observed::parse(wrong);
        assert!(parsed.is_err() || parsed.unwrap().is_empty(), "{wrong}");
    }
    // Behind other lines it is a comment of somebody's.
    assert_eq!(Live::of(&format!("\n{MARKER}\n")), None);
    let id = Uuid::from_u128(7);
    let live =
        Live::of(&format!("{MARKER}\n# channel {id}\n# else\n# route x\nroute:\n# route {id}\n"));
    assert_eq!(live, Some(Live { channels: [id].into(), routes: BTreeSet::new() }));
}

#[test]
fn a_secret_that_changes_is_seen_to_change_and_not_shown() {
    let at = |path: &str| {
        let mut rows = Rows::default();
        let url = format!("https://hooks.example.org/{path}");
        rows.channels.push(channel(
            1,
            "webhook",
            &json!({}),
            &json!({"url": url, "token": "stays-the-same"}),
        ));
        written(&rows)
    };
    let (old, new) = (at("old-one"), at("new-one"));
    let observed = Observed::parse(&old.body()).unwrap();
    let (before, after) = diff_texts(Some(&observed), Some(&new));
    assert!(before.contains("url: \"<old secret>\"") && after.contains("url: \"<new secret>\""));
    assert!(after.contains("credentials: \"<secret>\""), "{after}");
    for secret in ["old-one", "new-one", "stays"] {
        assert!(!before.contains(secret) && !after.contains(secret), "{secret}");
    }
    assert_eq!(old.digest(), new.digest());
    assert_ne!(observed.digest(), Observed::parse(&new.body()).unwrap().digest());
    // Somebody has changed it by hand: what does not look like ours is not shown.
    let edited = old.body().replace(
        "\\n    webhook_configs",
        "\\n    api_key: >-\\n      by-hand\\n    webhook_configs",
    );
    assert!(edited.contains("by-hand"));
    let (before, _) = diff_texts(Some(&Observed::parse(&edited).unwrap()), None);
    assert!(!before.contains("by-hand") && before.contains("# (not shown)"), "{before}");
    for by_hand in [
        "# by-hand",
        "x: \"by-hand\"",
        "http_headers:\n  X-Key:\n    values:\n    - \"by-hand\"",
        "http_headers:\n- \"by-hand\"",
        "credentials:\n  \"by-hand\"",
        "to: by-hand",
        "to: \"a\" # by-hand",
        "- by-hand",
    ] {
        let redacted = redaction::redacted(&format!("{MARKER}\nroute:\n{by_hand}\n"));
        assert!(!redacted.contains("by-hand"), "{by_hand}: {redacted}");
    }
}

/// Texts that are anything, and often what would break out of a text.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-z]{1,8}",
        1 => "\\PC{0,12}",
        1 => "(?s).{0,8}",
        1 => prop::sample::select(vec![
            "{{ .x }}", "a: b", "- a", "# a", "\"", "\\", "\\\"", "\u{85}", "\u{2028}", "'", "true", "1", "~", "",
            "<secret>", "*a", "&a", "!a", "|", ">", "%", "@", "`", "nobody", "a@example.org", "#alerts", ":bell:",
        ]).prop_map(str::to_owned),
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => any_text().prop_map(Value::String),
        1 => prop::collection::vec(any_text(), 0..3).prop_map(|texts| json!(texts)),
        1 => any::<i64>().prop_map(|number| json!(number)),
        1 => any::<bool>().prop_map(|on| json!(on)),
        1 => Just(Value::Null),
    ]
}

/// What a secret is sought by.
const NEEDLE: &str = "n33dle";

fn any_channel(id: u128) -> impl Strategy<Value = ChannelRow> {
    let kind = prop::sample::select(crate::channels::spec::kinds::NAMES.to_vec());
    let keys = vec![
        "send_resolved",
        "max_alerts",
        "username",
        "to",
        "channel",
        "icon_emoji",
        "severity",
        "class",
        "component",
        "group",
        "priority",
        "tags",
        "chat_id",
        "message_thread_id",
        "silent",
        "format",
    ];
    let settings = prop::collection::btree_map(prop::sample::select(keys), any_json(), 0..4);
    // Right ones of every kind, so that many channels live.
    let secrets = any_text().prop_map(|text| {
        let right = json!({
            "url": format!("https://hooks.example.org/{NEEDLE}?{text}"),
            "routing_key": format!("{NEEDLE}{}", "a".repeat(26)),
            "api_key": format!("{NEEDLE}-key"),
            "bot_token": format!("123:{NEEDLE}{}", "a".repeat(20)),
        });
        right
    });
    (kind, settings, secrets, any::<bool>(), any::<bool>()).prop_map(
        move |(kind, mut settings, secrets, is_default, with_rest)| {
            let wanted = match kind {
                "pagerduty" => "routing_key",
                "opsgenie" => "api_key",
                "telegram" => "bot_token",
                "email" => "",
                _ => "url",
            };
            if with_rest {
                settings.retain(|_, value| value.is_string());
            }
            match kind {
                "telegram" => drop(settings.insert("chat_id", json!(-100_123))),
                "email" => drop(settings.entry("to").or_insert_with(|| json!("a@example.org"))),
                _ => {}
            }
            let mut given = serde_json::Map::new();
            if let Some(secret) = secrets.get(wanted) {
                given.insert(wanted.to_owned(), secret.clone());
            }
            let mut row = channel(id, kind, &json!(settings), &Value::Object(given));
            row.is_default = Some(is_default.to_string());
            row
        },
    )
}

fn any_route(id: u128) -> impl Strategy<Value = RouteRow> {
    let matcher = (any_text(), prop::sample::select(vec!["=", "!=", "=~", "!~"]), any_text());
    let matchers = prop::collection::vec(
        matcher.prop_map(|(name, operator, value)| format!("{name}{operator}{value:?}")),
        0..3,
    );
    let group_by = prop::option::of(prop::collection::vec(any_text(), 0..3));
    let durations = prop::sample::select(vec!["", "0s", "10s", "5m", "1x", "4h", "1000d"]);
    (1..5_u128, matchers, group_by, durations, any_text(), any::<bool>()).prop_map(
        move |(channel, matchers, group_by, duration, location, goes_on)| {
            let mut row = route(id, channel, &json!(matchers));
            row.group_by = group_by.map(|labels| json!(labels).to_string());
            row.group_wait = Some(duration.to_owned());
            row.repeat_interval = Some(duration.to_owned());
            row.continue_matching = Some(goes_on.to_string());
            if !location.is_empty() {
                row.mute_times = Some(json!([{"location": location}]).to_string());
            }
            row
        },
    )
}

/// All texts of a document, with the keys that lead to them.
fn texts<'a>(value: &'a Value, path: &str, found: &mut Vec<(String, &'a str)>) {
    match value {
        Value::String(text) => found.push((path.to_owned(), text)),
        Value::Array(items) => items.iter().for_each(|item| texts(item, path, found)),
        Value::Object(entries) => {
            for (key, value) in entries {
                texts(value, &format!("{path}.{key}"), found);
            }
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn any_rows_give_a_document_that_holds_them_as_data(
        channels in (any_channel(1), any_channel(2), any_channel(3)),
        routes in (any_route(11), any_route(12), any_route(13)),
    ) {
        let rows = Rows {
            channels: <[ChannelRow; 3]>::from(channels).into(),
            routes: <[RouteRow; 3]>::from(routes).into(),
            ..Rows::default()
        };
        let desired = desired(&rows, &operator(), &acme(), &BTreeMap::new());
        // Every row has a state, and what is not live has a reason.
        prop_assert_eq!(desired.channels.len() + desired.routes.len(), 6);
        let is_live = |(state, _): &(State, String)| *state == State::Live;
        for (state, reason) in desired.channels.values().chain(desired.routes.values()) {
            prop_assert_eq!(*state == State::Live, reason.is_empty(), "{}", reason);
            prop_assert!(!reason.contains(NEEDLE), "{}", reason);
        }
        let Some(document) = &desired.document else {
            prop_assert!(!desired.channels.values().any(is_live));
            return Ok(());
        };
        let live: BTreeSet<Uuid> =
            desired.channels.iter().filter(|(_, state)| is_live(state)).map(|(id, _)| *id).collect();
        prop_assert_eq!(&document.live().channels, &live);
        let live_routes: BTreeSet<Uuid> =
            desired.routes.iter().filter(|(_, state)| is_live(state)).map(|(id, _)| *id).collect();
        prop_assert_eq!(&document.live().routes, &live_routes);
        // It is YAML in ASCII, and what is written to Mimir is read back as the same.
        prop_assert!(document.body().is_ascii());
        let observed = Observed::parse(&document.body()).unwrap();
        prop_assert!(document.is(&observed));
        let config = read(&document.config);
        // The receivers are the live channels, each with one integration.
        let receivers = config["receivers"].as_array().unwrap();
        prop_assert_eq!(receivers.len(), live.len() + 1);
        for (receiver, id) in receivers.iter().skip(1).zip(&live) {
            prop_assert_eq!(&receiver["name"], &json!(id));
            prop_assert_eq!(receiver.as_object().unwrap().len(), 2);
        }
        // Every route leads to one of them; routes of rows are as many as are live.
        let children = config["route"]["routes"].as_array().unwrap();
        let defaults = rows.channels.iter()
            .filter(|row| live.contains(&row.id) && row.is_default.as_deref() == Some("true")).count();
        prop_assert_eq!(children.len(), live.len() + live_routes.len() + defaults);
        for child in children {
            let id = Uuid::try_parse(child["receiver"].as_str().unwrap()).unwrap();
            prop_assert!(live.contains(&id));
        }
        // Of all texts only ours are templates, and secrets stand under their keys only.
        let mut found = Vec::new();
        texts(&config, "", &mut found);
        for (path, text) in found {
            let starts = ["{{ template \"", "{{ .Alerts.", "{{ if .Alerts."];
            let is_ours = starts.iter().any(|start| text.starts_with(start));
            prop_assert!(is_ours || !text.contains("{{"), "{}: {}", path, text);
            let key = path.rsplit('.').next().unwrap();
            prop_assert!(!text.contains(NEEDLE) || yaml::SECRET_KEYS.contains(&key), "{}", path);
        }
        let redacted = document.redacted();
        prop_assert!(!redacted.contains(NEEDLE), "{}", redacted);
        prop_assert!(!redacted.contains("# (not shown)"), "{}", redacted);
        let debugged = format!("{desired:?}");
        prop_assert!(!debugged.contains(NEEDLE));
        prop_assert!(!document.scrubbed(&document.config).contains(NEEDLE));
    }

    // The writer by itself: anything comes back as it was.
    #[test]
    fn what_is_written_is_read_back(node in any_node()) {
        let yaml = yaml::write(&[("root", node.clone())]);
        prop_assert!(yaml.is_ascii());
        prop_assert_eq!(&read(&yaml)["root"], &meant(&node));
    }
}

fn any_node() -> impl Strategy<Value = yaml::Node> {
    let leaf = prop_oneof![
        any_text().prop_map(yaml::Node::Text),
        any::<i64>().prop_map(yaml::Node::Number),
        any::<bool>().prop_map(yaml::Node::Switch),
        any_text().prop_map(|text| yaml::Node::Secret(SecretText::new(&text))),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let keys = prop::sample::subsequence(vec!["a", "b", "url", "name"], 0..4);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(yaml::Node::List),
            (keys, prop::collection::vec(inner, 4)).prop_map(|(keys, nodes)| {
                yaml::Node::Map(keys.into_iter().zip(nodes).collect())
            }),
        ]
    })
}

fn meant(node: &yaml::Node) -> Value {
    match node {
        yaml::Node::Text(text) => json!(text),
        yaml::Node::Secret(secret) => json!(secret.expose()),
        yaml::Node::Number(number) => json!(number),
        yaml::Node::Switch(on) => json!(on),
        yaml::Node::List(items) => items.iter().map(meant).collect(),
        yaml::Node::Map(entries) => {
            let entries = entries.iter().map(|(key, value)| ((*key).to_owned(), meant(value)));
            Value::Object(entries.collect())
        }
    }
}
