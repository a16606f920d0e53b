//! Everything that Mimir's ruler rejects, and how the client reports it.

use harness::Mimir;
use mimir_tenant_proxy::mimir::ExchangeError;
use mimir_tenant_proxy::mimir::ruler::{AlertingRule, GroupRefusal, PromDuration, RulerError};

use crate::ruler_client::{NAMESPACE, client_of, fresh_tenant, group, rule, texts};

/// Why a group of a valid rule and then these rules is rejected.
async fn refusal_of(rules: impl IntoIterator<Item = AlertingRule>) -> GroupRefusal {
    let mimir = Mimir::shared().await;
    let (client, tenant) = (client_of(&[&mimir.url()], NAMESPACE), fresh_tenant());
    let rules = [rule("Valid", "up")].into_iter().chain(rules).collect();
    let error = client.set_group(&tenant, &group("g", rules)).await.unwrap_err();
    assert_eq!(client.list(&tenant).await.unwrap().ours, []);
    match error {
        RulerError::Refused(refusal) => refusal,
        other => GroupRefusal::Other(format!("it is no refusal: {other}")),
    }
}

fn at_rule(
    index: usize,
    alert: &str,
    reason: &str,
    position: Option<(usize, usize)>,
) -> GroupRefusal {
    GroupRefusal::Rule { index, alert: alert.into(), reason: reason.into(), position }
}

