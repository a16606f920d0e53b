//! The files of the configuration, and whether they have changed.
//!
//! They are read at every interval and compared by what is in them. A notification by the kernel would
//! come sooner, and not for network file systems; one would have to watch the folder of every link on the
//! way to a file, which Kubernetes exchanges, and follow editors that rename. A few kilobytes every few
//! seconds cost nothing, and the same bytes under another time or number are no change.

use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// The files that are watched.
pub(super) struct Files {
    paths: Vec<PathBuf>,
    /// What was last read; `None` before the first time.
    seen: Option<Fingerprint>,
}

/// Stands for the contents of all files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(u64);

/// A file that is being written is left alone until it has been the same for so long.
const SETTLED: Duration = Duration::from_secs(1);

static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Fingerprint {
    /// Reads all files. One that cannot be read is different from every one that can.
    pub(super) fn of(paths: &[PathBuf]) -> Self {
        let content = |path: &PathBuf| std::fs::read(Path::new(path)).map_err(|error| error.kind());
        let contents: Vec<_> = paths.iter().map(content).collect();
        Self(HASHER.hash_one(contents))
    }
}

impl Files {
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, seen: None }
    }

    /// Notes what was read, and that it names these files.
    pub(super) fn set_seen(&mut self, paths: Vec<PathBuf>, fingerprint: Fingerprint) {
        self.paths = paths;
        self.seen = Some(fingerprint);
    }

    /// Waits until the files say something else than what was read, and have said so for a moment. Without
    /// an interval it waits for ever.
    pub(super) async fn changed(&self, interval: Option<Duration>) {
        let Some(interval) = interval else { return std::future::pending().await };
        let mut before = None;
        loop {
            sleep(if before.is_some() { SETTLED.min(interval) } else { interval }).await;
            let now = self.read().await;
            if now == self.seen {
                before = None;
            } else if now == before {
                return;
            } else {
                before = now;
            }
        }
    }

    async fn read(&self) -> Option<Fingerprint> {
        let paths = self.paths.clone();
        spawn_blocking(move || Fingerprint::of(&paths)).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tokio::time::timeout;

    use super::*;

    const INTERVAL: Option<Duration> = Some(Duration::from_millis(10));

    async fn changes(files: &Files) -> bool {
        timeout(Duration::from_millis(500), files.changed(INTERVAL)).await.is_ok()
    }

    // A ConfigMap is a link to a link to a folder, and Kubernetes renames another link over the second.
    #[tokio::test]
    async fn a_change_is_seen_however_it_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (version, text) in [("1", "one"), ("2", "two")] {
            fs::create_dir(path(version)).unwrap();
            fs::write(path(version).join("proxy.toml"), text).unwrap();
        }
        symlink("1", path("..data")).unwrap();
        symlink("..data/proxy.toml", path("proxy.toml")).unwrap();
        let mut files = Files::new(vec![path("proxy.toml")]);
        let see = |files: &mut Files| {
            let paths = files.paths.clone();
            files.set_seen(paths.clone(), Fingerprint::of(&paths));
        };
        assert!(changes(&files).await, "nothing was read yet");
        see(&mut files);
        assert!(!changes(&files).await);

        symlink("2", path("..data_tmp")).unwrap();
        fs::rename(path("..data_tmp"), path("..data")).unwrap();
        assert!(changes(&files).await, "a link that was exchanged");
        see(&mut files);

        fs::write(path("new"), "three").unwrap();
        fs::rename(path("new"), path("proxy.toml")).unwrap();
        assert!(changes(&files).await, "a file that was renamed over it");
        see(&mut files);

        fs::write(path("proxy.toml"), "four!").unwrap();
        assert!(changes(&files).await, "in place, with the same length");
        see(&mut files);

        fs::remove_file(path("proxy.toml")).unwrap();
        assert!(changes(&files).await, "gone");
        see(&mut files);
        fs::write(path("proxy.toml"), "four!").unwrap();
        assert!(changes(&files).await, "back");
    }

    // A half written file may be valid, and lacks a half.
    #[tokio::test]
    async fn a_file_that_is_being_written_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.toml");
        fs::write(&path, "").unwrap();
        let mut files = Files::new(vec![path.clone()]);
        files.set_seen(vec![path.clone()], Fingerprint::of(std::slice::from_ref(&path)));
        let writing = async {
            for count in 1..200 {
                fs::write(&path, "x".repeat(count)).unwrap();
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = writing => {}
            () = files.changed(Some(Duration::from_millis(100))) => panic!("it was still written"),
        }
        assert!(changes(&files).await);
    }
}
