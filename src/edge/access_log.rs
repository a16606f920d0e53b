//! One line a request, JSON or text.
//!
//! Formatted by hand into a buffer of the worker's own and handed to the log in batches: the
//! line is on the data path of every request. The path is logged without its query string, which
//! holds a tenant's own expressions.

use std::cell::RefCell;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::Version;

use super::record::{Outcome, Record};
use crate::authn::PrincipalId;
use crate::clock::Clock;
use crate::config::LogFormat;
use crate::telemetry::LogSink;

/// Writes access log lines. Cheap to clone.
#[derive(Clone)]
pub struct AccessLog {
    sink: LogSink,
    clock: Clock,
    format: LogFormat,
}

/// A worker's lines are handed over when there are this many bytes of them, and at each flush.
const BATCH_BYTES: usize = 16 << 10;

thread_local! {
    static LINES: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(BATCH_BYTES + 1024));
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

impl AccessLog {
    /// Makes a log that writes to a sink.
    pub fn new(sink: LogSink, clock: Clock, format: LogFormat) -> Self {
        Self { sink, clock, format }
    }

    pub(super) fn write(mut self, record: &Record, took: Duration) {
        LINES.with_borrow_mut(|lines| {
            let now = self.clock.now();
            match self.format {
                LogFormat::Json => json(lines, record, took, now),
                LogFormat::Pretty => pretty(lines, record, took, now),
            }
            if lines.len() >= BATCH_BYTES {
                self.sink.write(lines);
                lines.clear();
            }
        });
    }

    /// Hands over what this thread has written so far.
    pub fn flush(&mut self) {
        LINES.with_borrow_mut(|lines| {
            if !lines.is_empty() {
                self.sink.write(lines);
                lines.clear();
            }
        });
    }
}

/// Appends `,"name":` and a text that needs no escapes.
macro_rules! field {
    ($lines:ident, $name:literal, $text:expr) => {{
        $lines.extend_from_slice(concat!(",\"", $name, "\":\"").as_bytes());
        $lines.extend_from_slice($text.as_bytes());
        $lines.push(b'"');
    }};
}

macro_rules! number {
    ($lines:ident, $name:literal, $number:expr) => {{
        $lines.extend_from_slice(concat!(",\"", $name, "\":").as_bytes());
        $lines.extend_from_slice(itoa::Buffer::new().format($number).as_bytes());
    }};
}

fn json(lines: &mut Vec<u8>, record: &Record, took: Duration, now: Duration) {
    let (outcome, reason) = words(record.outcome);
    lines.extend_from_slice(b"{\"timestamp\":\"");
    timestamp(lines, now);
    lines.extend_from_slice(b"\",\"level\":\"");
    lines.extend_from_slice(level(record.outcome).as_bytes());
    lines.extend_from_slice(b"\",\"message\":\"Request\"");
    field!(lines, "request.id", record.id.as_str());
    lines.extend_from_slice(b",\"client.ip\":\"");
    ip(lines, record.client);
    lines.push(b'"');
    field!(lines, "http.method", method(record));
    lines.extend_from_slice(b",\"http.path\":\"");
    escape(lines, record.uri.path());
    lines.push(b'"');
    field!(lines, "http.version", version(record.version));
    if let Some(route) = record.route {
        field!(lines, "route.surface", route.surface.name());
    }
    let principal = record.principal.as_ref().map(|known| (known.kind(), known.id()));
    let refused = || record.refused.map(|known| (known.kind, known.id));
    if let Some((kind, id)) = principal.or_else(refused) {
        field!(lines, "principal.kind", kind);
        let mut buffer = [0; uuid::fmt::Hyphenated::LENGTH];
        let id: &str = match id {
            PrincipalId::Uuid(id) => id.hyphenated().encode_lower(&mut buffer),
            PrincipalId::Name(name) => name,
        };
        field!(lines, "principal.id", id);
    }
    if let Some(organisation) = &record.organisation {
        field!(lines, "organisation.id", organisation.as_str());
    }
    if let Some(asked) = &record.asked {
        // As it was sent: it may be no identifier at all.
        lines.extend_from_slice(b",\"organisation.asked\":\"");
        escape(lines, asked);
        lines.push(b'"');
    }
    if let Some(grant) = &record.grant {
        lines.extend_from_slice(b",\"organisation.id\":\"");
        for (at, organisation) in grant.organisations().iter().enumerate() {
            lines.extend_from_slice(if at > 0 { b"|" } else { b"" });
            lines.extend_from_slice(organisation.as_str().as_bytes());
        }
        lines.push(b'"');
        field!(lines, "tenant.id", grant.tenants().as_str());
    }
    field!(lines, "outcome", outcome);
    if let Some(reason) = reason {
        field!(lines, "reason", reason);
    }
    if let Some(detail) = &record.detail {
        lines.extend_from_slice(b",\"detail\":\"");
        escape(lines, detail);
        lines.push(b'"');
    }
    number!(lines, "http.status", record.status);
    number!(lines, "received_bytes", record.received_bytes());
    number!(lines, "sent_bytes", record.sent);
    if let (Some(upstream), Some(head)) = (record.upstream, record.upstream_head) {
        lines.extend_from_slice(b",\"upstream.address\":\"");
        socket_address(lines, upstream);
        lines.push(b'"');
        lines.extend_from_slice(b",\"upstream.head_ms\":");
        milliseconds(lines, head);
    }
    lines.extend_from_slice(b",\"duration_ms\":");
    milliseconds(lines, took);
    lines.extend_from_slice(b"}\n");
}

