//! One seed: a copy, its instances and its clients, faults for some minutes, and then silence, in which everything
//! must be given back.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use fastrand::Rng;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use mimir_tenant_proxy::app::simulated::{Copy, InUse};
use mimir_tenant_proxy::clock::Clock;
use mimir_tenant_proxy::config::{Config, Environment};
use mimir_tenant_proxy::net::simulated::Network;
use mimir_tenant_proxy::telemetry::Logging;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::clients::{Callers, tokens};
use crate::courses;
use crate::journal::Journal;
use crate::mimir::Instance;

/// Where the copy listens.
pub const PROXY: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 100)), 8080);

const ISSUER: &str = "https://issuer.example/auth/v1";
const SECRET: &str = "a secret of the simulation, long enough";
const NOW: i64 = 1_800_000_000;

/// What became of a seed.
pub struct Ran {
    pub broken: Vec<String>,
    pub counts: BTreeMap<&'static str, u64>,
    /// Line by line, what happened.
    pub story: String,
}

/// The log goes to standard output, if `SEED` says which seed is looked at.
static LOGGING: LazyLock<Logging> = LazyLock::new(|| {
    let filter = if crate::from_environment("SEED").is_some() { "debug" } else { "off" };
    let text = format!("[log]\nfilter = \"{filter}\"\nformat = \"pretty\"\n{}", common(&[]));
    Logging::start(&Config::read(&text, &Environment::default()).expect("a configuration").log)
});

fn common(instances: &[SocketAddr]) -> String {
    let urls: Vec<String> = instances.iter().map(|at| format!("\"http://{at}\"")).collect();
    let urls = if urls.is_empty() { "\"http://192.0.2.1:1\"".to_owned() } else { urls.join(", ") };
    format!(
        "[auth]\nissuer = \"{ISSUER}\"\njwks_url = \"\"\nhs256_secret = \"{SECRET}\"\n\
         [upstream]\nurls = [{urls}]\n"
    )
}

/// What differs from seed to seed.
struct Plan {
    text: String,
    instances: Vec<SocketAddr>,
    clients: usize,
    trouble: u32,
    is_tight: bool,
}

impl Plan {
    fn draw(rng: &mut Rng) -> Self {
        let count = rng.usize(1..4);
        let instances: Vec<SocketAddr> =
            (0..count).map(|at| format!("192.0.2.{}:8080", 10 + at).parse().unwrap()).collect();
        let is_tight = rng.u8(..4) == 0;
        let mut text = common(&instances);
        text += &format!("response_timeout = \"{}s\"\n", [3, 20, 150][rng.usize(..3)]);
        text += &format!("replay_buffer_bytes = \"{}KiB\"\n", [1, 32, 128][rng.usize(..3)]);
        text += &format!("retry_reserve = {}\n", [1, 10][rng.usize(..2)]);
        text += "[listen]\nworkers = 2\n[limits]\n";
        text += &format!("upload_buffer_bytes = \"{}KiB\"\n", [1, 16, 64][rng.usize(..3)]);
        text += &format!("upload_total_bytes = \"{}KiB\"\n", [4, 64, 65536][rng.usize(..3)]);
        if is_tight {
            text += "push_in_flight = 2\notlp_in_flight = 1\nquery_in_flight = 2\nin_flight = 6\n";
        }
        text += "[log]\naccess = false\n";
        let trouble = [0, 5, 15, 30][rng.usize(..4)];
        Self { text, instances, clients: rng.usize(1..9), trouble, is_tight }
    }
}

/// Runs a seed.
pub fn run(seed: u64) -> Ran {
    let recorder = PrometheusBuilder::new().build_recorder();
    let exposition = recorder.handle();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    fastrand::seed(seed);
    let mut rng = Rng::with_seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let ran = runtime.block_on(async {
        let (plan, journal) = (Plan::draw(&mut rng), Journal::new());
        journal.tell(&format!(
            "seed {seed}: {} instances, {} clients, trouble {}\n{}",
            plan.instances.len(),
            plan.clients,
            plan.trouble,
            plan.text
        ));
        journal.lock().is_tight = plan.is_tight;
        journal.lock().is_calm = plan.trouble == 0;
        simulate(&plan, &mut rng, &journal, exposition).await;
        let mut happened = journal.lock();
        happened.check();
        Ran {
            broken: happened.broken.clone(),
            counts: happened.counts.clone(),
            story: std::mem::take(&mut happened.story),
        }
    });
    drop(runtime);
    ran
}

