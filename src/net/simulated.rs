//! The sockets of a simulation: a network in memory, of one thread, on the runtime's paused clock. What it does
//! to a connection is in its [`Fate`], which the simulation draws from its seed.
//!
//! A direction of a connection is a pipe: what is written fills a send buffer, a task of the network carries it
//! over in pieces, with delays, and what has arrived can be read. So a write may be partial, a read may end
//! at any byte, and a reset or a silence may begin at any byte. As TCP does, closing a socket with unread
//! bytes resets the connection, and bytes for a closed socket are answered with a reset.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf as _, BufMut, BytesMut};
use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;

/// What becomes of one direction of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    /// The send buffer: a write takes no more.
    pub buffer: usize,
    /// A piece is on its way for so long, at most.
    pub delay: Duration,
    /// A piece, and what one write takes or one read gives, is so long at most; `usize::MAX`: all that there is.
    pub piece: usize,
    /// After so many bytes, the connection is reset.
    pub reset_after: Option<usize>,
    /// After so many bytes, nothing arrives for so long: a peer that froze, or a partition.
    pub silent_after: Option<(usize, Duration)>,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// Nobody listens.
    Refused,
    /// No answer, ever.
    Unanswered,
    /// There and back.
    Connected(Course, Course),
}

/// Decides the fate of a connection to an address.
pub type Fates = Box<dyn FnMut(SocketAddr) -> Fate>;

thread_local! {
    static NETWORK: RefCell<Option<Arc<Network>>> = const { RefCell::new(None) };
}

/// The network of one simulation.
pub struct Network {
    listeners: Mutex<HashMap<SocketAddr, mpsc::UnboundedSender<(TcpStream, SocketAddr)>>>,
    ports: AtomicUsize,
    open: Arc<AtomicUsize>,
    ends: Mutex<Vec<(SocketAddr, Weak<End>)>>,
}

thread_local! {
    static FATES: RefCell<Option<Fates>> = const { RefCell::new(None) };
    static CHANCE: RefCell<fastrand::Rng> = const { RefCell::new(fastrand::Rng::with_seed(0)) };
}

fn below(bound: usize) -> usize {
    CHANCE.with_borrow_mut(|chance| chance.usize(..bound.max(1)))
}

/// A length of at least one.
fn up_to(most: usize) -> usize {
    if most == usize::MAX { most } else { 1 + below(most) }
}

impl Network {
    /// Makes the network of this thread, in place of the last one.
    pub fn begin(seed: u64, fates: Fates) -> Arc<Self> {
        let network = Arc::new(Self {
            listeners: Mutex::default(),
            ports: AtomicUsize::new(0),
            open: Arc::default(),
            ends: Mutex::default(),
        });
        FATES.set(Some(fates));
        CHANCE.set(fastrand::Rng::with_seed(seed));
        NETWORK.set(Some(Arc::clone(&network)));
        network
    }

    /// Ends of connections that are open.
    pub fn open_ends(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// What is known of ends that are open, of a connection to an address.
    pub fn states(&self) -> Vec<String> {
        let ends = self.ends.lock();
        let state = |end: &End| {
            let (is_closed, is_reset) = (*end.is_closed.lock(), end.is_reset());
            let pipe = end.inward();
            let Pipe { sent, arrived, is_ending, has_ended, passed, course } = &*pipe;
            let (sent, arrived) = (sent.len(), arrived.len());
            format!(
                "closed {is_closed} reset {is_reset} sent {sent} arrived {arrived} passed {passed} \
                 ending {is_ending} ended {has_ended} {course:?}"
            )
        };
        let open = ends.iter().filter_map(|(of, end)| Some((of, end.upgrade()?)));
        let open = open.filter_map(|(of, far)| Some((of, far.other()?, far)));
        let open = open.filter(|(_, near, far)| !*near.is_closed.lock() || !*far.is_closed.lock());
        open.map(|(of, near, far)| format!("to {of}: near {}; far {}", state(&near), state(&far)))
            .collect()
    }

    /// Listens on an address until the listener is dropped.
    pub fn listen(self: &Arc<Self>, address: SocketAddr) -> TcpListener {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.listeners.lock().insert(address, sender);
        TcpListener { arriving: Some(tokio::sync::Mutex::new(receiver)) }
    }

    /// The machine of an address dies: its connections are reset, and nobody listens.
    pub fn kill(&self, address: SocketAddr) {
        self.listeners.lock().remove(&address);
        self.ends.lock().retain(|(of, end)| {
            let Some(end) = end.upgrade() else { return false };
            if *of == address {
                end.reset_both();
            }
            true
        });
    }

    /// Connects to an address, by a fate of its own choice.
    pub async fn connect(&self, address: SocketAddr, fate: Fate) -> io::Result<TcpStream> {
        let (there, back) = match fate {
            Fate::Refused => return Err(io::ErrorKind::ConnectionRefused.into()),
            Fate::Unanswered => return std::future::pending().await,
            Fate::Connected(there, back) => (there, back),
        };
        sleep(there.delay + back.delay).await;
        let door = self.listeners.lock().get(&address).cloned();
        let door = door.ok_or(io::ErrorKind::ConnectionRefused)?;
        let port = self.ports.fetch_add(1, Ordering::Relaxed) % 60_000 + 1024;
        let peer = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), u16::try_from(port).unwrap_or(1));
        let (near, far) = pair(there, back, &self.open);
        self.ends.lock().push((address, Arc::downgrade(&far.end)));
        door.send((far, peer.into())).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(near)
    }
}

