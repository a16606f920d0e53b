//! A socket that does not wait for ever: for a request, and for the rest of a head.
//!
//! Bodies have deadlines of their own (`forward`). hyper's own header deadline would close a
//! connection between two requests by the same clock, and without a word; here an idle
//! connection ends quietly and half a head is answered with 408 (slowloris).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::activity::Activity;
use crate::deadline::Deadline;

/// How long a connection may keep us waiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) header: Duration,
    pub(super) idle: Duration,
    pub(super) write: Duration,
}

pub(super) struct TimedIo {
    socket: TokioIo<TcpStream>,
    /// What was read to find out the protocol.
    prefix: Bytes,
    activity: Arc<Activity>,
    patience: Patience,
    head: Head,
    timer: Deadline,
    /// HTTP/1.1 is told what it did wrong; HTTP/2 has no words for it before a request.
    speaks_http1: bool,
}

/// The head that is being read.
enum Head {
    NotBegun,
    /// Some of it came when this many requests had begun.
    Begun {
        requests: u64,
        since: Option<Instant>,
    },
}

const ANSWER: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 35\r\nconnection: close\r\n\r\nthe request's head came too slowly\n";

impl TimedIo {
    pub(super) fn new(
        socket: TcpStream,
        prefix: Bytes,
        speaks_http1: bool,
        activity: Arc<Activity>,
        patience: Patience,
    ) -> Self {
        let head =
            if speaks_http1 { Head::Begun { requests: 0, since: None } } else { Head::NotBegun };
        Self {
            socket: TokioIo::new(socket),
            prefix,
            activity,
            patience,
            head,
            timer: Deadline::default(),
            speaks_http1,
        }
    }

    /// Some bytes came. If no request is in flight they begin a head; but HTTP/2 has frames that
    /// belong to no request, and to it only the time without a request counts.
    fn note_bytes(&mut self) {
        if !self.speaks_http1 {
            return;
        }
        let requests = self.activity.begun();
        match self.head {
            Head::Begun { requests: before, .. } if before == requests => {}
            _ if self.activity.is_busy() => self.head = Head::NotBegun,
            _ => self.head = Head::Begun { requests, since: None },
        }
    }

    /// A client that asks and does not read would hold a connection of Mimir's for ever (slow
    /// read). Whatever is found, the timer must be set: when the last request has ended nothing
    /// but it wakes an idle connection.
    fn overdue_while_busy(&mut self, cx: &mut Context<'_>) -> Option<Overdue> {
        if let Some(since) = self.activity.stalled_since() {
            self.timer.is_past(since + self.patience.write, cx).then_some(Overdue::Stalled)
        } else {
            let later = self.patience.idle.min(self.patience.write);
            self.timer.is_past(Instant::now() + later, cx);
            None
        }
    }

    /// Nothing is there to read: has that been so for too long?
    fn overdue(&mut self, cx: &mut Context<'_>) -> Option<Overdue> {
        if self.activity.is_busy() {
            return self.overdue_while_busy(cx);
        }
        let requests = self.activity.begun();
        let (deadline, overdue) = match &mut self.head {
            Head::Begun { requests: before, since } if *before == requests => {
                let since = *since.get_or_insert_with(Instant::now);
                (since + self.patience.header, Overdue::Head)
            }
            head => {
                *head = Head::NotBegun;
                (self.activity.idle_since() + self.patience.idle, Overdue::Idle)
            }
        };
        self.timer.is_past(deadline, cx).then_some(overdue)
    }
}

/// What a client has kept us waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overdue {
    /// The rest of a head.
    Head,
    /// Another request.
    Idle,
    /// Reading what it has asked for.
    Stalled,
}

impl Overdue {
    /// The end of a connection, as a metric label.
    fn label(self) -> &'static str {
        match self {
            Self::Head => "header_timeout",
            Self::Idle => "idle_timeout",
            Self::Stalled => "write_timeout",
        }
    }
}

impl Read for TimedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let length = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix[..length]);
            self.prefix.advance(length);
            return Poll::Ready(Ok(()));
        }
        if let Poll::Ready(outcome) = Pin::new(&mut self.socket).poll_read(cx, buf) {
            self.note_bytes();
            return Poll::Ready(outcome);
        }
        let Some(overdue) = self.overdue(cx) else { return Poll::Pending };
        if overdue == Overdue::Head && self.speaks_http1 {
            // Nothing of a response is under way; what does not fit at once is not missed.
            let _ = self.socket.inner().try_write(ANSWER);
        }
        self.activity.end(overdue.label());
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Drop for TimedIo {
    fn drop(&mut self) {
        // HTTP/1.0 ends a body by closing: only a reset tells half an answer from a whole one.
        if self.activity.is_broken() {
            let _ = self.socket.inner().set_zero_linger();
        }
    }
}

impl Write for TimedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// What a client speaks, by its first bytes.
pub(super) enum Protocol {
    Http1,
    Http2,
}

const HTTP2_PREFACE_BEGINS: &[u8] = b"PRI";

/// Reads until it is clear what the client speaks: no method of HTTP/1.1 begins like HTTP/2's
/// preface (RFC 9113, 3.4). None if the client says nothing.
pub(super) async fn find_protocol(socket: &mut TcpStream) -> io::Result<Option<(Protocol, Bytes)>> {
    use tokio::io::AsyncReadExt as _;
    let mut first = Vec::with_capacity(64);
    loop {
        if socket.read_buf(&mut first).await? == 0 {
            return Ok(None);
        }
        let length = first.len().min(HTTP2_PREFACE_BEGINS.len());
        if first[..length] != HTTP2_PREFACE_BEGINS[..length] {
            return Ok(Some((Protocol::Http1, first.into())));
        }
        if length == HTTP2_PREFACE_BEGINS.len() {
            return Ok(Some((Protocol::Http2, first.into())));
        }
    }
}
