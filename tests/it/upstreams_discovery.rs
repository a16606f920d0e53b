//! Instances are found by names and in Consul.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::{
    Authority, Client, Issuer, ORG_A, Process, Proxy, ProxyOptions, Purpose, Received, Upstream,
    part, wait_until,
};
use http::{Method, Response};
use tempfile::TempDir;

use crate::reload::edit;
use crate::support::fake_mimir::FakeMimir;
use crate::support::responses::full;
use crate::support::single::QUERY;

fn asking(consul: &str, issuer: &Issuer) -> ProxyOptions {
    ProxyOptions::new(&issuer.url(), "")
        .set("upstream.urls", "[]")
        .set("upstream.consul_url", &format!("{consul:?}"))
        .set("upstream.consul_service", "\"mimir\"")
}

async fn proxy_asking(consul: &str, issuer: &Issuer, settings: &[(&str, &str)]) -> Proxy {
    let options = asking(consul, issuer);
    let options = settings.iter().fold(options, |options, (key, value)| options.set(key, value));
    options.start().await
}

async fn instances(proxy: &Proxy) -> f64 {
    proxy.metric("mimir_tenant_proxy_upstream_instances").await
}

const FAILURES: &str = "mimir_tenant_proxy_upstream_resolve_failures_total";

/// `/etc/hosts` in a namespace of its own, which stands for the name server.
struct Hosts {
    directory: TempDir,
}

impl Hosts {
    /// Has `mimir.internal` at these addresses.
    fn with(addresses: &[&str]) -> Self {
        let hosts = Self { directory: TempDir::with_prefix("hosts-").unwrap() };
        hosts.point_to(addresses);
        let script = format!(
            "#!/bin/sh\nexec unshare --mount sh -c 'mount --bind {} /etc/hosts && exec \"$@\"' sh {} \"$@\"\n",
            hosts.file().display(),
            Proxy::binary().display()
        );
        let binary = hosts.binary();
        std::fs::write(&binary, script).unwrap();
        assert!(Command::new("chmod").arg("+x").arg(&binary).status().unwrap().success());
        hosts
    }

    fn point_to(&self, addresses: &[&str]) {
        let lines: Vec<String> =
            addresses.iter().map(|address| format!("{address} mimir.internal\n")).collect();
        std::fs::write(self.file(), lines.concat()).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("hosts")
    }

    /// The proxy in that namespace.
    fn binary(&self) -> PathBuf {
        self.directory.path().join("in-namespace")
    }
}

async fn used(fake: &FakeMimir, client: &Client, about: &str) {
    wait_until(about, Duration::from_secs(10), async || {
        let before = fake.requests();
        for _ in 0..10 {
            client.get(QUERY).await;
        }
        fake.requests() > before
    })
    .await;
}

/// A real Consul with access control lists, without storage, by http and by https.
struct Consul {
    _process: Process,
    url: String,
    secured_url: String,
    directory: TempDir,
}

const MASTER: &str = "11111111-2222-4333-8444-555555555555";

impl Consul {
    async fn start() -> Self {
        let directory = TempDir::with_prefix("consul-").unwrap();
        let own = Authority::new("Consul CA");
        std::fs::write(directory.path().join("ca.pem"), own.pem()).unwrap();
        own.sign(Purpose::Server, &["localhost"]).write(directory.path(), "server");
        let path = |name: &str| directory.path().join(name).display().to_string();
        let (http, https, dns, server, lan, wan, grpc) = (
            harness::free_port(),
            harness::free_port(),
            harness::free_port(),
            harness::free_port(),
            harness::free_port(),
            harness::free_port(),
            harness::free_port(),
        );
        let acl = format!(
            "acl = {{ enabled = true, default_policy = \"deny\", tokens = {{ master = \"{MASTER}\" }} }}\n\
             ports = {{ http = {http}, https = {https}, dns = {dns}, server = {server}, serf_lan = {lan}, serf_wan = {wan}, grpc = {grpc} }}\n\
             ca_file = {:?}\ncert_file = {:?}\nkey_file = {:?}\n",
            path("ca.pem"),
            path("server.pem"),
            path("server.key"),
        );
        let config = directory.path().join("consul.hcl");
        std::fs::write(&config, acl).unwrap();
        let mut process = Process::start("consul", &part("consul"), directory.path(), |command| {
            command.args(["agent", "-dev", "-bind=127.0.0.1", "-client=127.0.0.1"]);
            command.arg(format!("-config-file={}", config.display()));
        });
        let url = format!("http://127.0.0.1:{http}");
        process.wait_ready(&format!("{url}/v1/status/leader"), ":", Duration::from_secs(30)).await;
        Self {
            _process: process,
            url,
            secured_url: format!("https://localhost:{https}"),
            directory,
        }
    }

