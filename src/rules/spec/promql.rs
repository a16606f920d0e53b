//! Checks an expression with a local parser. It only warns, because it knows an older `PromQL` than Mimir
//! and refuses some expressions that Mimir accepts.
//!
//! The parser is recursive and quadratic (seen: 60 KB of parentheses overflow a thread's stack of 2 MiB,
//! which ends the process; 20 KB of `+1` take 5 seconds). So it gets only expressions of a size at which
//! neither can happen.

/// The longest expression that it gets. One of nothing but operators needs an eighth of a thread's 2 MiB
/// and some tens of milliseconds, without optimisation.
const MAX_BYTES: usize = 2_048;

/// The local parser's complaint, if any; none for a long expression. Never refuse an expression for it.
pub fn warn(expr: &str) -> Option<String> {
    if expr.len() > MAX_BYTES {
        return None;
    }
    promql_parser::parser::parse(expr).err()
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
