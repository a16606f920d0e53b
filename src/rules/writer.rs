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
        self.write(|| self.client.set_group(tenant, group)).await?;
        self.metrics.group_sets.increment(1);
        Ok(())
    }

    pub(super) async fn delete(&self, tenant: &TenantId, group: &str) -> Result<(), WriteError> {
        self.write(|| self.client.delete_group(tenant, group)).await?;
        self.metrics.group_deletes.increment(1);
        Ok(())
    }

    pub(super) async fn delete_namespace(&self, tenant: &TenantId) -> Result<(), WriteError> {
        self.write(|| self.client.delete_namespace(tenant)).await?;
        self.metrics.group_deletes.increment(1);
        Ok(())
    }

    async fn write<T, F: Future<Output = Result<T, RulerError>>>(
        &self,
        call: impl Fn() -> F,
    ) -> Result<T, WriteError> {
        let mut patience = Patience::default();
        loop {
            // Each attempt asks for the lease anew.
            match self.lease.during(call()).await {
                Err(LeaseLost) => return Err(WriteError::LeaseLost),
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(error)) if patience.waits_after(&error).await => {}
                Ok(Err(error)) => return Err(WriteError::Ruler(error)),
            }
        }
    }
}

/// Asks Mimir, a few times if it cannot answer at once.
pub(super) async fn ask<T, F: Future<Output = Result<T, RulerError>>>(
    call: impl Fn() -> F,
) -> Result<T, RulerError> {
    let mut patience = Patience::default();
    loop {
        match call().await {
            Ok(done) => return Ok(done),
            Err(error) if patience.waits_after(&error).await => {}
            Err(error) => return Err(error),
        }
    }
}

/// The attempts at one call.
#[derive(Default)]
struct Patience {
    attempts: u32,
}

impl Patience {
    /// After a failure: waits and says that it is worth trying again, or says that it is not.
    async fn waits_after(&mut self, error: &RulerError) -> bool {
        let delay = next_delay(self.attempts, error.retry_after(), fastrand::f64());
        self.attempts += 1;
        // A time-out has taken its time already; others wait for the place.
        let is_slow = matches!(error, RulerError::Timeout(_));
        let again =
            error.is_transient() && !is_slow && self.attempts < ATTEMPTS && delay <= LONGEST_WAIT;
        if again {
            sleep(delay).await;
        }
        again
    }
}

impl From<RulerError> for WriteError {
    fn from(error: RulerError) -> Self {
        Self::Ruler(error)
    }
}
