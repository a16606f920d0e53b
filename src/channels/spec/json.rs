//! A column that is a JSON object, read key by key; a key that was not read is a fault.

use serde_json::{Map, Value};

use super::fault::Collector;
use super::secret::SecretText;
use super::text::{problem, trimmed};
use crate::rules::spec::refusal::quoted;
use crate::spelling::nearest;

/// The keys of `settings`. Values may be quoted to their author.
pub(super) struct Settings {
    /// Where the object stands, such as `settings`.
    place: &'static str,
    keys: Map<String, Value>,
    known: Vec<&'static str>,
}

/// The keys of `secrets`. Nothing of them is quoted, not even a key that is no plain word: it may be what
/// should have been its value.
pub(super) struct Secrets {
    keys: Map<String, Value>,
    known: Vec<&'static str>,
}

const SETTINGS: &str = "settings";
const SECRETS: &str = "secrets";

impl Settings {
    pub(super) fn read(text: Option<&str>, faults: &mut Collector) -> Self {
        let read = object(text).unwrap_or_else(|fault| {
            let example = "should be an object in JSON, such as {\"send_resolved\": true}";
            faults.add(SETTINGS, format!("{fault}; {example}"));
            None
        });
        Self { place: SETTINGS, keys: read.unwrap_or_default(), known: Vec::new() }
    }

    fn place(&self, key: &str) -> String {
        format!("{}.{key}", self.place)
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.keys.remove(key).filter(|value| !value.is_null())
    }

    /// A text of one line; none if it is not there or empty.
    pub(super) fn text(
        &mut self,
        key: &'static str,
        most_bytes: usize,
        faults: &mut Collector,
    ) -> Option<String> {
        let value = self.take(key)?;
        let Value::String(text) = &value else {
            faults.add(self.place(key), format!("is {}; should be a text", kind(&value)));
            return None;
        };
        let text = trimmed(text);
        match problem(text, most_bytes) {
            Some(problem) => {
                faults.add(self.place(key), problem);
                None
            }
            None => Some(text.to_owned()).filter(|text| !text.is_empty()),
        }
    }

    /// A text, or a list of texts.
    pub(super) fn texts(
        &mut self,
        key: &'static str,
        most: usize,
        most_bytes: usize,
        faults: &mut Collector,
    ) -> Vec<String> {
        let items = match self.take(key) {
            None => return Vec::new(),
            Some(Value::Array(items)) => items,
            Some(one) => vec![one],
        };
        if items.len() > most {
            faults.add(self.place(key), format!("are {}; at most {most}", items.len()));
            return Vec::new();
        }
        let mut texts = Vec::new();
        for item in items {
            match &item {
                Value::String(text) => match problem(trimmed(text), most_bytes) {
                    Some(problem) => {
                        faults.add(self.place(key), format!("{} {problem}", quoted(text)));
                    }
                    None => texts.push(trimmed(text).to_owned()),
                },
                other => {
                    let is = kind(other);
                    faults.add(
                        self.place(key),
                        format!("holds {is}; should be a text or a list of texts"),
                    );
                }
            }
        }
        texts.retain(|text| !text.is_empty());
        texts
    }

    /// One of some words.
    pub(super) fn word(
        &mut self,
        key: &'static str,
        words: &'static [&'static str],
        faults: &mut Collector,
    ) -> Option<&'static str> {
        let text = self.text(key, 100, faults)?;
        let found = words.iter().find(|word| **word == text);
        if found.is_none() {
            let fault = format!("{} should be one of {}", quoted(&text), words.join(", "));
            faults.add(self.place(key), fault);
        }
        found.copied()
    }

    pub(super) fn switch(
        &mut self,
        key: &'static str,
        default: bool,
        faults: &mut Collector,
    ) -> bool {
        match self.take(key) {
            None => default,
            Some(Value::Bool(on)) => on,
            Some(other) => {
                faults
                    .add(self.place(key), format!("is {}; should be true or false", kind(&other)));
                default
            }
        }
    }

    /// A whole number, or a text that is one: identifiers of more than 53 bits do not survive JavaScript.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        bounds: (i64, i64),
        faults: &mut Collector,
    ) -> Option<i64> {
        let number = match self.take(key)? {
            Value::Number(number) => number.as_i64(),
            Value::String(text) => trimmed(&text).parse().ok(),
            _ => None,
        };
        let number = number.filter(|number| (bounds.0..=bounds.1).contains(number));
        if number.is_none() {
            let fault = format!("should be a whole number from {} to {}", bounds.0, bounds.1);
            faults.add(self.place(key), fault);
        }
        number
    }

    /// The items of a list of objects, each to be read like the settings themselves.
    pub(super) fn objects(
        &mut self,
        key: &'static str,
        most: usize,
        faults: &mut Collector,
    ) -> Vec<Map<String, Value>> {
        let items = match self.take(key) {
            None => return Vec::new(),
            Some(Value::Array(items)) if items.len() <= most => items,
            Some(_) => {
                faults.add(self.place(key), format!("should be a list of at most {most} objects"));
                return Vec::new();
            }
        };
        let mut objects = Vec::new();
        for item in items {
            match item {
                Value::Object(object) => objects.push(object),
                other => faults
                    .add(self.place(key), format!("holds {}; should be an object", kind(&other))),
            }
        }
        objects
    }

    /// Names keys that were read by other means, for those who meant them.
    pub(super) fn know(&mut self, keys: &[&'static str]) {
        self.known.extend(keys);
    }

    /// Names the keys that are left over. A key of `secrets` is readable here.
    pub(super) fn finish(self, secrets: &[&str], faults: &mut Collector) {
        for key in self.keys.keys() {
            if secrets.contains(&key.as_str()) {
                let fault = "is a secret, and settings are readable: write it to the column secrets, and \
                             replace the secret";
                faults.add(self.place(key), fault);
                continue;
            }
            faults.add(self.place, unknown(&quoted(key), key, &self.known));
        }
    }
}

