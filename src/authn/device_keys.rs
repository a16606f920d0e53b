//! Looks device keys up: hash -> device, by way of the [`Directory`]. What a key looks like is
//! [`mod@format`].
//!
//! A device's sender cannot renew a token and drops data on a 4xx. So a key is valid until it is
//! revoked or expires, an expired one works during its grace, a known one works while the database
//! is away, and an unknown one is refused only when the database has said that it is unknown. In a
//! table without any key (a restore that is not finished, a `truncate`) each one is unknown, so that
//! says nothing of the device.

pub(super) mod format;
mod guess_delay;
mod last_uses;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::principal::{Device, Principal};
use super::refusal::{DeviceKeyFault, Refusal};
use crate::clock::Clock;
use crate::config::DatabaseConfig;
use crate::directory::{CachePolicy, Directory, Found, Origin, Queue};
use crate::labels::LookupKind;
use crate::store::{DeviceKeyRow, Feed, KeyHash, Store, UsesWritten};
use crate::telemetry::Metrics;

use guess_delay::GuessDelay;
use last_uses::LastUses;

/// All device keys, as far as they are known.
pub struct DeviceKeys {
    directory: Directory<KeyHash, KnownRow>,
    /// Whether there is any key. However much is guessed, that is asked every few seconds.
    any: Directory<(), ()>,
    guess_delay: GuessDelay,
    uses: LastUses,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// What the directories have been asked for.
pub struct DeviceKeyQueue {
    keys: Queue<KeyHash>,
    any: Queue<()>,
}

/// `None` for a key whose row cannot be read.
type KnownRow = Option<Arc<Known>>;

/// What is known of one key.
struct Known {
    row: DeviceKeyRow,
    principal: Arc<Principal>,
    /// When its use was last noted.
    noted: AtomicI64,
    /// When it was last warned that it has expired.
    warned: AtomicI64,
}

/// How long it is remembered whether there is any key.
const ANY_TTL: Duration = Duration::from_secs(5);
/// How exactly the time of the last use is known, in seconds.
const NOTED_EVERY: i64 = 10;
/// How often the use of an expired key is logged, in seconds.
const WARNED_EVERY: i64 = 3600;

impl DeviceKeys {
    pub fn new(
        config: &DatabaseConfig,
        feed: Arc<Feed>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> (Self, DeviceKeyQueue) {
        let policy = CachePolicy::of(config);
        let (directory, keys) = Directory::new(
            "device_key",
            policy,
            Arc::clone(&feed),
            metrics.directory(LookupKind::DeviceKey),
        );
        let policy = CachePolicy { ttl: ANY_TTL, absence_ttl: ANY_TTL, entries: 1, ..policy };
        let (any, asked) = Directory::new(
            "any_device_key",
            policy,
            feed,
            metrics.directory(LookupKind::AnyDeviceKey),
        );
        let (guess_delay, uses) = (GuessDelay::default(), LastUses::default());
        let queue = DeviceKeyQueue { keys, any: asked };
        (Self { directory, any, guess_delay, uses, clock, metrics }, queue)
    }

    /// The device that has a key.
    pub(super) async fn authenticate(
        &self,
        hash: &KeyHash,
        client: IpAddr,
    ) -> Result<(Arc<Principal>, Origin), Refusal> {
        let mut found =
            self.directory.find(hash).await.map_err(|_| Refusal::DatabaseUnavailable)?;
        let mut refusal = Refusal::DeviceKey(DeviceKeyFault::Unknown);
        if found.value.is_none() {
            match self.look_again(hash, found.origin).await {
                Ok(None) => {}
                Ok(Some(again)) => found = again,
                Err(ours) => refusal = ours,
            }
        }
        let Some(known) = found.value else {
            // Only the answer to an unknown key is delayed: others may share the address of a
            // client that guesses.
            self.guess_delay.hold_back(client, &self.metrics).await;
            return Err(refusal);
        };
        // A row of ours that makes no sense is not the device's fault.
        let known = known.ok_or(Refusal::DatabaseUnavailable)?;
        let now = self.clock.unix_seconds();
        self.judge(&known, now).map_err(Refusal::DeviceKey)?;
        if now - known.noted.load(Ordering::Relaxed) >= NOTED_EVERY {
            known.noted.store(now, Ordering::Relaxed);
            self.uses.note(known.row.id, now);
        }
        Ok((Arc::clone(&known.principal), found.origin))
    }

    /// Looks an unknown key up again if the table may have been filled since it was looked up.
    async fn look_again(
        &self,
        hash: &KeyHash,
        origin: Origin,
    ) -> Result<Option<Found<KnownRow>>, Refusal> {
        let any = self.any.find(&()).await.map_err(|_| Refusal::DatabaseUnavailable)?;
        if any.value.is_none() {
            return Err(Refusal::NoDeviceKeys);
        }
        if any.origin.age() > origin.age() {
            return Ok(None);
        }
        let again = self.directory.find_again(hash).await;
        again.map(Some).map_err(|_| Refusal::DatabaseUnavailable)
    }

    fn judge(&self, known: &Known, now: i64) -> Result<(), DeviceKeyFault> {
        match validity(&known.row, now) {
            Validity::Valid => Ok(()),
            Validity::InGrace { left } => {
                self.metrics.device_key_grace_uses.increment(1);
                if now - known.warned.swap(now, Ordering::Relaxed) >= WARNED_EVERY {
                    tracing::warn!(
                        device.id = %known.row.id,
                        organisation.id = %known.row.organisation,
                        grace_seconds_left = left,
                        "Expired device key used within its grace period"
                    );
                }
                Ok(())
            }
            Validity::Not(fault) => Err(fault),
        }
    }

    /// Reads what is asked for and writes when keys were last used, until it is cancelled.
    pub async fn run(
        &self,
        queue: DeviceKeyQueue,
        store: Store,
        every: Duration,
        cancelled: CancellationToken,
    ) {
        let read = |hashes| {
            let store = store.clone();
            async move {
                let rows = store.device_keys(hashes).await?;
                let known = |row: Option<DeviceKeyRow>| row.map(|row| Arc::new(Known::new(row)));
                Ok(rows.into_iter().map(|(hash, row)| (hash, known(row))).collect())
            }
        };
        let read_any = |_| {
            let store = store.clone();
            async move {
                let is_there = store.has_device_keys().await?;
                Ok(is_there.then_some(((), ())).into_iter().collect())
            }
        };
        tokio::join!(
            self.directory.run(queue.keys, read, cancelled.clone()),
            self.any.run(queue.any, read_any, cancelled.clone()),
            self.uses.run(&store, every, &self.metrics, cancelled),
        );
    }

    /// Tells which uses of keys are written.
    pub fn uses_written(&self) -> watch::Receiver<UsesWritten> {
        self.uses.written()
    }

    // First whether there is any: a key that has become unknown is held against that.
    pub fn invalidate(&self, hash: &KeyHash) {
        self.any.invalidate(&());
        self.directory.invalidate(hash);
    }

    pub fn invalidate_all(&self) {
        self.any.invalidate(&());
        self.directory.invalidate_all();
    }
}

impl Known {
    fn new(row: DeviceKeyRow) -> Self {
        let principal = device_of(&row);
        Self { row, principal, noted: AtomicI64::new(0), warned: AtomicI64::new(0) }
    }
}

/// The device of a row, as a principal.
pub(super) fn device_of(row: &DeviceKeyRow) -> Arc<Principal> {
    let device = Device::new(row.id, row.organisation.clone(), row.name.clone(), row.scopes);
    Arc::new(Principal::device(device))
}

#[derive(Debug, PartialEq, Eq)]
enum Validity {
    Valid,
    InGrace { left: i64 },
    Not(DeviceKeyFault),
}

/// Whether a key is good at a time (seconds since the epoch).
fn validity(row: &DeviceKeyRow, now: i64) -> Validity {
    if row.is_revoked {
        return Validity::Not(DeviceKeyFault::Revoked(row.id));
    }
    match row.expires_at {
        None => Validity::Valid,
        Some(end) if now < end => Validity::Valid,
        Some(end) => {
            let left = end.saturating_add(row.grace_seconds).saturating_sub(now);
            if left > 0 {
                Validity::InGrace { left }
            } else {
                let seconds = now.saturating_sub(end);
                Validity::Not(DeviceKeyFault::Expired { device: row.id, seconds })
            }
        }
    }
}

/// Whether a key is good at a time, in words.
pub(super) fn explain_validity(row: &DeviceKeyRow, now: i64) -> Result<String, String> {
    match validity(row, now) {
        Validity::Valid => Ok("valid".to_owned()),
        Validity::InGrace { left } => Ok(format!("expired; its grace lasts another {left} s")),
        Validity::Not(fault) => Err(fault.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenancy::{DeviceId, OrganisationId, Scopes};

    fn row(expires_at: Option<i64>, grace_seconds: i64, is_revoked: bool) -> DeviceKeyRow {
        DeviceKeyRow {
            id: DeviceId(uuid::Uuid::nil()),
            organisation: OrganisationId::parse("a").unwrap(),
            name: String::new(),
            scopes: Scopes::default(),
            expires_at,
            grace_seconds,
            is_revoked,
        }
    }

    #[test]
    fn a_key_is_good_until_the_end_of_its_grace() {
        let key = row(Some(1000), 100, false);
        assert_eq!(validity(&key, 999), Validity::Valid);
        assert_eq!(validity(&key, 1000), Validity::InGrace { left: 100 });
        assert_eq!(validity(&key, 1099), Validity::InGrace { left: 1 });
        let expired = Validity::Not(DeviceKeyFault::Expired { device: key.id, seconds: 100 });
        assert_eq!(validity(&key, 1100), expired);
        assert_eq!(validity(&row(None, 0, false), i64::MAX), Validity::Valid);
    }

    #[test]
    fn a_revoked_key_has_no_grace() {
        assert_eq!(
            validity(&row(Some(1000), 100, true), 0),
            Validity::Not(DeviceKeyFault::Revoked(DeviceId(uuid::Uuid::nil())))
        );
    }
}