fn pretty(lines: &mut Vec<u8>, record: &Record, took: Duration, now: Duration) {
    let (outcome, reason) = words(record.outcome);
    timestamp(lines, now);
    let _ = write!(
        lines,
        " {:>5} {} {} {} ",
        level(record.outcome),
        record.status,
        method(record),
        record.client
    );
    escape(lines, record.uri.path());
    let _ = write!(lines, " {outcome}");
    if let Some(reason) = reason {
        let _ = write!(lines, " ({reason})");
    }
    if let Some(grant) = &record.grant {
        let _ = write!(lines, " tenant={}", grant.tenants().as_str());
    }
    if let Some(detail) = &record.detail {
        lines.extend_from_slice(b" detail=\"");
        escape(lines, detail);
        lines.push(b'"');
    }
    let (received, sent) = (record.received_bytes(), record.sent);
    let _ = write!(lines, " received={received} sent={sent} request={} ", record.id.as_str());
    milliseconds(lines, took);
    lines.extend_from_slice(b" ms\n");
}

/// A client's mistake is information; only what is ours to blame is a warning.
fn level(outcome: Outcome) -> &'static str {
    if matches!(outcome, Outcome::Failed(_)) { "WARN" } else { "INFO" }
}

fn words(outcome: Outcome) -> (&'static str, Option<&'static str>) {
    match outcome {
        Outcome::Forwarded => ("forwarded", None),
        Outcome::Answered => ("answered", None),
        Outcome::Rejected(reason) => ("rejected", Some(reason)),
        Outcome::Failed(reason) => ("failed", Some(reason)),
        Outcome::Cancelled => ("cancelled", None),
    }
}

/// A method is whatever a client calls one, of any length.
fn method(record: &Record) -> &str {
    let method = record.method.as_str();
    method.get(..32).unwrap_or(method)
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}

/// An address as text; IPv4 without the formatting machinery, which costs as much as the rest.
fn ip(lines: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            for (at, part) in ip.octets().into_iter().enumerate() {
                if at > 0 {
                    lines.push(b'.');
                }
                lines.extend_from_slice(itoa::Buffer::new().format(part).as_bytes());
            }
        }
        IpAddr::V6(ip) => {
            let _ = write!(lines, "{ip}");
        }
    }
}

fn socket_address(lines: &mut Vec<u8>, address: SocketAddr) {
    if address.is_ipv4() {
        ip(lines, address.ip());
        lines.push(b':');
        lines.extend_from_slice(itoa::Buffer::new().format(address.port()).as_bytes());
    } else {
        let _ = write!(lines, "{address}");
    }
}

/// Milliseconds with three places.
fn milliseconds(lines: &mut Vec<u8>, duration: Duration) {
    let mut buffer = itoa::Buffer::new();
    lines.extend_from_slice(buffer.format(duration.as_millis()).as_bytes());
    let micros = duration.subsec_micros() % 1000;
    lines.push(b'.');
    for digit in [micros / 100, micros / 10 % 10, micros % 10] {
        lines.push(b'0' + u8::try_from(digit).unwrap_or(0));
    }
}

/// RFC 3339 in UTC with milliseconds; the part to the second is made once a second.
fn timestamp(lines: &mut Vec<u8>, now: Duration) {
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != now.as_secs() || text.is_empty() {
            *second = now.as_secs();
            *text = date(*second);
        }
        lines.extend_from_slice(text.as_bytes());
    });
    let millis = now.subsec_millis();
    lines.push(b'.');
    for digit in [millis / 100, millis / 10 % 10, millis % 10] {
        lines.push(b'0' + u8::try_from(digit).unwrap_or(0));
    }
    lines.push(b'Z');
}

fn date(unix_seconds: u64) -> String {
    let seconds = i64::try_from(unix_seconds).unwrap_or(0);
    let time = time::OffsetDateTime::from_unix_timestamp(seconds)
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let (date, clock) = (time.date(), time.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second()
    )
}

/// Escapes a text for JSON, and keeps it in one line of a terminal. Long texts are cut.
fn escape(lines: &mut Vec<u8>, text: &str) {
    const LONGEST: usize = 512;
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if text.len() <= LONGEST && text.as_bytes().iter().all(is_plain) {
        lines.extend_from_slice(text.as_bytes());
        return;
    }
    for c in text.chars().take(LONGEST) {
        match c {
            '"' | '\\' => lines.extend_from_slice(&[b'\\', c as u8]),
            c if c.is_control() || c == '\u{2028}' || c == '\u{2029}' => {
                let _ = write!(lines, "\\u{:04x}", u32::from(c));
            }
            c => lines.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_strangers_cannot_break_a_line() {
        let mut line = b"\"".to_vec();
        escape(&mut line, "a\"b\\c\nd\u{1b}[31m\u{2028}é");
        line.push(b'"');
        let back: String = serde_json::from_slice(&line).unwrap();
        assert_eq!(back, "a\"b\\c\nd\u{1b}[31m\u{2028}é");
        assert!(!line.contains(&b'\n') && !line.contains(&0x1b));
    }

    #[test]
    fn times_are_rfc_3339() {
        let mut line = Vec::new();
        timestamp(&mut line, Duration::from_millis(1_700_000_000_042));
        assert_eq!(line, b"2023-11-14T22:13:20.042Z");
    }

    #[test]
    fn addresses_are_written_as_usual() {
        for text in ["127.0.0.1:8080", "[fd00::1]:80", "255.1.20.3:65535"] {
            let mut line = Vec::new();
            socket_address(&mut line, text.parse().unwrap());
            assert_eq!(line, text.as_bytes());
        }
    }

    #[test]
    fn milliseconds_have_three_places() {
        let mut line = Vec::new();
        milliseconds(&mut line, Duration::from_micros(1_234_056));
        assert_eq!(line, b"1234.056");
    }
}
