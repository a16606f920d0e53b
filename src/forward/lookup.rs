//! Name resolution.

use std::io;
use std::net::SocketAddr;

/// All addresses of a name, A and AAAA, by the system's resolver.
pub(super) async fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut addresses: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() { Err(io::Error::other("no address")) } else { Ok(addresses) }
}
