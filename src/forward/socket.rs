//! A socket to an instance, with or without TLS.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http::HeaderValue;
use http::uri::Authority;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::net::{self, TcpStream};

/// Whether a connection without a request can take one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quiet {
    Yes,
    /// The instance has closed it.
    Closed,
    /// Bytes have come that belong to no request.
    Unsolicited,
}

pub(super) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// Makes the handshake, if there is one. The instance's certificate must be for the name in its
    /// authority.
    pub(super) async fn secured(
        stream: TcpStream,
        address: SocketAddr,
        authority: &HeaderValue,
        tls: Option<&Arc<ClientConfig>>,
    ) -> io::Result<Self> {
        let Some(config) = tls else { return Ok(Self::Plain(stream)) };
        let connector = TlsConnector::from(Arc::clone(config));
        let stream = connector.connect(name_of(authority, address), stream).await?;
        Ok(Self::Tls(Box::new(stream)))
    }

    /// Whether nothing has come, without waiting for it.
    pub(super) fn quiet(&mut self) -> Quiet {
        let stream = match self {
            Self::Plain(stream) => {
                return match net::peek(stream) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Quiet::Yes,
                    Err(_) | Ok(0) => Quiet::Closed,
                    Ok(_) => Quiet::Unsolicited,
                };
            }
            Self::Tls(stream) => stream,
        };
        // The session first: it may have taken more from the kernel than was read, such as a close_notify or
        // an unsolicited answer. Tickets are none.
        let (mut byte, mut cx) = ([0], Context::from_waker(Waker::noop()));
        let mut byte = ReadBuf::new(&mut byte);
        match Pin::new(&mut **stream).poll_read(&mut cx, &mut byte) {
            Poll::Ready(Ok(())) if !byte.filled().is_empty() => return Quiet::Unsolicited,
            Poll::Ready(_) => return Quiet::Closed,
            Poll::Pending => {}
        }
        // Then the kernel: what came a moment ago the runtime may not know of yet.
        match net::peek(stream.get_ref().0) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Quiet::Yes,
            _ => Quiet::Closed,
        }
    }
}

impl Drop for Socket {
    /// Resets the connection. A request is cancelled by closing its connection, and who closes first keeps the
    /// port for a minute (`TIME_WAIT`): some 500 cancelled requests a second, of a single client, would be all ports
    /// that there are to an instance.
    fn drop(&mut self) {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        };
        let _ = stream.set_zero_linger();
    }
}

/// The name of an instance; its address if it has none.
fn name_of(authority: &HeaderValue, address: SocketAddr) -> ServerName<'static> {
    let authority = Authority::try_from(authority.as_bytes()).ok();
    let host = authority.as_ref().map(|authority| authority.host().trim_matches(['[', ']']));
    let name = host.and_then(|host| ServerName::try_from(host.to_owned()).ok());
    name.unwrap_or_else(|| ServerName::from(address.ip()))
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(not(feature = "simulation"))]
#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::ServerConfig;
    use rustls::crypto::aws_lc_rs;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// Both ends of a connection with TLS.
    async fn pair() -> (Socket, tokio_rustls::server::TlsStream<TcpStream>) {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(["mimir".to_owned()]).unwrap().self_signed(&key).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let own = key.serialize_der().try_into().unwrap();
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], own)
            .unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            TlsAcceptor::from(Arc::new(server)).accept(stream).await.unwrap()
        };
        let connect = async {
            let stream = TcpStream::connect(address).await.unwrap();
            let name = HeaderValue::from_static("mimir");
            Socket::secured(stream, address, &name, Some(&Arc::new(client))).await.unwrap()
        };
        tokio::join!(connect, serve)
    }

    // The session has decrypted a whole record, of which only the answer was read: the kernel has nothing.
    #[tokio::test]
    async fn what_the_session_holds_is_not_quiet() {
        let turn = || tokio::time::sleep(std::time::Duration::from_millis(50));
        let (mut socket, mut peer) = pair().await;
        // Tickets come.
        turn().await;
        assert_eq!(socket.quiet(), Quiet::Yes);
        peer.write_all(b"answer, surplus").await.unwrap();
        peer.flush().await.unwrap();
        socket.read_exact(&mut [0; 6]).await.unwrap();
        assert_eq!(socket.quiet(), Quiet::Unsolicited);

        let (mut socket, mut peer) = pair().await;
        peer.write_all(b"answer").await.unwrap();
        peer.get_mut().1.send_close_notify();
        peer.flush().await.unwrap();
        turn().await;
        socket.read_exact(&mut [0; 6]).await.unwrap();
        assert_eq!(socket.quiet(), Quiet::Closed);
    }

    #[test]
    fn the_name_is_that_of_the_configuration_and_not_the_address() {
        let address: SocketAddr = "10.0.0.7:8080".parse().unwrap();
        for (authority, name) in [
            ("mimir.internal:8080", "mimir.internal"),
            ("mimir.internal", "mimir.internal"),
            ("10.0.0.9:8080", "10.0.0.9"),
            ("[fdaa::3]:8080", "fdaa::3"),
            ("\u{7f}", "10.0.0.7"),
        ] {
            let authority = HeaderValue::from_bytes(authority.as_bytes());
            let Ok(authority) = authority else { continue };
            assert_eq!(name_of(&authority, address).to_str(), name);
        }
    }
}
