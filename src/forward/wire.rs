//! One connection to an instance: HTTP/1.1, one request at a time, driven by the task of the request.
//!
//! A client of our own and not hyper's, which runs each connection in a task of its own: a request
//! then goes through two queues and wakes three tasks (docs/decisions/0035). Only this side is
//! written by hand: what clients send is read by hyper alone. Dropping the request's future closes
//! the connection, which cancels the request in Mimir.

mod answer;
mod chunks;
mod fault;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod room;
mod upload;

#[cfg(test)]
mod tests;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, Method, Response};
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use answer::{HeaderSpan, Rest, take_head};
use chunks::Step;
pub use fault::WireFault;
pub(super) use room::LargeReads;
use room::{LEAST_BYTES, MOST_BYTES, Room};
pub(super) use upload::write_header;
use upload::{Output, Upload};

use super::socket::{Quiet, Socket};
use crate::deadline::Deadline;
use crate::request_body::RequestBody;

pub(super) struct Wire<S = Socket> {
    socket: S,
    /// What was read and not taken.
    input: BytesMut,
    room: Room,
    output: Output,
    /// The request's body, until all of it was taken.
    upload: Option<Upload>,
    /// Whether the request has a body.
    has_body: bool,
    /// Whether a byte of the request was written, or may have been.
    has_written: bool,
    /// A write that fails may have sent a part: TLS sends in records.
    fails_late: bool,
    /// The socket takes no more of the request; an answer may still come.
    write_fault: Option<io::Error>,
    method: Method,
    /// Interim answers to this request so far.
    interim: u8,
    /// What is to come of the answer's body.
    rest: Rest,
    /// Whether another request may follow.
    keeps: bool,
    /// The deadline of the instance's answer. It stays from request to request, because setting a
    /// timer costs more than moving one.
    pub(super) timer: Deadline,
    spans: Vec<HeaderSpan>,
}

