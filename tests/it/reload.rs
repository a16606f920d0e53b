//! Another configuration in a running proxy: as a whole or not at all, without a request that notices.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use harness::{
    Algorithm, Client, Issuer, Mimir, ORG_A, Proxy, ProxyOptions, SigningKey, Upstream, samples,
    wait_until,
};
use http::Method;
use serde_json::{Value, json};

use crate::database::{login, migrated};
use crate::revocations::{RIGHTS_WITHOUT_BANS, SUPABASE_AUTH, grant_for_bans};
use crate::support::identity::{IdentityFixture, identity_fixture_without_migration};
use crate::support::responses::{full, ok};

const QUERY: &str = "/prometheus/api/v1/query?query=up";
const PUSH: &str = "/api/v1/push";
const ADMIN_KEY: &str = "an-admin-key-of-more-than-32-characters";
const OTHER_KEY: &str = "another-key-of-more-than-32-characters";
const SUCCESSFUL: &str = "mimir_tenant_proxy_config_last_reload_successful";
const TIMESTAMP: &str = "mimir_tenant_proxy_config_last_reload_success_timestamp_seconds";

/// A proxy that reads its configuration at SIGHUP only.
struct Fixture {
    issuer: Issuer,
    proxy: Proxy,
}

async fn fixture(upstream: &str, settings: &[(&str, &str)]) -> Fixture {
    let issuer = Issuer::start().await;
    let options = ProxyOptions::new(&issuer.url(), upstream)
        .set("reload.watch_interval", "\"0s\"")
        .set("auth.admin_key", &format!("{ADMIN_KEY:?}"))
        // The log is read for what became of each reload.
        .set("log.access", "false");
    let options = settings.iter().fold(options, |options, (key, value)| options.set(key, value));
    Fixture { issuer, proxy: options.start().await }
}

/// The file with `section.key = value` lines set to something else, or added.
fn edited(text: &str, changes: &[(&str, &str)]) -> String {
    let is_changed =
        |line: &&str| changes.iter().any(|(key, _)| line.split(" = ").next() == Some(*key));
    let kept = text.lines().filter(|line| !is_changed(line)).map(ToOwned::to_owned);
    let set = changes.iter().map(|(key, value)| format!("{key} = {value}"));
    kept.chain(set).map(|line| line + "\n").collect()
}

/// Changes a file.
pub(crate) fn edit(file: &Path, changes: &[(&str, &str)]) {
    let text = edited(&std::fs::read_to_string(file).unwrap(), changes);
    std::fs::write(file, text).unwrap();
}

impl Fixture {
    /// Changes the file, and waits for the log to say what became of it.
    async fn reload(&self, changes: &[(&str, &str)]) -> Vec<Value> {
        edit(&self.proxy.config, changes);
        self.hang_up().await
    }

    async fn hang_up(&self) -> Vec<Value> {
        let before = self.reload_lines().len();
        self.proxy.process.signal("HUP");
        wait_until("the configuration was read", Duration::from_secs(15), async || {
            self.reload_lines().len() > before
        })
        .await;
        // All faults of one reload are written at once.
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.reload_lines().split_off(before)
    }

    fn reload_lines(&self) -> Vec<Value> {
        let log = self.proxy.process.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let is_reload = |line: &Value| {
            line["message"].as_str().is_some_and(|text| {
                text.starts_with("Configuration reloaded") || text == "Configuration not reloaded"
            })
        };
        lines.filter(is_reload).collect()
    }

    fn user(&self) -> Client {
        self.proxy.client().bearer(&self.issuer.user_of(ORG_A))
    }

    async fn config(&self) -> Value {
        self.proxy.client().bearer(ADMIN_KEY).get("/admin/config").await.json()
    }
}

fn is_success(lines: &[Value]) -> bool {
    lines.len() == 1 && lines[0]["message"] == "Configuration reloaded"
}

