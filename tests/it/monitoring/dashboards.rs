//! The Grafana dashboards: they are what their source says, Grafana's published schema takes them, and
//! each panel has data where there is some. A real Grafana is not run: it cannot be had here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use harness::{
    Client, Collector, Database, Mimir, Postgres, Process, free_port, samples, wait_until,
};
use http::Method;
use serde_json::{Value, json};

use super::{monitoring, names_in, read};
use crate::alert_events::{SECRET, ruler_of};
use crate::channels::Hook;
use crate::support::identity::{IdentityFixture, identity_fixture_on};

const DASHBOARDS: [&str; 2] = ["grafana/operator.json", "grafana/organisation.json"];

fn tool(arguments: &[&str]) -> Output {
    Command::new(harness::part("grafana-dashboards")).args(arguments).output().unwrap()
}

fn dashboard(file: &str) -> Value {
    serde_json::from_str(&read(file)).unwrap()
}

/// An expression with the title of its panel.
struct Query {
    panel: String,
    expression: String,
}

fn queries(file: &str) -> Vec<Query> {
    let dashboard = dashboard(file);
    let panels = dashboard["panels"].as_array().unwrap();
    let queries = panels.iter().flat_map(|panel| {
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        let title = panel["title"].as_str().unwrap().to_owned();
        targets.into_iter().map(move |target| Query {
            panel: title.clone(),
            expression: target["expr"].as_str().unwrap().to_owned(),
        })
    });
    queries.collect()
}

/// With values for the variables, longest names first: `$job` is not `$j`.
fn filled(expression: &str, variables: &[(&str, &str)]) -> String {
    let filled = variables
        .iter()
        .fold(expression.to_owned(), |text, (name, value)| text.replace(name, value));
    assert!(!filled.contains('$'), "{filled}");
    filled
}

const OPERATOR: [(&str, &str); 3] =
    [("$__rate_interval", "20s"), ("$job", "mimir-tenant-proxy"), ("$copy", ".*")];
const ORGANISATION: [(&str, &str); 3] =
    [("$metric", "hub_temperature_celsius"), ("$sender", ".+"), ("$by", "hub")];

// Readable differences need one way to write them.
#[test]
fn dashboards_are_what_their_source_says() {
    let directory = tempfile::tempdir().unwrap();
    let written = tool(&["write", directory.path().to_str().unwrap()]);
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    for file in DASHBOARDS {
        let name = file.strip_prefix("grafana/").unwrap();
        let fresh = std::fs::read_to_string(directory.path().join(name)).unwrap();
        let command = "scripts/parts grafana-dashboards && \
                       $(scripts/parts --dir)/grafana-dashboards write config/monitoring/grafana";
        assert!(
            fresh == read(file),
            "{file} differs from its source; write it with\n    {command}"
        );
    }
}

#[test]
fn grafanas_published_schema_takes_the_dashboards() {
    for file in DASHBOARDS {
        let path = monitoring(file);
        let checked = tool(&["check", path.to_str().unwrap()]);
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
}

// The check itself finds what is wrong.
#[test]
fn grafanas_schema_refuses_what_it_does_not_know() {
    let directory = tempfile::tempdir().unwrap();
    let text = read(DASHBOARDS[0]);
    for (right, wrong) in [
        ("\"type\": \"stat\"", "\"type\": \"statt\""),
        ("\"lineWidth\": 1", "\"linewidth\": 1"),
        ("\"targets\":", "\"tragets\":"),
        ("\"expr\":", "\"exprr\":"),
        ("\"schemaVersion\": 42", "\"schemaVersion\": \"42\""),
    ] {
        assert!(text.contains(right), "{right}");
        let path: PathBuf = directory.path().join("wrong.json");
        std::fs::write(&path, text.replacen(right, wrong, 1)).unwrap();
        assert!(!tool(&["check", path.to_str().unwrap()]).status.success(), "{wrong}");
    }
}

#[test]
fn every_expression_of_the_dashboards_is_read_by_promtool() {
    let directory = tempfile::tempdir().unwrap();
    let mut rules = Vec::new();
    for (file, variables) in DASHBOARDS.iter().zip([&OPERATOR, &ORGANISATION]) {
        for query in queries(file) {
            let name = format!("r{}", rules.len());
            rules.push(json!({"record": name, "expr": filled(&query.expression, variables)}));
        }
    }
    assert!(rules.len() > 100, "{}", rules.len());
    let file = directory.path().join("rules.json");
    let groups = json!({"groups": [{"name": "dashboards", "rules": rules}]});
    std::fs::write(&file, groups.to_string()).unwrap();
    super::promtool(&["check", "rules", file.to_str().unwrap()]);
}

// A panel without a question is decoration, and without a unit it is guessed.
#[test]
fn every_panel_says_which_question_it_answers() {
    for file in DASHBOARDS {
        let dashboard = dashboard(file);
        let mut right = BTreeMap::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let (kind, title) = (panel["type"].as_str().unwrap(), panel["title"].as_str().unwrap());
            // Panels of a line fill it, and none lies over another.
            let place = &panel["gridPos"];
            let [x, y, w] = ["x", "y", "w"].map(|name| place[name].as_u64().unwrap_or(0));
            assert_eq!(right.insert(y, x + w).unwrap_or(0), x, "{file}: {title} overlaps");
            if kind == "row" || kind == "text" {
                continue;
            }
            let question = panel["description"].as_str().unwrap_or_default();
            assert!(question.contains('?'), "{file}: {title}");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{file}: {title}");
        }
        for (line, end) in right {
            assert_eq!(end, 24, "{file}: the line at {line} is not full");
        }
    }
}

