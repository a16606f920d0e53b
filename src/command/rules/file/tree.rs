//! YAML or JSON whose keys and items know their lines.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::{DuplicateKeyPolicy, Spanned, from_multiple_with_options, options};

/// A value, with the line that it begins in.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) line: u64,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// `null`, a text, a number or a boolean.
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its line and value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: u64,
    pub(super) value: Node,
}

/// What is no YAML, and where.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) line: u64,
    pub(super) reason: String,
}

impl Node {
    /// All documents of a text that hold anything.
    pub(super) fn read_all(text: &str) -> Result<Vec<Self>, Unreadable> {
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
        let nodes = documents.into_iter().map(Self::from);
        Ok(nodes.filter(|node| !node.is_null()).collect())
    }

    /// Keys that stand a second time in their mapping, each with the line of the first.
    pub(super) fn repeated(&self) -> Vec<(&Entry, u64)> {
        let nested = match &self.kind {
            Kind::Scalar(_) => Vec::new(),
            Kind::List(nodes) => nodes.iter().flat_map(Self::repeated).collect(),
            Kind::Map(entries) => entries.iter().flat_map(|entry| entry.value.repeated()).collect(),
        };
        let entries = self.entries();
        let own = entries.iter().enumerate().filter_map(|(at, entry)| {
            let first = entries[..at].iter().find(|before| before.key == entry.key)?;
            Some((entry, first.line))
        });
        own.chain(nested).collect()
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Scalar(Value::Null))
    }

    pub(super) fn entries(&self) -> &[Entry] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// As JSON, which is what the columns of labels and annotations hold.
    pub(super) fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Scalar(value) => value.clone(),
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

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar, a list or a map")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Kind, E> {
        Ok(Kind::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.to_string().into()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.to_string().into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.into()))
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
