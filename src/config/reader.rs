//! Reads values and collects all faults: a [`Document`] returns sections, a section returns keys,
//! and a key that is never read is a fault.
//!
//! Not figment or serde: they stop at the first error, and `check-config` reports all of them, with
//! line numbers, unknown keys, `_FILE` variables and what depends on an unset key.

use std::collections::{BTreeMap, BTreeSet};

use toml::de::DeTable;
use toml::{Table, Value};

use super::environment::{Environment, folded};
use super::lines::{Lines, Starts};
use super::shown::{Setting, Shown, mark, mark_of};
use super::values::Secret;
use super::{Fault, Faults};
use crate::spelling::nearest;

pub(super) struct Document<'a> {
    root: Table,
    lines: Lines,
    /// Whether the file is valid TOML. If not, missing keys are not faults.
    is_toml: bool,
    environment: &'a Environment,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
    known: Vec<(&'static str, Vec<String>)>,
    settings: Vec<Setting>,
}

/// The key of a fault of the file as a whole.
const FILE: &str = "configuration file";

impl<'a> Document<'a> {
    pub(super) fn parse(text: &str, environment: &'a Environment) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        let starts = Starts::of(text);
        let broken = errors.iter().map(|error| Fault {
            key: FILE.to_owned(),
            line: error.span().map(|span| starts.line(span.start)),
            problem: format!("not TOML: {}", error.message().replace('\n', ", ")),
        });
        let mut faults: Vec<Fault> = broken.collect();
        // After the first error in a line, the parser's further ones are noise.
        faults.dedup_by_key(|fault| fault.line);
        let mut root = Table::new();
        if faults.is_empty() {
            match text.parse() {
                Ok(table) => root = table,
                // A value that is well formed but impossible, such as a number that is too large.
                Err(error) => faults.push(Fault {
                    key: FILE.to_owned(),
                    line: error.span().map(|span| starts.line(span.start)),
                    problem: format!("not TOML: {}", error.message().replace('\n', ", ")),
                }),
            }
        }
        let is_toml = faults.is_empty();
        let lines = Lines::of(text, table.get_ref());
        let (warnings, known, settings) = (Vec::new(), Vec::new(), Vec::new());
        Self { root, lines, is_toml, environment, faults, warnings, known, settings }
    }

    pub(super) fn section<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let mut is_readable = self.is_toml;
        let table = match self.root.remove(name) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => {
                let problem = format!("must be a section, written [{name}], not {}", kind(&other));
                let line = self.lines.line(name);
                self.faults.push(Fault { key: name.to_owned(), line, problem });
                is_readable = false;
                Table::new()
            }
        };
        let environment = self.environment.section(name);
        let mut section = Section {
            name,
            table,
            is_readable,
            lines: &self.lines,
            environment,
            from_environment: BTreeMap::new(),
            marks: BTreeMap::new(),
            known: Vec::new(),
            said: BTreeSet::new(),
            faulty: BTreeSet::new(),
            faults: &mut self.faults,
            warnings: &mut self.warnings,
            settings: &mut self.settings,
        };
        let value = read(&mut section);
        let known = section.finish();
        self.known.push((name, known));
        value
    }

    /// Reads a section only if it has any key.
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

    /// Ends the reading of some sections and ignores the others.
    pub(super) fn finish_section(mut self) -> Result<(), Faults> {
        // Only variables that are known to be meant for these sections.
        for name in self.environment.strange() {
            if let Some(meant) = self.exactly_meant(name) {
                self.faults.push(unread(name, Some(meant)));
            }
        }
        self.outcome().map(drop)
    }

    /// Every key that was read, with its value as an operator may see it.
    pub(super) fn settings(&mut self) -> Vec<Setting> {
        std::mem::take(&mut self.settings)
    }

    /// Ends the reading of all sections: the warnings, if there are no faults.
    pub(super) fn finish(mut self) -> Result<Vec<Fault>, Faults> {
        let names: Vec<&str> = self.known.iter().map(|(name, _)| *name).collect();
        let known = names.join(", ");
        let did_you_mean = |name: &str| match nearest(name, names.iter().copied()) {
            Some(meant) => format!("did you mean [{meant}]? there are {known}"),
            None => format!("there are {known}"),
        };
        for name in self.root.keys() {
            let problem = format!("unknown section; {}", did_you_mean(name));
            let line = self.lines.line(name);
            self.faults.push(Fault { key: name.clone(), line, problem });
        }
        let strange: BTreeSet<&str> =
            self.environment.sections().filter(|name| !names.contains(name)).collect();
        for name in strange {
            let key = format!("MTP__{}__…", name.to_ascii_uppercase());
            let problem = format!("unknown section in the environment; {}", did_you_mean(name));
            self.faults.push(Fault { key, line: None, problem });
        }
        for name in self.environment.strange() {
            let meant = self.exactly_meant(name).or_else(|| self.nearly_meant(name));
            self.faults.push(unread(name, meant));
        }
        self.outcome()
    }

    /// A variable that differs from a name only by underscores and case.
    fn exactly_meant(&self, name: &str) -> Option<String> {
        let name = folded(name);
        self.variables().find(|variable| {
            folded(variable) == name || name == format!("{}_FILE", folded(variable))
        })
    }

    fn nearly_meant(&self, name: &str) -> Option<String> {
        let all: Vec<String> = self.variables().collect();
        let name = folded(name);
        let all: Vec<(String, String)> = all.into_iter().map(|own| (folded(&own), own)).collect();
        let meant = nearest(&name, all.iter().map(|(folded, _)| folded.as_str()))?;
        all.iter().find(|(folded, _)| folded == meant).map(|(_, own)| own.clone())
    }

    fn variables(&self) -> impl Iterator<Item = String> {
        let of_section = |(section, keys): &'_ (&'static str, Vec<String>)| {
            keys.iter().map(|key| Environment::name(section, key)).collect::<Vec<_>>()
        };
        self.known.iter().flat_map(of_section)
    }

    fn outcome(mut self) -> Result<Vec<Fault>, Faults> {
        if !self.is_toml {
            // Missing keys of what could not be parsed are not faults.
            self.faults.retain(|fault| fault.key == FILE || fault.key.starts_with("MTP_"));
        }
        if self.faults.is_empty() { Ok(self.warnings) } else { Err(Faults(self.faults)) }
    }
}

