//! The configurations in docs/operations/devices.md: each is parsed by its program, and the program
//! is also seen to reject a wrong one, so that its acceptance means something.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use harness::{
    Client, Issuer, Mimir, Process, ProxyOptions, free_port, fresh_organisation, part, samples,
};
use serde_json::json;
use tempfile::TempDir;

use crate::documents::root;

const DOCUMENT: &str = include_str!("../../docs/operations/devices.md");

/// The code block that contains a text.
fn documented(text: &str) -> String {
    let mut pieces = DOCUMENT.split("```").skip(1).step_by(2);
    let piece = pieces.find(|piece| piece.contains(text)).unwrap();
    piece.split_once('\n').unwrap().1.to_owned()
}

/// A configuration with its paths moved to the test's directory.
struct Hub(TempDir);

impl Hub {
    fn new() -> Self {
        let hub = Self(tempfile::tempdir().unwrap());
        std::fs::write(hub.path().join("device-key"), "mtpd_0").unwrap();
        hub
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn place(&self, name: &str, text: &str) -> String {
        let here = self.path().display().to_string();
        let text = ["/etc/prometheus", "/etc/otelcol", "/etc/vmagent", "/var/lib/"].iter().fold(
            text.to_owned(),
            |text, path| {
                let end = if path.ends_with('/') { "/" } else { "" };
                text.replace(path, &format!("{here}{end}"))
            },
        );
        let file = self.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.display().to_string()
    }
}

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(part(program)).args(arguments).env("DEVICE_KEY", "mtpd_0").output().unwrap()
}

/// A checker accepts one text and rejects the other.
fn takes_and_refuses(check: impl Fn(&str) -> Output, good: &str, bad: &str) {
    assert_ne!(good, bad);
    let taken = check(good);
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    assert!(!check(bad).status.success(), "the wrong one is taken too:\n{bad}");
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_reads_its_configuration() {
    let text = documented("# prometheus.yml");
    let hub = Hub::new();
    let check = |text: &str| run("promtool", &["check", "config", &hub.place("p.yml", text)]);
    takes_and_refuses(check, &text, &text.replace("max_shards", "most_shards"));
    // Prometheus 3 validates more than its own file.
    let (config, port) = (hub.place("p3.yml", &text), free_port());
    let mut prometheus =
        Process::start("prometheus", &part("prometheus3"), hub.path(), |command| {
            command
                .arg(format!("--config.file={config}"))
                .arg(format!("--storage.tsdb.path={}/data", hub.path().display()))
                .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        });
    let url = format!("http://127.0.0.1:{port}/-/ready");
    prometheus.wait_ready(&url, "eady", Duration::from_secs(30)).await;
    // And the agent's flag exists.
    let agent = ["--agent", "--storage.agent.retention.max-time=24h", "--help"];
    assert!(run("prometheus3", &agent).status.success());
}

#[test]
fn the_collector_reads_its_configuration() {
    let text = documented("# otelcol.yaml");
    let hub = Hub::new();
    let check = |text: &str| run("otelcol", &["validate", "--config", &hub.place("o.yaml", text)]);
    takes_and_refuses(check, &text, &text.replace("max_elapsed_time", "longest_time"));
}

#[test]
fn vmagent_reads_its_flags_and_its_configuration() {
    let (flags, scrape) = (documented("# vmagent.sh"), documented("# scrape.yml"));
    let hub = Hub::new();
    hub.place("scrape.yml", &scrape);
    let check = |text: &str| {
        let flags = std::fs::read_to_string(hub.place("flags", text)).unwrap();
        // Without the comment, the program's name and the ends of the lines.
        let words = flags.lines().skip(2).flat_map(str::split_whitespace);
        let flags: Vec<&str> = words.filter(|word| *word != "\\").collect();
        run("vmagent", &[&["-dryRun", "-promscrape.config.strictParse=true"], &flags[..]].concat())
    };
    takes_and_refuses(check, &flags, &flags.replace("forcePromProto", "forcePrometheus"));
    hub.place("scrape.yml", &scrape.replace("static_configs", "fixed_configs"));
    assert!(!check(&flags).status.success(), "a wrong scrape.yml is taken");
}

#[test]
fn telegraf_reads_its_configuration() {
    let text = documented("# telegraf.conf");
    let hub = Hub::new();
    let check =
        |text: &str| run("telegraf", &["config", "check", "--config", &hub.place("t.conf", text)]);
    takes_and_refuses(check, &text, &text.replace("non_retryable_statuscodes", "hopeless_codes"));
}

// The console shows the same texts, so that these tests are about them, too.
#[test]
fn the_console_shows_what_the_page_says() {
    let folder = root().join("src/console/senders");
    let mut compared = 0;
    for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let text = std::fs::read_to_string(&file).unwrap();
        let is_documented = DOCUMENT.contains(&format!("\n{text}```\n"));
        assert!(is_documented, "{} is not a code block of the page", file.display());
        compared += 1;
    }
    assert_eq!(compared, 7);
}

