//! Checks and compares expressions with a local parser. It only warns, because it knows an older `PromQL` than Mimir
//! and refuses some expressions that Mimir accepts.
//!
//! The parser is recursive and quadratic (seen: 60 KB of parentheses overflow a thread's stack of 2 MiB,
//! which ends the process; 20 KB of `+1` take 5 seconds). So it gets only expressions of a size at which
//! neither can happen. It also panics at a duration, or a sum of durations, beyond 2^64 seconds: such an
//! expression counts as one that it cannot read.

use promql_parser::parser::Expr;

/// The longest expression that it gets. One of nothing but operators needs an eighth of a thread's 2 MiB
/// and some tens of milliseconds, without optimisation.
const MAX_BYTES: usize = 2_048;

/// The most digits in a row that it gets: so many years are less than 2^64 seconds. A sum can still be
/// more, which only its panic tells.
const MAX_DIGITS: usize = 11;

/// The local parser's complaint, if any; none for an expression that it does not get. Never refuse one for it.
pub fn warn(expr: &str) -> Option<String> {
    parse(&Plain::of(expr)?.expr).err()
}

/// Whether both are certainly one expression. Two that it cannot read, or that are long, may still be.
pub(crate) fn are_same(one: &str, other: &str) -> bool {
    let (Some(one), Some(other)) = (Plain::of(one), Plain::of(other)) else { return false };
    if one.operators != other.operators || one.has_byte_escape() || other.has_byte_escape() {
        return false;
    }
    let Ok(one) = parse(&one.expr) else { return false };
    parse(&other.expr).is_ok_and(|other| one == other)
}

/// An expression that the local parser can be given. Instead of patterns it has plain values: the parser compiles
/// patterns without a bound (157 times `.{9999}` fit 2 KB and take more than a gigabyte), and by another syntax than
/// Prometheus'.
struct Plain {
    expr: String,
    /// What was replaced, and between what: one for each `=` and each operator of a pattern.
    operators: Vec<Operator>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    /// `=`, or a part of `==`, `!=`, `>=`, `<=`.
    Equals,
    Matches,
    MatchesNot,
}

impl Plain {
    /// None if it is too long, or if it may still have a pattern.
    fn of(expr: &str) -> Option<Self> {
        if expr.len() > MAX_BYTES {
            return None;
        }
        let mut plain = Self { expr: String::with_capacity(expr.len()), operators: Vec::new() };
        let mut rest = expr;
        while let Some(at) = rest.find(['"', '\'', '`', '#', '=', '!']) {
            let (before, found) = rest.split_at(at);
            plain.expr.push_str(before);
            rest = if found.starts_with('#') {
                plain.take(found, found.find(['\n', '\r']).unwrap_or(found.len()))
            } else if found.starts_with(['"', '\'', '`']) {
                plain.take(found, string_length(found))
            } else {
                plain.operator(found)
            };
        }
        plain.expr.push_str(rest);
        let has_pattern = plain.expr.contains("=~") || plain.expr.contains("!~");
        (!has_pattern).then_some(plain)
    }

    /// Whether it may have an escape that is a byte to Prometheus, and a character to the local parser: `\xc3`, `\303`.
    fn has_byte_escape(&self) -> bool {
        let is_byte = |escape: &str| escape.starts_with(|c: char| c == 'x' || c.is_ascii_digit());
        self.expr.split('\\').skip(1).any(is_byte)
    }

    /// Takes the beginning of a text as it is, and returns the rest.
    fn take<'a>(&mut self, text: &'a str, length: usize) -> &'a str {
        let (taken, rest) = text.split_at(length);
        self.expr.push_str(taken);
        rest
    }

    /// Takes the `=` or `!` that a text begins with, and returns the rest. What stands in place of an operator is as
    /// long: complaints tell positions. A matcher with an empty pattern still matches what it matched.
    fn operator<'a>(&mut self, text: &'a str) -> &'a str {
        let (operator, rest) = match (text.strip_prefix("=~"), text.strip_prefix("!~")) {
            (Some(rest), _) => (Operator::Matches, rest),
            (_, Some(rest)) => (Operator::MatchesNot, rest),
            _ => {
                if text.starts_with('=') {
                    self.operators.push(Operator::Equals);
                }
                return self.take(text, 1);
            }
        };
        self.operators.push(operator);
        let is_empty =
            ["\"\"", "''", "``"].iter().any(|empty| rest.trim_start().starts_with(empty));
        let is_not = operator == Operator::MatchesNot && is_empty;
        self.expr.push_str(if is_not { "!=" } else { "= " });
        rest
    }
}

