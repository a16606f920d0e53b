//! What Mimir's metrics say of one tenant's notifications. A page of metrics has lines of every tenant
//! and may be very long, so it is read line by line and nearly all of it is dropped.

use std::collections::BTreeMap;

use md5::{Digest as _, Md5};

/// What one instance has counted for one tenant and one integration since it started, and which
/// configuration it has loaded. Never summed over instances: if one of them is missing in one of two
/// sums, all that it has ever counted looks like what happened between them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counters {
    /// Notifications that were begun. One may take several requests.
    pub notifications: f64,
    /// Notifications that were given up, by the class of the reason.
    pub failed: BTreeMap<String, f64>,
    /// Requests to the integration.
    pub requests: f64,
    pub requests_failed: f64,
    /// Alerts that were silenced, inhibited or muted, of all integrations.
    pub suppressed: f64,
    /// What [`config_hash`] gives for the configuration that is loaded for the tenant. Empty if this
    /// instance does not serve the tenant.
    pub loaded: Vec<f64>,
}

/// What is looked for: one tenant's notifications by one integration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Asked {
    pub(super) tenant: String,
    pub(super) integration: String,
}

/// The counters of all that is looked for. What has no entry is dropped.
pub(super) type Found = BTreeMap<Asked, Counters>;

/// One reading of all instances: what each of them has counted; `None` if it gave no answer.
pub(super) type Pages = BTreeMap<String, Option<Found>>;

const PREFIX: &str = "cortex_alertmanager_";
/// Lines are shorter than this, but for metrics that are not looked at.
const LONGEST_LINE: usize = 64 << 10;

