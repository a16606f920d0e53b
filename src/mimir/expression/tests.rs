//! What is ordinary passes, what is not does not, and neither costs more than one step a byte.

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

// Each was seen to cost Mimir from seconds of a core to minutes.
#[test]
fn what_costs_mimir_more_than_linear_time_is_too_much() {
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
        (nested("max_over_time(", "x", "[5m:1m])", 6), Measure::Subqueries),
        (nested("max_over_time((", "x", ")[5m:])", 6), Measure::Subqueries),
        (nested("max_over_time(1+", "x", "[5m : 1m] @ 5 offset 5m)", 6), Measure::Subqueries),
        (nested("max_over_time(", "x", "[5m#]\n:1m])", 6), Measure::Subqueries),
        (nested("max_over_time(", "x", "[(5m + 1m) : (1m)])", 6), Measure::Subqueries),
        (format!("x{}", "[5m:1m]".repeat(6)), Measure::Subqueries),
        (format!("x{}", "[5m:1m] @ start() offset (-1m)".repeat(6)), Measure::Subqueries),
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

// Deep and long as they are, people and generators write these.
#[test]
fn what_people_write_passes() {
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
fn subqueries_beside_one_another_do_not_nest() {
    let one = "max_over_time(a[5m:1m])";
    assert_eq!(excess(&chain(one, "+", 50)), None);
    assert_eq!(excess(&format!("f({})", vec![one; 50].join(","))), None);
    let nested_five = nested("max_over_time(", "x", "[5m:1m])", 5);
    assert_eq!(excess(&chain(&nested_five, "+", 20)), None);
    // Also not where a recording rule's name has colons in it.
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

proptest! {
    #[test]
    fn no_bytes_make_the_scanner_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let limits = ExpressionLimits { operators: 50, depth: 250, ..ExpressionLimits::default() };
        let mut scanner = Scanner::new(&limits);
        let _ = bytes.iter().try_for_each(|byte| scanner.push(*byte)).and_then(|()| scanner.end());
    }

    // What is deeper than a limit is found whatever stands in between: the counts know strings and
    // comments in every quoting.
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

    // A limit that holds goes on holding when it is raised.
    #[test]
    fn higher_limits_refuse_nothing_more(expr in "[-+(){}\\[\\]:,a \"'#\\n]{0,200}") {
        let tight = ExpressionLimits { depth: 5, operators: 5, nested_terms: 50, subqueries: 1, bytes: 150 };
        if check(&expr, &tight).is_ok() {
            prop_assert_eq!(check(&expr, &ExpressionLimits::default()), Ok(()));
        }
    }
}
