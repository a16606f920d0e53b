//! One line a request, JSON or text.
//!
//! The line is on the data path of every request, so it is formatted into a buffer of the worker's
//! own and handed to the log in batches. It is written by hand and not by a `Serialize` of the
//! facts: with the same fields and bytes, `serde_json` takes 9,250 instructions a line (1,790 ns),
//! this 2,200 (350 ns), of 84,000 for a whole read. serde sends addresses and federated
//! organisations through `Display`, and looks for escapes in every text, of which only a few can
//! need any.

use std::cell::RefCell;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::Version;

use super::RequestOutcome;
use super::facts::Facts;
use super::fields::{self, Field};
use super::sampling::Sampling;
use crate::authn::PrincipalId;
use crate::client_network::client_network;
use crate::clock::Clock;
use crate::config::{LogConfig, LogFormat};
use crate::reason::{Class, Reason, Sampled};
use crate::telemetry::LogSink;

/// Writes access log lines. Cheap to clone.
#[derive(Clone)]
pub struct AccessLog {
    sink: LogSink,
    clock: Clock,
    format: LogFormat,
    sampling: Arc<Sampling>,
}

/// A worker's lines are handed over when there are this many bytes of them, and at each flush.
const BATCH_BYTES: usize = 32 << 10;

/// The message of a line that stands for requests without one.
const SUPPRESSED: &str = "Requests not logged";

thread_local! {
    static LINES: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(BATCH_BYTES + 1024));
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

impl AccessLog {
    /// Makes a log that writes to a sink.
    pub fn new(sink: LogSink, clock: Clock, config: &LogConfig) -> Self {
        let sampling = Arc::new(Sampling::new(config.unserved_per_second));
        Self { sink, clock, format: config.format, sampling }
    }

    /// Changes how many lines a second requests of one kind have.
    pub fn set_unserved_per_second(&self, lines: u32) {
        self.sampling.set(lines);
    }

    /// Writes a line.
    ///
    /// # Errors
    /// If there are too many like it, the kind.
    pub(super) fn write(&self, facts: &Facts, took: Duration) -> Result<(), Sampled> {
        let now = self.clock.now();
        if let Some(kind) = facts.sampled()
            && !self.sampling.takes(kind, source(facts), now.as_secs())
        {
            return Err(kind);
        }
        LINES.with_borrow_mut(|lines| {
            match self.format {
                LogFormat::Json => json(lines, facts, took, now),
                LogFormat::Pretty => pretty(lines, facts, took, now),
            }
            if lines.len() >= BATCH_BYTES {
                self.sink.clone().write(lines);
                lines.clear();
            }
        });
        Ok(())
    }

    /// Writes how many requests got no line since the last call, one line for each kind.
    pub fn report_suppressed(&self) {
        let mut lines = Vec::new();
        let now = self.clock.now();
        for (kind, requests) in self.sampling.take_suppressed() {
            match self.format {
                LogFormat::Json => json_suppressed(&mut lines, kind, requests, now),
                LogFormat::Pretty => pretty_suppressed(&mut lines, kind, requests, now),
            }
        }
        if !lines.is_empty() {
            self.sink.clone().write(&lines);
        }
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

/// Whose request it was: a principal's, or one from the network of a client that is not known.
fn source(facts: &Facts) -> (Option<PrincipalId>, Option<IpAddr>) {
    let caller = facts.caller().map(|(_, id)| id);
    let network = caller.is_none().then(|| client_network(facts.client));
    (caller, network)
}

fn json_suppressed(lines: &mut Vec<u8>, kind: Sampled, requests: u64, now: Duration) {
    lines.extend_from_slice(b"{\"timestamp\":\"");
    timestamp(lines, now);
    let (level, reason) = (kind_level(kind), kind.name());
    let _ = writeln!(
        lines,
        "\",\"level\":\"{level}\",\"message\":\"{SUPPRESSED}\",\"reason\":\"{reason}\",\"requests\":{requests}}}"
    );
}

fn pretty_suppressed(lines: &mut Vec<u8>, kind: Sampled, requests: u64, now: Duration) {
    timestamp(lines, now);
    let (level, reason) = (kind_level(kind), kind.name());
    let _ = writeln!(lines, " {level:>5} {SUPPRESSED} reason={reason} requests={requests}");
}

fn kind_level(kind: Sampled) -> &'static str {
    match kind {
        Sampled::Unserved(reason) => reason_level(reason),
        Sampled::UnknownCaller => "INFO",
    }
}

fn reason_level(reason: Reason) -> &'static str {
    if reason.class() == Class::Failed { "WARN" } else { "INFO" }
}