// Mimir's texts are pinned, so that a different text of a newer Mimir is noticed.
#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_a_rule_is_reported_to_its_author() {
    let annotated = |alert: &str, name: &str, text: &str| {
        let mut rule = rule(alert, "up");
        rule.annotations = texts(&[(name, text)]);
        rule
    };
    let labelled = |name: &str, text: &str| {
        let mut rule = rule("A", "up");
        rule.labels = texts(&[(name, text)]);
        rule
    };
    for (wrong, reason, position) in [
        (
            rule("A", "sum(up"),
            "could not parse expression: unclosed left parenthesis",
            Some((1, 7)),
        ),
        (rule("A", "up\n + *"), "could not parse expression: unexpected <op:*>", Some((2, 4))),
        (
            rule("A", "rate(up)"),
            "could not parse expression: expected type range vector in call to function \"rate\", got instant vector",
            Some((1, 6)),
        ),
        (rule("A", ""), "the expression is empty", None),
        (rule("", "up"), "one of 'record' or 'alert' must be set", None),
        (labelled("a b", "x"), "invalid label name: a b", None),
        (labelled("", "x"), "invalid label name: ", None),
        (labelled("__name__", "x"), "invalid label name: __name__", None),
        (
            labelled("s", "{{ end }}"),
            "label \"s\": line 1 of its template: unexpected {{end}}",
            None,
        ),
        (annotated("A", "a b", "x"), "invalid annotation name: a b", None),
        (
            annotated("A", "s", "{{ $labels.x "),
            "annotation \"s\": line 1 of its template: unclosed action",
            None,
        ),
        (
            annotated("A", "s", "one\n{{ foo }}"),
            "annotation \"s\": line 2 of its template: function \"foo\" not defined",
            None,
        ),
        (
            annotated("A:1: b", "s", "{{ $none }}"),
            "annotation \"s\": line 1 of its template: undefined variable \"$none\"",
            None,
        ),
        (
            annotated("100%d", "s", "{{ end }}"),
            "annotation \"s\": its template cannot be parsed",
            None,
        ),
    ] {
        let alert = wrong.alert.clone();
        assert_eq!(refusal_of([wrong]).await, at_rule(1, &alert, reason, position));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_faults_of_the_first_wrong_rule_are_reported() {
    let mut first = rule("First", "(");
    first.labels = texts(&[("a b", "x"), ("c d", "x")]);
    first.annotations = texts(&[("s", "{{")]);
    let reason = "annotation \"s\": line 1 of its template: unclosed action; \
                  could not parse expression: unclosed left parenthesis; \
                  invalid label name: a b; invalid label name: c d";
    let expected = at_rule(1, "First", reason, Some((1, 2)));
    // Mimir lists them in a different order every time.
    for _ in 0..20 {
        let rules = [first.clone(), rule("Fine", "up"), rule("Third", ")")];
        assert_eq!(refusal_of(rules).await, expected);
    }
}

// Names and expressions are their author's text: they must not blame another rule.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_is_identified_by_its_index() {
    let expr = "up{a=\"b\"} , 1:1: group \"g\", rule 0, \"Valid\": no";
    for alert in [
        "x\", rule 0, \"Valid",
        "1:1: group \"g\", rule 0, \"Valid\": bad",
        "a\nb\t\\\"",
        "\u{85}\u{2028}\u{7f}\u{1}ä🦀\u{e0001}\u{feff}",
        ": ",
        "per-user rule groups limit (limit: 1 actual: 2) exceeded",
        &"long ".repeat(10_000),
    ] {
        let refusal = refusal_of([rule(alert, expr)]).await;
        let GroupRefusal::Rule { index, alert: named, position, .. } = &refusal else {
            panic!("{refusal:?}")
        };
        assert_eq!((*index, named.as_str(), *position), (1, alert, Some((1, 11))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_reported_with_their_numbers() {
    let too_many = refusal_of((0..20).map(|_| rule("A", "up"))).await;
    assert_eq!(too_many, GroupRefusal::TooManyRules { limit: 20, actual: 21 });

    let mimir = Mimir::shared().await;
    let (client, tenant) = (client_of(&[&mimir.url()], NAMESPACE), fresh_tenant());
    let limits = "{ruler_min_rule_evaluation_interval: 90s}";
    mimir.override_limits(tenant.as_str(), limits).await;
    let refused = client.set_group(&tenant, &group("g", vec![rule("A", "up")])).await;
    let (limit, actual) = (PromDuration::from_millis(90_000), PromDuration::from_millis(60_000));
    assert_eq!(refused, Err(RulerError::Refused(GroupRefusal::IntervalTooShort { limit, actual })));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_exactly_the_limit_even_an_update_is_refused() {
    let mimir = Mimir::shared().await;
    let (client, tenant) = (client_of(&[&mimir.url()], NAMESPACE), fresh_tenant());
    let valid = |number: u32| group(&format!("g{number}"), vec![rule("A", "up")]);
    for number in 0..70 {
        client.set_group(&tenant, &valid(number)).await.unwrap();
    }
    let refused = Err(RulerError::Refused(GroupRefusal::TooManyGroups { limit: 70, actual: 71 }));
    assert_eq!(client.set_group(&tenant, &valid(3)).await, refused);
    assert_eq!(client.set_group(&tenant, &valid(70)).await, refused);
    // With one less, an update is accepted.
    client.delete_group(&tenant, "g0").await.unwrap();
    client.set_group(&tenant, &valid(3)).await.unwrap();
    assert_eq!(client.list(&tenant).await.unwrap().ours.len(), 69);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protected_namespace_is_the_operators_to_fix() {
    let mimir = Mimir::shared().await;
    let (client, tenant) = (client_of(&[&mimir.url()], NAMESPACE), fresh_tenant());
    let limits = format!("{{ruler_protected_namespaces: \"{NAMESPACE}\"}}");
    mimir.override_limits(tenant.as_str(), &limits).await;
    let message = "namespace is protected, no modification allowed".to_owned();
    let forbidden = RulerError::Exchange(ExchangeError::Forbidden { status: 403, message });
    let set = client.set_group(&tenant, &group("g", vec![rule("A", "up")])).await;
    assert_eq!(set, Err(forbidden.clone()));
    assert_eq!(client.delete_group(&tenant, "g").await, Err(forbidden.clone()));
    assert_eq!(client.delete_namespace(&tenant).await, Err(forbidden));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_without_rules_is_refused_in_mimirs_words() {
    let mimir = Mimir::shared().await;
    let (client, tenant) = (client_of(&[&mimir.url()], NAMESPACE), fresh_tenant());
    let refused = client.set_group(&tenant, &group("g", Vec::new())).await;
    let words = "invalid rules configuration: rule group 'g' has no rules".to_owned();
    assert_eq!(refused, Err(RulerError::Refused(GroupRefusal::Other(words))));
}
