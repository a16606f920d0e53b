//! Known mistakes in Mimir configurations of the kind that run behind this proxy: several monoliths,
//! rings on Consul, blocks in an S3-compatible store, many tenants.
//!
//! Mimir refuses what it cannot read. These checks also find what it reads but does not do as
//! intended, and report before a deployment what Mimir would refuse at its start. All of it is pure:
//! text in, findings out. A check is a function of the [`Profile`]; checks of one subject share a
//! file. A check reports nothing about a value that it does not know, such as a variable.

mod alertmanager;
mod alerts;
mod caches;
mod document;
mod expansion;
mod finding;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod keys;
mod late_samples;
mod listeners;
mod names;
mod ours;
mod replication;
mod ring_addresses;
mod ring_keys;
mod rings;
mod shutdown;
mod storage;
mod tenants;
mod values;
mod wrong_file;

use std::str::FromStr;

pub use expansion::Variables;
pub use finding::{Finding, Severity};
pub use ours::{Ours, Receiver, SecretDigest};

use crate::yaml::Node;
use document::Document;

/// What is assumed about the surroundings, which the file does not tell.
#[derive(Clone, Copy, Debug)]
pub struct Assumptions {
    /// The Mimir that will read it.
    pub mimir: MimirVersion,
    /// The number of Mimir instances, if known.
    pub instances: Option<u32>,
    /// The settings of the proxy that have a counterpart in Mimir.
    pub ours: Option<Ours>,
}

/// Mimir's version, major and minor. 2.17 is the last with Redis, 3.1 the first with a ring of
/// queriers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MimirVersion(pub u32, pub u32);

impl FromStr for MimirVersion {
    type Err = String;

    /// `3.1`, `2.17.4`, or `3` for the newest 3.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut numbers = text.split('.').map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major @ (2 | 3))), None) => Ok(Self(major, u32::MAX)),
            (Some(Ok(major @ (2 | 3))), Some(Ok(minor))) => Ok(Self(major, minor)),
            _ => Err("versions 2 and 3 are known, such as 2.17".to_owned()),
        }
    }
}

/// A configuration that could be read, with what is assumed about its surroundings.
#[derive(Debug)]
struct Profile {
    document: Document,
    assumptions: Assumptions,
}

type Check = fn(&Profile) -> Vec<Finding>;

/// All checks, in the order of their findings where lines are equal.
const CHECKS: [Check; 47] = [
    keys::unknown,
    values::unreadable,
    names::targets,
    names::backends,
    rings::unknown_to_the_version,
    ring_addresses::misplaced,
    ring_addresses::missing,
    ring_addresses::of_the_frontend,
    ring_keys::shared,
    ring_keys::without_slash,
    ring_keys::outside_of_the_token,
    rings::unknown_store,
    rings::alone,
    rings::on_the_default_store,
    rings::memberlist_beside_consul,
    rings::consul_host,
    storage::s3_endpoint,
    storage::r2,
    storage::shared_by_two,
    storage::mixed,
    storage::storage_prefix,
    storage::on_this_disk,
    caches::redis,
    caches::addresses,
    caches::unused,
    tenants::checks,
    late_samples::unseen,
    late_samples::young_blocks,
    alerts::nowhere,
    alerts::deprecated_key,
    alerts::events,
    alerts::paths,
    alerts::spaces,
    alertmanager::missing,
    alertmanager::without_fallback,
    alertmanager::unlimited,
    alertmanager::firewall,
    alertmanager::firewall_mismatch,
    alertmanager::state,
    alertmanager::api,
    alertmanager::poll_interval,
    ours::timeouts,
    ours::queries,
    ours::sizes,
    listeners::public,
    shutdown::graceful_leave,
    replication::against_instances,
];

/// Everything that is found in a configuration, by line.
pub fn examine(text: &str, variables: &Variables, assumptions: Assumptions) -> Vec<Finding> {
    let mut findings = expansion::shell_defaults(text);
    match Document::read(&variables.expand(text)) {
        Err(finding) => findings.push(finding),
        // Further findings in it would mislead.
        Ok(document) if wrong_file::other(&document).is_some() => {
            findings = wrong_file::other(&document).into_iter().collect();
        }
        Ok(document) => {
            findings.extend_from_slice(document.faults());
            let profile = Profile { document, assumptions };
            findings.extend(CHECKS.iter().flat_map(|check| check(&profile)));
        }
    }
    // A value that several stores inherit is one fault.
    findings.sort_by(|a, b| (a.line, a.check, &a.key).cmp(&(b.line, b.check, &b.key)));
    findings.dedup_by(|a, b| (a.check, &a.key) == (b.check, &b.key));
    findings
}

/// What is not compared with the proxy's configuration because values are not known, in words: no finding, and no proof
/// of anything either.
pub fn uncompared(text: &str, variables: &Variables, assumptions: Assumptions) -> Option<String> {
    let document = Document::read(&variables.expand(text)).ok()?;
    if wrong_file::other(&document).is_some() {
        return None;
    }
    alerts::uncompared(&Profile { document, assumptions })
}

impl Profile {
    /// The value of a dotted key.
    fn get(&self, key: &str) -> Option<&Node> {
        self.document.get(key)
    }

    /// The text of a dotted key; none if it is absent or empty.
    fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.text().filter(|text| !text.is_empty())
    }

    fn is(&self, key: &str, wanted: bool) -> bool {
        self.get(key).and_then(Node::switch) == Some(wanted)
    }

    fn error(&self, check: &'static str, key: &str, wrong: &str, right: &str) -> Finding {
        self.finding(check, Severity::Error, key, wrong, right)
    }

    fn warning(&self, check: &'static str, key: &str, wrong: &str, right: &str) -> Finding {
        self.finding(check, Severity::Warning, key, wrong, right)
    }

    fn finding(
        &self,
        check: &'static str,
        severity: Severity,
        key: &str,
        wrong: &str,
        right: &str,
    ) -> Finding {
        let (wrong, right) = (expansion::as_written(wrong), expansion::as_written(right));
        Finding {
            check,
            severity,
            key: key.to_owned(),
            line: self.document.line(key),
            wrong,
            right,
        }
    }

    /// Whether a component runs beside those of `target: all`.
    fn targets(&self, component: &str) -> bool {
        let target = self.text("target").unwrap_or("all");
        target.split(',').any(|name| name.trim() == component)
    }

    /// Whether Mimir's own Alertmanager runs: `all` does not include it.
    fn runs_alertmanager(&self) -> bool {
        self.targets("alertmanager") || self.targets("backend")
    }

    /// Whether it is written for Fly.io, where an app has a public address only if its fly.toml asks
    /// for one, and where other machines cannot reach the address that Mimir detects.
    fn is_for_fly(&self) -> bool {
        // Others have names that end in .internal too (AWS, GCP).
        let words = ["⟦FLY_", ".vm.", ".flycast", "fly-local-6pn", "fdaa:"];
        self.document.any_text(&|text| words.iter().any(|word| text.contains(word)))
    }
}

#[cfg(test)]
mod tests;
