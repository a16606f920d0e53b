//! One downstream connection from its first byte to its end.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use http::{HeaderName, Request, Response, Version};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::activity::Activity;
use super::exchange::{AnswerBody, Exchange, StreamBody, Streams, Uploading};
use super::framing::{BodyLength, Framing, Http1, Http2};
use super::phase::{Phase, Timeouts};
use super::socket::{Protocol, Socket, find_protocol};
use super::watch::{Action, Watch};
use crate::config::ListenConfig;
use crate::edge::UntilBodyEnds;
use crate::labels::ConnectionEnd;
use crate::pipeline::{Pipeline, PublicBody};

/// What all connections of a worker share.
pub(super) struct Surroundings {
    pub(super) pipeline: Pipeline,
    pub(super) config: ListenConfig,
    pub(super) closing: CancellationToken,
}

/// Concurrent streams of one HTTP/2 connection: enough for a dashboard, too few for a flood.
const MAX_STREAMS: u32 = 128;

/// Streams of one HTTP/2 connection that may break the protocol before the connection is ended
/// (RUSTSEC-2024-0003). Streams that a client resets before we have seen them have h2's own limit
/// (20); those that it resets later count as requests.
const MAX_FAULTY_STREAMS: usize = 100;

/// A body is read in pieces of at most this size, which bounds the memory of a request.
const MAX_PIECE_BYTES: usize = 128 << 10;

/// What one HTTP/2 stream may send before we read it, and so the memory of a stream that is not
/// authenticated yet or waits for a slot: neither hyper nor h2 can open the window of a single stream
/// later. It also bounds a stream's speed: 24 KiB per round trip, so 24 MB/s at 1 ms, as from a
/// balancer in front of us.
///
/// Not less than a third of the 64 KiB that a stream has until the client has read our settings: h2
/// gives credit back when a half of what is left has been released, so a client that has sent no
/// more than a third by then gets none, and with a smaller window it has none left either and waits
/// for ever.
///
/// The window of the connection is that of all streams together, so that a stream that Mimir does
/// not read cannot block another, whose sender would then get an error for being slow. It also holds
/// for a client that never acknowledges our settings, whose streams have 64 KiB until then.
const STREAM_WINDOW_BYTES: u32 = 24 << 10;

/// Header lines of one request.
const MAX_HEADERS: usize = 100;

/// Serves a connection to its end and says why it ended.
pub(super) async fn serve(
    mut socket: TcpStream,
    peer: SocketAddr,
    around: &Arc<Surroundings>,
) -> ConnectionEnd {
    let config = &around.config;
    let timeouts = Timeouts {
        header: config.header_timeout,
        idle: config.idle_timeout,
        write: config.write_timeout,
    };
    let opened = Instant::now();
    // A new connection has the time of a head for its first byte: silent ones cost an attacker
    // nothing.
    let first = tokio::select! {
        first = timeout(timeouts.header, find_protocol(&mut socket)) => first,
        () = around.closing.cancelled() => return ConnectionEnd::Closed,
    };
    let (protocol, prefix) = match first {
        Err(_) => return ConnectionEnd::IdleTimeout,
        Ok(Ok(Some(found))) => found,
        Ok(_) => return ConnectionEnd::Closed,
    };
    let framing = match protocol {
        Protocol::Http1 => Framing::Http1(Http1::new()),
        Protocol::Http2 => Framing::Http2(Http2::new()),
    };
    let stream = Arc::new(socket);
    let activity = Activity::new(Phase::new(framing, opened));
    let watch = Watch::new(Arc::clone(&stream), Arc::clone(&activity), timeouts);
    let io = TokioIo::new(Socket::new(stream, prefix, Arc::clone(&activity)));
    match protocol {
        Protocol::Http1 => {
            let service = service_fn(|request| {
                let (response, exchange) = answer(request, peer, around, &activity);
                async move {
                    let response = response.await;
                    Ok::<_, Infallible>(response.map(|body| AnswerBody::new(body, exchange)))
                }
            });
            let connection = pin!(http1_builder(config).serve_connection(io, service));
            watched(connection, watch, &activity, &around.closing).await
        }
        Protocol::Http2 => {
            let metrics = Arc::clone(&around.pipeline.outlets.metrics);
            let streams = Streams::new(Arc::clone(&activity), timeouts.write, metrics);
            let service = service_fn(|request| {
                let stream = streams.call();
                let (response, exchange) = answer(request, peer, around, &activity);
                async move {
                    let response = response.await;
                    Ok::<_, Infallible>(
                        response.map(|body| StreamBody::new(body, stream, exchange)),
                    )
                }
            });
            let builder = http2_builder(config, streams.clone());
            let connection = pin!(builder.serve_connection(io, service));
            watched(connection, watch, &activity, &around.closing).await
        }
    }
}

