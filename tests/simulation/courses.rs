//! What the network does to connections.

use std::time::Duration;

use fastrand::Rng;
use mimir_tenant_proxy::net::simulated::{Course, Fate};

/// A good line: nothing takes time, and nothing is split.
pub const QUICK: Course = Course {
    buffer: 1 << 20,
    delay: Duration::ZERO,
    piece: usize::MAX,
    reset_after: None,
    silent_after: None,
};

/// Any line. `trouble` is how often it breaks or falls silent, in percent.
pub fn course(rng: &mut Rng, trouble: u32) -> Course {
    let buffer = [1, 16, 1 << 10, 16 << 10, 256 << 10][rng.usize(..5)];
    let piece = [1 << 6, 1 << 10, 1 << 14, 1 << 20, usize::MAX][rng.usize(..5)];
    let delay = Duration::from_micros([0, 100, 2_000, 50_000][rng.usize(..4)]);
    // One byte at a time takes too many turns for long bodies, and a delay makes it unbearable.
    let (buffer, piece) = if rng.u8(..4) > 0 || delay > Duration::from_micros(100) {
        (buffer.max(16 << 10), piece.max(1 << 12))
    } else {
        (buffer.max(64), piece)
    };
    let hits = |rng: &mut Rng| rng.u32(..100) < trouble;
    let at = |rng: &mut Rng| {
        // Most of what is interesting is in the head, or close to the end of a short body.
        let most = [64, 700, 4 << 10, 200 << 10][rng.usize(..4)];
        rng.usize(..most)
    };
    let reset_after = hits(rng).then(|| at(rng));
    let silent_after = hits(rng).then(|| {
        let seconds = [0.05, 1.5, 8.0, 40.0, 300.0][rng.usize(..5)];
        (at(rng), Duration::from_secs_f64(seconds))
    });
    Course { buffer, delay, piece, reset_after, silent_after }
}

/// From the proxy to an instance.
pub fn to_instance(rng: &mut Rng, trouble: u32) -> Fate {
    match rng.u32(..100) {
        roll if roll < trouble / 2 => Fate::Refused,
        roll if roll < trouble => Fate::Unanswered,
        _ if rng.bool() => Fate::Connected(QUICK, QUICK),
        _ => Fate::Connected(course(rng, trouble), course(rng, trouble)),
    }
}

/// From a client to the proxy.
pub fn from_client(rng: &mut Rng, trouble: u32) -> Fate {
    if rng.bool() {
        return Fate::Connected(QUICK, QUICK);
    }
    Fate::Connected(course(rng, trouble), course(rng, trouble))
}
