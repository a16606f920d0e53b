//! One downstream connection from its first byte to its end, or to its move to another worker.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::poll_fn;
use std::mem::take;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::activity::Activity;
use super::exchange::{Exchange, Http1Body, Http2Body, Streams, Uploading};
use super::framing::{BodyLength, Framing, Http2};
use super::handshakes::Handshakes;
use super::linger::linger;
use super::load::Counted;
use super::outbox::{Outbox, Turns};
use super::phase::{Phase, Timeouts};
use super::proxy_header::{self, ProxyHeader};
use super::resting::{FAREWELL, Resting, Woken};
use super::socket::{Protocol, Socket, protocol_of, read_first};
use super::tls::{self, Session};
use super::watch::{Action, Watch};
use super::workers::{HandOver, WorkerSenders};
use crate::config::ListenConfig;
use crate::edge::{MAX_HEADERS, UntilBodyEnds};
use crate::labels::{ConnectionEnd, TlsHandshake};
use crate::net::TcpStream;
use crate::pipeline::{Pipeline, PublicBody};
use crate::tls::{ClientPolicy, DeviceCertificate};

/// What all connections of a worker share.
pub(super) struct WorkerShared {
    /// The worker's own, so that workers do not count references in one place. It is replaced when the
    /// configuration changes.
    serving: ArcSwap<Serving>,
    pub(super) closing: CancellationToken,
    pub(super) senders: WorkerSenders,
    handshakes: Handshakes,
}

/// The pipeline and listener settings that new requests use.
pub(super) struct Serving {
    pub(super) pipeline: Pipeline,
    pub(super) config: ListenConfig,
}

impl WorkerShared {
    pub(super) fn new(
        serving: Serving,
        closing: CancellationToken,
        senders: WorkerSenders,
    ) -> Self {
        let serving = ArcSwap::from_pointee(serving);
        Self { serving, closing, senders, handshakes: Handshakes::default() }
    }

    /// The current pipeline and settings. A request keeps the ones it began with.
    pub(super) fn serving(&self) -> Arc<Serving> {
        self.serving.load_full()
    }

    pub(super) fn replace(&self, serving: Serving) {
        self.serving.store(Arc::new(serving));
    }
}

/// What stays of a connection while it has no request.
pub(super) struct Connection {
    /// The only reference while the connection is idle, so that it can move to another worker.
    pub(super) stream: Arc<TcpStream>,
    pub(super) peer: SocketAddr,
    pub(super) resting: Resting,
    /// Set once the TLS handshake is complete.
    pub(super) tls: Option<Arc<Session>>,
    pub(super) counted: Counted,
}

/// The client of this connection.
#[derive(Clone, Copy)]
struct Client {
    peer: SocketAddr,
    /// The device that the client's certificate names.
    device: Option<DeviceCertificate>,
    /// What was asked of it when it connected; none without TLS.
    policy: Option<ClientPolicy>,
}

impl Connection {
    fn client(&self) -> Client {
        let session = self.tls.as_deref();
        Client {
            peer: self.peer,
            device: session.and_then(|session| session.device),
            policy: session.map(|session| session.policy),
        }
    }

    /// The side of the socket that hyper reads and writes.
    fn socket(&self, first: Bytes, activity: &Arc<Activity>) -> Socket {
        let (stream, activity) = (Arc::clone(&self.stream), Arc::clone(activity));
        Socket::new(stream, first, activity, self.tls.clone())
    }

    /// The side that the watch observes.
    fn watch(&self, activity: &Arc<Activity>, timeouts: Timeouts) -> Watch {
        let (stream, activity) = (Arc::clone(&self.stream), Arc::clone(activity));
        Watch::new(stream, activity, timeouts, self.tls.clone())
    }

