//! Instances of Mimir that do what Mimir does, and what its machine, its end and whatever stands before it do.

use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;
use mimir_tenant_proxy::net::TcpStream;
use mimir_tenant_proxy::net::simulated::Network;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use crate::journal::{Journal, Receipt};

/// A running instance. Dropping it ends all of it at once.
pub struct Instance {
    _tasks: JoinSet<()>,
    pub accepting: AbortHandle,
}

impl Instance {
    pub fn start(
        network: &std::sync::Arc<Network>,
        address: SocketAddr,
        mut rng: Rng,
        trouble: u32,
        journal: &Journal,
    ) -> Self {
        let (listener, journal) = (network.listen(address), journal.clone());
        let mut tasks = JoinSet::new();
        let accepting = tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    biased;
                    Some(_) = connections.join_next() => {}
                    Ok((stream, _)) = listener.accept() => {
                        let (rng, journal) = (rng.fork(), journal.clone());
                        connections.spawn(async move {
                            let _ = serve(stream, rng, trouble, journal).await;
                        });
                    }
                }
            }
        });
        Self { _tasks: tasks, accepting }
    }
}

/// How the framing of an answer says its length.
#[derive(Clone, Copy, Debug)]
enum Framing {
    Length,
    Chunks,
    UntilClose,
}

/// How an answer ends before its end.
#[derive(Clone, Copy, Debug)]
enum Death {
    Fin,
    Reset,
}

/// What an instance does with a request.
#[derive(Clone, Copy, Debug)]
enum Conduct {
    Answer,
    /// A refusal, before the body was read.
    Early,
    /// Ends while the body is read, or after it.
    DieReading(Death),
    /// Ends within its answer.
    DieAnswering(Death),
    Never,
    /// No HTTP.
    Garbage,
    /// Closes the connection after an answer without having said so.
    CloseSilently,
    /// Sends more than its answer: what another organisation may not see.
    Surplus,
}

fn conduct(rng: &mut Rng, trouble: u32) -> Conduct {
    if rng.u32(..100) >= trouble * 2 {
        return Conduct::Answer;
    }
    let death = if rng.bool() { Death::Fin } else { Death::Reset };
    match rng.u8(..8) {
        0 => Conduct::Early,
        1 => Conduct::DieReading(death),
        2 => Conduct::DieAnswering(death),
        3 => Conduct::Never,
        4 => Conduct::Garbage,
        5 => Conduct::CloseSilently,
        6 => Conduct::Surplus,
        _ => Conduct::Early,
    }
}

const GARBAGE: &[&[u8]] = &[
    b"\0\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64",
    b"HTTP/1.1 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.6\r\n",
];

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
}

struct Head {
    line: String,
    tenants: Vec<String>,
    id: Option<u64>,
    length: Option<usize>,
    is_chunked: bool,
    expects: bool,
}

