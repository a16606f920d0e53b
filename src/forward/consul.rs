//! Consul's catalogue as a source of instances: the instances of one service whose checks pass.
//!
//! A blocking query (`index`, `wait`) returns when something has changed, so changes are known
//! immediately without polling. `stale` lets any server answer, even without a leader: a slightly
//! outdated address does no harm here.
//!
//! No client crate: this is one request with two parameters, and the crates for Consul bring an
//! HTTP client of their own.

use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use tokio::time::timeout;
use url::Url;

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

/// How long Consul may wait for a change; it adds up to a sixteenth.
const WAIT: Duration = Duration::from_secs(60);
/// The time beyond that after which a response is overdue.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
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

    /// Reads the catalogue; with an index, waits for a change after it. Returns the instances and
    /// the next index.
    pub(super) async fn read(
        &self,
        index: Option<u64>,
    ) -> Result<(Vec<(SocketAddr, HeaderValue)>, Option<u64>), String> {
        let wait = if index.is_some() { WAIT + WAIT / 16 } else { Duration::ZERO };
        let late = |_| format!("no answer within {:?}", wait + ANSWER_TIMEOUT);
        let (entries, index) =
            timeout(wait + ANSWER_TIMEOUT, self.ask(index)).await.map_err(late)??;
        let mut found = Vec::new();
        for entry in entries {
            let host =
                Some(entry.service.address).filter(|a| !a.is_empty()).unwrap_or(entry.node.address);
            match lookup(host.trim_matches(['[', ']']), entry.service.port).await {
                Ok(addresses) => {
                    found.extend(addresses.into_iter().filter_map(|at| {
                        HeaderValue::from_str(&at.to_string()).ok().map(|host| (at, host))
                    }));
                }
                Err(error) => {
                    tracing::warn!(upstream = host, %error, "Address in Consul not resolved");
                }
            }
        }
        Ok((found, index))
    }

    async fn ask(&self, index: Option<u64>) -> Result<(Vec<Entry>, Option<u64>), String> {
        let mut request = self.client.get(self.address(index));
        if let Some(token) = &self.token {
            request = request.header("x-consul-token", token.clone());
        }
        let mut answer = request.send().await.map_err(|error| causes(&error))?;
        if answer.status() != StatusCode::OK {
            return Err(format!("answered {}", answer.status()));
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

    fn address(&self, index: Option<u64>) -> Url {
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
            if let Some(index) = index {
                query.append_pair("index", &index.to_string());
                query.append_pair("wait", &format!("{}s", WAIT.as_secs()));
            }
        }
        address
    }
}

/// Reads a catalogue once: the instances whose checks pass.
pub async fn read_catalogue(
    config: ConsulConfig,
) -> Result<Vec<(SocketAddr, HeaderValue)>, String> {
    Ok(Catalogue::new(config)?.read(None).await?.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn the_address_asks_for_passing_instances_and_waits_for_a_change() {
        let config = ConsulConfig {
            url: Url::parse("https://consul.example.com:8501/prefix/").unwrap(),
            service: "mimir/1".to_owned(),
            tag: Some("http".to_owned()),
            token: Secret::default(),
            tls: None,
        };
        let catalogue = Catalogue::new(config).unwrap();
        let base = "https://consul.example.com:8501/prefix/v1/health/service/mimir%2F1?passing=true&stale=&tag=http";
        assert_eq!(catalogue.address(None).as_str(), base);
        assert_eq!(catalogue.address(Some(7)).as_str(), format!("{base}&index=7&wait=60s"));
    }

    #[test]
    fn an_entry_has_the_address_of_its_service_or_else_of_its_node() {
        let text = r#"[{"Node":{"Address":"10.0.0.1","ID":"x"},"Service":{"Address":"","Port":8080,"Tags":[]},"Checks":[]}]"#;
        let entries: Vec<Entry> = serde_json::from_str(text).unwrap();
        assert_eq!((entries[0].node.address.as_str(), entries[0].service.port), ("10.0.0.1", 8080));
    }
}