impl Wire {
    /// Asks the socket, right before a request is written, whether the connection is still open and
    /// quiet. HTTP/1.1 does not number answers: bytes that come without a request (a second answer to
    /// the last one, or a late one) would be the next one's, perhaps another organisation's.
    pub(super) fn is_quiet(&mut self) -> Quiet {
        self.socket.quiet()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(socket: S, large_reads: &Arc<LargeReads>) -> Self {
        Self {
            socket,
            input: BytesMut::new(),
            room: Room::new(large_reads),
            output: Output::default(),
            upload: None,
            has_body: false,
            has_written: false,
            fails_late: false,
            write_fault: None,
            method: Method::GET,
            interim: 0,
            rest: Rest::NONE,
            keeps: true,
            timer: Deadline::default(),
            spans: Vec::new(),
        }
    }

    pub(super) fn over_tls(mut self, is_tls: bool) -> Self {
        self.fails_late = is_tls;
        self
    }

    /// Begins a request, of which nothing is sent before the answer is polled. `write_head` writes its
    /// head but for the framing of its body and the empty line.
    pub(super) fn begin(
        &mut self,
        method: &Method,
        write_head: impl FnOnce(&mut Vec<u8>),
        body: RequestBody,
        trailers: impl FnOnce() -> Vec<HeaderName>,
    ) {
        self.method = method.clone();
        self.interim = 0;
        self.has_written = false;
        self.upload = Upload::of(body, trailers);
        self.has_body = self.upload.is_some();
        let head = self.output.head();
        write_head(head);
        upload::write_framing(head, method, self.upload.as_ref());
        head.extend_from_slice(b"\r\n");
        // Until its answer says that it does.
        self.keeps = false;
    }

    /// The body of a request of which nothing was sent, if nothing was taken of it either.
    pub(super) fn take_unsent(&mut self) -> Option<RequestBody> {
        match self.upload.take() {
            _ if self.has_written => None,
            Some(upload) => upload.into_untouched(),
            None if self.has_body => None,
            None => Some(RequestBody::empty()),
        }
    }

    /// Sends the request, and waits for the head of its answer. The answer may come first: the rest of
    /// the request is sent while the answer's body is polled.
    pub(super) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<()>, WireFault>> {
        self.poll_upload(cx)?;
        // Without a byte of it no answer can come.
        if let Some(error) = self.write_fault.take_if(|_| !self.has_written) {
            return Poll::Ready(Err(WireFault::Socket(error)));
        }
        loop {
            if !self.input.is_empty() {
                let Self { input, method, interim, spans, .. } = &mut *self;
                let head = take_head(input, method, interim, spans);
                if let Some(head) = head.map_err(WireFault::Malformed)? {
                    self.rest = head.rest;
                    self.keeps = head.keeps;
                    return Poll::Ready(Ok(head.response));
                }
                if self.input.len() >= MOST_BYTES {
                    return Poll::Ready(Err(WireFault::Malformed("the head is too long")));
                }
            }
            if ready!(self.poll_read(cx))? == 0 {
                return Poll::Ready(Err(self.closed()));
            }
        }
    }

    /// The next piece of the answer's body.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WireFault>>> {
        if self.upload.is_some() || !self.output.is_sent() {
            self.poll_upload(cx)?;
        }
        loop {
            match &mut self.rest {
                Rest::Length(0) => return Poll::Ready(None),
                Rest::Length(left) if !self.input.is_empty() => {
                    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(self.input.len());
                    *left -= length as u64;
                    let piece = self.input.split_to(length).freeze();
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                Rest::UntilClose if !self.input.is_empty() => {
                    let piece = self.input.split().freeze();
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                Rest::Chunks(chunks) => match chunks.next(&mut self.input) {
                    Ok(Step::Piece(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                    Ok(Step::Trailers(trailers)) => {
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                    }
                    Ok(Step::End) => return Poll::Ready(None),
                    Ok(Step::More) => {}
                    Err(what) => return Poll::Ready(Some(Err(WireFault::Malformed(what)))),
                },
                Rest::Length(_) | Rest::UntilClose => {}
            }
            if ready!(self.poll_read(cx))? == 0 {
                if matches!(self.rest, Rest::UntilClose) {
                    self.rest = Rest::NONE;
                    return Poll::Ready(None);
                }
                return Poll::Ready(Some(Err(self.closed())));
            }
        }
    }

    /// Whether the whole answer was taken.
    pub(super) fn is_answered(&self) -> bool {
        self.rest.is_none()
    }

    /// How much is to come of the answer's body, if that is known.
    pub(super) fn rest_length(&self) -> Option<u64> {
        self.rest.length()
    }

    /// Whether another request may be sent, after this one.
    pub(super) fn is_reusable(&self) -> bool {
        self.keeps
            && self.is_answered()
            && self.input.is_empty()
            && self.upload.is_none()
            && self.output.is_sent()
            && self.write_fault.is_none()
    }

    /// Gives back what a stream has taken, for the time without a request.
    pub(super) fn settle(&mut self) {
        if self.input.capacity() > LEAST_BYTES {
            self.input = BytesMut::new();
        }
        self.room.reset();
    }

    /// Sends what the socket takes and the client has given. Ready or not, the answer can be read.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), WireFault> {
        loop {
            // A head and the first piece go together.
            let mut is_waiting = false;
            if self.output.takes_piece()
                && let Some(upload) = &mut self.upload
            {
                match upload.poll_fill(&mut self.output, cx) {
                    Poll::Ready(Ok(true)) => self.upload = None,
                    Poll::Ready(Ok(false)) => {}
                    Poll::Ready(Err(fault)) => return Err(WireFault::Upload(fault)),
                    Poll::Pending => is_waiting = true,
                }
            }
            let has_written = &mut self.has_written;
            match self.output.poll_flush(&mut self.socket, cx, || *has_written = true) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) if is_waiting || self.upload.is_none() => return Ok(()),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    // An instance that refuses a body answers, and then reads no more of it.
                    self.write_fault = Some(error);
                    self.has_written |= self.fails_late;
                    self.output.clear();
                    if self.has_written {
                        self.upload = None;
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Reads some bytes; 0 at the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, WireFault>> {
        self.input.reserve(self.room.bytes());
        let read = pin!(self.socket.read_buf(&mut self.input));
        let count = match ready!(read.poll(cx)) {
            Ok(count) => count,
            Err(error) => return Poll::Ready(Err(WireFault::Socket(error))),
        };
        self.room.came(count);
        Poll::Ready(Ok(count))
    }

    /// The instance closed the connection, perhaps because of what we could not write.
    fn closed(&mut self) -> WireFault {
        self.write_fault.take().map_or(WireFault::Closed, WireFault::Socket)
    }
}
