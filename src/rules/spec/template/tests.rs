//! What alerts use passes; what has no bound does not.

use super::*;
use proptest::prelude::*;

fn fault(template: &str) -> Option<String> {
    let limits = ExpressionLimits::default();
    Budget::new(&limits).charge(template).err().map(|fault| fault.reason)
}

// In the style of kubernetes-mixin, the node exporter's mixin, awesome-prometheus-alerts and
// Prometheus' documentation on alerting rules and template examples; written for this test.
const ORDINARY: [&str; 48] = [
    "",
    "no template at all { } } }}",
    "Instance {{ $labels.instance }} of job {{ $labels.job }} is down.",
    "{{$labels.instance}}",
    "{{ .Labels.instance }} is at {{ .Value }}",
    "{{ $value }}",
    "{{ $value | humanize }} requests, {{ $value | humanizePercentage }}, for {{ $value | humanizeDuration }}",
    "{{ humanize1024 $value }}B since {{ $value | humanizeTimestamp }}",
    "{{ printf \"%.2f\" $value }}%",
    "{{ $value | printf \"%.1f\" }} and {{ printf \"%5.2f|%-10s|%05d\" $value $labels.job 5 }}",
    "{{ with query \"up\" }}{{ . | first | value | humanize }}{{ end }}",
    "{{ with query \"some_metric{instance='someinstance'}\" }}{{ . | first | value }}{{ else }}none{{ end }}",
    "{{ range query \"topk(10, up == 0)\" }}\n  {{ .Labels.instance }} {{ .Value }}\n{{ end }}",
    "{{ range query \"topk(5, rate(a[5m]))\" | sortByLabel \"instance\" }}{{ .Labels.instance }}: {{ .Value | humanize }}, {{ end }}",
    "{{ query \"sum(up)\" | first | value }}",
    "{{ with printf \"sum(rate(a{job=%q}[5m]))\" $labels.job | query }}{{ . | first | value }}{{ end }}",
    "{{ with query (printf \"up{instance=%q,job=%q} > %v\" $labels.instance .Labels.job $value) }}{{ . | first | label \"instance\" }}{{ end }}",
    "{{ $q := \"up\" }}{{ with query $q }}{{ len . }}{{ end }}",
    "{{ range $i, $sample := query \"topk(5, up)\" }}{{ if $i }}, {{ end }}{{ $sample.Labels.job }}{{ end }}",
    "{{ range query \"topk(5, up)\" }}{{ range $name, $value := .Labels }}{{ $name }}={{ $value }} {{ end }}{{ end }}",
    "{{ range $k, $v := $labels }}{{ $k }}={{ $v }}\n{{ end }}",
    "{{ if gt $value 0.9 }}critical{{ else if gt $value 0.5 }}warning{{ else }}info{{ end }}",
    "{{ if and (eq $labels.env \"prod\") (not (match \"^test\" $labels.job)) }}page{{ end }}",
    "{{ if or $labels.a $labels.b }}x{{ end -}}",
    "{{- if $labels.namespace -}} {{ $labels.namespace }}/ {{- end -}} {{ $labels.pod }}",
    "{{/* a comment */}}{{- /* another */ -}}text",
    "{{ \"}}\" }}{{ `{{ raw }}` }}{{ '}' }}",
    "VALUE = {{ $value }}\n  LABELS = {{ $labels }}",
    "VALUE = {{ $value }} LABELS: {{ $labels }} {{ .Labels }} {{ $externalLabels }}",
    "{{ $externalURL }}/graph {{ externalURL }}{{ pathPrefix }}",
    "{{ $externalLabels.cluster }}",
    "{{ reReplaceAll \"(.*):[0-9]+\" \"$1\" $labels.instance }}",
    "{{ $labels.instance | reReplaceAll \"^([0-9]{1,3}\\\\.){3}[0-9]{1,3}$\" \"ip\" }}",
    "{{ $labels.instance | stripPort | toUpper | title }} {{ $labels.x | stripDomain | toLower }}",
    "{{ $labels.alertname | safeHtml }}{{ graphLink \"up\" }}{{ tableLink $labels.job }}",
    "{{ ($value | toTime).Format \"2006-01-02 15:04\" }} {{ (toTime $value).Year }}",
    "{{ $value | toDuration }} {{ parseDuration \"1h\" }} {{ now }}",
    "{{ with $x := $labels.team }}{{ $x }}{{ else with $labels.group }}{{ . }}{{ end }}",
    "{{ $severity := \"warning\" }}{{ if gt $value 5.0 }}{{ $severity = \"critical\" }}{{ end }}{{ $severity }}",
    "{{ $found := false }}{{ range query \"topk(5, up)\" }}{{ if eq .Value 0.0 }}{{ $found = true }}{{ end }}{{ end }}{{ $found }}",
    "{{ $last := \"\" }}{{ range query \"topk(5, up)\" }}{{ $last = .Labels.instance }}{{ end }}{{ $last }}",
    "{{ range query \"topk(5, up)\" }}{{ if eq .Labels.a \"b\" }}{{ break }}{{ else }}{{ continue }}{{ end }}{{ end }}",
    "{{ index $labels \"instance\" }} {{ index (query \"up\") 0 }} {{ slice $labels.sha 0 7 }}",
    "{{ print $labels.a \"-\" $labels.b }}{{ println 1 2 }}{{ html $labels.a }}{{ js $labels.b }}{{ urlquery $labels.c }}",
    "{{ $labels.a | urlQueryEscape }} {{ len $labels }} {{ -3 }} {{- 3 }} {{ 1e3 }} {{ 0x1F }} {{ nil | print }}",
    "{{ with args $labels.a $value }}{{ .arg0 }} {{ .arg1 }}{{ end }}",
    "{{ $labels.größe }} {{ $.Labels.a }} {{ $.Value }}",
    "{{ if lt ($value | printf \"%.0f\" | len) 5 }}{{ end }}{{ strvalue (query \"up\" | first) }}{{ ge 1 2 }}{{ le 1 2 }}{{ ne 1 2 }}",
];