/// One direction: what was written, is on its way, or has arrived.
struct Pipe {
    sent: BytesMut,
    arrived: BytesMut,
    /// The writer has shut down.
    is_ending: bool,
    /// The reader knows it.
    has_ended: bool,
    passed: usize,
    course: Course,
}

/// One end of a connection.
struct End {
    /// What comes to it.
    inward: Mutex<Pipe>,
    /// What the connection was ended with.
    is_reset: Mutex<bool>,
    is_closed: Mutex<bool>,
    wakers: Mutex<Vec<Waker>>,
    /// Something was sent to it, or it has room again.
    carrier: Notify,
    other: Mutex<Weak<End>>,
    open: Arc<AtomicUsize>,
}

fn pair(there: Course, back: Course, open: &Arc<AtomicUsize>) -> (TcpStream, TcpStream) {
    let end = |course| {
        open.fetch_add(1, Ordering::Relaxed);
        Arc::new(End {
            inward: Mutex::new(Pipe {
                sent: BytesMut::new(),
                arrived: BytesMut::new(),
                is_ending: false,
                has_ended: false,
                passed: 0,
                course,
            }),
            is_reset: Mutex::new(false),
            is_closed: Mutex::new(false),
            wakers: Mutex::default(),
            carrier: Notify::new(),
            other: Mutex::default(),
            open: Arc::clone(open),
        })
    };
    let (near, far) = (end(back), end(there));
    for (this, that) in [(&near, &far), (&far, &near)] {
        *this.other.lock() = Arc::downgrade(that);
        tokio::spawn(carry(Arc::clone(this)));
    }
    let stream = |end: Arc<End>, peer: Arc<End>| TcpStream { end, peer, lingers: Mutex::new(true) };
    (stream(Arc::clone(&near), Arc::clone(&far)), stream(far, near))
}

/// Carries bytes to one end, until the connection is over.
async fn carry(end: Arc<End>) {
    loop {
        // What there is, and how long it takes.
        let (length, wait, ends) = {
            let pipe = end.inward();
            let Course { delay, piece, .. } = pipe.course;
            let length = pipe.sent.len().min(up_to(piece));
            let micros = usize::try_from(delay.as_micros()).unwrap_or(usize::MAX);
            let wait = Duration::from_micros(below(micros + 1) as u64);
            (length, wait, pipe.is_ending && pipe.sent.is_empty() && !pipe.has_ended)
        };
        if end.is_over() {
            return;
        }
        if length == 0 && !ends {
            end.carrier.notified().await;
            continue;
        }
        sleep(wait).await;
        if length == 0 {
            end.inward().has_ended = true;
            end.wake();
            continue;
        }
        // A silence, or a reset, at its byte.
        let (length, silence, is_reset) = {
            let mut pipe = end.inward();
            let mut length = length.min(pipe.sent.len());
            let passed = pipe.passed;
            let mut silence = None;
            if let Some((after, time)) = pipe.course.silent_after {
                if after <= passed {
                    pipe.course.silent_after = None;
                    silence = Some(time);
                } else {
                    length = length.min(after - passed);
                }
            }
            let reset = pipe.course.reset_after.filter(|after| *after <= passed + length);
            (reset.map_or(length, |after| after.saturating_sub(passed)), silence, reset.is_some())
        };
        if let Some(silence) = silence {
            sleep(silence).await;
            continue;
        }
        let was_refused = {
            let mut pipe = end.inward();
            let length = length.min(pipe.sent.len());
            let bytes = pipe.sent.split_to(length);
            pipe.passed += length;
            pipe.arrived.extend_from_slice(&bytes);
            length > 0 && *end.is_closed.lock()
        };
        end.wake();
        end.wake_other();
        if is_reset {
            // What came before it may be read first.
            sleep(wait).await;
        }
        if is_reset || was_refused {
            end.reset_both();
        }
    }
}

