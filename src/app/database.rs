//! What a database adds: memberships, device keys, revocations, and the feed that keeps them
//! fresh.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authn::{DeviceKeyQueue, DeviceKeys, Revocations, Sessions, Tables};
use crate::authz::{Memberships, Organisations};
use crate::clock::Clock;
use crate::config::{Config, DatabaseConfig};
use crate::directory::Queue;
use crate::limits::Limits;
use crate::rules::Triggers;
use crate::store::{Feed, Store, StoreError, TableChange};
use crate::telemetry::Metrics;
use crate::tenancy::{OrganisationId, UserId};

/// How long the check of the database may delay the start.
const FIRST_CHECK: Duration = Duration::from_secs(30);
/// How often requested syncs are read while notifications do not arrive.
const UNHEARD_REQUESTS: Duration = Duration::from_secs(2);

/// Everything that comes from the database.
pub(super) struct Database {
    pub(super) store: Store,
    pub(super) feed: Arc<Feed>,
    /// The memberships, if the table counts.
    pub(super) memberships: Option<Arc<Memberships>>,
    /// The organisations, if there is a table of all of them.
    pub(super) organisations: Option<Arc<Organisations>>,
    pub(super) device_keys: Arc<DeviceKeys>,
    pub(super) revocations: Arc<Revocations>,
    sessions: Option<Arc<Sessions>>,
    queues: Queues,
    pub(super) last_used_interval: Duration,
}

/// The queues of the directories, to be served by [`Database::run`].
struct Queues {
    memberships: Option<Queue<UserId>>,
    device_keys: DeviceKeyQueue,
    sessions: Option<Queue<uuid::Uuid>>,
    organisations: Option<Queue<OrganisationId>>,
}

impl Database {
    pub(super) fn new(
        config: &Config,
        database: &DatabaseConfig,
        clock: &Clock,
        metrics: &Arc<Metrics>,
    ) -> io::Result<Self> {
        let store = Store::new(database, config.tables_read()).map_err(unfit)?;
        let feed = Arc::new(Feed::default());
        let (device_keys, device_key_queue) =
            DeviceKeys::new(database, Arc::clone(&feed), clock.clone(), Arc::clone(metrics));
        let memberships = config
            .tenancy
            .membership
            .reads_table()
            .then(|| Memberships::new(database, Arc::clone(&feed), metrics));
        let sessions =
            config.auth.check_sessions.then(|| Sessions::new(database, Arc::clone(&feed), metrics));
        let organisations = config
            .tables_read()
            .organisations
            .then(|| Organisations::new(database, Arc::clone(&feed), metrics));
        let (organisations, organisation_queue) = organisations.unzip();
        let (memberships, membership_queue) = memberships.unzip();
        let (sessions, session_queue) = sessions.unzip();
        Ok(Self {
            store,
            feed,
            memberships: memberships.map(Arc::new),
            organisations: organisations.map(Arc::new),
            device_keys: Arc::new(device_keys),
            revocations: Arc::new(Revocations::new(database.stale_max_age, Arc::clone(metrics))),
            sessions: sessions.map(Arc::new),
            queues: Queues {
                memberships: membership_queue,
                device_keys: device_key_queue,
                sessions: session_queue,
                organisations: organisation_queue,
            },
            last_used_interval: database.last_used_interval,
        })
    }

    /// Checks the database once. One that does not fit is a configuration error; one that is away is
    /// not waited for.
    pub(super) async fn check(&self) -> io::Result<()> {
        let checked = tokio::time::timeout(FIRST_CHECK, self.store.check_all()).await;
        match checked {
            Ok(Err(error @ StoreError::Unfit(_))) => Err(unfit(error)),
            Ok(Err(error)) => {
                tracing::warn!(%error, "Started without the database");
                Ok(())
            }
            Err(_) => {
                tracing::warn!("Started without the database: no answer");
                Ok(())
            }
            Ok(Ok(())) => Ok(()),
        }
    }

    pub(super) fn tables(&self) -> Tables {
        Tables {
            device_keys: Some(Arc::clone(&self.device_keys)),
            revocations: Some(Arc::clone(&self.revocations)),
            sessions: self.sessions.clone(),
        }
    }

