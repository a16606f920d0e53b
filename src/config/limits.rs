//! `[limits]`

use std::time::Duration;

use super::reader::{Raw, Section};
use super::values::{GIB, KIB, MIB, duration, size};

/// How much a request's body may be, and how slowly it may come.
#[derive(Clone, Debug)]
pub struct LimitsConfig {
    /// The body of a remote write or influx push, compressed.
    pub push_body_bytes: u64,
    /// The body of an OTLP export, compressed.
    pub otlp_body_bytes: u64,
    /// The body of a query, form-encoded, or of a remote read.
    pub query_body_bytes: u64,
    /// How long a body may pause between two pieces.
    pub body_idle_timeout: Duration,
    /// How long a whole body may take.
    pub body_timeout: Duration,
}

pub(super) fn read(section: &mut Section<'_>) -> LimitsConfig {
    let body = |raw: Raw| size(raw, KIB, 1024 * GIB);
    let second = Duration::from_secs(1);
    let day = 86_400 * second;
    LimitsConfig {
        // Mimir's own default for distributor.max-recv-msg-size is 100 MiB.
        push_body_bytes: section.get("push_body_bytes", 100 * MIB, body),
        otlp_body_bytes: section.get("otlp_body_bytes", 100 * MIB, body),
        query_body_bytes: section.get("query_body_bytes", MIB, body),
        body_idle_timeout: section
            .get("body_idle_timeout", 30 * second, |raw| duration(raw, second / 10, day)),
        body_timeout: section
            .get("body_timeout", 300 * second, |raw| duration(raw, second / 10, day)),
    }
}
