//! The keys of `[upstream]` that say what is sent a second time.

use super::super::reader::Section;
use super::super::values::{KIB, MIB, number, size};

/// How much is kept of requests and how many are repeated.
#[derive(Clone, Debug)]
pub struct RetryConfig {
    /// Repeats for each hundred requests.
    pub percent: usize,
    /// Repeats that each worker can save up; one comes back each second.
    pub reserve: usize,
    /// The largest body that is kept so that it can be sent again.
    pub buffer_bytes: usize,
    /// What all bodies of one worker that are kept may take together.
    pub buffer_total_bytes: usize,
}

pub(super) fn read(section: &mut Section<'_>) -> RetryConfig {
    let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    let config = RetryConfig {
        percent: section.get("retry_percent", 20, |raw| number(raw, 0, 100)),
        reserve: section.get("retry_reserve", 10, |raw| number(raw, 0, 10_000)),
        buffer_bytes: section
            .get("replay_buffer_bytes", bytes(128 * KIB), |raw| size(raw, 0, 16 * MIB).map(bytes)),
        buffer_total_bytes: section
            .get("replay_total_bytes", bytes(16 * MIB), |raw| size(raw, 0, 1024 * MIB).map(bytes)),
    };
    if config.buffer_total_bytes < config.buffer_bytes {
        let problem = "must not be smaller than upstream.replay_buffer_bytes";
        section.fault("replay_total_bytes", problem.to_owned());
    }
    config
}