    async fn put(&self, path: &str, body: serde_json::Value) -> serde_json::Value {
        let client = Client::new(&self.url).header("x-consul-token", MASTER);
        let mut answer = None;
        wait_until("Consul takes it", Duration::from_secs(10), async || {
            let one = client.send(Method::PUT, path, body.to_string()).await;
            let done = one.status == 200;
            answer = Some(one);
            done
        })
        .await;
        serde_json::from_str(&answer.unwrap().text).unwrap_or_default()
    }

    async fn register(&self, id: &str, fake: &FakeMimir, tags: &[&str]) {
        self.put(
            "/v1/agent/service/register",
            serde_json::json!({
                "ID": id, "Name": "mimir", "Address": "127.0.0.1", "Port": fake.address().port(),
                "Tags": tags, "Check": { "TTL": "1h", "Status": "passing" },
            }),
        )
        .await;
    }

    async fn set_check(&self, id: &str, status: &str) {
        let path = format!("/v1/agent/check/update/service:{id}");
        self.put(&path, serde_json::json!({ "Status": status })).await;
    }

    async fn reader(&self) -> String {
        let rules =
            "service_prefix \"\" { policy = \"read\" } node_prefix \"\" { policy = \"read\" }";
        self.put("/v1/acl/policy", serde_json::json!({ "Name": "reader", "Rules": rules })).await;
        let token = serde_json::json!({ "Policies": [{ "Name": "reader" }] });
        self.put("/v1/acl/token", token).await["SecretID"].as_str().unwrap().to_owned()
    }
}

// Instances come, fail their checks and go; the proxy learns of each immediately, with a token that
// may only read.
#[tokio::test(flavor = "multi_thread")]
async fn instances_follow_a_real_consul() {
    let (consul, issuer) = (Consul::start().await, Issuer::start().await);
    let (one, two, other) =
        (FakeMimir::start().await, FakeMimir::start().await, FakeMimir::start().await);
    consul.register("one", &one, &["http"]).await;
    consul.register("other", &other, &["grpc"]).await;
    let token = consul.reader().await;
    let proxy = proxy_asking(
        &consul.url,
        &issuer,
        &[("upstream.consul_token", &format!("{token:?}")), ("upstream.consul_tag", "\"http\"")],
    )
    .await;
    let client = proxy.client().bearer(&issuer.user_of(ORG_A));
    assert_eq!(client.get(QUERY).await.status, 200);
    consul.register("two", &two, &["http"]).await;
    used(&two, &client, "the second instance is used").await;
    consul.set_check("one", "critical").await;
    wait_until("one instance is left", Duration::from_secs(10), async || {
        instances(&proxy).await == 1.0
    })
    .await;
    let before = one.requests();
    for _ in 0..20 {
        assert_eq!(client.get(QUERY).await.status, 200);
    }
    assert_eq!(one.requests(), before);
    // Without passing instances the result is ignored, and the known ones are kept.
    consul.set_check("two", "critical").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(client.get(QUERY).await.status, 200);
    consul.set_check("one", "passing").await;
    used(&one, &client, "the first one is used again").await;
    assert_eq!(other.requests(), 0, "it has not the tag");
    assert!(!proxy.process.log().contains(&token), "the token is in the log");
}

