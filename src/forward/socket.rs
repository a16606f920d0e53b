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

use super::wire::{Quiet, Quietness};
use crate::net::{self, TcpStream};

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
}

/// The name of an instance; its address if it has none.
fn name_of(authority: &HeaderValue, address: SocketAddr) -> ServerName<'static> {
    let authority = Authority::try_from(authority.as_bytes()).ok();
    let host = authority.as_ref().map(|authority| authority.host().trim_matches(['[', ']']));
    let name = host.and_then(|host| ServerName::try_from(host.to_owned()).ok());
    name.unwrap_or_else(|| ServerName::from(address.ip()))
}

impl Quietness for Socket {
    fn quiet(&mut self) -> Quiet {
        let stream = match self {
            Self::Plain(stream) => return stream.quiet(),
            Self::Tls(stream) => stream,
        };
        match net::peek(stream.get_ref().0) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Quiet::Yes,
            Err(_) | Ok(0) => Quiet::Closed,
            // Records that say nothing of an answer, such as tickets, or a goodbye, or bytes that nobody
            // asked for.
            Ok(_) => {
                let (mut byte, mut cx) = ([0], Context::from_waker(Waker::noop()));
                let mut byte = ReadBuf::new(&mut byte);
                match Pin::new(stream).poll_read(&mut cx, &mut byte) {
                    Poll::Pending => Quiet::Yes,
                    Poll::Ready(Ok(())) if !byte.filled().is_empty() => Quiet::Unsolicited,
                    Poll::Ready(_) => Quiet::Closed,
                }
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