    /// Starts reading, listening and writing. Triggers of alert rules and of channels go to their sync, if
    /// this copy has one; limits of organisations to where they hold, if they are read.
    pub(super) fn run(
        self,
        (triggers, channels): (Option<Arc<Triggers>>, Option<Arc<Triggers>>),
        limits: Option<Arc<Limits>>,
        background: &TaskTracker,
        cancelled: &CancellationToken,
    ) {
        let Self { store, feed, memberships, organisations, device_keys, queues, .. } = self;
        let Self { revocations, sessions, .. } = self;
        if let (Some(memberships), Some(queue)) = (memberships.clone(), queues.memberships) {
            let (store, cancelled) = (store.clone(), cancelled.clone());
            background.spawn(async move { memberships.run(queue, store, cancelled).await });
        }
        if let (Some(sessions), Some(queue)) = (sessions.clone(), queues.sessions) {
            let (store, cancelled) = (store.clone(), cancelled.clone());
            background.spawn(async move { sessions.run(queue, store, cancelled).await });
        }
        if let (Some(organisations), Some(queue)) = (organisations.clone(), queues.organisations) {
            let (store, cancelled) = (store.clone(), cancelled.clone());
            background.spawn(async move { organisations.run(queue, store, cancelled).await });
        }
        let every = self.last_used_interval;
        background.spawn({
            let (keys, store, cancelled) =
                (Arc::clone(&device_keys), store.clone(), cancelled.clone());
            async move { Box::pin(keys.run(queues.device_keys, store, every, cancelled)).await }
        });
        background.spawn({
            let (revocations, feed) = (Arc::clone(&revocations), Arc::clone(&feed));
            let (store, cancelled) = (store.clone(), cancelled.clone());
            async move { revocations.run(store, feed, cancelled).await }
        });
        background.spawn({
            let (revocations, store) = (Arc::clone(&revocations), store.clone());
            let cancelled = cancelled.clone();
            async move { revocations.tidy(store, cancelled).await }
        });
        if let Some(limits) = limits.clone() {
            let (store, feed) = (store.clone(), Arc::clone(&feed));
            let cancelled = cancelled.clone();
            background.spawn(async move { limits.run_rows(store, feed, cancelled).await });
        }
        if let Some(triggers) = triggers.clone() {
            let (feed, cancelled) = (Arc::clone(&feed), cancelled.clone());
            background.spawn(ask_for_requests(feed, triggers, cancelled));
        }
        let told = Told {
            memberships,
            sessions,
            organisations,
            device_keys,
            revocations,
            limits,
            triggers,
            channels,
        };
        let cancelled = cancelled.clone();
        background.spawn(async move {
            feed.run(store, |change| told.of(change), cancelled).await;
        });
    }
}

/// Who is told what has changed in the tables.
struct Told {
    memberships: Option<Arc<Memberships>>,
    sessions: Option<Arc<Sessions>>,
    organisations: Option<Arc<Organisations>>,
    device_keys: Arc<DeviceKeys>,
    revocations: Arc<Revocations>,
    limits: Option<Arc<Limits>>,
    triggers: Option<Arc<Triggers>>,
    channels: Option<Arc<Triggers>>,
}

