//! `loadtest/rules`: what a sync of alert rules costs beside the bare requests that it consists of.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::Parser;
use harness::report::median;
use harness::{Cpu, Database, Issuer, Mimir, Postgres, Proxy, ProxyOptions, wait_until};
use tokio::task::JoinSet;
use tokio::time::Instant;

const GROUPS: usize = 3;
const RULES: usize = 10;
const ADMIN_KEY: &str = "an-admin-key-of-more-than-thirty-two-bytes";

const FINISHED: &str = "Full resync of alert rules finished";

/// Compares a sync of alert rules with the bare requests that it consists of.
#[derive(Parser)]
struct Args {
    #[arg(long, default_value_t = 1000)]
    organisations: usize,
    #[arg(long, default_value = "3")]
    rounds: NonZeroUsize,
    /// Requests to Mimir at a time
    #[arg(long, default_value_t = 16)]
    concurrency: usize,
    /// Compare groups by one listing of all tenants
    #[arg(long)]
    list_all: bool,
}

/// What one round measured.
#[derive(Debug)]
struct Round {
    bare_write: Duration,
    /// Mimir's processor time for the bare POSTs, in seconds.
    bare_mimir: f64,
    synced: Synced,
}

/// What one round measured of the proxy, and the bare GETs between its resyncs.
#[derive(Debug)]
struct Synced {
    cold: Duration,
    /// Processor time of the cold sync.
    spent: Spent,
    bare_read: Duration,
    first_unchanged: Duration,
    unchanged: Duration,
}

/// Processor time in seconds.
#[derive(Debug)]
struct Spent {
    mimir: f64,
    proxy: f64,
    postgres: f64,
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let mut rounds = Vec::new();
    for number in 0..args.rounds.get() {
        let round = round(&args, number).await;
        println!("round {}: {round:?}", number + 1);
        rounds.push(round);
    }
    let median = |of: &dyn Fn(&Round) -> f64| median(rounds.iter().map(of));
    let ratio = |one: Duration, other: Duration| one.as_secs_f64() / other.as_secs_f64();
    println!(
        "\n{} organisations x {GROUPS} groups x {RULES} rules, {} at once, medians of {} rounds",
        args.organisations, args.concurrency, args.rounds
    );
    println!(
        "processor time of a cold sync, in times of Mimir's for the bare POSTs: Mimir {:.2}, proxy {:.2}, Postgres {:.2}",
        median(&|r| r.synced.spent.mimir / r.bare_mimir),
        median(&|r| r.synced.spent.proxy / r.bare_mimir),
        median(&|r| r.synced.spent.postgres / r.bare_mimir),
    );
    println!(
        "cold sync / bare POSTs:                {:.2}",
        median(&|r| ratio(r.synced.cold, r.bare_write))
    );
    println!(
        "first full resync / bare GETs:         {:.2}",
        median(&|r| ratio(r.synced.first_unchanged, r.synced.bare_read))
    );
    println!(
        "further full resyncs / bare GETs:      {:.2}",
        median(&|r| ratio(r.synced.unchanged, r.synced.bare_read))
    );
}

async fn round(args: &Args, number: usize) -> Round {
    // In every other round the bare client goes last, beside nothing that the proxy has left running.
    let is_bare_first = number.is_multiple_of(2);
    let first = if is_bare_first { Some(bare_posts(args).await) } else { None };
    let synced = synced(args).await;
    let (bare_write, bare_mimir) = match first {
        Some(measured) => measured,
        None => bare_posts(args).await,
    };
    Round { bare_write, bare_mimir, synced }
}

/// How long the bare POSTs take, and what they take of Mimir.
async fn bare_posts(args: &Args) -> (Duration, f64) {
    let mimir = start_mimir().await;
    let before = spent_by(mimir.process_id());
    let took = write_bare(&mimir, args).await;
    (took, spent_by(mimir.process_id()) - before)
}

/// The processor time of a process and its children, in seconds.
fn spent_by(process: u32) -> f64 {
    Cpu::of(process).total / 1e6
}

async fn synced(args: &Args) -> Synced {
    // Each part has a Mimir of its own: what a tenant costs it grows with the tenants that it has.
    let mimir = start_mimir().await;
    let postgres = Postgres::start().await;
    let database = postgres.database("rules").await;
    let migrated = std::process::Command::new(Proxy::binary())
        .arg("migrate")
        .env("MTP__DATABASE__URL", database.url())
        .status();
    assert!(migrated.expect("migrate").success());
    fill(&database, args.organisations).await;

    let spent = || [mimir.process_id(), postgres.process_id()].map(spent_by);
    let [mimir_before, postgres_before] = spent();
    let (proxy, cold) = sync(&mimir, &database, args).await;
    let [mimir_after, postgres_after] = spent();
    let spent = Spent {
        mimir: mimir_after - mimir_before,
        proxy: spent_by(proxy.process.id()),
        postgres: postgres_after - postgres_before,
    };
    let first_unchanged = again(&proxy, 2).await;
    let mut unchanged = Vec::new();
    let mut bare_reads = Vec::new();
    for look in 3..8 {
        bare_reads.push(read_bare(&mimir, args).await);
        unchanged.push(again(&proxy, look).await);
    }
    unchanged.sort();
    bare_reads.sort();
    let sets = proxy.metric("mimir_tenant_proxy_rules_group_writes_total{kind=\"set\"}").await;
    assert_eq!(sets as usize, args.organisations * GROUPS, "a look without changes writes nothing");
    Synced { cold, spent, bare_read: bare_reads[2], first_unchanged, unchanged: unchanged[2] }
}

