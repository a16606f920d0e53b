//! One row cannot overload a shared Mimir: the cost of a rule is bounded before Mimir gets it.

use super::rules_fixture;

// Measured: 768 bytes that double a text 25 times grew Mimir from 111 to 894 MB, and a template
// that calls itself kept its cores busy after the row was deleted. Each is reported to its author;
// the others go live.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
async fn a_rule_that_would_overload_mimir_is_invalid_and_the_others_go_live() {
    let fixture = rules_fixture(&[]).await;
    let org = fixture.identity.organisation().await;
    let doubled = "{{ $x := $labels.a }}".to_owned()
        + &"{{ $x = printf \"%s%s\" $x $x }}".repeat(25)
        + "{{ $x }}";
    let annotations = |text: &str| {
        let json = serde_json::json!({ "summary": text }).to_string().replace('\'', "''");
        format!("annotations = '{json}'")
    };
    let mut refused = Vec::new();
    for (name, expr, more, reason) in [
        (
            "Doubles",
            "up == 0".to_owned(),
            annotations(&doubled),
            "annotation \"summary\": line 1, column ",
        ),
        (
            "Recurses",
            "up == 0".to_owned(),
            annotations(
                "{{ define \"a\" }}{{ template \"a\" }}{{ template \"a\" }}{{ end }}{{ template \"a\" }}",
            ),
            "\"define\" is not allowed in alert rules",
        ),
        (
            "Labels",
            "up == 0".to_owned(),
            format!("labels = '{}'", serde_json::json!({ "a": "{{ range 1000000000 }}{{ end }}" })),
            "labels: label \"a\": line 1, column 1 of its template: a loop may run only over",
        ),
        (
            "Asks",
            "up == 0".to_owned(),
            annotations(
                &format!("{{{{ query \"{}1{}\" }}}}", "(".repeat(60), ")".repeat(60))
                    .replace('1', &format!("{}1{}", "(".repeat(60), ")".repeat(60))),
            ),
            "the query nests parentheses, braces or signs more than 100 deep",
        ),
        (
            "Nests",
            format!("{}up{} == 0", "(".repeat(30_000), ")".repeat(30_000)),
            "enabled = true".to_owned(),
            "expr: 1:101: nests parentheses, braces or signs more than 100 deep (limits.expression_depth)",
        ),
        (
            "Subqueries",
            format!("{}up{} == 0", "max_over_time(".repeat(50), "[1m:1m])".repeat(50)),
            "enabled = true".to_owned(),
            "nests subqueries more than 5 deep",
        ),
        (
            "Chains",
            format!("up{}", " or up".repeat(5_000)),
            "enabled = true".to_owned(),
            "has more than 400 operators",
        ),
        (
            "Grows",
            format!(
                "{}vector(1){} > 0",
                "label_replace(".repeat(7),
                format!(",\"a\",\"{}\",\"a\",\"(.*)\")", "$1".repeat(10)).repeat(7)
            ),
            "enabled = true".to_owned(),
            "by label_replace and label_join",
        ),
        (
            "Fine",
            "count_over_time(vector(1)[5h:1ms]) > 0".to_owned(),
            "enabled = true".to_owned(),
            "(limits.expression_subquery_points)",
        ),
        (
            "Repeats",
            format!("count({{a=~\"{}\"}}) > 0", ".{1000}".repeat(1_000)),
            "enabled = true".to_owned(),
            "regular expressions that are too large",
        ),
        (
            "Loops",
            "vector(1)".to_owned(),
            annotations("{{ range query \"up\" }}{{ .Labels.instance }}{{ end }}"),
            "wrap it in topk(10, ...)",
        ),
        (
            "Prints",
            "up == 0".to_owned(),
            annotations(&"{{ printf \"%100d\" 1 }}".repeat(600)),
            "could produce more than 65536 bytes",
        ),
    ] {
        refused.push((fixture.rule_with(&org, name, &expr, &more).await, reason));
    }
    let ordinary = "{{ with query \"up\" }}{{ . | first | value | humanize }}{{ end }} {{ $labels.instance }} \
         {{ range query \"topk(5, up)\" }}{{ .Labels.instance }} {{ end }}";
    let good = fixture.rule_with(&org, "Good", "up == 0", &annotations(ordinary)).await;
    fixture.wait_state(&good, "live").await;
    for (id, reason) in &refused {
        fixture.wait_state(id, "invalid").await;
        let (_, said) = fixture.status(id).await;
        assert!(said.contains(reason), "{said:?} instead of {reason:?}");
    }
    fixture.wait_groups(&org, &[("default", &["Good"])]).await;
}
