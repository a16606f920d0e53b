//! Consul's catalogue as a source of instances: the instances of one service whose checks pass.
//!
//! A blocking query (`index`, `wait`) returns when something has changed, so changes are known
//! immediately without polling. `stale` lets any server answer, even without a leader: a slightly
//! outdated address does no harm here.
//!
//! An entry may have a host name, and a name that cannot be resolved now is no instance that is gone: it
//! keeps the addresses that it had ([`Names`]).
//!
//! No client crate: this is one request with two parameters, and the crates for Consul bring an
//! HTTP client of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use super::instances::Addresses;
use super::lookup::lookup;
use crate::causes::causes;
use crate::config::ConsulConfig;
use crate::http_client::{self, read_limited};

/// One service in one catalogue.
pub(super) struct Catalogue {
    client: reqwest::Client,
    config: ConsulConfig,
    token: Option<HeaderValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: Node,
    service: Service,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(default)]
    address: String,
    port: u16,
}

/// A host and a port, as an entry of the catalogue has them.
type Name = (String, u16);

/// What one read of the catalogue has found.
pub(super) struct Listing {
    /// What each name was resolved to, or why it was not.
    pub(super) names: BTreeMap<Name, Result<Vec<SocketAddr>, String>>,
    /// To wait for a change after it.
    pub(super) index: Option<u64>,
}

/// The addresses that the names in the catalogue had when they were last resolved, and when that was.
#[derive(Default)]
pub(super) struct Names {
    known: BTreeMap<Name, (Vec<SocketAddr>, Instant)>,
    /// Some that could not be resolved the last time keep theirs.
    has_kept: bool,
}

/// How long a name that is not resolved keeps its addresses. A name server is away for minutes; a name that is gone for
/// good may leave its address to another service, which must not get what is meant for Mimir.
const KEPT_FOR: Duration = Duration::from_secs(10 * 60);

/// How long Consul may wait for a change; it adds up to a sixteenth.
pub(super) const WAIT: Duration = Duration::from_secs(60);
/// The time beyond that after which a response is overdue.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the names of one listing may take to be looked up, all together. One that takes longer is not
/// resolved; the others count.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// How many are looked up at the same time: each takes a thread.
const LOOKUPS: usize = 64;
/// The longest response that is read: some thousand instances.
const MAX_ANSWER_BYTES: usize = 8 << 20;

impl Catalogue {
    pub(super) fn new(config: ConsulConfig) -> Result<Self, String> {
        let client = http_client::internal();
        let client = match &config.tls {
            Some(tls) => client.tls_backend_preconfigured((**tls.client()).clone()),
            None => client,
        };
        let client = client.build().map_err(|error| error.to_string())?;
        let token = (!config.token.is_empty()).then(|| {
            HeaderValue::from_bytes(config.token.expose()).map(|mut value| {
                value.set_sensitive(true);
                value
            })
        });
        let token = token.transpose().map_err(|error| format!("consul_token: {error}"))?;
        Ok(Self { client, config, token })
    }

    /// Reads the catalogue; with an index, waits for a change after it, at most for `wait`.
    pub(super) async fn read(&self, index: Option<u64>, wait: Duration) -> Result<Listing, String> {
        // Whole seconds are sent, and 0 means Consul's own default.
        let wait = wait.max(Duration::from_secs(1));
        let longest = index.map_or(Duration::ZERO, |_| wait + wait / 16) + ANSWER_TIMEOUT;
        let late = |_| format!("no answer within {longest:?}");
        let (entries, index) =
            timeout(longest, self.ask(index.map(|index| (index, wait)))).await.map_err(late)??;
        // Several entries may have the same name.
        let names: BTreeSet<Name> = entries.into_iter().map(Entry::name).collect();
        Ok(Listing { names: look_up(names).await, index })
    }

    async fn ask(
        &self,
        after: Option<(u64, Duration)>,
    ) -> Result<(Vec<Entry>, Option<u64>), String> {
        let mut request = self.client.get(self.address(after));
        if let Some(token) = &self.token {
            request = request.header("x-consul-token", token.clone());
        }
        let mut answer = request.send().await.map_err(|error| causes(&error))?;
        if answer.status() != StatusCode::OK {
            return Err(format!("answered {}", answer.status()));
        }
        if is_filtered(answer.headers()) {
            // Some are better than none.
            tracing::warn!(
                "Consul leaves out instances that the token may not read; it needs service:read for the \
                 service and node:read for all its nodes"
            );
        }
        let index = answer.headers().get("x-consul-index");
        let index = index.and_then(|value| value.to_str().ok()?.parse().ok());
        let document = read_limited(&mut answer, MAX_ANSWER_BYTES).await;
        let document = document.map_err(|error| causes(&error))?;
        let entries = serde_json::from_slice(&document)
            .map_err(|error| format!("no list of instances: {error}"))?;
        // 0 is not an index to wait after.
        Ok((entries, index.filter(|index| *index > 0)))
    }

