//! The load: wrk, and the processor time that the candidate takes under it.

use std::process::Command;

use bytes::Bytes;
use harness::part;
use http::Response;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty};

use crate::candidates::{Candidate, Scene};

pub const QUERY: &str = "/prometheus/api/v1/query";

/// What is asked for, over and over.
#[derive(Clone, Copy)]
pub enum Workload {
    Read,
    Push,
    Stream,
}

impl Workload {
    pub const ALL: [Self; 3] = [Self::Read, Self::Push, Self::Stream];

    pub fn title(self) -> &'static str {
        match self {
            Self::Read => "1 KiB reads, 32 connections",
            Self::Push => "50 KiB pushes, 32 connections",
            Self::Stream => "64 MiB answers, 4 connections",
        }
    }

    fn script(self) -> String {
        match self {
            Self::Read => format!("wrk.path = \"{QUERY}\"\n"),
            Self::Push => {
                "wrk.method = \"POST\"\nwrk.path = \"/api/v1/push\"\nwrk.body = string.rep(\"x\", 50 * 1024)\n".to_owned()
            }
            Self::Stream => "wrk.path = \"/api/v1/user_stats\"\n".to_owned(),
        }
    }

    fn connections(self) -> u32 {
        if matches!(self, Self::Stream) { 4 } else { 32 }
    }
}

/// One run of one candidate.
pub struct Measured {
    pub requests_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub cpu_us_per_request: f64,
    pub peak_mib: f64,
}

pub fn run(scene: &Scene, candidate: &Candidate, workload: Workload, seconds: u64) -> Measured {
    let script = scene.directory.path().join("load.lua");
    let token = &candidate.token;
    let text =
        format!("{}wrk.headers[\"Authorization\"] = \"Bearer {token}\"\n", workload.script());
    std::fs::write(&script, text).expect("script");
    let processes = family(candidate.process.id());
    let before = cpu_us(&processes);
    let output = Command::new(part("wrk"))
        .args(["-t1", "--latency", "--timeout", "30s"])
        .arg(format!("-c{}", workload.connections()))
        .arg(format!("-d{seconds}s"))
        .arg("-s")
        .arg(&script)
        .arg(format!("http://127.0.0.1:{}", candidate.port))
        .output()
        .expect("wrk");
    let cpu = cpu_us(&processes) - before;
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!report.contains("Non-2xx"), "{}: {report}", candidate.name);
    let number = |marker: &str| -> f64 {
        let line = report
            .lines()
            .find(|line| line.contains(marker))
            .unwrap_or_else(|| panic!("{marker}: {report}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        let text = if marker == "requests in" { words[0] } else { words[1] };
        milliseconds(text)
    };
    let requests = number("requests in");
    assert!(requests > 0.0, "{}: {report}", candidate.name);
    Measured {
        requests_per_second: number("Requests/sec:"),
        p50_ms: number(" 50%"),
        p99_ms: number(" 99%"),
        cpu_us_per_request: cpu / requests,
        peak_mib: peak_mib(&processes),
    }
}

/// A number of wrk's, times in milliseconds.
fn milliseconds(text: &str) -> f64 {
    for (unit, factor) in [("us", 0.001), ("ms", 1.0), ("s", 1000.0), ("m", 60_000.0)] {
        if let Some(number) = text.strip_suffix(unit) {
            return number.parse::<f64>().expect("a time") * factor;
        }
    }
    text.parse().expect("a number")
}

/// A process and its children.
fn family(id: u32) -> Vec<u32> {
    let mut family = vec![id];
    let children =
        std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    family.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    family
}

/// Processor time so far, user and system. The scheduler's own account in nanoseconds: `stat` has
/// ticks of 10 ms.
fn cpu_us(processes: &[u32]) -> f64 {
    let mut nanoseconds = 0.0;
    for id in processes {
        for thread in std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten()
        {
            let account =
                std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            nanoseconds += account
                .split_whitespace()
                .next()
                .and_then(|ns| ns.parse::<f64>().ok())
                .unwrap_or(0.0);
        }
    }
    nanoseconds / 1000.0
}

fn peak_mib(processes: &[u32]) -> f64 {
    let peak = |id: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0)
            / 1024.0
    };
    processes.iter().map(peak).sum()
}

pub fn empty_answer() -> Response<BoxBody<Bytes, std::io::Error>> {
    Response::new(Empty::new().map_err(|never| match never {}).boxed())
}
