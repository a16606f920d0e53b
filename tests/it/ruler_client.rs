//! The client of Mimir's ruler, with a real one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use harness::{Mimir, fresh_organisation};
use mimir_tenant_proxy::mimir::MimirConfig;
use mimir_tenant_proxy::mimir::ruler::{
    AlertingRule, Deleted, MAX_NAME_BYTES, PromDuration, RuleGroup, RulerClient, RulerError,
    RulerLimits, StoredGroup, StoredRule,
};
use mimir_tenant_proxy::tenancy::TenantId;
use proptest::strategy::{Strategy, ValueTree as _};
use proptest::test_runner::TestRunner;

pub(crate) const NAMESPACE: &str = "our rules";

/// A client of these instances that writes in a namespace.
pub(crate) fn client_of(urls: &[&str], namespace: &str) -> RulerClient {
    let config = MimirConfig {
        urls: urls.iter().map(|url| url.parse().unwrap()).collect(),
        request_timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(2),
        tls: None,
    };
    RulerClient::new(&config, namespace).unwrap()
}

pub(crate) fn fresh_tenant() -> TenantId {
    TenantId::parse(&fresh_organisation()).unwrap()
}

pub(crate) fn rule(alert: &str, expr: &str) -> AlertingRule {
    AlertingRule {
        alert: alert.to_owned(),
        expr: expr.to_owned(),
        for_duration: PromDuration::ZERO,
        keep_firing_for: PromDuration::ZERO,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    }
}

pub(crate) fn group(name: &str, rules: Vec<AlertingRule>) -> RuleGroup {
    RuleGroup { name: name.to_owned(), interval: PromDuration::from_millis(60_000), rules }
}

pub(crate) fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect()
}