// A server in Consul's place could have every request sent to it, so Consul's certificate is verified.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_consul_is_asked_by_https() {
    let (consul, issuer) = (Consul::start().await, Issuer::start().await);
    let (one, two) = (FakeMimir::start().await, FakeMimir::start().await);
    consul.register("one", &one, &[]).await;
    let token = format!("{:?}", consul.reader().await);
    let authority = format!("{:?}", consul.directory.path().join("ca.pem").display().to_string());
    let trusts = [
        ("upstream.consul_token", token.as_str()),
        ("upstream.consul_ca_file", authority.as_str()),
    ];
    let proxy = proxy_asking(&consul.secured_url, &issuer, &trusts).await;
    let client = proxy.client().bearer(&issuer.user_of(ORG_A));
    assert_eq!(client.get(QUERY).await.status, 200);
    consul.register("two", &two, &[]).await;
    used(&two, &client, "the second instance is used").await;

    // The system's authorities have not signed it, and its certificate is not for its address.
    let before = one.requests() + two.requests();
    let by_address = consul.secured_url.replace("localhost", "127.0.0.1");
    for (url, settings) in [(&consul.secured_url, &trusts[..1]), (&by_address, &trusts[..])] {
        let proxy = proxy_asking(url, &issuer, settings).await;
        let client = proxy.client().bearer(&issuer.user_of(ORG_A));
        assert_eq!(client.get(QUERY).await.status, 503);
        wait_until("the log says why", Duration::from_secs(10), async || {
            proxy.process.log().contains("invalid peer certificate")
        })
        .await;
    }
    assert_eq!(one.requests() + two.requests(), before);
}

