//! The document: one Alertmanager configuration for each tenant, written as a whole.
//!
//! Its first lines are comments. The first one says that it is ours: a document without it is *foreign* and
//! never overwritten without a confirmation. The others name what is live in it, so that a row that is gone
//! can be told from one that never was.
//!
//! ```yaml
//! # mimir-tenant-proxy: this document is generated; changes are overwritten
//! # channel 0a0a0a0a-…
//! # route 1b1b1b1b-…
//! ```

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod receivers;
mod redaction;
mod templates;
mod tree;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use aws_lc_rs::digest;
use uuid::Uuid;

use crate::channels::spec::channel::Channel;
use crate::channels::spec::route::Route;
use crate::channels::spec::{Operator, SecretText};
use crate::tenancy::OrganisationId;
use crate::yaml::{Kind, Node as Parsed, quoted};

pub use tree::TEST_LABEL;

/// The first line of a document of ours.
pub const MARKER: &str =
    "# mimir-tenant-proxy: this document is generated; changes are overwritten";

/// A document to be written. It holds secrets: its `Debug` does not show them.
#[derive(Clone, PartialEq, Eq)]
pub struct Document {
    /// The Alertmanager's configuration, YAML.
    config: String,
    /// Template files by name.
    templates: BTreeMap<String, String>,
    live: Live,
    secrets: Vec<SecretText>,
}

/// What Mimir has: the answer to GET `/api/v1/alerts`. It holds secrets, perhaps somebody else's.
#[derive(Clone, PartialEq, Eq)]
pub struct Observed {
    config: String,
    templates: BTreeMap<String, String>,
}

/// What a document of ours has live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    pub channels: BTreeSet<Uuid>,
    pub routes: BTreeSet<Uuid>,
}

impl Document {
    /// Channels in the order of their age, and routes in the order in which they are tried.
    pub(super) fn write(
        channels: &[Channel],
        routes: &[Route],
        operator: &Operator,
        organisation: &OrganisationId,
    ) -> Self {
        Self::write_with(receivers::write, channels, routes, operator, organisation)
    }

    /// The same with receivers that only have names.
    pub(super) fn write_without_integrations(
        channels: &[Channel],
        routes: &[Route],
        operator: &Operator,
        organisation: &OrganisationId,
    ) -> Self {
        let receivers = |channels: &[Channel], _: Option<&str>| receivers::names(channels);
        let document = Self::write_with(receivers, channels, routes, operator, organisation);
        Self { secrets: Vec::new(), ..document }
    }

    fn write_with(
        receivers: impl FnOnce(&[Channel], Option<&str>) -> yaml::Node,
        channels: &[Channel],
        routes: &[Route],
        operator: &Operator,
        organisation: &OrganisationId,
    ) -> Self {
        let live = Live {
            channels: channels.iter().map(|channel| channel.id).collect(),
            routes: routes.iter().map(|route| route.id).collect(),
        };
        let dashboard = operator.dashboard_url.as_ref().map(|url| url.of(organisation));
        let templates = templates::files(dashboard.as_deref());
        let mut entries =
            vec![("global", receivers::global()), ("route", tree::write(channels, routes))];
        entries.push(("receivers", receivers(channels, dashboard.as_deref())));
        entries.push(("time_intervals", tree::time_intervals(routes)));
        entries.push(("templates", yaml::Node::texts(templates.keys())));
        let secrets = channels.iter().flat_map(|channel| channel.kind.secrets()).cloned().collect();
        Self { config: live.head() + &yaml::write(&entries), templates, live, secrets }
    }

    /// The body for POST `/api/v1/alerts`, with all secrets. To be written to Mimir, and nowhere else.
    pub fn body(&self) -> String {
        let mut body = String::from("template_files:\n");
        for (name, text) in &self.templates {
            body += &["  ", &quoted(name), ": ", &quoted(text), "\n"].concat();
        }
        body + "alertmanager_config: " + &quoted(&self.config) + "\n"
    }

    /// The configuration with `<secret>` in place of what is one.
    pub fn redacted(&self) -> String {
        redaction::redacted(&self.config)
    }

    /// A text without the document's secrets, for what others say of it: Mimir quotes what it refuses.
    pub fn scrubbed(&self, text: &str) -> String {
        let secrets = self.secrets.iter().map(SecretText::expose);
        redaction::scrubbed(text, secrets)
    }

    /// What is live once it is written.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Whether Mimir has it, to the last byte.
    pub fn is(&self, observed: &Observed) -> bool {
        self.config == observed.config && self.templates == observed.templates
    }

