//! Listening sockets that the process was started with: whoever starts it holds them before, between and
//! after its processes, so that no connection attempt meets a closed port (systemd's protocol,
//! `sd_listen_fds(3)`). docs/decisions/0040-restart-in-place.md has the reasons.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

/// The sockets that are not in use yet.
pub struct Inherited(Vec<TcpListener>);

impl Inherited {
    /// Takes over the sockets that the environment (`LISTEN_FDS`) speaks of, if it speaks to this process.
    /// To be called once, before there are threads.
    pub fn take() -> io::Result<Self> {
        let mut all = ListenFd::from_env();
        let mut sockets = Vec::new();
        for place in 0..all.len() {
            let socket = all.take_tcp_listener(place);
            let socket = socket.map_err(|error| invalid(format!("LISTEN_FDS: {error}")))?;
            sockets.extend(socket);
        }
        Ok(Self(sockets))
    }

    /// The socket that listens on an address.
    pub(super) fn of(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let is_it = |socket: &TcpListener| socket.local_addr().is_ok_and(|own| own == address);
        let place = self.0.iter().position(is_it)?;
        Some(self.0.swap_remove(place))
    }

    /// An error if a socket was passed that nothing listens on: connections to it would wait for ever.
    pub fn check_all_used(&self) -> io::Result<()> {
        let Some(socket) = self.0.first() else { return Ok(()) };
        let address =
            socket.local_addr().map_or_else(|error| error.to_string(), |at| at.to_string());
        Err(invalid(format!(
            "LISTEN_FDS: the socket on {address} is neither listen.address nor \
             listen.internal_address; set one of them to it"
        )))
    }
}

fn invalid(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, problem)
}
