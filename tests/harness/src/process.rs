//! A process of ours: its output in a file, killed when it is dropped or when we die.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use crate::cpu::status_bytes;

/// A running part.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

type Job = (Command, Sender<std::io::Result<Child>>);

/// Children are started by one thread that lives as long as the process: "die with your parent"
/// means the parent's thread, and a test's thread ends with its test.
fn spawner() -> &'static Sender<Job> {
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (sender, jobs) = channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, answer) in jobs {
                let _ = answer.send(command.spawn());
            }
        });
        sender
    })
}

impl Process {
    /// Starts a program with its output in `<directory>/<name>.log`.
    pub fn start(
        name: &str,
        program: &Path,
        directory: &Path,
        configure: impl FnOnce(&mut Command),
    ) -> Self {
        Self::start_with(name, &["--pdeathsig", "KILL"], program, directory, configure)
    }

    /// As [`Process::start`], with other options of `setpriv`, which must say what ends the program
    /// when we die.
    pub fn start_with(
        name: &str,
        privileges: &[&str],
        program: &Path,
        directory: &Path,
        configure: impl FnOnce(&mut Command),
    ) -> Self {
        let log = directory.join(format!("{name}.log"));
        let output = File::create(&log).expect("log file");
        let mut command = Command::new("setpriv");
        command.args(privileges).arg("--").arg(program);
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("log file")).stderr(output);
        configure(&mut command);
        let (sender, answer) = channel();
        spawner().send((command, sender)).expect("spawner");
        let child = answer
            .recv()
            .expect("spawner")
            .unwrap_or_else(|e| panic!("{name} does not start: {e}"));
        Self { name: name.to_owned(), child, log }
    }

    /// The process identifier.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args(["-s", signal, &self.id().to_string()]).status();
        assert!(status.expect("kill").success(), "kill -s {signal} {}", self.name);
    }

    /// Waits for the end, for a while.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    /// The end of its log, if it has ended.
    pub fn last_words(&self) -> Option<String> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        // The state follows the name, which is in parentheses. `Z` has ended and was not waited for.
        let state = stat.rsplit(") ").next().unwrap_or_default().chars().next();
        let runs = state.is_some_and(|state| state != 'Z' && state != 'X');
        (!runs).then(|| self.last_lines())
    }

    fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> u64 {
        status_bytes(self.id(), "VmRSS:")
    }

    /// The largest resident memory so far in bytes.
    pub fn peak_memory(&self) -> u64 {
        status_bytes(self.id(), "VmHWM:")
    }

    /// Waits until the part answers, and panics with the end of its log if it does not.
    pub async fn wait_ready(&mut self, url: &str, body: &str, patience: Duration) {
        let client = reqwest::Client::builder().no_proxy().build().expect("client");
        self.wait_ready_by(&client, url, body, patience).await;
    }

    /// The same, by a client that the part accepts.
    pub async fn wait_ready_by(
        &mut self,
        client: &reqwest::Client,
        url: &str,
        body: &str,
        patience: Duration,
    ) {
        let deadline = Instant::now() + patience;
        loop {
            if let Ok(answer) = client.get(url).timeout(Duration::from_secs(2)).send().await {
                let good = answer.status().is_success();
                if good && answer.text().await.unwrap_or_default().contains(body) {
                    return;
                }
            }
            let alive = self.is_running();
            if !alive || Instant::now() > deadline {
                panic!(
                    "{} is not ready at {url} (running: {alive})\n{}",
                    self.name,
                    self.last_lines()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // nginx' workers do not end with their master.
        let id = self.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let _ = self.child.kill();
        let _ = self.child.wait();
        for child in children.unwrap_or_default().split_whitespace() {
            let _ = Command::new("kill").args(["-s", "KILL", child]).stderr(Stdio::null()).status();
        }
    }
}

/// A port that nobody has at the moment. Ports go up through a range of our own, so that two
/// parts that start at the same time do not get the same one.
pub fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    // Below the range from which the kernel takes ports for outgoing connections (32768 and up).
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 20_000;
    let next = NEXT.get_or_init(|| AtomicU16::new(fastrand::u16(0..COUNT)));
    for _ in 0..COUNT {
        let port = FIRST + next.fetch_add(1, Ordering::Relaxed) % COUNT;
        let free_v4 = TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free_v4 && TcpListener::bind(("::", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port")
}

/// Waits until something is so, and panics with what it is about if it never is.
pub async fn wait_until(about: &str, patience: Duration, mut check: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !check().await {
        assert!(Instant::now() < deadline, "not within {patience:?}: {about}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
