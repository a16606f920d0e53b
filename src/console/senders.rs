//! Configurations of senders, into which the page puts its own address, the device's name and the key.
//! The same texts stand in `docs/operations/devices.md`, and tests have each read by its program.

use serde_json::{Value, json};

/// The senders in the order of their tabs: name, and files with their texts.
const SENDERS: [(&str, &[(&str, &str)]); 6] = [
    ("Prometheus", &[("prometheus.yml", include_str!("senders/prometheus.yml"))]),
    ("Alloy", &[("config.alloy", include_str!("senders/config.alloy"))]),
    ("Collector", &[("otelcol.yaml", include_str!("senders/otelcol.yaml"))]),
    (
        "vmagent",
        &[
            ("vmagent.sh", include_str!("senders/vmagent.sh")),
            ("scrape.yml", include_str!("senders/scrape.yml")),
        ],
    ),
    ("Telegraf", &[("telegraf.conf", include_str!("senders/telegraf.conf"))]),
    ("curl", &[("curl.sh", include_str!("senders/curl.sh"))]),
];

pub(super) fn document() -> Value {
    let senders = SENDERS.iter().map(|(name, files)| {
        let files = files.iter().map(|(file, text)| json!({ "file": file, "text": text }));
        json!({ "name": name, "files": files.collect::<Vec<_>>() })
    });
    json!({ "address": "https://metrics.example.com", "device": "hub-17",
            "senders": senders.collect::<Vec<_>>() })
}
