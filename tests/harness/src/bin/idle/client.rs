//! A client that costs as little as possible: a socket, and a buffer while an answer comes.

use std::net::SocketAddr;

use http::StatusCode;
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const QUERY: &str = "/prometheus/api/v1/query?query=up";

/// The request that is made over and over.
#[derive(Clone)]
pub struct Request {
    token: String,
    http1: Vec<u8>,
}

impl Request {
    pub fn new(token: &str) -> Self {
        let http1 =
            format!("GET {QUERY} HTTP/1.1\r\nHost: proxy\r\nAuthorization: Bearer {token}\r\n\r\n");
        Self { token: token.to_owned(), http1: http1.into_bytes() }
    }

    /// Sends it and reads its answer.
    pub async fn send(&self, socket: &mut TcpStream) {
        socket.write_all(&self.http1).await.expect("a request");
        let mut answer = Vec::with_capacity(4096);
        loop {
            assert!(socket.read_buf(&mut answer).await.expect("an answer") > 0, "it closes");
            let text = String::from_utf8_lossy(&answer);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>())
            });
            if length.expect("a length").expect("a number") == body.len() {
                return;
            }
        }
    }

    /// Sends it over a connection by HTTP/2 and gives the connection.
    pub async fn send_http2(&self, to: SocketAddr) -> http2::SendRequest<Empty<bytes::Bytes>> {
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(connect(to).await))
                .await
                .expect("handshake");
        tokio::spawn(connection);
        let request = http::Request::get(format!("http://proxy{QUERY}"))
            .header("authorization", format!("Bearer {}", self.token))
            .body(Empty::new())
            .expect("request");
        let answer = sender.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        http_body_util::BodyExt::collect(answer.into_body()).await.expect("a body");
        sender
    }
}

pub async fn connect(to: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(to).await.expect("connect");
    socket.set_nodelay(true).expect("nodelay");
    socket
}