/// The length of the string that a text begins with; of one without an end, the text's.
fn string_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            // The local parser knows escapes in raw strings, too.
            b'\\' => at += 2,
            byte if byte == bytes[0] => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

fn parse(expr: &str) -> Result<Expr, String> {
    let unreadable = || Err("the local parser cannot read it".to_owned());
    let mut digits = expr.split(|letter: char| !letter.is_ascii_digit());
    if digits.any(|digits| digits.len() > MAX_DIGITS) {
        return unreadable();
    }
    std::panic::catch_unwind(|| promql_parser::parser::parse(expr)).unwrap_or_else(|_| unreadable())
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
    fn patterns_are_not_compiled() {
        for pattern in [r"`\w{150}`", "\".{9999}\"", "'.{ 1000 }'", "\".{1,20000}\"", "\"(\""] {
            for operator in ["=~", "!~", "=~ ", "!~\n"] {
                let matcher = format!("a{operator}{pattern}");
                let most = (MAX_BYTES - 16) / (matcher.len() + 1);
                let heavy = format!("x{{b=\"\",{}}} > 1", vec![matcher; most].join(","));
                let plain = Plain::of(&heavy).unwrap();
                assert!(!plain.expr.contains('~') && plain.expr.len() == heavy.len(), "{heavy}");
                assert!(warn(&heavy).is_none_or(|told| told.contains("escape")), "{heavy}");
            }
        }
        // What looks like a pattern in a text may be one to the parser.
        for unclear in ["label_replace(a, \"b\", \"=~\", \"c\", \"d\")", "a # b=~c", "a # b!~c"] {
            assert!(Plain::of(unclear).is_none(), "{unclear}");
            assert!(!are_same(unclear, unclear) && warn(unclear).is_none(), "{unclear}");
        }
        assert!(!Plain::of("a{b=~~\"c\"}").unwrap().expr.contains("=~"));
        assert!(warn("x{a=~\"b\"} > > 1").is_some());
    }

    #[test]
    fn promql_is_let_be() {
        for expr in [
            "up == 0",
            "sum by (job) (rate(http_requests_total{code=~\"5..\"}[5m])) / 2 > 0.1",
            "up{job!~\"a|\"}",
            "up{job!~\"\"} == 0",
            "{job!~ ''} == 0",
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
            ("sum(a{b=~'c.*',d!~\"e\"}) by (f)>1", "sum by (f) (a{b=~\"c.*\",d!~\"e\"}) > 1"),
        ] {
            assert!(are_same(one, other), "{one}");
        }
        for (one, other) in [
            ("up == 0", "up == 1"),
            ("up == 0", "up != 0"),
            ("a{b=~\"c\"}", "a{b=\"c\"}"),
            ("a{b=~\"c\"}", "a{b!~\"c\"}"),
            ("a{b=~\"c\",d=\"e\"}", "a{b=\"c\",d=~\"e\"}"),
            ("a{b=~\"c\"} == b", "a{b=~\"d\"} == b"),
            ("a{b=~\"c\"} > b{b=\"c\"}", "a{b=\"c\"} > b{b=~\"c\"}"),
            ("sum by (job) (a)", "sum without (job) (a)"),
            ("a[", "a["),
            ("a{b=~\"\u{c3}\u{a9}\"}", "a{b=~\"\\xc3\\xa9\"}"),
            ("a{b=\"\u{c3}\u{a9}\"}", "a{b=\"\\303\\251\"}"),
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
