//! What a reconcile asks of Mimir. A trait, so that tests run whole reconciles against a model of Mimir
//! that refuses, fails and forgets.

use std::time::Duration;

use crate::election::lease::{Lease, LeaseLost};
use crate::mimir::alertmanager::{
    AlertmanagerClient, AlertmanagerError, Checked, ConfigurationBody, Redactor,
};
use crate::mimir::{Retriable, retrying};
use crate::tenancy::TenantId;

/// Why Mimir did not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WriteError {
    /// Another copy may lead.
    LeaseLost,
    Mimir(AlertmanagerError),
}

impl Retriable for WriteError {
    fn is_transient(&self) -> bool {
        match self {
            Self::LeaseLost => false,
            Self::Mimir(error) => error.is_transient(),
        }
    }

    fn is_slow(&self) -> bool {
        match self {
            Self::LeaseLost => false,
            Self::Mimir(error) => error.is_slow(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::LeaseLost => None,
            Self::Mimir(error) => error.retry_after(),
        }
    }
}

/// What changes nothing.
pub(crate) trait ReadsMimir: Sync {
    fn stored(
        &self,
    ) -> impl Future<Output = Result<Option<ConfigurationBody>, AlertmanagerError>> + Send;

    /// Has a configuration checked and not stored.
    fn check(
        &self,
        body: &ConfigurationBody,
        redactor: &Redactor,
    ) -> impl Future<Output = Result<Checked, WriteError>> + Send;
}

pub(crate) trait World: ReadsMimir {
    fn set(
        &self,
        body: &ConfigurationBody,
        redactor: &Redactor,
    ) -> impl Future<Output = Result<(), WriteError>> + Send;

    fn delete(&self) -> impl Future<Output = Result<(), WriteError>> + Send;
}

/// The real Mimir. Writes are done only while the lease is held, and so are checks, which look like
/// writes to Mimir.
pub(crate) struct LiveWorld<'a> {
    pub(crate) client: &'a AlertmanagerClient,
    pub(crate) tenant: &'a TenantId,
    pub(crate) lease: &'a Lease,
}

impl LiveWorld<'_> {
    async fn write<T, F: Future<Output = Result<T, AlertmanagerError>>>(
        &self,
        call: impl Fn() -> F,
    ) -> Result<T, WriteError> {
        retrying(move || {
            // Each attempt checks the lease again: it may have ended during the delay.
            let attempt = self.lease.during(call());
            async move {
                match attempt.await {
                    Ok(done) => done.map_err(WriteError::Mimir),
                    Err(LeaseLost) => Err(WriteError::LeaseLost),
                }
            }
        })
        .await
    }
}

/// The real Mimir, for previews.
pub(crate) struct TenantReader<'a> {
    pub(crate) client: &'a AlertmanagerClient,
    pub(crate) tenant: &'a TenantId,
}

impl ReadsMimir for TenantReader<'_> {
    async fn stored(&self) -> Result<Option<ConfigurationBody>, AlertmanagerError> {
        stored(self.client, self.tenant).await
    }

    async fn check(
        &self,
        body: &ConfigurationBody,
        redactor: &Redactor,
    ) -> Result<Checked, WriteError> {
        let checked = self.client.check(self.tenant, body, redactor).await;
        checked.map_err(WriteError::Mimir)
    }
}

impl ReadsMimir for LiveWorld<'_> {
    async fn stored(&self) -> Result<Option<ConfigurationBody>, AlertmanagerError> {
        stored(self.client, self.tenant).await
    }

    async fn check(
        &self,
        body: &ConfigurationBody,
        redactor: &Redactor,
    ) -> Result<Checked, WriteError> {
        self.write(|| self.client.check(self.tenant, body, redactor)).await
    }
}

impl World for LiveWorld<'_> {
    async fn set(&self, body: &ConfigurationBody, redactor: &Redactor) -> Result<(), WriteError> {
        self.write(|| self.client.set(self.tenant, body, redactor)).await
    }

    async fn delete(&self) -> Result<(), WriteError> {
        self.write(|| self.client.delete(self.tenant)).await
    }
}

/// Reads what Mimir has, with retries.
pub(crate) async fn stored(
    client: &AlertmanagerClient,
    tenant: &TenantId,
) -> Result<Option<ConfigurationBody>, AlertmanagerError> {
    retrying(|| client.configuration(tenant)).await
}
