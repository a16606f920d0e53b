//! A TCP proxy that breaks the network on purpose.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Everything passes.
    Fair,
    /// Connections are made and nothing passes.
    Stalled,
    /// Everything passes, each piece this late.
    Far(Duration),
    /// So many bytes pass in a second on each connection, either way.
    Narrow(u32),
    /// Of what clients send only this many bytes pass on each connection, and no more.
    FrozenUploads(usize),
    /// Each connection is reset when so many bytes have passed either way.
    Reset(usize),
    /// Connections are cut, and new ones too.
    Cut,
}

/// Which way a pump goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// A proxy to one address, with changeable weather.
pub struct ChaosProxy {
    address: SocketAddr,
    weather: Arc<watch::Sender<Weather>>,
    _tasks: JoinSet<()>,
}

impl ChaosProxy {
    /// Starts in fair weather.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("address");
        let weather = Arc::new(watch::Sender::new(Weather::Fair));
        let mut tasks = JoinSet::new();
        let sender = Arc::clone(&weather);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let weather = sender.subscribe();
                connections.spawn(async move {
                    if *weather.borrow() == Weather::Cut {
                        return;
                    }
                    let Ok(server) = TcpStream::connect(target).await else {
                        return;
                    };
                    if matches!(*weather.borrow(), Weather::Reset(_)) {
                        // Closed by a reset and not by a FIN.
                        let _ = (client.set_zero_linger(), server.set_zero_linger());
                    }
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    tokio::select! {
                        () = pump(Way::Up, &mut from_client, &mut to_server, weather.clone()) => {}
                        () = pump(Way::Down, &mut from_server, &mut to_client, weather) => {}
                    }
                });
            }
        });
        Self { address, weather, _tasks: tasks }
    }

    /// Its address, for what does not speak HTTP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything passes.
    pub fn calm(&self) {
        self.weather.send_replace(Weather::Fair);
    }

    /// Everything passes, each piece this late, as from another continent.
    pub fn move_away(&self, delay: Duration) {
        self.weather.send_replace(Weather::Far(delay));
    }

    /// So many bytes pass in a second on each connection, as on a slow link.
    pub fn narrow(&self, bytes: u32) {
        self.weather.send_replace(Weather::Narrow(bytes));
    }

    /// Nothing passes, and nobody is told.
    pub fn stall(&self) {
        self.weather.send_replace(Weather::Stalled);
    }

    /// Of what clients send only this many bytes pass on each connection from now on.
    pub fn freeze_uploads_after(&self, bytes: usize) {
        self.weather.send_replace(Weather::FrozenUploads(bytes));
    }

    /// Each connection is reset when so many bytes have passed either way, wherever that is in a request or an
    /// answer.
    pub fn reset_after(&self, bytes: usize) {
        self.weather.send_replace(Weather::Reset(bytes));
    }

    /// All connections are cut.
    pub fn cut(&self) {
        self.weather.send_replace(Weather::Cut);
    }
}

async fn pump(
    way: Way,
    from: &mut tokio::net::tcp::OwnedReadHalf,
    to: &mut tokio::net::tcp::OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
) {
    let mut buffer = vec![0; 64 << 10];
    let mut passed = 0;
    loop {
        let now = *weather.borrow_and_update();
        let most = match now {
            Weather::FrozenUploads(bytes) if way == Way::Up => bytes.saturating_sub(passed),
            Weather::Reset(bytes) => bytes.saturating_sub(passed),
            _ => buffer.len(),
        };
        let most = most.min(buffer.len());
        match now {
            Weather::Cut => return,
            Weather::Reset(_) if most == 0 => return,
            Weather::Stalled => {
                if weather.changed().await.is_err() {
                    return;
                }
            }
            Weather::FrozenUploads(_) if most == 0 => {
                if weather.changed().await.is_err() {
                    return;
                }
            }
            Weather::Fair
            | Weather::Far(_)
            | Weather::Narrow(_)
            | Weather::FrozenUploads(_)
            | Weather::Reset(_) => {
                tokio::select! {
                    read = from.read(&mut buffer[..most]) => match read {
                        Ok(0) | Err(_) => return,
                        Ok(length) => {
                            passed += length;
                            if let Weather::Far(delay) = now {
                                tokio::time::sleep(delay).await;
                            }
                            if let Weather::Narrow(bytes) = now {
                                let length = u32::try_from(length).unwrap_or(u32::MAX);
                                let took = f64::from(length) / f64::from(bytes);
                                tokio::time::sleep(Duration::from_secs_f64(took)).await;
                            }
                            if to.write_all(&buffer[..length]).await.is_err() {
                                return;
                            }
                        }
                    },
                    changed = weather.changed() => if changed.is_err() { return },
                }
            }
        }
    }
}
