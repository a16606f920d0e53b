//! Who runs a part that refuses to run as root: Debian's user `postgres` when we are root, else we.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

const USER: &str = "postgres";

fn we_are_root() -> bool {
    std::fs::metadata("/proc/self").expect("/proc").uid() == 0
}

/// What tells `setpriv` to run a program as that user; nothing when we are not root.
///
/// A change of user takes back "die with your parent", but setpriv sets that last, so one call with
/// both does both.
pub(crate) fn options() -> &'static [&'static str] {
    if we_are_root() { &["--reuid", USER, "--regid", USER, "--init-groups"] } else { &[] }
}

/// The numbers of that user and its group.
pub(crate) fn ids() -> (u32, u32) {
    if !we_are_root() {
        let us = std::fs::metadata("/proc/self").expect("/proc");
        return (us.uid(), us.gid());
    }
    let number = |option: &str| {
        let output = Command::new("id").args([option, USER]).output().expect("id");
        String::from_utf8_lossy(&output.stdout).trim().parse().expect("the user's number")
    };
    (number("-u"), number("-g"))
}

/// Gives a directory with all that is in it to that user.
pub(crate) fn give(directory: &Path) {
    if we_are_root() {
        let mut chown = Command::new("chown");
        chown.args(["-R", &format!("{USER}:{USER}")]).arg(directory);
        assert!(chown.status().expect("chown").success(), "chown {}", directory.display());
    }
}
