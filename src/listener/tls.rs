//! A client's TLS session, between its socket and what is read and written.
//!
//! One task uses it, in two places: hyper's [`Socket`](super::socket::Socket), and the connection's
//! [`Watch`](super::watch::Watch) for its probe. What the [`Phase`](super::phase::Phase) is told of bytes is
//! about what a client says; whether the socket takes anything, it is told from beneath the session.
//! While a connection rests, the session is kept without the socket, which may move to another worker.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, HandshakeKind, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::activity::Activity;
use super::socket::{poll_read_of, poll_write_of, take_first};
use crate::config::TlsConfig;
use crate::labels::TlsHandshake;
use crate::net::{self, TcpStream};
use crate::tls::{ClientPolicy, DeviceCertificate, Validity};

/// A session whose handshake is over.
pub(super) struct Session {
    stream: Mutex<TlsStream<Beneath>>,
    /// What was asked of the client.
    pub(super) policy: ClientPolicy,
    /// That of the client, if it says which device it is.
    pub(super) device: Option<DeviceCertificate>,
    /// When that expires.
    pub(super) until: Option<Instant>,
}

/// The socket as the session sees it.
struct Beneath {
    /// None while the connection rests.
    stream: Option<Arc<TcpStream>>,
    /// What was read before the session began.
    first: Bytes,
    /// None in the handshake and while the connection rests.
    activity: Option<Arc<Activity>>,
}

/// A handshake that failed.
pub(super) struct Failed {
    pub(super) outcome: TlsHandshake,
    pub(super) error: io::Error,
}

impl Session {
    /// Makes the handshake, which has begun with some bytes.
    pub(super) async fn accept(
        stream: Arc<TcpStream>,
        first: Bytes,
        config: &TlsConfig,
        now: i64,
    ) -> Result<Self, Failed> {
        let beneath = Beneath { stream: Some(stream), first, activity: None };
        let stream = TlsAcceptor::from(Arc::clone(&config.server)).accept(beneath).await;
        let stream = stream.map_err(|error| Failed { outcome: outcome_of(&error), error })?;
        let own = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let until = own.and_then(|own| expiry(own, now));
        let device = own.zip(config.device_identity).and_then(|(own, by)| by.of(own));
        Ok(Self { stream: Mutex::new(stream), policy: config.policy, device, until })
    }

