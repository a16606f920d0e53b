//! One exchange on one connection: send a request, and wait for the head of the response.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::Response;
use tokio::time::Instant;

use super::pool::PooledConnection;
use super::wire::WireFault;
use crate::request_body::{BodyError, RequestBody, Transfer};

/// How an exchange ended.
pub(super) enum Exchanged {
    Answered(Response<()>),
    /// Nothing was sent: the connection had been closed.
    Unsent(RequestBody),
    /// The connection broke this long after the request was begun.
    Broken(WireFault, Duration),
    /// No response began in time.
    Late,
    /// The client's body failed.
    BodyFailed(BodyError),
}

/// Sends a request that was [begun](super::wire::Wire::begin) on a connection, and waits for the head
/// of its response. The timeout runs from the last piece of the request's body, and not while the next one is
/// awaited: while the client is still sending, Mimir is not late. How long it may pause is the body's own limit.
pub(super) async fn exchange(
    connection: &mut PooledConnection,
    transfer: Option<&Arc<Transfer>>,
    begun: Instant,
    response_timeout: Duration,
) -> Exchanged {
    let wire = &mut connection.wire;
    let answered = poll_fn(|cx| {
        if let Poll::Ready(answered) = wire.poll_answer(cx) {
            return Poll::Ready(Some(answered));
        }
        let last_sign = transfer.map_or(begun, |body| body.last_piece().max(begun));
        let is_late = wire.timer.is_past(last_sign + response_timeout, cx)
            && transfer.is_none_or(|body| !body.is_awaited());
        if is_late { Poll::Ready(None) } else { Poll::Pending }
    });
    match answered.await {
        None => Exchanged::Late,
        Some(Ok(response)) => Exchanged::Answered(response),
        Some(Err(WireFault::Upload(fault))) => Exchanged::BodyFailed(fault),
        Some(Err(fault)) => match (transfer.and_then(|body| body.fault()), wire.take_unsent()) {
            (Some(fault), _) => Exchanged::BodyFailed(fault),
            (None, Some(unsent)) => Exchanged::Unsent(unsent),
            (None, None) => Exchanged::Broken(fault, begun.elapsed()),
        },
    }
}
