//! The end of a connection whose client may still be sending: a body that it was not asked for, the rest of
//! one that [`ClientBody`](crate::edge::ClientBody) did not wait for any longer, or what follows a head that is
//! none. If the socket were closed under it, the kernel would answer with a reset, which lets the client's
//! kernel drop the answer before the client has read it: a sender would see a broken connection in place of a
//! 401, or of a 503 with Retry-After. So our sending side ends first, and
//! what still comes is read and dropped for a while (RFC 9112, 9.6).

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::time::Instant;
use tokio_util::sync::WaitForCancellationFuture;

use super::resting::FAREWELL;
use crate::deadline::Deadline;
use crate::net::{self, TcpStream};

/// The longest pause of a client that still sends.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The longest time that it may send for. No deadline of ours for a request is much shorter.
const LONGEST: Duration = Duration::from_secs(30);

/// How much is read at once.
const PIECE_BYTES: usize = 16 << 10;

/// How much is read in one turn, so that a fast client does not keep the worker to itself.
const PIECES_A_TURN: usize = 16;

/// Reads what the client still sends, until it ends the connection or takes too long.
pub(super) async fn linger(
    stream: &TcpStream,
    mut closing: Pin<&mut WaitForCancellationFuture<'_>>,
) {
    if net::shut_down(stream, Shutdown::Write).is_err() {
        return;
    }
    let began = Instant::now();
    let (mut last, mut end) = (began, began + LONGEST);
    let (mut timer, mut is_closing) = (Deadline::default(), false);
    poll_fn(move |cx| {
        if !is_closing && closing.as_mut().poll(cx).is_ready() {
            is_closing = true;
            end = end.min(Instant::now() + FAREWELL);
        }
        let mut pieces = 0;
        while stream.poll_read_ready(cx).is_ready() {
            if pieces == PIECES_A_TURN {
                cx.waker().wake_by_ref();
                break;
            }
            pieces += 1;
            match drop_piece(stream) {
                Ok(0) => return Poll::Ready(()),
                Ok(_) => last = Instant::now(),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(()),
            }
        }
        if timer.is_past(end.min(last + LONGEST_PAUSE), cx) {
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}

fn drop_piece(stream: &TcpStream) -> std::io::Result<usize> {
    let mut piece = [MaybeUninit::uninit(); PIECE_BYTES];
    stream.try_read_buf(&mut ReadBuf::uninit(&mut piece))
}
