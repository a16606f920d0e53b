//! Writes to Mimir's ruler, with retries. They are done only while the lease is held.

use crate::election::lease::{Lease, LeaseLost};
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
        match self.lease.retrying(call).await {
            Ok(done) => done.map_err(WriteError::Ruler),
            Err(LeaseLost) => Err(WriteError::LeaseLost),
        }
    }
}

impl From<RulerError> for WriteError {
    fn from(error: RulerError) -> Self {
        Self::Ruler(error)
    }
}