// As it stands on the page, with the address of a proxy and a key: what it sends can be read.
#[tokio::test(flavor = "multi_thread")]
async fn curl_sends_a_sample_that_is_stored() {
    let mimir = Mimir::shared().await;
    let identity = crate::support::identity::identity_fixture(&mimir.url(), &[]).await;
    let organisation = identity.organisation().await;
    let key = identity.device_key(&organisation, json!({"name": "hub-17"})).await;
    let script =
        documented("# curl.sh").replace("https://metrics.example.com", &identity.proxy.url());
    let run = |key: &str| {
        Command::new("sh").args(["-c", &script]).env("DEVICE_KEY", key).output().unwrap()
    };
    assert!(!run("mtpd_0").status.success());
    let sent = run(key["key"].as_str().unwrap());
    assert!(sent.status.success(), "{sent:?}");
    let reader = identity.client(&identity.member(&organisation, "viewer").await);
    let query = "/prometheus/api/v1/query?query=hub_hello";
    harness::wait_until("the sample can be read", Duration::from_secs(20), async || {
        let answer = reader.get(query).await.json();
        answer["data"]["result"].as_array().is_some_and(|result| result.len() == 1)
    })
    .await;
}

/// The program of the page, with a main that writes one body.
fn encoder(directory: &Path) -> std::path::PathBuf {
    let main = "
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) {
  static uint8_t message[4096], block[8192];
  size_t length = 0;
  for (int i = 2; i + 2 < argc; i += 3)
    length += series(message + length, argv[1], argv[i], atof(argv[i + 1]), atoll(argv[i + 2]));
  fwrite(block, 1, snappy(block, message, length), stdout);
  return 0;
}
";
    let source = directory.join("esp32.c");
    std::fs::write(&source, documented("size_t snappy") + main).unwrap();
    let program = directory.join("esp32");
    let arguments = ["-std=c99", "-Wall", "-Wextra", "-Wno-unused-function", "-Werror", "-o"];
    let compiled = Command::new("cc").args(arguments).arg(&program).arg(&source).output().unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    program
}

