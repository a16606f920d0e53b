//! One exchange on one connection: send a request, and wait for the head of the response.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until};

use super::pool::PooledConnection;
use crate::request_body::{BodyError, RequestBody, Transfer};

/// How an exchange ended.
pub(super) enum Exchanged {
    Answered(Response<Incoming>),
    /// Nothing was sent: the connection had been closed.
    Unsent(Box<Request<RequestBody>>),
    /// The connection broke this long after the request was begun.
    Broken(hyper::Error, Duration),
    /// No response began in time.
    Late,
    /// The client's body failed.
    BodyFailed(BodyError),
}

/// Sends a request on a connection and waits for the head of its response.
pub(super) async fn exchange(
    connection: &mut PooledConnection,
    request: Box<Request<RequestBody>>,
    transfer: Option<&Arc<Transfer>>,
    response_timeout: Duration,
) -> Exchanged {
    let begun = Instant::now();
    let send = connection.link.sender.try_send_request(*request);
    let Some(sent) = before_deadline(send, begun, transfer, response_timeout).await else {
        return Exchanged::Late;
    };
    match sent {
        Ok(response) => Exchanged::Answered(response),
        Err(mut error) => match (error.take_message(), transfer.and_then(|body| body.fault())) {
            (Some(unsent), _) => Exchanged::Unsent(Box::new(unsent)),
            (None, Some(fault)) => Exchanged::BodyFailed(fault),
            (None, None) => Exchanged::Broken(error.into_error(), begun.elapsed()),
        },
    }
}

/// Waits for the head of a response, with a timeout since the last piece of the request's body:
/// while the client is still sending, Mimir is not late.
async fn before_deadline<T>(
    send: impl Future<Output = T>,
    begun: Instant,
    transfer: Option<&Arc<Transfer>>,
    response_timeout: Duration,
) -> Option<T> {
    let mut send = pin!(send);
    let mut timer = pin!(sleep_until(begun + response_timeout));
    loop {
        tokio::select! {
            biased;
            sent = &mut send => return Some(sent),
            () = &mut timer => {
                let last_sign = transfer.map_or(begun, |body| body.last_piece().max(begun));
                let deadline = last_sign + response_timeout;
                if Instant::now() >= deadline {
                    return None;
                }
                timer.as_mut().reset(deadline);
            }
        }
    }
}