/// Starts a request in the pipeline. It counts as in flight from now on, whenever the future is polled.
fn answer(
    mut request: Request<Incoming>,
    peer: SocketAddr,
    around: &Arc<Surroundings>,
    activity: &Arc<Activity>,
) -> (impl Future<Output = Response<PublicBody>> + use<>, Exchange) {
    let body = request.body().size_hint().exact();
    let body = body.map_or(BodyLength::Chunked, BodyLength::Known);
    // HTTP/1.0 has no interim responses.
    let takes_interim = request.version() == Version::HTTP_11;
    let exchange = Exchange::begin(Arc::clone(activity), body, takes_interim);
    if !request.body().is_end_stream() {
        // A body may end after its answer; until then its bytes are not a new head.
        let upload = Arc::new(Uploading::begin(Arc::clone(activity)));
        request.extensions_mut().insert(UntilBodyEnds(upload));
    }
    let around = Arc::clone(around);
    // hyper moves it four times before it polls it: boxed, these are moves of a pointer.
    let response = Box::pin(async move {
        let header = around.config.client_ip_header.as_ref();
        let client = client_address(&request, peer.ip(), header);
        around.pipeline.serve(client, request).await
    });
    (response, exchange)
}

/// A connection that can be told to take no further requests.
trait Retire: Future<Output = hyper::Result<()>> {
    fn retire(self: Pin<&mut Self>);
}

impl<S> Retire for http1::Connection<TokioIo<Socket>, S>
where
    S: HttpService<Incoming, ResBody = AnswerBody<PublicBody>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn retire(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S> Retire for http2::Connection<TokioIo<Socket>, S, Streams>
where
    S: HttpService<Incoming, ResBody = StreamBody<PublicBody>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    Streams: hyper::rt::bounds::Http2ServerConnExec<S::Future, StreamBody<PublicBody>>,
{
    fn retire(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Whether the client broke the protocol. For HTTP/2 hyper only says that h2 ended the connection; h2
/// says by whose decision.
fn is_protocol_error(error: &hyper::Error) -> bool {
    let h2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    error.is_parse()
        || h2.is_some_and(|h2| h2.is_library() && h2.reason() != Some(h2::Reason::NO_ERROR))
}

/// Runs a connection until it ends, or its watch ends it.
async fn watched(
    mut connection: Pin<&mut impl Retire>,
    mut watch: Watch,
    activity: &Activity,
    closing: &CancellationToken,
) -> ConnectionEnd {
    let mut closing = pin!(closing.cancelled());
    let mut is_closing = false;
    poll_fn(|cx| {
        if !is_closing && closing.as_mut().poll(cx).is_ready() {
            is_closing = true;
            activity.phase().close(Instant::now());
            connection.as_mut().retire();
        }
        // The watch comes second, because it judges the state that the connection leaves.
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                let is_protocol_error = ended.is_err_and(|error| is_protocol_error(&error));
                return Poll::Ready(if is_protocol_error {
                    ConnectionEnd::ProtocolError
                } else {
                    ConnectionEnd::Closed
                });
            }
            match watch.poll(cx) {
                Poll::Ready(Action::End(why)) => return Poll::Ready(why),
                Poll::Ready(Action::Retire) => connection.as_mut().retire(),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// Heads above the limit reach the pipeline, up to twice of it, and get an answer with a reason there.
fn http1_builder(config: &ListenConfig) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        // A client may shut down its sending side before it has the answer; the watch finds out
        // whether it has disconnected.
        .half_close(true)
        .max_headers(MAX_HEADERS)
        .max_header_size(config.max_header_bytes * 2)
        .max_buf_size(MAX_PIECE_BYTES.max(config.max_header_bytes * 2));
    builder
}

fn http2_builder(config: &ListenConfig, streams: Streams) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(streams);
    let header_bytes = u32::try_from(config.max_header_bytes * 2).unwrap_or(u32::MAX);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_local_error_reset_streams(MAX_FAULTY_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(MAX_STREAMS * STREAM_WINDOW_BYTES)
        .max_header_list_size(header_bytes)
        .keep_alive_interval(config.idle_timeout)
        .keep_alive_timeout(config.header_timeout);
    builder
}

/// The client's address: the peer's, or the one that a trusted proxy in front sends.
fn client_address(
    request: &Request<Incoming>,
    peer: IpAddr,
    header: Option<&HeaderName>,
) -> IpAddr {
    let named =
        header.and_then(|name| request.headers().get(name)?.to_str().ok()?.trim().parse().ok());
    named.unwrap_or(peer).to_canonical()
}