impl End {
    fn inward(&self) -> MutexGuard<'_, Pipe> {
        self.inward.lock()
    }

    fn other(&self) -> Option<Arc<End>> {
        self.other.lock().upgrade()
    }

    fn is_reset(&self) -> bool {
        *self.is_reset.lock()
    }

    /// Nothing more will come to it that matters.
    fn is_over(&self) -> bool {
        let (is_closed, other) = (*self.is_closed.lock(), self.other());
        self.is_reset()
            || other.is_none()
            || self.inward().has_ended
            || (is_closed && other.is_some_and(|other| *other.is_closed.lock()))
    }

    fn reset(&self) {
        *self.is_reset.lock() = true;
        let mut pipe = self.inward();
        pipe.sent.clear();
        pipe.arrived.clear();
        drop(pipe);
        self.wake();
    }

    fn reset_both(&self) {
        self.reset();
        if let Some(other) = self.other() {
            other.reset();
        }
    }

    fn register(&self, cx: &Context<'_>) {
        let mut wakers = self.wakers.lock();
        if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            wakers.push(cx.waker().clone());
        }
    }

    fn wake(&self) {
        self.carrier.notify_one();
        let wakers = std::mem::take(&mut *self.wakers.lock());
        wakers.into_iter().for_each(Waker::wake);
    }

    fn wake_other(&self) {
        if let Some(other) = self.other() {
            other.wake();
        }
    }
}

/// A socket, as [`tokio::net::TcpStream`] is one.
pub struct TcpStream {
    end: Arc<End>,
    peer: Arc<End>,
    lingers: Mutex<bool>,
}

/// A socket that belongs to no runtime.
pub struct Detached(TcpStream);

impl Detached {
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.0.set_nodelay(on)
    }
}

