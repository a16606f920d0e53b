//! The feed of changes: Postgres' notifications, and whether they can be relied on.
//!
//! A notification says what to read again. While the `LISTEN` connection is lost, notifications are
//! lost with it; so each new connection begins a new *epoch*, and what was read in an earlier epoch
//! is read again before it is used.
//!
//! A dead connection looks like silence. A heartbeat finds it within a second. A pooler that has become a transaction
//! pooler looks like silence as well, and answers heartbeats: notifications go to a session that nobody listens to. So
//! each heartbeat asks whether its session listens, and every few seconds a notification of our own has to come back.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgListener, PgNotification};
use sqlx::{AssertSqlSafe, Executor as _, Row as _};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::connect::Sessions;
use super::{KeyHash, Store, StoreError};
use crate::backoff::Backoff;
use crate::clock;
use crate::tenancy::{OrganisationId, UserId};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableChange {
    /// Anything may have changed: the feed begins or ends.
    Anything,
    Membership(UserId),
    Memberships,
    DeviceKey(Box<KeyHash>),
    DeviceKeys,
    Revocations,
    Session(Uuid),
    Sessions,
    /// One organisation's alert rules, or itself.
    AlertRules(OrganisationId),
    AllAlertRules,
    AlertRuleRequest,
    /// One organisation's notification channels or routes.
    Channels(OrganisationId),
    AllChannels,
    /// Limits of organisations.
    Limits,
}

#[derive(Debug, Default)]
pub struct Feed {
    epoch: AtomicU64,
    connected: AtomicBool,
    /// Whether the database did not answer at all when last asked.
    away: AtomicBool,
}

/// The channel that the triggers of `migrations/` write to.
pub(super) const CHANNEL: &str = "mimir_tenant_proxy";
const HEARTBEAT: Duration = Duration::from_millis(400);
const HEARTBEAT_TIMEOUT: Duration = Duration::from_millis(600);
/// How long it may take until a connection listens.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// The time between two notifications of our own.
const PROOF: Duration = Duration::from_secs(5);
/// The number of the first of them.
const FIRST_ECHO: u64 = 1;
/// How long a notification of our own may take to come back.
const ECHO_TIMEOUT: Duration = Duration::from_secs(3);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(2);

impl Feed {
    /// Goes up whenever changes may have been missed: also when the machine was suspended, before it shows that the
    /// connection did not outlive that.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire) + clock::absences()
    }

    /// Whether the `LISTEN` connection stands.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// Whether the database is known to be away: it cannot be reached or does not answer. A lost
    /// `LISTEN` connection alone does not say so.
    pub fn is_away(&self) -> bool {
        self.away.load(Ordering::Acquire)
    }

    /// Notes whether the database answers; look-ups tell it too.
    pub(crate) fn note_away(&self, away: bool) {
        self.away.store(away, Ordering::Release);
    }

    pub(crate) fn begin(&self) {
        self.note_away(false);
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.connected.store(true, Ordering::Release);
    }

    pub(crate) fn end(&self) {
        self.connected.store(false, Ordering::Release);
    }

    /// Listens until it is cancelled, and reports each change.
    pub async fn run(
        &self,
        store: Store,
        on_change: impl Fn(TableChange),
        cancelled: CancellationToken,
    ) {
        let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        loop {
            let listened = tokio::select! {
                () = cancelled.cancelled() => return,
                listened = self.listen(&store, &on_change) => listened,
            };
            let was_connected = self.is_connected();
            let is_pooled = listened == Err(behind_a_pooler());
            store.0.server.note_sessions(if is_pooled {
                Sessions::Lost
            } else {
                Sessions::Unknown
            });
            if was_connected {
                backoff.reset();
                self.end();
                on_change(TableChange::Anything);
            }
            if let Err(error) = listened {
                self.note_away(matches!(error, StoreError::Unreachable(_)));
                if was_connected {
                    tracing::warn!(%error, "LISTEN connection lost");
                } else {
                    tracing::warn!(%error, "LISTEN connection not established");
                }
            }
            tokio::select! {
                () = cancelled.cancelled() => return,
                () = sleep(backoff.next_wait()) => {}
            }
        }
    }

    async fn listen(
        &self,
        store: &Store,
        on_change: &impl Fn(TableChange),
    ) -> Result<(), StoreError> {
        let connecting = timeout(CONNECT_TIMEOUT, store.listener()).await;
        let mut listening = connecting.map_err(|_| lost("no answer"))??;
        store.0.server.note_sessions(Sessions::Kept);
        self.begin();
        tracing::info!("LISTEN connection established");
        on_change(TableChange::Anything);

        let mut next_beat = Instant::now() + HEARTBEAT;
        // The last echo that was sent, and when it has to be back.
        let (mut sent, mut due) = (FIRST_ECHO, None);
        let channel = listening.echo.clone();
        let mut sending = pin!(store.send_echo_later(&channel, sent + 1));
        loop {
            tokio::select! {
                received = listening.listener.try_recv() => match received? {
                    Some(notification) => listening.take(&notification, on_change),
                    None => return Err(lost("the connection was closed")),
                },
                () = sleep_until(next_beat) => {
                    listening.beat().await?;
                    // The server answers, whatever a look-up has met.
                    self.note_away(false);
                    next_beat = Instant::now() + HEARTBEAT;
                }
                was_sent = &mut sending => {
                    // One that could not be sent proves nothing.
                    if was_sent.is_ok() {
                        (sent, due) = (sent + 1, Some(Instant::now() + ECHO_TIMEOUT));
                    }
                    sending.set(store.send_echo_later(&channel, sent + 1));
                }
                () = until(due) => {
                    listening.must_have_heard(sent, on_change).await?;
                    due = None;
                }
            }
        }
    }
}

