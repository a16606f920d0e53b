//! Ordinary expressions pass and expensive ones do not, in one step per byte.

use super::*;
use proptest::prelude::*;

fn excess(expr: &str) -> Option<Measure> {
    check(expr, &ExpressionLimits::default()).err().map(|excess| excess.measure)
}

fn nested(open: &str, inside: &str, close: &str, times: usize) -> String {
    format!("{}{inside}{}", open.repeat(times), close.repeat(times))
}

fn chain(operand: &str, operator: &str, times: usize) -> String {
    format!("{operand}{}", format!("{operator}{operand}").repeat(times))
}

// Each took Mimir between seconds and minutes of a core.
#[test]
fn expressions_of_more_than_linear_cost_exceed_a_limit() {
    for (expr, measure) in [
        (nested("(", "1", ")", 60_000), Measure::Depth),
        (nested("(", "1", ")", 101), Measure::Depth),
        (nested("( ", "1", "\n)", 101), Measure::Depth),
        (nested("abs(", "x", ")", 101), Measure::Depth),
        (nested("-", "x", "", 101), Measure::Depth),
        (nested("- + ", "x", "", 51), Measure::Depth),
        (nested("-(", "x", ")", 51), Measure::Depth),
        (nested("#)\n(", "x", ")", 101), Measure::Depth),
        (nested("label_replace(", "x", r#","a","$1","b","(.*)")"#, 101), Measure::Depth),
        (nested("(\"a)\"+", "x", ")", 101), Measure::Depth),
        (nested("('\\')' + ", "x", ")", 101), Measure::Depth),
        (nested("(`)\\` + ", "x", ")", 101), Measure::Depth),
        (nested("max_over_time(", "x", "[1m:1m])", 6), Measure::Subqueries),
        (nested("max_over_time((", "x", ")[1m:])", 6), Measure::Subqueries),
        (nested("max_over_time(1+", "x", "[1m : 1m] @ 5 offset 5m)", 6), Measure::Subqueries),
        (nested("max_over_time(", "x", "[1m#]\n:1m])", 6), Measure::Subqueries),
        (nested("max_over_time(", "x", "[(5m + 1m) : (1m)])", 6), Measure::SubqueryPoints),
        (format!("x{}", "[1m:1m]".repeat(6)), Measure::Subqueries),
        (format!("x{}", "[1m:1m] @ start() offset (-1m)".repeat(6)), Measure::Subqueries),
        (chain("a", "+", 401), Measure::Operators),
        (chain("a", " oR ", 401), Measure::Operators),
        (chain("a", "\nunless\n", 401), Measure::Operators),
        (chain("2", "^", 401), Measure::Operators),
        (chain("a", ">= bool -", 201), Measure::Operators),
        (format!("a{}", " offset 5m".repeat(401)), Measure::Operators),
        (format!("a{}", "@5".repeat(401)), Measure::Operators),
        (nested("abs(", &chain("a", " or ", 250), ")", 90), Measure::NestedTerms),
        (chain(&nested("abs(", "a", ")", 50), "+", 20), Measure::NestedTerms),
        (format!("a{{b=~\"{}\"}}", "x".repeat(256 << 10)), Measure::Bytes),
        (" ".repeat((256 << 10) + 1), Measure::Bytes),
    ] {
        let start: String = expr.chars().take(60).collect();
        assert_eq!(excess(&expr), Some(measure), "{start}…");
    }
}

// People and generators write expressions as deep and as long as these.
#[test]
fn ordinary_expressions_pass() {
    let by_instance = chain("a{job=\"b\", instance=~\"c.*\"}", " or ", 300);
    let deep = nested("label_replace(", "x", r#", "a", "$1", "b", "(.*)")"#, 50);
    let clamp = nested("(clamp_max(", "x", ", 5) - 1)", 40);
    let names = format!("{{__name__=~\"{}\"}}", vec!["metric_name_total"; 2_000].join("|"));
    for expr in [
        "up == 0",
        "",
        "sum by (job) (rate(http_requests_total{code=~\"5..\"}[5m])) / 2 > 0.1",
        "max_over_time(deriv(rate(a[5m])[30m:1m])[1h:5m])",
        "rate(a[5m:1m]) + rate(a[5m:1m]) + rate(a[5m:1m]) + rate(a[5m:]) + rate(a[5m:]) + rate(a[5m:])",
        "a{b=\"((((\"} # ((((\n and on (c) b offset -5m @ -1e-5",
        "a:b:c{d='}', e!~`\"`}",
        &by_instance,
        &deep,
        &clamp,
        &names,
    ] {
        assert_eq!(check(expr, &ExpressionLimits::default()), Ok(()), "{expr:.80}");
    }
}

#[test]
fn adjacent_subqueries_do_not_nest() {
    let one = "max_over_time(a[5m:1m])";
    assert_eq!(excess(&chain(one, "+", 50)), None);
    assert_eq!(excess(&format!("f({})", vec![one; 50].join(","))), None);
    let nested_five = nested("max_over_time(", "x", "[5m:1m])", 5);
    assert_eq!(excess(&chain(&nested_five, "+", 20)), None);
    // Also after a recording rule's name with colons in it.
    assert_eq!(excess(&nested("abs(", "a:b:c[5m]", ")", 50)), None);
}

#[test]
fn an_excess_says_which_limit_and_where() {
    let deep = nested("(", "1", ")", 101);
    let excess = check(&deep, &ExpressionLimits::default()).unwrap_err();
    assert_eq!(excess, Excess { measure: Measure::Depth, most: 100, at: 101 });
    let said = "nests parentheses, braces or signs more than 100 deep (limits.expression_depth)";
    assert_eq!(excess.to_string(), said);
}

// 565 bytes expanded to a text of more than 16 MiB, at which Mimir exits.
#[test]
fn multiplied_texts_exceed_a_limit() {
    let ten = "${1}".repeat(10);
    let grown = |replacement: &str, times| {
        nested(
            "label_replace(",
            "vector(1)",
            &format!(",\"a\",{replacement},\"a\",\"(.*)\")"),
            times,
        )
    };
    let joined = nested("label_join(", "x", r#","a","-","a","b","c")"#, 5);
    let long = "x".repeat(30_000);
    for expr in [
        format!("count({})", grown(&format!("\"{ten}\""), 7)),
        grown(&format!("\"{ten}\""), 2),
        grown(&format!("'{ten}'"), 2),
        grown(&format!("`{ten}`"), 2),
        grown(&format!("((\"{ten}\"))"), 2),
        grown(&format!("\"{}\"", r"\x24{1}".repeat(10)), 2),
        grown(&format!("\"{}\"", r"\044{1}".repeat(10)), 2),
        grown(&format!("\"{}\"", r"\u0024{1}".repeat(10)), 2),
        grown(&format!("\"{}\"", r"\U00000024{1}".repeat(10)), 2),
        grown(&format!("\"{ten}\""), 2).replace("label_replace(", "label_replace # (\n ("),
        nested(
            "label_replace((0 + ",
            "vector(1)",
            &format!("),\"a\",\"{ten}\",\"a\",\"(.*)\")"),
            2,
        ),
        grown(&format!("\"{}\"", "$1".repeat(65)), 1),
        grown("\"$1$1\"", 6),
        joined.clone(),
        format!("sum(1 + {joined}) by (x)"),
        grown(&format!("\"{ten}\""), 1)
            .replace("vector(1)", &format!("label_join(x,\"a\",\"\",{})", ["\"a\""; 10].join(","))),
        format!("label_join(x,\"a\",\"{long}\",\"a\",\"a\",\"a\",\"a\",\"a\")"),
        grown(&format!("\"$1$1{long}\""), 3),
        grown("\"$1$1$1$1$1\"", 1).replace("vector(1)", &format!("absent({{a=\"{long}\"}})")),
        nested("label_replace(", "x", r#", "a", "$1", "b", "(.*)")"#, 70),
    ] {
        let start: String = expr.chars().take(120).collect();
        assert_eq!(excess(&expr), Some(Measure::LabelBytes), "{start}…");
    }
    let replaced = r#"label_replace(up{job="a"}, "pod", "$1-$2", "instance", "^(.*):([0-9]+)$")"#;
    for expr in [
        r#"label_replace(kube_pod_info, "node", "$1", "instance", "(.*)")"#.to_owned(),
        chain(replaced, " or ", 50),
        nested("label_replace(", "x", r#", "a", "$1-$2", "b", "(.*)-(.*)")"#, 4),
        r#"label_join(x, "key", "/", "cluster", "namespace", "workload", "pod", "container")"#
            .to_owned(),
        format!("label_join({replaced}, \"key\", \"/\", \"a\", \"b\", \"c\")"),
        // Patterns end in `$`, and matchers have texts of their own.
        nested("label_replace(", "x{y=~\"$$$$\"}", r#", "a", "$1", "b", "^(.*)$")"#, 20),
    ] {
        assert_eq!(check(&expr, &ExpressionLimits::default()), Ok(()), "{expr:.120}");
    }
    let said = check(&joined, &ExpressionLimits::default()).unwrap_err().to_string();
    assert!(said.contains("label_replace and label_join"), "{said}");
}

// 40 bytes took 280 MB, and 55 more than a minute.
#[test]
fn subqueries_are_counted_by_their_points() {
    for expr in [
        "count_over_time(vector(1)[5h:1ms])",
        "count_over_time(vector(1)[ 5h : 1ms ])",
        "count_over_time(vector(1)[5h#]\n:1ms])",
        "count_over_time(vector(1)[18000:0.001])",
        "count_over_time(vector(1)[--5h:+1ms])",
        "count_over_time(vector(1)[1y:1m])",
        "count_over_time(vector(1)[1y:])",
        // A range query evaluates them for a day, whatever their own range is.
        "count_over_time(vector(1)[1s:1ms])",
        "sum_over_time(sum_over_time(vector(1)[24h:1s])[24h:1s])",
        "sum_over_time((1 + abs(-sum_over_time(vector(1)[1h:1s])))[1h:1s])",
        "sum_over_time(sum(sum_over_time(x[1h:1s])) by (a)[1h:1s] offset 5m)",
        "x[1h:1s] @ 5 offset 5m [1h:1s]",
        "max_over_time((a[2h:1m] + b[5h:1s])[1h:1m])",
        "a[1d:1s] + a[1d:1s] + a[1d:1s] + a[1d:1s] + a[1d:1s] + a[1d:1s]",
        "f(a[1d:1s], a[1d:1s], a[1d:1s], a[1d:1s], (a[1d:1s]), a[1d:1s])",
        // Mimir accepts these.
        "count_over_time(vector(1)[(5h):1m])",
        "count_over_time(vector(1)[5h*100:1m])",
        "count_over_time(vector(1)[max(5h,1y):1m])",
        "count_over_time(vector(1)[5h:step()])",
        "count_over_time(vector(1)[3e9:0x1])",
        "count_over_time(vector(1)[1_000_000:1])",
    ] {
        assert_eq!(excess(expr), Some(Measure::SubqueryPoints), "{expr}");
    }
    for expr in [
        "max_over_time(deriv(rate(a[5m])[30m:1m])[1h:5m])",
        "quantile_over_time(0.99, rate(a[5m])[1d:1m])",
        "max_over_time(sum(rate(a[5m]))[7d:1m]) + avg_over_time(b[30d:5m])",
        "max_over_time(rate(a[1m])[10m:1s])",
        "avg_over_time(max_over_time(a[1h:1m])[1d:5m])",
        "rate(a[(5m + 1m)]) + rate(a[step()]) offset (5m * 2)",
    ] {
        assert_eq!(check(expr, &ExpressionLimits::default()), Ok(()), "{expr}");
    }
}

// 7 KB took 200 MB, 21 KB a gigabyte.
#[test]
fn counted_repetitions_are_written_out() {
    let many = ".{1000}".repeat(1_000);
    for expr in [
        format!("count({{a=~\"{many}\"}})"),
        format!("{{a!~'{many}'}}"),
        format!("{{a=~`{many}`}}"),
        format!("{{a=~\"{}\"}}", r".\x7b1000}".repeat(40)),
        format!("{{a=~\"{}\"}}", r".{\061000}".repeat(40)),
        format!("label_replace(x,\"a\",\"$1\",\"b\",\"{many}\")"),
        format!("label_replace(x,\"a\",\"$1\",\"b\",(\"{many}\"))"),
        format!("{{{}}}", vec!["a=~\".{1000}\""; 40].join(",")),
        chain("{a=~\".{1000}\"}", " or ", 40),
        "{a=~\"((a{10}){10}b{9}){10}\"}".replace("10", "90"),
        format!("{{a=~\"{}\"}}", r"\\pL".repeat(300)),
    ] {
        let start: String = expr.chars().take(80).collect();
        assert_eq!(excess(&expr), Some(Measure::Patterns), "{start}…");
    }
    for expr in [
        r#"{a=~"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}"}"#,
        r#"{ip=~"([0-9]{1,3}\\.){3}[0-9]{1,3}", pod=~".*-[a-z0-9]{8,10}-[a-z0-9]{5}"}"#,
        r#"label_replace(x, "a", "$1", "pod", "(.+)-[^-]{5,10}-[^-]{5}")"#,
    ] {
        assert_eq!(check(expr, &ExpressionLimits::default()), Ok(()), "{expr}");
        assert_eq!(excess(&chain(expr, " or ", 20)), None, "{expr}");
    }
}

// 131 KB took 17 GB, in a call that no timeout ends.
#[test]
fn groups_that_capture_are_bounded() {
    let many = "(.?)".repeat(1_000);
    for expr in [
        format!("label_replace(vector(1),\"a\",\"\",\"b\",\"{many}\")"),
        format!("label_replace(x,\"a\",\"\",\"b\",(`{many}`))"),
        format!("label_replace(x,\"a\",\"\",\"b\",\"{}\")", r"\x28.?)".repeat(1_000)),
        format!("label_replace(x,\"a\",\"\",\"b\",\"{}\")", "(?P<a>.?)".repeat(1_000)),
        format!("{{a=~\"{}\"}}", "(.?)".repeat(1_100)),
        chain(&format!("{{a=~\"{}\"}}", "(.?)".repeat(200)), " or ", 40),
        chain(&format!("label_replace(x,\"a\",\"\",\"b\",\"{}\")", "(.?)".repeat(100)), " or ", 20),
    ] {
        let start: String = expr.chars().take(80).collect();
        assert_eq!(excess(&expr), Some(Measure::Captures), "{start}…");
    }
    let words = "name-of-a-host|".repeat(5_000);
    for expr in [
        format!("{{a=~\"({words})\"}}"),
        format!("{{a=~\"({words}(x|y))\"}}"),
        format!("{{a=~\"{}\"}}", "(?:a|b)".repeat(2_000)),
        // As Grafana writes values with parentheses.
        format!("{{a=~\"({})\"}}", r"Gi1/0/1 \\(uplink\\)|".repeat(2_000)),
        format!("{{a=~\"{}\"}}", "(host-001)|".repeat(500)),
        chain("label_replace(x, \"a\", \"$1:$2\", \"b\", \"(.+):(.+)\")", " or ", 100),
    ] {
        assert_eq!(excess(&expr), None, "{}", &expr[..80]);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_scanner_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let limits = ExpressionLimits { operators: 50, depth: 250, ..ExpressionLimits::default() };
        let mut scanner = Scanner::new(&limits);
        let _ = bytes.iter().try_for_each(|byte| scanner.push(*byte)).and_then(|()| scanner.end());
    }

    // Depth above a limit is found whatever stands between the parentheses: the scanner knows
    // strings and comments in every quoting.
    #[test]
    fn nothing_between_parentheses_hides_them(
        noise in proptest::collection::vec(
            prop_oneof![
                Just("\")\"+".to_owned()), Just("')\\''+".to_owned()), Just("`)\\`+".to_owned()),
                Just("# ) \" ' `\n".to_owned()), Just("a{b=\")\"}+".to_owned()), Just("[5m:1m]+".to_owned()),
                "[a-z]{0,3} ?\\+", Just(" ".to_owned()),
            ],
            101,
        ),
    ) {
        let expr: String = noise.iter().flat_map(|noise| ["(", noise]).collect();
        let limits = ExpressionLimits { bytes: 1 << 20, ..ExpressionLimits::default() };
        let measure = check(&expr, &limits).map_err(|excess| excess.measure);
        prop_assert_eq!(measure, Err(Measure::Depth));
    }

    // An expression within a limit is also within a higher one.
    #[test]
    fn higher_limits_refuse_nothing_more(expr in "[-+(){}\\[\\]:,a \"'#\\n]{0,200}") {
        let tight = ExpressionLimits { depth: 5, operators: 5, nested_terms: 50, subqueries: 1, bytes: 150, subquery_points: 100, label_bytes: 4_096, count: 1 };
        if check(&expr, &tight).is_ok() {
            prop_assert_eq!(check(&expr, &ExpressionLimits::default()), Ok(()));
        }
    }
}

// Found by fuzzing: each counted the text once more, twice as much as before.
#[test]
fn parentheses_that_close_nothing_count_no_text_twice() {
    let expr = format!("\"$1 $2\"{}\"a\"", ")".repeat(300));
    assert!(check(&expr, &ExpressionLimits::default()).is_ok());
}