    fn stream(&self) -> MutexGuard<'_, TlsStream<Beneath>> {
        self.stream.lock()
    }

    /// Asks the connection itself.
    pub(super) fn ask<T>(&self, question: impl FnOnce(&ServerConnection) -> T) -> T {
        question(self.stream().get_ref().1)
    }

    pub(super) fn outcome(&self) -> TlsHandshake {
        match self.ask(|connection| connection.handshake_kind()) {
            Some(HandshakeKind::Resumed) => TlsHandshake::Resumed,
            _ => TlsHandshake::Full,
        }
    }

    /// Whether client and server have chosen HTTP/2 by ALPN, the only way to it with TLS (RFC 9113, 3.2).
    pub(super) fn is_http2(&self) -> bool {
        self.ask(|connection| connection.alpn_protocol() == Some(b"h2"))
    }

    /// Whether it has decrypted bytes that were not read: the kernel does not know of them.
    pub(super) fn has_unread(&self) -> bool {
        let mut session = self.stream();
        let state = session.get_mut().1.process_new_packets();
        state.is_ok_and(|state| state.plaintext_bytes_to_read() > 0)
    }

    /// Requests are served from now on.
    pub(super) fn resume(&self, stream: &Arc<TcpStream>, activity: &Arc<Activity>) {
        let mut session = self.stream();
        let beneath = session.get_mut().0;
        beneath.stream = Some(Arc::clone(stream));
        beneath.activity = Some(Arc::clone(activity));
    }

    /// The connection rests from now on.
    pub(super) fn rest(&self) {
        let mut session = self.stream();
        let beneath = session.get_mut().0;
        beneath.stream = None;
        beneath.activity = None;
    }

    pub(super) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_read(cx, buf)
    }

    pub(super) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream()).poll_write(cx, bytes)
    }

    pub(super) fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream()).poll_write_vectored(cx, slices)
    }

    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_flush(cx)
    }

    /// Says that nothing more will come, and sends a FIN.
    pub(super) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_shutdown(cx)
    }

    /// As much of that as can be done without waiting. A client that gets no `close_notify` must take what it
    /// was sent for truncated (RFC 8446, 6.1).
    pub(super) fn send_close_notify(&self) {
        let _ = self.poll_shutdown(&mut Context::from_waker(Waker::noop()));
    }

    /// The same for one that rests.
    pub(super) fn send_close_notify_by(&self, stream: &Arc<TcpStream>) {
        self.stream().get_mut().0.stream = Some(Arc::clone(stream));
        self.send_close_notify();
    }

    /// Writes what is no part of an answer, so the phase does not get to know of it.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut session = self.stream();
        // hyper waits to write it, and the socket has one waker.
        if session.get_ref().1.wants_write() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let activity = session.get_mut().0.activity.take();
        let mut cx = Context::from_waker(Waker::noop());
        let written = Pin::new(&mut *session).poll_write(&mut cx, bytes);
        session.get_mut().0.activity = activity;
        match written {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

/// When a certificate expires, on a clock that cannot be set. None if that is too far away for it.
fn expiry(certificate: &CertificateDer<'_>, now: i64) -> Option<Instant> {
    let left = Validity::of(certificate)?.until.saturating_sub(now);
    Instant::now().checked_add(Duration::from_secs(u64::try_from(left).unwrap_or_default()))
}

impl Beneath {
    fn stream(&self) -> io::Result<&Arc<TcpStream>> {
        self.stream.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn poll_write_with(
        &self,
        cx: &mut Context<'_>,
        length: usize,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let phase = || self.activity.as_ref().map(|activity| activity.phase());
        let blocked = || {
            if let Some(mut phase) = phase() {
                phase.blocked(Instant::now);
            }
        };
        let count = ready!(poll_write_of(self.stream()?, cx, length, write, blocked))?;
        if let Some(mut phase) = phase() {
            phase.wrote(Instant::now);
        }
        Poll::Ready(Ok(count))
    }
}

impl AsyncRead for Beneath {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if take_first(&mut self.first, buf) {
            return Poll::Ready(Ok(()));
        }
        poll_read_of(self.stream()?, cx, buf)
    }
}

impl AsyncWrite for Beneath {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, bytes.len(), |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        self.poll_write_with(cx, length, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream().and_then(|stream| net::shut_down(stream, Shutdown::Write)))
    }
}

/// The type of a record that begins a handshake (RFC 8446, 5.1). No method of HTTP begins like it.
const HANDSHAKE: u8 = 22;

/// Whether a client that has sent its first byte speaks TLS.
pub(super) fn is_tls(first: &[u8]) -> bool {
    first.first() == Some(&HANDSHAKE)
}

/// Answers a client that speaks HTTP without TLS. Not with a 4xx, on which a sender with the wrong address
/// would drop its data.
pub(super) fn say_what_it_takes(stream: &TcpStream, first: &[u8]) {
    if first.first().is_some_and(u8::is_ascii_uppercase) {
        let _ = stream.try_write(PLAINTEXT);
    }
}

const PLAINTEXT: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 46\r\n\
    Retry-After: 60\r\n\
    Connection: close\r\n\
    \r\n\
    this port takes TLS only: begin with https://\n";

/// Whose doing it is that a handshake failed.
fn outcome_of(error: &io::Error) -> TlsHandshake {
    use rustls::Error::{
        AlertReceived, InvalidCertificate, NoApplicationProtocol, NoCertificatesPresented,
        PeerIncompatible,
    };
    let Some(error) = error.get_ref().and_then(|error| error.downcast_ref()) else {
        return TlsHandshake::Closed;
    };
    match error {
        AlertReceived(alert) if refuses_certificate(*alert) => TlsHandshake::Refused,
        AlertReceived(AlertDescription::CloseNotify | AlertDescription::UserCanceled) => {
            TlsHandshake::Closed
        }
        NoCertificatesPresented | InvalidCertificate(_) => TlsHandshake::ClientCertificate,
        PeerIncompatible(_) | NoApplicationProtocol => TlsHandshake::NoAgreement,
        _ => TlsHandshake::Invalid,
    }
}

/// A client that does not trust what it was shown says so.
fn refuses_certificate(alert: AlertDescription) -> bool {
    use AlertDescription::{
        BadCertificate, CertificateExpired, CertificateRevoked, CertificateUnknown, UnknownCA,
        UnsupportedCertificate,
    };
    matches!(
        alert,
        BadCertificate
            | CertificateExpired
            | CertificateRevoked
            | CertificateUnknown
            | UnknownCA
            | UnsupportedCertificate
    )
}
