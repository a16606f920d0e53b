//! Reading with all faults collected: a [`Document`] hands out one [`Section`] after the other,
//! a section hands out one key after the other, and what nobody asked for is a fault.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::environment::Environment;
use super::values::Secret;
use super::{Fault, Faults};

pub(super) struct Document<'a> {
    root: Table,
    environment: &'a Environment,
    faults: Vec<Fault>,
    known: Vec<&'static str>,
}

impl<'a> Document<'a> {
    pub(super) fn parse(text: &str, environment: &'a Environment) -> Self {
        let mut faults = Vec::new();
        let root = text.parse::<Table>().unwrap_or_else(|error| {
            let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
            let problem = format!("not TOML at line {line}: {}", error.message());
            faults.push(Fault { key: "configuration file".to_owned(), problem });
            Table::new()
        });
        Self { root, environment, faults, known: Vec::new() }
    }

    pub(super) fn section<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        self.known.push(name);
        let table = match self.root.remove(name) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => {
                let problem = format!("must be a section, written [{name}], not {}", kind(&other));
                self.faults.push(Fault { key: name.to_owned(), problem });
                Table::new()
            }
        };
        let environment = self.environment.section(name);
        let mut section =
            Section { name, table, environment, known: Vec::new(), faults: &mut self.faults };
        let value = read(&mut section);
        section.finish();
        value
    }

    /// Reads a section only if there is something in it.
    pub(super) fn section_if_any<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Option<T> {
        let mut is_there = false;
        let value = self.section(name, |section| {
            is_there = section.says_anything();
            is_there.then(|| read(section))
        });
        value.filter(|_| is_there)
    }

    /// Ends the reading of some sections, whatever stands in others.
    pub(super) fn finish_section(self) -> Result<(), Faults> {
        if self.faults.is_empty() { Ok(()) } else { Err(Faults(self.faults)) }
    }

    pub(super) fn finish(mut self) -> Result<(), Faults> {
        let known = self.known.join(", ");
        for name in self.root.keys() {
            let problem = format!("unknown section; there are {known}");
            self.faults.push(Fault { key: name.clone(), problem });
        }
        let mut strange: Vec<_> =
            self.environment.sections().filter(|name| !self.known.contains(name)).collect();
        strange.dedup();
        for name in strange {
            let key = format!("MTP__{}__…", name.to_ascii_uppercase());
            let problem = format!("unknown section in the environment; there are {known}");
            self.faults.push(Fault { key, problem });
        }
        if self.faults.is_empty() { Ok(()) } else { Err(Faults(self.faults)) }
    }
}

/// One section while it is being read.
pub(super) struct Section<'a> {
    name: &'static str,
    table: Table,
    environment: BTreeMap<String, String>,
    known: Vec<String>,
    faults: &'a mut Vec<Fault>,
}

/// A raw value: from the file with its type, or from the environment as text.
pub(super) enum Raw {
    File(Value),
    Environment(String),
}

impl Section<'_> {
    /// Reads one key: absent gives the default, wrong gives the default and a fault.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(Raw) -> Result<T, String>,
    ) -> T {
        self.get_named(key, default, parse)
    }

    /// Whether any key stands in this section with something in it.
    pub(super) fn says_anything(&self) -> bool {
        let is_text = |value: &Value| value.as_str().is_none_or(|text| !text.is_empty());
        self.table.values().any(is_text) || self.environment.values().any(|text| !text.is_empty())
    }

    /// The names of the keys that stand in this section, for one whose keys are the operator's.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.table.keys().chain(self.environment.keys()).cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    /// As [`Section::get`], for a key whose name is not known beforehand.
    pub(super) fn get_named<T>(
        &mut self,
        key: &str,
        default: T,
        parse: impl FnOnce(Raw) -> Result<T, String>,
    ) -> T {
        self.known.push(key.to_owned());
        let in_file = self.table.remove(key).map(Raw::File);
        let (raw, name) = match self.environment.remove(key) {
            Some(text) => (Some(Raw::Environment(text)), Environment::name(self.name, key)),
            None => (in_file, format!("{}.{key}", self.name)),
        };
        let Some(raw) = raw else { return default };
        parse(raw).unwrap_or_else(|problem| {
            self.faults.push(Fault { key: name, problem });
            default
        })
    }

    /// Reads one key that must be there.
    pub(super) fn require<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        parse: impl FnOnce(Raw) -> Result<T, String>,
    ) -> Option<T> {
        let before = self.faults.len();
        let value = self.get(key, None, |raw| parse(raw).map(Some));
        if value.is_none() && self.faults.len() == before {
            self.fault(key, format!("is missing: {wanted}"));
        }
        value
    }

    /// Reads a secret, which may also stand in a file that `MTP__SECTION__KEY_FILE` names.
    pub(super) fn secret(&mut self, key: &'static str) -> Secret {
        let from_file = self.secret_file(key).map(|text| Secret::new(&text));
        let direct = self
            .get(key, Secret::default(), |raw| super::values::text(raw).map(|t| Secret::new(&t)));
        from_file.unwrap_or(direct)
    }

    /// As [`Section::secret`], for a key that may hold several: a list, or a text that `split`
    /// takes apart.
    pub(super) fn secrets(
        &mut self,
        key: &'static str,
        split: impl Fn(&str) -> Vec<String>,
    ) -> Vec<Secret> {
        let read = |raw| match raw {
            Raw::File(Value::String(text)) => Ok(split(&text)),
            Raw::Environment(text) if text.trim_start().starts_with('[') => {
                // A secret may begin with a bracket, too.
                Ok(super::values::list(Raw::Environment(text.clone()))
                    .unwrap_or_else(|_| split(&text)))
            }
            Raw::Environment(text) => Ok(split(&text)),
            list => super::values::list(list),
        };
        let from_file = self.secret_file(key).map(|text| split(&text));
        let direct = self.get(key, Vec::new(), read);
        from_file.unwrap_or(direct).iter().map(|text| Secret::new(text)).collect()
    }

    /// The text of the file that `MTP__SECTION__KEY_FILE` names.
    fn secret_file(&mut self, key: &'static str) -> Option<String> {
        let file_key = format!("{key}_file");
        let path = self.environment.remove(&file_key)?;
        let name = Environment::name(self.name, &file_key);
        if self.environment.contains_key(key) {
            let problem = format!("is set beside {}; set one", Environment::name(self.name, key));
            self.faults.push(Fault { key: name, problem });
            return None;
        }
        match std::fs::read_to_string(&path) {
            // An editor's final line break is not part of a secret.
            Ok(text) => Some(text.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) => {
                self.faults.push(Fault { key: name, problem: format!("cannot be read: {error}") });
                None
            }
        }
    }

    /// Notes a fault that spans keys, or that a parser cannot know of.
    pub(super) fn fault(&mut self, key: &str, problem: String) {
        self.faults.push(Fault { key: format!("{}.{key}", self.name), problem });
    }

    fn finish(self) {
        let known = self.known.join(", ");
        let in_file = self.table.keys().map(|key| format!("{}.{key}", self.name));
        let in_environment = self.environment.keys().map(|key| Environment::name(self.name, key));
        for key in in_file.chain(in_environment) {
            let problem = format!("unknown key; [{}] has {known}", self.name);
            self.faults.push(Fault { key, problem });
        }
    }
}

/// What kind of value this is, in the words of the file.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a section",
    }
}
