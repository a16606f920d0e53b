//! One downstream connection from its first byte to its end.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;

use http::{HeaderName, Request, Response};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::activity::{Activity, BusyBody};
use super::timed_io::{Patience, Protocol, TimedIo, find_protocol};
use crate::config::ListenConfig;
use crate::edge::UntilBodyEnds;
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

/// What one HTTP/2 stream may send before we have taken it, and so what one that is not known yet, or
/// waits for its turn, keeps in our memory: neither hyper nor h2 can open the window of a single
/// stream later. It also bounds how fast a stream is: 16 KiB in the time to the client and back, so
/// 16 MB/s at 1 ms, as from a balancer in front of us.
///
/// The window of the connection is that of all streams together, so that a stream that Mimir does
/// not take cannot hold up another, whose sender would then be told that it is slow. It also holds
/// for a client that never acknowledges our settings, whose streams have 64 KiB until then.
const STREAM_WINDOW_BYTES: u32 = 16 << 10;

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
    // A fresh connection has the time of a head to say its first word: silent ones cost an
    // attacker nothing.
    let first = tokio::select! {
        first = timeout(patience.header, find_protocol(&mut socket)) => first,
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
    let requests = Arc::clone(&activity);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (around, busy) = (Arc::clone(around), requests.begin());
        if !request.body().is_end_stream() {
            // A body may outlast its answer; until it ends its bytes are no new head.
            request.extensions_mut().insert(UntilBodyEnds(Arc::new(requests.begin())));
        }
        async move {
            let client =
                client_address(&request, peer.ip(), around.config.client_ip_header.as_ref());
            let response = around.pipeline.serve(client, request).await;
            Ok::<Response<BusyBody<PublicBody>>, Infallible>(
                response.map(|body| BusyBody::new(body, busy)),
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
    match (activity.ended(), ended) {
        (Some(why), _) => why,
        (None, Err(error)) if error.is_parse() => "protocol_error",
        _ => "closed",
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
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(MAX_STREAMS * STREAM_WINDOW_BYTES)
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
