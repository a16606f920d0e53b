//! Several copies that compete, one database and one Mimir, under seeded simulation on a paused clock: copies freeze,
//! are killed and are cut off, the database restarts, and sessions are ended. At no time do two of them write.
//!
//! ```text
//! SEEDS=100000 cargo test --lib election::tests     a hundred thousand seeds
//! SEED=4711 cargo test --lib election::tests        one of them
//! ```

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::leader::{Polls, campaign, lead, pause};
use super::lease::Lease;
use crate::store::{Leadership, SILENCE, Session, StoreError};
use crate::telemetry::RuleMetrics;
use crate::tenancy::OrganisationId;

/// Without `SEEDS`.
const FEW: u64 = 300;
/// How long there are faults, and how long there are none.
const TROUBLE: Duration = Duration::from_secs(90);
const PEACE: Duration = Duration::from_secs(30);
/// `database.query_timeout`.
const QUERY: Duration = Duration::from_secs(2);
/// A message takes so long, at most.
const DELAY: u64 = 60;
/// And a write to Mimir.
const WRITE: u64 = 400;

/// Postgres: who has the lock, and when it last heard of them.
#[derive(Default)]
struct Server {
    sessions: u64,
    holder: Option<(u64, Instant)>,
    is_down: bool,
}

/// What Mimir saw.
#[derive(Default)]
struct Mimir {
    /// The last leadership that has begun to write, and the last whose write has arrived.
    began: u64,
    arrived: u64,
    last: Option<Instant>,
    broken: Vec<String>,
}

struct World {
    server: Mutex<Server>,
    mimir: Mutex<Mimir>,
    rng: Mutex<Rng>,
}

/// What happens to one copy.
#[derive(Default)]
struct Machine {
    is_frozen: bool,
    is_cut_off: bool,
    waker: Option<Waker>,
}

#[derive(Clone)]
struct Copy {
    world: Arc<World>,
    machine: Arc<Mutex<Machine>>,
    /// The session that has, or had, the lock.
    term: Arc<AtomicU64>,
}

struct SimulatedSession {
    number: u64,
    copy: Copy,
}

impl Server {
    /// Ends the session of a holder that has been silent.
    fn look(&mut self) {
        self.holder = self.holder.filter(|(_, heard)| heard.elapsed() < SILENCE);
    }

    fn end(&mut self, session: u64) {
        self.holder = self.holder.filter(|(holder, _)| *holder != session);
    }
}

impl World {
    fn below(&self, millis: u64) -> Duration {
        Duration::from_millis(self.rng.lock().u64(..=millis))
    }
}

impl Copy {
    /// One way to the server, or back.
    async fn travel(&self) {
        sleep(self.world.below(DELAY)).await;
        if self.machine.lock().is_cut_off {
            std::future::pending::<()>().await;
        }
    }

    async fn ask_for_the_lock(&self) -> Result<Option<SimulatedSession>, StoreError> {
        self.travel().await;
        let session = {
            let mut server = self.world.server.lock();
            if server.is_down {
                return Err(StoreError::Unavailable("the server is down".to_owned()));
            }
            server.look();
            server.holder.is_none().then(|| {
                server.sessions += 1;
                server.holder = Some((server.sessions, Instant::now()));
                SimulatedSession { number: server.sessions, copy: self.clone() }
            })
        };
        self.travel().await;
        Ok(session)
    }

    async fn run(self, cancelled: CancellationToken) {
        let (metrics, mut was_away) = (RuleMetrics::register(), false);
        loop {
            if let Some((leadership, lease)) = campaign(&self, &mut was_away).await {
                let work = self.write_on(lease.clone());
                lead(&self, &metrics, leadership, lease, &cancelled, work).await;
            }
            pause(&cancelled).await;
        }
    }

    async fn write_on(&self, lease: Lease) -> Vec<OrganisationId> {
        while lease.during(self.write()).await.is_ok() {
            sleep(self.world.below(50)).await;
        }
        Vec::new()
    }

    /// One write: it leaves now, and arrives whatever becomes of the copy.
    async fn write(&self) {
        let (world, term) = (Arc::clone(&self.world), self.term.load(Ordering::Relaxed));
        {
            let mut mimir = world.mimir.lock();
            if mimir.began > term {
                let text = format!("leadership {term} writes after {} has begun", mimir.began);
                mimir.broken.push(text);
            }
            mimir.began = term;
        }
        let delay = world.below(WRITE);
        tokio::spawn(async move {
            sleep(delay).await;
            let mut mimir = world.mimir.lock();
            if mimir.arrived > term {
                let text = format!("a write of {term} arrives after one of {}", mimir.arrived);
                mimir.broken.push(text);
            }
            (mimir.arrived, mimir.last) = (term, Some(Instant::now()));
        });
        sleep(delay).await;
    }
}

impl Polls for Copy {
    type Session = SimulatedSession;

