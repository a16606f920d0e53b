//! What a connection waits for, since when, and its deadline: a state machine without a clock, a
//! socket or a task.
//!
//! | phase | ends after |
//! |---|---|
//! | the socket takes no bytes | `write_timeout` since it last took one |
//! | a head has begun | `header_timeout` since its first byte |
//! | nothing has come yet | `header_timeout` since the connection was opened |
//! | no request | `idle_timeout` since the last one ended |
//! | a flood of frames without requests (HTTP/2) | nothing: at once |
//! | a request when it should have ended long ago (HTTP/2) | nothing: at once |
//! | a request is served | not here: its body, the permit and Mimir have their own deadlines |
//!
//! While the process ends, every deadline is at most [`DRAIN_TIMEOUT`] away, and a request whose
//! client sends nothing of its body has it, too. [`Exchange`](super::exchange::Exchange) has the
//! deadline of one HTTP/2 stream. docs/operations/deadlines.md is the table for operators.

use std::time::Duration;

use tokio::time::Instant;

use super::framing::{BodyLength, Framing, Http1};
use super::resting::FAREWELL;
use crate::config::ListenConfig;
use crate::labels::ConnectionEnd;

/// The timeouts of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// For a head, and for the first byte.
    pub(super) header: Duration,
    pub(super) idle: Duration,
    /// For the client to read a byte of an answer.
    pub(super) write: Duration,
}

/// The longest timeout during a drain. The default drain lasts 30 s; a sender on a slow line pauses for
/// a second or two.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The time for HTTP/2 to flush its last answer and to exchange GOAWAY, during a drain.
const GOAWAY_TIMEOUT: Duration = Duration::from_secs(1);

/// What a client did not do in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// The rest of a head.
    Head,
    /// A request.
    Idle,
    /// To read its answer.
    Stalled,
    /// A request's body, during a drain.
    Upload,
    /// To send requests instead of other frames.
    Flood,
    /// To take note of the connection's end.
    Farewell,
}

impl Overdue {
    /// The end of the connection.
    pub(super) fn end(self) -> ConnectionEnd {
        match self {
            Self::Head => ConnectionEnd::HeaderTimeout,
            Self::Idle => ConnectionEnd::IdleTimeout,
            Self::Stalled => ConnectionEnd::WriteTimeout,
            Self::Upload | Self::Farewell => ConnectionEnd::Closed,
            Self::Flood => ConnectionEnd::ProtocolError,
        }
    }
}

/// What a silent client keeps its connection with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quiet {
    /// It has no request, or only a part of a head.
    NoRequest,
    /// It does not read its answer.
    NotReading,
}

/// One connection's state.
#[derive(Debug)]
pub(super) struct Phase {
    framing: Framing,
    opened: Instant,
    /// When the head began that has not ended.
    head_since: Option<Instant>,
    /// Requests whose answer has not ended.
    exchanges: usize,
    /// Those by HTTP/2 of whose answer bytes wait for the client.
    unread: usize,
    /// Since when the client has taken none of these bytes.
    unread_since: Option<Instant>,
    /// Requests whose body has not ended.
    uploads: usize,
    /// Bodies that are awaited.
    awaited: usize,
    /// Since when the last of them is awaited.
    awaited_since: Instant,
    /// Bodies that are read to be thrown away.
    discarded: usize,
    /// A read was put off because no body's next piece was wanted.
    has_put_off: bool,
    has_served: bool,
    /// When the last answer or body ended.
    idle_since: Instant,
    /// Since when the socket takes no bytes.
    blocked_since: Option<Instant>,
    /// When the socket last took bytes after it had taken none.
    unblocked_at: Option<Instant>,
    /// Something was written since the last request began.
    has_answered: bool,
    /// All answers have been written, and nothing follows them.
    has_said_all: bool,
    /// The last request's client accepts interim responses.
    takes_interim: bool,
    /// When the drain began.
    closing_since: Option<Instant>,
    /// A request has begun when the connection should have ended.
    outstays: bool,
}

impl Timeouts {
    pub(super) fn of(config: &ListenConfig) -> Self {
        Self {
            header: config.header_timeout,
            idle: config.idle_timeout,
            write: config.write_timeout,
        }
    }
}

impl Phase {
    /// Of a connection by HTTP/1.1 that is new, or has been without a request since.
    pub(super) fn http1(opened: Instant, since: Option<Instant>) -> Self {
        let mut phase = Self::new(Framing::Http1(Http1::new()), opened);
        if let Some(since) = since {
            phase.has_served = true;
            phase.idle_since = since;
        }
        phase
    }

    pub(super) fn new(framing: Framing, now: Instant) -> Self {
        Self {
            opened: now,
            head_since: framing.is_in_head().then_some(now),
            framing,
            exchanges: 0,
            unread: 0,
            unread_since: None,
            uploads: 0,
            awaited: 0,
            awaited_since: now,
            discarded: 0,
            has_put_off: false,
            has_served: false,
            idle_since: now,
            blocked_since: None,
            unblocked_at: None,
            has_answered: false,
            has_said_all: false,
            takes_interim: false,
            closing_since: None,
            outstays: false,
        }
    }

