//! Four connections that are always busy, and four that were a moment ago.
//!
//! Connections go in turn to the two workers. So the first, third, fifth and seventh are with the same
//! one, unless connections move.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::report::median;
use harness::{Issuer, Upstream};
use tokio::net::TcpStream;

use crate::client::{Request, connect};

const EVEN: [usize; 4] = [0, 1, 2, 3];
const UNEVEN: [usize; 4] = [0, 2, 4, 6];

pub async fn measure(
    issuer: &Issuer,
    upstream: &Upstream,
    request: &Request,
    rounds: usize,
    seconds: u64,
) {
    println!(
        "\n4 busy connections of 8, 2 workers: requests/s, and the busier worker's share of the work"
    );
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let mut rates = Vec::new();
        for (name, busy) in [("even", EVEN), ("uneven", UNEVEN)] {
            let proxy = crate::proxy(issuer, upstream).await;
            let to = harness::load::address(&proxy.url());
            let sockets = open(to, request).await;
            let before = worker_times(proxy.process.id());
            let rate = run(sockets, busy, request, Duration::from_secs(seconds)).await;
            let after = worker_times(proxy.process.id());
            let times: Vec<u64> = after.iter().zip(before).map(|(after, b)| after - b).collect();
            let busiest = times.iter().max().copied().unwrap_or(0) as f64;
            let share = busiest / times.iter().sum::<u64>().max(1) as f64;
            println!("{name:8} {rate:8.0} {share:6.2}");
            rates.push(rate);
        }
        ratios.push(rates[1] / rates[0]);
    }
    println!("median ratio of requests/s, uneven to even: {:.2}", median(ratios));
}

/// Eight connections, one after the other, each of which has made one request.
async fn open(to: SocketAddr, request: &Request) -> Vec<TcpStream> {
    let mut sockets = Vec::new();
    for _ in 0..8 {
        let mut socket = connect(to).await;
        request.send(&mut socket).await;
        sockets.push(socket);
    }
    sockets
}

/// Requests per second.
async fn run(sockets: Vec<TcpStream>, busy: [usize; 4], request: &Request, time: Duration) -> f64 {
    let (busy, rest): (Vec<_>, Vec<_>) =
        sockets.into_iter().enumerate().partition(|(number, _)| busy.contains(number));
    let began = Instant::now();
    let request = Arc::new(request.clone());
    let busy = busy.into_iter().map(|(_, mut socket)| {
        let request = Arc::clone(&request);
        tokio::spawn(async move {
            let mut count = 0;
            while began.elapsed() < time {
                request.send(&mut socket).await;
                count += 1;
            }
            count
        })
    });
    let mut all = 0;
    for connection in busy.collect::<Vec<_>>() {
        all += connection.await.expect("a connection");
    }
    drop(rest);
    f64::from(all) / began.elapsed().as_secs_f64()
}

/// The processor time of each worker in nanoseconds.
fn worker_times(process: u32) -> Vec<u64> {
    let mut times = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{process}/task")).expect("tasks") {
        let task = task.expect("task").path();
        let name = std::fs::read_to_string(task.join("comm")).unwrap_or_default();
        if name.starts_with("worker-") {
            let spent = std::fs::read_to_string(task.join("schedstat")).unwrap_or_default();
            let spent = spent.split_whitespace().next().and_then(|time| time.parse().ok());
            times.push((name, spent.unwrap_or(0)));
        }
    }
    times.sort();
    times.into_iter().map(|(_, spent)| spent).collect()
}