#[test]
fn every_metric_is_in_the_reference_and_on_the_operators_dashboard() {
    let reference = read("../../docs/reference/metrics.md");
    let rows = reference.lines().filter_map(|line| line.strip_prefix("| `mimir_tenant_proxy_"));
    let known: Vec<String> =
        rows.map(|row| format!("mimir_tenant_proxy_{}", row.split('`').next().unwrap())).collect();
    assert!(known.len() >= 70, "{}", known.len());
    let base = |name: &str| {
        let ends = ["_bucket", "_sum", "_count"];
        let stripped = ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        if known.iter().any(|known| known == name) { name.to_owned() } else { stripped.to_owned() }
    };
    let shown: Vec<String> = names_in(&read(DASHBOARDS[0])).iter().map(|name| base(name)).collect();
    for name in &known {
        assert!(shown.contains(name), "{name} is on no dashboard");
    }
    for name in &shown {
        assert!(known.contains(name), "{name} is not in the code");
    }
}

/// A Prometheus that scrapes a proxy and a Mimir.
struct Scraper {
    _process: Process,
    _directory: tempfile::TempDir,
    client: Client,
}

impl Scraper {
    async fn start(proxy: &str, mimir: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let config = directory.path().join("prometheus.yml");
        let host = |url: &str| url.strip_prefix("http://").unwrap().to_owned();
        let text = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [
                {"job_name": "mimir-tenant-proxy", "static_configs": [{"targets": [host(proxy)]}]},
                {"job_name": "mimir", "scrape_interval": "2s", "static_configs": [{"targets": [host(mimir)]}]},
            ],
        });
        std::fs::write(&config, text.to_string()).unwrap();
        let mut process = Process::start(
            "prometheus",
            &harness::part("prometheus"),
            directory.path(),
            |command| {
                command
                    .arg(format!("--config.file={}", config.display()))
                    .arg(format!("--storage.tsdb.path={}/data", directory.path().display()))
                    .arg(format!("--web.listen-address=127.0.0.1:{port}"));
            },
        );
        let url = format!("http://127.0.0.1:{port}");
        process.wait_ready(&format!("{url}/-/ready"), "eady", Duration::from_secs(30)).await;
        Self { _process: process, _directory: directory, client: Client::new(&url) }
    }
}

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// The series of an instant query, or why there are none.
async fn series(client: &Client, prefix: &str, expression: &str) -> Result<Vec<f64>, String> {
    let form = format!("query={}", encoded(expression));
    let answer = client.post_form(&format!("{prefix}/api/v1/query"), &form).await;
    if answer.status != 200 {
        return Err(answer.text);
    }
    let result = answer.json()["data"]["result"].as_array().cloned().unwrap_or_default();
    let values = result.iter().map(|series| series["value"][1].as_str().unwrap().parse().unwrap());
    Ok(values.collect())
}

