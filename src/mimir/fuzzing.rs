//! What must be true of every form, expression and silence.

use http::{HeaderMap, HeaderValue, header};
use serde_json::Value;

use super::expression::{self, ExpressionLimits, Measure};
use super::form::{FormScanner, check_query, is_readable};
use super::silence::Silence;
use crate::fuzzing::{broken, fields, pieces};

const LIMITS: ExpressionLimits = ExpressionLimits {
    bytes: 300,
    depth: 6,
    subqueries: 2,
    operators: 12,
    nested_terms: 60,
    subquery_points: 5_000,
    count: 5,
    label_bytes: 4_096,
};

/// Lengths of pieces, a content type and a form. However it is cut, the verdict is the same; and every
/// expression that a reader finds in a form that passes is within the limits.
pub fn form(data: &[u8]) {
    let [lengths, content_type, form] = fields(data);
    let mut scanner = FormScanner::new(&LIMITS);
    let whole = scanner.push(form).and_then(|()| scanner.end());
    let mut scanner = FormScanner::new(&LIMITS);
    let mut cut = pieces(form, lengths).into_iter();
    let cut = cut.try_for_each(|piece| scanner.push(piece)).and_then(|()| scanner.end());
    assert_eq!(whole, cut);
    if let Ok(text) = std::str::from_utf8(form) {
        assert_eq!(check_query(text, &LIMITS), whole);
    }
    if whole.is_ok() {
        for (name, value) in url::form_urlencoded::parse(form) {
            if matches!(&*name, "query" | "match[]" | "selector") && !value.contains('\u{fffd}') {
                assert_eq!(expression::check(&value, &LIMITS), Ok(()), "{name}={value}");
            }
        }
    }
    if let Ok(value) = HeaderValue::from_bytes(content_type) {
        let headers: HeaderMap = [(header::CONTENT_TYPE, value)].into_iter().collect();
        let lower = String::from_utf8_lossy(content_type).to_lowercase();
        assert!(!is_readable(&headers) || !lower.contains("multipart"));
    }
}

/// An expression. What passes is within what a plain count says, at every place where it may end.
pub fn expression(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for limits in [LIMITS, ExpressionLimits::default(), ExpressionLimits::default().in_rules()] {
        match expression::check(text, &limits) {
            Ok(()) => {
                assert!(text.len() <= limits.bytes);
                // Without texts, comments and escapes the depth is what anybody counts.
                if !text.contains(['"', '\'', '`', '#', '\\']) {
                    assert!(deepest(text) <= limits.depth, "{text:?}");
                }
            }
            Err(excess) => {
                assert!(excess.at <= text.len() && !excess.to_string().is_empty());
                assert!(excess.measure != Measure::Bytes || text.len() > limits.bytes);
            }
        }
    }
}

/// How deep brackets nest, as far as Prometheus reads: its lexer stops at a bracket within braces and at one that
/// opens within `[`, but for parentheses; its grammar at one that closes another kind or nothing.
fn deepest(text: &str) -> usize {
    let mut open = Vec::new();
    let mut deepest = 0;
    for byte in text.bytes() {
        match (open.last(), byte) {
            (Some(b'{'), b'(' | b'[' | b'{') | (Some(b'['), b'[' | b'{') => break,
            (_, b'(' | b'[' | b'{') => open.push(byte),
            (Some(b'('), b')') | (Some(b'['), b']') | (Some(b'{'), b'}') => {
                open.pop();
            }
            (_, b')' | b']' | b'}') => break,
            _ => {}
        }
        deepest = deepest.max(open.len());
    }
    deepest
}

/// A silence as it is posted. What is sent on has one author by any spelling that Go takes for the field.
pub fn silence(data: &[u8]) {
    let Ok(silence) = Silence::parse(data) else { return };
    let end = silence.ends_at().map(str::to_owned);
    let sent = silence.by("the author");
    let Ok(Value::Object(sent)) = serde_json::from_slice::<Value>(&sent) else {
        broken("what is sent is no object")
    };
    let folded = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    let fold = |name: &str| name.chars().map(folded).collect::<String>();
    let authors: Vec<&Value> =
        sent.iter().filter(|(name, _)| fold(name) == "createdby").map(|(_, value)| value).collect();
    assert_eq!(authors, [&Value::from("the author")]);
    assert_eq!(sent.get("endsAt").and_then(Value::as_str), end.as_deref());
}