impl TcpStream {
    /// Connects, by the fate that the simulation decides.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let network = NETWORK.with_borrow(Clone::clone);
        let network = network.ok_or(io::ErrorKind::NetworkUnreachable)?;
        let fate = FATES
            .with_borrow_mut(|fates| fates.as_mut().map_or(Fate::Refused, |fates| fates(address)));
        network.connect(address, fate).await
    }

    /// What becomes of the bytes that are written.
    pub fn outward(&self) -> Course {
        self.peer.inward().course
    }

    pub fn set_nodelay(&self, _: bool) -> io::Result<()> {
        Ok(())
    }

    /// A drop resets the connection.
    pub fn set_zero_linger(&self) -> io::Result<()> {
        *self.lingers.lock() = false;
        Ok(())
    }

    pub fn into_std(self) -> io::Result<Detached> {
        Ok(Detached(self))
    }

    pub fn from_std(socket: Detached) -> io::Result<Self> {
        Ok(socket.0)
    }

    /// How much can be read: none at the end, an error if nothing can be yet.
    fn readable(&self) -> io::Result<usize> {
        if self.end.is_reset() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let pipe = self.end.inward();
        match pipe.arrived.len() {
            0 if pipe.has_ended => Ok(0),
            0 => Err(io::ErrorKind::WouldBlock.into()),
            some => Ok(some),
        }
    }

    fn writable(&self) -> io::Result<usize> {
        if self.end.is_reset() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let pipe = self.peer.inward();
        if pipe.is_ending {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        match pipe.course.buffer.saturating_sub(pipe.sent.len() + pipe.arrived.len()) {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            some => Ok(some),
        }
    }

    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_until(cx, |stream| !is_blocked(&stream.readable()))
    }

    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_until(cx, |stream| !is_blocked(&stream.writable()))
    }

    fn poll_until(
        &self,
        cx: &Context<'_>,
        is_ready: impl Fn(&Self) -> bool,
    ) -> Poll<io::Result<()>> {
        if is_ready(self) {
            return Poll::Ready(Ok(()));
        }
        self.end.register(cx);
        Poll::Pending
    }

    /// A FIN is [`Interest::PRIORITY`], a reset [`Interest::ERROR`].
    pub async fn ready(&self, interest: Interest) -> io::Result<()> {
        poll_fn(|cx| {
            self.poll_until(cx, |stream| {
                let has_ended = stream.end.inward().has_ended;
                (interest.is_priority() && has_ended) || stream.end.is_reset()
            })
        })
        .await
    }

    pub fn try_io<T>(&self, _: Interest, io: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        io()
    }

    pub fn try_read_buf(&self, buf: &mut impl BufMut) -> io::Result<usize> {
        let there_is = self.readable()?;
        let length = there_is.min(buf.remaining_mut());
        if length == 0 {
            return Ok(0);
        }
        let mut pipe = self.end.inward();
        let length = length.min(up_to(pipe.course.piece));
        buf.put_slice(&pipe.arrived[..length]);
        pipe.arrived.advance(length);
        drop(pipe);
        // The writer has room again.
        self.peer.wake();
        Ok(length)
    }

    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.writable()?;
        let mut pipe = self.peer.inward();
        // A kernel that has room for a few bytes takes them whole. The probe of a client that has half
        // closed its connection counts on it.
        let piece = if bytes.len() <= FEW_BYTES { FEW_BYTES } else { up_to(pipe.course.piece) };
        let length = bytes.len().min(room).min(piece);
        pipe.sent.extend_from_slice(&bytes[..length]);
        drop(pipe);
        self.peer.carrier.notify_one();
        Ok(length)
    }

    pub fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut all = 0;
        for slice in slices.iter().filter(|slice| !slice.is_empty()) {
            match self.try_write(slice) {
                Ok(length) => {
                    all += length;
                    if length < slice.len() {
                        break;
                    }
                }
                Err(_) if all > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    fn shut_down(&self) {
        self.peer.inward().is_ending = true;
        self.peer.carrier.notify_one();
    }
}

const FEW_BYTES: usize = 32;

fn is_blocked(found: &io::Result<usize>) -> bool {
    found.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        self.end.open.fetch_sub(1, Ordering::Relaxed);
        *self.end.is_closed.lock() = true;
        let is_unread = !self.end.inward().arrived.is_empty();
        if is_unread || !*self.lingers.lock() {
            // As TCP does: what was sent and not delivered is lost.
            self.end.reset_both();
        } else {
            self.shut_down();
            self.end.wake();
        }
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.try_read_buf(buf) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.end.register(cx);
                Poll::Pending
            }
            read => Poll::Ready(read.map(drop)),
        }
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.try_write_vectored(slices) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.end.register(cx);
                Poll::Pending
            }
            written => Poll::Ready(written),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        TcpStream::shut_down(&self);
        Poll::Ready(Ok(()))
    }
}

/// Where connections arrive. One that was made from the kernel's never gets any: the program itself does not
/// run in a simulation.
pub struct TcpListener {
    arriving: Option<tokio::sync::Mutex<mpsc::UnboundedReceiver<(TcpStream, SocketAddr)>>>,
}

impl TcpListener {
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        if let Some(arriving) = &self.arriving
            && let Some(arrived) = arriving.lock().await.recv().await
        {
            return Ok(arrived);
        }
        std::future::pending().await
    }
}

impl From<tokio::net::TcpListener> for TcpListener {
    fn from(_: tokio::net::TcpListener) -> Self {
        Self { arriving: None }
    }
}

pub(crate) fn peek(stream: &TcpStream) -> io::Result<usize> {
    stream.readable().map(|bytes| bytes.min(1))
}

#[expect(clippy::unnecessary_wraps, reason = "the kernel's can fail")]
pub(crate) fn shut_down(stream: &TcpStream, how: Shutdown) -> io::Result<()> {
    if how != Shutdown::Read {
        stream.shut_down();
    }
    if how != Shutdown::Write {
        stream.end.inward().has_ended = true;
        stream.end.wake();
    }
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "the kernel's can fail")]
pub(crate) fn keep_alive(_: &TcpStream, _: Duration) -> io::Result<()> {
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "the kernel's can fail")]
pub(crate) fn time_out_unacknowledged<S>(_: &S, _: Duration) -> io::Result<()> {
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "the kernel's can fail")]
pub(crate) fn limit_unsent(_: &Detached, _: u32) -> io::Result<()> {
    Ok(())
}