    /// Tells an idle TLS client that the connection ends.
    fn send_close_notify(&self) {
        if let Some(session) = &self.tls {
            session.send_close_notify_by(&self.stream);
        }
    }
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

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Serves a connection to its end, or until it moves to another worker. Everything that is large is in a
/// box that is there only while it is needed.
pub(super) async fn serve(mut connection: Box<Connection>, shared: Arc<WorkerShared>) {
    let mut closing = pin!(shared.closing.cancelled());
    let why = loop {
        let timeouts = Timeouts::of(&shared.serving().config);
        // One that has moved here was woken where it came from.
        if !connection.counted.is_busy() {
            let bytes = (&*connection.stream, connection.tls.as_deref());
            let waiting = connection.resting.wait(bytes, &timeouts, closing.as_mut());
            let is_last = match waiting.await {
                Woken::Client => false,
                Woken::ClientAtLast => true,
                Woken::Deadline => {
                    connection.send_close_notify();
                    break ConnectionEnd::IdleTimeout;
                }
                Woken::Closing => {
                    connection.send_close_notify();
                    break ConnectionEnd::Closed;
                }
            };
            // Another worker may have ended.
            if !is_last && let Some(worker) = connection.counted.better_worker() {
                connection = match moved(connection, worker, &shared) {
                    Moved::Away => return,
                    Moved::Not(connection) => connection,
                    Moved::Lost => {
                        let serving = shared.serving();
                        serving.pipeline.outlets.metrics.connection_ended(ConnectionEnd::Closed);
                        return;
                    }
                };
            }
            connection.counted.set_busy(true);
        }
        let begun = match first_of(&mut connection, &shared) {
            First::Speaks(protocol) => Ok(protocol),
            First::Encrypted => Box::pin(encrypt(&mut connection, &shared, closing.as_mut())).await,
            First::TooFew => Err(Ended::Rests),
            First::End(why) => Err(Ended::By(why)),
        };
        let ending = closing.as_mut();
        let ended = match begun {
            Ok(Protocol::Http1) => Box::pin(http1(&mut connection, &shared, ending)).await,
            Ok(Protocol::Http2) => Box::pin(http2(&mut connection, &shared, ending)).await,
            Err(ended) => ended,
        };
        match ended {
            Ended::By(why) => break why,
            Ended::Served(why) => {
                Box::pin(linger(&connection.stream, closing.as_mut())).await;
                break why;
            }
            Ended::Rests => connection.counted.set_busy(false),
        }
    };
    let why = if connection.counted.tracker().is_evicted() { ConnectionEnd::Evicted } else { why };
    shared.serving().pipeline.outlets.metrics.connection_ended(why);
}

/// What the first bytes of a connection are.
enum First {
    /// Too few to tell.
    TooFew,
    Speaks(Protocol),
    /// They are to begin a TLS handshake.
    Encrypted,
    End(ConnectionEnd),
}

fn first_of(connection: &mut Connection, shared: &WorkerShared) -> First {
    let Resting::New { first, expects_header, .. } = &mut connection.resting else {
        return First::Speaks(Protocol::Http1);
    };
    if read_first(&connection.stream, first).is_err() {
        return First::End(ConnectionEnd::Closed);
    }
    if *expects_header {
        match proxy_header::read(first) {
            ProxyHeader::Complete { length, source } => {
                *expects_header = false;
                first.drain(..length);
                if let Some(source) = source {
                    connection.peer.set_ip(source);
                }
            }
            ProxyHeader::Incomplete => return First::TooFew,
            ProxyHeader::Invalid => return First::End(ConnectionEnd::ProxyHeader),
        }
    }
    if first.is_empty() {
        First::TooFew
    } else if shared.serving().config.tls.is_some() {
        First::Encrypted
    } else {
        protocol_of(first).map_or(First::TooFew, First::Speaks)
    }
}

/// Makes the TLS handshake of a new connection. It has the time of a head.
async fn encrypt(
    connection: &mut Connection,
    shared: &WorkerShared,
    closing: Pin<&mut WaitForCancellationFuture<'_>>,
) -> Result<Protocol, Ended> {
    let serving = shared.serving();
    let metrics = &serving.pipeline.outlets.metrics;
    let (Resting::New { opened, first, .. }, Some(config)) =
        (&mut connection.resting, &serving.config.tls)
    else {
        return Err(Ended::By(ConnectionEnd::Closed));
    };
    if !tls::is_tls(first) {
        metrics.tls_handshake(TlsHandshake::NotTls);
        tls::say_what_it_takes(&connection.stream, first);
        return Err(Ended::Served(ConnectionEnd::Handshake));
    }
    let deadline = *opened + serving.config.header_timeout;
    connection.counted.tracker().begins_handshake(*opened);
    let stream = Arc::clone(&connection.stream);
    let now = serving.pipeline.outlets.clock.unix_seconds();
    let accepting = Session::accept(stream, take(first).into(), config, now);
    let accepting = shared.handshakes.run(connection.peer.ip(), accepting);
    let (outcome, error) = tokio::select! {
        accepted = accepting => match accepted {
            Ok(session) => {
                metrics.tls_handshake(session.outcome());
                let is_http2 = session.is_http2();
                connection.tls = Some(Arc::new(session));
                // A head has its time from now on.
                connection.resting = Resting::new(false);
                connection.counted.tracker().rests(Instant::now());
                return Ok(if is_http2 { Protocol::Http2 } else { Protocol::Http1 });
            }
            Err(failed) => (failed.outcome, Some(failed.error)),
        },
        () = sleep_until(deadline) => (TlsHandshake::Timeout, None),
        () = async { closing.await; sleep(FAREWELL).await } => (TlsHandshake::Closed, None),
    };
    metrics.tls_handshake(outcome);
    // Whoever took part has an alert to read, which says why it failed.
    let ended = if error.is_some() { Ended::Served } else { Ended::By };
    let outcome: &str = outcome.into();
    tracing::debug!(client.ip = %connection.peer.ip(), outcome, ?error, "TLS handshake failed");
    Err(ended(ConnectionEnd::Handshake))
}

/// What became of a connection that was to move.
enum Moved {
    Away,
    Not(Box<Connection>),
    Lost,
}

/// Moves a connection to another worker, which serves it at once.
#[expect(clippy::boxed_local, reason = "one that stays goes back as it came")]
fn moved(connection: Box<Connection>, worker: usize, shared: &WorkerShared) -> Moved {
    let Connection { stream, peer, resting, tls, mut counted } = *connection;
    let stream = match Arc::try_unwrap(stream) {
        Ok(stream) => stream,
        Err(stream) => {
            return Moved::Not(Box::new(Connection { stream, peer, resting, tls, counted }));
        }
    };
    let Ok(socket) = stream.into_std() else { return Moved::Lost };
    counted.move_to(worker);
    counted.set_busy(true);
    match shared.senders[worker].send(HandOver { socket, peer, resting, tls, counted }) {
        Ok(()) => Moved::Away,
        Err(_) => Moved::Lost,
    }
}

/// Why a connection is not served any longer.
enum Ended {
    By(ConnectionEnd),
    /// All that there was to say has been said; the client may still be sending.
    Served(ConnectionEnd),
    /// Its client sends nothing for the moment.
    Rests,
}

async fn http1(
    connection: &mut Connection,
    shared: &Arc<WorkerShared>,
    closing: Pin<&mut WaitForCancellationFuture<'_>>,
) -> Ended {
    let (client, counted) = (connection.client(), &connection.counted);
    let resumed = connection.resting.resume();
    let opened = resumed.opened;
    let activity = Activity::new(Phase::http1(opened, resumed.since));
    counted.tracker().serves(&activity);
    let serving = shared.serving();
    let watch = connection.watch(&activity, Timeouts::of(&serving.config));
    let socket = connection.socket(resumed.bytes, &activity);
    let service = service_fn(|request| {
        let (response, exchange) = answer(request, client, shared, &activity);
        let activity = Arc::clone(&activity);
        async move {
            let mut response = response.await;
            if activity.phase().is_closing() {
                response.headers_mut().insert(header::CONNECTION, CLOSE);
            }
            Ok::<_, Infallible>(response.map(|body| Http1Body::new(body, exchange)))
        }
    });
    let socket = TokioIo::new(socket);
    let mut hyper = http1_builder(&serving.config).serve_connection(socket, service);
    let is_better_elsewhere = || counted.better_worker().is_some();
    let ended = watched(Pin::new(&mut hyper), watch, &activity, closing, is_better_elsewhere).await;
    if matches!(ended, Ended::Rests) {
        // hyper has nothing to write: the phase knows of all that it has written.
        let parts = hyper.into_parts();
        parts.io.into_inner().rest();
        let unread = parts.read_buf;
        let since = activity.phase().idle_since();
        counted.tracker().rests(since);
        connection.resting = Resting::between(opened, since, &unread);
    }
    ended
}

async fn http2(
    connection: &mut Connection,
    shared: &Arc<WorkerShared>,
    closing: Pin<&mut WaitForCancellationFuture<'_>>,
) -> Ended {
    let client = connection.client();
    let resumed = connection.resting.resume();
    let activity = Activity::new(Phase::new(Framing::Http2(Http2::new()), resumed.opened));
    connection.counted.tracker().serves(&activity);
    let serving = shared.serving();
    let timeouts = Timeouts::of(&serving.config);
    let watch = connection.watch(&activity, timeouts);
    let outbox = Outbox::new(connection.socket(resumed.bytes, &activity));
    let metrics = Arc::clone(&serving.pipeline.outlets.metrics);
    let streams = Streams::new(Arc::clone(&activity), timeouts.write, metrics);
    let service = service_fn(|request| {
        let stream = streams.call();
        let (response, exchange) = answer(request, client, shared, &activity);
        async move {
            let response = response.await;
            Ok::<_, Infallible>(response.map(|body| Http2Body::new(body, stream, exchange)))
        }
    });
    let builder = http2_builder(&serving.config, streams.clone());
    let hyper = pin!(builder.serve_connection(TokioIo::new(outbox.clone()), service));
    let mut turns = Turns { connection: hyper, outbox };
    watched(Pin::new(&mut turns), watch, &activity, closing, || false).await
}

/// Starts a request in the pipeline. It counts as in flight from now on, whenever the future is polled.
fn answer(
    mut request: Request<Incoming>,
    client: Client,
    shared: &Arc<WorkerShared>,
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
    if let Some(device) = client.device {
        request.extensions_mut().insert(device);
    }
    let serving = shared.serving();
    // The client was let in by rules that hold no longer. It has this answer, so that nothing is lost, and
    // connects again.
    if client.policy != serving.config.tls.as_ref().map(|tls| tls.policy) {
        activity.phase().close(Instant::now());
    }
    // hyper moves it four times before it polls it: boxed, these are moves of a pointer.
    let response = Box::pin(async move {
        let client = client_address(&request, client.peer.ip(), &serving.config);
        serving.pipeline.serve(client, request).await
    });
    (response, exchange)
}

/// A connection that can be told to take no further requests.
trait Retire: Future<Output = hyper::Result<()>> {
    fn retire(self: Pin<&mut Self>);
}

impl<S> Retire for http1::Connection<TokioIo<Socket>, S>
where
    S: HttpService<Incoming, ResBody = Http1Body<PublicBody>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn retire(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S> Retire for http2::Connection<TokioIo<Outbox<Socket>>, S, Streams>
where
    S: HttpService<Incoming, ResBody = Http2Body<PublicBody>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    Streams: hyper::rt::bounds::Http2ServerConnExec<S::Future, Http2Body<PublicBody>>,
{
    fn retire(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<C: Retire> Retire for Turns<'_, C, Socket> {
    fn retire(mut self: Pin<&mut Self>) {
        self.connection.as_mut().retire();
    }
}

/// Whether the client broke the protocol. For HTTP/2 hyper only says that h2 ended the connection; h2
/// says by whose decision.
fn is_protocol_error(error: &hyper::Error) -> bool {
    let h2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    error.is_parse()
        || h2.is_some_and(|h2| h2.is_library() && h2.reason() != Some(h2::Reason::NO_ERROR))
}

/// Runs a connection until it ends or rests, or its watch ends it.
async fn watched(
    mut connection: Pin<&mut impl Retire>,
    mut watch: Watch,
    activity: &Activity,
    mut closing: Pin<&mut WaitForCancellationFuture<'_>>,
    is_better_elsewhere: impl Fn() -> bool,
) -> Ended {
    let mut is_closing = false;
    poll_fn(|cx| {
        let mut ends = || {
            closing.as_mut().poll(cx).is_ready()
                || watch.has_expired(cx)
                || activity.phase().is_closing()
        };
        if !is_closing && ends() {
            is_closing = true;
            let mut phase = activity.phase();
            phase.close(Instant::now());
            // HTTP/1.1 has no other way to tell the client than its next answer. hyper would close the
            // connection when the answer ends whose head has been sent, under a request that may be on its
            // way.
            if !phase.is_http1() {
                drop(phase);
                connection.as_mut().retire();
            }
        }
        let mut has_rested = false;
        // The watch comes second, because it judges the state that the connection leaves.
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                let is_protocol_error = ended.is_err_and(|error| is_protocol_error(&error));
                let why = if is_protocol_error {
                    ConnectionEnd::ProtocolError
                } else {
                    ConnectionEnd::Closed
                };
                // After a failed write there is nothing to linger for: a FIN behind what is queued would make a
                // part of an answer look whole.
                if activity.phase().owes_rest() {
                    activity.break_off();
                }
                // h2 still reads when it has sent its last frame, and a flood is not read to its end.
                let lingers = activity.phase().is_http1() && !activity.is_broken();
                return Poll::Ready(if lingers { Ended::Served(why) } else { Ended::By(why) });
            }
            match watch.poll(cx, &is_better_elsewhere) {
                Poll::Ready(Action::End(why)) => return Poll::Ready(Ended::By(why)),
                Poll::Ready(Action::Retire) => connection.as_mut().retire(),
                Poll::Ready(Action::Rest) if has_rested => return Poll::Ready(Ended::Rests),
                // The request may have ended within hyper's last turn, which then has not yet skipped
                // the rest of a body that nobody reads, or closed for its sake. In its next turn it
                // does: then it has nothing left of the request, or has ended.
                Poll::Ready(Action::Rest) => has_rested = true,
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
        // HPACK sends a date as an index until the second changes, so a simulation would depend on when that is.
        .auto_date_header(!cfg!(feature = "simulation"))
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
fn client_address(request: &Request<Incoming>, peer: IpAddr, config: &ListenConfig) -> IpAddr {
    let trusted = &config.client_ip_header_from;
    let is_trusted = trusted.is_empty() || trusted.iter().any(|network| network.contains(peer));
    let header = config.client_ip_header.as_ref().filter(|_| is_trusted);
    // The proxy in front may add its line behind what the client sent.
    let last = header.and_then(|name| request.headers().get_all(name).iter().next_back());
    let named = last.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    named.unwrap_or(peer).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<F: Future>(_: impl Fn(Box<Connection>, Arc<WorkerShared>) -> F) -> usize {
        size_of::<F>()
    }

    // This is what ten thousand idle connections have ten thousand times.
    #[test]
    fn a_connection_that_rests_is_small() {
        assert!(size(serve) <= 320, "its task: {}", size(serve));
        assert!(size_of::<Connection>() <= 160, "its state: {}", size_of::<Connection>());
    }
}
