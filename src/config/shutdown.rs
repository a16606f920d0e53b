//! `[shutdown]`

use std::time::Duration;

use super::reader::Section;
use super::values::duration;

/// How the process ends after SIGTERM or SIGINT.
#[derive(Clone, Debug)]
pub struct ShutdownConfig {
    /// How long new requests are served after `/ready` has begun to fail, so that load balancers
    /// can notice.
    pub drain_delay: Duration,
    /// How long requests in flight may take after that.
    pub drain_timeout: Duration,
}

pub(super) fn read(section: &mut Section<'_>) -> ShutdownConfig {
    let second = Duration::from_secs(1);
    let longest = 300 * second; // Fly.io's longest kill_timeout
    ShutdownConfig {
        drain_delay: section
            .get("drain_delay", 2 * second, |raw| duration(raw, Duration::ZERO, longest)),
        drain_timeout: section
            .get("drain_timeout", 30 * second, |raw| duration(raw, Duration::ZERO, longest)),
    }
}
