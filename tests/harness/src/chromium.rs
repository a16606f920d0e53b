//! A real browser: it holds a page to the rules of cross-origin requests, as no client of ours does.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::parts::part;
use crate::process::Process;
use crate::scratch::Scratch;

/// A running headless Chromium that shows one page.
pub struct Chromium {
    process: Process,
    _directory: Scratch,
}

/// Every name leads to this machine: a page over http can be of any origin, and nothing that
/// Chromium does by itself gets out.
const NAMES: &str = "--host-resolver-rules=MAP * 127.0.0.1";

const OPTIONS: [&str; 12] = [
    NAMES,
    "--headless",
    // What it remembers stays in memory, so that none of its processes writes as it ends.
    "--incognito",
    // Root in a container can have no sandbox, and the pages are ours.
    "--no-sandbox",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-breakpad",
];

impl Chromium {
    /// Opens a page with an empty profile. What the page finds it has to tell a server.
    pub fn open(url: &str) -> Self {
        let directory = Scratch::with_prefix("chromium-");
        let path = directory.path();
        let process = Process::start("chromium", &part("chromium"), path, |command| {
            command
                .args(OPTIONS)
                .arg(format!("--user-data-dir={}", path.join("profile").display()))
                .arg(url)
                // It also writes where the profile is not.
                .envs(["HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"].map(|to| (to, path)))
                .process_group(0);
        });
        Self { process, _directory: directory }
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

impl Drop for Chromium {
    /// Ends all its processes at once. When it is us who are killed, the first of them dies with us
    /// and the others notice.
    fn drop(&mut self) {
        let group = format!("-{}", self.process.id());
        let _ = Command::new("kill").args(["-s", "KILL", "--", &group]).status();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Empty};

    use super::*;
    use crate::process::wait_until;
    use crate::upstream::Upstream;

    /// How many processes have a directory in their environment.
    fn processes_of(directory: &Path) -> usize {
        let directory = directory.as_os_str().as_encoded_bytes();
        let environment = |entry: std::io::Result<std::fs::DirEntry>| {
            std::fs::read(entry.ok()?.path().join("environ")).ok()
        };
        let all = std::fs::read_dir("/proc").expect("/proc").filter_map(environment);
        all.filter(|text| text.windows(directory.len()).any(|part| part == directory)).count()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_leaves_neither_a_process_nor_a_file() {
        let site = Upstream::start(|_| async {
            http::Response::new(Empty::<Bytes>::new().map_err(|never| match never {}).boxed())
        })
        .await;
        let chromium = Chromium::open(&site.url().replace("127.0.0.1", "any.name.test"));
        wait_until("it asks for the page", Duration::from_secs(60), async || {
            site.heads().iter().any(|head| head.target == "/")
        })
        .await;
        let host = &site.heads()[0].headers["host"];
        assert!(host.to_str().unwrap().starts_with("any.name.test:"), "{}", chromium.log());
        let directory = chromium._directory.path().to_owned();
        assert!(processes_of(&directory) > 2, "{}", chromium.log());
        drop(chromium);
        assert!(!directory.exists());
        wait_until("its processes end", Duration::from_secs(5), async || {
            processes_of(&directory) == 0
        })
        .await;
    }
}
