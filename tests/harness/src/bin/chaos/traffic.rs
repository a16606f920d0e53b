//! What goes on while things break: pushes and reads at a fixed rate, whatever becomes of them, and an account of
//! every sample that was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::readings::{HUB_SAMPLES, encode, query, value};
use harness::samples::{Series, now_ms, remote_write_series};
use harness::{Answer, Client};
use http::Method;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::system::System;

const METRIC: &str = "chaos_value";
/// Series of one push.
const SERIES: [&str; 3] = ["temperature", "voltage", "rssi"];

/// Requests a second.
#[derive(Clone, Copy)]
pub struct Rates {
    pub pushes: f64,
    pub reads: f64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Push,
    Read,
}

/// One request and what became of it.
#[derive(Clone)]
pub struct Outcome {
    pub kind: Kind,
    /// When it was due.
    pub at: Instant,
    pub took: Duration,
    /// By which the proxy logs it.
    pub id: String,
    /// None: the connection broke.
    pub status: Option<u16>,
    /// Of a failure: the request, and what was said.
    pub failure: Option<Failure>,
}

#[derive(Clone)]
pub struct Failure {
    pub target: String,
    pub text: String,
}

impl Outcome {
    pub fn is_good(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }

    /// A status that every stock sender and page can live with.
    pub fn is_allowed(&self) -> bool {
        self.is_good() || matches!(self.status, Some(429 | 503 | 504))
    }
}

#[derive(Default)]
struct Account {
    outcomes: Vec<Outcome>,
    /// Timestamps in milliseconds, by device.
    acknowledged: BTreeMap<usize, BTreeSet<i64>>,
}