fn stored(group: &RuleGroup) -> StoredGroup {
    StoredGroup {
        name: group.name.clone(),
        interval: Some(group.interval),
        rules: group.rules.iter().cloned().map(StoredRule::Alerting).collect(),
        says_more: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_set_listed_replaced_and_deleted() {
    let mimir = Mimir::shared().await;
    let (client, tenant) = (client_of(&[&mimir.url()], NAMESPACE), fresh_tenant());

    let none = client.list(&tenant).await.unwrap();
    assert_eq!((none.ours.len(), none.others), (0, 0));

    let mut whole = rule("Hot", "temperature > 30");
    whole.for_duration = PromDuration::from_millis(300_000);
    whole.keep_firing_for = PromDuration::from_millis(86_400_000);
    whole.labels = texts(&[("severity", "page"), ("level", "1"), ("on", "no")]);
    whole.annotations = texts(&[("summary", "{{ $labels.room }} is at {{ $value }}")]);
    let mut first = group("first", vec![whole, rule("Hot", "vector(1)")]);
    let second = group("second", vec![rule("Cold", "temperature < 3")]);
    for group in [&first, &second] {
        client.set_group(&tenant, group).await.unwrap();
    }
    let two = client.list(&tenant).await.unwrap();
    assert_eq!(two.ours, [stored(&first), stored(&second)]);
    assert_eq!(client.list(&tenant).await.unwrap().digest, two.digest);

    first.rules.pop();
    first.interval = PromDuration::from_millis(90_000);
    client.set_group(&tenant, &first).await.unwrap();
    let replaced = client.list_raw(&tenant).await.unwrap();
    assert_ne!(replaced.digest(), two.digest);
    assert_eq!(replaced.parse(NAMESPACE).unwrap().ours, [stored(&first), stored(&second)]);

    let delete = async |name| client.delete_group(&tenant, name).await;
    assert_eq!(delete("second").await, Ok(Deleted::Done));
    // The file system does not report that it did not exist.
    assert_eq!(delete("second").await, Ok(Deleted::Done));
    assert_eq!(client.list(&tenant).await.unwrap().ours, [stored(&first)]);
    assert_eq!(client.delete_namespace(&tenant).await, Ok(Deleted::Done));
    assert_eq!(client.delete_namespace(&tenant).await, Ok(Deleted::WasAbsent));
    assert_eq!(client.list(&tenant).await.unwrap().digest, none.digest);
}

// Groups of others in other namespaces are counted and never changed.
#[tokio::test(flavor = "multi_thread")]
async fn other_namespaces_are_counted_and_not_changed() {
    let mimir = Mimir::shared().await;
    let (client, tenant) = (client_of(&[&mimir.url()], NAMESPACE), fresh_tenant());
    let theirs = client_of(&[&mimir.url()], "our rules/theirs");
    for name in ["a", "b"] {
        theirs.set_group(&tenant, &group(name, vec![rule("A", "up")])).await.unwrap();
    }
    client.set_group(&tenant, &group("a", vec![rule("A", "up")])).await.unwrap();
    let listed = client.list(&tenant).await.unwrap();
    assert_eq!((listed.ours.len(), listed.others), (1, 2));
    assert_eq!(client.delete_namespace(&tenant).await, Ok(Deleted::Done));
    let listed = client.list(&tenant).await.unwrap();
    assert_eq!((listed.ours.len(), listed.others), (0, 2));
    assert_eq!(theirs.list(&tenant).await.unwrap().ours.len(), 2);
    // Another tenant has none of it.
    assert_eq!(client.list(&fresh_tenant()).await.unwrap().others, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_one_path_segment_whatever_they_contain() {
    let mimir = Mimir::shared().await;
    let longest = "x".repeat(MAX_NAME_BYTES);
    let names = [
        "a/b",
        "a//b",
        "a/",
        "a%2Fb",
        "a b",
        " a ",
        "a?b=c#d",
        "ä",
        "🦀",
        "a\nb",
        "a\u{2028}b",
        "..a",
        "...",
        "%2e%2e",
        "a+b",
        "a;b",
        "a\\b",
        "\"a\"",
        "~",
        "null",
        "0755",
        &longest,
    ];
    for namespace in ["n/s", "%2F", "ä ö?#", "..."] {
        let (client, tenant) = (client_of(&[&mimir.url()], namespace), fresh_tenant());
        for name in names {
            client.set_group(&tenant, &group(name, vec![rule("A", "up")])).await.unwrap();
        }
        let listed = client.list(&tenant).await.unwrap();
        let mut seen: Vec<&str> = listed.ours.iter().map(|group| group.name.as_str()).collect();
        let mut wanted = names.to_vec();
        seen.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(seen, wanted);
        for (done, name) in names.into_iter().enumerate() {
            assert_eq!(client.delete_group(&tenant, name).await, Ok(Deleted::Done), "{name:?}");
            let left = client.list(&tenant).await.unwrap().ours.len();
            assert_eq!(left, names.len() - done - 1, "{name:?}");
        }
    }
}

// A name with dots would be normalised on the way: deleting the group `.` would delete its
// namespace.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_lead_elsewhere_are_never_sent() {
    let mimir = Mimir::shared().await;
    let (client, tenant) = (client_of(&[&mimir.url()], NAMESPACE), fresh_tenant());
    client.set_group(&tenant, &group("a", vec![rule("A", "up")])).await.unwrap();
    for name in ["", ".", "..", "/a", "../a", "a/../.."] {
        let refused = client.delete_group(&tenant, name).await;
        assert!(matches!(refused, Err(RulerError::Refused(_))), "{name:?}: {refused:?}");
        let refused = client.set_group(&tenant, &group(name, vec![rule("A", "up")])).await;
        assert!(matches!(refused, Err(RulerError::Refused(_))), "{name:?}: {refused:?}");
    }
    let long = "x".repeat(MAX_NAME_BYTES + 1);
    let refused = client.set_group(&tenant, &group(&long, vec![rule("A", "up")])).await;
    assert!(matches!(refused, Err(RulerError::Refused(_))), "{refused:?}");
    assert_eq!(client.list(&tenant).await.unwrap().ours.len(), 1);
}

const NASTY: [&str; 46] = [
    "",
    " ",
    "  leading",
    "trailing  ",
    "\n",
    "\nfirst line empty",
    "last line empty\n",
    "two last lines empty\n\n",
    "\n\n\n",
    "  indented\nnot",
    "not\n  indented",
    "\n  indented",
    " \n ",
    "tab\there",
    "\ttab",
    "a\r\nb",
    "\r",
    "say \"hi\"",
    "it's",
    "back\\slash",
    "{{ $labels.x }}",
    "a: b",
    "a:",
    ": ",
    "# no comment",
    "a # no comment",
    "- item",
    "? key",
    "[flow]",
    "{flow}",
    "&a",
    "*a",
    "🦀 ä",
    "\u{85}",
    "a\u{2028}b\u{2029}c",
    "\u{2028}",
    "\u{2028}\n",
    "\n\u{2028}",
    "it's\u{2029}",
    "a\n\u{2028}b\n",
    "a\u{2028}\u{2029}  b",
    "\u{7f}\u{0}\u{1b}",
    "\u{feff}bom",
    "\u{a0}",
    "~",
    "null",
];

/// Texts of every kind, and random ones made of their pieces.
fn nasty_texts(count: usize) -> Vec<String> {
    let piece = proptest::prop_oneof![
        proptest::sample::select(NASTY.to_vec()).prop_map(str::to_owned),
        proptest::arbitrary::any::<char>().prop_map(String::from),
        "[ -~]{1,5}",
    ];
    let text = proptest::collection::vec(piece, 1..6).prop_map(|pieces| pieces.concat());
    // Half of a template would be rejected.
    let text = text.prop_map(|text| text.replace("{{", "{ {"));
    let mut runner = TestRunner::deterministic();
    let chance = (NASTY.len()..count).map(|_| text.new_tree(&mut runner).unwrap().current());
    NASTY.iter().map(|text| (*text).to_owned()).chain(chance).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_text_arrives_as_it_is_and_is_read_back() {
    let mimir = Mimir::shared().await;
    let (client, tenant) = (client_of(&[&mimir.url()], NAMESPACE), fresh_tenant());
    let all = nasty_texts(4_000);
    let mut sent = Vec::new();
    for (number, texts) in all.chunks(100).enumerate() {
        let rules = texts.chunks(5).map(|five| {
            // Mimir requires a name and an expression that it can parse, without white space around
            // it, which it does not keep.
            let mut rule = rule(&format!("A{}", five[0]), "up # comment: \"\\\n  > 1");
            let keyed = |key: &str| {
                let number = |(at, text): (usize, &String)| (format!("{key}{at}"), text.clone());
                five.iter().enumerate().map(number).collect::<BTreeMap<_, _>>()
            };
            rule.labels = keyed("label");
            rule.annotations = keyed("annotation");
            rule.annotations.insert("a".repeat(2_000), "the longest name".to_owned());
            rule
        });
        sent.push(group(&format!("{number:03}"), rules.collect()));
    }
    let client = Arc::new(client);
    for group in &sent {
        client.set_group(&tenant, group).await.unwrap();
    }
    let mut listed = client.list(&tenant).await.unwrap();
    assert_eq!(listed.ours.len(), sent.len());
    // Mimir sorts names by their Base64.
    listed.ours.sort_by(|a, b| a.name.cmp(&b.name));
    for (read, written) in listed.ours.iter().zip(&sent) {
        for (read, written) in read.rules.iter().zip(&written.rules) {
            assert_eq!(*read, StoredRule::Alerting(written.clone()));
        }
        assert_eq!(*read, stored(written));
    }
    // The listing of all tenants has the same, byte for byte.
    let one = client.list_raw(&tenant).await.unwrap();
    let mut all = BTreeMap::new();
    let each = |tenant: TenantId, listing| {
        all.insert(tenant.as_str().to_owned(), listing);
    };
    client.list_all(each).await.unwrap();
    assert_eq!(all[tenant.as_str()].digest(), one.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tenants_are_listed_at_once() {
    let mimir = Mimir::shared().await;
    let client = client_of(&[&mimir.url()], NAMESPACE);
    let mut tenants: Vec<TenantId> = (0..20).map(|_| fresh_tenant()).collect();
    // In YAML these would be a number, an alias and null.
    tenants.extend(["0123", "*!'()", "null"].map(|name| TenantId::parse(name).unwrap()));
    for (count, tenant) in tenants.iter().enumerate() {
        for number in 0..=count % 3 {
            let group = group(&format!("g{number}"), vec![rule("A", "up")]);
            client.set_group(tenant, &group).await.unwrap();
        }
    }
    let mut all = BTreeMap::new();
    let each = |tenant: TenantId, listing| {
        assert!(all.insert(tenant.as_str().to_owned(), listing).is_none());
    };
    client.list_all(each).await.unwrap();
    for (count, tenant) in tenants.iter().enumerate() {
        let one = client.list_raw(tenant).await.unwrap();
        assert_eq!(all[tenant.as_str()].digest(), one.digest(), "{tenant:?}");
        assert_eq!(one.parse(NAMESPACE).unwrap().ours.len(), count % 3 + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn expressions_are_formatted_or_their_fault_is_reported() {
    let mimir = Mimir::shared().await;
    let (client, tenant) = (client_of(&[&mimir.url()], NAMESPACE), fresh_tenant());
    let format = async |expr| client.format_query(&tenant, expr).await;
    assert_eq!(
        format("sum  by(a)(up{b='c & d;+%'} )").await.unwrap(),
        "sum by (a) (up{b=\"c & d;+%\"})"
    );
    for (expr, at, words) in [
        ("sum(up", Some((1, 7)), "unclosed left parenthesis"),
        ("up\n  + *", Some((2, 5)), "unexpected <op:*>"),
        ("up{a=\"", Some((1, 6)), "unterminated quoted string"),
        ("", None, "no expression found in input"),
        ("rate(up)", Some((1, 6)), "expected type range vector"),
    ] {
        let Err(RulerError::InvalidExpression { message, line, column }) = format(expr).await
        else {
            panic!("{expr} is valid");
        };
        assert_eq!(line.zip(column), at, "{expr}: {message}");
        assert!(message.contains(words) && !message.contains("parse error"), "{expr}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_those_of_the_tenant_and_zero_means_none() {
    let mimir = Mimir::shared().await;
    let (client, tenant) = (client_of(&[&mimir.url()], NAMESPACE), fresh_tenant());
    let limits = async || client.limits(&tenant).await.unwrap().unwrap();
    assert_eq!(limits().await, RulerLimits { rules_per_group: Some(20), groups: Some(70) });
    let own = "{ruler_max_rules_per_rule_group: 5, ruler_max_rule_groups_per_tenant: 0}";
    mimir.override_limits(tenant.as_str(), own).await;
    assert_eq!(limits().await, RulerLimits { rules_per_group: Some(5), groups: None });
    // The default applies to what an override leaves out.
    mimir.override_limits(tenant.as_str(), "{ruler_max_rule_groups_per_tenant: 3}").await;
    assert_eq!(limits().await, RulerLimits { rules_per_group: Some(20), groups: Some(3) });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mimir_without_runtime_configuration_tells_no_limits() {
    let mimir = Mimir::start_with(&["-runtime-config.file="]).await;
    let (client, tenant) = (client_of(&[&mimir.url()], NAMESPACE), fresh_tenant());
    assert_eq!(client.limits(&tenant).await, Ok(None));
}
