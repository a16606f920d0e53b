//! Samples in the senders' wire formats.

use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

/// `prometheus.WriteRequest` (remote write 1.0).
#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// `io.prometheus.write.v2.Request` (remote write 2.0).
#[derive(Clone, PartialEq, Message)]
struct WriteRequest2 {
    #[prost(string, repeated, tag = "4")]
    symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    timeseries: Vec<TimeSeries2>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries2 {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

/// `prometheus.ReadRequest` (remote read).
#[derive(Clone, PartialEq, Message)]
struct ReadRequest {
    #[prost(message, repeated, tag = "1")]
    queries: Vec<ReadQuery>,
}

#[derive(Clone, PartialEq, Message)]
struct ReadQuery {
    #[prost(int64, tag = "1")]
    start: i64,
    #[prost(int64, tag = "2")]
    end: i64,
    #[prost(message, repeated, tag = "3")]
    matchers: Vec<Matcher>,
}

#[derive(Clone, PartialEq, Message)]
struct Matcher {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    value: String,
}

/// `prometheus.ReadResponse`.
#[derive(Clone, PartialEq, Message)]
struct ReadResponse {
    #[prost(message, repeated, tag = "1")]
    results: Vec<WriteRequest>,
}

fn labels(metric: &str, more: &[(&str, &str)]) -> Vec<Label> {
    let mut labels: Vec<Label> = [("__name__", metric)]
        .iter()
        .chain(more)
        .map(|(name, value)| Label { name: (*name).to_owned(), value: (*value).to_owned() })
        .collect();
    labels.sort_by(|a, b| a.name.cmp(&b.name));
    labels
}

/// Now, in milliseconds since the epoch.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock");
    i64::try_from(since.as_millis()).expect("clock")
}

/// A remote write 1.0 body with one sample of one series, taken now.
pub fn remote_write(metric: &str, more: &[(&str, &str)], value: f64) -> Vec<u8> {
    let samples = vec![Sample { value, timestamp: now_ms() }];
    let request =
        WriteRequest { timeseries: vec![TimeSeries { labels: labels(metric, more), samples }] };
    compress(&request.encode_to_vec())
}

/// A remote write 1.0 body with one sample of as many series as there are values of a label.
pub fn remote_write_each(metric: &str, label: &str, values: &[String]) -> Vec<u8> {
    let timestamp = now_ms();
    let series = values.iter().map(|value| TimeSeries {
        labels: labels(metric, &[(label, value)]),
        samples: vec![Sample { value: 1.0, timestamp }],
    });
    compress(&WriteRequest { timeseries: series.collect() }.encode_to_vec())
}

/// A series with its samples.
pub struct Series {
    /// Its name.
    pub metric: &'static str,
    /// Its other labels.
    pub labels: Vec<(&'static str, String)>,
    /// Milliseconds since the epoch, and values, in the order of time.
    pub samples: Vec<(i64, f64)>,
}

/// A remote write 1.0 body with these series.
pub fn remote_write_series(series: &[Series]) -> Vec<u8> {
    let one = |series: &Series| {
        let more: Vec<_> =
            series.labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let sample =
            |(timestamp, value): &(i64, f64)| Sample { value: *value, timestamp: *timestamp };
        TimeSeries {
            labels: labels(series.metric, &more),
            samples: series.samples.iter().map(sample).collect(),
        }
    };
    compress(&WriteRequest { timeseries: series.iter().map(one).collect() }.encode_to_vec())
}

/// A remote write 2.0 body with one sample of one series, taken now.
pub fn remote_write_2(metric: &str, value: f64) -> Vec<u8> {
    let symbols = ["", "__name__", metric].map(str::to_owned).to_vec();
    let samples = vec![Sample { value, timestamp: now_ms() }];
    let timeseries = vec![TimeSeries2 { labels_refs: vec![1, 2], samples }];
    compress(&WriteRequest2 { symbols, timeseries }.encode_to_vec())
}

/// A remote read body that asks for one metric of the last five minutes.
pub fn remote_read(metric: &str) -> Vec<u8> {
    let matchers = vec![Matcher { kind: 0, name: "__name__".to_owned(), value: metric.to_owned() }];
    let query = ReadQuery { start: now_ms() - 300_000, end: now_ms() + 1000, matchers };
    compress(&ReadRequest { queries: vec![query] }.encode_to_vec())
}

/// A remote read body with one query that has these patterns as matchers.
pub fn remote_read_of_patterns(patterns: &[&str]) -> Vec<u8> {
    let matcher =
        |value: &&str| Matcher { kind: 2, name: "job".to_owned(), value: (*value).to_owned() };
    let matchers = patterns.iter().map(matcher).collect();
    let query = ReadQuery { start: now_ms() - 300_000, end: now_ms(), matchers };
    compress(&ReadRequest { queries: vec![query] }.encode_to_vec())
}

/// The values in a (sampled) remote read response.
pub fn remote_read_values(body: &[u8]) -> Vec<f64> {
    let plain = snap::raw::Decoder::new().decompress_vec(body).expect("snappy");
    let response = ReadResponse::decode(plain.as_slice()).expect("a read response");
    let series = response.results.into_iter().flat_map(|result| result.timeseries);
    series.flat_map(|one| one.samples).map(|sample| sample.value).collect()
}

fn compress(plain: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(plain).expect("snappy")
}