/// Never, if there is no such time.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// A connection that listens.
struct Listening {
    listener: PgListener,
    /// The channel of notifications of our own.
    echo: String,
    /// The number of the last of them that came back.
    heard: u64,
}

impl Listening {
    fn take(&mut self, notification: &PgNotification, on_change: impl Fn(TableChange)) {
        if notification.channel() == self.echo {
            self.heard = notification.payload().parse().unwrap_or(self.heard);
        } else if let Some(change) = read(notification) {
            on_change(change);
        }
    }

    /// Asks whether the session listens. As one message: a prepared statement is two, which a transaction pooler may
    /// send to two servers.
    async fn beat(&mut self) -> Result<(), StoreError> {
        let sql = format!(
            "select count(*) as channels from pg_listening_channels() as channel \
             where channel in ('{CHANNEL}', '{}')",
            self.echo
        );
        let asked = self.listener.fetch_one(sqlx::raw_sql(AssertSqlSafe(sql)));
        let row = timeout(HEARTBEAT_TIMEOUT, asked).await.map_err(|_| heartbeat_failed())??;
        if row.try_get::<i64, _>("channels")? == 2 { Ok(()) } else { Err(behind_a_pooler()) }
    }

    /// Its time is over. If the connection answers a query, the database is not merely slow; and what has arrived is in
    /// the buffer after that, if it was this process that stood still.
    async fn must_have_heard(
        &mut self,
        number: u64,
        on_change: impl Fn(TableChange),
    ) -> Result<(), StoreError> {
        self.beat().await?;
        while let Some(notification) = self.listener.next_buffered() {
            self.take(&notification, &on_change);
        }
        if self.heard < number { Err(behind_a_pooler()) } else { Ok(()) }
    }
}

pub(super) fn behind_a_pooler() -> StoreError {
    StoreError::Unfit(
        "notifications (LISTEN) do not arrive, as behind a transaction pooler; use the direct \
         connection or the session pooler, both on port 5432 on Supabase"
            .to_owned(),
    )
}

fn heartbeat_failed() -> StoreError {
    StoreError::Unreachable("no answer to the heartbeat".to_owned())
}

fn lost(why: &str) -> StoreError {
    StoreError::Unavailable(why.to_owned())
}

impl Store {
    /// A connection that listens, proven by a notification of our own: a transaction pooler accepts
    /// `LISTEN` and then delivers nothing.
    async fn listener(&self) -> Result<Listening, StoreError> {
        let mut listener = self.0.server.listener().await?;
        listener.eager_reconnect(false);
        let echo = format!("{CHANNEL}_echo_{}", Uuid::new_v4().simple());
        listener.listen_all([CHANNEL, &echo]).await?;
        let mut listening = Listening { listener, echo, heard: 0 };
        self.send_echo(&listening.echo, FIRST_ECHO).await?;
        // A change during the proof is covered: everything is read again after it.
        let ignored = |_: TableChange| {};
        let heard = timeout(ECHO_TIMEOUT, async {
            while listening.heard < FIRST_ECHO {
                match listening.listener.try_recv().await? {
                    Some(notification) => listening.take(&notification, ignored),
                    None => return Err(lost("the connection was closed")),
                }
            }
            Ok(())
        });
        match heard.await {
            Ok(heard) => heard?,
            Err(_) => listening.must_have_heard(FIRST_ECHO, ignored).await?,
        }
        Ok(listening)
    }

    /// Notifies a listening connection of ours, by another one. It may come back on the session that listens, which
    /// then answers the other connection: that is proof as well.
    async fn send_echo(&self, channel: &str, number: u64) -> Result<(), StoreError> {
        // Not a prepared statement: a transaction pooler would fail on that, with a worse text.
        let notify = AssertSqlSafe(format!("select pg_notify('{channel}', '{number}')"));
        let mut connection = self.0.server.acquire(&self.0.side).await?;
        let sent = connection.execute(sqlx::raw_sql(notify)).await;
        sent.map(drop).map_err(|error| match error {
            sqlx::Error::Protocol(_) => behind_a_pooler(),
            error => error.into(),
        })
    }

    async fn send_echo_later(&self, channel: &str, number: u64) -> Result<(), StoreError> {
        sleep(PROOF).await;
        let (store, channel) = (self.clone(), channel.to_owned());
        self.run(async move { store.send_echo(&channel, number).await }).await
    }

