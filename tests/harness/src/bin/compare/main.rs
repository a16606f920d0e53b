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
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cases::{CASES, Case, Credentials, QUERY};
use clap::Parser;
use clap::builder::PossibleValuesParser;
use harness::report::{circumstances, write_block};
use harness::{ORG_A, ProxyOptions, Upstream};
use http::Response;
use http_body_util::{BodyExt as _, Empty};
use peers::{Peer, Scene};
use report::Outcome;

/// Requests a second that no proxy reaches here: where each takes a new token, so many are made.
const MOST_A_SECOND: usize = 60_000;

/// Compares this proxy with others in front of one upstream.
#[derive(Parser)]
struct Options {
    /// How long each load lasts
    #[arg(long, default_value = "3")]
    seconds: NonZeroU64,
    /// How often each peer gets each load
    #[arg(long, default_value = "5")]
    rounds: NonZeroUsize,
    /// A load, or several; without it, all
    #[arg(long = "case", value_name = "NAME", value_parser = PossibleValuesParser::new(names()))]
    cases: Vec<String>,
    /// A part of a peer's name, or several; what ratios are to always runs
    #[arg(long, value_name = "PEER")]
    only: Vec<String>,
    /// Another build of this proxy, which runs in the same rounds
    #[arg(long, value_name = "BINARY", value_parser = build)]
    against: Option<PathBuf>,
    /// A document whose block gets the tables
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Print what is running and wait, for a profiler
    #[arg(long)]
    hold: bool,
    /// Send this proxy what it is to be optimised for, and nothing else
    #[arg(long)]
    train: bool,
}

#[tokio::main]
async fn main() {
    let options = Options::parse();
    let (rounds, seconds) = (options.rounds.get(), options.seconds.get());
    if options.train {
        return train::run(seconds).await;
    }
    let cases: Vec<&Case> = CASES.iter().filter(|case| options.wants(case)).collect();
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
    let caption = format!("{}, rounds: {rounds} of {seconds} s", circumstances());
    println!("{caption}\n");
    let mut outcomes = Vec::new();
    for case in cases {
        let mut outcome = Outcome { case, runs: BTreeMap::new() };
        for _ in 0..rounds {
            let new = match case.credentials {
                // More than any peer serves on a machine of today.
                Credentials::New => scene.new_tokens(MOST_A_SECOND * seconds as usize),
                _ => Vec::new(),
            };
            for peer in case.peers {
                let Some(running) = running.get(peer) else { continue };
                let measured = load::run(&scene, (*peer, running), case, &new, seconds);
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

fn names() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|case| case.name)
}

fn build(path: &str) -> std::io::Result<PathBuf> {
    Path::new(path).canonicalize()
}