/// The value of Mimir's metric `cortex_alertmanager_config_hash` for a configuration: 48 bits of the
/// text's MD5 (`md5HashAsMetricValue` in Mimir's `alertmanager.go`).
pub fn config_hash(text: &str) -> f64 {
    let sum = Md5::digest(text.as_bytes());
    let low = u32::from_le_bytes([sum[0], sum[1], sum[2], sum[3]]);
    let high = u16::from_le_bytes([sum[4], sum[5]]);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

/// Reads a page piece by piece.
#[derive(Default)]
pub(super) struct PageReader {
    rest: Vec<u8>,
    is_skipping: bool,
}

impl PageReader {
    pub(super) fn push(&mut self, mut piece: &[u8], into: &mut Found) {
        while let Some(end) = memchr::memchr(b'\n', piece) {
            let (line, after) = piece.split_at(end);
            piece = &after[1..];
            if std::mem::take(&mut self.is_skipping) {
                self.rest.clear();
                continue;
            }
            if self.rest.is_empty() {
                read_line(line, into);
            } else {
                self.rest.extend_from_slice(line);
                let whole = std::mem::take(&mut self.rest);
                read_line(&whole, into);
            }
        }
        if self.rest.len() + piece.len() > LONGEST_LINE {
            self.is_skipping = true;
            self.rest.clear();
        } else if !self.is_skipping {
            self.rest.extend_from_slice(piece);
        }
    }
}

fn read_line(line: &[u8], into: &mut Found) {
    let Some(rest) = line.strip_prefix(PREFIX.as_bytes()) else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let Some((name, rest)) = text.split_once('{') else { return };
    let Some((labels, value)) = rest.rsplit_once("} ") else { return };
    let Some(tenant) = label(labels, "user") else { return };
    for (asked, counters) in into.iter_mut().filter(|(asked, _)| asked.tenant == tenant) {
        let Ok(value) = value.trim().parse::<f64>() else { return };
        let is_ours = label(labels, "integration") == Some(asked.integration.as_str());
        match name {
            "notifications_total" if is_ours => counters.notifications += value,
            "notification_requests_total" if is_ours => counters.requests += value,
            "notification_requests_failed_total" if is_ours => counters.requests_failed += value,
            "notifications_failed_total" if is_ours => {
                let reason = label(labels, "reason").unwrap_or("other").to_owned();
                *counters.failed.entry(reason).or_default() += value;
            }
            "notifications_suppressed_total" => counters.suppressed += value,
            "config_hash" => counters.loaded.push(value),
            _ => {}
        }
    }
}

/// The value of a label. Neither tenants nor integrations nor reasons hold quotes or commas.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.split(',').find_map(|pair| {
        let value = pair.strip_prefix(name)?.strip_prefix("=\"")?;
        value.strip_suffix('"')
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: &str = concat!(
        "# HELP cortex_alertmanager_notifications_total The total number of attempted notifications.\n",
        "cortex_alertmanager_notifications_total{integration=\"webhook\",user=\"acme\"} 5\n",
        "cortex_alertmanager_notifications_total{integration=\"webhook\",user=\"acme2\"} 50\n",
        "cortex_alertmanager_notifications_total{integration=\"email\",user=\"acme\"} 3\n",
        "cortex_alertmanager_notifications_failed_total{integration=\"webhook\",reason=\"clientError\",user=\"acme\"} 2\n",
        "cortex_alertmanager_notification_requests_total{integration=\"webhook\",user=\"acme\"} 7\n",
        "cortex_alertmanager_notification_requests_failed_total{integration=\"webhook\",user=\"acme\"} 4\n",
        "cortex_alertmanager_notifications_suppressed_total{reason=\"silence\",user=\"acme\"} 1\n",
        "cortex_alertmanager_config_hash{user=\"acme\"} 1.6556290634553e+14\n",
        "cortex_ingester_memory_series 1\n",
    );

    fn asked(tenant: &str, integration: &str) -> Asked {
        Asked { tenant: tenant.to_owned(), integration: integration.to_owned() }
    }

    fn read(pieces: impl IntoIterator<Item = Vec<u8>>) -> Counters {
        let mut found = Found::from([(asked("acme", "webhook"), Counters::default())]);
        let mut reader = PageReader::default();
        for piece in pieces {
            reader.push(&piece, &mut found);
        }
        found.into_values().next().unwrap()
    }

    fn expected() -> Counters {
        Counters {
            notifications: 5.0,
            failed: BTreeMap::from([("clientError".to_owned(), 2.0)]),
            requests: 7.0,
            requests_failed: 4.0,
            suppressed: 1.0,
            loaded: vec![165_562_906_345_530.0],
        }
    }

    #[test]
    fn only_the_tenants_lines_of_the_integration_count() {
        assert_eq!(read([PAGE.as_bytes().to_vec()]), expected());
    }

    // One reading serves several tests.
    #[test]
    fn each_of_several_gets_its_own() {
        let all = [
            asked("acme", "webhook"),
            asked("acme", "email"),
            asked("acme2", "webhook"),
            asked("nobody", "webhook"),
        ];
        let mut found: Found = all.iter().map(|one| (one.clone(), Counters::default())).collect();
        PageReader::default().push(PAGE.as_bytes(), &mut found);
        let notifications = all.clone().map(|one| found[&one].notifications.to_string());
        assert_eq!(notifications, ["5", "3", "50", "0"]);
        assert_eq!(found[&all[0]], expected());
        assert_eq!(found[&all[1]].loaded, expected().loaded);
        assert_eq!(found[&all[3]], Counters::default());
    }

    // Mimir's own test: md5HashAsMetricValue of "" is that of d41d8cd98f00.
    #[test]
    fn the_hash_of_a_configuration_is_mimirs() {
        let expected = u64::from_le_bytes([0xd4, 0x1d, 0x8c, 0xd9, 0x8f, 0x00, 0, 0]);
        #[expect(clippy::cast_precision_loss, reason = "48 bits")]
        let expected = expected as f64;
        assert!((config_hash("") - expected).abs() < 0.5);
    }

    #[test]
    fn a_line_without_an_end_takes_no_memory() {
        let one = asked("acme", "webhook");
        let mut found = Found::from([(one.clone(), Counters::default())]);
        let mut reader = PageReader::default();
        for _ in 0..100 {
            reader.push(&[b'x'; 10_000], &mut found);
            assert!(reader.rest.len() <= LONGEST_LINE);
        }
        reader.push(b"\n", &mut found);
        reader.push(PAGE.as_bytes(), &mut found);
        assert_eq!(found[&one], expected());
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(cuts in proptest::collection::vec(0..PAGE.len(), 0..20)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            cuts.push(PAGE.len());
            let mut from = 0;
            let pieces: Vec<Vec<u8>> = cuts
                .into_iter()
                .map(|to| PAGE.as_bytes()[std::mem::replace(&mut from, to)..to].to_vec())
                .collect();
            prop_assert_eq!(read(pieces), expected());
        }
    }
}