/// The fault of a variable that sets nothing.
fn unread(name: &str, meant: Option<String>) -> Fault {
    let meant = meant.map_or(String::new(), |meant| format!("; did you mean {meant}?"));
    Fault {
        key: name.to_owned(),
        line: None,
        problem: format!("is not read: variables are called MTP__SECTION__KEY{meant}"),
    }
}

/// One section while it is being read.
pub(super) struct Section<'a> {
    name: &'static str,
    table: Table,
    /// Whether its part of the file can be read at all.
    is_readable: bool,
    lines: &'a Lines,
    environment: BTreeMap<String, String>,
    /// Keys that the environment has set, and the variables.
    from_environment: BTreeMap<String, String>,
    /// The marks of the values that keys were set to.
    marks: BTreeMap<String, u64>,
    known: Vec<String>,
    /// Keys that exist.
    said: BTreeSet<String>,
    /// Keys with faults: what depends on them is not reported as missing.
    faulty: BTreeSet<String>,
    faults: &'a mut Vec<Fault>,
    warnings: &'a mut Vec<Fault>,
    settings: &'a mut Vec<Setting>,
}

/// A raw value: a TOML value with its type, or a text, from the environment or from within a value.
pub(super) enum Raw {
    Toml(Value),
    Text(String),
}