// Each kind of change in turn, again and again, while requests of every kind go through it.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_under_load_fails_no_request() {
    let mimir = Mimir::shared().await;
    let fixture = fixture(&mimir.url(), &[("listen.workers", "2")]).await;
    let organisation = harness::fresh_organisation();
    let token = fixture.issuer.token().organisation(&json!(organisation)).sign();
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let senders: Vec<_> = (0..16)
        .map(|number| {
            let h2c = number % 4 == 0;
            let url = fixture.proxy.url();
            let client = if h2c { Client::h2c(&url) } else { Client::new(&url) };
            let client = client.bearer(&token);
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            tokio::spawn(async move {
                let metric = format!("reload_{number}");
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let pushed = client.try_send(
                        Method::POST,
                        PUSH,
                        samples::remote_write(&metric, &[], 1.0),
                    );
                    let queried = client.try_send(Method::GET, QUERY, Vec::new());
                    for outcome in [pushed.await, queried.await] {
                        served.fetch_add(1, Ordering::Relaxed);
                        match outcome {
                            Ok(answer) if answer.status.is_success() => {}
                            other => failures.push(format!("{other:?}")),
                        }
                    }
                }
                failures
            })
        })
        .collect();
    let url = mimir.url();
    let by_name = url.replace("127.0.0.1", "localhost");
    let (one, both) = (format!("[{url:?}]"), format!("[{url:?}, {by_name:?}]"));
    let file = fixture.proxy.config.with_file_name("secret");
    std::fs::write(&file, "x").unwrap();
    for round in 0..4 {
        let flip = |first: &'static str, second: &'static str| {
            if round % 2 == 0 { first } else { second }
        };
        for change in [
            ("limits.push_in_flight", flip("400", "450")),
            ("limits.query_requests_per_second", flip("100000", "90000")),
            ("cors.allowed_origins", flip("[\"https://a.example\"]", "[\"https://b.example\"]")),
            ("roles.guest", flip("[\"metrics:read\"]", "[]")),
            ("upstream.urls", if round % 2 == 0 { &both } else { &one }),
            ("upstream.connect_timeout", flip("\"3s\"", "\"4s\"")),
            ("upstream.ready_interval", flip("\"1s\"", "\"0s\"")),
            ("auth.hs256_secret", flip("\"a-secret-of-more-than-32-characters-1\"", "\"\"")),
            ("auth.jwks_cool_down", flip("\"6s\"", "\"7s\"")),
            ("log.filter", flip("\"info,h2=debug\"", "\"info\"")),
            ("listen.write_timeout", flip("\"50s\"", "\"55s\"")),
        ] {
            let lines = fixture.reload(&[change]).await;
            assert!(is_success(&lines), "{change:?}: {lines:?}");
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut failures = Vec::new();
    for sender in senders {
        failures.extend(sender.await.unwrap());
    }
    let served = served.load(Ordering::Relaxed);
    println!("{served} requests during 44 reloads, {} failed", failures.len());
    assert!(failures.is_empty(), "{} of {served}: {:?}", failures.len(), failures.first());
    assert!(served > 1000, "{served}");
    assert_eq!(fixture.proxy.metric(SUCCESSFUL).await, 1.0);
}

// One fault, and nothing of the file is used: not the limit that is right either.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_wrong_file_every_fault_is_told_and_the_old_one_stays() {
    let upstream = Upstream::start(ok).await;
    let fixture = fixture(&upstream.url(), &[]).await;
    let right = std::fs::read_to_string(&fixture.proxy.config).unwrap();
    let before = fixture.config().await;
    let began = fixture.proxy.metric(TIMESTAMP).await;
    assert_eq!(fixture.proxy.metric(SUCCESSFUL).await, 1.0, "at the start");
    assert!(began > 1.0e9 && before["reload"].is_null(), "{before}");
    let wrong = [
        ("limits.push_in_flight", "0"),
        ("limits.query_in_flight", "1"),
        ("cors.allowed_origins", "[\"https://app.example/\", \"*\"]"),
        ("upstream.timeout", "\"3s\""),
        ("roles.guest", "[\"metrics:raed\"]"),
    ];
    let lines = fixture.reload(&wrong).await;
    let keys: Vec<&str> = lines.iter().map(|line| line["key"].as_str().unwrap()).collect();
    for key in ["limits.push_in_flight", "cors.allowed_origins", "upstream.timeout", "roles.guest"]
    {
        let line = lines.iter().find(|line| line["key"] == key).expect(key);
        assert_eq!(line["level"], "ERROR");
        assert_eq!(line["message"], "Configuration not reloaded");
        assert!(line["line"].as_u64().is_some(), "{line}");
        assert!(line["file"].as_str().unwrap().ends_with("proxy.toml"), "{line}");
        assert!(line["problem"].as_str().is_some_and(|text| text.len() > 10), "{line}");
    }
    assert_eq!(keys.iter().filter(|key| **key == "cors.allowed_origins").count(), 2, "{keys:?}");
    assert_eq!(fixture.proxy.metric(SUCCESSFUL).await, 0.0);
    assert_eq!(fixture.proxy.metric(TIMESTAMP).await, began);
    let after = fixture.config().await;
    assert_eq!((&after["hash"], &after["loaded_at"]), (&before["hash"], &before["loaded_at"]));
    assert_eq!(after["settings"], before["settings"]);
    assert_eq!(after["reload"]["is_successful"], false);
    assert_eq!(after["reload"]["faults"].as_array().unwrap().len(), lines.len());
    assert_eq!(fixture.user().get(QUERY).await.status, 200);

    // Put right, all of it is used.
    std::fs::write(&fixture.proxy.config, edited(&right, &[("limits.query_in_flight", "1")]))
        .unwrap();
    let lines = fixture.hang_up().await;
    assert!(is_success(&lines) && lines[0]["keys"] == "limits.query_in_flight", "{lines:?}");
    assert_eq!(fixture.proxy.metric(SUCCESSFUL).await, 1.0);
    assert!(fixture.proxy.metric(TIMESTAMP).await > began);
    let after = fixture.config().await;
    assert_ne!(after["hash"], before["hash"]);
    assert_eq!(after["reload"]["is_successful"], true);
}

