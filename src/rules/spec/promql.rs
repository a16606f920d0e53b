//! Checks and compares expressions with a local parser. It only warns, because it knows an older `PromQL` than Mimir
//! and refuses some expressions that Mimir accepts.
//!
//! The parser is recursive and quadratic (seen: 60 KB of parentheses overflow a thread's stack of 2 MiB,
//! which ends the process; 20 KB of `+1` take 5 seconds). So it gets only expressions of a size at which
//! neither can happen. It also panics at a duration, or a sum of durations, beyond 2^64 seconds: such an
//! expression counts as one that it cannot read.

use promql_parser::parser::Expr;

use crate::mimir::expression::Pattern;

/// The longest expression that it gets. One of nothing but operators needs an eighth of a thread's 2 MiB
/// and some tens of milliseconds, without optimisation.
const MAX_BYTES: usize = 2_048;

/// The most digits in a row that it gets: so many years are less than 2^64 seconds. A sum can still be
/// more, which only its panic tells.
const MAX_DIGITS: usize = 11;

/// The local parser's complaint, if any; none for an expression that it does not get. Never refuse one for it.
pub fn warn(expr: &str) -> Option<String> {
    if expr.len() > MAX_BYTES || (has_pattern(expr) && is_costly(expr)) {
        return None;
    }
    parse(expr).err()
}

fn has_pattern(expr: &str) -> bool {
    expr.contains("=~") || expr.contains("!~")
}

/// Whether patterns may take the parser long: it compiles them, and a `\w` takes 45 KB, a counted repetition as much
/// as if it were written out.
fn is_costly(expr: &str) -> bool {
    const MOST_WEIGHT: u64 = 2 * MAX_BYTES as u64;
    expr.contains('\\') || Pattern::weight(expr) > MOST_WEIGHT
}

fn parse(expr: &str) -> Result<Expr, String> {
    let unreadable = || Err("the local parser cannot read it".to_owned());
    let mut digits = expr.split(|letter: char| !letter.is_ascii_digit());
    if digits.any(|digits| digits.len() > MAX_DIGITS) {
        return unreadable();
    }
    std::panic::catch_unwind(|| promql_parser::parser::parse(expr)).unwrap_or_else(|_| unreadable())
}

/// Whether both are certainly one expression. Two that it cannot read, or that are long, may still be; and those
/// with patterns: 2 KB of `\w{150}` would take gigabytes.
pub(crate) fn are_same(one: &str, other: &str) -> bool {
    if one.len().max(other.len()) > MAX_BYTES || has_pattern(one) || has_pattern(other) {
        return false;
    }
    let Ok(one) = parse(one) else { return false };
    parse(other).is_ok_and(|other| one == other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_promql_is_told() {
        for (expr, told) in [
            ("sum(rate(a[5m])", "unclosed left parenthesis"),
            ("", "no expression found in input"),
            ("rate(a)", "expected type matrix in call to function 'rate', got vector"),
        ] {
            assert_eq!(warn(expr).as_deref(), Some(told), "{expr}");
        }
        assert!(warn("a > > 1").is_some());
    }

    // One row of 2 KB would take gigabytes: the parser compiles each pattern twice.
    #[test]
    fn patterns_are_not_compiled_without_a_bound() {
        let heavy = format!("x{{{}}} > 1", vec![r"a=~`\w{150}`"; 140].join(","));
        assert!(heavy.len() <= MAX_BYTES);
        assert!(!are_same(&heavy, &format!("{heavy} ")));
        assert_eq!(warn(&heavy), None);
        assert_eq!(warn(&format!("x{{a=~\"{}\"}}", "b{1000}".repeat(40))), None);
        assert!(warn("x{a=~\"b\"} > > 1").is_some());
        assert!(are_same("up==0", "up == 0") && !are_same("up==0", "up == 1"));
    }

    #[test]
    fn promql_is_let_be() {
        for expr in [
            "up == 0",
            "sum by (job) (rate(http_requests_total{code=~\"5..\"}[5m])) / 2 > 0.1",
            "histogram_quantile(0.99, sum by (le) (rate(a_bucket[5m]))) > 1 # a comment",
            "absent(up{job=\"x\"}) or\n  vector(1)",
        ] {
            assert_eq!(warn(expr), None, "{expr}");
        }
    }

    #[test]
    fn expressions_are_compared_by_what_they_mean() {
        for (one, other) in [
            ("sum(rate(a[60s])) by (job)>1", "sum by (job) (rate(a[1m])) > 1"),
            ("up{job='x'} == 0 # down", "up{job=\"x\"} == 0"),
        ] {
            assert!(are_same(one, other), "{one}");
        }
        for (one, other) in [
            ("up == 0", "up == 1"),
            ("up == 0", "up != 0"),
            ("sum by (job) (a)", "sum without (job) (a)"),
            ("a[", "a["),
        ] {
            assert!(!are_same(one, other), "{one}");
        }
    }

    // Found by fuzzing.
    #[test]
    fn a_duration_that_breaks_the_parser_breaks_nothing_else() {
        for expr in [
            "a[999999999999999999y]",
            "a[5222222222222222222222222222222222222s]",
            "a offset 9999999999999y",
        ] {
            assert!(!are_same(expr, expr), "{expr}");
            assert!(warn(expr).is_some(), "{expr}");
        }
        let sum = format!("a[{}]", "999999999y".repeat(200));
        assert!(!are_same(&sum, &sum));
    }

    // The parser would end the process: a stack that overflows cannot be caught.
    #[test]
    fn deep_expressions_do_not_overflow_the_stack_of_a_worker() {
        let deep = [("(", ")"), ("-", ""), ("sum(", ")"), ("abs(", ")"), ("1+", ""), ("1^", "")];
        let look = move || {
            for (open, close) in deep {
                for bytes in [MAX_BYTES, 64 * 1024] {
                    let times = (bytes - 1) / (open.len() + close.len());
                    let _ = warn(&format!("{}1{}", open.repeat(times), close.repeat(times)));
                }
            }
        };
        std::thread::Builder::new().stack_size(1 << 20).spawn(look).unwrap().join().unwrap();
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(?s).{0,60}") {
            let _ = warn(&text);
        }

        #[test]
        fn nothing_like_promql_makes_the_parser_panic(
            parts in proptest::collection::vec(
                prop_oneof![
                    "[a-z_:]{1,3}", "[0-9.]{1,4}", "[0-9]{1,20}(ms|s|m|h|d|w|y)", "[0-9]e[-+]?[0-9]{1,4}", "0x[0-9a-f]{1,20}",
                    "\"[^\"]{0,3}\"", "\"\\\\(x[0-9]{2}|u[0-9a-f]{4}|[0-7]{3}|.)\"", "[(){}\\[\\],:@=!~<>+*/%^-]", "(=|!=|=~|!~|==|>=|bool|offset|by|without|on|ignoring|group_left|sum|rate|topk|count_values|and|or|unless|start|end|inf|nan|atan2)", " ",
                ],
                0..25,
            ),
        ) {
            let _ = warn(&parts.concat());
        }
    }
}