    /// The client sent bytes. The clock is read only if they leave a head open.
    pub(super) fn read(&mut self, bytes: &[u8], now: impl FnOnce() -> Instant) {
        self.framing.read(bytes);
        self.note_head(now);
    }

    fn note_head(&mut self, now: impl FnOnce() -> Instant) {
        if self.framing.is_in_head() {
            self.head_since.get_or_insert_with(now);
        } else {
            self.head_since = None;
        }
    }

    /// Whether what the client sends next is wanted. By HTTP/1.1 the next piece of a body is read when somebody has
    /// asked for it, so that one piece is in memory: hyper alone reads another one ahead.
    pub(super) fn wants_bytes(&self) -> bool {
        !self.is_http1() || self.uploads == 0 || self.awaited + self.discarded > 0
    }

    /// Whether the last read was put off until bytes are wanted.
    pub(super) fn note_put_off(&mut self, has_put_off: bool) {
        self.has_put_off = has_put_off;
    }

    /// Whether the connection's task has something to do since a body began, was asked for, or ended: to make a
    /// read that was put off, or to set another deadline.
    pub(super) fn is_to_be_polled(&self) -> bool {
        (self.has_put_off && self.wants_bytes()) || self.is_closing() || self.is_idle()
    }

    /// A request's head is complete. The clock is read only while the connection closes.
    pub(super) fn begin(
        &mut self,
        body: BodyLength,
        takes_interim: bool,
        now: impl FnOnce() -> Instant,
    ) {
        // Until the client has acknowledged the first GOAWAY, h2 takes further requests (RFC 9113, 6.8). One
        // that never does would keep its connection for ever.
        if let Some(closing) = self.closing_since
            && !self.is_http1()
        {
            self.outstays |= now() > closing + DRAIN_TIMEOUT;
        }
        self.exchanges += 1;
        self.has_served = true;
        self.has_answered = false;
        self.takes_interim = takes_interim;
        if let Framing::Http1(framing) = &mut self.framing {
            framing.begin(body);
            // Bytes behind it may have waited for us, not for the client.
            if !framing.is_in_head() {
                self.head_since = None;
            }
        }
    }

    /// A request's answer has ended. The clock is read only if it was the last one.
    pub(super) fn end(&mut self, now: impl FnOnce() -> Instant) {
        self.exchanges -= 1;
        if self.exchanges == 0 {
            self.idle_since = now();
        }
    }

    /// By HTTP/2, bytes of a request's answer wait for the client, and none did before.
    pub(super) fn begin_unread(&mut self, now: Instant) {
        self.unread += 1;
        self.unread_since.get_or_insert(now);
    }

    /// None wait any more, or the request has ended.
    pub(super) fn end_unread(&mut self) {
        self.unread -= 1;
        if self.unread == 0 {
            self.unread_since = None;
        }
    }

    /// The client took bytes of an answer. The clock is read only if others wait for it.
    pub(super) fn took(&mut self, now: impl FnOnce() -> Instant) {
        if self.unread > 0 {
            self.unread_since = Some(now());
        }
    }

    /// A request has a body, which may end after its answer.
    pub(super) fn begin_upload(&mut self) {
        self.uploads += 1;
    }

    /// A request's body has ended.
    pub(super) fn end_upload(&mut self, now: Instant) {
        self.uploads -= 1;
        self.idle_since = now;
        if let Framing::Http1(framing) = &mut self.framing {
            framing.body_ended();
        }
        self.note_head(|| now);
    }

    /// A body is awaited of which no byte is there.
    pub(super) fn begin_waiting(&mut self, now: Instant) {
        self.awaited += 1;
        self.awaited_since = now;
    }

    /// It has come, or is no longer needed.
    pub(super) fn end_waiting(&mut self) {
        self.awaited -= 1;
    }

    /// What is left of a body is read and thrown away.
    pub(super) fn begin_discarding(&mut self) {
        self.discarded += 1;
    }

    /// It has ended, or is not read any more.
    pub(super) fn end_discarding(&mut self) {
        self.discarded -= 1;
    }

    /// The socket took bytes.
    pub(super) fn wrote(&mut self, now: impl FnOnce() -> Instant) {
        self.has_answered = true;
        if self.blocked_since.take().is_some() {
            self.unblocked_at = Some(now());
        }
    }

    /// All answers have been written: the connection's end is next.
    pub(super) fn said_all(&mut self) {
        self.has_said_all = true;
    }