/// The program's input: sensors with values and times in milliseconds.
fn body(program: &Path, metric: &str, sensors: &[(&str, f64, i64)]) -> Vec<u8> {
    let mut command = Command::new(program);
    command.arg(metric);
    for (sensor, value, time) in sensors {
        command.args([*sensor, &value.to_string(), &time.to_string()]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success());
    output.stdout
}

fn device(client: Client) -> Client {
    client
        .header("content-encoding", "snappy")
        .header("content-type", "application/x-protobuf")
        .header("x-prometheus-remote-write-version", "0.1.0")
}

// The page's C code, compiled, writes what Mimir accepts: negative values, several series, more
// than one block of Snappy.
#[tokio::test(flavor = "multi_thread")]
async fn samples_of_an_esp32_are_read_back() {
    let (mimir, issuer) = (Mimir::shared().await, Issuer::start().await);
    let proxy = ProxyOptions::new(&issuer.url(), &mimir.url()).start().await;
    let client = proxy.client().bearer(&issuer.user_of(&fresh_organisation()));
    let directory = tempfile::tempdir().unwrap();
    let program = encoder(directory.path());
    let now = samples::now_ms();
    let sensors = [("kitchen", 21.5, now), ("cellar", -3.25, now), ("attic", 1e9, now)];
    let written = body(&program, "temperature_celsius", &sensors);
    let answer = device(client.clone()).post("/api/v1/push", written).await;
    assert!(answer.status.is_success(), "{answer:?}");
    for (sensor, value, _) in sensors {
        let query =
            format!("/prometheus/api/v1/query?query=temperature_celsius{{sensor=\"{sensor}\"}}");
        let answer =
            client.get(&query.replace('"', "%22").replace('{', "%7B").replace('}', "%7D")).await;
        let result = &answer.json()["data"]["result"][0]["value"][1];
        assert_eq!(result.as_str().unwrap().parse::<f64>().unwrap(), value, "{answer:?}");
    }
}

/// Writes samples that are some minutes old, each from a device of its own, and returns the
/// statuses.
async fn write_late(mimir: &Mimir, minutes: &[i64]) -> (Client, Vec<u16>) {
    let issuer = Issuer::start().await;
    let proxy = ProxyOptions::new(&issuer.url(), &mimir.url()).start().await;
    let reader = Client::new(&mimir.url());
    let organisation = fresh_organisation();
    let client = device(proxy.client().bearer(&issuer.user_of(&organisation)));
    let directory = tempfile::tempdir().unwrap();
    let program = encoder(directory.path());
    let mut statuses = Vec::new();
    for ago in minutes {
        let time = samples::now_ms() - ago * 60_000;
        let written = body(&program, "late", &[(&format!("hub-{ago}"), 1.0, time)]);
        statuses.push(client.post("/api/v1/push", written).await.status.as_u16());
    }
    (reader.header("x-scope-orgid", &organisation), statuses)
}

// Late samples, as the page says: an hour before the tenant's newest sample, not that of their own
// series. A device that was offline for longer needs limits.out_of_order_time_window.
#[tokio::test(flavor = "multi_thread")]
async fn samples_older_than_an_hour_before_the_tenants_newest_are_refused() {
    let (_, statuses) = write_late(Mimir::shared().await, &[0, 55, 65]).await;
    assert_eq!(statuses, [200, 200, 400]);
}

// With the window of our profiles, a device that was offline for days loses nothing, and its
// samples can be queried immediately.
#[tokio::test(flavor = "multi_thread")]
async fn with_the_profiles_window_samples_of_days_are_accepted() {
    let of = |profile: &str| {
        let text = std::fs::read_to_string(root().join("config/mimir").join(profile)).unwrap();
        ["out_of_order_time_window:", "query_ingesters_within:"].map(|key| {
            let line = text.lines().find(|line| line.trim_start().starts_with(key)).unwrap();
            line.rsplit(' ').next().unwrap().to_owned()
        })
    };
    let [window, ingesters] = of("mimir-3.yaml");
    assert_eq!(of("mimir-2.17.yaml"), [window.clone(), ingesters.clone()]);
    let mimir = Mimir::start_with(&[
        &format!("-ingester.out-of-order-time-window={window}"),
        &format!("-querier.query-ingesters-within={ingesters}"),
    ])
    .await;
    const DAY: i64 = 24 * 60;
    let (reader, statuses) = write_late(&mimir, &[0, 65, DAY, 6 * DAY, 8 * DAY]).await;
    assert_eq!(statuses, [200, 200, 200, 200, 400]);
    let now = samples::now_ms() / 1000 + 1;
    let query = format!(
        "/prometheus/api/v1/query_range?query=count_over_time(late[1h])&start={}&end={now}&step=3600",
        now - 7 * 86_400
    );
    let found = reader.get(&query).await.json();
    let hubs = found["data"]["result"].as_array().unwrap();
    assert_eq!(hubs.len(), 4, "{found}");
}
