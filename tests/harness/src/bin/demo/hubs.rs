//! Hubs whose telemetry moves: simulated readings that are remote-written through the proxy, each hub with a
//! device key of its own.

use std::f64::consts::TAU;
use std::time::Duration;

use harness::samples::{Series, now_ms, remote_write_series};
use harness::{Client, ORG_A, ORG_B};

/// How often a hub writes.
pub(crate) const INTERVAL_MS: i64 = 5_000;
/// How far back the history goes.
const HISTORY_MS: i64 = 24 * 3_600_000;
/// Its last part has every reading, what is before has one a minute.
const FINE_MS: i64 = 3_600_000;
/// How long ago the silent hub stopped.
const SILENT_MS: i64 = 20 * 60_000;
/// How long ago the cold store began to warm up.
const WARM_MS: i64 = 45 * 60_000;

/// A device at a site.
pub(crate) struct Hub {
    pub(crate) organisation: &'static str,
    pub(crate) name: &'static str,
    temperature: f64,
    humidity: f64,
    is_silent: bool,
}

const fn hub(
    organisation: &'static str,
    name: &'static str,
    temperature: f64,
    humidity: f64,
) -> Hub {
    Hub { organisation, name, temperature, humidity, is_silent: false }
}

/// Six in A, of which one is silent, and three in B.
pub(crate) const HUBS: [Hub; 9] = [
    hub(ORG_A, "barn-north", 14.0, 66.0),
    hub(ORG_A, "barn-south", 15.5, 62.0),
    hub(ORG_A, COLD_STORE, 4.0, 78.0),
    hub(ORG_A, "greenhouse", 24.0, 71.0),
    Hub { is_silent: true, ..hub(ORG_A, SILENT, 11.0, 70.0) },
    hub(ORG_A, "pump-house", 17.5, 58.0),
    hub(ORG_B, "boiler-room", 31.0, 34.0),
    hub(ORG_B, "glasshouse-1", 22.0, 74.0),
    hub(ORG_B, "glasshouse-2", 23.0, 76.0),
];

/// The one that is too warm.
pub(crate) const COLD_STORE: &str = "cold-store";
/// The one that stopped.
pub(crate) const SILENT: &str = "orchard-gate";

impl Hub {
    /// A number that differs from hub to hub, so that they do not move alike.
    fn phase(&self) -> f64 {
        self.name.bytes().map(f64::from).sum::<f64>() / 7.0
    }

    /// A number from 0 to 1 that belongs to the hub, for each purpose another.
    fn share(&self, purpose: u64) -> f64 {
        fastrand::Rng::with_seed(self.seed(purpose)).f64()
    }

    fn seed(&self, start: u64) -> u64 {
        self.name.bytes().fold(start, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()))
    }

    fn last(&self, began: i64, now: i64) -> i64 {
        if self.is_silent { began - SILENT_MS } else { now }
    }

    /// What it measures at some times, as the time series that it writes. `began` is when the demo began.
    fn series(&self, times: &[i64], began: i64) -> Vec<Series> {
        type Measure = fn(&Hub, i64, i64) -> f64;
        let measures: [(&'static str, Measure); 5] = [
            ("hub_temperature_celsius", Self::temperature),
            ("hub_humidity_percent", Self::humidity),
            ("hub_battery_volts", Self::battery),
            ("hub_uplink_rssi_dbm", Self::uplink),
            ("hub_samples_total", Self::samples),
        ];
        let one = |(metric, measure): (&'static str, Measure)| Series {
            metric,
            labels: vec![("hub", self.name.to_owned()), ("job", "hub".to_owned())],
            samples: times.iter().map(|time| (*time, measure(self, *time, began))).collect(),
        };
        measures.into_iter().map(one).collect()
    }

    fn temperature(&self, time: i64, began: i64) -> f64 {
        let (day, phase) = (wave(time, 86_400.0, 0.0), self.phase());
        let wobble = 0.5 * wave(time, 1_380.0, phase) + 0.25 * wave(time, 311.0, phase);
        if self.name != COLD_STORE {
            return rounded(self.temperature + 3.0 * day + wobble, 2);
        }
        // Its compressor has failed, and it goes the way of all that is cold.
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of some hours")]
        let minutes = (time - (began - WARM_MS)).max(0) as f64 / 60_000.0;
        rounded(self.temperature + 9.0 * (1.0 - (-minutes / 40.0).exp()) + wobble / 2.0, 2)
    }

    fn humidity(&self, time: i64, _: i64) -> f64 {
        let wobble = 2.0 * wave(time, 2_100.0, self.phase()) + noise(self, time);
        rounded((self.humidity - 6.0 * wave(time, 86_400.0, 0.0) + wobble).clamp(0.0, 100.0), 1)
    }

    fn battery(&self, time: i64, _: i64) -> f64 {
        // Charged by day; some are older than others.
        let age = self.share(1);
        rounded(3.76 - 0.24 * age + 0.09 * wave(time, 86_400.0, age) + 0.006 * noise(self, time), 3)
    }

    fn uplink(&self, time: i64, _: i64) -> f64 {
        let level = -58.0 - 22.0 * self.share(2);
        rounded(level + 2.5 * wave(time, 1_940.0, self.phase()) + noise(self, time), 0)
    }

    fn samples(&self, time: i64, began: i64) -> f64 {
        let writes = (time - (began - HISTORY_MS)) / INTERVAL_MS;
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        let samples = (writes * 5) as f64;
        samples
    }
}

