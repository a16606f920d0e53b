//! A request on its way to an instance: what waits for the socket, and the body that follows.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, HeaderName, Method};
use http_body::Body as _;
use tokio::io::AsyncWrite;

use crate::request_body::{BodyError, RequestBody};

/// What the socket has still to take: what we write, then a piece of the client's body, then its end.
#[derive(Default)]
pub(super) struct Output {
    written: Vec<u8>,
    /// How much of that was taken.
    taken: usize,
    piece: Bytes,
    tail: &'static [u8],
    /// The socket keeps some of what it took to itself: TLS does.
    is_kept_back: bool,
}

impl Output {
    pub(super) fn is_empty(&self) -> bool {
        self.written.is_empty() && self.piece.is_empty() && self.tail.is_empty()
    }

    /// Whether all of it is on its way.
    pub(super) fn is_sent(&self) -> bool {
        self.is_empty() && !self.is_kept_back
    }

    /// Whether all but what we write ourselves was taken.
    pub(super) fn takes_piece(&self) -> bool {
        self.piece.is_empty() && self.tail.is_empty()
    }

    /// Where a head is written.
    pub(super) fn head(&mut self) -> &mut Vec<u8> {
        &mut self.written
    }

    pub(super) fn clear(&mut self) {
        self.written.clear();
        self.taken = 0;
        self.piece = Bytes::new();
        self.tail = b"";
        self.is_kept_back = false;
    }

    /// Gives it all to a socket, and tells that it took some.
    pub(super) fn poll_flush<S: AsyncWrite + Unpin>(
        &mut self,
        socket: &mut S,
        cx: &mut Context<'_>,
        mut took_some: impl FnMut(),
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = &self.written[self.taken..];
            let socket = Pin::new(&mut *socket);
            let taken = if self.takes_piece() {
                ready!(socket.poll_write(cx, written))?
            } else {
                let all = [written, &self.piece, self.tail].map(IoSlice::new);
                ready!(socket.poll_write_vectored(cx, &all))?
            };
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            took_some();
            self.advance(taken);
            self.is_kept_back = true;
        }
        ready!(Pin::new(socket).poll_flush(cx))?;
        self.is_kept_back = false;
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, taken: usize) {
        let of_written = taken.min(self.written.len() - self.taken);
        self.taken += of_written;
        if self.taken == self.written.len() {
            self.written.clear();
            self.taken = 0;
        }
        let of_piece = (taken - of_written).min(self.piece.len());
        self.piece.advance(of_piece);
        if self.piece.is_empty() {
            // hyper reads the next piece to where this one was, as soon as nobody has it.
            self.piece = Bytes::new();
        }
        self.tail = &self.tail[taken - of_written - of_piece..];
    }
}

/// A client's body that has not been passed on to its end.
pub(super) struct Upload {
    body: RequestBody,
    framing: Framing,
    is_untouched: bool,
}

#[derive(Debug)]
enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    /// Chunks, and trailers of these names.
    Chunked(Vec<HeaderName>),
}

impl Upload {
    /// Of a body; none if it has no bytes. `trailers` are those that the head announces.
    pub(super) fn of(
        body: RequestBody,
        trailers: impl FnOnce() -> Vec<HeaderName>,
    ) -> Option<Self> {
        if body.is_end_stream() {
            return None;
        }
        let framing = match body.size_hint().exact() {
            Some(length) => Framing::Length(length),
            None => Framing::Chunked(trailers()),
        };
        Some(Self { body, framing, is_untouched: true })
    }

    /// The body, if none of it was taken.
    pub(super) fn into_untouched(self) -> Option<RequestBody> {
        self.is_untouched.then_some(self.body)
    }

    /// Takes the next piece. True if it was the last.
    pub(super) fn poll_fill(
        &mut self,
        output: &mut Output,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, BodyError>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.is_untouched = false;
        let frame = match frame {
            Some(frame) => frame?,
            None => return Poll::Ready(self.end(output, None).map(|()| true)),
        };
        Poll::Ready(match frame.into_data() {
            Ok(piece) => self.pass_on(output, piece),
            Err(frame) => {
                let trailers = frame.into_trailers().ok();
                self.end(output, trailers.as_ref()).map(|()| true)
            }
        })
    }

    fn pass_on(&mut self, output: &mut Output, piece: Bytes) -> Result<bool, BodyError> {
        if piece.is_empty() {
            return Ok(false); // it would be the last chunk
        }
        match &mut self.framing {
            Framing::Length(left) => {
                let rest = left.checked_sub(piece.len() as u64);
                *left = rest.ok_or(BodyError::Malformed)?;
                output.piece = piece;
                Ok(*left == 0)
            }
            Framing::Chunked(_) => {
                let _ = write!(output.written, "{:x}\r\n", piece.len());
                output.piece = piece;
                output.tail = b"\r\n";
                Ok(false)
            }
        }
    }

    fn end(&self, output: &mut Output, trailers: Option<&HeaderMap>) -> Result<(), BodyError> {
        match &self.framing {
            Framing::Length(0) => Ok(()),
            Framing::Length(_) => Err(BodyError::Incomplete),
            Framing::Chunked(announced) => {
                output.written.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.into_iter().flatten() {
                    if announced.contains(name) {
                        write_header(&mut output.written, name, value.as_bytes());
                    }
                }
                output.written.extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }
}

/// Writes the headers that say where a request's body ends, if it needs any.
pub(super) fn write_framing(out: &mut Vec<u8>, method: &Method, upload: Option<&Upload>) {
    match upload.map(|upload| &upload.framing) {
        Some(Framing::Length(length)) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(itoa::Buffer::new().format(*length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Some(Framing::Chunked(_)) => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        // RFC 9110, 8.6: without a body, a request whose method expects one has a length of 0.
        None if [Method::POST, Method::PUT, Method::PATCH].contains(method) => {
            out.extend_from_slice(b"content-length: 0\r\n");
        }
        None => {}
    }
}

/// Writes one header line.
pub(in crate::forward) fn write_header(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