#[test]
fn what_alerts_use_passes() {
    for template in ORDINARY {
        assert_eq!(fault(template), None, "{template}");
    }
}

// In the style of kubernetes-mixin: a summary, a description with ten labels, and everything there is.
#[test]
fn a_rule_with_ordinary_annotations_passes() {
    let limits = ExpressionLimits::default();
    let mut budget = Budget::new(&limits);
    let ten = "{{ $labels.namespace }}/{{ $labels.pod }} ({{ $labels.container }}) ".repeat(3)
        + "on {{ $labels.node }} at {{ $value | humanizePercentage }}";
    for template in [
        "{{ $labels.instance }} {{ $labels.job }} {{ $value | humanize }}",
        &ten,
        "VALUE = {{ $value }}\n  LABELS = {{ $labels }}",
        "https://runbooks.example/{{ $labels.alertname | toLower }}",
        "{{ with query \"sum(up)\" }}{{ . | first | value | humanize }}{{ end }}",
    ] {
        assert_eq!(budget.charge(template), Ok(()), "{template}");
    }
}

// Both were seen on a real Mimir: 10,000 series in a loop made an annotation of 40 MB, on which it ends
// itself, and 60 KB for each of 5,000 alerts cost it a gigabyte.
#[test]
fn what_grows_with_the_number_of_series_is_refused() {
    let four = "{{ printf \"%1000d\" 1 }}".repeat(4);
    let padded = "{{ printf \"%100d\" 1 }}".repeat(600);
    let unbounded = "wrap it in topk(10, ...)";
    for (template, reason) in [
        (format!("{{{{ range query \"many\" }}}}{four}{{{{ end }}}}"), unbounded),
        (format!("{{{{ range query \"topk(10, a)\" }}}}{four}{{{{ end }}}}"), "a width must be at most 100"),
        ("{{ printf \"%1000d\" 1 }}".repeat(60), "a width must be at most 100"),
        ("{{ printf \"%.101f\" 1.0 }}".to_owned(), "a width must be at most 100"),
        (padded, "could produce more than 65536 bytes"),
        ("{{ $s := query \"many\" }}{{ range $s }}{{ end }}".to_owned(), unbounded),
        ("{{ with query \"many\" }}{{ range . }}{{ end }}{{ end }}".to_owned(), unbounded),
        ("{{ range query \"many\" | sortByLabel \"a\" }}{{ end }}".to_owned(), unbounded),
        ("{{ range slice (query \"many\") 1 }}{{ end }}".to_owned(), unbounded),
        ("{{ range or (query \"sum(a)\") (query \"many\") }}{{ end }}".to_owned(), unbounded),
        (
            "{{ $s := query \"sum(a)\" }}{{ if true }}{{ $s = query \"a\" }}{{ end }}{{ range $s }}{{ end }}"
                .to_owned(),
            unbounded,
        ),
        ("{{ range query \"topk(101, a)\" }}{{ end }}".to_owned(), unbounded),
        ("{{ range query \"topk(10, a) or a\" }}{{ end }}".to_owned(), unbounded),
        ("{{ range query \"topk(10, a) by (b)\" }}{{ end }}".to_owned(), unbounded),
        ("{{ range query \"sum by (b) (a)\" }}{{ end }}".to_owned(), unbounded),
        ("{{ range printf \"topk(%v, a)\" $value | query }}{{ end }}".to_owned(), unbounded),
        ("{{ range printf \"topk(1%v, a)\" $value | query }}{{ end }}".to_owned(), unbounded),
        ("{{ query \"many\" }}".to_owned(), "could produce more than"),
        ("{{ $s := query \"many\" }}{{ $s }}".to_owned(), "could produce more than"),
        ("{{ print (query \"many\") }}".to_owned(), "could produce more than"),
        (
            "{{ printf \"count_over_time(a[%v:1])\" $value | query | len }}".to_owned(),
            "plain durations",
        ),
        (
            "{{ printf \"count_over_time(a[1m:%v])\" $value | query | len }}".to_owned(),
            "plain durations",
        ),
        // A label is printed as often as it likes, so it must not have grown before.
        (
            format!(
                "{{{{ query `label_replace(up, \"a\", \"{}\", \"b\", \"(.*)\")` | first | label \"a\" }}}}",
                "$1".repeat(9)
            ),
            "by label_replace",
        ),
        (
            format!("{{{{ query `absent(a{{b=\"{}\"}})` | len }}}}", "x".repeat(20_000)),
            "by label_replace",
        ),
        ("{{ range query \"topk(100, a)\" }}{{ .Labels }}{{ end }}".to_owned(), "could produce more than"),
    ] {
        let said = fault(&template).unwrap_or_default();
        assert!(said.contains(reason), "{template:.120}: {said:?} instead of {reason:?}");
    }
    for template in [
        "{{ with query \"many\" }}{{ . | first | value }}{{ end }}",
        "{{ $s := query \"many\" }}{{ if $s }}{{ len $s }} {{ $s | first | label \"a\" }}{{ end }}",
        "{{ range query \"topk(10, many)\" }}{{ .Labels.instance }}: {{ .Value | humanize }}\n{{ end }}",
        "{{ range query \"limitk(20, many)\" | sortByLabel \"a\" }}{{ .Labels.a }} {{ end }}",
        "{{ range query \"count(many)\" }}{{ .Value }}{{ end }}",
        "{{ $s := query \"bottomk(5, many)\" }}{{ range $s }}{{ .Labels.a }}{{ end }}",
        "{{ range printf \"topk(5, up{job=%q})\" $labels.job | query }}{{ .Labels.instance }} {{ end }}",
    ] {
        assert_eq!(fault(template), None, "{template}");
    }
}