/// Those of the queries that have no data, with the reason.
async fn without_data(
    client: &Client,
    prefix: &str,
    queries: &[Query],
    variables: &[(&str, &str)],
) -> BTreeMap<String, String> {
    let mut without = BTreeMap::new();
    for Query { panel, expression: original } in queries {
        let expression = filled(original, variables);
        match series(client, prefix, &expression).await {
            // 0 / 0 is drawn as nothing.
            Ok(values) if values.iter().any(|value| !value.is_nan()) => {}
            Ok(values) => {
                without.insert(original.clone(), format!("{panel}: {expression}: {values:?}"));
            }
            Err(problem) => {
                without.insert(original.clone(), format!("{panel}: {expression}: {problem}"));
            }
        }
    }
    without
}

/// A system with everything switched on, and every surface used.
struct Busy {
    identity: IdentityFixture,
    org: String,
    viewer: Client,
    device: Client,
    hook: Hook,
    _collector: Collector,
}

async fn busy(database: Database, mimir: &str) -> Busy {
    let secret = format!("{SECRET:?}");
    let collector = Collector::start().await;
    let endpoint = format!("{:?}", collector.url());
    let settings = [
        ("rules.enabled", "true"),
        ("rules.reconcile_interval", "\"5s\""),
        ("rules.health_interval", "\"5s\""),
        ("channels.enabled", "true"),
        ("channels.reconcile_interval", "\"5s\""),
        ("channels.allow_private_targets", "true"),
        ("alert_events.enabled", "true"),
        ("alert_events.secret", &*secret),
        // So that a request has to wait for its permit.
        ("limits.query_in_flight", "1"),
        ("limits.from_database", "true"),
        ("traces.endpoint", &*endpoint),
        ("traces.sample_ratio", "1.0"),
    ];
    let identity = identity_fixture_on(database, mimir, &settings).await;
    let org = identity.organisation().await;
    let viewer = identity.client(&identity.member(&org, "viewer").await);
    let device = identity.device(&org, &["metrics:write"]).await;
    Busy { identity, org, viewer, device, hook: Hook::start().await, _collector: collector }
}

impl Busy {
    async fn push(&self, hub: &str, value: f64) {
        let body = samples::remote_write("hub_temperature_celsius", &[("hub", hub)], value);
        let client = self.device.clone().header("content-encoding", "snappy");
        let client = client.header("content-type", "application/x-protobuf");
        let answer = client.post("/api/v1/push", body).await;
        assert!(answer.status.is_success(), "{answer:?}");
    }

    /// Rows: a rule that fires, one that waits, a channel, and later changes of each.
    async fn rows(&self) -> String {
        let (org, database) = (&self.org, &self.identity.database);
        database
            .execute(&format!(
                "insert into alert_rule (organisation_id, name, expr, labels, evaluation_interval, for_duration) values
                 ('{org}', 'HubWarm', 'hub_temperature_celsius > 1', '{{\"severity\": \"warning\"}}', '1s', '0s'),
                 ('{org}', 'HubWarmForLong', 'hub_temperature_celsius > 1', '{{\"severity\": \"critical\"}}', '1s', '1h')"
            ))
            .await;
        let insert = format!(
            "insert into notification_channel (organisation_id, name, kind, settings, secrets, is_default)
             values ('{org}', 'hook', 'webhook', '{{}}', '{{\"url\": \"{}\"}}', true) returning id",
            self.hook.url("all")
        );
        database.query(&insert).await[0][0].clone().unwrap()
    }