/// Traffic that runs.
pub struct Traffic {
    run: usize,
    account: Arc<Mutex<Account>>,
    stop: tokio::sync::watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Traffic {
    /// `run` tells the samples from those of other traffic.
    pub fn start(run: usize, devices: Vec<Client>, readers: Vec<Client>, rates: Rates) -> Self {
        let account = Arc::<Mutex<Account>>::default();
        let stop = tokio::sync::watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        let count = devices.len();
        let ask = |client: &Client| {
            client
                .clone()
                .header("content-type", "application/x-protobuf")
                .header("content-encoding", "snappy")
        };
        let devices: Vec<Client> = devices.iter().map(ask).collect();
        let kept = Arc::clone(&account);
        tasks.spawn(at_rate(rates.pushes, stop.subscribe(), move |number, due| {
            let (device, account) = (number % count, Arc::clone(&kept));
            push(devices[device].clone(), (run, device), due, account)
        }));
        let kept = Arc::clone(&account);
        tasks.spawn(at_rate(rates.reads, stop.subscribe(), move |number, due| {
            let client = readers[number % readers.len()].clone();
            read(client, target(number, count), due, Arc::clone(&kept))
        }));
        Self { run, account, stop, tasks }
    }

    /// Ends it; waits for requests that have begun.
    pub async fn stop(self) -> Sent {
        self.stop.send_replace(true);
        self.tasks.join_all().await;
        let mut account = self.account.lock().expect("account");
        Sent {
            run: self.run,
            outcomes: std::mem::take(&mut account.outcomes),
            acknowledged: std::mem::take(&mut account.acknowledged),
        }
    }
}

/// Begins a request at each of its times, and waits for all of them in the end.
async fn at_rate<F>(
    rate: f64,
    stop: tokio::sync::watch::Receiver<bool>,
    mut begin: impl FnMut(usize, Instant) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let (began, mut requests) = (Instant::now(), JoinSet::new());
    for number in 0.. {
        let due = began + Duration::from_secs_f64(number as f64 / rate);
        sleep_until(due).await;
        if *stop.borrow() {
            break;
        }
        requests.spawn(begin(number, due));
        while requests.try_join_next().is_some() {}
    }
    requests.join_all().await;
}

async fn push(
    client: Client,
    (run, device): (usize, usize),
    due: Instant,
    account: Arc<Mutex<Account>>,
) {
    let timestamp = now_ms();
    let series = SERIES.map(|name| Series {
        metric: METRIC,
        labels: vec![
            ("device", device.to_string()),
            ("of", name.to_owned()),
            ("run", run.to_string()),
        ],
        samples: vec![(timestamp, 1.0)],
    });
    let answer = client.try_send(Method::POST, "/api/v1/push", remote_write_series(&series)).await;
    let outcome = outcome(Kind::Push, "push", due, answer);
    let mut account = account.lock().expect("account");
    if outcome.is_good() {
        account.acknowledged.entry(device).or_default().insert(timestamp);
    }
    account.outcomes.push(outcome);
}

async fn read(client: Client, target: String, due: Instant, account: Arc<Mutex<Account>>) {
    let answer = client.try_send(Method::GET, &target, Vec::new()).await;
    let outcome = outcome(Kind::Read, &target, due, answer);
    account.lock().expect("account").outcomes.push(outcome);
}

/// What dashboards ask for, in turn.
fn target(number: usize, devices: usize) -> String {
    let device = number / 4 % devices;
    match number % 4 {
        0 => query(&format!("count({METRIC})"), None),
        1 => {
            let end = now_ms() / 1000;
            let expression = encode(&format!("avg_over_time({METRIC}{{device=\"{device}\"}}[1m])"));
            let start = end - 300;
            format!(
                "/prometheus/api/v1/query_range?query={expression}&start={start}&end={end}&step=7"
            )
        }
        2 => "/prometheus/api/v1/label/device/values".to_owned(),
        _ => {
            let selector = encode(&format!("{METRIC}{{device=\"{device}\"}}"));
            format!("/prometheus/api/v1/series?match[]={selector}")
        }
    }
}

fn outcome(
    kind: Kind,
    target: &str,
    at: Instant,
    answer: Result<Answer, reqwest::Error>,
) -> Outcome {
    let took = at.elapsed();
    match answer {
        Ok(answer) => {
            let status = answer.status.as_u16();
            let failure = (!answer.status.is_success()).then(|| Failure {
                target: target.to_owned(),
                text: answer.text.trim().chars().take(300).collect(),
            });
            let id = answer.header("x-request-id").to_owned();
            Outcome { kind, at, took, id, status: Some(status), failure }
        }
        Err(error) => {
            let text = format!("{error:?}");
            let failure = Failure { target: target.to_owned(), text };
            Outcome { kind, at, took, id: String::new(), status: None, failure: Some(failure) }
        }
    }
}

/// All that was sent.
pub struct Sent {
    run: usize,
    pub outcomes: Vec<Outcome>,
    acknowledged: BTreeMap<usize, BTreeSet<i64>>,
}

/// What a query found of what was acknowledged.
pub struct Found {
    pub acknowledged: usize,
    pub missing: usize,
    /// Stored although the sender was told otherwise, which it repeats.
    pub unacknowledged: usize,
}

impl Sent {
    /// Asks for every sample, until none is missing or the time is over.
    pub async fn found(&self, member: &Client, patience: Duration) -> Found {
        let deadline = Instant::now() + patience;
        loop {
            let found = self.look(member).await;
            if found.missing == 0 || Instant::now() > deadline {
                return found;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn look(&self, member: &Client) -> Found {
        let mut found = Found { acknowledged: 0, missing: 0, unacknowledged: 0 };
        for (device, timestamps) in &self.acknowledged {
            let expression = format!("{METRIC}{{device=\"{device}\",run=\"{}\"}}[3h]", self.run);
            let answer = member.get(&query(&expression, None)).await;
            let json: serde_json::Value = serde_json::from_str(&answer.text).unwrap_or_default();
            let stored: BTreeMap<String, BTreeSet<i64>> = json["data"]["result"]
                .as_array()
                .map(|all| all.iter().map(samples_of).collect())
                .unwrap_or_default();
            for name in SERIES {
                let none = BTreeSet::new();
                let stored = stored.get(name).unwrap_or(&none);
                found.acknowledged += timestamps.len();
                found.missing += timestamps.difference(stored).count();
                found.unacknowledged += stored.difference(timestamps).count();
            }
        }
        found
    }
}

fn samples_of(series: &serde_json::Value) -> (String, BTreeSet<i64>) {
    let name = series["metric"]["of"].as_str().unwrap_or_default().to_owned();
    let samples = series["values"].as_array().cloned().unwrap_or_default();
    // Seconds with three digits.
    let timestamp = |sample: &serde_json::Value| {
        sample[0].as_f64().map(|seconds| (seconds * 1000.0).round() as i64)
    };
    (name, samples.iter().filter_map(timestamp).collect())
}

/// Waits until as many of the hub's samples are read as it has scraped up to now; how many.
pub async fn hub_settles(system: &System, member: &Client, patience: Duration) -> f64 {
    let at = Some(now_ms() as f64 / 1000.0 - 1.0);
    let hub = Client::new(&system.hub.url());
    let of_hub = query(HUB_SAMPLES, at);
    let mut agreed = 0.0;
    harness::wait_until("as many samples are read as the hub scraped", patience, async || {
        let stored = value(&member.get(&of_hub).await);
        let scraped = value(&hub.get(of_hub.trim_start_matches("/prometheus")).await);
        agreed = scraped.unwrap_or_default();
        stored.is_some() && stored == scraped
    })
    .await;
    agreed
}
