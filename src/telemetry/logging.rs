//! Log lines go to standard output through a thread of their own: a reader that stops reading must
//! never stop the data path. Lines that do not fit the queue are dropped, and counted.

use std::io::Write as _;

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Where finished lines go. Cheap to clone.
#[derive(Clone)]
pub struct LogSink {
    writer: NonBlocking,
    /// Lines that were dropped because standard output was not read.
    dropped: ErrorCounter,
}

/// The running log. Queued lines are written when it is dropped.
pub struct Logging {
    /// Where finished lines go.
    pub sink: LogSink,
    _guard: WorkerGuard,
}

/// Writes that wait for a reader, before further ones are dropped: some of them batches of 32 KiB.
const MAX_QUEUED: usize = 1024;

/// Targets of libraries that write what the proxy logs or counts itself, and better. sqlx' pool logs
/// every lost connection with a line of Postgres' source, and each slow one. h2 logs a warning for single frames of a
/// client, which so could push out everybody's lines. The operator's filter comes later and can undo
/// it.
const QUIET: &str = "sqlx_core::pool=off,sqlx=error,h2=error,hyper=error";

impl Logging {
    /// Starts the writing thread and makes `tracing` use it.
    pub fn start(config: &LogConfig) -> Self {
        let (writer, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(MAX_QUEUED)
            .thread_name("log")
            .finish(std::io::stdout());
        let filter = EnvFilter::try_new(format!("{QUIET},{}", config.filter));
        let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
        // The audit log is written whatever the filter says.
        let audited = "audit=info".parse().map(|audit| filter.clone().add_directive(audit));
        let filter = audited.unwrap_or(filter);
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer.clone());
        let started = match config.format {
            LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
            LogFormat::Pretty => lines.with_ansi(false).try_init(),
        };
        // Only a second start in one process can fail, and then the first one is in use.
        drop(started);
        let sink = LogSink { dropped: writer.error_counter(), writer };
        Self { sink, _guard: guard }
    }
}

impl LogSink {
    /// Hands over one or more whole lines.
    pub fn write(&mut self, lines: &[u8]) {
        // The writer only queues; it reports no error.
        let _ = self.writer.write_all(lines);
    }

    /// How many hand-overs were dropped because the queue was full.
    pub fn dropped(&self) -> usize {
        self.dropped.dropped_lines()
    }
}
