//! Alerts that fire, and devices that are silent, as rows of `alert_event`.
//!
//! ```text
//! Mimir's ruler ──▶ receiver ──▶ buffer ──▶ writer ──▶ Postgres ──▶ Realtime, your triggers
//!  (each copy)      (message)              (merge)        ▲
//!                                            leader: watch┘
//! ```
//!
//! Mimir's ruler sends every alert to a list of Alertmanagers, and the private port of the proxy is one
//! of them. It repeats a firing alert every minute (`ruler.resend_delay`), each time with a time until
//! which it holds, and one that is over for another 15 minutes. It does not retry: a message that fails
//! is dropped there, and the next repetition heals it. So nothing of what is reported has to be durable
//! here, and an event is written at least once, not exactly once.
//!
//! # What is kept
//!
//! Any copy may get any message, several copies may get the same one, and what was taken in while
//! Postgres was away is written late. So rows are not changed by messages. What was reported is kept in
//! a form in which order and repetition make no difference, and rows are derived from it ([`merge`],
//! decision 30).
//!
//! | what is lost | how it heals |
//! |---|---|
//! | a message (the ruler could not reach us, or we had no room) | the next repetition, within a minute |
//! | the buffer of a copy that was killed | likewise: firing alerts and those that ended within 15 minutes |
//! | Postgres, for however long | the buffer keeps all of it, one entry an alert, while there is room |
//! | another copy, or its way to Postgres | nothing expires until it is back, or gone for ten minutes ([`reception`]) |
//! | the ruler, or its way to us | nothing is reported: the event expires, and the next report revives it |
//!
//! # What protects the others
//!
//! An organisation has at most `alert_events.max_open` open alerts, and as many silent devices. What the database
//! refuses of one organisation keeps back no other. The buffer is shared like slots of
//! requests ([`buffer`]); messages are read on a thread of their own, and a bounded number at once.

mod buffer;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod heard;
mod merge;
mod message;
mod receiver;
mod reception;
mod seldom;
mod watch;
mod writer;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::watch as watch_channel;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use buffer::{Buffer, MOST_BYTES};
use heard::Heard;
use receiver::{Posts, SecretDigest};
use reception::Reception;
use seldom::Seldom;
use watch::EventWatch;
use writer::{KnownOrganisations, Writer};

use crate::clock::Clock;
use crate::config::AlertEventsConfig;
use crate::election::LeaderTask;
use crate::store::{Store, UsesWritten};
use crate::telemetry::AlertEventMetrics;
use crate::tenancy::TenantTemplate;

pub use receiver::{Receiver, router};

/// The parts, for the one who runs them.
pub struct AlertEvents {
    /// For the private port.
    pub receiver: Arc<Receiver>,
    /// For the leader of the rules.
    pub watch: Arc<dyn LeaderTask>,
    writer: Writer,
    reception: Arc<Reception>,
}

/// What it is made of.
pub struct Parts {
    pub config: AlertEventsConfig,
    /// Of a runtime of its own.
    pub store: Store,
    pub runtime: Handle,
    pub template: TenantTemplate,
    pub last_used_interval: std::time::Duration,
    /// Which uses of device keys are written.
    pub uses: watch_channel::Receiver<UsesWritten>,
    pub clock: Clock,
    pub metrics: Arc<AlertEventMetrics>,
}

impl AlertEvents {
    pub fn new(parts: Parts) -> Self {
        let Parts { config, store, runtime, template, last_used_interval, uses, clock, metrics } =
            parts;
        // While Postgres is away alerts end and others begin.
        let buffer = Arc::new(Buffer::new(config.max_open.saturating_mul(2), MOST_BYTES));
        let organisations = Arc::new(KnownOrganisations::default());
        let heard: Arc<Heard> = Arc::default();
        let receiver = Receiver {
            buffer: Arc::clone(&buffer),
            organisations: Arc::clone(&organisations),
            secret: ArcSwap::from_pointee(SecretDigest::new(&config.secret)),
            template,
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
            runtime,
            posts: Posts::default(),
            logged: Seldom::default(),
            heard: Arc::clone(&heard),
        };
        let reception = Arc::new(Reception {
            id: Uuid::new_v4(),
            store: store.clone(),
            buffer: Arc::clone(&buffer),
            heard,
            uses,
        });
        let writer = Writer {
            buffer,
            organisations,
            store: store.clone(),
            clock,
            metrics: Arc::clone(&metrics),
            max_open: config.max_open,
            logged: Seldom::default(),
        };
        let logged = Seldom::default();
        let watch = EventWatch {
            store,
            config,
            last_used_interval,
            metrics,
            logged,
            reception: Arc::clone(&reception),
        };
        Self { receiver: Arc::new(receiver), watch: Arc::new(watch), writer, reception }
    }

    /// Writes until it is cancelled.
    pub async fn run(self, cancelled: CancellationToken) {
        let noting = self.reception.run(cancelled.clone());
        tokio::join!(self.writer.run(cancelled), noting);
        self.reception.end().await;
    }
}
