//! The calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use http::{Method, StatusCode};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::configuration::{is_trial_passed, trial};
use super::counters::{Asked, Counters, Found, PageReader, Pages};
use super::error::read_refusal;
use super::readings::Readings;
use super::{AlertmanagerError, ConfigurationBody, Redactor};
use crate::mimir::ExchangeError;
use crate::mimir::instances::Instance;
use crate::mimir::transport::{Ask, MimirConfig, MimirHandle, Transport};
use crate::tenancy::TenantId;

/// The configuration of one tenant, with its secrets. Users never get here.
const CONFIGURATION: &str = "/api/v1/alerts";
const ALERTS: &str = "/alertmanager/api/v2/alerts";
const METRICS: &str = "/metrics";

/// The longest configuration that is read: our own are shorter, and a foreign one need not be whole
/// to be left alone.
const MAX_CONFIGURATION_BYTES: usize = 16 << 20;
/// The longest of all other answers.
const MAX_ANSWER_BYTES: usize = 4 << 20;
/// The longest page of metrics that is read.
const MAX_METRICS_BYTES: usize = 128 << 20;

/// A client of Mimir's Alertmanager. Clones share its connections.
#[derive(Clone, Debug)]
pub struct AlertmanagerClient {
    transport: Arc<Transport>,
    readings: Arc<Readings>,
}

/// What a check of a configuration came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    Valid,
    /// This Mimir accepts what it must refuse, and has stored the configuration. The caller has to
    /// write the right one over it.
    Stored,
}

/// One alert that we send ourselves, to try a channel.
#[derive(Clone, Debug)]
pub struct TestAlert {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub starts_at: OffsetDateTime,
    pub ends_at: OffsetDateTime,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PostedAlert<'a> {
    labels: &'a BTreeMap<String, String>,
    annotations: &'a BTreeMap<String, String>,
    starts_at: String,
    ends_at: String,
}

impl AlertmanagerClient {
    /// A client as configured. It connects when it is first used.
    pub fn new(config: &MimirConfig) -> Result<Self, String> {
        Ok(Self { transport: Arc::new(Transport::new(config)?), readings: Arc::default() })
    }

    /// By which its addresses can be changed.
    pub fn handle(&self) -> MimirHandle {
        MimirHandle(Arc::clone(&self.transport))
    }

    /// What Mimir has stored for a tenant; `None` if nothing. It may be empty, too, as the fallback leaves
    /// it.
    pub async fn configuration(
        &self,
        tenant: &TenantId,
    ) -> Result<Option<ConfigurationBody>, AlertmanagerError> {
        let response = self.transport.send(Ask::new(Method::GET, CONFIGURATION, tenant)).await?;
        match response.status() {
            StatusCode::OK => {
                let body = self.transport.read(response, MAX_CONFIGURATION_BYTES).await?;
                let text = String::from_utf8(body.into());
                let text = text.map_err(|_| ExchangeError::Unreadable("it is no UTF-8".to_owned()));
                Ok(Some(ConfigurationBody::new(text?)))
            }
            StatusCode::NOT_FOUND => {
                let message = self.transport.message(response).await?;
                // Any other 404 is that of something else that listens there.
                if message.contains("alertmanager storage object not found") {
                    return Ok(None);
                }
                Err(AlertmanagerError::NotEnabled)
            }
            _ => Err(self.transport.error(response).await.into()),
        }
    }

    /// Stores a tenant's configuration. Instances load it when they next look, every 15 seconds by
    /// default. `redactor` knows its secrets.
    pub async fn set(
        &self,
        tenant: &TenantId,
        body: &ConfigurationBody,
        redactor: &Redactor,
    ) -> Result<(), AlertmanagerError> {
        self.post_configuration(tenant, body, redactor).await.map(drop)
    }

    /// Has Mimir check a configuration and store nothing. Its API has no dry run, so the request also
    /// holds a template whose name Mimir must refuse, which it checks last.
    pub async fn check(
        &self,
        tenant: &TenantId,
        body: &ConfigurationBody,
        redactor: &Redactor,
    ) -> Result<Checked, AlertmanagerError> {
        // To store what is only to be tried would be worse than not to try it.
        let Some(trial) = trial(body) else { return Ok(Checked::Valid) };
        self.post_configuration(tenant, &trial, redactor).await
    }

