//! YAML or JSON read so that keys and items know their lines, and texts quoted for YAML.

use std::fmt::{self, Write as _};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::{DuplicateKeyPolicy, Spanned, from_multiple_with_options, options};

/// A value, with the line that it begins in.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) line: u64,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// `null`, a text, a number or a boolean.
#[derive(Debug)]
pub(crate) struct Scalar {
    pub(crate) value: Value,
    /// The same as text, because what a scalar means depends on the key: `10` may be a number or the
    /// name of a bucket.
    pub(crate) text: String,
}

/// A key with its line and value.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) line: u64,
    pub(crate) value: Node,
}

/// A key that stands in its mapping before.
pub(crate) struct Repeated<'a> {
    pub(crate) entry: &'a Entry,
    /// With the keys of all mappings around it, joined by dots.
    pub(crate) path: String,
    /// The line on which it stands first.
    pub(crate) first: u64,
}

/// What is no YAML, and where.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) line: u64,
    pub(crate) reason: String,
}

impl Node {
    /// All documents of a text.
    pub(crate) fn read_all(text: &str) -> Result<Vec<Self>, Unreadable> {
        // Keys that stand twice are told by us, with everything else.
        let options = options! { duplicate_keys: DuplicateKeyPolicy::PassThrough };
        let documents = from_multiple_with_options::<Spanned<Kind>>(text, options);
        let documents = documents.map_err(|error| {
            let reason = error.without_snippet().to_string();
            Unreadable {
                line: error.location().map_or(0, |place| place.line()),
                reason: reason.lines().next().unwrap_or_default().to_owned(),
            }
        })?;
        Ok(documents.into_iter().map(Self::from).collect())
    }

    /// Keys that are repeated in their mapping.
    pub(crate) fn repeated(&self) -> Vec<Repeated<'_>> {
        let mut found = Vec::new();
        self.find_repeated("", &mut found);
        found
    }

    fn find_repeated<'a>(&'a self, path: &str, found: &mut Vec<Repeated<'a>>) {
        if let Kind::List(nodes) = &self.kind {
            for node in nodes {
                node.find_repeated(path, found);
            }
        }
        for (at, entry) in self.entries().iter().enumerate() {
            let path =
                if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
            entry.value.find_repeated(&path, found);
            let first = self.entries()[..at].iter().find(|before| before.key == entry.key);
            if let Some(first) = first {
                found.push(Repeated { entry, path, first: first.line });
            }
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar(scalar) if scalar.value.is_null())
    }

    /// The text of a scalar that is not null.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(scalar) if !scalar.value.is_null() => Some(&scalar.text),
            _ => None,
        }
    }

    /// Whether any scalar is so.
    pub(crate) fn any_text(&self, wanted: &dyn Fn(&str) -> bool) -> bool {
        match &self.kind {
            Kind::Scalar(_) => self.text().is_some_and(wanted),
            Kind::List(nodes) => nodes.iter().any(|node| node.any_text(wanted)),
            Kind::Map(entries) => entries.iter().any(|entry| entry.value.any_text(wanted)),
        }
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// As JSON, which is what the columns of labels and annotations hold.
    pub(crate) fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Scalar(scalar) => scalar.value.clone(),
            Kind::List(nodes) => nodes.iter().map(Self::to_json).collect(),
            Kind::Map(entries) => {
                let pairs = entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json()));
                Value::Object(pairs.collect())
            }
        }
    }
}

impl From<Spanned<Kind>> for Node {
    fn from(spanned: Spanned<Kind>) -> Self {
        Self { line: spanned.referenced.line(), kind: spanned.value }
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

fn scalar(value: Value, text: impl ToString) -> Kind {
    Kind::Scalar(Scalar { value, text: text.to_string() })
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar, a list or a map")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(scalar(Value::Null, "null"))
    }

    fn visit_none<E>(self) -> Result<Kind, E> {
        Ok(scalar(Value::Null, "null"))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
        Ok(scalar(value.into(), value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Kind, E> {
        Ok(scalar(value.into(), value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
        Ok(scalar(value.into(), value))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Kind, E> {
        Ok(scalar(value.to_string().into(), value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Kind, E> {
        Ok(scalar(value.to_string().into(), value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Kind, E> {
        Ok(scalar(value.into(), value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Kind, E> {
        Ok(scalar(value.into(), value))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Kind, E> {
        let text = String::from_utf8_lossy(value);
        Ok(scalar(text.as_ref().into(), &text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Kind, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = items.next_element::<Spanned<Kind>>()? {
            nodes.push(node.into());
        }
        Ok(Kind::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let line = key.referenced.line();
            let value = map.next_value::<Spanned<Kind>>()?.into();
            entries.push(Entry { key: key.value, line, value });
        }
        Ok(Kind::Map(entries))
    }
}

/// A text in double quotes, in printable ASCII only, with YAML's escapes for everything else, so that any
/// text arrives unchanged. JSON would not do: its surrogate pairs are not YAML, and YAML treats U+0085 and
/// U+2028 as line breaks and rejects a bare U+007F.
pub(crate) fn quoted(text: &str) -> String {
    let mut yaml = String::with_capacity(text.len() + 2);
    yaml.push('"');
    for character in text.chars() {
        match character {
            '"' => yaml.push_str("\\\""),
            '\\' => yaml.push_str("\\\\"),
            '\n' => yaml.push_str("\\n"),
            '\t' => yaml.push_str("\\t"),
            ' '..='~' => yaml.push(character),
            _ => {
                let code = u32::from(character);
                // Writing to a string cannot fail.
                let _ = match code {
                    0..=0xff => write!(yaml, "\\x{code:02X}"),
                    0x100..=0xffff => write!(yaml, "\\u{code:04X}"),
                    _ => write!(yaml, "\\U{code:08X}"),
                };
            }
        }
    }
    yaml.push('"');
    yaml
}
