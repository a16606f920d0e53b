//! Everything that runs: three Mimirs on Consul, an S3-compatible server and memcached; the proxy twice on
//! Postgres; two organisations, each with a member and a hub that is a stock Prometheus.

use harness::showcase::{ALICE, BOB, command, two_organisations};
use harness::{
    Backing, Client, Database, Issuer, Monolith, NodeExporter, ORG_A, ORG_B, Postgres, Prometheus,
    Proxy, ProxyOptions, QUICK, RemoteWrite, free_port,
};
use serde_json::json;

use crate::alerts::People;
use crate::say;

/// An organisation with its people and devices.
pub struct Organisation {
    /// For us.
    pub name: &'static str,
    /// In Postgres, and the tenant at Mimir.
    pub id: &'static str,
    /// Of its member.
    pub token: String,
    /// Its hub, which scrapes a node exporter and remote-writes with a device key.
    pub hub: Prometheus,
}

/// The running system.
pub struct System {
    /// What the Mimirs stand on.
    pub backing: Backing,
    /// The Mimirs.
    pub mimirs: Vec<Monolith>,
    /// The proxies.
    pub proxies: [Proxy; 2],
    /// The organisations; the first one's hub speaks remote write 1.0 to the first proxy, the other
    /// one's 2.0 to the second.
    pub organisations: [Organisation; 2],
    pub database: Database,
    /// Who is notified.
    pub people: People,
    _issuer: Issuer,
    _exporter: NodeExporter,
    _postgres: Postgres,
}

impl System {
    /// Starts everything and waits until it takes requests.
    pub async fn start() -> Self {
        say("starting Consul, MinIO, memcached, Postgres, an issuer of Supabase-shaped tokens");
        let backing = Backing::start().await;
        let postgres = Postgres::start().await;
        let issuer = Issuer::start().await;
        say("starting three Mimirs by config/fly/mimir-entrypoint and config/mimir/mimir-3.yaml");
        // Each ruler tells one of the proxies; any copy may be told of any alert.
        let (private, secret) = ([free_port(), free_port()], "0123456789abcdef");
        let start = |(id, port): (&str, u16)| {
            let proxy = format!("127.0.0.1:{port}");
            let events = [("ALERT_EVENTS_HOST", proxy.as_str()), ("ALERT_EVENTS_SECRET", secret)];
            Monolith::start(id, &backing, &events, &QUICK)
        };
        let [first, second] = private;
        let mut mimirs: Vec<Monolith> =
            [("m1", first), ("m2", second), ("m3", second)].map(start).into();
        for mimir in &mut mimirs {
            mimir.wait_ready().await;
        }
        say("starting the proxy twice, and two stock Prometheus");
        let database = postgres.database("topology").await;
        two_organisations(&database).await;
        let people = People::start().await;
        let mut options = ProxyOptions::new(&issuer.url(), &mimirs[0].url())
            .set("database.url", &format!("{:?}", database.url()))
            .set("rules.enabled", "true")
            .set("rules.health_interval", "\"1s\"")
            .set("channels.enabled", "true")
            .set("channels.allow_private_targets", "true")
            .set("channels.min_group_interval", "\"1s\"")
            .set("channels.email_smarthost", &format!("{:?}", people.mail.address()))
            .set("channels.email_from", "\"alerts@example.test\"")
            .set("channels.pagerduty_url", &format!("{:?}", people.pagerduty.url()))
            .set("channels.telegram_url", &format!("{:?}", people.telegram.url()))
            .set("alert_events.enabled", "true")
            .set("alert_events.secret", &format!("{secret:?}"));
        for mimir in &mimirs[1..] {
            options = options.upstream(&mimir.url());
        }
        let proxies = [
            options.clone().internal_port(first).start().await,
            options.internal_port(second).start().await,
        ];
        let exporter = NodeExporter::start().await;
        let member = |user: &str| issuer.token().claim("sub", json!(user)).sign();
        let hub = async |version, organisation: &str, proxy: &Proxy| {
            let name = ["device-key", "create", "--organisation", organisation, "--name", "hub"];
            let key = command(&database, &name);
            Prometheus::start_with_password(version, &exporter, &proxy.url(), "hub", key.trim())
                .await
        };
        let (hub_a, hub_b) = (
            hub(RemoteWrite::V1, ORG_A, &proxies[0]).await,
            hub(RemoteWrite::V2, ORG_B, &proxies[1]).await,
        );
        let organisations = [
            Organisation { name: "A", id: ORG_A, token: member(ALICE), hub: hub_a },
            Organisation { name: "B", id: ORG_B, token: member(BOB), hub: hub_b },
        ];
        Self {
            backing,
            mimirs,
            proxies,
            organisations,
            database,
            people,
            _issuer: issuer,
            _exporter: exporter,
            _postgres: postgres,
        }
    }

    /// A member's client of one of the proxies.
    pub fn member(&self, organisation: &Organisation, proxy: usize) -> Client {
        self.proxies[proxy].client().bearer(&organisation.token)
    }

    /// Prints where everything is.
    pub fn describe(&self) {
        println!("\nRunning until Ctrl-C.\n");
        for (proxy, number) in self.proxies.iter().zip(1..) {
            println!(
                "  proxy {number}      {}   its metrics {}/metrics",
                proxy.url(),
                proxy.internal_url()
            );
        }
        for mimir in &self.mimirs {
            println!(
                "  Mimir {}     {}/   rings: /ingester/ring, /ruler/ring …",
                mimir.id(),
                mimir.url()
            );
        }
        println!("  Consul       {}", self.backing.connection);
        println!("  S3           https://{}", self.backing.r2.endpoint());
        println!("  memcached    {}", self.backing.memcached.address());
        println!("  Postgres     {}", self.database.url());
        for organisation in &self.organisations {
            println!(
                "  hub of {}     {}   tenant {}",
                organisation.name,
                organisation.hub.url(),
                organisation.id
            );
        }
        println!("\n  TOKEN={}", self.organisations[0].token);
        println!(
            "  curl -H \"Authorization: Bearer $TOKEN\" '{}/prometheus/api/v1/query?query=node_load1'",
            self.proxies[0].url()
        );
    }
}
