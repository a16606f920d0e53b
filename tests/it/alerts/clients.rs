//! Existing clients: amtool and the requests of Grafana's data source.

use std::io::Write as _;
use std::process::Output;

use super::*;

/// amtool, with what its user would have in a file.
struct Amtool {
    url: String,
    file: tempfile::NamedTempFile,
}

impl Amtool {
    /// With a token, for an organisation.
    fn bearer(fixture: &AlertsFixture, token: &str, organisation: &str) -> Self {
        let mut file = tempfile::NamedTempFile::with_prefix("amtool-").unwrap();
        let config = format!(
            "authorization: {{type: Bearer, credentials: {token}}}\n\
             http_headers: {{X-Scope-OrgID: {{values: [{organisation}]}}}}\n"
        );
        file.write_all(config.as_bytes()).unwrap();
        Self { url: format!("{}/alertmanager", fixture.identity.proxy.url()), file }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        std::process::Command::new(harness::part("amtool"))
            .arg(format!("--alertmanager.url={}", self.url))
            .arg(format!("--http.config.file={}", self.file.path().display()))
            .args(arguments)
            .output()
            .unwrap()
    }

    /// What it prints, if it succeeds.
    #[track_caller]
    fn prints(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it says, if it fails.
    #[track_caller]
    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

// Alertmanager's own client, unmodified.
#[tokio::test(flavor = "multi_thread")]
async fn amtool_reads_alerts_and_makes_and_ends_silences() {
    let fixture = alerts_fixture(&[]).await;
    fixture.hasten().await;
    fixture.fire("Hot").await;
    let editor = fixture.identity.member(&fixture.a, "editor").await;
    let amtool = Amtool::bearer(&fixture, &editor.token, &fixture.a);
    assert!(amtool.prints(&["alert", "query"]).contains("Hot"));
    assert!(amtool.prints(&["alert", "query", "alertname=Hot", "-o", "json"]).contains("critical"));
    assert!(!amtool.prints(&["alert", "query", "alertname=Cold"]).contains("Hot"));

    let add = [
        "silence",
        "add",
        "--comment=night",
        "--duration=1h",
        "--author=somebody",
        "alertname=Hot",
    ];
    let id = amtool.prints(&add).trim().to_owned();
    let made = fixture.of_a("viewer").await.get(&path_of(&id)).await.json();
    assert_eq!(made["createdBy"], "user@example.com", "{made}");
    assert_eq!(made["matchers"][0]["value"], "Hot");
    let listed = amtool.prints(&["silence", "query"]);
    assert!(listed.contains(&id) && listed.contains("night"), "{listed}");
    wait_until("it is silenced", Duration::from_secs(10), async || {
        !amtool.prints(&["alert", "query"]).contains("Hot")
    })
    .await;
    let update = ["silence", "update", "--comment=longer", "--duration=2h", id.as_str()];
    assert!(amtool.prints(&update).contains("longer"));
    amtool.prints(&["silence", "expire", &id]);
    let listed = amtool.prints(&["silence", "query", "-q"]);
    assert!(!listed.contains(&id), "{listed}");

    // The configuration is a document that it can read, and not the tenant's.
    fixture.mimir.configure_alertmanager(&fixture.a, silences::SECRETS).await;
    let config = amtool.prints(&["config", "show"]);
    assert!(config.contains("not shown") && !config.contains("hunter2"), "{config}");
    let routes = amtool.prints(&["config", "routes"]);
    assert!(routes.contains("not-shown"), "{routes}");
    amtool.prints(&["cluster", "show"]);

    // What it may not do.
    let refused = amtool.fails(&["alert", "add", "alertname=Forged"]);
    assert!(refused.contains("405"), "{refused}");
    assert!(amtool.fails(&["silence", "expire", "nonsense"]).contains("status 400"));
    let viewer = fixture.identity.member(&fixture.a, "viewer").await;
    let viewer = Amtool::bearer(&fixture, &viewer.token, &fixture.a);
    assert!(viewer.prints(&["alert", "query", "--silenced"]).contains("Hot"));
    let refused = viewer.fails(&add);
    assert!(refused.contains("status 403"), "{refused}");
    let of_b = Amtool::bearer(&fixture, &editor.token, &fixture.b);
    assert!(of_b.fails(&["alert", "query"]).contains("status 403"));
    // Of a 400 it shows the words.
    let of_both = format!("'{}|{}'", fixture.a, fixture.b);
    let of_both = Amtool::bearer(&fixture, &editor.token, &of_both);
    let refused = of_both.fails(&["alert", "query"]);
    assert!(refused.contains("X-Scope-OrgID"), "{refused}");
}

// A device key as the password of Basic authentication: what a Grafana or a wallboard has.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_reads_alerts_by_basic_authentication() {
    let fixture = alerts_fixture(&[]).await;
    fixture.fire("Hot").await;
    let body = json!({"name": "wallboard", "scopes": ["alerts:read"]});
    let key = fixture.identity.device_key(&fixture.a, body).await;
    let (host, key) = (fixture.identity.proxy.url(), key["key"].as_str().unwrap());
    let url =
        format!("http://wallboard:{key}@{}/alertmanager", host.strip_prefix("http://").unwrap());
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(harness::part("amtool"));
        command.arg(format!("--alertmanager.url={url}")).args(arguments).output().unwrap()
    };
    let alerts = run(&["alert", "query"]);
    assert!(String::from_utf8_lossy(&alerts.stdout).contains("Hot"), "{alerts:?}");
    let add = run(&["silence", "add", "--comment=x", "alertname=Hot"]);
    assert!(!add.status.success(), "{add:?}");
    assert!(String::from_utf8_lossy(&add.stderr).contains("status 403"), "{add:?}");
}

