//! The keys of `[upstream]` that say when an instance is used.

use std::time::Duration;

use super::super::reader::{Raw, Section};
use super::super::values::{duration, number, parse_duration, text};

/// When an instance is left alone, for how long, and how much it may have to do.
#[derive(Clone, Debug)]
pub struct HealthConfig {
    /// Requests that one instance may have, of all workers together.
    pub max_in_flight: u32,
    /// How often an instance is asked for `/ready`; zero for never.
    pub ready_interval: Duration,
    /// How long it may take to connect, and then to answer that.
    pub ready_timeout: Duration,
    /// Failures in a row that eject an instance.
    pub eject_after: u32,
    /// How long a first ejection lasts; each further one twice as long.
    pub eject_min: Duration,
    /// How long an ejection lasts at most.
    pub eject_max: Duration,
    /// If less than this part of all instances, in hundredths, is in use, ejections do not count.
    pub panic_percent: usize,
    /// How long an instance that returns takes to get its whole share; zero for none.
    pub slow_start: Duration,
}

impl HealthConfig {
    /// Whether instances are asked for `/ready`.
    pub fn probes(&self) -> bool {
        !self.ready_interval.is_zero()
    }
}

pub(super) fn read(section: &mut Section<'_>) -> HealthConfig {
    let second = Duration::from_secs(1);
    let (tenth, hour) = (second / 10, 3600 * second);
    let config = HealthConfig {
        // As many as a Mimir takes (distributor.instance-limits.max-inflight-push-requests).
        max_in_flight: section.get("max_in_flight", 2000, |raw| whole(raw, 1, 1_000_000)),
        ready_interval: section.get("ready_interval", 5 * second, |raw| off_or(raw, tenth, hour)),
        ready_timeout: section.get("ready_timeout", 2 * second, |raw| duration(raw, tenth, hour)),
        eject_after: section.get("eject_after", 3, |raw| whole(raw, 1, 1000)),
        eject_min: section.get("eject_min", 2 * second, |raw| duration(raw, tenth, hour)),
        eject_max: section.get("eject_max", 60 * second, |raw| duration(raw, tenth, hour)),
        panic_percent: section.get("panic_percent", 50, |raw| number(raw, 0, 100)),
        slow_start: section.get("slow_start", 10 * second, |raw| off_or(raw, tenth, hour)),
    };
    if config.eject_max < config.eject_min {
        section.fault("eject_max", "must not be shorter than upstream.eject_min".to_owned());
    }
    config
}

fn whole(raw: Raw, min: usize, max: usize) -> Result<u32, String> {
    number(raw, min, max).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
}

/// A duration, or `0s` for none.
fn off_or(raw: Raw, min: Duration, max: Duration) -> Result<Duration, String> {
    let text = text(raw)?;
    if parse_duration(&text).is_some_and(|duration| duration.is_zero()) {
        return Ok(Duration::ZERO);
    }
    duration(Raw::Text(text), min, max).map_err(|problem| format!("{problem}, or \"0s\""))
}
