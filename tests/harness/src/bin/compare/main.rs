//! `loadtest/compare`: what a request costs this proxy, beside nginx, haproxy and vmauth before the same
//! upstream, under the same load, in one run.
//!
//! What counts is the processor time of a request and its ratio to nginx's: absolute times mean
//! nothing on a shared machine. Rounds go through all peers in turn, and medians are shown. `cases` is
//! the table of what is measured, `peers` of who.

mod cases;
mod chart;
mod load;
mod peers;
mod report;
mod train;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cases::{CASES, Case, Credentials, QUERY};
use harness::report::{circumstances, write_block};
use harness::{ORG_A, ProxyOptions, Upstream};
use http::Response;
use http_body_util::{BodyExt as _, Empty};
use peers::{Peer, Scene};
use report::Outcome;

/// Requests a second that no proxy reaches here: where each takes a new token, so many are made.
const MOST_A_SECOND: usize = 60_000;

const USAGE: &str = "--seconds N, --rounds N, --case NAME, --only PEER, --against BINARY, --write FILE, --hold, --train";

struct Options {
    seconds: u64,
    rounds: usize,
    cases: Vec<String>,
    /// Parts of names of peers; the first peer of a case, and what ratios are to, always run.
    only: Vec<String>,
    /// Another build of this proxy.
    against: Option<PathBuf>,
    /// A document whose block gets the tables.
    write: Option<PathBuf>,
    /// Print what is running and wait, for a profiler.
    hold: bool,
    /// Send this proxy what it is to be optimised for, and nothing else.
    train: bool,
}

#[tokio::main]
async fn main() {
    let options = options();
    if options.train {
        return train::run(options.seconds).await;
    }
    let cases: Vec<&Case> = CASES.iter().filter(|case| options.wants(case)).collect();
    assert!(!cases.is_empty(), "there is no such case; there are {}", names());
    let mut scene = Scene::start(options.against.clone()).await;
    let mut wanted: Vec<Peer> = cases
        .iter()
        .flat_map(|case| case.peers)
        .copied()
        .filter(|peer| options.runs(*peer))
        .collect();
    wanted.sort_unstable();
    wanted.dedup();
    let running = scene.run(&wanted).await;
    if options.hold {
        for (peer, running) in &running {
            let (id, address) = (running.process(), running.address);
            println!("{}: process {id}, {address}\n{}", peer.title(), running.credentials[0]);
        }
        std::future::pending::<()>().await;
    }
    let (rounds, seconds) = (options.rounds, options.seconds);
    let caption = format!("{}, rounds: {rounds} of {seconds} s", circumstances());
    println!("{caption}\n");
    let mut outcomes = Vec::new();
    for case in cases {
        let mut outcome = Outcome { case, runs: BTreeMap::new() };
        for _ in 0..options.rounds {
            let new = match case.credentials {
                // More than any peer serves on a machine of today.
                Credentials::New => scene.new_tokens(MOST_A_SECOND * options.seconds as usize),
                _ => Vec::new(),
            };
            for peer in case.peers {
                let Some(running) = running.get(peer) else { continue };
                let measured = load::run(&scene, (*peer, running), case, &new, options.seconds);
                outcome.runs.entry(*peer).or_default().push(measured);
            }
        }
        println!("{}", outcome.table().text());
        outcomes.push(outcome);
    }
    assert_tenant().await;
    if let Some(document) = &options.write {
        write(document, &outcomes, &caption);
    }
}

impl Options {
    fn wants(&self, case: &Case) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|name| name == case.name)
    }

    fn runs(&self, peer: Peer) -> bool {
        let is_base = matches!(peer, Peer::Bookkeeping | Peer::Direct | Peer::Http1 | Peer::Proxy);
        self.only.is_empty() || is_base || self.only.iter().any(|only| peer.title().contains(only))
    }
}

/// The proxy must have done its work: the tenant header arrived.
async fn assert_tenant() {
    let issuer = harness::Issuer::start().await;
    let upstream = Upstream::start(|_| async {
        let body = Empty::<Bytes>::new().map_err(|never| match never {}).boxed();
        Response::new(body)
    })
    .await;
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url()).start().await;
    let answer = proxy.client().bearer(&issuer.user_of(ORG_A)).get(QUERY).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(upstream.heads()[0].headers["x-scope-orgid"], ORG_A);
}

/// Puts the tables into a document, between its two markers, and the picture beside it.
fn write(document: &Path, outcomes: &[Outcome<'_>], caption: &str) {
    let tables: Vec<String> = outcomes.iter().map(|outcome| outcome.table().markdown()).collect();
    write_block(document, "loadtest/compare", &format!("{caption}.\n\n{}", tables.join("\n")));
    if let Some(picture) = chart::draw(outcomes, caption) {
        let file = document.with_file_name("pictures").join("performance.svg");
        std::fs::write(&file, picture).expect("the picture");
    }
}

fn names() -> String {
    CASES.iter().map(|case| case.name).collect::<Vec<_>>().join(", ")
}

fn options() -> Options {
    let mut options = Options {
        seconds: 3,
        rounds: 5,
        cases: Vec::new(),
        only: Vec::new(),
        against: None,
        write: None,
        hold: false,
        train: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "--seconds" => options.seconds = value().parse().expect("seconds"),
            "--rounds" => options.rounds = value().parse().expect("rounds"),
            "--case" => options.cases.push(value()),
            "--only" => options.only.push(value()),
            "--against" => {
                options.against = Some(PathBuf::from(value()).canonicalize().expect("a build"))
            }
            "--write" => options.write = Some(value().into()),
            "--hold" => options.hold = true,
            "--train" => options.train = true,
            other => panic!("unknown option {other}; there are {USAGE}"),
        }
    }
    options
}