/// Grafana's request through its data source proxy: the headers that it adds (`pkg/api/pluginproxy`).
fn grafana(client: &Client) -> Client {
    let client = client.clone().header("user-agent", "Grafana/12.1.0");
    let client = client.header("x-grafana-org-id", "1").header("x-datasource-uid", "abc");
    client.header("x-forwarded-for", "203.0.113.7").header("accept-encoding", "gzip")
}

// Grafana's data source `alertmanager`: `implementation: mimir` has the address of the proxy, `prometheus`
// that of Alertmanager's API below it (`pkg/services/ngalert/api/lotex_am.go`).
#[tokio::test(flavor = "multi_thread")]
async fn grafanas_data_source_reads_and_silences() {
    let fixture = alerts_fixture(&[]).await;
    fixture.fire("Hot").await;
    let editor = grafana(&fixture.of_a("editor").await);
    let reading = editor.clone().header("accept", "application/json, text/plain, */*");
    // Of both implementations the paths at the proxy are these.
    for target in [
        "/alertmanager/api/v2/alerts/groups",
        "/alertmanager/api/v2/alerts?silenced=true&active=true&inhibited=true&unprocessed=true",
        "/alertmanager/api/v2/alerts?filter=alertname%3D~%22H.*%22&receiver=.*",
        "/alertmanager/api/v2/silences",
        "/alertmanager/api/v2/silences?filter=alertname%3D%22Hot%22&accesscontrol=true",
    ] {
        let answer = reading.get(target).await;
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        // Grafana takes nothing else.
        assert!(answer.header("content-type").contains("json"), "{answer:?}");
    }
    // The status must be JSON with a configuration that can be read (`ExternalAlertmanagerStatus`).
    let status = reading.get(STATUS).await.json();
    assert!(status["config"]["original"].as_str().unwrap().contains("route:"), "{status}");
    assert_eq!(status["cluster"]["peers"], json!([]));
    assert!(status["versionInfo"].is_object() && status["uptime"].is_string(), "{status}");

    // A silence as Grafana marshals it.
    let body = json!({
        "id": "", "comment": "from Grafana", "createdBy": "grafana-admin",
        "startsAt": silence("Hot")["startsAt"], "endsAt": silence("Hot")["endsAt"],
        "matchers": [{"isEqual": true, "isRegex": false, "name": "alertname", "value": "Hot"}],
    });
    let made = json(&editor).post(SILENCES, body.to_string()).await;
    assert_eq!(made.status, 200, "{made:?}");
    let id = made.json()["silenceID"].as_str().unwrap().to_owned();
    let shown = reading.get(&path_of(&id)).await;
    assert_eq!(shown.json()["comment"], "from Grafana");
    assert_ne!(shown.json()["createdBy"], "grafana-admin");
    assert_eq!(editor.send(http::Method::DELETE, &path_of(&id), "").await.status, 200);

    // With `mimir` it also asks for the configuration, which is not served: contact points are rows.
    // What it shows of a refusal is `message`, else the whole text.
    let refused = reading.get("/api/v1/alerts").await;
    assert_eq!(refused.status, 404, "{refused:?}");
    let viewer = grafana(&fixture.of_a("viewer").await);
    let refused = json(&viewer).post(SILENCES, body.to_string()).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(refused.text.contains("alerts:write"), "{refused:?}");
}
