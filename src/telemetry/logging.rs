//! Log lines go to standard output through threads of their own: a reader that stops reading must
//! never stop the data path. Lines that do not fit the queue or cannot be written are dropped, and counted.
//!
//! The audit log has a queue and a thread of its own, so that a flood of other lines does not push out
//! its lines.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tracing::Metadata;

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::clock::Clock;
use crate::config::{LogConfig, LogFormat};

/// Where finished lines go. Cheap to clone.
#[derive(Clone)]
pub struct LogSink {
    writer: NonBlocking,
    dropped: Dropped,
}

/// What was dropped, and why.
#[derive(Clone)]
struct Dropped {
    /// Writes for which a queue was full, because standard output was not read.
    queued: [ErrorCounter; 2],
    /// Lines that standard output did not take: the disk is full, or the reader is gone.
    failed: Arc<AtomicUsize>,
}

/// Standard output, shared by the threads that write. Each write is one or more whole lines.
#[derive(Clone)]
struct Output {
    out: Arc<Mutex<Out>>,
    failed: Arc<AtomicUsize>,
}

struct Out {
    file: Option<File>,
    /// The last write ended within a line.
    is_torn: bool,
}

/// The time of a line, in the form of the access log: lines sort by it.
struct Utc;

/// Sends lines of the audit log to a queue of their own.
struct Queues {
    audit: NonBlocking,
    others: NonBlocking,
}

/// The running log. Queued lines are written when it is dropped.
pub struct Logging {
    /// Where finished lines go.
    pub sink: LogSink,
    set_filter: SetFilter,
    _guards: [WorkerGuard; 2],
}

/// Changes the filter. The type of its handle names the format's whole stack.
type SetFilter = Box<dyn Fn(EnvFilter) + Send + Sync>;

/// The target of lines of the audit log.
const AUDIT: &str = "audit";

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
        let output = Output::stdout();
        let queue = |name| {
            let queue = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(MAX_QUEUED);
            queue.thread_name(name).finish(output.clone())
        };
        let ((writer, guard), (audit, audit_guard)) = (queue("log"), queue("audit log"));
        let dropped = Dropped {
            queued: [writer.error_counter(), audit.error_counter()],
            failed: Arc::clone(&output.failed),
        };
        let queues = Queues { audit, others: writer.clone() };
        let lines = tracing_subscriber::fmt()
            .with_env_filter(filter_of(config))
            .with_writer(queues)
            .with_timer(Utc);
        // Only a second start in one process can fail, and then the first one is in use.
        let set_filter: SetFilter = match config.format {
            LogFormat::Json => {
                let lines = lines.json().flatten_event(true).with_current_span(false);
                let lines = lines.with_filter_reloading();
                let handle = lines.reload_handle();
                drop(lines.try_init());
                Box::new(move |filter| drop(handle.reload(filter)))
            }
            LogFormat::Pretty => {
                let lines = lines.with_ansi(false).with_filter_reloading();
                let handle = lines.reload_handle();
                drop(lines.try_init());
                Box::new(move |filter| drop(handle.reload(filter)))
            }
        };
        let sink = LogSink { writer, dropped };
        Self { sink, set_filter, _guards: [guard, audit_guard] }
    }

    /// Changes what is logged.
    pub fn filter(&self, config: &LogConfig) {
        (self.set_filter)(filter_of(config));
    }
}

fn filter_of(config: &LogConfig) -> EnvFilter {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", config.filter));
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
    // The audit log is written whatever the filter says.
    let audited = format!("{AUDIT}=info").parse().map(|audit| filter.clone().add_directive(audit));
    audited.unwrap_or(filter)
}

impl LogSink {
    /// Hands over one or more whole lines.
    pub fn write(&mut self, lines: &[u8]) {
        // The writer only queues; it reports no error.
        let _ = self.writer.write_all(lines);
    }

    /// How many lines were dropped, because the queue was full or standard output could not be written. Lines
    /// that were handed over together and found the queue full count as one.
    pub fn dropped(&self) -> usize {
        let queued: usize = self.dropped.queued.iter().map(ErrorCounter::dropped_lines).sum();
        queued + self.dropped.failed.load(Ordering::Relaxed)
    }
}

impl FormatTime for Utc {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        let now = Clock::system().utc();
        let (hour, minute, second, millis) = now.time().as_hms_milli();
        write!(w, "{}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z", now.date())
    }
}

impl<'a> MakeWriter<'a> for Queues {
    type Writer = NonBlocking;

    fn make_writer(&'a self) -> NonBlocking {
        self.others.clone()
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> NonBlocking {
        if meta.target() == AUDIT { self.audit.clone() } else { self.others.clone() }
    }
}

impl Output {
    fn stdout() -> Self {
        // Without the buffer of `Stdout`, which would report an error with the next line.
        let file = io::stdout().as_fd().try_clone_to_owned().map(File::from).ok();
        Self::to(file)
    }

    fn to(file: Option<File>) -> Self {
        let out = Out { file, is_torn: false };
        Self { out: Arc::new(Mutex::new(out)), failed: Arc::default() }
    }
}

impl Write for Output {
    /// Writes all, or counts the lines as dropped. It returns no error: the caller could not handle one.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        if self.out.lock().write(lines).is_err() {
            let count = lines.split(|byte| *byte == b'\n').count() - 1;
            self.failed.fetch_add(count, Ordering::Relaxed);
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Out {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        if self.is_torn {
            file.write_all(b"\n")?;
            self.is_torn = false;
        }
        let written = file.write_all(lines);
        // How much was written is not known; an empty line harms no reader.
        self.is_torn = written.is_err();
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A full disk looked like a complete log.
    #[test]
    fn what_cannot_be_written_is_counted() {
        let mut output = Output::to(File::options().write(true).open("/dev/full").ok());
        output.write_all(b"one\n").unwrap();
        output.write_all(b"two\nthree\n").unwrap();
        assert_eq!(output.failed.load(Ordering::Relaxed), 3);
        assert!(output.out.lock().is_torn);
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut output = Output::to(File::create(&path).ok());
        output.out.lock().is_torn = true;
        output.write_all(b"whole\n").unwrap();
        output.write_all(b"next\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "\nwhole\nnext\n");
    }
}