fn json(lines: &mut Vec<u8>, facts: &Facts, took: Duration, now: Duration) {
    // The first field has no comma before its name.
    lines.push(b'{');
    lines.extend_from_slice(&fields::TIMESTAMP.key.as_bytes()[1..]);
    lines.push(b'"');
    timestamp(lines, now);
    lines.push(b'"');
    text(lines, &fields::LEVEL, level(facts.outcome));
    text(lines, &fields::MESSAGE, "Request");
    text(lines, &fields::REQUEST_ID, facts.id.as_str());
    quoted(lines, &fields::CLIENT_IP, |lines| ip(lines, facts.client));
    text(lines, &fields::HTTP_METHOD, method(facts));
    quoted(lines, &fields::HTTP_PATH, |lines| escape(lines, facts.uri.path()));
    text(lines, &fields::HTTP_VERSION, version(facts.version));
    if let Some(route) = facts.route {
        text(lines, &fields::ROUTE_SURFACE, route.surface.name());
    }

    // Who.
    if let Some((kind, id)) = facts.caller() {
        text(lines, &fields::PRINCIPAL_KIND, kind);
        let mut buffer = [0; uuid::fmt::Hyphenated::LENGTH];
        let id: &str = match id {
            PrincipalId::Uuid(id) => id.hyphenated().encode_lower(&mut buffer),
            PrincipalId::Name(name) => name,
        };
        text(lines, &fields::PRINCIPAL_ID, id);
    }

    // For whom.
    if let Some(organisation) = &facts.organisation {
        text(lines, &fields::ORGANISATION_ID, organisation.as_str());
    }
    if let Some(asked) = &facts.asked {
        // As it was sent: it may be no identifier at all.
        quoted(lines, &fields::ORGANISATION_ASKED, |lines| escape(lines, asked));
    }
    if let Some(grant) = &facts.grant {
        quoted(lines, &fields::ORGANISATION_ID, |lines| {
            for (at, organisation) in grant.organisations().iter().enumerate() {
                lines.extend_from_slice(if at > 0 { b"|" } else { b"" });
                lines.extend_from_slice(organisation.as_str().as_bytes());
            }
        });
        text(lines, &fields::TENANT_ID, grant.tenants().as_str());
    }

    // What became of it.
    text(lines, &fields::OUTCOME, facts.outcome.name());
    if let Some(reason) = facts.outcome.reason() {
        text(lines, &fields::REASON, reason.name());
    }
    if let Some(detail) = &facts.detail {
        quoted(lines, &fields::DETAIL, |lines| escape(lines, detail));
    }
    number(lines, &fields::HTTP_STATUS, facts.status);
    number(lines, &fields::RECEIVED_BYTES, facts.received_bytes());
    number(lines, &fields::SENT_BYTES, facts.sent);
    if let Some(upstream) = facts.upstream {
        quoted(lines, &fields::UPSTREAM_ADDRESS, |lines| socket_address(lines, upstream));
    }
    if let Some(head) = facts.upstream_head {
        key(lines, &fields::UPSTREAM_HEAD_MS);
        milliseconds(lines, head);
    }
    key(lines, &fields::DURATION_MS);
    milliseconds(lines, took);
    if let Some(trace) = facts.trace {
        quoted(lines, &fields::TRACE_ID, |lines| drop(write!(lines, "{trace:032x}")));
    }
    lines.extend_from_slice(b"}\n");
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "keys are constants: copying them calls no memcpy then")]
fn key(lines: &mut Vec<u8>, field: &Field) {
    lines.extend_from_slice(field.key.as_bytes());
}

/// A text that needs no escapes.
#[inline(always)]
#[expect(clippy::inline_always, reason = "as `key`")]
fn text(lines: &mut Vec<u8>, field: &Field, text: &str) {
    quoted(lines, field, |lines| lines.extend_from_slice(text.as_bytes()));
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "as `key`")]
fn quoted(lines: &mut Vec<u8>, field: &Field, write: impl FnOnce(&mut Vec<u8>)) {
    key(lines, field);
    lines.push(b'"');
    write(lines);
    lines.push(b'"');
}

