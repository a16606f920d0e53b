//! One downstream connection from its first byte to its end.

use std::convert::Infallible;
use std::error::Error as _;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;

use http::{HeaderName, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::activity::{Activity, BusyBody};
use super::timed_io::{Patience, Protocol, StalledReader, TimedIo, find_protocol};
use crate::config::ListenConfig;
use crate::pipeline::{Pipeline, PublicBody};

/// What a connection needs to know of its surroundings.
pub(super) struct Surroundings {
    pub(super) pipeline: Pipeline,
    pub(super) config: ListenConfig,
    pub(super) closing: CancellationToken,
}

/// Streams of one HTTP/2 connection at a time: enough for a dashboard, too few for a flood.
const MAX_STREAMS: u32 = 128;

/// A body is read in pieces of at most this size, which bounds the memory of a stream.
const MAX_PIECE_BYTES: usize = 128 << 10;

/// Header lines of one request.
const MAX_HEADERS: usize = 100;

/// Serves a connection to its end and says why it ended, as a metric label.
pub(super) async fn serve(
    mut socket: TcpStream,
    peer: SocketAddr,
    around: &Arc<Surroundings>,
) -> &'static str {
    let config = &around.config;
    let patience = Patience {
        header: config.header_timeout,
        idle: config.idle_timeout,
        write: config.write_timeout,
    };
    // A fresh connection has the time of an idle one to say its first word.
    let first = tokio::select! {
        first = timeout(patience.idle, find_protocol(&mut socket)) => first,
        () = around.closing.cancelled() => return "closed",
    };
    let (protocol, prefix) = match first {
        Err(_) => return "idle_timeout",
        Ok(Ok(Some(found))) => found,
        Ok(_) => return "closed",
    };
    let activity = Activity::new();
    let speaks_http1 = matches!(protocol, Protocol::Http1);
    let io = TimedIo::new(socket, prefix, speaks_http1, Arc::clone(&activity), patience);
    let service = service_fn(move |request| {
        let (around, busy) = (Arc::clone(around), activity.begin());
        async move {
            let client =
                client_address(&request, peer.ip(), around.config.client_ip_header.as_ref());
            let response = around.pipeline.serve(client, request).await;
            Ok::<Response<BusyBody<PublicBody>>, Infallible>(
                response.map(|body| BusyBody { body, _busy: busy }),
            )
        }
    });
    let ended = if speaks_http1 {
        let mut connection = pin!(http1_builder(config).serve_connection(io, service));
        tokio::select! {
            ended = &mut connection => ended,
            () = around.closing.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    } else {
        let mut connection = pin!(http2_builder(config).serve_connection(io, service));
        tokio::select! {
            ended = &mut connection => ended,
            () = around.closing.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    match ended {
        Ok(()) => "closed",
        Err(error) => why(&error),
    }
}

/// Larger heads than allowed reach the pipeline, up to a point, and are answered there in words.
fn http1_builder(config: &ListenConfig) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(MAX_HEADERS)
        .max_header_size(config.max_header_bytes * 2)
        .max_buf_size(MAX_PIECE_BYTES.max(config.max_header_bytes * 2));
    builder
}

fn http2_builder(config: &ListenConfig) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    let header_bytes = u32::try_from(config.max_header_bytes * 2).unwrap_or(u32::MAX);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(header_bytes)
        .keep_alive_interval(config.idle_timeout)
        .keep_alive_timeout(config.header_timeout);
    builder
}

/// The client's address: the peer's, or what a trusted proxy in front says.
fn client_address(
    request: &Request<Incoming>,
    peer: IpAddr,
    header: Option<&HeaderName>,
) -> IpAddr {
    let said =
        header.and_then(|name| request.headers().get(name)?.to_str().ok()?.trim().parse().ok());
    said.unwrap_or(peer).to_canonical()
}

fn why(error: &hyper::Error) -> &'static str {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    if let Some(inside) = cause.and_then(std::io::Error::get_ref)
        && inside.is::<StalledReader>()
    {
        return "write_timeout";
    }
    match cause.map(std::io::Error::kind) {
        Some(std::io::ErrorKind::TimedOut) => "header_timeout",
        Some(_) => "closed",
        None if error.is_parse() => "protocol_error",
        None => "closed",
    }
}
