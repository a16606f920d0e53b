//! An upper bound for the number of series of an expression, where it is obvious.

/// A larger N of `topk(N, …)` is not read.
const MOST_SERIES: u64 = 100;

/// Aggregations that give one series, without `by` and `without`.
const ONE: [&str; 9] =
    ["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar", "quantile"];

/// At most how many series the expression returns, if its outermost operation says so: `topk(5,
/// …)`, `bottomk`, `limitk` with a literal number, or an aggregation to one series; each without
/// `by` and `without`, which return as many for each group.
pub fn most_series(expr: &str) -> Option<u64> {
    let (name, rest) = expr.trim().split_once('(')?;
    let name = name.trim_end().to_ascii_lowercase();
    let inside = whole(rest)?;
    if ONE.contains(&name.as_str()) {
        return Some(1);
    }
    if !matches!(name.as_str(), "topk" | "bottomk" | "limitk") {
        return None;
    }
    let most = inside.split_once(',')?.0.trim();
    let is_plain = !most.is_empty() && most.bytes().all(|byte| byte.is_ascii_digit());
    most.parse().ok().filter(|most| is_plain && (1..=MOST_SERIES).contains(most))
}

/// The contents of a parenthesis that the last byte of the text closes, and none before.
fn whole(rest: &str) -> Option<&str> {
    let (mut depth, mut bytes) = (1_u32, rest.bytes().enumerate());
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            b'#' => return None,
            b'"' | b'\'' | b'`' => loop {
                match bytes.next()?.1 {
                    b'\\' if byte != b'`' => drop(bytes.next()?),
                    end if end == byte => break,
                    _ => {}
                }
            },
            _ => {}
        }
        if depth == 0 {
            return (at + 1 == rest.len()).then(|| &rest[..at]);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::most_series;

    #[test]
    fn the_outermost_operation_bounds_the_series() {
        for (expr, most) in [
            ("topk(5, up)", Some(5)),
            (" TopK ( 100 , rate(a{b=\"),(\"}[5m]) )\n", Some(100)),
            ("bottomk(1, up)", Some(1)),
            ("limitk(10, up)", Some(10)),
            ("sum(up)", Some(1)),
            ("quantile(0.9, up)", Some(1)),
            ("count(a{b='\\')'})", Some(1)),
            ("topk(101, up)", None),
            ("topk(0, up)", None),
            ("topk(-1, up)", None),
            ("topk(5 + 5, up)", None),
            ("topk(1e3, up)", None),
            ("topk(10e0, up)", None),
            ("topk(scalar(a), up)", None),
            ("topk(5, up) or up", None),
            ("topk(5, up) or (up)", None),
            ("topk(5, up) by (job)", None),
            ("topk by (job) (5, up)", None),
            ("topk(5, up) # )", None),
            ("sum(up) by (job)", None),
            ("sum by (job) (up)", None),
            ("sum without (job) (up)", None),
            ("count_values(\"a\", up)", None),
            ("up", None),
            ("(topk(5, up))", None),
            ("-topk(5, up)", None),
            ("topk(5, up", None),
            ("topk(5, a{b=\"c)", None),
            ("", None),
        ] {
            assert_eq!(most_series(expr), most, "{expr}");
        }
    }
}