// A change of the address alone would leave the file and the process apart for ever, without a word.
#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_restart_is_named_and_holds_up_the_rest() {
    let upstream = Upstream::start(ok).await;
    let fixture = fixture(&upstream.url(), &[]).await;
    let changes = [
        ("listen.workers", "7"),
        ("tenancy.tenant_template", "\"x-{organisation_id}\""),
        ("cors.allowed_origins", "[\"https://app.example\"]"),
    ];
    let lines = fixture.reload(&changes).await;
    let keys: Vec<&str> = lines.iter().map(|line| line["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["listen.workers", "tenancy.tenant_template"]);
    assert!(lines[0]["problem"].as_str().unwrap().contains("restart"), "{lines:?}");
    let page = fixture.user().header("origin", "https://app.example").get(QUERY).await;
    assert!(!page.headers.contains_key("access-control-allow-origin"), "{page:?}");
    let settings = fixture.config().await["settings"].clone();
    let of = |key: &str| {
        let all = settings.as_array().unwrap();
        all.iter().find(|one| one["key"] == key).unwrap()["is_reloadable"].clone()
    };
    assert_eq!((of("listen.workers"), of("cors.allowed_origins")), (json!(false), json!(true)));
}

// Each of these is one request before and one after; nothing is restarted.
#[tokio::test(flavor = "multi_thread")]
async fn each_change_takes_effect() {
    let upstream = Upstream::start(ok).await;
    let other = Upstream::start(async |_| http::Response::new(full("the other"))).await;
    let fixture = fixture(
        &upstream.url(),
        &[("auth.role_claim", "\"user_role\""), ("limits.max_wait", "\"0s\"")],
    )
    .await;
    let role = |role: &str| {
        let token = fixture.issuer.token().organisation(&json!(ORG_A));
        fixture.proxy.client().bearer(&token.claim("user_role", json!(role)).sign())
    };
    let reload = async |change: (&str, &str)| {
        let lines = fixture.reload(&[change]).await;
        assert!(is_success(&lines), "{change:?}: {lines:?}");
    };

    // A role, of a token that was verified before.
    let guest = role("guest");
    assert_eq!(guest.get(QUERY).await.status, 403);
    reload(("roles.guest", "[\"metrics:read\"]")).await;
    assert_eq!(guest.get(QUERY).await.status, 200);
    reload(("roles.guest", "[]")).await;
    assert_eq!(guest.get(QUERY).await.status, 403);

    // An origin.
    let page = role("viewer").header("origin", "https://app.example");
    let is_allowed =
        async || page.get(QUERY).await.headers.contains_key("access-control-allow-origin");
    assert!(!is_allowed().await);
    reload(("cors.allowed_origins", "[\"https://app.example\"]")).await;
    assert!(is_allowed().await);

    // A limit: what the organisation has used of it counts on.
    let viewer = role("viewer");
    reload(("limits.query_requests_per_second", "1")).await;
    let mut statuses = Vec::new();
    for _ in 0..14 {
        statuses.push(viewer.get(QUERY).await.status.as_u16());
    }
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    reload(("limits.push_in_flight", "77")).await;
    assert_eq!(viewer.get(QUERY).await.status, 429, "another limit's change is no new start");
    reload(("limits.query_requests_per_second", "0")).await;
    assert_eq!(viewer.get(QUERY).await.status, 200);

    // A static key.
    let other_key = fixture.proxy.client().bearer(OTHER_KEY).header("x-scope-orgid", ORG_A);
    assert_eq!(other_key.get(QUERY).await.status, 401);
    reload(("auth.admin_key", &format!("\"{ADMIN_KEY} {OTHER_KEY}\""))).await;
    assert_eq!(other_key.get(QUERY).await.status, 200);

    // The shared secret.
    let secret = "a legacy secret of more than thirty-two bytes";
    let legacy =
        fixture.issuer.token().organisation(&json!(ORG_A)).claim("user_role", json!("viewer"));
    let legacy = legacy.signed_by(&SigningKey::secret(secret.as_bytes())).sign();
    let legacy = fixture.proxy.client().bearer(&legacy);
    assert_eq!(legacy.get(QUERY).await.status, 401);
    reload(("auth.hs256_secret", &format!("{secret:?}"))).await;
    assert_eq!(legacy.get(QUERY).await.status, 200);
    reload(("auth.hs256_secret", "\"\"")).await;
    assert_eq!(legacy.get(QUERY).await.status, 401, "a token that was verified is not remembered");

    // The upstream.
    assert_ne!(viewer.get(QUERY).await.text, "the other");
    reload(("upstream.urls", &format!("[{:?}]", other.url()))).await;
    for _ in 0..10 {
        assert_eq!(viewer.get(QUERY).await.text, "the other");
    }

    // The log's filter.
    let moves = || fixture.proxy.process.log().matches("Upstream instances changed").count();
    let before = moves();
    reload(("log.filter", "\"info,mimir_tenant_proxy::forward=off\"")).await;
    reload(("upstream.urls", &format!("[{:?}]", upstream.url()))).await;
    assert_eq!(moves(), before);
    reload(("log.filter", "\"info\"")).await;
    reload(("upstream.urls", &format!("[{:?}]", other.url()))).await;
    assert_eq!(moves(), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_collector_is_shown_changes() {
    let (upstream, collector) = (Upstream::start(ok).await, Upstream::start(ok).await);
    let endpoint = format!("{:?}", collector.url());
    let settings = [
        ("traces.endpoint", &*endpoint),
        ("traces.sample_ratio", "1.0"),
        ("traces.authorization", "\"Bearer first\""),
    ];
    let fixture = fixture(&upstream.url(), &settings).await;
    let shown = async |wanted: Option<&str>| {
        let before = collector.heads().len();
        assert_eq!(fixture.user().get(QUERY).await.status, 200);
        wait_until("the trace is sent", Duration::from_secs(15), async || {
            collector.heads().len() > before
        })
        .await;
        let head = &collector.heads()[before];
        let value = head.headers.get("authorization").map(|value| value.to_str().unwrap());
        assert_eq!(value, wanted);
    };
    shown(Some("Bearer first")).await;
    assert!(is_success(&fixture.reload(&[("traces.authorization", "\"Bearer second\"")]).await));
    shown(Some("Bearer second")).await;
    assert!(is_success(&fixture.reload(&[("traces.authorization", "\"\"")]).await));
    shown(None).await;
}

// The old key set is in force until the new one is there: nobody gets a 503 in between. One that cannot be
// had is as wrong as a file that cannot be read, and it is asked for again.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_issuer_is_used_once_its_keys_are_there() {
    let upstream = Upstream::start(ok).await;
    let fixture = fixture(&upstream.url(), &[]).await;
    let new = Issuer::start().await;
    let key = SigningKey::generate("key-2", Algorithm::RS256);
    new.publish(&[&key]);
    let user = |issuer: &Issuer, key: &SigningKey| {
        let token = issuer.token().organisation(&json!(ORG_A)).signed_by(key).sign();
        fixture.proxy.client().bearer(&token)
    };
    let (old_user, new_user) = (user(&fixture.issuer, &fixture.issuer.key), user(&new, &key));
    assert_eq!(old_user.get(QUERY).await.status, 200);
    assert_eq!(new_user.get(QUERY).await.status, 401);
    new.answer_with(500);
    let change = ("auth.issuer", format!("{:?}", new.url()));
    let lines = fixture.reload(&[(change.0, &change.1)]).await;
    assert_eq!(lines[0]["key"], "auth.jwks_url", "{lines:?}");
    assert!(lines[0]["problem"].as_str().unwrap().contains("500"), "{lines:?}");
    assert_eq!(old_user.get(QUERY).await.status, 200);
    new.answer_with(200);
    let lines = fixture.hang_up().await;
    assert!(is_success(&lines), "{lines:?}");
    assert_eq!(new_user.get(QUERY).await.status, 200);
    assert_eq!(old_user.get(QUERY).await.status, 401);
    // The old one is fetched no more.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let fetches = fixture.issuer.fetches();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fixture.issuer.fetches(), fetches);
}

// The running look-up of sessions reads bans: it would fail with the new role, and every user would get 503 until a
// restart, although the role can do all that a start with it needs.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_does_not_see_bans_does_not_follow_one_that_does() {
    let upstream = Upstream::start(ok).await;
    let database = migrated("reload").await;
    database.execute(SUPABASE_AUTH).await;
    let rights = format!("{RIGHTS_WITHOUT_BANS}; {}", grant_for_bans("$role"));
    let (_, first) = login(&database, &rights).await;
    let (role, second) = login(&database, RIGHTS_WITHOUT_BANS).await;
    let settings = [
        ("auth.check_sessions", "true"),
        ("database.session_ttl", "\"200ms\""),
        ("reload.watch_interval", "\"0s\""),
        ("log.access", "false"),
    ];
    let identity =
        identity_fixture_without_migration(database, &first, &upstream.url(), &settings).await;
    let person = identity.member(&identity.organisation().await, "viewer").await;
    let user = identity.client(&person);
    let IdentityFixture { issuer, database, proxy } = identity;
    let signed_in = format!(
        "insert into auth.users values ('{0}', null);
         insert into auth.sessions (id, user_id) values ('{1}', '{0}')",
        person.id, person.session
    );
    database.execute(&signed_in).await;
    assert_eq!(user.get(QUERY).await.status, 200);
    let fixture = Fixture { issuer, proxy };
    let lines = fixture.reload(&[("database.url", &format!("{second:?}"))]).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["key"], "database.url", "{lines:?}");
    let problem = lines[0]["problem"].as_str().unwrap();
    assert!(problem.contains(&grant_for_bans(&role)), "{problem}");
    assert_eq!(user.get(QUERY).await.status, 200);
    database.execute(&grant_for_bans(&role)).await;
    let lines = fixture.hang_up().await;
    assert!(is_success(&lines) && lines[0]["keys"] == "database.url", "{lines:?}");
    assert_eq!(user.get(QUERY).await.status, 200);
}

