//! The running stack: Mimir, Postgres, the stand-in of Supabase, the proxy, hubs that write, two
//! organisations with members, alert rules and a notification channel.

use std::path::Path;
use std::time::Duration;

use harness::showcase::command;
use harness::{
    Client, Database, Inbox, Mimir, ORG_A, ORG_B, Postgres, Proxy, ProxyOptions, Site, Supabase,
    free_port, wait_until,
};
use serde_json::json;
use tokio::task::AbortHandle;

use crate::hubs::{COLD_STORE, Fleet, HUBS, SILENT, Sender};
use crate::progress::step;
use crate::with_alerts;

/// Everything that runs. It ends when this is dropped.
pub(crate) struct Stack {
    telemetry: AbortHandle,
    pub(crate) supabase: Supabase,
    pub(crate) site: Option<Site>,
    pub(crate) proxy: Proxy,
    pub(crate) inbox: Inbox,
    pub(crate) mimir: Mimir,
    pub(crate) database: Database,
    pub(crate) operator_token: String,
    pub(crate) device_key: String,
    _postgres: Postgres,
}

/// An organisation's identifier and name.
pub(crate) const ORGANISATIONS: [(&str, &str); 2] =
    [(ORG_A, "Aldermoor Farm"), (ORG_B, "Brackwater Glasshouses")];

/// A login: a member of some organisations with a role in each.
pub(crate) struct Login {
    pub(crate) email: &'static str,
    pub(crate) memberships: &'static [(&'static str, &'static str)],
}

/// All have this password.
pub(crate) const PASSWORD: &str = "hubs-in-the-barn";

pub(crate) const LOGINS: [Login; 6] = [
    Login { email: "olivia@aldermoor.example", memberships: &[(ORG_A, "owner")] },
    Login { email: "adam@aldermoor.example", memberships: &[(ORG_A, "admin")] },
    Login { email: "edith@aldermoor.example", memberships: &[(ORG_A, "editor")] },
    Login { email: "victor@aldermoor.example", memberships: &[(ORG_A, "viewer")] },
    Login { email: "bruno@brackwater.example", memberships: &[(ORG_B, "admin")] },
    Login { email: "kim@agronomy.example", memberships: &[(ORG_A, "editor"), (ORG_B, "viewer")] },
];

/// What Mimir's ruler shows to the private port.
const RULER_SECRET: &str = "0123456789abcdef";