    async fn try_lead(
        &self,
    ) -> Result<Option<(Leadership<SimulatedSession>, Instant)>, StoreError> {
        let asked = Instant::now();
        let session = timeout(QUERY, self.ask_for_the_lock()).await;
        let session = session.map_err(|_| StoreError::Unavailable("no answer".to_owned()))??;
        Ok(session.map(|session| {
            self.term.store(session.number, Ordering::Relaxed);
            Leadership::won(session, asked)
        }))
    }

    async fn announce(&self, _: OrganisationId) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Session for SimulatedSession {
    async fn prove(&mut self) -> Result<(), StoreError> {
        self.copy.travel().await;
        {
            let mut server = self.copy.world.server.lock();
            server.look();
            match &mut server.holder {
                Some((holder, heard)) if *holder == self.number => *heard = Instant::now(),
                _ => return Err(StoreError::Unavailable("the session has ended".to_owned())),
            }
        }
        self.copy.travel().await;
        Ok(())
    }

    async fn close(self) {
        self.copy.travel().await;
    }
}

impl Drop for SimulatedSession {
    fn drop(&mut self) {
        // Its kernel says goodbye, if it can.
        if self.copy.machine.lock().is_cut_off {
            return;
        }
        let (world, number) = (Arc::clone(&self.copy.world), self.number);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                sleep(world.below(DELAY)).await;
                world.server.lock().end(number);
            });
        }
    }
}

/// A process that does nothing while its machine is frozen.
struct Process<F>(Pin<Box<F>>, Arc<Mutex<Machine>>);

impl<F: Future<Output = ()>> Future for Process<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        {
            let mut machine = self.1.lock();
            machine.waker = Some(cx.waker().clone());
            if machine.is_frozen {
                return Poll::Pending;
            }
        }
        self.0.as_mut().poll(cx)
    }
}

fn start(world: &Arc<World>, machine: &Arc<Mutex<Machine>>) -> AbortOnDropHandle<()> {
    let (world, machine) = (Arc::clone(world), Arc::clone(machine));
    let copy = Copy { world, machine: Arc::clone(&machine), term: Arc::default() };
    let process = Process(Box::pin(copy.run(CancellationToken::new())), machine);
    AbortOnDropHandle::new(tokio::spawn(process))
}

/// Runs one seed, and returns what was wrong.
async fn simulate(seed: u64) -> Vec<String> {
    fastrand::seed(seed);
    let mut rng = Rng::with_seed(seed);
    let (server, mimir) = Default::default();
    let world = Arc::new(World { server, mimir, rng: Mutex::new(rng.fork()) });
    let machines: Vec<_> = (0..rng.usize(2..4)).map(|_| Arc::default()).collect();
    let mut copies: Vec<_> = machines.iter().map(|machine| start(&world, machine)).collect();
    let until = Instant::now() + TROUBLE;
    while Instant::now() < until {
        sleep(Duration::from_millis(rng.u64(..4_000))).await;
        let at = rng.usize(..machines.len());
        let lasts = Duration::from_millis(rng.u64(..9_000));
        let machine = Arc::clone(&machines[at]);
        match rng.u8(..6) {
            0 => {
                machine.lock().is_frozen = true;
                tokio::spawn(async move {
                    sleep(lasts).await;
                    let mut machine = machine.lock();
                    machine.is_frozen = false;
                    if let Some(waker) = machine.waker.take() {
                        waker.wake();
                    }
                });
            }
            1 => {
                machine.lock().is_cut_off = true;
                tokio::spawn(async move {
                    sleep(lasts).await;
                    machine.lock().is_cut_off = false;
                });
            }
            // kill -9, and a new one.
            2 => copies[at] = start(&world, &machine),
            // A failover: all sessions end, and the server is away for a moment or two.
            3 => {
                let world = Arc::clone(&world);
                let mut server = world.server.lock();
                (server.holder, server.is_down) = (None, true);
                drop(server);
                tokio::spawn(async move {
                    sleep(lasts / 4).await;
                    world.server.lock().is_down = false;
                });
            }
            // An administrator, or a balancer in between, ends the leader's session.
            4 => world.server.lock().holder = None,
            // Everything stands still, as in a machine that is moved.
            _ => tokio::time::advance(lasts).await,
        }
    }
    sleep(PEACE).await;
    let mut mimir = world.mimir.lock();
    let mut broken = std::mem::take(&mut mimir.broken);
    if mimir.last.is_none_or(|last| last.elapsed() > Duration::from_secs(2)) {
        broken.push("nobody writes when all is well again".to_owned());
    }
    broken
}

#[expect(clippy::disallowed_methods, reason = "which seeds to run is asked of the environment")]
fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn two_copies_never_write() {
    let first = from_environment("SEED");
    let count = first.map_or_else(|| from_environment("SEEDS").unwrap_or(FEW), |_| 1);
    let first = first.unwrap_or(0);
    for seed in first..first + count {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().start_paused(true).build().unwrap();
        let broken = runtime.block_on(simulate(seed));
        assert!(
            broken.is_empty(),
            "after {} seeds, seed {seed}: {broken:?}\nagain: SEED={seed} cargo test --lib election::tests",
            seed - first + 1
        );
    }
}