// A name that cannot be resolved would leave the proxy without Mimir.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_not_found_is_not_used() {
    let upstream = Upstream::start(ok).await;
    let fixture = fixture(&upstream.url(), &[]).await;
    let lines = fixture.reload(&[("upstream.urls", "[\"http://mimir.invalid:8080\"]")]).await;
    assert_eq!(lines[0]["key"], "upstream.urls", "{lines:?}");
    assert!(lines[0]["problem"].as_str().unwrap().contains("mimir.invalid"), "{lines:?}");
    assert_eq!(fixture.user().get(QUERY).await.status, 200);
}

// A request that has begun ends as it began, though its instance, its limit and its origin are gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_keeps_what_it_began_with() {
    let slow = Upstream::start(async |_| {
        tokio::time::sleep(Duration::from_secs(3)).await;
        http::Response::new(full("slow"))
    })
    .await;
    let other = Upstream::start(async |_| http::Response::new(full("the other"))).await;
    let fixture =
        fixture(&slow.url(), &[("cors.allowed_origins", "[\"https://app.example\"]")]).await;
    let page = fixture.user().header("origin", "https://app.example");
    let in_flight = tokio::spawn({
        let page = page.clone();
        async move { page.get(QUERY).await }
    });
    wait_until("it is upstream", Duration::from_secs(5), async || !slow.heads().is_empty()).await;
    let urls = format!("[{:?}]", other.url());
    let lines = fixture
        .reload(&[
            ("upstream.urls", &urls),
            ("limits.query_in_flight", "1"),
            ("cors.allowed_origins", "[]"),
        ])
        .await;
    assert!(is_success(&lines), "{lines:?}");
    let meanwhile = fixture.user().get(QUERY).await;
    // The one in flight has the only slot; after `limits.max_wait` it is free again, or this is refused.
    assert!(matches!(meanwhile.status.as_u16(), 200 | 429), "{meanwhile:?}");
    let answer = in_flight.await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, "slow"));
    assert_eq!(answer.header("access-control-allow-origin"), "https://app.example");
    assert_eq!(fixture.user().get(QUERY).await.text, "the other");
    // Its connection is not kept.
    let address = slow.url().replace("http://", "");
    let connections = std::process::Command::new("ss").args(["-Htn", "dst", &address]).output();
    if let Ok(connections) = connections {
        let text = String::from_utf8_lossy(&connections.stdout).into_owned();
        assert!(!text.contains("ESTAB"), "{text}");
    }
}

