//! What can be broken, and how it is mended.

use std::fmt;
use std::process::Command;
use std::time::Duration;

use harness::{Client, Monolith, QUICK};

use crate::system::System;

/// A fault; numbers are those of Mimirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL, and a start with the same disk.
    Killed(usize),
    /// SIGKILL, and the disk is gone: another starts in its place.
    Replaced(usize),
    /// SIGSTOP and SIGCONT.
    Frozen(usize),
    /// The file system of its data is full.
    FullDisk(usize),
    /// All three are a fifth of a second away.
    Far,
    /// Nothing comes or goes, and no end of a connection either.
    HalfOpen(usize),
    /// Connections are reset in the middle of requests and answers.
    Reset(usize),
    /// Connections are cut, and new ones too.
    Cut(usize),
    /// The same of all three: Mimir is gone.
    AllCut,
    /// Consul, which has the rings.
    Consul,
    /// The database does not respond.
    Database,
    /// The issuer's key set cannot be had.
    KeySet,
    /// A copy after the other is ended and started again.
    Rolling,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mimir = |number: &usize| format!("m{}", number + 1);
        match self {
            Self::Killed(number) => write!(out, "{} is killed, and starts again", mimir(number)),
            Self::Replaced(number) => {
                write!(
                    out,
                    "{} is killed with its disk, and another takes its place",
                    mimir(number)
                )
            }
            Self::Frozen(number) => write!(out, "{} is frozen (SIGSTOP)", mimir(number)),
            Self::FullDisk(number) => write!(out, "the disk of {} is full", mimir(number)),
            Self::Far => out.write_str("each piece to and from Mimir takes 200 ms"),
            Self::HalfOpen(number) => write!(out, "connections to {} are half-open", mimir(number)),
            Self::Reset(number) => {
                write!(out, "connections to {} are reset after 10 KB either way", mimir(number))
            }
            Self::Cut(number) => write!(out, "{} cannot be reached", mimir(number)),
            Self::AllCut => out.write_str("no Mimir can be reached"),
            Self::Consul => out.write_str("Consul does not respond"),
            Self::Database => out.write_str("Postgres does not respond"),
            Self::KeySet => out.write_str("the key set answers 503"),
            Self::Rolling => out.write_str("two copies are restarted, one after the other, twice"),
        }
    }
}

impl Fault {
    /// Each that needs no special start.
    pub const ALL: [Self; 12] = [
        Self::Killed(0),
        Self::Frozen(1),
        Self::Replaced(1),
        Self::FullDisk(2),
        Self::Far,
        Self::HalfOpen(0),
        Self::Reset(0),
        Self::Cut(0),
        Self::AllCut,
        Self::Consul,
        Self::Database,
        Self::KeySet,
    ];

    /// From the beginning to the end.
    pub fn lasts(self) -> Duration {
        Duration::from_secs(match self {
            Self::Rolling => 0,
            Self::AllCut | Self::Replaced(_) => 10,
            Self::Killed(_) | Self::Far | Self::Reset(_) | Self::Cut(_) => 15,
            Self::Frozen(_) => 20,
            Self::FullDisk(_) | Self::HalfOpen(_) => 30,
            Self::Consul | Self::Database | Self::KeySet => 60,
        })
    }

    /// Whether it breaks connections on which an answer has begun. Such an answer ends as broken, and not as a short
    /// success; it cannot be asked for again.
    pub fn breaks_answers(self) -> bool {
        matches!(self, Self::Reset(_))
    }

    pub async fn begin(self, system: &mut System) {
        match self {
            Self::Killed(number) | Self::Replaced(number) => system.mimirs[number].kill(),
            Self::Frozen(number) => system.mimirs[number].process().signal("STOP"),
            Self::FullDisk(number) => fill(&mut system.mimirs[number]),
            Self::Far => {
                system.networks.iter().for_each(|one| one.move_away(Duration::from_millis(200)));
            }
            Self::HalfOpen(number) => system.networks[number].stall(),
            Self::Reset(number) => {
                // Those that are open get a new life, or they would be reset at once.
                system.networks[number].cut();
                system.networks[number].reset_after(10_000);
            }
            Self::Cut(number) => system.networks[number].cut(),
            Self::AllCut => system.networks.iter().for_each(|one| one.cut()),
            Self::Consul => system.backing.consul.process().signal("STOP"),
            Self::Database => system.to_database.stall(),
            Self::KeySet => system.issuer.answer_with(503),
            Self::Rolling => {
                for copy in [0, 1, 0, 1] {
                    system.restart(copy).await;
                }
            }
        }
    }

    pub async fn end(self, system: &mut System) {
        match self {
            Self::Killed(number) => {
                system.mimirs[number].start_again();
                system.wait_whole().await;
            }
            Self::Replaced(number) => replace(system, number).await,
            Self::Frozen(number) => {
                system.mimirs[number].process().signal("CONT");
                system.wait_whole().await;
            }
            Self::FullDisk(number) => {
                let mimir = &mut system.mimirs[number];
                let refused = mimir.log().matches("no space left on device").count();
                println!("    its log has {refused} times that no space is left");
                let filler = filler(mimir);
                std::fs::remove_file(filler).expect("the file that fills the disk");
            }
            Self::Far | Self::HalfOpen(_) | Self::Reset(_) | Self::Cut(_) | Self::AllCut => {
                system.networks.iter().for_each(|one| one.calm())
            }
            Self::Consul => {
                system.backing.consul.process().signal("CONT");
                system.wait_whole().await;
            }
            Self::Database => system.to_database.calm(),
            Self::KeySet => system.issuer.answer_with(200),
            Self::Rolling => {}
        }
    }
}

/// The ring is told that an instance is gone before another starts. Not the other way round: until the other is
/// ready, two of three replicas would be away.
async fn replace(system: &mut System, number: usize) {
    let gone = system.mimirs.remove(number);
    let first = Client::new(&system.mimirs[0].url());
    let answer = first.post_form("/ingester/ring", &format!("forget={}", gone.id())).await;
    assert!(answer.status.is_success() || answer.status.is_redirection(), "{answer:?}");
    let port = gone.port();
    let id = format!("{}-next", gone.id());
    drop(gone);
    // On Fly its address comes by DNS; here it takes the one that the proxies know.
    let environment = system.mimir_environment();
    let environment: Vec<_> =
        environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut another = Monolith::start_at(&id, port, &system.backing, &environment, &QUICK);
    another.wait_ready().await;
    system.mimirs.insert(number, another);
    system.wait_whole().await;
}

/// A path into the mount namespace of an instance, whose data is on a small file system of its own.
fn filler(mimir: &mut Monolith) -> std::path::PathBuf {
    let root = format!("/proc/{}/root", mimir.process().id());
    std::path::Path::new(&root)
        .join(mimir.disk().strip_prefix("/").expect("absolute"))
        .join("filler")
}

fn fill(mimir: &mut Monolith) {
    let output = format!("of={}", filler(mimir).display());
    // It ends with an error when the disk is full.
    let filled = Command::new("dd").args(["if=/dev/zero", &output, "bs=64K"]).output().expect("dd");
    let said = String::from_utf8_lossy(&filled.stderr).into_owned();
    assert!(said.contains("No space left on device"), "the disk is not full: {said}");
}