impl Section<'_> {
    /// Reads one key: the default if it is absent, the default and a fault if it is wrong.
    pub(super) fn get<T: Shown>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(Raw) -> Result<T, String>,
    ) -> T {
        self.get_named(key, default, parse)
    }

    /// Whether this section has any key that is not empty.
    pub(super) fn says_anything(&self) -> bool {
        let is_text = |value: &Value| value.as_str().is_none_or(|text| !text.is_empty());
        self.table.values().any(is_text) || self.environment.values().any(|text| !text.is_empty())
    }

    /// The names of the keys in this section, for one whose keys the operator chooses.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.table.keys().chain(self.environment.keys()).cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    /// As [`Section::get`], for a key whose name is not known in advance.
    pub(super) fn get_named<T: Shown>(
        &mut self,
        key: &str,
        default: T,
        parse: impl FnOnce(Raw) -> Result<T, String>,
    ) -> T {
        let value = self.read(key, default, parse);
        self.show(key, &value);
        value
    }

    /// As [`Section::get_named`], for a value that is not yet what is shown.
    fn read<T>(
        &mut self,
        key: &str,
        default: T,
        parse: impl FnOnce(Raw) -> Result<T, String>,
    ) -> T {
        let Some(raw) = self.take(key) else { return default };
        parse(raw).unwrap_or_else(|problem| {
            self.wrong(key, None, problem);
            default
        })
    }

    /// Reads a list item by item, so that one fault hides no other. With any fault, the list is the
    /// default.
    pub(super) fn get_list<T: Shown>(
        &mut self,
        key: &str,
        default: Vec<T>,
        parse: impl Fn(String) -> Result<T, String>,
    ) -> Vec<T> {
        let items = self.read_list(key, default, parse);
        self.show(key, &items);
        items
    }

    fn read_list<T>(
        &mut self,
        key: &str,
        default: Vec<T>,
        parse: impl Fn(String) -> Result<T, String>,
    ) -> Vec<T> {
        let Some(raw) = self.take(key) else { return default };
        let items = match super::values::list(raw) {
            Ok(items) => items,
            Err(problem) => {
                self.wrong(key, None, problem);
                return default;
            }
        };
        let (count, mut read) = (items.len(), Vec::new());
        for (place, item) in items.into_iter().enumerate() {
            match parse(item) {
                Ok(item) => read.push(item),
                // An item is not repeated in messages: it may contain a secret.
                Err(problem) if count > 1 => {
                    self.wrong(key, Some(place), format!("item {}: {problem}", place + 1));
                }
                Err(problem) => self.wrong(key, Some(place), problem),
            }
        }
        if read.len() == count { read } else { default }
    }

    /// Notes a value as an operator may see it.
    pub(super) fn show(&mut self, key: &str, value: &impl Shown) {
        let key_path = format!("{}.{key}", self.name);
        let source = match self.from_environment.get(key) {
            Some(variable) => variable.clone(),
            None if self.said.contains(key) => "file".to_owned(),
            None => "default".to_owned(),
        };
        self.settings.retain(|known| known.key != key_path);
        let mark = self.marks.get(key).copied();
        self.settings.push(Setting { key: key_path, value: value.shown(), source, mark });
    }

    /// Notes what a file holds that a key names, so that another content counts as a change of the key.
    pub(super) fn has_content(&mut self, key: &str, content: &[u8]) {
        let before = self.marks.get(key).copied();
        let mark = mark_of(&(before, content));
        self.marks.insert(key.to_owned(), mark);
        let path = format!("{}.{key}", self.name);
        if let Some(setting) = self.settings.iter_mut().find(|setting| setting.key == path) {
            setting.mark = Some(mark);
        }
    }

    fn take(&mut self, key: &str) -> Option<Raw> {
        self.known.push(key.to_owned());
        let in_file = self.table.remove(key).map(Raw::Toml);
        if in_file.is_some() || self.environment.contains_key(key) {
            self.said.insert(key.to_owned());
        }
        if let Some(Raw::Toml(value)) = &in_file {
            let written = value.as_str().map_or_else(|| mark(&value.to_string()), mark);
            self.marks.insert(key.to_owned(), written);
        }
        let Some(text) = self.environment.remove(key) else { return in_file };
        self.marks.insert(key.to_owned(), mark(&text));
        self.from_environment.insert(key.to_owned(), Environment::name(self.name, key));
        Some(Raw::Text(text))
    }

    /// Records a fault of a key's value, by the name under which it was set.
    fn wrong(&mut self, key: &str, place: Option<usize>, problem: String) {
        self.faulty.insert(key.to_owned());
        let path = format!("{}.{key}", self.name);
        let fault = if let Some(variable) = self.from_environment.get(key) {
            Fault { key: variable.clone(), line: None, problem }
        } else {
            let line = match place {
                Some(place) => self.lines.item(&path, place),
                None => self.lines.line(&path),
            };
            Fault { key: path, line, problem }
        };
        self.faults.push(fault);
    }

    /// Whether a key's value has a fault that was reported.
    pub(super) fn is_faulty(&self, key: &str) -> bool {
        self.faulty.contains(key)
    }

    pub(super) fn require<T: Shown>(
        &mut self,
        key: &'static str,
        wanted: &str,
        parse: impl FnOnce(Raw) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.get(key, None, |raw| parse(raw).map(Some));
        if value.is_none() && !self.is_faulty(key) && self.is_readable {
            self.fault(key, format!("is missing: {wanted}"));
        }
        value
    }

    /// As [`Section::get_list`], for a list that must exist and not be empty.
    pub(super) fn require_list<T: Shown>(
        &mut self,
        key: &'static str,
        wanted: &str,
        parse: impl Fn(String) -> Result<T, String>,
    ) -> Vec<T> {
        let items = self.get_list(key, Vec::new(), parse);
        if items.is_empty() && !self.is_faulty(key) && self.is_readable {
            let problem = if self.says(key) { "must hold" } else { "is missing:" };
            self.fault(key, format!("{problem} {wanted}"));
        }
        items
    }

    /// Whether a key that was read existed.
    pub(super) fn says(&self, key: &str) -> bool {
        self.said.contains(key)
    }

    /// Reads a secret, which may also be in a file that `MTP__SECTION__KEY_FILE` names.
    pub(super) fn secret(&mut self, key: &'static str) -> Secret {
        let from_file = self.secret_file(key).map(|text| Secret::new(&text));
        let direct = self
            .read(key, Secret::default(), |raw| super::values::text(raw).map(|t| Secret::new(&t)));
        let secret = from_file.unwrap_or(direct);
        self.show(key, &secret);
        secret
    }

    /// As [`Section::secret`], for a key with several secrets: `parse` reads the value, `split` the
    /// text of a file.
    pub(super) fn secrets(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(Raw) -> Result<Vec<String>, String>,
        split: impl FnOnce(&str) -> Result<Vec<String>, String>,
    ) -> Vec<Secret> {
        let from_file = self.secret_file(key).map(|text| split(&text));
        let direct = self.read(key, Vec::new(), parse);
        let texts = match from_file {
            None => direct,
            Some(Ok(texts)) => texts,
            Some(Err(problem)) => {
                self.wrong(key, None, problem);
                Vec::new()
            }
        };
        let secrets: Vec<Secret> = texts.iter().map(|text| Secret::new(text)).collect();
        self.show(key, &secrets);
        secrets
    }

    /// The text of the file that `MTP__SECTION__KEY_FILE` names. The key counts as read.
    fn secret_file(&mut self, key: &'static str) -> Option<String> {
        let file_key = format!("{key}_file");
        let path = self.environment.remove(&file_key)?;
        let name = Environment::name(self.name, &file_key);
        let problem = if self.environment.contains_key(key) {
            format!("is set beside {}; set one", Environment::name(self.name, key))
        } else {
            match std::fs::read_to_string(&path) {
                Ok(text) => {
                    self.from_environment.insert(key.to_owned(), name);
                    self.known.push(key.to_owned());
                    self.table.remove(key);
                    // A final line break, as editors add it, is not part of a secret.
                    let text = text.trim_end_matches(['\r', '\n']).to_owned();
                    self.marks.insert(key.to_owned(), mark(&text));
                    return Some(text);
                }
                Err(error) => format!("cannot be read: {error}"),
            }
        };
        self.faulty.insert(key.to_owned());
        self.faults.push(Fault { key: name, line: None, problem });
        None
    }

    /// Records a fault that spans keys, or that a parser cannot find.
    pub(super) fn fault(&mut self, key: &str, problem: String) {
        let fault = self.about(key, problem);
        self.faulty.insert(key.to_owned());
        self.faults.push(fault);
    }

    /// Records what is valid but probably a mistake.
    pub(super) fn warn(&mut self, key: &str, problem: String) {
        let warning = self.about(key, problem);
        self.warnings.push(warning);
    }

    fn about(&self, key: &str, problem: String) -> Fault {
        let path = format!("{}.{key}", self.name);
        match self.from_environment.get(key) {
            Some(variable) => {
                Fault { key: path, line: None, problem: format!("{problem} (set by {variable})") }
            }
            None => Fault { line: self.lines.line(&path), key: path, problem },
        }
    }

    fn finish(self) -> Vec<String> {
        let known = self.known.join(", ");
        let names = self.known.iter().map(String::as_str);
        let problem = |key: &str| match nearest(key, names.clone()) {
            Some(meant) => {
                format!("unknown key; did you mean {meant}? [{}] has {known}", self.name)
            }
            None => format!("unknown key; [{}] has {known}", self.name),
        };
        for key in self.table.keys() {
            let path = format!("{}.{key}", self.name);
            let line = self.lines.line(&path);
            self.faults.push(Fault { key: path, line, problem: problem(key) });
        }
        for key in self.environment.keys() {
            let name = Environment::name(self.name, key);
            let of_secret =
                key.strip_suffix("_file").filter(|key| names.clone().any(|n| n == *key));
            let problem = match of_secret {
                Some(key) => {
                    format!("{key} is no secret: set {}", Environment::name(self.name, key))
                }
                None => problem(key),
            };
            self.faults.push(Fault { key: name, line: None, problem });
        }
        self.known
    }
}

/// The type of a value, in the words of the file.
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