    async fn post_configuration(
        &self,
        tenant: &TenantId,
        body: &ConfigurationBody,
        redactor: &Redactor,
    ) -> Result<Checked, AlertmanagerError> {
        let redact = |words: String| redactor.redact(&words);
        let body = body.expose().to_owned();
        let ask = Ask::new(Method::POST, CONFIGURATION, tenant).with("application/yaml", body);
        let response = self.transport.send(ask).await?;
        match response.status() {
            StatusCode::CREATED | StatusCode::OK | StatusCode::ACCEPTED => {
                self.transport.read(response, MAX_ANSWER_BYTES).await?;
                Ok(Checked::Stored)
            }
            StatusCode::BAD_REQUEST => {
                let message = self.transport.message(response).await?;
                // Before anything is masked, which may hit these words.
                if is_trial_passed(&message) {
                    return Ok(Checked::Valid);
                }
                Err(read_refusal(&message, redactor))
            }
            StatusCode::NOT_FOUND => Err(AlertmanagerError::NotEnabled),
            StatusCode::PAYLOAD_TOO_LARGE => {
                Err(AlertmanagerError::Refused("it is too large for this Mimir".to_owned()))
            }
            _ => Err(self.transport.error(response).await.with_words(redact).into()),
        }
    }

    /// Deletes a tenant's configuration; the operator's fallback holds again. To delete none succeeds.
    pub async fn delete(&self, tenant: &TenantId) -> Result<(), AlertmanagerError> {
        let ask = Ask::new(Method::DELETE, CONFIGURATION, tenant);
        let response = self.transport.send(ask).await?;
        match response.status() {
            StatusCode::OK => {
                Ok(self.transport.read(response, MAX_ANSWER_BYTES).await.map(drop)?)
            }
            StatusCode::NOT_FOUND => Err(AlertmanagerError::NotEnabled),
            _ => Err(self.transport.error(response).await.into()),
        }
    }

    /// Sends one alert to a tenant's Alertmanager.
    pub async fn post_alert(
        &self,
        tenant: &TenantId,
        alert: &TestAlert,
    ) -> Result<(), AlertmanagerError> {
        let at = |time: OffsetDateTime| time.format(&Rfc3339).unwrap_or_default();
        let posted = [PostedAlert {
            labels: &alert.labels,
            annotations: &alert.annotations,
            starts_at: at(alert.starts_at),
            ends_at: at(alert.ends_at),
        }];
        let body = serde_json::to_string(&posted)
            .map_err(|error| ExchangeError::Unreadable(error.to_string()))?;
        let ask = Ask::new(Method::POST, ALERTS, tenant).with("application/json", body);
        let response = self.transport.send(ask).await?;
        match response.status() {
            StatusCode::OK => {
                Ok(self.transport.read(response, MAX_ANSWER_BYTES).await.map(drop)?)
            }
            StatusCode::PRECONDITION_FAILED => Err(AlertmanagerError::NotConfigured),
            StatusCode::NOT_ACCEPTABLE => Err(AlertmanagerError::NotLoaded),
            StatusCode::NOT_FOUND => Err(AlertmanagerError::NotEnabled),
            _ => Err(self.transport.error(response).await.into()),
        }
    }

    /// What each instance has counted of one tenant's notifications by one integration; `None` for one that
    /// gave no answer. All who ask share readings, so an answer may take a second longer.
    pub async fn counters(
        &self,
        tenant: &TenantId,
        integration: &str,
    ) -> BTreeMap<String, Option<Counters>> {
        let asked =
            Asked { tenant: tenant.as_str().to_owned(), integration: integration.to_owned() };
        self.readings.share(asked, |everything| self.read_instances(everything)).await
    }

    async fn read_instances(&self, asked: Found) -> Pages {
        let instances = self.transport.instances().await;
        let read = instances.iter().map(async |instance| {
            let page = self.page(instance, asked.clone()).await;
            // The text of an address is not shown; it tells one instance from another.
            (format!("{instance:?}"), page.ok())
        });
        join_all(read).await.into_iter().collect()
    }

    async fn page(&self, instance: &Instance, mut found: Found) -> Result<Found, ExchangeError> {
        let mut response = self.transport.send_to(instance, METRICS).await?;
        if response.status() != StatusCode::OK {
            return Err(self.transport.error(response).await);
        }
        let mut page = PageReader::default();
        let mut bytes = 0;
        while let Some(piece) = self.transport.piece(&mut response).await? {
            bytes += piece.len();
            if bytes > MAX_METRICS_BYTES {
                let problem = format!("the metrics are longer than {MAX_METRICS_BYTES} bytes");
                return Err(ExchangeError::Unreadable(problem));
            }
            page.push(&piece, &mut found);
        }
        Ok(found)
    }
}
