//! `printf`, which can turn few bytes into many: `%1000000d`.

use std::rc::Rc;

use super::cost::{Shape, Value};
use crate::mimir::expression::{ExpressionLimits, Scanner};

/// The largest width and precision.
const MOST_WIDTH: u64 = 100;
/// The longest number, by `%f`.
const WIDEST_NUMBER: u64 = 340;
/// What `fmt` prints besides an argument that does not fit its verb.
const COMPLAINT: u64 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verb {
    letter: char,
    /// There is nothing between `%` and the verb.
    is_plain: bool,
    /// The sum of width and precision.
    padding: u64,
}

/// The longest result of `printf`.
pub(super) fn printf(arguments: &[Value]) -> Result<Value, String> {
    let Some((format, rest)) = arguments.split_first() else {
        return Err("\"printf\" needs a format".to_owned());
    };
    let Some(format) = &format.constant else {
        return Err("a format must be a string in the template".to_owned());
    };
    // By its index, any verb may take any argument.
    let longest = rest.iter().map(|argument| argument.bytes).max().unwrap_or(0);
    let is_indexed = format.contains("%[");
    let mut bytes = format.len() as u64;
    let mut template = Template::new();
    let mut arguments = rest.iter();
    for part in parts(format) {
        match part? {
            Part::Text(text) => template.text(text),
            Part::Verb(verb) => {
                let argument = arguments.next();
                let own = if is_indexed { longest } else { argument.map_or(0, |own| own.bytes) };
                // `% #x` writes five bytes for each, `%+q` at most as many.
                let written =
                    own.saturating_mul(if matches!(verb.letter, 's' | 'v' | 'd') { 1 } else { 5 });
                bytes = bytes
                    .saturating_add(written)
                    .saturating_add(verb.padding)
                    .saturating_add(WIDEST_NUMBER + COMPLAINT);
                template.verb(verb, argument, is_indexed);
            }
        }
    }
    // Extra arguments are printed, too.
    for extra in arguments {
        bytes = bytes.saturating_add(extra.bytes).saturating_add(COMPLAINT);
        template.expression = None;
    }
    Ok(Value { expression: template.expression.map(Rc::from), ..Value::text(bytes) })
}

/// Stands for a number. It is one for the lexer, but not in a duration or `topk(N, …)`, where its size
/// would matter.
const SOME_NUMBER: &str = "0e0";

/// The format with constants for what cannot change the structure of an expression: `%q` writes one
/// `PromQL` string, if it is not inside of a string itself, and a number is a number.
struct Template {
    expression: Option<String>,
    scanner: Scanner,
}

impl Template {
    fn new() -> Self {
        // This only finds the strings.
        let limits = ExpressionLimits {
            bytes: usize::MAX,
            depth: usize::MAX,
            subqueries: usize::MAX,
            operators: usize::MAX,
            nested_terms: usize::MAX,
            subquery_points: usize::MAX,
            count: 1,
            label_bytes: usize::MAX,
        };
        Self { expression: Some(String::new()), scanner: Scanner::new(&limits) }
    }

    fn text(&mut self, text: &str) {
        if let Some(expression) = &mut self.expression {
            expression.push_str(text);
        }
        for byte in text.bytes() {
            let _ = self.scanner.push(byte);
        }
    }

    fn verb(&mut self, verb: Verb, argument: Option<&Value>, is_indexed: bool) {
        let is_safe = verb.is_plain && !is_indexed && self.scanner.is_outside_strings();
        let shape = argument.map(|argument| argument.shape);
        match (verb.letter, shape, argument.and_then(|argument| argument.constant.as_deref())) {
            ('q', Some(Shape::Text), _) if is_safe => self.text("\"\""),
            ('s' | 'v', _, Some(constant)) if verb.is_plain && !is_indexed => {
                let constant = constant.to_owned();
                self.text(&constant);
            }
            ('v' | 'd' | 'f' | 'g' | 'e', Some(Shape::Number), _) if !is_indexed => {
                self.text(SOME_NUMBER);
            }
            _ => self.expression = None,
        }
    }
}

enum Part<'a> {
    Text(&'a str),
    Verb(Verb),
}

fn parts(format: &str) -> impl Iterator<Item = Result<Part<'_>, String>> {
    let mut rest = format;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some(after) = rest.strip_prefix('%') else {
            let end = rest.find('%').unwrap_or(rest.len());
            let text = &rest[..end];
            rest = &rest[end..];
            return Some(Ok(Part::Text(text)));
        };
        if let Some(after) = after.strip_prefix('%') {
            let text = &rest[..1];
            rest = after;
            return Some(Ok(Part::Text(text)));
        }
        let flags = after.find(|c: char| {
            !matches!(c, '0'..='9' | '+' | '-' | '#' | ' ' | '.' | '[' | ']' | '*')
        });
        let flags = &after[..flags.unwrap_or(after.len())];
        let verb = after[flags.len()..].chars().next();
        rest = &after[flags.len() + verb.map_or(0, char::len_utf8)..];
        Some(padding(flags).map(|padding| {
            Part::Verb(Verb { letter: verb.unwrap_or('!'), is_plain: flags.is_empty(), padding })
        }))
    })
}

/// The sum of all numbers between `%` and the verb.
fn padding(flags: &str) -> Result<u64, String> {
    if flags.contains('*') {
        return Err("a width must be a number in the format, not *".to_owned());
    }
    let mut sum = 0;
    for number in flags.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty()) {
        match number.parse::<u64>() {
            Ok(number) if number <= MOST_WIDTH => sum += number,
            _ => return Err(format!("a width must be at most {MOST_WIDTH}, not {number}")),
        }
    }
    Ok(sum)
}
