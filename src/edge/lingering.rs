//! Reading on what a client still sends after it has been answered.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

/// How long a client that has been answered may go on sending.
const AT_MOST: Duration = Duration::from_secs(5);

/// Something that is to be held until a request's body has ended, put into the request's
/// extensions by the listener (its connection is busy until then) and held by whoever has the body.
#[derive(Clone)]
pub struct UntilBodyEnds(pub Arc<dyn Any + Send + Sync>);

/// Takes the rest of a body and forgets it, for a while: closing a socket with unread bytes in it
/// resets it, and the reset may overtake the answer. A sender that sees a reset instead of a 401
/// or a 413 tries for ever. (nginx calls this a lingering close.)
pub fn take_the_rest(mut rest: Incoming, held: Option<UntilBodyEnds>) {
    if rest.is_end_stream() {
        return;
    }
    // At the end of the process there is no runtime left, and nobody to answer.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        let reading = async { while let Some(Ok(_)) = rest.frame().await {} };
        let _ = tokio::time::timeout(AT_MOST, reading).await;
        drop(held);
    });
}
