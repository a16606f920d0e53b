//! HTTP requests of our own: one way to build a client, one way to read a bounded answer.
//!
//! What is forwarded does not come here: `forward` has its own connections.

use reqwest::{Client, ClientBuilder, Response};

/// Why an answer could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("longer than {0} bytes")]
    TooLong(usize),
    #[error(transparent)]
    Broken(#[from] reqwest::Error),
}

/// A client for servers inside the network: Mimir, Consul, this process itself. `HTTP_PROXY` and
/// its relatives do not count: a proxy for the way out must not see tenants' rules, and an address
/// inside is mostly not reachable through it.
pub(crate) fn internal() -> ClientBuilder {
    external().no_proxy()
}

/// A client for servers that may be on the internet, such as the token issuer's. It honours
/// `HTTPS_PROXY` and `NO_PROXY`. It follows no redirect: addresses are configured, not discovered.
pub(crate) fn external() -> ClientBuilder {
    Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("mimir-tenant-proxy/", env!("CARGO_PKG_VERSION")))
}

/// Reads an answer of at most `limit` bytes.
pub(crate) async fn read_limited(
    response: &mut Response,
    limit: usize,
) -> Result<Vec<u8>, ReadError> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await? {
        if body.len() + piece.len() > limit {
            return Err(ReadError::TooLong(limit));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// Reads the first `limit` bytes of an answer, for people. The rest of a longer one is not read.
pub(crate) async fn read_start(response: &mut Response, limit: usize) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while body.len() < limit {
        let Some(piece) = response.chunk().await? else { break };
        body.extend_from_slice(&piece);
    }
    body.truncate(limit);
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(bytes: usize) -> Response {
        http::Response::new("x".repeat(bytes)).into()
    }

    #[tokio::test]
    async fn an_answer_is_read_up_to_its_limit_and_no_further() {
        assert_eq!(read_limited(&mut answer(8), 8).await.unwrap().len(), 8);
        let error = read_limited(&mut answer(9), 8).await.unwrap_err();
        assert_eq!(error.to_string(), "longer than 8 bytes");
        assert_eq!(read_start(&mut answer(9), 8).await.unwrap().len(), 8);
        assert_eq!(read_start(&mut answer(3), 8).await.unwrap().len(), 3);
    }
}
