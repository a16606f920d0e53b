//! The document as YAML. Every text is quoted, so that no value can end its line or become anything but a
//! text.

use crate::channels::spec::SecretText;
use crate::yaml::quoted;

/// A value of the document.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// A text of our own, or of a row: a row's never holds a template.
    Text(String),
    Number(i64),
    Switch(bool),
    List(Vec<Node>),
    Map(Vec<(&'static str, Node)>),
    Secret(SecretText),
}

/// Keys whose values are secrets, or may be. Redaction goes by them, so a secret stands nowhere else.
pub(super) const SECRET_KEYS: [&str; 8] = [
    "url",
    "api_url",
    "webhook_url",
    "credentials",
    "password",
    "bot_token",
    "routing_key",
    "api_key",
];

impl Node {
    pub(super) fn text(text: impl ToString) -> Self {
        Self::Text(text.to_string())
    }

    pub(super) fn texts<T: ToString>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::List(texts.into_iter().map(|text| Self::Text(text.to_string())).collect())
    }

    /// As the value of a key, with what stands between. Empty lists and maps stand on the key's line.
    fn write(&self, yaml: &mut String, indent: usize) {
        match self {
            Self::Text(text) => line(yaml, &quoted(text)),
            Self::Secret(secret) => line(yaml, &quoted(secret.expose())),
            Self::Number(number) => line(yaml, &number.to_string()),
            Self::Switch(on) => line(yaml, &on.to_string()),
            Self::List(items) if items.is_empty() => line(yaml, "[]"),
            Self::Map(entries) if entries.is_empty() => line(yaml, "{}"),
            Self::List(items) => {
                yaml.push('\n');
                for item in items {
                    pad(yaml, indent);
                    yaml.push('-');
                    match item {
                        Self::Map(entries) if !entries.is_empty() => {
                            write_map(entries, yaml, indent + 2, true);
                        }
                        other => other.write(yaml, indent + 2),
                    }
                }
            }
            Self::Map(entries) => {
                yaml.push('\n');
                write_map(entries, yaml, indent, false);
            }
        }
    }
}

/// A whole document: a mapping.
pub(super) fn write(entries: &[(&'static str, Node)]) -> String {
    let mut yaml = String::new();
    write_map(entries, &mut yaml, 0, false);
    yaml
}

/// The first entry of a list's item stands on the line of its dash.
fn write_map(entries: &[(&'static str, Node)], yaml: &mut String, indent: usize, in_item: bool) {
    for (at, (key, value)) in entries.iter().enumerate() {
        if in_item && at == 0 {
            yaml.push(' ');
        } else {
            pad(yaml, indent);
        }
        yaml.push_str(key);
        yaml.push(':');
        value.write(yaml, indent + 2);
    }
}

fn pad(yaml: &mut String, indent: usize) {
    yaml.extend(std::iter::repeat_n(' ', indent));
}

fn line(yaml: &mut String, value: &str) {
    yaml.push(' ');
    yaml.push_str(value);
    yaml.push('\n');
}