/// A host and a port, each as Consul lists it.
type Listed = Arc<Mutex<Vec<(&'static str, u16)>>>;

/// A stand-in for Consul that can fail on demand.
async fn failing_consul() -> (Upstream, Listed, Arc<Mutex<bool>>) {
    let (listed, broken) = (Listed::default(), Arc::new(Mutex::new(false)));
    let shared = (Arc::clone(&listed), Arc::clone(&broken));
    let upstream = Upstream::start(move |request: Received| {
        let (listed, broken) = (Arc::clone(&shared.0), Arc::clone(&shared.1));
        async move {
            if request.target.contains("index=") {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            if *broken.lock().unwrap() {
                return Response::builder().status(500).body(full("No cluster leader")).unwrap();
            }
            let entries: Vec<_> = listed
                .lock()
                .unwrap()
                .iter()
                .map(|(host, port)| {
                    serde_json::json!({
                        "Node": { "Address": host },
                        "Service": { "Address": "", "Port": port },
                    })
                })
                .collect();
            Response::builder()
                .header("x-consul-index", "7")
                .body(full(serde_json::Value::from(entries).to_string()))
                .unwrap()
        }
    })
    .await;
    (upstream, listed, broken)
}

#[tokio::test(flavor = "multi_thread")]
async fn known_instances_are_kept_while_consul_is_unavailable() {
    let (consul, listed, broken) = failing_consul().await;
    let (issuer, one, two) =
        (Issuer::start().await, FakeMimir::start().await, FakeMimir::start().await);
    let [first, second] = [&one, &two].map(|fake| ("127.0.0.1", fake.address().port()));
    *listed.lock().unwrap() = vec![first];
    let proxy = proxy_asking(&consul.url(), &issuer, &[]).await;
    let client = proxy.client().bearer(&issuer.user_of(ORG_A));
    assert_eq!(client.get(QUERY).await.status, 200);
    *broken.lock().unwrap() = true;
    wait_until("it is noticed", Duration::from_secs(5), async || {
        proxy.metric(FAILURES).await >= 1.0
    })
    .await;
    for _ in 0..10 {
        assert_eq!(client.get(QUERY).await.status, 200);
    }
    *listed.lock().unwrap() = vec![first, second];
    *broken.lock().unwrap() = false;
    used(&two, &client, "the new instance is used").await;
    let heads = consul.heads();
    assert!(heads.iter().all(|head| head.target.contains("passing=true")));
    assert!(heads.len() < 200, "{} questions", heads.len());
}

// A reload of something else begins to follow the catalogue anew, with a reading. A name server that is away at that
// moment takes no instance out.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_in_consul_that_fails_keeps_its_instance_over_a_reload() {
    let hosts = Hosts::with(&["127.0.0.1"]);
    let (consul, listed, _) = failing_consul().await;
    let (issuer, one, two) =
        (Issuer::start().await, FakeMimir::start().await, FakeMimir::start().await);
    *listed.lock().unwrap() =
        vec![("127.0.0.1", one.address().port()), ("mimir.internal", two.address().port())];
    let proxy = asking(&consul.url(), &issuer)
        .set("reload.watch_interval", "\"0s\"")
        .set("upstream.resolve_interval", "\"1s\"")
        .binary(&hosts.binary())
        .start()
        .await;
    let client = proxy.client().bearer(&issuer.user_of(ORG_A));
    assert_eq!(instances(&proxy).await, 2.0);
    let fails_again = async |about: &str| {
        let before = proxy.metric(FAILURES).await;
        // One may have been read before. Where a name server is asked and does not answer, each takes 5 s.
        wait_until(about, Duration::from_secs(60), async || {
            proxy.metric(FAILURES).await >= before + 3.0
        })
        .await;
    };
    hosts.point_to(&[]);
    fails_again("the name is not resolved").await;
    assert_eq!(instances(&proxy).await, 2.0);
    edit(&proxy.config, &[("upstream.resolve_interval", "\"2s\"")]);
    proxy.process.signal("HUP");
    wait_until("it is used", Duration::from_secs(15), async || {
        proxy.process.log().contains("\"keys\":\"upstream.resolve_interval\"")
    })
    .await;
    fails_again("the name is still not resolved").await;
    assert_eq!(instances(&proxy).await, 2.0);
    used(&two, &client, "the instance behind the name is used").await;
}

// The addresses of a name change, as when machines come and go.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_changes_its_addresses_is_followed() {
    let hosts = Hosts::with(&["127.0.0.1"]);
    let issuer = Issuer::start().await;
    let mut fake = FakeMimir::start().await;
    fake.listen_everywhere().await;
    let port = fake.address().port();
    let proxy = ProxyOptions::new(&issuer.url(), &format!("http://mimir.internal:{port}"))
        .set("upstream.resolve_interval", "\"200ms\"")
        .binary(&hosts.binary())
        .start()
        .await;
    let client = proxy.client().bearer(&issuer.user_of(ORG_A));
    let instances = async || instances(&proxy).await;
    assert_eq!((client.get(QUERY).await.status.as_u16(), instances().await), (200, 1.0));
    hosts.point_to(&["127.0.0.2", "127.0.0.3", "::1"]);
    wait_until("all three are found", Duration::from_secs(5), async || instances().await == 3.0)
        .await;
    let seen =
        |address: &str| proxy.process.log().contains(&format!("\"upstream.address\":\"{address}"));
    wait_until("A and AAAA are used", Duration::from_secs(5), async || {
        assert_eq!(client.get(QUERY).await.status, 200);
        seen("127.0.0.2") && seen("127.0.0.3") && seen("[::1]")
    })
    .await;
    // A name without addresses is ignored.
    hosts.point_to(&[]);
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!((client.get(QUERY).await.status.as_u16(), instances().await), (200, 3.0));
    hosts.point_to(&["127.0.0.1"]);
    wait_until("the old ones are gone", Duration::from_secs(5), async || instances().await == 1.0)
        .await;
    assert_eq!(client.get(QUERY).await.status, 200);
}