// Each pass over a loop reads all of its body, and each variable is looked for among all: 16 KB took a quarter of a
// second, on the thread that keeps the leader's lease.
#[test]
fn templates_are_read_within_a_bound() {
    let many = "{{ $v := 1 }}".repeat(40);
    assert!(fault(&many).unwrap().contains("at most 40 variables"));
    let chain: Vec<String> = (1..8).map(|n| format!("{{{{ $a{} = $a{n} }}}}", n - 1)).collect();
    let names: Vec<String> =
        (0..8).map(|n| format!("{{{{ $a{n} := \"{}\" }}}}", "x".repeat(n))).collect();
    let (names, chain, body) = (names.concat(), chain.concat(), "$a0 ".repeat(5_000));
    let parts = format!("{names}{{{{ range $labels }}}}{chain}{{{{ and {body} }}}}{{{{ end }}}}");
    assert!(fault(&parts).unwrap().contains("the templates of the rule are too long"));
}

#[test]
fn what_has_no_bound_is_refused_with_its_reason() {
    let doubled = "{{ $x := $labels.a }}".to_owned()
        + &"{{ $x = printf \"%s%s\" $x $x }}".repeat(25)
        + "{{ $x }}";
    let declared = "{{ $x := \"a\" }}".to_owned() + &"{{ $x := print $x $x }}".repeat(25);
    let replaced = "{{ $x := \"aaaaaaaaaaaaaaaa\" }}".to_owned()
        + &"{{ $x = reReplaceAll \"a\" \"aa\" $x }}".repeat(20);
    let piped = "{{ \"a\"".to_owned() + &" | printf \"%[1]s%[1]s\"".repeat(25) + " }}";
    let queries = "{{ query \"up\" | len }}".repeat(5);
    let deep = "{{ if true }}".repeat(40) + &"{{ end }}".repeat(40);
    let nested = "{{ ".to_owned() + &"(".repeat(40) + "1" + &")".repeat(40) + " }}";
    let subqueries =
        format!("{{{{ query \"{}x{}\" }}}}", "max_over_time(".repeat(50), "[1m:1m])".repeat(50));
    let page = "{{ range query \"topk(5, up)\" }}".to_owned() + &"a".repeat(14_000) + "{{ end }}";
    for (template, reason) in [
        (doubled.as_str(), "could produce more than 65536 bytes"),
        (&declared, "could produce more than 65536 bytes"),
        (&replaced, "could produce more than 65536 bytes"),
        (&piped, "could produce more than 65536 bytes"),
        (&page, "could produce more than 65536 bytes"),
        (
            "{{ define \"a\" }}{{ template \"a\" }}{{ end }}{{ template \"a\" }}",
            "\"define\" is not allowed",
        ),
        ("{{- define `a` -}}{{ end }}", "\"define\" is not allowed"),
        ("{{\ttemplate \"__alert_A\" . }}", "\"template\" is not allowed"),
        ("{{ block \"a\" . }}{{ end }}", "\"block\" is not allowed"),
        ("{{ if true }}{{ template \"a\" }}{{ end }}", "\"template\" is not allowed"),
        ("{{ printf \"%1000000000d\" 1 }}", "a width must be at most 100"),
        ("{{ printf \"%.1000000f\" 1.0 }}", "a width must be at most 100"),
        ("{{ printf \"%[1]99999s\" \"a\" }}", "a width must be at most 100"),
        ("{{ printf \"%*d\" 1000000 1 }}", "not *"),
        ("{{ printf $labels.format 1 }}", "a format must be a string in the template"),
        ("{{ $labels.format | printf }}", "a format must be a string in the template"),
        ("{{ range 1000000000 }}{{ end }}", "a loop may run only over"),
        ("{{ range $labels.a }}{{ end }}", "a loop may run only over"),
        ("{{ range $i := len $labels }}{{ end }}", "a loop may run only over"),
        (
            "{{ range query \"sum(a)\" }}{{ range query \"b\" }}{{ end }}{{ end }}",
            "no query can be asked in a loop",
        ),
        (
            "{{ $s := query \"sum(a)\" }}{{ range $s }}{{ range $s }}{{ end }}{{ end }}",
            "loops may not be nested",
        ),
        (
            "{{ range $labels }}{{ range $labels }}{{ range $labels }}{{ end }}{{ end }}{{ end }}",
            "loops may not be nested",
        ),
        (
            "{{ $x := \"a\" }}{{ range query \"sum(up)\" }}{{ $x = print $x $x }}{{ end }}",
            "grows with every turn",
        ),
        (
            "{{ $x := \"a\" }}{{ range query \"sum(up)\" }}{{ $x = print $x .Labels.a }}{{ end }}",
            "grows with every turn",
        ),
        (
            "{{ $a := \"a\" }}{{ $b := \"b\" }}{{ $c := \"c\" }}{{ range $labels }}\
             {{ $a = $b }}{{ $b = $c }}{{ $c = print $a $a \"!\" }}{{ end }}",
            "grows with every turn",
        ),
        (&queries, "may ask 4 queries"),
        ("{{ query $labels.q }}", "a query must be a text"),
        ("{{ print \"up{a='\" $labels.a \"'}\" | query }}", "a query must be a text"),
        (
            "{{ printf \"up{a='%s'}\" $labels.a | query }}",
            "only by %q without quotes around it, because %q writes its own: up{instance=%q}, not '%s'",
        ),
        ("{{ printf \"up{a='%q'}\" $labels.a | query }}", "a query must be a text"),
        ("{{ printf \"%s\" $labels.a | query }}", "a query must be a text"),
        (
            "{{ $q := \"up\" }}{{ if true }}{{ $q = $labels.q }}{{ end }}{{ query $q }}",
            "a query must be a text",
        ),
        (&subqueries, "the query nests subqueries more than 5 deep"),
        ("{{ reReplaceAll $labels.pattern \"a\" \"b\" }}", "a pattern must be a string"),
        ("{{ match \"(a{100}){100}\" $labels.a }}", "the pattern is too large"),
        ("{{ call $labels.a }}", "unknown function \"call\""),
        ("{{ tmpl \"a\" . }}", "unknown function \"tmpl\""),
        ("{{ .Value.Scale 5 }}", "takes no arguments"),
        ("{{ $x }}", "there is no variable $x"),
        ("{{ with $y := 1 }}{{ end }}{{ $y }}", "there is no variable $y"),
        (&deep, "blocks are nested more than 32 deep"),
        (&nested, "parentheses are nested more than 32 deep"),
        ("{{ if true }}", "the block is not closed"),
        ("{{ end }}", "without a block"),
        ("{{ else }}", "without a block"),
        ("{{ break }}", "is not allowed here"),
        ("{{ \"a }}", "the string is not closed"),
        ("{{ `a }}", "the string is not closed"),
        ("{{ $value", "the action is not closed"),
        ("{{/* a }}", "the comment is not closed"),
        ("{{ }}", "the action is empty"),
        ("{{ 1 | }}", "the action is empty"),
        ("{{ (1 }}", "the parenthesis is not closed"),
        ("{{ 1) }}", "unmatched closing parenthesis"),
        ("{{ \"\\q\" }}", "an invalid escape"),
        ("{{ § }}", "has no meaning"),
    ] {
        let said = fault(template).unwrap_or_default();
        assert!(said.contains(reason), "{template:.120}: {said:?} instead of {reason:?}");
    }
}