    /// Proves that a connection leads to one session for as long as it lasts, if nothing has proven that yet.
    pub(super) async fn prove_sessions(&self) -> Result<(), StoreError> {
        let proven = self.listener().await.map(drop);
        if proven == Err(behind_a_pooler()) {
            self.0.server.note_sessions(Sessions::Lost);
        }
        proven
    }

    /// Checks once that notifications arrive.
    pub async fn check_notifications(&self) -> Result<(), StoreError> {
        let store = self.clone();
        let heard = self.0.runtime.spawn(async move {
            store.0.server.try_once().await?;
            store.listener().await.map(drop)
        });
        heard.await.map_err(|_| lost("the process is shutting down"))?
    }

    /// Checks once that notifications arrive and that tables and queries fit.
    pub async fn check_all(&self) -> Result<(), StoreError> {
        self.check_notifications().await?;
        self.check().await
    }
}

/// Reads a payload: a kind of thing, and which one. Others are not from our triggers.
fn read(notification: &PgNotification) -> Option<TableChange> {
    let change = parse(notification.payload());
    if change.is_none() {
        tracing::warn!(
            payload = notification.payload(),
            "Notification with an unknown payload ignored"
        );
    }
    change
}

fn parse(payload: &str) -> Option<TableChange> {
    let (kind, key) = payload.split_once(' ').unwrap_or((payload, ""));
    let key = key.trim();
    Some(match (kind, key) {
        ("membership", "") => TableChange::Memberships,
        // A key that cannot be read is still a change.
        ("membership", key) => Uuid::try_parse(key)
            .map_or(TableChange::Memberships, |user| TableChange::Membership(UserId(user))),
        ("device_key", "") => TableChange::DeviceKeys,
        ("device_key", key) => {
            hash(key).map_or(TableChange::DeviceKeys, |hash| TableChange::DeviceKey(Box::new(hash)))
        }
        ("revocation", _) => TableChange::Revocations,
        ("session", "") => TableChange::Sessions,
        ("session", key) => {
            Uuid::try_parse(key).map_or(TableChange::Sessions, TableChange::Session)
        }
        ("alert_rule", key) => {
            OrganisationId::parse(key).map_or(TableChange::AllAlertRules, TableChange::AlertRules)
        }
        ("alert_rule_request", _) => TableChange::AlertRuleRequest,
        ("notification_channel", key) => {
            OrganisationId::parse(key).map_or(TableChange::AllChannels, TableChange::Channels)
        }
        ("organisation_limit", _) => TableChange::Limits,
        _ => return None,
    })
}

/// A `bytea` as Postgres writes it: `\x` and hexadecimal digits.
fn hash(text: &str) -> Option<KeyHash> {
    let mut hash = [0; 32];
    hex::decode_to_slice(text.strip_prefix("\\x")?, &mut hash).ok()?;
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_payload_says_what_changed() {
        let id = Uuid::new_v4();
        assert_eq!(parse("membership"), Some(TableChange::Memberships));
        assert_eq!(parse(&format!("membership {id}")), Some(TableChange::Membership(UserId(id))));
        let digits = "ab".repeat(32);
        assert_eq!(
            parse(&format!("device_key \\x{digits}")),
            Some(TableChange::DeviceKey(Box::new([0xab; 32])))
        );
        assert_eq!(parse("revocation"), Some(TableChange::Revocations));
        assert_eq!(parse(&format!("session {id}")), Some(TableChange::Session(id)));
        for unreadable in ["device_key ab", "device_key \\xabc", "device_key \\253\\253"] {
            assert_eq!(parse(unreadable), Some(TableChange::DeviceKeys), "{unreadable:?}");
        }
        assert_eq!(parse("membership x"), Some(TableChange::Memberships));
        assert_eq!(parse("session x"), Some(TableChange::Sessions));
        let acme = OrganisationId::parse("acme").unwrap();
        assert_eq!(parse("alert_rule acme"), Some(TableChange::AlertRules(acme.clone())));
        assert_eq!(parse("notification_channel acme"), Some(TableChange::Channels(acme)));
        assert_eq!(parse("notification_channel"), Some(TableChange::AllChannels));
        assert_eq!(parse("organisation_limit"), Some(TableChange::Limits));
        assert_eq!(parse("organisation_limit acme"), Some(TableChange::Limits));
        for unnamed in ["alert_rule", "alert_rule a b", "alert_rule ä"] {
            assert_eq!(parse(unnamed), Some(TableChange::AllAlertRules), "{unnamed:?}");
        }
        assert_eq!(parse("alert_rule_request"), Some(TableChange::AlertRuleRequest));
        for strange in ["", "alert", "memberships"] {
            assert_eq!(parse(strange), None, "{strange:?}");
        }
    }

    proptest! {
        #[test]
        fn no_payload_panics(payload in "\\PC{0,90}") {
            let _ = parse(&payload);
            let _ = parse(&format!("device_key \\x{payload}"));
        }
    }
}
