//! What happened in a simulation, and what must hold of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::time::Instant;

/// What happens in some of a few hundred seeds, or the simulation has become tame.
pub const WANTED: &[&str] = &[
    "answers",
    "acknowledged pushes",
    "torn answers",
    "no answer",
    "clients that left",
    "own 503",
    "own 504",
    "429 of Mimir",
    "repeated requests",
    "deaths",
    "jumps",
    "half-closed",
    "HTTP/2 requests",
    "received in part",
    "surplus bytes",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Push,
    Otlp,
    /// Not repeatable: a line without a time gets that of its arrival.
    Influx,
    Query,
    Form,
}

impl Kind {
    pub fn is_push(self) -> bool {
        matches!(self, Self::Push | Self::Otlp | Self::Influx)
    }
}

/// A request of a client.
#[derive(Clone)]
pub struct Asked {
    pub organisation: &'static str,
    pub kind: Kind,
    pub method: &'static str,
    pub target: String,
    pub body: Vec<u8>,
}

/// What an instance got, and what it did.
#[derive(Default)]
pub struct Receipt {
    pub id: u64,
    pub tenants: Vec<String>,
    pub line: String,
    pub body: Vec<u8>,
    /// The whole body has come, by its framing.
    pub is_whole: bool,
    pub status: u16,
    /// What it answers, all of it sent or not.
    pub answer: Vec<u8>,
}

/// What a client got.
pub enum Seen {
    Whole {
        status: u16,
        body: Vec<u8>,
        has_retry_after: bool,
    },
    /// An answer that broke off.
    Torn {
        status: Option<u16>,
    },
    /// It did not wait for it.
    Left,
}

#[derive(Default)]
pub struct Happened {
    pub asked: BTreeMap<u64, Asked>,
    pub receipts: Vec<Receipt>,
    pub seen: Vec<(u64, Seen)>,
    pub broken: Vec<String>,
    pub counts: BTreeMap<&'static str, u64>,
    /// A limit of ours may refuse reads with 429.
    pub is_tight: bool,
    /// Nothing goes wrong: every request has a whole answer.
    pub is_calm: bool,
    pub story: String,
}

/// Shared by all who take part.
#[derive(Clone)]
pub struct Journal {
    happened: Arc<Mutex<Happened>>,
    began: Instant,
}

impl Journal {
    pub fn new() -> Self {
        Self { happened: Arc::default(), began: Instant::now() }
    }

    pub fn lock(&self) -> MutexGuard<'_, Happened> {
        self.happened.lock().unwrap()
    }

    pub fn count(&self, what: &'static str) {
        *self.lock().counts.entry(what).or_default() += 1;
    }

    pub fn broken(&self, what: String) {
        self.lock().broken.push(what);
    }

    /// A line of the story.
    pub fn tell(&self, what: &str) {
        let at = self.began.elapsed();
        let _ = writeln!(self.lock().story, "{:>12.6} {what}", at.as_secs_f64());
    }

    pub fn saw(&self, id: u64, seen: Seen) {
        let text = match &seen {
            Seen::Whole { status, body, .. } => format!("{status}, {} bytes", body.len()),
            Seen::Torn { status: Some(status) } => format!("{status}, torn"),
            Seen::Torn { status: None } => "no answer".to_owned(),
            Seen::Left => "left".to_owned(),
        };
        self.tell(&format!("client: {id} has {text}"));
        self.lock().seen.push((id, seen));
    }
}

impl Happened {
    /// All that is wrong with it.
    pub fn check(&mut self) {
        let mut broken = std::mem::take(&mut self.broken);
        let mut counts = std::mem::take(&mut self.counts);
        let mut count = |what| *counts.entry(what).or_insert(0) += 1;
        let mut times: BTreeMap<u64, usize> = BTreeMap::new();
        for receipt in &self.receipts {
            let id = receipt.id;
            let Some(asked) = self.asked.get(&id) else {
                broken
                    .push(format!("an instance got a request that nobody sent: {}", receipt.line));
                continue;
            };
            *times.entry(id).or_default() += 1;
            if receipt.tenants != [asked.organisation] {
                broken.push(format!("{id} of {} has {:?}", asked.organisation, receipt.tenants));
            }
            if receipt.line != format!("{} {} HTTP/1.1", asked.method, asked.target) {
                broken.push(format!("{id} became {}", receipt.line));
            }
            if receipt.is_whole && receipt.body != asked.body {
                broken.push(format!(
                    "{id} came whole with {} bytes that are not its {}",
                    receipt.body.len(),
                    asked.body.len()
                ));
            }
            if !asked.body.starts_with(&receipt.body) {
                broken.push(format!("{id} came with bytes that are not its own"));
            }
            if !receipt.is_whole {
                count("received in part");
            }
        }
        for (id, times) in times {
            let kind = self.asked[&id].kind;
            let most = if kind == Kind::Influx { 1 } else { 3 };
            if times > 1 {
                count("repeated requests");
            }
            if times > most {
                broken.push(format!("{id} ({kind:?}) was sent {times} times"));
            }
        }
        for (id, seen) in &self.seen {
            let asked = &self.asked[id];
            let (status, body, has_retry_after) = match seen {
                Seen::Whole { status, body, has_retry_after } => (*status, body, *has_retry_after),
                Seen::Torn { status } => {
                    if self.is_calm {
                        broken.push(format!("{id} has no whole answer, and nothing went wrong"));
                    }
                    count(if status.is_some() { "torn answers" } else { "no answer" });
                    continue;
                }
                Seen::Left => {
                    count("clients that left");
                    continue;
                }
            };
            count("answers");
            let mut own = self.receipts.iter().filter(|receipt| receipt.id == *id);
            if body.starts_with(b"mimir|") {
                let Some(receipt) = own.find(|receipt| receipt.answer == *body) else {
                    let text = String::from_utf8_lossy(&body[..body.len().min(60)]);
                    broken.push(format!(
                        "{id} got {} bytes, whole, that nobody sent it: {text}",
                        body.len()
                    ));
                    continue;
                };
                if receipt.status != status {
                    broken.push(format!("{id}: {} became {status}", receipt.status));
                }
                if asked.kind.is_push() && status < 300 {
                    count("acknowledged pushes");
                    if !receipt.is_whole {
                        broken.push(format!(
                            "{id} was acknowledged, and Mimir had only a part of it"
                        ));
                    }
                }
                if status == 429 {
                    count("429 of Mimir");
                }
                continue;
            }
            match status {
                503 => count("own 503"),
                504 => count("own 504"),
                502 => count("own 502"),
                429 if self.is_tight && !asked.kind.is_push() => count("own 429"),
                _ => broken.push(format!("{id} ({:?}) got {status} from the proxy", asked.kind)),
            }
            if status >= 500 && !has_retry_after {
                broken.push(format!("{id}: {status} without Retry-After"));
            }
        }
        self.broken = broken;
        self.counts = counts;
    }
}
