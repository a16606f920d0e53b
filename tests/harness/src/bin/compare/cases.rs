//! What is measured: the table of cases.

use crate::peers::Peer;

pub const QUERY: &str = "/prometheus/api/v1/query";

/// One request of a case.
#[derive(Clone, Copy)]
pub struct Shape {
    pub method: &'static str,
    pub target: &'static str,
    /// Bytes of the request's body.
    pub sent: usize,
    /// Bytes of the answer's body.
    pub received: usize,
}

/// How often a credential is used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// A thousand, in turn.
    Known,
    /// Each once.
    New,
    /// One. wrk copies a request for each connection unless all are the same.
    One,
}

/// How the load is sent.
#[derive(Clone, Copy)]
pub enum Sending {
    /// By wrk: each connection as soon as it has its answer.
    Saturating,
    /// By h2load: so many requests at a time on each connection, over HTTP/2 without TLS. Over HTTP/1.1,
    /// as many connections as that makes.
    Streams(usize),
    /// By the harness, so many requests a second.
    Rate(f64),
}

/// One case: a load, and who gets it.
pub struct Case {
    /// For `--case`.
    pub name: &'static str,
    pub title: &'static str,
    pub shape: Shape,
    pub connections: usize,
    pub credentials: Credentials,
    pub sending: Sending,
    pub peers: &'static [Peer],
}

const READ: Shape = Shape { method: "GET", target: QUERY, sent: 0, received: 1 << 10 };
const PUSH: Shape = Shape { method: "POST", target: "/api/v1/push", sent: 50 << 10, received: 0 };
const ANSWER: Shape =
    Shape { method: "GET", target: "/api/v1/user_stats", sent: 0, received: 64 << 20 };
/// Of many streams each is short enough to end while it is measured.
const SHORT_ANSWER: Shape = Shape { target: "/api/v1/user_limits", received: 8 << 20, ..ANSWER };
const UPLOAD: Shape = Shape { sent: 1 << 20, ..PUSH };

use Credentials::{Known, New, One};
use Peer::{
    Against, Bookkeeping, Devices, Direct, HaproxyEs256, HaproxyHs256, Http1, Members, Nginx,
    Proxy, Vmauth,
};
use Sending::{Rate, Saturating, Streams};

pub const CASES: &[Case] = &[
    Case {
        name: "read",
        title: "1 KiB reads, 32 connections, 1,000 tokens",
        shape: READ,
        connections: 32,
        credentials: Known,
        sending: Saturating,
        peers: &[Nginx, Bookkeeping, HaproxyEs256, HaproxyHs256, Vmauth, Proxy, Against],
    },
    Case {
        name: "push",
        title: "50 KiB pushes, 32 connections, 1,000 tokens",
        shape: PUSH,
        connections: 32,
        credentials: Known,
        sending: Saturating,
        peers: &[Nginx, Bookkeeping, HaproxyEs256, HaproxyHs256, Vmauth, Proxy, Against],
    },
    Case {
        name: "new",
        title: "1 KiB reads, 32 connections, every token new (ES256)",
        shape: READ,
        connections: 32,
        credentials: New,
        sending: Saturating,
        peers: &[Bookkeeping, HaproxyEs256, Proxy, Against],
    },
    Case {
        name: "database",
        title: "1 KiB reads, 32 connections: who may, from claims or from the database (cached)",
        shape: READ,
        connections: 32,
        credentials: Known,
        sending: Saturating,
        peers: &[Proxy, Members, Devices],
    },
    Case {
        name: "h2c",
        title: "1 KiB reads over HTTP/2, 4 connections of 16 streams",
        shape: READ,
        connections: 4,
        credentials: One,
        sending: Streams(16),
        peers: &[HaproxyEs256, Http1, Proxy, Against],
    },
    Case {
        name: "answer",
        title: "64 MiB answers, 1 stream",
        shape: ANSWER,
        connections: 1,
        credentials: One,
        sending: Saturating,
        peers: &[Bookkeeping, HaproxyEs256, Proxy, Against],
    },
    Case {
        name: "answers",
        title: "8 MiB answers, 64 streams",
        shape: SHORT_ANSWER,
        connections: 64,
        credentials: One,
        sending: Saturating,
        peers: &[Bookkeeping, HaproxyEs256, Proxy, Against],
    },
    Case {
        name: "uploads",
        title: "1 MiB bodies, 64 streams",
        shape: UPLOAD,
        connections: 64,
        credentials: One,
        sending: Saturating,
        peers: &[Bookkeeping, HaproxyEs256, Proxy, Against],
    },
    Case {
        name: "rate",
        title: "1 KiB reads, 2,000 requests a second",
        shape: READ,
        connections: 8,
        credentials: Known,
        sending: Rate(2_000.0),
        peers: &[Direct, Bookkeeping, Proxy, Against],
    },
];
