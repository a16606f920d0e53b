//! Responses for simple upstreams.

use bytes::Bytes;
use harness::Received;
use http::Response;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};

pub(crate) type Body = BoxBody<Bytes, std::io::Error>;

/// A complete body.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// Reads the request to its end and answers an empty query result.
pub(crate) async fn ok(request: Received) -> Response<Body> {
    if let Some(body) = request.body {
        let _ = body.collect().await;
    }
    Response::new(full(
        "{\"status\":\"success\",\"data\":{\"resultType\":\"vector\",\"result\":[]}}",
    ))
}
