//! What must be true of every message of the ruler.

use super::message::{MOST_ALERT_BYTES, bytes, read};

const NOW: i64 = 1_795_000_000_000;

/// A message. What becomes a row is bounded in size and in time, and Postgres takes its texts.
pub fn alerts(data: &[u8]) {
    let Ok(message) = read(data, NOW) else { return };
    assert_eq!(message.malformed == 0, message.problem.is_none());
    for report in &message.reports {
        assert!(report.fingerprint.len() == 16);
        assert!(report.start > 0 && report.start <= NOW + 3_600_000);
        let start = &report.reported.start;
        assert_eq!(report.is_resolved, start.resolved_at.is_some());
        assert!(start.valid_until.or(start.resolved_at).is_some_and(|end| end >= report.start));
        assert!(start.valid_until.is_none_or(|end| end <= NOW + 6 * 86_400_000));
        let Some((_, payload)) = &report.reported.payload else { continue };
        assert!(payload.labels.contains_key("alertname"));
        // A NUL becomes three bytes.
        assert!(bytes(&payload.labels) + bytes(&payload.annotations) <= 3 * MOST_ALERT_BYTES);
        let texts = payload.labels.iter().chain(&payload.annotations);
        assert!(!texts.flat_map(|(name, value)| [name, value]).any(|text| text.contains('\0')));
    }
}
