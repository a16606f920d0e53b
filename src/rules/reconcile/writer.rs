//! Calls to Mimir's ruler, with retries. Writes are done only while the lease is held.

use crate::election::lease::{Lease, LeaseLost};
use crate::mimir::Attempts;
use crate::mimir::ruler::{RuleGroup, RulerClient, RulerError};
use crate::telemetry::RuleMetrics;
use crate::tenancy::TenantId;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WriteError {
    /// Another copy may lead.
    LeaseLost,
    Ruler(RulerError),
}

/// Writes our namespace of any tenant.
pub(crate) struct Writer<'a> {
    pub(crate) client: &'a RulerClient,
    pub(crate) lease: &'a Lease,
    pub(crate) metrics: &'a RuleMetrics,
}

impl Writer<'_> {
    pub(crate) async fn set(&self, tenant: &TenantId, group: &RuleGroup) -> Result<(), WriteError> {
        self.write(|| self.client.set_group(tenant, group)).await?;
        self.metrics.group_sets.increment(1);
        Ok(())
    }

    pub(crate) async fn delete(&self, tenant: &TenantId, group: &str) -> Result<(), WriteError> {
        self.write(|| self.client.delete_group(tenant, group)).await?;
        self.metrics.group_deletes.increment(1);
        Ok(())
    }

    pub(crate) async fn delete_namespace(&self, tenant: &TenantId) -> Result<(), WriteError> {
        self.write(|| self.client.delete_namespace(tenant)).await?;
        self.metrics.group_deletes.increment(1);
        Ok(())
    }

    async fn write<T, F: Future<Output = Result<T, RulerError>>>(
        &self,
        call: impl Fn() -> F,
    ) -> Result<T, WriteError> {
        let mut attempts = Attempts::default();
        loop {
            // Each attempt checks the lease again: it may have ended during the delay.
            match self.lease.during(call()).await {
                Err(LeaseLost) => return Err(WriteError::LeaseLost),
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(error)) if attempts.waits_after(&error).await => {}
                Ok(Err(error)) => return Err(WriteError::Ruler(error)),
            }
        }
    }
}

/// Asks Mimir, with retries.
pub(crate) async fn ask<T, F: Future<Output = Result<T, RulerError>>>(
    call: impl Fn() -> F,
) -> Result<T, RulerError> {
    let mut attempts = Attempts::default();
    loop {
        match call().await {
            Ok(done) => return Ok(done),
            Err(error) if attempts.waits_after(&error).await => {}
            Err(error) => return Err(error),
        }
    }
}

impl From<RulerError> for WriteError {
    fn from(error: RulerError) -> Self {
        Self::Ruler(error)
    }
}
