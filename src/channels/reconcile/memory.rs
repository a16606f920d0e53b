//! What the leader remembers of one organisation between two reconciles. All of it may be lost: it only
//! saves requests, and keeps statuses from flickering while Mimir is away.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::channels::spec::{LeftOut, Omissions, Rows};
use crate::config::Secret;
use crate::store::{ChannelRow, RouteRow};

#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Rows as they were when Mimir last had what they ask for, by digests that mean nothing outside of
    /// this process: rows hold secrets.
    written: HashMap<Uuid, u64>,
    /// What Mimir has refused, by its row's digest, so that an edited row is a new one.
    quarantine: HashMap<Uuid, Quarantined>,
    /// The limit on a request's size that Mimir has shown.
    limit: Option<(usize, Instant)>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Quarantined {
    row: u64,
    words: String,
    since: Instant,
}

/// After this time what was refused is tried again: Mimir may have been upgraded, or its limits raised.
const QUARANTINE: Duration = Duration::from_secs(3600);

/// Of what Mimir says about a refusal, so many characters are kept.
const LONGEST_WORDS: usize = 1000;

impl Memory {
    /// A sync was requested: everything is tried again.
    pub(crate) fn expire(&mut self) {
        self.quarantine.clear();
        self.limit = None;
    }

    /// Forgets what is due to be tried again.
    pub(crate) fn tidy(&mut self, rows: &Rows) {
        let now = self.digests(rows);
        self.quarantine.retain(|id, refused| {
            now.get(id) == Some(&refused.row) && refused.since.elapsed() < QUARANTINE
        });
        self.limit = self.limit.filter(|(_, since)| since.elapsed() < QUARANTINE);
    }

    /// What is left out, with Mimir's words.
    pub(crate) fn left_out(&self, rows: &Rows) -> Omissions {
        if self.quarantine.is_empty() {
            return Omissions::new();
        }
        let now = self.digests(rows);
        let refused =
            self.quarantine.iter().filter(|(id, refused)| now.get(id) == Some(&refused.row));
        refused.map(|(id, refused)| (*id, LeftOut::Refused(refused.words.clone()))).collect()
    }

    pub(crate) fn quarantine(&mut self, rows: &Rows, refused: BTreeMap<Uuid, String>) {
        let now = self.digests(rows);
        for (id, words) in refused {
            let row = now.get(&id).copied().unwrap_or_default();
            let words = words.chars().take(LONGEST_WORDS).collect();
            self.quarantine.insert(id, Quarantined { row, words, since: Instant::now() });
        }
    }

    pub(crate) fn limit(&self) -> Option<usize> {
        self.limit.map(|(limit, _)| limit)
    }

    pub(crate) fn learn_limit(&mut self, limit: usize) {
        self.limit = Some((limit, Instant::now()));
    }

    /// Mimir has what these rows ask for.
    pub(crate) fn remember(&mut self, rows: &Rows) {
        self.written = self.digests(rows);
    }

    /// Whether a row is as it was then; none if nothing is remembered of it, as after a restart.
    pub(crate) fn is_as_written(&self, rows: &Rows, id: Uuid) -> Option<bool> {
        let written = self.written.get(&id)?;
        let channel = rows.channels.iter().find(|row| row.id == id).map(|row| self.channel(row));
        let route = || rows.routes.iter().find(|row| row.id == id).map(|row| self.route(row));
        Some(channel.or_else(route) == Some(*written))
    }

    fn digests(&self, rows: &Rows) -> HashMap<Uuid, u64> {
        let channels = rows.channels.iter().map(|row| (row.id, self.channel(row)));
        channels.chain(rows.routes.iter().map(|row| (row.id, self.route(row)))).collect()
    }

    fn channel(&self, row: &ChannelRow) -> u64 {
        let ChannelRow { id, organisation, name, kind, settings, secrets, .. } = row;
        let ChannelRow { enabled, is_default, created_at_micros, excess, .. } = row;
        let mut hasher = self.hasher.build_hasher();
        (id, organisation, name, kind, settings).hash(&mut hasher);
        (enabled, is_default, created_at_micros, excess).hash(&mut hasher);
        secrets.as_ref().map(Secret::expose).hash(&mut hasher);
        hasher.finish()
    }

    fn route(&self, row: &RouteRow) -> u64 {
        self.hasher.hash_one(row)
    }
}