fn number(lines: &mut Vec<u8>, field: &Field, number: impl itoa::Integer) {
    key(lines, field);
    lines.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn pretty(lines: &mut Vec<u8>, facts: &Facts, took: Duration, now: Duration) {
    timestamp(lines, now);
    let _ = write!(
        lines,
        " {:>5} {} {} {} ",
        level(facts.outcome),
        facts.status,
        method(facts),
        facts.client
    );
    escape(lines, facts.uri.path());
    let _ = write!(lines, " {}", facts.outcome.name());
    if let Some(reason) = facts.outcome.reason() {
        let _ = write!(lines, " ({})", reason.name());
    }
    if let Some(grant) = &facts.grant {
        let _ = write!(lines, " tenant={}", grant.tenants().as_str());
    }
    if let Some(detail) = &facts.detail {
        lines.extend_from_slice(b" detail=\"");
        escape(lines, detail);
        lines.push(b'"');
    }
    let (received, sent) = (facts.received_bytes(), facts.sent);
    let _ = write!(lines, " received={received} sent={sent} request={} ", facts.id.as_str());
    milliseconds(lines, took);
    lines.extend_from_slice(b" ms\n");
}

/// A client's mistake is no warning.
fn level(outcome: RequestOutcome) -> &'static str {
    if outcome.is_failure() { "WARN" } else { "INFO" }
}

/// A method is whatever a client calls one, of any length.
fn method(facts: &Facts) -> &str {
    let method = facts.method.as_str();
    method.get(..32).unwrap_or(method)
}

pub(super) fn version(version: Version) -> &'static str {
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

/// Whether a character begins a line or changes the direction of text (CVE-2021-42574).
fn changes_lines(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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
            c if c.is_control() || changes_lines(c) => {
                let _ = write!(lines, "\\u{:04x}", u32::from(c));
            }
            c => lines.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::Known;
    use crate::edge::RequestId;
    use crate::reason::Reason;
    use crate::tenancy::OrganisationId;

    #[test]
    fn texts_of_clients_cannot_break_a_line() {
        let mut line = b"\"".to_vec();
        escape(&mut line, "a\"b\\c\nd\u{1b}[31m\u{2028}\u{202e}é");
        line.push(b'"');
        let back: String = serde_json::from_slice(&line).unwrap();
        assert_eq!(back, "a\"b\\c\nd\u{1b}[31m\u{2028}\u{202e}é");
        assert!(!line.contains(&b'\n') && !line.contains(&0x1b));
        assert!(!String::from_utf8(line).unwrap().contains('\u{202e}'));
    }

    #[test]
    fn a_line_has_the_fields_of_the_table() {
        let request = http::Request::get("/api/v1/push").body(()).unwrap();
        let facts = Facts {
            id: RequestId::of(request.headers()),
            client: "10.0.0.1".parse().unwrap(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: Version::HTTP_2,
            route: crate::route::ROUTES.first(),
            principal: None,
            refused: Some(Known { kind: "device", id: PrincipalId::Uuid(uuid::Uuid::nil()) }),
            asked: Some("org-b".to_owned()),
            grant: None,
            organisation: Some(OrganisationId::parse("org-a").unwrap()),
            upstream: Some("10.0.0.2:8080".parse().unwrap()),
            upstream_head: Some(Duration::from_millis(1)),
            status: 503,
            outcome: RequestOutcome::Unserved(Reason::UpstreamBroken),
            detail: Some("broken".to_owned()),
            sent: 2,
            received: None,
            trace: Some(0xabc),
        };
        let mut line = Vec::new();
        json(&mut line, &facts, Duration::from_millis(5), Duration::ZERO);
        let line: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&line).unwrap();
        // A grant cannot be made here.
        let wanted = fields::FIELDS.iter().map(|field| field.name).filter(|n| *n != "tenant.id");
        let mut wanted: Vec<_> = wanted.collect();
        wanted.sort_unstable();
        assert_eq!(line.keys().collect::<Vec<_>>(), wanted);
        assert_eq!((&line["level"], &line["outcome"]), (&"WARN".into(), &"failed".into()));
        assert_eq!(line["reason"], "upstream_broken");
        assert_eq!(line["trace.id"], "00000000000000000000000000000abc");
    }

    #[test]
    fn suppressed_lines_are_one_that_can_be_read() {
        let mut line = Vec::new();
        json_suppressed(&mut line, Sampled::Unserved(Reason::NoCredential), 12, Duration::ZERO);
        let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
        let wanted = serde_json::json!({
            "timestamp": "1970-01-01T00:00:00.000Z",
            "level": "INFO",
            "message": "Requests not logged",
            "reason": "no_credential",
            "requests": 12,
        });
        assert_eq!(line, wanted);
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
