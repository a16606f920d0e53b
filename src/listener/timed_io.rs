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
    read_timer: Deadline,
    write_timer: Deadline,
    stalled_since: Option<Instant>,
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
            read_timer: Deadline::default(),
            write_timer: Deadline::default(),
            stalled_since: None,
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

    /// Nothing is there to read: has that been so for too long?
    fn overdue(&mut self, cx: &mut Context<'_>) -> Option<Overdue> {
        if self.activity.is_busy() {
            return None;
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
        self.read_timer.is_past(deadline, cx).then_some(overdue)
    }

    /// Nothing can be written: has that been so for too long? A client that asks and does not read
    /// would else hold a connection of Mimir's for ever (slow read).
    fn written<T>(
        &mut self,
        outcome: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled_since = None;
            return outcome;
        }
        let since = *self.stalled_since.get_or_insert_with(Instant::now);
        if self.write_timer.is_past(since + self.patience.write, cx) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, StalledReader)));
        }
        Poll::Pending
    }
}

/// The client does not read what it has asked for.
#[derive(Debug)]
pub(super) struct StalledReader;

impl std::fmt::Display for StalledReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the client does not read")
    }
}

impl std::error::Error for StalledReader {}

enum Overdue {
    Head,
    Idle,
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
        match self.overdue(cx) {
            None => Poll::Pending,
            Some(Overdue::Idle) => Poll::Ready(Ok(())), // the end of the stream
            Some(Overdue::Head) => {
                if self.speaks_http1 {
                    // Nothing of a response is under way; what does not fit at once is not missed.
                    let _ = self.socket.inner().try_write(ANSWER);
                }
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl Write for TimedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.written(outcome, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.written(outcome, cx)
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