impl Secrets {
    pub(super) fn read(text: Option<&str>, faults: &mut Collector) -> Self {
        let read = object(text).unwrap_or_else(|_| {
            faults.add(SECRETS, "should be an object in JSON whose values are texts");
            None
        });
        Self { keys: read.unwrap_or_default(), known: Vec::new() }
    }

    /// A secret that is a text; none if it is not there or empty.
    pub(super) fn text(&mut self, key: &'static str, faults: &mut Collector) -> Option<SecretText> {
        /// A webhook's address may hold a token; no key is as long.
        const MOST_BYTES: usize = 2048;
        self.known.push(key);
        let value = self.keys.remove(key).filter(|value| !value.is_null())?;
        let place = format!("{SECRETS}.{key}");
        let Value::String(text) = value else {
            faults.add(place, "should be a text");
            return None;
        };
        let text = trimmed(&text);
        if text == MASK {
            faults.add(place, LOST);
            return None;
        }
        match problem(text, MOST_BYTES) {
            Some(problem) => {
                faults.add(place, problem);
                None
            }
            None => Some(text).filter(|text| !text.is_empty()).map(SecretText::new),
        }
    }

    /// The same, for one that must be there.
    pub(super) fn required(
        &mut self,
        key: &'static str,
        wanted: &str,
        faults: &mut Collector,
    ) -> Option<SecretText> {
        let is_faultless = faults.is_empty();
        let secret = self.text(key, faults);
        if secret.is_none() && is_faultless == faults.is_empty() {
            faults.add(format!("{SECRETS}.{key}"), format!("is missing: {wanted}"));
        }
        secret
    }

    /// Names the keys that are left over.
    pub(super) fn finish(self, faults: &mut Collector) {
        for key in self.keys.keys() {
            let is_word =
                key.len() <= 40 && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            let named = if is_word { quoted(key) } else { "that is no plain word".to_owned() };
            faults.add(SECRETS, unknown(&named, if is_word { key } else { "" }, &self.known));
        }
    }
}

/// What a mask without its secret means: the table of secrets has lost it, or the row is a copy of another.
const LOST: &str = "is not stored, and the row has only the mask; write the secret again";

/// Whether a column `secrets` has a mask for which no secret is stored.
pub(super) fn has_mask(text: Option<&str>) -> bool {
    let is_mask = |value: &Value| value.as_str().is_some_and(|text| trimmed(text) == MASK);
    object(text).ok().flatten().is_some_and(|keys| keys.values().any(is_mask))
}

/// What stands in `secrets` in place of a secret, for everybody who reads the row.
pub(super) const MASK: &str = "<secret>";

fn unknown(named: &str, key: &str, known: &[&'static str]) -> String {
    let has = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    match nearest(key, known.iter().copied()) {
        Some(meant) => format!("unknown key {named}; did you mean {meant}? known are {has}"),
        None => format!("unknown key {named}; known are {has}"),
    }
}

/// An object, if there is one. Errors do not repeat the text.
fn object(text: Option<&str>) -> Result<Option<Map<String, Value>>, String> {
    let text = trimmed(text.unwrap_or_default());
    if text.is_empty() {
        return Ok(None);
    }
    match serde_json::from_str(text) {
        Ok(Value::Null) => Ok(None),
        Ok(Value::Object(object)) => Ok(Some(object)),
        Ok(other) => Err(format!("is {}", kind(&other))),
        Err(error) => {
            Err(format!("is not valid JSON, line {}, column {}", error.line(), error.column()))
        }
    }
}

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// An object inside of another, to be read with the same functions.
pub(super) fn nested(place: &'static str, keys: Map<String, Value>) -> Settings {
    Settings { place, keys, known: Vec::new() }
}
