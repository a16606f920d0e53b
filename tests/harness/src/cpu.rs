//! Processor time of a running process.

use std::fs;
use std::ops::Sub;

/// Processor time that a process and its children have used, in microseconds.
///
/// `total` is the scheduler's own account (`schedstat`, nanoseconds). `user` and `kernel` are from
/// `stat`: the kernel samples at each tick in which of the two a thread is and scales the two sums to
/// the scheduler's account, so over a second or more their proportion is good to a few per cent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// All of it.
    pub total: f64,
    /// In the program.
    pub user: f64,
    /// In the kernel, for the program.
    pub kernel: f64,
}

impl Cpu {
    /// What a process and its children have used so far, those included that have ended. Threads that
    /// have ended are in `user` and `kernel` only; the programs that are measured have a fixed set of
    /// them.
    pub fn of(process: u32) -> Self {
        let ended = ticks(process, [13, 14]);
        let ended = Self { total: ended[0] + ended[1], user: ended[0], kernel: ended[1] };
        family(process).into_iter().map(Self::of_one).fold(ended, |sum, one| Self {
            total: sum.total + one.total,
            user: sum.user + one.user,
            kernel: sum.kernel + one.kernel,
        })
    }

    fn of_one(process: u32) -> Self {
        let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        let nanoseconds = threads.map(|thread| {
            let account = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            account.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0)
        });
        let [user, kernel] = ticks(process, [11, 12]);
        Self { total: nanoseconds.sum::<f64>() / 1000.0, user, kernel }
    }

    /// The part of `total` that was spent in the program, between two accounts.
    pub fn user_share(&self) -> f64 {
        let sum = self.user + self.kernel;
        if sum > 0.0 { self.user / sum } else { 0.0 }
    }
}

/// Two fields of `/proc/PID/stat`, counted from behind the name, in microseconds. Ticks are hundredths of a second.
fn ticks(process: u32, fields: [usize; 2]) -> [f64; 2] {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name, in brackets, may hold anything.
    let all: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields.map(|field| {
        all.get(field).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0) * 10_000.0
    })
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            total: self.total - earlier.total,
            user: self.user - earlier.user,
            kernel: self.kernel - earlier.kernel,
        }
    }
}

/// Memory of a process and its children in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// At this moment.
    pub resident: u64,
    /// The most since the start, or since [`Memory::forget_peak`].
    pub peak: u64,
}

impl Memory {
    /// What a process and its children have. Pages that several of them share count several times.
    pub fn of(process: u32) -> Self {
        let sum = |field| family(process).into_iter().map(|id| status_bytes(id, field)).sum();
        Self { resident: sum("VmRSS:"), peak: sum("VmHWM:") }
    }

    /// Begins to look for the peak again (proc(5), `clear_refs`).
    pub fn forget_peak(process: u32) {
        for id in family(process) {
            let _ = fs::write(format!("/proc/{id}/clear_refs"), "5");
        }
    }
}

/// A number of `/proc/PID/status` that is in KiB there.
pub(crate) fn status_bytes(process: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// A process and its children.
fn family(id: u32) -> Vec<u32> {
    let mut family = vec![id];
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    family.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    family
}
