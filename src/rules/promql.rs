//! A first look at an expression by a parser of our own. It only warns: it knows an older `PromQL`
//! than Mimir and is wrong about some of what Mimir takes.

/// What the local parser says against an expression, if anything. Never a reason to refuse it.
pub fn warn(expr: &str) -> Option<String> {
    promql_parser::parser::parse(expr).err()
}