async fn simulate(plan: &Plan, rng: &mut Rng, journal: &Journal, exposition: PrometheusHandle) {
    let (mut fates, trouble) = (rng.fork(), plan.trouble);
    let of_lines = Rc::new(Cell::new(trouble));
    let now = Rc::clone(&of_lines);
    let network =
        Network::begin(rng.u64(..), Box::new(move |_| courses::to_instance(&mut fates, now.get())));
    let mut instances: Vec<Instance> = Vec::new();
    for address in &plan.instances {
        instances.push(Instance::start(&network, *address, rng.fork(), trouble, journal));
    }
    let config = Config::read(&plan.text, &Environment::default()).expect("a configuration");
    let (clock, hand) = Clock::manual(NOW);
    let listener = network.listen(PROXY);
    let copy = Copy::start(&config, &LOGGING, clock, exposition.clone(), listener).await;
    let copy = copy.expect("a copy");

    // Clients and faults.
    let callers = Arc::new(Callers {
        network: Arc::clone(&network),
        journal: journal.clone(),
        trouble,
        tokens: tokens(SECRET, ISSUER, NOW),
        next: AtomicU64::new(1),
    });
    let mut clients = JoinSet::new();
    for _ in 0..plan.clients {
        clients.spawn(Arc::clone(&callers).run(rng.fork()));
    }
    {
        let mut faults =
            std::pin::pin!(trouble_all(plan, rng, &network, &mut instances, &hand, journal));
        loop {
            tokio::select! {
                biased;
                joined = clients.join_next() => match joined {
                    Some(Err(error)) => journal.broken(format!("a client: {error}")),
                    Some(Ok(())) => {}
                    None => break,
                },
                () = &mut faults => unreachable!("faults go on"),
            }
        }
    }

    // Silence. Whatever was in use is given back: idle connections after two minutes at the latest.
    journal.tell("silence");
    of_lines.set(0);
    for (at, address) in plan.instances.iter().enumerate() {
        if instances[at].accepting.is_finished() {
            instances[at] = Instance::start(&network, *address, rng.fork(), 0, journal);
        }
    }
    sleep(Duration::from_secs(420)).await;
    let mut left = String::new();
    for _ in 0..50 {
        left = still_in_use(&copy, &network, &exposition);
        if left.is_empty() {
            break;
        }
        sleep(Duration::from_millis(77)).await; // between two probes
    }
    if !left.is_empty() {
        journal.broken(format!("in use after all is over: {left}"));
    }

    // The end.
    if tokio::time::timeout(Duration::from_secs(60), copy.drain()).await.is_err() {
        journal.broken("the copy does not end".to_owned());
    }
    drop(instances);
    drop(callers);
    sleep(Duration::from_secs(120)).await;
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    if tasks > 0 {
        journal.broken(format!("{tasks} tasks are left"));
    }
}

/// What is in use that should not be.
fn still_in_use(copy: &Copy, network: &Network, exposition: &PrometheusHandle) -> String {
    let mut left = String::new();
    let in_use = copy.in_use();
    if in_use != InUse::default() {
        left += &format!("{in_use:?} ");
    }
    if network.open_ends() > 0 {
        left += &format!(
            "{} ends of connections: {} ",
            network.open_ends(),
            network.states().join(", ")
        );
    }
    for line in exposition.render().lines() {
        let is_of_use =
            ["connections ", "requests_in_flight ", "upload_buffer_bytes "].iter().any(|name| {
                line.strip_prefix("mimir_tenant_proxy_").is_some_and(|l| l.starts_with(name))
            });
        if is_of_use && !line.ends_with(" 0") {
            left += line;
        }
    }
    left
}

/// Instances die and come back, the machine stands still, and its clock is set.
async fn trouble_all(
    plan: &Plan,
    rng: &mut Rng,
    network: &Arc<Network>,
    instances: &mut [Instance],
    hand: &AtomicI64,
    journal: &Journal,
) {
    let mut rng = rng.fork();
    loop {
        sleep(Duration::from_millis(rng.u64(1..8_000))).await;
        if rng.u32(..100) >= plan.trouble * 3 {
            continue;
        }
        match rng.u8(..4) {
            0 => {
                let stands_still = Duration::from_millis(rng.u64(1..20_000));
                journal.count("jumps");
                journal.tell(&format!("the machine stands still for {stands_still:?}"));
                tokio::time::advance(stands_still).await;
            }
            1 => {
                let to = NOW + rng.i64(-100_000..100_000);
                journal.tell(&format!("the clock is set to {to}"));
                hand.store(to, Ordering::Relaxed);
            }
            _ => {
                let at = rng.usize(..instances.len());
                if instances[at].accepting.is_finished() {
                    continue;
                }
                let address = plan.instances[at];
                journal.count("deaths");
                journal.tell(&format!("{address} dies"));
                instances[at].accepting.abort();
                network.kill(address);
                sleep(Duration::from_millis(rng.u64(..30_000))).await;
                journal.tell(&format!("{address} is back"));
                instances[at] =
                    Instance::start(network, address, rng.fork(), plan.trouble, journal);
            }
        }
    }
}
