//! A real memcached.

use std::collections::HashMap;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::parts::part;
use crate::process::{Process, free_port, wait_until};

/// A running memcached.
pub struct Memcached {
    process: Process,
    port: u16,
    _directory: TempDir,
}

impl Memcached {
    /// Starts one with these options besides.
    pub async fn start(options: &[&str]) -> Self {
        let directory = TempDir::with_prefix("memcached-").expect("directory");
        let port = free_port();
        let process =
            Process::start("memcached", &part("memcached"), directory.path(), |command| {
                // As root it wants to be told who to become.
                command.args(["-u", "nobody", "-l", "127.0.0.1", "-p", &port.to_string()]);
                command.args(options);
            });
        let mut memcached = Self { process, port, _directory: directory };
        let (process, address) = (&mut memcached.process, ("127.0.0.1", port));
        wait_until("memcached takes connections", Duration::from_secs(20), async || {
            assert!(process.is_running(), "memcached does not start\n{}", process.log());
            TcpStream::connect(address).await.is_ok()
        })
        .await;
        memcached
    }

    /// Its host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What it counts.
    pub async fn stats(&self) -> HashMap<String, u64> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).await.expect("connect");
        socket.write_all(b"stats\r\nquit\r\n").await.expect("write");
        let mut text = String::new();
        socket.read_to_string(&mut text).await.expect("stats");
        let lines = text.lines().filter_map(|line| {
            let (name, value) = line.strip_prefix("STAT ")?.split_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        lines.collect()
    }
}