impl Told {
    fn of(&self, change: TableChange) {
        match (change, &self.memberships, &self.sessions) {
            // What was read before is read again by its epoch; revocations and limits have none.
            (TableChange::Anything, _, _) => {
                self.revocations.refresh();
                if let Some(limits) = &self.limits {
                    limits.refresh_rows();
                }
                if let Some(triggers) = &self.triggers {
                    triggers.everything();
                }
                if let Some(channels) = &self.channels {
                    channels.everything();
                }
            }
            (TableChange::AlertRules(organisation), _, _) => {
                // Organisations that come and go are announced by the same trigger.
                if let Some(all) = &self.organisations {
                    all.expire(&organisation);
                }
                if let Some(triggers) = &self.triggers {
                    triggers.organisation(organisation);
                }
            }
            (TableChange::AllAlertRules, _, _) => {
                if let Some(all) = &self.organisations {
                    all.expire_all();
                }
                if let Some(triggers) = &self.triggers {
                    triggers.everything();
                }
            }
            (TableChange::AlertRuleRequest, _, _) => {
                if let Some(triggers) = &self.triggers {
                    triggers.request();
                }
            }
            (TableChange::Channels(organisation), _, _) => {
                if let Some(channels) = &self.channels {
                    channels.organisation(organisation);
                }
            }
            (TableChange::AllChannels, _, _) => {
                if let Some(channels) = &self.channels {
                    channels.everything();
                }
            }
            (TableChange::Limits, _, _) => {
                if let Some(limits) = &self.limits {
                    limits.refresh_rows();
                }
            }
            (TableChange::Revocations, _, _) => self.revocations.invalidate(),
            (TableChange::DeviceKey(hash), _, _) => self.device_keys.invalidate(&hash),
            (TableChange::DeviceKeys, _, _) => self.device_keys.invalidate_all(),
            (TableChange::Membership(user), Some(all), _) => all.invalidate(&user),
            (TableChange::Memberships, Some(all), _) => all.invalidate_all(),
            (TableChange::Session(session), _, Some(all)) => all.invalidate(&session),
            (TableChange::Sessions, _, Some(all)) => all.invalidate_all(),
            // These tables are not read here.
            (TableChange::Membership(_) | TableChange::Memberships, None, _)
            | (TableChange::Session(_) | TableChange::Sessions, _, None) => {}
        }
    }
}

/// Reads requested syncs at intervals while notifications do not arrive: a caller waits for each of them.
async fn ask_for_requests(feed: Arc<Feed>, triggers: Arc<Triggers>, cancelled: CancellationToken) {
    while tokio::time::timeout(UNHEARD_REQUESTS, cancelled.cancelled()).await.is_err() {
        if !feed.is_connected() {
            triggers.request();
        }
    }
}

/// Why another login is not used.
pub(super) struct NotUsed {
    pub(super) problem: String,
    /// Whether the server has refused it.
    pub(super) is_refused: bool,
}

/// Logs in as another configuration says. It is used only if all that is checked at the start is right, and if it leads
/// to the database of a store that is in use: a pooler may choose the server by the login.
pub(super) async fn log_in(config: &Config, current: &Store) -> Result<Store, NotUsed> {
    let not_used = |problem: &str| NotUsed { problem: problem.to_owned(), is_refused: false };
    let Some(database) = &config.database else { return Err(not_used("is missing")) };
    let store = Store::new(database, config.tables_read());
    let store = store.map_err(|error| not_used(&error.to_string()))?;
    let checking = async {
        store.check_all().await?;
        if store.has_user_of(current) {
            return Ok(());
        }
        store.check_privileges().await?;
        store.check_bans_like(current)
    };
    match tokio::time::timeout(FIRST_CHECK, checking).await {
        Err(_) => Err(not_used(&format!("the database gave no answer in {FIRST_CHECK:?}"))),
        Ok(Err(error)) => {
            Err(NotUsed { problem: error.to_string(), is_refused: store.is_login_refused() })
        }
        Ok(Ok(())) if !current.is_same_database(&store) => Err(not_used(
            "leads to another database than the one in use, or to one that does not say which it is; restart the \
             proxy, or put the old address back",
        )),
        Ok(Ok(())) => Ok(store),
    }
}

/// A database that is not as it must be, as a fault of the configuration.
fn unfit(error: StoreError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error.to_string())
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    // Without notifications a requested sync waited for the next full resync, five minutes later. Its caller had timed out
    // by then.
    #[tokio::test(start_paused = true)]
    async fn requests_are_asked_for_while_notifications_do_not_arrive() {
        let (feed, triggers) = (Arc::new(Feed::default()), Arc::new(Triggers::default()));
        let cancelled = CancellationToken::new();
        let asking = ask_for_requests(Arc::clone(&feed), Arc::clone(&triggers), cancelled.clone());
        let asking = tokio::spawn(asking);
        let asked = async || timeout(2 * UNHEARD_REQUESTS, triggers.taken()).await;
        assert!(asked().await.is_ok_and(|taken| taken.requests && !taken.everything));
        feed.begin();
        assert!(asked().await.is_err(), "they are notified of");
        feed.end();
        assert!(asked().await.is_ok_and(|taken| taken.requests));
        cancelled.cancel();
        asking.await.unwrap();
    }
}