impl Connection {
    async fn more(&mut self) -> std::io::Result<()> {
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn head(&mut self) -> std::io::Result<Head> {
        let end = loop {
            if let Some(at) = self.input.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            self.more().await?;
        };
        let text =
            String::from_utf8(self.input.drain(..end + 4).collect()).expect("a head is text");
        let mut lines = text.trim_end().split("\r\n");
        let mut head = Head {
            line: lines.next().unwrap().to_owned(),
            tenants: Vec::new(),
            id: None,
            length: None,
            is_chunked: false,
            expects: false,
        };
        for line in lines {
            let (name, value) = line.split_once(": ").expect("a header");
            match name.to_ascii_lowercase().as_str() {
                "x-scope-orgid" => head.tenants.push(value.to_owned()),
                "x-request-id" => head.id = value.strip_prefix('r').and_then(|id| id.parse().ok()),
                "content-length" => head.length = value.parse().ok(),
                "transfer-encoding" => head.is_chunked = true,
                "expect" => head.expects = true,
                _ => {}
            }
        }
        Ok(head)
    }

    /// Reads the body, up to `most` bytes of it. Whether that was all.
    async fn body(
        &mut self,
        head: &Head,
        most: usize,
        mut takes: impl FnMut(&[u8]),
    ) -> std::io::Result<bool> {
        let mut taken = 0;
        if !head.is_chunked {
            let length = head.length.unwrap_or(0);
            while taken < length.min(most) {
                if self.input.is_empty() {
                    self.more().await?;
                }
                let piece = self.input.len().min(length.min(most) - taken);
                takes(&self.input[..piece]);
                self.input.drain(..piece);
                taken += piece;
            }
            return Ok(taken == length);
        }
        while taken < most {
            let line = loop {
                if let Some(at) = self.input.windows(2).position(|two| two == b"\r\n") {
                    break at;
                }
                self.more().await?;
            };
            let size = std::str::from_utf8(&self.input[..line]).expect("a size is text");
            let size = usize::from_str_radix(size, 16).expect("a size is a number");
            while self.input.len() < line + 2 + size + 2 {
                self.more().await?;
            }
            takes(&self.input[line + 2..line + 2 + size]);
            assert_eq!(
                self.input[line + 2 + size..line + 4 + size],
                *b"\r\n",
                "the end of a chunk"
            );
            self.input.drain(..line + 4 + size);
            taken += size;
            if size == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn end(self, death: Death) {
        if matches!(death, Death::Reset) {
            self.stream.set_zero_linger().unwrap();
        }
        drop(self);
    }
}

async fn serve(
    stream: TcpStream,
    mut rng: Rng,
    trouble: u32,
    journal: Journal,
) -> std::io::Result<()> {
    let mut connection = Connection { stream, input: Vec::new() };
    loop {
        let head = connection.head().await?;
        if head.line.starts_with("GET /ready ") {
            let status = if rng.u32(..100) < trouble / 2 { 503 } else { 200 };
            let answer = format!("HTTP/1.1 {status} R\r\nContent-Length: 5\r\n\r\nready");
            connection.stream.write_all(answer.as_bytes()).await?;
            continue;
        }
        let (id, conduct) = (head.id.unwrap_or(u64::MAX), conduct(&mut rng, trouble));
        let number = {
            let mut journal = journal.lock();
            let (tenants, line) = (head.tenants.clone(), head.line.clone());
            journal.receipts.push(Receipt { id, tenants, line, ..Receipt::default() });
            journal.receipts.len() - 1
        };
        journal.tell(&format!("mimir: {id} is receipt {number}: {conduct:?}"));
        let takes = |bytes: &[u8]| journal.lock().receipts[number].body.extend_from_slice(bytes);

        // The body.
        if head.expects {
            connection.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let reads = match conduct {
            Conduct::Early if rng.bool() => 0,
            Conduct::Early | Conduct::DieReading(_) => rng.usize(..100_000),
            _ => usize::MAX,
        };
        let is_whole = connection.body(&head, reads, takes).await?;
        journal.lock().receipts[number].is_whole = is_whole;
        match conduct {
            Conduct::DieReading(death) => {
                sleep(Duration::from_millis(rng.u64(..3))).await;
                connection.end(death).await;
                return Ok(());
            }
            Conduct::Never => {
                // Until the other side gives up.
                let _ = connection.stream.read(&mut [0; 64]).await;
                return Ok(());
            }
            Conduct::Garbage => {
                journal.count("garbage");
                connection.stream.write_all(GARBAGE[rng.usize(..GARBAGE.len())]).await?;
                return Ok(());
            }
            _ => {}
        }

        // The answer.
        let wait = [0, 0, 1, 30, 900, 4000][rng.usize(..6)];
        sleep(Duration::from_millis(wait)).await;
        let refusals = [400, 413, 422, 429, 500, 502, 503, 503];
        let is_fine = !matches!(conduct, Conduct::Early) && rng.u32(..100) >= trouble;
        let status = if is_fine { 200 } else { refusals[rng.usize(..8)] };
        let organisation = head.tenants.first().cloned().unwrap_or_default();
        let length = [0, 10, 3000, 70_000, 300_000][rng.usize(..5)];
        let answer = text(id, number, &organisation, length);
        {
            let mut journal = journal.lock();
            journal.receipts[number].status = status;
            journal.receipts[number].answer.clone_from(&answer);
        }
        let framing = match rng.u8(..6) {
            0 | 1 => Framing::Chunks,
            2 if !matches!(conduct, Conduct::DieAnswering(_) | Conduct::Surplus) => {
                Framing::UntilClose
            }
            _ => Framing::Length,
        };
        let mut bytes = written(&mut rng, status, framing, &answer);
        if let Conduct::DieAnswering(death) = conduct {
            bytes.truncate(rng.usize(..bytes.len()));
            connection.stream.write_all(&bytes).await?;
            sleep(Duration::from_millis([0, 1, 500][rng.usize(..3)])).await;
            journal.tell(&format!("mimir: receipt {number} dies after {} bytes", bytes.len()));
            connection.end(death).await;
            return Ok(());
        }
        // On any other line it may come when the next request was sent: then nobody can tell.
        let outward = connection.stream.outward();
        let is_atomic = outward.piece == usize::MAX && outward.delay.is_zero();
        if matches!(conduct, Conduct::Surplus) && is_atomic && bytes.len() < outward.buffer / 2 {
            journal.count("surplus bytes");
            let other = text(id, number, "another organisation", 20);
            bytes.extend(written(&mut rng, 200, Framing::Length, &other));
        }
        connection.stream.write_all(&bytes).await?;
        journal.tell(&format!("mimir: receipt {number} has answered {status}"));
        if matches!(framing, Framing::UntilClose) || matches!(conduct, Conduct::CloseSilently) {
            return Ok(());
        }
        if !is_whole {
            // As Go's server does: what is left of the body is in the way of the next request.
            return Ok(());
        }
    }
}

/// An answer that says whose it is.
fn text(id: u64, number: usize, organisation: &str, length: usize) -> Vec<u8> {
    let mut text = format!("mimir|{organisation}|{id}|{number}|{length}|").into_bytes();
    let begin = text.len();
    text.resize(begin + length, b'x');
    for (at, block) in text[begin..].chunks_mut(61).enumerate() {
        block.fill(b'a' + u8::try_from((at + at / 251 + number) % 26).unwrap());
    }
    text
}

fn written(rng: &mut Rng, status: u16, framing: Framing, answer: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if rng.u8(..8) == 0 {
        bytes.extend(b"HTTP/1.1 103 Early Hints\r\n\r\n");
    }
    bytes.extend(format!("HTTP/1.1 {status} S\r\nContent-Type: text/plain\r\n").bytes());
    match framing {
        Framing::Length => {
            bytes.extend(format!("Content-Length: {}\r\n\r\n", answer.len()).bytes());
            bytes.extend(answer);
        }
        Framing::UntilClose => {
            bytes.extend(b"Connection: close\r\n\r\n");
            bytes.extend(answer);
        }
        Framing::Chunks => {
            bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            let mut rest = answer;
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(rest.len().min(1 + rng.usize(..20_000)));
                bytes.extend(format!("{:x}\r\n", piece.len()).bytes());
                bytes.extend(piece);
                bytes.extend(b"\r\n");
                rest = after;
            }
            bytes.extend(b"0\r\n\r\n");
        }
    }
    bytes
}