    /// Counts written bytes.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.framing.sent(bytes);
    }

    /// The socket took none.
    pub(super) fn blocked(&mut self, now: impl FnOnce() -> Instant) {
        self.blocked_since.get_or_insert_with(now);
    }

    /// A drain begins.
    pub(super) fn close(&mut self, now: Instant) {
        self.closing_since.get_or_insert(now);
    }

    /// Since when the socket does not block its streams; none if it does.
    pub(super) fn free_since(&self) -> Option<Instant> {
        match self.blocked_since {
            Some(_) => None,
            None => Some(self.unblocked_at.unwrap_or(self.opened)),
        }
    }

    /// Whether a client of HTTP/1.1 waits for the head of its answer, and nothing else is in progress.
    pub(super) fn owes_head(&self) -> bool {
        let is_complete = self.exchanges > 0 && self.uploads == 0;
        is_complete && !self.has_answered && self.takes_interim
    }

    /// Whether a client of HTTP/1.1 or 1.0 has been sent a part of an answer, and not the rest: if the connection ended
    /// without a reset, it could take the part for the whole. The last bytes of an answer may wait when its request has
    /// ended. HTTP/2 marks the end of each answer.
    pub(super) fn owes_rest(&self) -> bool {
        let is_part = self.blocked_since.is_some() || (self.exchanges > 0 && self.has_answered);
        self.is_http1() && is_part && !self.has_said_all
    }

    pub(super) fn is_http1(&self) -> bool {
        self.framing.is_http1()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing_since.is_some()
    }

    /// Whether no request is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.exchanges == 0 && self.uploads == 0
    }

    /// Since when the client is silent, and how; none while a request is served.
    pub(super) fn quiet(&self) -> Option<(Instant, Quiet)> {
        // Streams of HTTP/2 may send their bodies while others are not read. What is thrown away does not count:
        // nobody needs a credential to send it.
        let is_sending = self.uploads > self.discarded && !self.is_http1();
        if let Some(since) = self.blocked_since {
            return (!is_sending).then_some((since, Quiet::NotReading));
        }
        // The socket takes bytes, but no stream has credit.
        if let Some(since) = self.unread_since
            && self.unread == self.exchanges
        {
            let since = self.unblocked_at.map_or(since, |at| since.max(at));
            return (!is_sending).then_some((since, Quiet::NotReading));
        }
        let since = if self.has_served { self.idle_since } else { self.opened };
        let has_none = self.is_idle() || (!self.is_http1() && self.exchanges == 0 && !is_sending);
        has_none.then_some((since, Quiet::NoRequest))
    }

    /// When the last request ended.
    pub(super) fn idle_since(&self) -> Instant {
        self.idle_since
    }

    /// Since when a client of HTTP/1.1 that was served has sent nothing; none if it has, or if it is
    /// owed something.
    pub(super) fn resting_since(&self) -> Option<Instant> {
        let rests = self.is_idle()
            && self.has_served
            && self.blocked_since.is_none()
            && self.closing_since.is_none()
            && self.framing.is_between_requests();
        rests.then_some(self.idle_since)
    }

    /// The deadline of something that began at `since`.
    pub(super) fn deadline(&self, since: Instant, timeout: Duration) -> Instant {
        let deadline = since + timeout;
        match self.closing_since {
            Some(closing) => deadline.min(since.max(closing) + DRAIN_TIMEOUT),
            None => deadline,
        }
    }

    /// What the connection waits for, and the deadline.
    pub(super) fn due(&self, timeouts: &Timeouts) -> Option<(Instant, Overdue)> {
        if self.framing.is_flooded() {
            return Some((self.opened, Overdue::Flood));
        }
        if self.outstays {
            return Some((self.opened, Overdue::Farewell));
        }
        let due = |since, timeout, overdue| Some((self.deadline(since, timeout), overdue));
        if let Some(since) = self.blocked_since {
            return due(since, timeouts.write, Overdue::Stalled);
        }
        // An open head blocks all of an HTTP/2 client's streams; in HTTP/1.1 it may just be early.
        if let Some(since) = self.head_since
            && (self.is_idle() || !self.framing.is_http1())
        {
            let since = if self.framing.is_http1() { since.max(self.idle_since) } else { since };
            let since = self.unblocked_at.map_or(since, |at| since.max(at));
            return due(since, timeouts.header, Overdue::Head);
        }
        if !self.is_idle() {
            let waits_for_all = self.awaited > 0 && self.awaited >= self.exchanges;
            return match self.closing_since {
                Some(closing) if waits_for_all => {
                    due(self.awaited_since.max(closing), DRAIN_TIMEOUT, Overdue::Upload)
                }
                _ => None,
            };
        }
        let (since, timeout) = if !self.has_served && self.framing.is_http1() {
            (self.opened, timeouts.header)
        } else {
            (self.idle_since, timeouts.idle)
        };
        let mut deadline = since + timeout;
        if let Some(closing) = self.closing_since {
            deadline = deadline.min(if self.framing.is_http1() {
                closing.max(since) + FAREWELL
            } else {
                (closing + DRAIN_TIMEOUT).max(since + GOAWAY_TIMEOUT)
            });
        }
        Some((deadline, Overdue::Idle))
    }
}

#[cfg(test)]
mod tests;
