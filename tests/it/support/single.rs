//! A proxy in front of an upstream of the test's own, and bodies for it.

use bytes::Bytes;
use harness::{Client, Issuer, ORG_A, Proxy, ProxyOptions, Received};
use http::Response;
use http_body_util::BodyExt as _;

use crate::support::responses::{Body, full};

pub(crate) const QUERY: &str = "/prometheus/api/v1/query?query=up";
pub(crate) const PUSH: &str = "/api/v1/push";
pub(crate) const MIB: usize = 1 << 20;

pub(crate) struct ProxyFixture {
    pub(crate) issuer: Issuer,
    pub(crate) proxy: Proxy,
}

pub(crate) async fn proxy_fixture(upstream: &str, settings: &[(&str, &str)]) -> ProxyFixture {
    let issuer = Issuer::start().await;
    let options = ProxyOptions::new(&issuer.url(), upstream);
    let proxy = settings
        .iter()
        .fold(options, |options, (key, value)| options.set(key, value))
        .start()
        .await;
    ProxyFixture { issuer, proxy }
}

impl ProxyFixture {
    pub(crate) fn client(&self) -> Client {
        self.proxy.client().bearer(&self.issuer.user_of(ORG_A))
    }

    /// The head of an authenticated raw request.
    pub(crate) fn head(&self, request_line: &str, headers: &str) -> String {
        let token = self.issuer.user_of(ORG_A);
        format!(
            "{request_line} HTTP/1.1\r\nHost: proxy\r\nAuthorization: Bearer {token}\r\n{headers}\r\n"
        )
    }
}

/// A body that repeats one piece a number of times.
pub(crate) fn pieces(
    count: usize,
    size: usize,
) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> {
    let piece = Bytes::from(vec![b'x'; size]);
    futures_util::stream::iter((0..count).map(move |_| Ok(piece.clone())))
}

/// Counts the bytes of a request's body and answers with the count.
pub(crate) async fn count(request: Received) -> Response<Body> {
    let mut body = request.body.unwrap();
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
    Response::new(full(bytes.to_string()))
}
