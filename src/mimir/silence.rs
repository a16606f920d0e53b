//! A silence of Alertmanager's API, with its author replaced. Pure.
//!
//! Go matches JSON field names case-insensitively, and the last match wins: on Mimir 3.1, `CREATEDBY`
//! after `createdBy` sets the author. So the proxy parses and reserialises the body, and refuses names
//! that only Go would take for a known field.

use std::error::Error;
use std::fmt;

use serde_json::{Map, Value};

use super::expression::Pattern;

/// A silence to be created or changed.
#[derive(Debug)]
pub struct Silence(Map<String, Value>);

/// Why a silence cannot be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SilenceFault {
    /// The content type is not JSON, or the body is compressed, which Alertmanager cannot read.
    ContentType,
    /// Not JSON.
    NotJson,
    /// Not an object.
    NotAnObject,
    /// A field name differs from the API's only in case.
    Spelling(&'static str),
    /// Its matchers are too large.
    Patterns,
}

/// The fields of the API, also those of newer Alertmanagers.
const FIELDS: [&str; 7] =
    ["id", "matchers", "startsAt", "endsAt", "createdBy", "comment", "annotations"];

const AUTHOR: &str = "createdBy";

/// The most characters of all matchers, with counted repetitions such as `{100}` written out. The Alertmanager keeps them
/// compiled for each silence, 40 bytes a character and more, and reads them again when it starts.
const MOST_WEIGHT: u64 = 16 << 10;

/// The most that the groups of all matchers of a silence may capture: Alertmanager makes room of 16 bytes for each
/// whenever it asks whether an alert is silenced.
const MOST_CAPTURES: u64 = 512 << 10;

impl Silence {
    /// Reads a body.
    ///
    /// # Errors
    /// If it cannot be forwarded. Mimir validates the contents.
    pub fn parse(body: &[u8]) -> Result<Self, SilenceFault> {
        let silence = serde_json::from_slice(body).map_err(|_| SilenceFault::NotJson)?;
        let Value::Object(fields) = silence else { return Err(SilenceFault::NotAnObject) };
        for name in fields.keys() {
            let folded = fold(name);
            let field = FIELDS.iter().find(|field| fold(field) == folded);
            if let Some(field) = field.filter(|field| *field != name) {
                return Err(SilenceFault::Spelling(field));
            }
        }
        // Go takes `Value` for `value`, so every text counts.
        let sum = |of: fn(&Pattern) -> u64| fields.get("matchers").map_or(0, |all| sum(all, of));
        if sum(Pattern::weight) > MOST_WEIGHT || sum(Pattern::captures) > MOST_CAPTURES {
            return Err(SilenceFault::Patterns);
        }
        Ok(Self(fields))
    }

    /// The end time as written in the request.
    pub fn ends_at(&self) -> Option<&str> {
        self.0.get("endsAt").and_then(Value::as_str)
    }

    /// The body to send, with this author.
    pub fn by(mut self, author: &str) -> Vec<u8> {
        self.0.insert(AUTHOR.to_owned(), Value::from(author));
        Value::Object(self.0).to_string().into_bytes()
    }
}

/// A measure of all texts in a value as regular expressions.
fn sum(value: &Value, measure: fn(&Pattern) -> u64) -> u64 {
    let of = |value| sum(value, measure);
    match value {
        Value::String(text) => measure(&Pattern::of(text.as_bytes())),
        Value::Array(values) => values.iter().map(of).fold(0, u64::saturating_add),
        Value::Object(fields) => fields.values().map(of).fold(0, u64::saturating_add),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// Equal for all names that Go treats as the same, including `\u{17F}` for `s` and `\u{212A}`
/// for `k`.
fn fold(name: &str) -> String {
    name.to_uppercase().to_lowercase()
}

impl fmt::Display for SilenceFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ContentType => f.write_str("a silence must be application/json, not compressed"),
            Self::NotJson => f.write_str("the silence is not valid JSON"),
            Self::NotAnObject => f.write_str("a silence must be a JSON object"),
            Self::Patterns => write!(
                f,
                "the matchers of the silence are too large: {MOST_WEIGHT} characters at most, counted repetitions such \
                 as {{1000}} written out, and {MOST_CAPTURES} for groups times characters; write (?:…) for a group"
            ),
            Self::Spelling(field) => {
                write!(f, "a field of the silence is spelt in another case; it is {field:?}")
            }
        }
    }
}

impl Error for SilenceFault {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn sent(body: &str) -> Value {
        let silence = Silence::parse(body.as_bytes()).unwrap();
        serde_json::from_slice(&silence.by("alice")).unwrap()
    }