    /// SHA-256 in hexadecimal of what is not secret in it: for people, to see whether two are alike. Whether
    /// something is to be written is decided by [`Document::is`].
    pub fn digest(&self) -> String {
        digest_of(&self.redacted(), &self.templates)
    }
}

impl Observed {
    /// The configuration alone, with its secrets.
    pub(super) fn config(&self) -> &str {
        &self.config
    }

    /// Reads the answer to GET `/api/v1/alerts`. Errors do not repeat it.
    pub fn parse(answer: &str) -> Result<Self, String> {
        let unreadable = || "the answer is not a document of an Alertmanager".to_owned();
        let documents = Parsed::read_all(answer).map_err(|_| unreadable())?;
        let [root] = documents.as_slice() else { return Err(unreadable()) };
        // Mimir always says it. An answer without it is that of something else, and "nothing is stored" would
        // let the next write overwrite what nobody has seen.
        let config = match root.entry("alertmanager_config").map(|entry| &entry.value) {
            None => return Err(unreadable()),
            Some(node) if node.is_null() => String::new(),
            Some(node) => node.text().ok_or_else(unreadable)?.to_owned(),
        };
        let mut templates = BTreeMap::new();
        if let Some(files) = root.entry("template_files") {
            if !matches!(files.value.kind, Kind::Map(_)) && !files.value.is_null() {
                return Err(unreadable());
            }
            for file in files.value.entries() {
                let text = file.value.text().unwrap_or_default();
                templates.insert(file.key.clone(), text.to_owned());
            }
        }
        Ok(Self { config, templates })
    }

    /// Whether it says nothing: Mimir's fallback leaves such a document.
    pub fn is_empty(&self) -> bool {
        self.config.trim().is_empty()
    }

    /// What is live in it; none if it is not ours. An empty one is nobody's.
    pub fn live(&self) -> Option<Live> {
        Live::of(&self.config)
    }

    /// Whether it is somebody else's: neither ours nor empty.
    pub fn is_foreign(&self) -> bool {
        !self.is_empty() && self.live().is_none()
    }

    /// SHA-256 in hexadecimal of the whole: what an administrator confirms when it may be overwritten.
    pub fn digest(&self) -> String {
        digest_of(&self.config, &self.templates)
    }

    /// The configuration with `<secret>` in place of what is one, and nothing of it if it is not ours.
    pub fn redacted(&self) -> String {
        if self.is_foreign() { String::new() } else { redaction::redacted(&self.config) }
    }
}

/// What Mimir has and what it shall have, to be compared by people: without secrets, but a secret that
/// changes is `<old secret>` in one and `<new secret>` in the other. Of a foreign document nothing is shown.
pub fn diff_texts(live: Option<&Observed>, desired: Option<&Document>) -> (String, String) {
    let live = live.filter(|live| !live.is_foreign()).map_or("", |live| &live.config);
    redaction::redacted_pair(live, desired.map_or("", |desired| &desired.config))
}

impl Live {
    /// The first lines of a document.
    fn head(&self) -> String {
        let mut head = format!("{MARKER}\n");
        for (what, ids) in [("channel", &self.channels), ("route", &self.routes)] {
            for id in ids {
                head += &["# ", what, " ", &id.to_string(), "\n"].concat();
            }
        }
        head
    }

    /// Reads the first lines of a configuration; none if it is not ours.
    pub fn of(config: &str) -> Option<Self> {
        let mut lines = config.lines();
        if lines.next() != Some(MARKER) {
            return None;
        }
        let mut live = Self::default();
        for line in lines {
            let Some(named) = line.strip_prefix("# ") else { break };
            let Some((what, id)) = named.split_once(' ') else { continue };
            let (ids, Ok(id)) = (
                match what {
                    "channel" => &mut live.channels,
                    "route" => &mut live.routes,
                    _ => continue,
                },
                Uuid::try_parse(id),
            ) else {
                continue;
            };
            ids.insert(id);
        }
        Some(live)
    }
}

/// Each text is preceded by its length, so that different documents are different byte sequences.
fn digest_of(config: &str, templates: &BTreeMap<String, String>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut text = |text: &str| {
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text.as_bytes());
    };
    text(config);
    for (name, file) in templates {
        text(name);
        text(file);
    }
    hex::encode(context.finish())
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("live", &self.live).finish_non_exhaustive()
    }
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed").field("live", &self.live()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