    fn address(&self, after: Option<(u64, Duration)>) -> Url {
        let mut address = self.config.url.clone();
        if let Ok(mut path) = address.path_segments_mut() {
            path.pop_if_empty().extend(["v1", "health", "service", &self.config.service]);
        }
        {
            let mut query = address.query_pairs_mut();
            query.append_pair("passing", "true").append_pair("stale", "");
            if let Some(tag) = &self.config.tag {
                query.append_pair("tag", tag);
            }
            if let Some((index, wait)) = after {
                query.append_pair("index", &index.to_string());
                query.append_pair("wait", &format!("{}s", wait.as_secs()));
            }
        }
        address
    }
}

impl Entry {
    fn name(self) -> Name {
        let host = Some(self.service.address).filter(|host| !host.is_empty());
        let host = host.unwrap_or(self.node.address);
        (host.trim_matches(['[', ']']).to_owned(), self.service.port)
    }
}

/// Whether Consul has left out what the token may not read. The list is shorter then and looks like a
/// whole one. Consul does not say so to a request without a token.
fn is_filtered(headers: &HeaderMap) -> bool {
    let value = headers.get("x-consul-results-filtered-by-acls");
    value.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}

async fn look_up(names: BTreeSet<Name>) -> BTreeMap<Name, Result<Vec<SocketAddr>, String>> {
    let deadline = Instant::now() + LOOKUP_TIMEOUT;
    let look_up_one = |name: Name| async move {
        let found = match timeout_at(deadline, lookup(&name.0, name.1)).await {
            Ok(found) => found.map_err(|error| error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        };
        (name, found)
    };
    stream::iter(names).map(look_up_one).buffer_unordered(LOOKUPS).collect().await
}

impl Listing {
    /// Whether every name was resolved, and there is one.
    pub(super) fn is_whole(&self) -> bool {
        !self.names.is_empty() && self.names.values().all(Result::is_ok)
    }
}

impl Names {
    /// The addresses of all names in a listing. A name that could not be resolved keeps for a while those that it had.
    pub(super) fn update(&mut self, listing: Listing, now: Instant) -> Addresses {
        // An empty list counts as a failure, so nothing is forgotten.
        if listing.names.is_empty() {
            return Addresses::new();
        }
        let before = std::mem::take(&mut self.known);
        self.has_kept = false;
        for (name, found) in listing.names {
            let known = before.get(&name);
            let entry = match found {
                Ok(addresses) => Some((addresses, now)),
                Err(error) => {
                    let kept = known.filter(|(_, at)| now.duration_since(*at) < KEPT_FOR).cloned();
                    let count = kept.as_ref().map_or(0, |(addresses, _)| addresses.len());
                    tracing::warn!(
                        upstream = name.0,
                        error,
                        kept = count,
                        "Address in Consul not resolved"
                    );
                    self.has_kept |= kept.is_some();
                    kept
                }
            };
            if let Some(entry) = entry {
                self.known.insert(name, entry);
            }
        }
        let all: BTreeSet<SocketAddr> =
            self.known.values().flat_map(|(addresses, _)| addresses).copied().collect();
        all.into_iter().filter_map(addressed).collect()
    }

    /// Whether names should be resolved again soon: one that never was, or has not been for long, waits for the next
    /// regular time.
    pub(super) fn has_kept(&self) -> bool {
        self.has_kept
    }
}

fn addressed(address: SocketAddr) -> Option<(SocketAddr, HeaderValue)> {
    HeaderValue::from_str(&address.to_string()).ok().map(|host| (address, host))
}

/// Reads a catalogue once: the instances whose checks pass.
pub async fn read_catalogue(
    config: ConsulConfig,
) -> Result<Vec<(SocketAddr, HeaderValue)>, String> {
    let listing = Catalogue::new(config)?.read(None, WAIT).await?;
    Ok(Names::default().update(listing, Instant::now()))
}

#[cfg(test)]
pub(super) mod tests;
