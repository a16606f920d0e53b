//! A directory that goes away with us even when we are killed.
//!
//! A `TempDir` in a static is never dropped, and a database cluster is too large to leave one behind
//! with every run. So a shell waits for the end of its input, which comes when we end, however we
//! end, and removes the directory.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// The directory.
pub(crate) struct Scratch {
    path: PathBuf,
    janitor: Child,
}

/// Whoever used the directory may take a moment to end, and may write meanwhile.
const JANITOR: &str = r#"
read -r _
for _ in $(seq 100); do rm -rf "$1" && exit; sleep 0.1; done
"#;

impl Scratch {
    pub(crate) fn with_prefix(prefix: &str) -> Self {
        let path = TempDir::with_prefix(prefix).expect("directory").keep();
        let mut command = Command::new("sh");
        command.args(["-c", JANITOR, "janitor"]).arg(&path).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // In a group of its own, it outlives a Ctrl-C at the terminal.
        let janitor = command.process_group(0).spawn().expect("sh");
        Self { path, janitor }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.janitor.stdin.take());
        let _ = self.janitor.wait();
    }
}
