//! What a reconcile asks of Mimir. A trait, so that tests run whole reconciles against a model of Mimir
//! that refuses, fails and forgets.

use crate::election::lease::{Lease, LeaseLost};
use crate::mimir::alertmanager::{
    AlertmanagerClient, AlertmanagerError, Checked, ConfigurationBody, Redactor,
};
use crate::mimir::retrying;
use crate::tenancy::TenantId;

/// Why Mimir did not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WriteError {
    /// Another copy may lead.
    LeaseLost,
    Mimir(AlertmanagerError),
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
        match self.lease.retrying(call).await {
            Ok(done) => done.map_err(WriteError::Mimir),
            Err(LeaseLost) => Err(WriteError::LeaseLost),
        }
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
