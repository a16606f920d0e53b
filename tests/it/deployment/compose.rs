//! compose.yaml: what it promises, and the programs that it starts, with the same arguments, variables and
//! files. There is no container engine here, so names of services become addresses, and mounts become paths.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::{Client, Database, Postgres, Process, Proxy, free_port, part, samples, wait_until};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::repository;

const ADMIN_KEY: &str = "0123456789abcdef0123456789abcdef";

fn compose() -> Value {
    let text = std::fs::read_to_string(repository("compose.yaml")).unwrap();
    // As compose does it with the variables of the shell.
    let text = text
        .replace("${ADMIN_KEY:?set it to a random text of 32 characters or more}", ADMIN_KEY)
        .replace("${ISSUER:-https://supabase.invalid/auth/v1}", "https://supabase.invalid/auth/v1")
        .replace("${PROXY_IMAGE:-mimir-tenant-proxy:local}", "mimir-tenant-proxy:local");
    assert!(!text.contains("${"), "a variable that this test does not know");
    let mut compose: Value = serde_saphyr::from_str(&text).unwrap();
    let services = compose["services"].as_object_mut().unwrap();
    for service in services.values_mut() {
        // A reader of YAML may leave the merge to us.
        if let Some(Value::Object(merged)) =
            service.get_mut("environment").and_then(|all| all.as_object_mut()?.remove("<<"))
        {
            let environment = service["environment"].as_object_mut().unwrap();
            for (name, value) in merged {
                environment.entry(name).or_insert(value);
            }
        }
    }
    compose
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// Where the services are here.
struct Places {
    mimir: u16,
    public: u16,
    private: u16,
    database: Database,
}

impl Places {
    fn here(&self, text: &str) -> String {
        let database = "postgres://postgres:local@postgres:5432/postgres";
        text.replace(database, &self.database.url())
            .replace("http://mimir:8080", &format!("http://127.0.0.1:{}", self.mimir))
            .replace("@proxy:9090", &format!("@127.0.0.1:{}", self.private))
    }

    /// The proxy's program with a service's arguments and variables.
    fn prepare(&self, command: &mut Command, service: &Value) {
        command.args(texts(&service["command"])).env_clear().env("PATH", "/usr/bin:/bin");
        for (name, value) in service["environment"].as_object().unwrap() {
            command.env(name, self.here(value.as_str().unwrap()));
        }
        // In a container these are free; they have the same defaults in every one.
        command.env("MTP__LISTEN__ADDRESS", format!("127.0.0.1:{}", self.public));
        command.env("MTP__LISTEN__INTERNAL_ADDRESS", format!("127.0.0.1:{}", self.private));
    }

    /// Mimir as its service has it, with the file that is mounted.
    async fn start_mimir(&self, service: &Value, directory: &TempDir) -> Process {
        let mounts = texts(&service["volumes"]);
        let mount = mounts.iter().find_map(|mount| mount.strip_suffix(":/etc/mimir/mimir.yaml:ro"));
        let config = std::fs::read_to_string(repository(mount.unwrap())).unwrap();
        let data = directory.path().join("data");
        let config = self
            .here(&config)
            .replace("/data", data.to_str().unwrap())
            .replace("127.0.0.1:8080", &format!("127.0.0.1:{}", self.mimir))
            .replace("http_listen_port: 8080", &format!("http_listen_port: {}", self.mimir))
            .replace("grpc_listen_port: 9095", &format!("grpc_listen_port: {}", free_port()))
            .replace("bind_port: 7946", &format!("bind_port: {}", free_port()));
        let file = directory.path().join("mimir.yaml");
        std::fs::write(&file, config).unwrap();
        let arguments = texts(&service["command"]);
        let arguments: Vec<String> = arguments
            .iter()
            .map(|text| text.replace("/etc/mimir/mimir.yaml", file.to_str().unwrap()))
            .collect();
        let mut mimir = Process::start("mimir", &part("mimir"), directory.path(), |command| {
            command.args(&arguments).current_dir(directory.path());
        });
        let ready = format!("http://127.0.0.1:{}/ready", self.mimir);
        mimir.wait_ready(&ready, "ready", Duration::from_secs(120)).await;
        mimir
    }
}

// Mimir has no authentication, and neither has the proxy's private port.
#[test]
fn compose_publishes_the_proxys_public_port_and_nothing_else() {
    let compose = compose();
    let services = compose["services"].as_object().unwrap();
    let names: Vec<&String> = services.keys().collect();
    assert_eq!(names.len(), 4, "{names:?}");
    for (name, service) in services {
        let ports = service.get("ports").map(texts).unwrap_or_default();
        let expected: &[&str] = if name == "proxy" { &["127.0.0.1:8080:8080"] } else { &[] };
        assert_eq!(ports, expected, "{name}");
        for key in ["network_mode", "privileged", "user", "cap_add", "entrypoint"] {
            assert!(service.get(key).is_none(), "{name} has {key}");
        }
    }
    for name in ["migrate", "proxy"] {
        // The Dockerfile's image, which another test starts, without the long training.
        let build = json!({ "context": ".", "args": { "PROFILE": "none" } });
        assert_eq!(services[name]["build"], build);
        assert_eq!(services[name]["image"], services["proxy"]["image"]);
    }
    // The Mimir of the other samples.
    let dockerfile = std::fs::read_to_string(repository("config/fly/mimir.Dockerfile")).unwrap();
    let version = services["mimir"]["image"].as_str().unwrap().rsplit_once(':').unwrap().1;
    assert!(dockerfile.contains(&format!("MIMIR_VERSION={version}")), "{version}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_compose_starts_takes_a_devices_samples_and_answers_the_operator() {
    let compose = compose();
    let services = &compose["services"];
    let directory = TempDir::with_prefix("compose-").unwrap();
    let places = Places {
        mimir: free_port(),
        public: free_port(),
        private: free_port(),
        database: Postgres::shared().await.database("compose").await,
    };
    let _mimir = places.start_mimir(&services["mimir"], &directory).await;

    let mut migrate = Command::new(Proxy::binary());
    places.prepare(&mut migrate, &services["migrate"]);
    let migrated = migrate.output().unwrap();
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));

    let start = |name: &str, directory: &Path| {
        Process::start(name, &Proxy::binary(), directory, |command| {
            places.prepare(command, &services["proxy"]);
        })
    };
    let mut proxy = start("proxy", directory.path());
    let live = format!("http://127.0.0.1:{}/live", places.private);
    proxy.wait_ready(&live, "", Duration::from_secs(30)).await;

    // As the head of the file says it.
    places.database.execute("insert into organisation (id, name) values ('acme', 'Acme')").await;
    let mut create = Command::new(Proxy::binary());
    places.prepare(&mut create, &services["migrate"]);
    let mut create_key = Command::new(Proxy::binary());
    for (name, value) in create.get_envs() {
        create_key.env(name, value.unwrap_or_default());
    }
    let created = create_key
        .args(["device-key", "create", "--organisation", "acme", "--name", "hub-1"])
        .output()
        .unwrap();
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    let key = String::from_utf8(created.stdout).unwrap();

    let client = Client::new(&format!("http://127.0.0.1:{}", places.public));
    let device = client.clone().bearer(key.trim()).header("content-encoding", "snappy");
    let device = device.header("content-type", "application/x-protobuf");
    wait_until("a push is taken", Duration::from_secs(60), async || {
        let body = samples::remote_write("compose_works", &[], 1.0);
        device.post("/api/v1/push", body).await.status == 200
    })
    .await;
    let query = "/prometheus/api/v1/query?query=compose_works";
    let operator = client.clone().bearer(ADMIN_KEY).header("x-scope-orgid", "acme");
    wait_until("the operator reads it", Duration::from_secs(30), async || {
        let answer = operator.get(query).await;
        assert_eq!(answer.status, 200, "{answer:?}\n{}", proxy.log());
        answer.text.contains("compose_works")
    })
    .await;
    assert_eq!(client.get(query).await.status, 401);

    // Mimir's ruler reaches the proxy's private port with the secret that both files have.
    let rule = "insert into alert_rule (organisation_id, name, expr, evaluation_interval) \
                values ('acme', 'Works', 'compose_works == 1', '1s')";
    places.database.execute(rule).await;
    wait_until("the alert is a row", Duration::from_secs(120), async || {
        !places.database.query("select from alert_event where state = 'firing'").await.is_empty()
    })
    .await;
}
