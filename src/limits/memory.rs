//! How much memory the process takes, and how much it may take.
//!
//! In a cgroup with a limit, what the kernel kills by counts: the cgroup's memory without the page cache,
//! which the kernel gives up first. Without one, the process' own resident memory against the configured
//! number, or against the machine's memory. Both are files that the kernel makes when they are read, so
//! that reading them blocks nobody.

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::MemoryLimit;

/// Where the numbers come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    /// In bytes.
    pub(super) limit: u64,
    source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// This process alone.
    Process,
    /// A directory of the memory controller.
    CgroupV1(PathBuf),
    CgroupV2(PathBuf),
}

/// Above it a cgroup of version 1 has no limit: it is the largest number of pages.
const NO_LIMIT: u64 = 1 << 62;

impl Memory {
    /// None if it is off, or if this is no Linux.
    pub(super) fn find(config: MemoryLimit) -> Option<Self> {
        match config {
            MemoryLimit::Off => None,
            MemoryLimit::Bytes(limit) => Some(Self { limit, source: Source::Process }),
            MemoryLimit::Automatic => Self::of_cgroup(
                &fs::read_to_string("/proc/self/cgroup").ok()?,
                Path::new("/sys/fs/cgroup"),
            )
            .or_else(Self::of_machine),
        }
    }

    /// The smallest limit on the way from the process' cgroup to the root. `groups` is /proc/self/cgroup
    /// (cgroups(7)), `mounted` where cgroups are mounted.
    fn of_cgroup(groups: &str, mounted: &Path) -> Option<Self> {
        let mut found: Option<Self> = None;
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            let is_v2 = controllers.is_empty();
            if !is_v2 && !controllers.split(',').any(|one| one == "memory") {
                continue;
            }
            let root = if is_v2 { mounted.to_owned() } else { mounted.join("memory") };
            // A container may see its own cgroup as the root, and be told the path outside.
            let own = root.join(path.trim_start_matches('/'));
            let own = if own.is_dir() { own } else { root.clone() };
            for directory in own.ancestors().take_while(|one| one.starts_with(&root)) {
                let name = if is_v2 { "memory.max" } else { "memory.limit_in_bytes" };
                let limit = number(&directory.join(name)).filter(|limit| *limit < NO_LIMIT);
                let Some(limit) = limit else { continue };
                if found.as_ref().is_none_or(|found| limit < found.limit) {
                    let directory = directory.to_owned();
                    let source = if is_v2 {
                        Source::CgroupV2(directory)
                    } else {
                        Source::CgroupV1(directory)
                    };
                    found = Some(Self { limit, source });
                }
            }
        }
        // A limit that is more than there is protects nobody.
        let machine = Self::of_machine();
        found.filter(|found| machine.is_none_or(|machine| found.limit < machine.limit))
    }

    fn of_machine() -> Option<Self> {
        let limit = kilobytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")?;
        Some(Self { limit, source: Source::Process })
    }

    /// What is taken, in bytes.
    pub(super) fn used(&self) -> Option<u64> {
        match &self.source {
            Source::Process => kilobytes(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:"),
            Source::CgroupV1(directory) => {
                let used = number(&directory.join("memory.usage_in_bytes"))?;
                let cache = ["total_inactive_file", "total_active_file"];
                Some(used.saturating_sub(sum(&directory.join("memory.stat"), cache)))
            }
            Source::CgroupV2(directory) => {
                let used = number(&directory.join("memory.current"))?;
                let cache = ["inactive_file", "active_file"];
                Some(used.saturating_sub(sum(&directory.join("memory.stat"), cache)))
            }
        }
    }

    /// For the log.
    pub(super) fn source(&self) -> &'static str {
        match &self.source {
            Source::Process => "process",
            Source::CgroupV1(_) | Source::CgroupV2(_) => "cgroup",
        }
    }
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The sum of some lines of a `memory.stat`.
fn sum(file: &Path, names: [&str; 2]) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let of = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        names.contains(&name).then(|| value.trim().parse::<u64>().ok())?
    };
    text.lines().filter_map(of).sum()
}

/// A line such as `VmRSS:  1234 kB`, in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of files that is removed in the end.
    struct Tree(PathBuf);

    impl Tree {
        fn new(files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("cgroup-{}", uuid::Uuid::new_v4()));
            for (name, text) in files {
                let file = root.join(name);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
            Self(root)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_limit_of_a_cgroup_of_version_2_is_the_smallest_up_to_the_root() {
        let tree = Tree::new(&[
            ("pod/memory.max", "100000\n"),
            ("pod/memory.current", "60000\n"),
            ("pod/memory.stat", "anon 10\nfile 999\ninactive_file 4000\nactive_file 6000\n"),
            ("pod/one/memory.max", "max\n"),
        ]);
        let memory = Memory::of_cgroup("0::/pod/one\n", &tree.0).unwrap();
        assert_eq!((memory.limit, memory.used()), (100_000, Some(50_000)));
        assert_eq!(memory.source(), "cgroup");
    }

    #[test]
    fn the_limit_of_a_cgroup_of_version_1_is_that_of_the_memory_controller() {
        let tree = Tree::new(&[
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/docker/x/memory.limit_in_bytes", "100000\n"),
            ("memory/docker/x/memory.usage_in_bytes", "60000\n"),
            ("memory/docker/x/memory.stat", "total_inactive_file 4000\ntotal_active_file 6000\n"),
        ]);
        let groups = "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n0::/\n";
        let memory = Memory::of_cgroup(groups, &tree.0).unwrap();
        assert_eq!((memory.limit, memory.used()), (100_000, Some(50_000)));
    }

    // The path outside the container is none inside.
    #[test]
    fn a_container_that_sees_its_own_cgroup_as_the_root_finds_its_limit() {
        let tree = Tree::new(&[("memory.max", "100000\n"), ("memory.current", "5\n")]);
        let memory = Memory::of_cgroup("0::/kubepods/pod/x\n", &tree.0).unwrap();
        assert_eq!((memory.limit, memory.used()), (100_000, Some(5)));
    }

    #[test]
    fn without_a_limit_it_is_the_process_and_the_machine() {
        let tree = Tree::new(&[("memory.max", "max\n")]);
        assert_eq!(Memory::of_cgroup("0::/\n", &tree.0), None);
        let machine = Memory::of_machine().unwrap();
        assert!(machine.limit > 1 << 26 && machine.used().unwrap() > 1 << 20);
        assert_eq!(Memory::find(MemoryLimit::Off), None);
        assert_eq!(Memory::find(MemoryLimit::Bytes(5)).unwrap().limit, 5);
        assert!(Memory::find(MemoryLimit::Automatic).is_some());
    }
}