    #[test]
    fn everything_but_the_author_passes() {
        let body = json!({
            "id": "d3f38a55-c661-4e32-b899-580eaf5361fb",
            "matchers": [{"name": "a", "value": "b", "isRegex": false, "isEqual": true}],
            "startsAt": "2026-01-01T00:00:00Z", "endsAt": "2030-01-01T00:00:00Z",
            "comment": "ü \u{1F600}", "createdBy": "the boss", "annotations": {"a": "b"},
            "somethingNew": [1, 2.5, null, {"x": true}],
        });
        let mut wanted = body.clone();
        wanted["createdBy"] = json!("alice");
        assert_eq!(sent(&body.to_string()), wanted);
        assert_eq!(sent("{}"), json!({"createdBy": "alice"}));
        let silence = Silence::parse(body.to_string().as_bytes()).unwrap();
        assert_eq!(silence.ends_at(), Some("2030-01-01T00:00:00Z"));
    }

    // A silence of 10 KB with counted repetitions takes 56 MB for as long as it is kept.
    #[test]
    fn matchers_that_expand_are_refused() {
        let of = |matchers: Value| {
            Silence::parse(json!({ "matchers": matchers }).to_string().as_bytes()).err()
        };
        let heavy = ".{1000}".repeat(20);
        for matchers in [
            json!([{"name": "a", "value": heavy, "isRegex": true}]),
            json!([{"name": "a", "VALUE": heavy, "isregex": true}]),
            json!(vec![json!({"name": "a", "value": ".{1000}"}); 20]),
            json!([{"name": "a", "value": "x".repeat(20_000)}]),
            json!([{"name": "a", "value": "(.?)".repeat(400), "isRegex": true}]),
        ] {
            assert_eq!(of(matchers), Some(SilenceFault::Patterns));
        }
        for value in ["host-[0-9]{1,3}|".repeat(300), "(?:.?)".repeat(400), "(.?)".repeat(300)] {
            assert_eq!(of(json!([{"name": "a", "value": value}])), None, "{value}");
        }
    }

    #[test]
    fn a_second_author_is_not_smuggled() {
        assert_eq!(
            sent(r#"{"createdBy": "a", "createdBy": "the boss", "createdBy": {"x": 1}}"#),
            json!({"createdBy": "alice"})
        );
        assert_eq!(sent(r#"{"\u0063reatedBy": "the boss"}"#), json!({"createdBy": "alice"}));
        for name in ["CREATEDBY", "createdby", "CreatedBy", "cREATEDbY"] {
            let body = json!({"createdBy": "a", name: "the boss"}).to_string();
            let fault = Silence::parse(body.as_bytes()).unwrap_err();
            assert_eq!(fault, SilenceFault::Spelling("createdBy"), "{name}");
        }
        for name in ["EndsAt", "end\u{17F}At", "MATCHERS", "matcher\u{17F}", "ID"] {
            let body = json!({name: "x"}).to_string();
            let fault = Silence::parse(body.as_bytes()).unwrap_err();
            assert!(matches!(fault, SilenceFault::Spelling(_)), "{name}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for (body, fault) in [
            ("", SilenceFault::NotJson),
            ("{", SilenceFault::NotJson),
            ("{} {}", SilenceFault::NotJson),
            ("{\"a\": \"\\ud800\"}", SilenceFault::NotJson),
            ("matchers=x", SilenceFault::NotJson),
            ("[]", SilenceFault::NotAnObject),
            ("null", SilenceFault::NotAnObject),
            ("\"x\"", SilenceFault::NotAnObject),
        ] {
            assert_eq!(Silence::parse(body.as_bytes()).unwrap_err(), fault, "{body}");
        }
        let deep = format!("{{\"a\": {}{}}}", "[".repeat(60_000), "]".repeat(60_000));
        assert_eq!(Silence::parse(deep.as_bytes()).unwrap_err(), SilenceFault::NotJson);
    }

    proptest! {
        // Whatever the body says, Go finds one author in what is sent, and it is ours.
        #[test]
        fn there_is_one_author_and_it_is_ours(
            fields in proptest::collection::vec(
                ("[cC][rR][eE][aA][tT][eE][dD][bB][yY]|comment|id|[a-z]{1,4}", "[a-z]{0,5}"), 0..6,
            ),
            author in "\\PC{0,20}",
        ) {
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("{name:?}: {value:?}")).collect();
            let body = format!("{{{}}}", fields.join(", "));
            if let Ok(silence) = Silence::parse(body.as_bytes()) {
                let sent: Map<String, Value> = serde_json::from_slice(&silence.by(&author)).unwrap();
                let authors: Vec<_> =
                    sent.iter().filter(|(name, _)| name.eq_ignore_ascii_case(AUTHOR)).collect();
                prop_assert_eq!(authors.len(), 1);
                prop_assert_eq!(&sent[AUTHOR], &Value::from(author));
            }
        }

        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Silence::parse(&body);
        }
    }
}