/// A sine of a period in seconds.
fn wave(time: i64, period: f64, phase: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "to the millisecond is enough")]
    let seconds = time as f64 / 1000.0;
    (seconds / period * TAU + phase).sin()
}

/// A value from -1 to 1 that is the same for the same hub and time.
fn noise(hub: &Hub, time: i64) -> f64 {
    fastrand::Rng::with_seed(hub.seed(time.unsigned_abs())).f64() * 2.0 - 1.0
}

fn rounded(value: f64, digits: i32) -> f64 {
    let factor = 10_f64.powi(digits);
    (value * factor).round() / factor
}

/// A hub with its key.
pub(crate) struct Sender {
    pub(crate) hub: &'static Hub,
    pub(crate) key: String,
}

/// All of them.
pub(crate) struct Fleet {
    proxy: Client,
    senders: Vec<Sender>,
    began: i64,
}

impl Fleet {
    pub(crate) fn new(proxy: Client, senders: Vec<Sender>) -> Self {
        Self { proxy, senders, began: now_ms() / INTERVAL_MS * INTERVAL_MS }
    }

    /// Writes the history, oldest first, and returns how many samples it was. Mimir takes the first samples of
    /// a tenant whatever their age, and then what is at most an hour older than the newest: so each push is of
    /// less than that, and all hubs have written it before the next.
    pub(crate) async fn write_history(&self) -> usize {
        let fine = self.began - FINE_MS;
        let step = usize::try_from(INTERVAL_MS).expect("a step");
        let coarse: Vec<i64> = (self.began - HISTORY_MS..fine).step_by(60_000).collect();
        let fine: Vec<i64> = (fine..=self.began).step_by(step).collect();
        let mut written = 0;
        for times in coarse.chunks(45).chain(fine.chunks(360)) {
            for sender in &self.senders {
                let last = sender.hub.last(self.began, self.began);
                let theirs: Vec<i64> = times.iter().copied().filter(|time| *time <= last).collect();
                if !theirs.is_empty() {
                    let pushed = self.push(sender, &theirs).await;
                    assert!(pushed.is_ok(), "history of {}: {pushed:?}", sender.hub.name);
                    written += theirs.len() * 5;
                }
            }
        }
        written
    }

    /// Writes on, for as long as it is polled.
    pub(crate) async fn run(self) {
        let mut next = self.began + INTERVAL_MS;
        loop {
            let wait = next - now_ms();
            tokio::time::sleep(Duration::from_millis(wait.max(0).unsigned_abs())).await;
            for sender in &self.senders {
                if sender.hub.last(self.began, next) >= next
                    && let Err(error) = self.push(sender, &[next]).await
                {
                    eprintln!("demo: {} could not write: {error}", sender.hub.name);
                }
            }
            next += INTERVAL_MS;
        }
    }

    async fn push(&self, sender: &Sender, times: &[i64]) -> Result<(), String> {
        let body = remote_write_series(&sender.hub.series(times, self.began));
        let client = self.proxy.clone().bearer(&sender.key);
        let client = client
            .header("content-type", "application/x-protobuf")
            .header("content-encoding", "snappy")
            .header("x-prometheus-remote-write-version", "0.1.0");
        let answer = client.try_send(http::Method::POST, "/api/v1/push", body).await;
        match answer {
            Ok(answer) if answer.status.is_success() => Ok(()),
            Ok(answer) => Err(format!("{} {}", answer.status, answer.text)),
            Err(error) => Err(error.to_string()),
        }
    }
}