impl Stack {
    pub(crate) async fn start(lifetime: Duration, dashboard: &Path) -> Self {
        let private = free_port();
        let (mimir, (postgres, database)) = tokio::join!(
            step("Mimir", start_mimir(private)),
            step("PostgreSQL and the tables", start_postgres()),
        );
        let supabase = step("a stand-in for Supabase, with six logins", async {
            let supabase = Supabase::start(&database, lifetime).await;
            add_people(&supabase, &database).await;
            supabase
        })
        .await;
        let inbox = Inbox::start().await;
        let is_built = dashboard.join("index.html").is_file();
        let site = if is_built { Some(Site::start(dashboard).await) } else { None };
        let operator_token = format!("demo-operator-{}", uuid::Uuid::new_v4().simple());
        let options =
            options(&supabase, &mimir, &database, site.as_ref(), &operator_token, lifetime);
        let proxy = step("the proxy", options.internal_port(private).start()).await;
        if let Some(site) = &site {
            site.configure(json!({
                "supabaseUrl": supabase.url(),
                "supabaseAnonKey": supabase.anon_key(),
                "proxyUrl": proxy.url(),
            }));
        }
        let (senders, device_key) = step("device keys", async { device_keys(&database) }).await;
        let fleet = Fleet::new(proxy.client(), senders);
        step("a day of telemetry, remote-written by nine hubs", async {
            fleet.write_history().await;
            silence_a_hub(&database).await;
        })
        .await;
        let telemetry = tokio::spawn(fleet.run()).abort_handle();
        step("alert rules and a notification channel", write_rules(&database, &inbox)).await;
        step("the first alert", first_alert(&database, &inbox)).await;
        Self {
            telemetry,
            supabase,
            site,
            proxy,
            inbox,
            mimir,
            database,
            operator_token,
            device_key,
            _postgres: postgres,
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.telemetry.abort();
    }
}

async fn start_mimir(private: u16) -> Mimir {
    // What was back-filled is older than what ingesters are asked for by default.
    let mimir = Mimir::start_with(&["-querier.query-ingesters-within=0"]).await;
    // Rulers send each alert to Mimir's own Alertmanager, and to the proxy's private port.
    let receivers = format!(
        "{},http://mimir:{RULER_SECRET}@127.0.0.1:{private}/alertmanager",
        mimir.alertmanager_url()
    );
    let limits =
        format!("{{ruler_alertmanager_client_config: {{alertmanager_url: \"{receivers}\"}}}}");
    for (organisation, _) in ORGANISATIONS {
        mimir.override_limits(organisation, &limits).await;
    }
    mimir
}

async fn start_postgres() -> (Postgres, Database) {
    let postgres = Postgres::start().await;
    let database = postgres.database("demo").await;
    Supabase::prepare(&database).await;
    command(&database, &["migrate"]);
    // Silence is judged only after somebody has watched for as long; nobody shall wait for that here.
    database
        .execute("update alert_event_watch set watching_since = now() - interval '1 day', watched_at = now()")
        .await;
    (postgres, database)
}

async fn add_people(supabase: &Supabase, database: &Database) {
    for (id, name) in ORGANISATIONS {
        let sql = format!("insert into organisation (id, name) values ('{id}', '{name}')");
        database.execute(&sql).await;
    }
    for login in &LOGINS {
        let user = supabase.add_user(login.email, PASSWORD).await;
        for (organisation, role) in login.memberships {
            let sql = format!(
                "insert into membership (user_id, organisation_id, role) values ('{user}', '{organisation}', '{role}')"
            );
            database.execute(&sql).await;
        }
    }
}

fn options(
    supabase: &Supabase,
    mimir: &Mimir,
    database: &Database,
    site: Option<&Site>,
    operator_token: &str,
    lifetime: Duration,
) -> ProxyOptions {
    // Vite's development server, and the dashboard with its previews as Cloudflare Pages names them.
    let mut origins = vec!["http://localhost:5173".to_owned()];
    let mut options = ProxyOptions::new(&supabase.issuer(), &mimir.url())
        .set("database.url", &format!("{:?}", database.url()))
        .set("database.last_used_interval", "\"1s\"")
        .set("auth.admin_key", &format!("{operator_token:?}"))
        // People sign in to the console as to the dashboard.
        .set("console.supabase_key", &format!("{:?}", supabase.anon_key()))
        .set("auth.check_sessions", "true")
        .set("database.session_ttl", "\"3s\"");
    options = with_alerts(options, RULER_SECRET);
    if let Some(site) = site {
        origins.push(site.url());
        origins.push(site.url().replace("localhost", "*.preview.localhost"));
        let alerts = format!("{}/#/alerts?org={{organisation_id}}", site.url());
        options = options.set("channels.dashboard_url", &format!("{alerts:?}"));
    }
    if lifetime < Duration::from_secs(300) {
        // A token that expires soon shall be refused soon.
        options = options.set("auth.leeway", "\"1s\"");
    }
    options.set("cors.allowed_origins", &format!("{origins:?}"))
}

/// A key for each hub, and one to play with.
fn device_keys(database: &Database) -> (Vec<Sender>, String) {
    let create = |organisation: &str, name: &str| {
        let arguments = ["device-key", "create", "--organisation", organisation, "--name", name];
        command(database, &arguments).trim().to_owned()
    };
    std::thread::scope(|threads| {
        let keys: Vec<_> = HUBS
            .iter()
            .map(|hub| {
                threads.spawn(move || Sender { hub, key: create(hub.organisation, hub.name) })
            })
            .collect();
        let spare = threads.spawn(|| create(ORG_A, "workbench"));
        let senders = keys.into_iter().map(|key| key.join().expect("a key")).collect();
        (senders, spare.join().expect("a key"))
    })
}

/// Makes one hub's last write as old as its last sample, and lets the proxy tell of silent hubs.
async fn silence_a_hub(database: &Database) {
    let used =
        format!("select from device_key where name = '{SILENT}' and last_used_at is not null");
    wait_until("the silent hub's last use is written", Duration::from_secs(30), async || {
        !database.query(&used).await.is_empty()
    })
    .await;
    database
        .execute(&format!(
            "update device_key set last_used_at = now() - interval '20 minutes' where name = '{SILENT}';
             update device_key set created_at = now() - interval '40 days' where name <> 'workbench';
             update organisation set device_silent_after = '15m'"
        ))
        .await;
}

async fn write_rules(database: &Database, inbox: &Inbox) {
    let rules = format!(
        "insert into alert_rule (organisation_id, name, expr, for_duration, evaluation_interval, enabled, labels, annotations)
         values
         ('{ORG_A}', 'ColdStoreWarm', 'hub_temperature_celsius{{hub=\"{COLD_STORE}\"}} > 8', '0s', '5s', true,
          '{{\"severity\": \"critical\"}}',
          '{{\"summary\": \"{{{{ $labels.hub }}}} is at {{{{ $value | printf \\\"%.1f\\\" }}}} °C; the limit is 8\"}}'),
         ('{ORG_A}', 'HubSilent', 'count_over_time(hub_samples_total[1h]) unless count_over_time(hub_samples_total[5m])', '0s', '15s', true,
          '{{\"severity\": \"warning\"}}', '{{\"summary\": \"{{{{ $labels.hub }}}} has not written for 5 minutes\"}}'),
         ('{ORG_A}', 'BatteryLow', 'hub_battery_volts < 3.4', '10m', '1m', true,
          '{{\"severity\": \"warning\"}}', '{{\"summary\": \"{{{{ $labels.hub }}}} has {{{{ $value }}}} V left\"}}'),
         ('{ORG_A}', 'TooHumid', 'avg by (hub) (hub_humidity_percent > 95', '5m', '1m', true,
          '{{\"severity\": \"warning\"}}', '{{\"summary\": \"{{{{ $labels.hub }}}} is too humid\"}}'),
         ('{ORG_A}', 'UplinkWeak', 'hub_uplink_rssi_dbm < -85', '10m', '1m', false,
          '{{\"severity\": \"warning\"}}', '{{\"summary\": \"the uplink of {{{{ $labels.hub }}}} is weak\"}}'),
         ('{ORG_B}', 'BoilerHot', 'hub_temperature_celsius{{hub=\"boiler-room\"}} > 45', '1m', '15s', true,
          '{{\"severity\": \"critical\"}}', '{{\"summary\": \"the boiler room is at {{{{ $value }}}} °C\"}}')"
    );
    let channels = format!(
        "with channel as (
             insert into notification_channel (organisation_id, name, kind, secrets, is_default)
             values ('{ORG_A}', 'On call', 'webhook', '{{\"url\": \"{}\"}}', true) returning id)
         insert into notification_route (organisation_id, channel_id, matchers, group_wait, group_interval)
         select '{ORG_A}', id, '[\"severity=\\\"critical\\\"\"]', '0s', '5s' from channel",
        inbox.url()
    );
    database.execute(&channels).await;
    let live = "select from notification_channel_status where state = 'live'";
    wait_until("the channel is live", Duration::from_secs(60), async || {
        !database.query(live).await.is_empty()
    })
    .await;
    database.execute(&rules).await;
    let judged =
        "select from alert_rule_status where state in ('stored', 'live', 'invalid', 'disabled')";
    wait_until("the rules are judged", Duration::from_secs(60), async || {
        database.query(judged).await.len() == 6
    })
    .await;
}

async fn first_alert(database: &Database, inbox: &Inbox) {
    let firing = "select from alert_event where state = 'firing' and labels ->> 'alertname' = 'ColdStoreWarm'";
    wait_until("an alert fires", Duration::from_secs(120), async || {
        !database.query(firing).await.is_empty()
    })
    .await;
    let inbox = Client::new(&inbox.url());
    wait_until("it is notified", Duration::from_secs(120), async || {
        inbox.get("/").await.text.contains("ColdStoreWarm")
    })
    .await;
}
