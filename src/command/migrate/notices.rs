//! What Postgres says beside its answers while the tables are made: that the publication of another
//! role was left as it is, for example.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::store::NOTICES;

/// Steps that were released say this at a lower level: who has to add a table to it is told all the same.
const PUBLICATION: &str = "supabase_realtime";

/// Does the work, and gives the warnings of Postgres with it.
pub(super) fn heard<T>(work: impl FnOnce() -> T) -> (T, Vec<String>) {
    let heard = Heard::default();
    let done =
        tracing::subscriber::with_default(tracing_subscriber::registry().with(heard.clone()), work);
    let notices = std::mem::take(&mut *heard.0.lock());
    (done, notices)
}

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> Layer<S> for Heard {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() != NOTICES {
            return;
        }
        let mut message = Message::default();
        event.record(&mut message);
        let Message(text) = message;
        if *event.metadata().level() <= Level::WARN || text.contains(PUBLICATION) {
            self.0.lock().push(format!("warning: {text}"));
        }
    }
}

#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.0);
        }
    }
}