async fn fill(database: &Database, organisations: usize) {
    database
        .execute(&format!(
            "insert into organisation (id) select 'org-' || n from generate_series(1, {organisations}) as n;
             insert into alert_rule (organisation_id, name, expr, rule_group, for_duration, labels, annotations)
             select 'org-' || o, 'Alert' || r, 'sum by (hub) (rate(errors_total{{code=\"' || r || '\"}}[5m])) > ' || r,
                    'group' || g, '5m', '{{\"severity\": \"page\"}}',
                    '{{\"summary\": \"hub {{{{ $labels.hub }}}} has errors\"}}'
             from generate_series(1, {organisations}) as o, generate_series(1, {GROUPS}) as g,
                  generate_series(1, {RULES}) as r"
        ))
        .await;
}

/// Starts the proxy, and gives how long its first look at everything took.
async fn sync(mimir: &Mimir, database: &Database, args: &Args) -> (Proxy, Duration) {
    let issuer = Issuer::start().await;
    let proxy = ProxyOptions::new(&issuer.url(), &mimir.url())
        .set("database.url", &format!("{:?}", database.url()))
        .set("auth.admin_key", &format!("{ADMIN_KEY:?}"))
        .set("rules.enabled", "true")
        .set("rules.reconcile_interval", "\"1h\"")
        .set("rules.concurrency", &args.concurrency.to_string())
        .set("rules.list_all_tenants", &args.list_all.to_string())
        .start()
        .await;
    let took = reconciled(&proxy, 1).await;
    (proxy, took)
}

async fn again(proxy: &Proxy, number: usize) -> Duration {
    let client = proxy.client().bearer(ADMIN_KEY);
    client.post("/admin/rules/sync", "").await;
    reconciled(proxy, number).await
}

/// How long the look at everything of this number took, by the proxy's own log.
async fn reconciled(proxy: &Proxy, number: usize) -> Duration {
    let mut took: Option<serde_json::Value> = None;
    wait_until("everything has been looked at", Duration::from_secs(300), async || {
        let log = proxy.process.log();
        // The rest of the log is long, and to parse it would take the processor from what is measured.
        let mut looks = log.lines().filter(|line| line.contains(FINISHED));
        took = looks.nth(number - 1).and_then(|line| serde_json::from_str(line).ok());
        took.is_some()
    })
    .await;
    let line = took.expect("a line");
    assert_eq!(line["failed"], 0, "{line}");
    let text = line["duration_ms"].to_string();
    Duration::from_millis(text.trim_matches('"').parse().expect("a number"))
}

/// Writes groups like those of [`fill`], each rule with the annotation by which the proxy finds its row: Mimir parses
/// every annotation as a template, so it is part of what a POST costs.
async fn write_bare(mimir: &Mimir, args: &Args) -> Duration {
    let mut yaml = Vec::new();
    for group in 1..=GROUPS {
        let rules: String = (1..=RULES)
            .map(|rule| {
                format!(
                    "- alert: \"Alert{rule}\"\n  expr: \"sum by (hub) (rate(errors_total{{code=\\\"{rule}\\\"}}[5m])) > {rule}\"\n  \
                     for: 5m\n  labels:\n    severity: page\n  annotations:\n    summary: \"hub {{{{ $labels.hub }}}} has errors\"\n    alert_rule_id: \"00000000-0000-4000-8000-0000000000{rule:02}\"\n"
                )
            })
            .collect();
        yaml.push(format!("name: \"group{group}\"\ninterval: 1m\nrules:\n{rules}"));
    }
    let url = format!("{}/prometheus/config/v1/rules/alert_rule", mimir.url());
    let groups = Arc::new(yaml);
    run(args, move |http, number| {
        let (url, groups) = (url.clone(), Arc::clone(&groups));
        async move {
            for group in groups.iter() {
                let request = http.post(&url).header("x-scope-orgid", format!("bare-{number}"));
                let answer = request.header("content-type", "application/yaml").body(group.clone());
                let answer = answer.send().await.expect("answer");
                assert_eq!(answer.status(), 202, "{:?}", answer.text().await);
            }
        }
    })
    .await
}

async fn read_bare(mimir: &Mimir, args: &Args) -> Duration {
    let url = format!("{}/prometheus/config/v1/rules", mimir.url());
    run(args, move |http, number| {
        let url = url.clone();
        async move {
            let request = http.get(&url).header("x-scope-orgid", format!("org-{number}"));
            let answer = request.send().await.expect("answer");
            assert_eq!(answer.status(), 200);
            assert!(!answer.bytes().await.expect("body").is_empty());
        }
    })
    .await
}

/// Does something for every organisation, so many at once.
async fn run<F, A>(args: &Args, work: F) -> Duration
where
    F: Fn(reqwest::Client, usize) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    let http = reqwest::Client::builder().no_proxy().build().expect("client");
    let next = Arc::new(AtomicUsize::new(1));
    let organisations = args.organisations;
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..args.concurrency {
        let (http, next, work) = (http.clone(), Arc::clone(&next), work.clone());
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number > organisations {
                    return;
                }
                work(http.clone(), number).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("a task");
    }
    began.elapsed()
}

/// A Mimir that loads changed rules every ten seconds, as by default. That of the tests does every second, and then
/// loads tenants while others are still written: how long a sync takes would be squared.
async fn start_mimir() -> Mimir {
    Mimir::start_with(&[
        "-ruler.inbound-sync-queue-poll-interval=10s",
        "-ruler.outbound-sync-queue-poll-interval=10s",
    ])
    .await
}