    /// One round of everything.
    async fn round(&self, number: u32, channel: &str) {
        for hub in ["barn-north", "barn-south"] {
            self.push(hub, f64::from(number % 7 + 20)).await;
        }
        // Somebody whose membership is not remembered.
        let newcomer = self.identity.member(&self.org, "viewer").await;
        let answer = self.identity.client(&newcomer).get("/prometheus/api/v1/query?query=up").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        // Two at a time: one of them waits.
        let (one, two) = tokio::join!(
            self.viewer.get("/prometheus/api/v1/query?query=hub_temperature_celsius"),
            self.viewer.get("/prometheus/api/v1/query?query=up"),
        );
        assert!(one.status == 200 && two.status == 200, "{one:?} {two:?}");
        self.viewer.get("/prometheus/api/v1/rules").await;
        self.viewer.get("/alertmanager/api/v2/alerts").await;
        self.viewer.get("/admin/whoami").await;
        self.identity.proxy.client().get("/prometheus/api/v1/query?query=up").await;
        let (org, database) = (&self.org, &self.identity.database);
        database
            .execute(&format!(
                "update alert_rule set annotations = '{{\"round\": \"{number}\"}}' where organisation_id = '{org}';
                 update notification_channel set secrets = '{{\"url\": \"{}\"}}' where organisation_id = '{org}'",
                self.hook.url(&format!("round-{number}")),
            ))
            .await;
        let now = time::OffsetDateTime::now_utc();
        let text = |at: time::OffsetDateTime| {
            at.format(&time::format_description::well_known::Rfc3339).unwrap()
        };
        let alert = json!([{
            "labels": {"alertname": format!("Round{number}")}, "annotations": {},
            "startsAt": text(now), "endsAt": text(now + Duration::from_secs(240)),
        }]);
        let ruler = ruler_of(&self.identity.proxy, org);
        ruler.post("/alertmanager/api/v2/alerts", alert.to_string()).await;
        if number.is_multiple_of(3) {
            let path = format!("/admin/organisations/{org}/channels/{channel}/test");
            self.identity.service().send(Method::POST, &path, "").await;
        }
    }
}

// A panel whose expression no series ever matches looks like a quiet system for ever.
#[tokio::test(flavor = "multi_thread")]
async fn every_panel_shows_data_of_a_real_proxy_prometheus_and_mimir() {
    let mimir = Mimir::shared().await.url();
    let database = Postgres::shared().await.database("dashboards").await;
    let busy = busy(database, &mimir).await;
    let scraper = Scraper::start(&busy.identity.proxy.internal_url(), &mimir).await;
    // A second scrape of what the proxy counted at its start.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let channel = busy.rows().await;
    let mut number = 0;
    wait_until("the rule fires", Duration::from_secs(120), async || {
        number += 1;
        busy.round(number, &channel).await;
        let firing =
            "count(ALERTS{alertstate=\"firing\"}) and count(ALERTS{alertstate=\"pending\"})";
        series(&busy.viewer, "/prometheus", firing).await.is_ok_and(|values| !values.is_empty())
    })
    .await;
    // Each has data once; rare things have it only now and then.
    let mut left = queries(DASHBOARDS[0]);
    // This proxy takes plain HTTP; `alerts_read_metrics_that_exist` has one with certificates.
    left.retain(|query| !query.expression.contains("tls_certificate_expiry"));
    let mut without = BTreeMap::new();
    for _ in 0..60 {
        number += 1;
        busy.round(number, &channel).await;
        without = without_data(&scraper.client, "", &left, &OPERATOR).await;
        left.retain(|query| without.contains_key(&query.expression));
        if left.is_empty() {
            break;
        }
    }
    assert!(without.is_empty(), "operator: {without:#?}");
    // Through the proxy, as a member: its limits for expressions hold. The last change of the rules has ended their
    // alerts for a moment.
    let mut left = queries(DASHBOARDS[1]);
    for _ in 0..60 {
        busy.push("barn-north", 21.0).await;
        without = without_data(&busy.viewer, "/prometheus", &left, &ORGANISATION).await;
        left.retain(|query| without.contains_key(&query.expression));
        if left.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(without.is_empty(), "organisation: {without:#?}");

    // The variables have values.
    for (client, prefix, path) in [
        (&scraper.client, "", "job/values?match[]=mimir_tenant_proxy_build_info"),
        (&scraper.client, "", "instance/values?match[]=mimir_tenant_proxy_build_info"),
        (&busy.viewer, "/prometheus", "__name__/values?match[]={hub!=\"\"}"),
        (&busy.viewer, "/prometheus", "hub/values?match[]=hub_temperature_celsius"),
    ] {
        let path = path.replace("[]", "%5B%5D").replace('{', "%7B").replace('}', "%7D");
        let path = path.replace('"', "%22").replace("!=", "!%3D");
        let answer = client.get(&format!("{prefix}/api/v1/label/{path}")).await;
        let values = answer.json()["data"].as_array().map_or(0, Vec::len);
        assert!(values > 0, "{path}: {answer:?}");
    }
}