// Kubernetes exchanges a link, editors rename, some write in place. No signal.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_noticed() {
    let upstream = Upstream::start(ok).await;
    let fixture = fixture(&upstream.url(), &[("reload.watch_interval", "\"100ms\"")]).await;
    let config = &fixture.proxy.config;
    let text = std::fs::read_to_string(config).unwrap();
    let hash = async || fixture.config().await["hash"].clone();
    let changed = async |before: Value| {
        wait_until("it is used", Duration::from_secs(10), async || hash().await != before).await;
    };
    let before = hash().await;
    edit(config, &[("cors.allowed_origins", "[\"https://a.example\"]")]);
    changed(before).await;

    let before = hash().await;
    let new = config.with_file_name("proxy.toml.new");
    std::fs::write(&new, edited(&text, &[("cors.allowed_origins", "[\"https://b.example\"]")]))
        .unwrap();
    std::fs::rename(&new, config).unwrap();
    changed(before).await;

    let before = hash().await;
    let target = config.with_file_name("elsewhere.toml");
    std::fs::write(&target, edited(&text, &[("cors.allowed_origins", "[\"https://c.example\"]")]))
        .unwrap();
    std::os::unix::fs::symlink(&target, &new).unwrap();
    std::fs::rename(&new, config).unwrap();
    changed(before).await;

    // One that is gone is told once, and nothing else happens.
    std::fs::remove_file(config).unwrap();
    let is_told = async || fixture.proxy.metric(SUCCESSFUL).await == 0.0;
    wait_until("it is told", Duration::from_secs(10), is_told).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let faults = fixture.reload_lines();
    let faults: Vec<_> = faults.iter().filter(|line| line["level"] == "ERROR").collect();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert_eq!(fixture.user().get(QUERY).await.status, 200);
    std::fs::write(config, &text).unwrap();
    wait_until("it is back", Duration::from_secs(10), async || {
        fixture.proxy.metric(SUCCESSFUL).await == 1.0
    })
    .await;
}
