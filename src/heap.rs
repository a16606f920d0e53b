//! Memory that was freed and is needed again at once.
//!
//! The C library returns freed memory to the kernel when 128 KiB at the end of a heap are free. A worker that takes
//! bodies frees and needs that much all the time, and each page that comes back is a page fault and is zeroed: 0.9 of
//! them for each push of 50 KB (docs/performance.md).

/// Beyond this, freed memory at the end of a heap goes back to the kernel. There is a heap for each worker.
const KEPT_BYTES: usize = 1 << 20;

/// Makes the C library keep more, for this process. Only GNU's knows this; others do what they do.
///
/// GNU's raises its limit to twice the size of a large piece of memory that is freed, as one that shows by it how much
/// the program needs at a time (mallopt(3), `M_MMAP_THRESHOLD`). So one piece is taken and freed.
pub fn keep_freed_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(KEPT_BYTES / 2)));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page faults of this thread.
    fn faults() -> u64 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.split(' ').nth(7).unwrap().parse().unwrap()
    }

    #[test]
    fn what_is_freed_is_not_faulted_in_again() {
        const ROUNDS: u64 = 100;
        const PAGES: u64 = 128;
        keep_freed_memory();
        let before = faults();
        for round in 0..ROUNDS {
            let pieces: Vec<Vec<u8>> = (0..8).map(|_| vec![1; 16 * 4096]).collect();
            assert_eq!(std::hint::black_box(&pieces).len(), 8, "{round}");
        }
        let faults = faults() - before;
        assert!(faults < PAGES * ROUNDS / 4, "{faults} page faults");
    }
}
