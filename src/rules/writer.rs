//! Calls to Mimir's ruler that are tried again, and writes that are only done while the lease is
//! held.

use std::time::Duration;

use tokio::time::sleep;

use super::lease::{Lease, LeaseLost};
use crate::mimir::ruler::{RuleGroup, RulerClient, RulerError, next_delay};
use crate::telemetry::RuleMetrics;
use crate::tenancy::TenantId;

/// Why a write was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WriteError {
    /// Somebody else may lead.
    LeaseLost,
    /// Mimir did not take it.
    Ruler(RulerError),
}

/// Attempts of one call, in all.
const ATTEMPTS: u32 = 3;
/// What takes longer is not waited for: the tenant comes again later, and others go on.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Writes one namespace of any tenant, while the lease is held.
pub(super) struct Writer<'a> {
    pub(super) client: &'a RulerClient,
    pub(super) lease: &'a Lease,
    pub(super) metrics: &'a RuleMetrics,
}

impl Writer<'_> {
    pub(super) async fn set(&self, tenant: &TenantId, group: &RuleGroup) -> Result<(), WriteError> {
        self.metrics.group_sets.increment(1);
        self.write(|| self.client.set_group(tenant, group)).await
    }

    pub(super) async fn delete(&self, tenant: &TenantId, group: &str) -> Result<(), WriteError> {
        self.metrics.group_deletes.increment(1);
        self.write(|| self.client.delete_group(tenant, group)).await.map(drop)
    }

    pub(super) async fn delete_namespace(&self, tenant: &TenantId) -> Result<(), WriteError> {
        self.metrics.group_deletes.increment(1);
        self.write(|| self.client.delete_namespace(tenant)).await.map(drop)
    }

    async fn write<T, F: Future<Output = Result<T, RulerError>>>(
        &self,
        call: impl Fn() -> F,
    ) -> Result<T, WriteError> {
        // Each attempt asks for the lease anew.
        let attempt = async || match self.lease.during(call()).await {
            Ok(done) => done.map_err(WriteError::Ruler),
            Err(LeaseLost) => Err(WriteError::LeaseLost),
        };
        patiently(attempt, |error| match error {
            WriteError::Ruler(error) => Some(error),
            WriteError::LeaseLost => None,
        })
        .await
    }
}

/// Asks Mimir, a few times if it cannot answer at once.
pub(super) async fn ask<T, F: Future<Output = Result<T, RulerError>>>(
    call: impl Fn() -> F,
) -> Result<T, RulerError> {
    patiently(async || call().await, Some).await
}

async fn patiently<T, E>(
    attempt: impl AsyncFn() -> Result<T, E>,
    of_ruler: impl Fn(&E) -> Option<&RulerError>,
) -> Result<T, E> {
    let mut attempts = 0;
    loop {
        let error = match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let delay = of_ruler(&error)
            .filter(|error| error.is_transient())
            .map(|error| next_delay(attempts, error.retry_after(), fastrand::f64()));
        attempts += 1;
        match delay {
            Some(delay) if attempts < ATTEMPTS && delay <= LONGEST_WAIT => sleep(delay).await,
            _ => return Err(error),
        }
    }
}

impl From<RulerError> for WriteError {
    fn from(error: RulerError) -> Self {
        Self::Ruler(error)
    }
}