// Strings are decoded before they are measured: what an escape stands for is what Mimir parses.
#[test]
fn escapes_hide_nothing_from_the_measure_of_queries() {
    for open in ["(", "\\x28", "\\u0028", "\\U00000028", "\\050"] {
        let template = format!("{{{{ query \"{}1\" }}}}", open.repeat(101));
        let said = fault(&template).unwrap_or_default();
        assert!(said.contains("more than 100 deep"), "{open}: {said}");
    }
}

#[test]
fn one_rule_has_one_budget() {
    let limits = ExpressionLimits::default();
    let mut budget = Budget::new(&limits);
    let half = format!("{{{{ $x := 1 }}}}{}", "a".repeat(40_000));
    assert_eq!(budget.charge(&half), Ok(()));
    assert!(!budget.is_used_up());
    assert!(budget.charge(&half).is_err() && budget.is_used_up());
}

// Prometheus runs every label and annotation as a template, so each alert has its own copy of a text
// without actions, too.
#[test]
fn texts_without_actions_count_towards_the_budget_of_the_rule() {
    let limits = ExpressionLimits::default();
    let mut budget = Budget::new(&limits);
    let quarter = "a".repeat(16_000);
    for _ in 0..4 {
        assert_eq!(budget.charge(&quarter), Ok(()));
    }
    let refused = budget.charge("{{ $value }} {{ $labels.instance }}").unwrap_err();
    assert!(refused.reason.contains("labels and annotations of the rule"), "{refused:?}");
    assert!(budget.is_used_up());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(?s).{0,80}") {
        let _ = fault(&format!("{{{{{text}"));
    }

    #[test]
    fn nothing_like_a_template_makes_it_panic(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("{{"), Just("{{- "), Just("}}"), Just(" -}}"), Just("/*"), Just("*/"), Just("range "),
                Just("if "), Just("else "), Just("end"), Just("with "), Just("$x"), Just(" := "), Just(" = "),
                Just(", "), Just("query "), Just("\"up\""), Just("printf "), Just("\"%q%s%[2]*.3d\""), Just(" | "),
                Just("("), Just(")"), Just(".Labels"), Just("."), Just("$labels"), Just("'a'"), Just("`"),
                Just("\\"), Just("\""), Just("reReplaceAll "), Just("\"a{3}\""), Just("1e+5"), Just(" "), Just("é"),
                Just("define "), Just("break"), Just("\"\\x4\""),
            ],
            0..40,
        ),
    ) {
        let _ = fault(&parts.concat());
    }

    // However blocks and loops are put together: whatever repeats a text of its own is found out.
    #[test]
    fn doubling_is_found_wherever_it_stands(wraps in proptest::collection::vec(0usize..5, 25)) {
        let mut template = "{{ $x := \"ab\" }}".to_owned();
        for wrap in wraps {
            let double = ["{{ $x = print $x $x }}", "{{ $x = printf \"%s%s\" $x $x }}", "{{ $x = $x | print $x }}"][wrap % 3];
            let wrapped = match wrap {
                0 => double.to_owned(),
                1 => format!("{{{{ if $value }}}}{double}{{{{ end }}}}"),
                2 => format!("{{{{ with $labels.a }}}}{{{{ else }}}}{double}{{{{ end }}}}"),
                3 => format!("{{{{- /* a */ -}}}}{double}"),
                _ => format!("{{{{ if true }}}}{{{{ with 1 }}}}{double}{{{{ end }}}}{{{{ end }}}}"),
            };
            template += &wrapped;
        }
        prop_assert!(fault(&template).is_some());
    }
}
