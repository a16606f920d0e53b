use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const ALONE: Assumptions = Assumptions { mimir: MimirVersion(3, 1), instances: None, ours: None };

/// Our own side, of which nothing is found in an empty profile.
const OURS: Ours = Ours {
    federation: 1,
    rules: false,
    channels: false,
    alertmanager_apart: false,
    private_targets: false,
    alert_events: None,
    body_timeout: Duration::from_secs(25),
    response_timeout: Duration::from_secs(150),
    push_body_bytes: 100 << 20,
    otlp_body_bytes: 16 << 20,
};

/// On a private address, so that only what a test is about is found.
const PRIVATE: &str = "server: {http_listen_address: 10.0.0.1, grpc_listen_address: 10.0.0.1}\n";

fn found_with(text: &str, assumptions: Assumptions) -> Vec<(&'static str, String)> {
    let findings = examine(&format!("{PRIVATE}{text}"), &Variables::Unknown, assumptions);
    findings.into_iter().map(|finding| (finding.check, finding.key)).collect()
}

pub(super) fn found(text: &str) -> Vec<(&'static str, String)> {
    found_with(text, ALONE)
}

fn one(check: &'static str, key: &str) -> Vec<(&'static str, String)> {
    vec![(check, key.to_owned())]
}

// An empty file is no good one: it is the wrong one, or nothing was put into it.
#[test]
fn a_file_with_nothing_in_it_is_an_error() {
    for text in ["", "# only words\n", "---\n", "{}\n", "null\n"] {
        let findings = examine(text, &Variables::Unknown, ALONE);
        assert_eq!(findings.len(), 1, "{text:?}: {findings:?}");
        assert_eq!((findings[0].check, findings[0].severity), ("wrong-file", Severity::Error));
    }
    assert!(found("").is_empty());
}

// One mistake is one finding, and two that differ are two.
#[test]
fn a_listener_on_every_address_is_told_once() {
    let findings = examine("target: all\n", &Variables::Unknown, ALONE);
    let keys: Vec<&str> = findings.iter().map(|finding| finding.key.as_str()).collect();
    assert_eq!(keys, ["server.http_listen_address"]);
    assert!(findings[0].wrong.contains("server.grpc_listen_address"), "{}", findings[0]);
    let two = "server: {http_listen_address: 203.0.113.7, grpc_listen_address: 0.0.0.0}\n";
    assert_eq!(examine(two, &Variables::Unknown, ALONE).len(), 2);
}

// Values of Helm are no list of mistyped keys.
#[test]
fn of_a_file_of_others_only_that_is_told() {
    let values =
        "mimir:\n  structuredConfig:\n    limit: {}\ningester:\n  replicas: 3\nlimitts: {}\n";
    let findings = examine(values, &Variables::Unknown, ALONE);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(!findings[0].to_string().contains("did you mean"), "{}", findings[0]);
}

#[test]
fn unknown_keys_are_found_anywhere_in_a_ring() {
    for (ring, key) in [
        ("ingester.ring", "replication_facto"),
        ("ingester.ring", "store"),
        ("distributor.ring", "replication_factor"),
        ("compactor.sharding_ring", "instance_adress"),
        ("store_gateway.sharding_ring", "x"),
        ("ruler.ring", "heartbeat"),
        ("querier.ring", "num_tokens"),
        ("query_scheduler.ring", "kv_store"),
        ("alertmanager.sharding_ring", "instance_name"),
        ("overrides_exporter.ring", "enable"),
        ("ingester.ring.kvstore", "stor"),
        ("ingester.ring.kvstore.consul", "token"),
        ("ingester.ring.kvstore.etcd", "endpoint"),
        ("ingester.ring.kvstore.multi", "first"),
        ("ingester.partition_ring", "replication_factor"),
        ("ingester.partition_ring.kvstore", "stor"),
        ("distributor.ha_tracker.kvstore", "stor"),
    ] {
        let parts: Vec<&str> = ring.split('.').collect();
        let text = format!("{}: {{{key}: a}}{}\n", parts.join(": {"), "}".repeat(parts.len() - 1));
        assert_eq!(found(&text), one("unknown-key", &format!("{ring}.{key}")), "{text}");
    }
}

#[test]
fn each_age_of_samples_is_asked_for_where_it_is() {
    let store_after = |after: &str| found(&format!("querier: {{query_store_after: {after}}}\n"));
    let young = one("young-blocks-unseen", "querier.query_store_after");
    assert_eq!((store_after("0s"), store_after("1h")), (young.clone(), young));
    assert!(store_after("10h").is_empty() && store_after("12h").is_empty());
    let both =
        "querier: {query_store_after: 0s}\nblocks_storage: {bucket_store: {ignore_blocks_within: ";
    for fits in ["0s", "-1s"] {
        assert!(found(&format!("{both}{fits}}}}}\n")).is_empty(), "{fits}");
    }
    let ignored = "blocks_storage: {bucket_store: {ignore_blocks_within: 13h}}\n";
    let key = "blocks_storage.bucket_store.ignore_blocks_within";
    assert_eq!(found(ignored), one("young-blocks-unseen", key));
    assert!(store_after("${AFTER}").is_empty(), "what is not known is not judged");
    let within = "limits: {query_ingesters_within: 12h}\n";
    assert_eq!(found(within), one("store-after-ingesters", "limits.query_ingesters_within"));
    let kept = "blocks_storage: {tsdb: {retention_period: 6h}}\n";
    assert_eq!(found(kept), one("samples-gap", "blocks_storage.tsdb.retention_period"));
}

#[test]
fn rules_need_somebody_who_is_told() {
    let rules = "ruler_storage: {backend: filesystem}\n";
    let nowhere = one("alerts-nowhere", "limits.ruler_alertmanager_client_config.alertmanager_url");
    assert_eq!(found(rules), nowhere);
    let ours = Assumptions { ours: Some(Ours { rules: true, ..OURS }), ..ALONE };
    assert_eq!(found_with("target: all\n", ours), nowhere);
    for told in [
        "limits: {ruler_alertmanager_client_config: {alertmanager_url: 'http://a'}}\n",
        "target: ingester\n",
    ] {
        assert!(found_with(&format!("{told}{rules}"), ours).is_empty(), "{told}");
    }
    assert!(found("ruler: {ring: {num_tokens: 128}}\n").is_empty(), "that speaks of no rules");
}

/// A ruler with an Alertmanager somewhere.
const CLIENT: &str = "limits: {ruler_alertmanager_client_config: {alertmanager_url: 'http://a'}}\n";

/// Mimir's own, of which nothing is found.
pub(super) const ALERTMANAGER: &str = "target: all,alertmanager
alertmanager: {fallback_config_file: a}
limits:
  alertmanager_receivers_firewall_block_private_addresses: true
  alertmanager_max_silences_count: 500
  alertmanager_max_silence_size_bytes: 10240
  alertmanager_notification_rate_limit: 5
  alertmanager_max_config_size_bytes: 524288
  alertmanager_max_alerts_count: 5000
  alertmanager_max_alerts_size_bytes: 10485760
  alertmanager_max_dispatcher_aggregation_groups: 1000
  ruler_alertmanager_client_config: {alertmanager_url: 'http://127.0.0.1:8080/alertmanager'}
";

#[test]
fn an_alertmanager_needs_a_fallback_limits_and_a_firewall() {
    assert_eq!(found(ALERTMANAGER), []);
    // `backend` runs it too, `all` does not.
    for (target, count) in [("all,alertmanager", 9), ("backend", 9), ("all", 0)] {
        assert_eq!(found(&format!("target: {target}\n")).len(), count, "{target}");
    }
    let without = |line: &str| {
        let lines: Vec<&str> = ALERTMANAGER.lines().filter(|known| !known.contains(line)).collect();
        found(&(lines.join("\n") + "\n"))
    };
    for (line, check, key) in [
        ("fallback", "alertmanager-without-fallback", "alertmanager.fallback_config_file"),
        (
            "firewall",
            "receivers-firewall-off",
            "limits.alertmanager_receivers_firewall_block_private_addresses",
        ),
        ("silences_count", "silences-unlimited", "limits.alertmanager_max_silences_count"),
        ("silence_size", "silences-unlimited", "limits.alertmanager_max_silence_size_bytes"),
        ("rate_limit", "notifications-unlimited", "limits.alertmanager_notification_rate_limit"),
        ("config_size", "alertmanager-unlimited", "limits.alertmanager_max_config_size_bytes"),
        ("alerts_count", "alertmanager-unlimited", "limits.alertmanager_max_alerts_count"),
        ("alerts_size", "alertmanager-unlimited", "limits.alertmanager_max_alerts_size_bytes"),
        (
            "aggregation_groups",
            "alertmanager-unlimited",
            "limits.alertmanager_max_dispatcher_aggregation_groups",
        ),
    ] {
        assert_eq!(without(line), one(check, key), "{line}");
    }
}

// Until 2.16 the old key is the only one.
#[test]
fn the_deprecated_address_is_told_apart_from_one_that_hides_another() {
    let old = "ruler: {alertmanager_url: 'http://a'}\n";
    let of = |text: &str, mimir| found_with(text, Assumptions { mimir, ..ALONE });
    let deprecated = one("alertmanager-url-deprecated", "ruler.alertmanager_url");
    assert_eq!(found(old), deprecated);
    assert_eq!(of(old, MimirVersion(2, 17)), deprecated);
    assert_eq!(of(old, MimirVersion(2, 16)), []);
    for (new, severity) in [("http://a", Severity::Warning), ("http://b", Severity::Error)] {
        let text = format!(
            "{PRIVATE}{old}limits: {{ruler_alertmanager_client_config: {{alertmanager_url: '{new}'}}}}\n"
        );
        let findings = examine(&text, &Variables::Unknown, ALONE);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].severity, severity, "{new}");
    }
}

/// Where our side takes alerts, with the secret `a/secret`.
fn receiver() -> Assumptions {
    let secret = SecretDigest::of(b"a/secret");
    let receiver = Receiver { secret, private_port: 9090, public_port: 8443 };
    Assumptions { ours: Some(Ours { alert_events: Some(receiver), ..OURS }), ..ALONE }
}

/// What is found in this list of addresses.
fn found_in_list(list: &str, more: &str) -> Vec<Finding> {
    let limit =
        format!("{{ruler_alertmanager_client_config: {{alertmanager_url: '{list}'{more}}}}}");
    examine(&format!("{PRIVATE}limits: {limit}\n"), &Variables::Unknown, receiver())
}

// The proxy refuses an alert without the secret.
#[test]
fn alert_events_need_a_second_address_that_the_proxy_accepts() {
    let own = "http://127.0.0.1:8080/alertmanager";
    for (more, words) in [
        ("", "has no second address"),
        (",http://p:9091/alertmanager", "no address with a password"),
        (",http://p:9090/alertmanager", "without a password"),
        (",http://mimir@p:9090/alertmanager", "without a password"),
        (",http://mimir:@p:9090/alertmanager", "without a password"),
        (",http://mimir:a%2Fsecrets@p:9090/alertmanager", "another password"),
        (",http://mimir:other@p:19090/alertmanager", "another password"),
        (",http://u:other@p/am,http://mimir:other@p:9090/alertmanager", "another password"),
        (",https://mimir:a%2Fsecret@p:9090/alertmanager", "https"),
        (",http://mimir:a%2Fsecret@p:8443/alertmanager", "public port"),
        (",http://mimir:a%2Fsecret@p:9090", "without /alertmanager"),
        (",http://mimir:a%2Fsecret@p:9090/", "without /alertmanager"),
        // What else stands there and is not known does not help.
        (
            ",http://${OTHER}/alertmanager,http://mimir:other@p:9090/alertmanager",
            "another password",
        ),
    ] {
        let findings = found_in_list(&format!("{own}{more}"), "");
        let told: Vec<_> = findings.iter().map(|found| (found.check, found.severity)).collect();
        assert_eq!(told, [("alert-events-receiver", Severity::Error)], "{more}");
        assert!(findings[0].wrong.contains(words), "{more}: {}", findings[0]);
        assert!(!findings[0].to_string().contains("a/secret"), "{}", findings[0]);
    }
    for more in [
        ",http://mimir:a%2Fsecret@p:9090/alertmanager",
        ",http://mimir:a%2Fsecret@[fdaa::1]:9090/alertmanager/",
        ",http://mimir:${SECRET}@p:9090/alertmanager",
        // A port that something maps, TLS that something ends, and one of two that is right.
        ",http://mimir:a%2Fsecret@p:19090/alertmanager",
        ",https://mimir:a%2Fsecret@p/alertmanager",
        ",http://u:other@p/am,http://mimir:a%2Fsecret@p:9090/alertmanager",
        ",dns+http://mimir:a%2Fsecret@p:9090/alertmanager",
        "${RECEIVER}",
        ",http://${RECEIVER}/alertmanager",
        ",http://mimir:other@${RECEIVER}/alertmanager",
        ",http://${USER_AND_PASSWORD}@p:9090/alertmanager",
    ] {
        assert_eq!(found_in_list(&format!("{own}{more}"), ""), [], "{more}");
    }
    // Mimir sends these to every address, instead of its own.
    let both = format!("{own},http://p:9090/alertmanager");
    let of_all = ", basic_auth_username: a, basic_auth_password: ";
    assert_eq!(found_in_list(&both, &format!("{of_all}a/secret")), []);
    let wrong = found_in_list(&both, &format!("{of_all}other"));
    assert_eq!((wrong.len(), wrong[0].check), (1, "alert-events-receiver"));
    let replaced = format!("{own},http://mimir:a%2Fsecret@p:9090/alertmanager");
    assert_eq!(found_in_list(&replaced, &format!("{of_all}other")).len(), 1);
    let off = Assumptions { ours: Some(OURS), ..ALONE };
    assert_eq!(found_with(CLIENT, off), []);
}

// Seen: our own profile has the proxy's address in a variable, so nothing was compared, and nothing said so.
#[test]
fn what_a_variable_hides_of_alert_events_is_told() {
    let own = "http://127.0.0.1:8080/alertmanager";
    let told = |list: &str, more: &str, assumptions| {
        let limit =
            format!("{{ruler_alertmanager_client_config: {{alertmanager_url: '{list}'{more}}}}}");
        let text = format!("{PRIVATE}limits: {limit}\n");
        uncompared(&text, &Variables::Unknown, assumptions)
    };
    let of_all = ", basic_auth_username: a, basic_auth_password: ";
    for (list, more) in [
        ("${RECEIVER}", ""),
        (",http://${RECEIVER}/alertmanager", ""),
        (",http://mimir:a%2Fsecret@${RECEIVER}/alertmanager", ""),
        (",http://mimir:${SECRET}@p:9090/alertmanager", ""),
        (
            ",http://p:9090/alertmanager",
            ", basic_auth_username: a, basic_auth_password: '${SECRET}'",
        ),
    ] {
        let note = told(&format!("{own}{list}"), more, receiver()).unwrap();
        assert!(note.contains("note: limits.") && note.contains("--expand-env"), "{list}: {note}");
    }
    for (list, more) in [
        (",http://mimir:a%2Fsecret@p:9090/alertmanager", String::new()),
        (",http://mimir:a%2Fsecret@${HOST}:9090/alertmanager", String::new()),
        (",http://mimir:a%2Fsecret@p:9090/alertmanager,http://${OTHER}/am", String::new()),
        (",http://p:9090/alertmanager", format!("{of_all}a/secret")),
        // There is a finding.
        ("", String::new()),
        (",http://${OTHER}/am,http://mimir:other@p:9090/alertmanager", String::new()),
    ] {
        assert_eq!(told(&format!("{own}{list}"), &more, receiver()), None, "{list}");
    }
    let off = Assumptions { ours: Some(OURS), ..ALONE };
    assert_eq!(told(&format!("{own}${{RECEIVER}}"), "", off), None);
    assert_eq!(told(&format!("{own}${{RECEIVER}}"), "", ALONE), None);
}

#[test]
fn a_list_with_only_the_proxy_notifies_no_one() {
    let only = found_in_list("http://mimir:a%2Fsecret@p:9090/alertmanager", "");
    assert_eq!((only.len(), only[0].check), (1, "alerts-nowhere"));
    assert!(only[0].wrong.contains("no one is notified"), "{}", only[0]);
    assert_eq!(found_in_list("http://mimir:a%2Fsecret@p:9090/alertmanager${MORE}", ""), []);
}

// Seen in Mimir's source: `url.Parse` refuses an address that begins with a space.
#[test]
fn the_addresses_of_alertmanagers_are_written_as_mimir_reads_them() {
    let key = "limits.ruler_alertmanager_client_config.alertmanager_url";
    let with = |list: &str, more: &str| {
        let text = ALERTMANAGER.replace("http://127.0.0.1:8080/alertmanager", list);
        found(&format!("{text}{more}"))
    };
    for list in ["http://a/am, http://b/am", " http://a/am", "http://a/am ,http://b/am"] {
        assert_eq!(with(list, ""), one("alertmanager-url-space", key), "{list}");
    }
    let path = one("alertmanager-url-path", key);
    assert_eq!(with("http://a/api/v2/alerts", ""), path);
    let local = ["http://127.0.0.1:8080", "http://localhost:8080/", "http://[::1]:8080/alerts"];
    for list in local {
        assert_eq!(with(list, ""), path, "{list}");
    }
    assert_eq!(
        with("http://127.0.0.1:8080/alertmanager", "api: {alertmanager_http_prefix: /am}\n"),
        path
    );
    assert_eq!(with("http://127.0.0.1:8080/am", "api: {alertmanager_http_prefix: /am}\n"), []);
    // Another's, whose prefix is not known.
    for list in ["http://a:8080", "http://127.0.0.1:9093", "http://127.0.0.1:8080${MORE}"] {
        assert_eq!(with(list, ""), [], "{list}");
    }
}

#[test]
fn an_alertmanagers_state_belongs_into_an_object_store() {
    let with = |storage: &str, instances| {
        let assumptions = Assumptions { instances, ..ALONE };
        let rings = "memberlist: {join_members: [a]}\n";
        let text = format!("{ALERTMANAGER}{rings}alertmanager_storage: {storage}\n");
        found_with(&text, assumptions).iter().any(|(check, _)| *check == "alertmanager-state-local")
    };
    for instances in [None, Some(1), Some(3)] {
        assert!(with("{backend: local}", instances), "{instances:?}");
    }
    assert!(with("{backend: filesystem}", Some(3)) && with("{}", Some(3)));
    for (storage, instances) in [
        ("{backend: filesystem}", Some(1)),
        ("{backend: gcs}", Some(3)),
        ("{backend: filesystem}", None),
    ] {
        assert!(!with(storage, instances), "{storage} {instances:?}");
    }
}

// What our channels need of Mimir.
#[test]
fn channels_need_the_api_and_the_same_firewall() {
    let with = |more: &str, ours| {
        let text = ALERTMANAGER.replace("{fallback_config_file: a}", more);
        found_with(&text, Assumptions { ours: Some(ours), ..ALONE })
    };
    let channels = Ours { channels: true, ..OURS };
    let without = ALERTMANAGER.replace("all,alertmanager", "all");
    let of_channels = Assumptions { ours: Some(channels), ..ALONE };
    assert_eq!(found_with(&without, of_channels), one("alertmanager-off", "target"));
    assert_eq!(found_with("target: ingester\n", of_channels), []);
    let apart = Ours { alertmanager_apart: true, ..channels };
    assert_eq!(found_with(&without, Assumptions { ours: Some(apart), ..ALONE }), []);
    let off = "{fallback_config_file: a, enable_api: false}";
    assert_eq!(with(off, channels), one("alertmanager-api-off", "alertmanager.enable_api"));
    assert_eq!(with(off, OURS), []);
    let private = Ours { private_targets: true, ..channels };
    let firewall = "limits.alertmanager_receivers_firewall_block_private_addresses";
    let mismatch = one("receivers-firewall-mismatch", firewall);
    assert_eq!(with("{fallback_config_file: a}", private), mismatch);
    let text = ALERTMANAGER.replace("addresses: true", "addresses: false");
    let found = found_with(&text, Assumptions { ours: Some(private), ..ALONE });
    assert_eq!(found, [], "that is meant");
    let slow = "{fallback_config_file: a, poll_interval: 10m}";
    let interval = one("alertmanager-poll-interval", "alertmanager.poll_interval");
    assert_eq!(with(slow, OURS), interval);
}

// What we let through Mimir must take, and the other way round.
#[test]
fn limits_are_compared_with_ours() {
    let with =
        |theirs: &str, ours: Ours| found_with(theirs, Assumptions { ours: Some(ours), ..ALONE });
    let seconds = Duration::from_secs;
    assert!(with("target: all\n", OURS).is_empty());
    let slow = Ours { body_timeout: seconds(300), ..OURS };
    let (read, write) = ("server.http_server_read_timeout", "server.http_server_write_timeout");
    let both: Vec<_> = [read, write].map(|key| ("timeout-mismatch", key.to_owned())).into();
    assert_eq!(with("target: all\n", slow), both);
    let listeners = "http_listen_address: 10.0.0.1, grpc_listen_address: 10.0.0.1";
    let whole = |read: &str, write: &str, ours: Ours| {
        let text = format!(
            "server: {{{listeners}, http_server_read_timeout: {read}, http_server_write_timeout: {write}}}\n"
        );
        let assumptions = Assumptions { ours: Some(ours), ..ALONE };
        let findings = examine(&text, &Variables::Unknown, assumptions);
        findings.into_iter().map(|finding| finding.key).collect::<Vec<_>>()
    };
    assert_eq!(whole("6m", "6m", slow), [""; 0]);
    assert_eq!(whole("0s", "0", slow), [""; 0], "0 is no limit");
    assert_eq!(whole("5m", "3m", slow), [write]);
    assert_eq!(whole("4m59s", "5m", slow), [read]);
    let text = "server: {http_server_write_timeout: 1m, http_listen_address: 10.0.0.1, grpc_listen_address: 10.0.0.1}\n";
    let findings = examine(text, &Variables::Unknown, ALONE);
    assert_eq!((findings[0].check, findings.len()), ("query-timeout", 1));
    assert_eq!(found("querier: {timeout: 3m}\n"), one("query-timeout", "querier.timeout"));
    let query = one("timeout-mismatch", "querier.timeout");
    let impatient = Ours { response_timeout: seconds(60), ..OURS };
    assert_eq!(with("target: all\n", impatient), query);
    assert!(with("querier: {timeout: 50s}\n", impatient).is_empty());
    for (key, ours) in [
        ("max_recv_msg_size", Ours { push_body_bytes: 101 << 20, ..OURS }),
        ("max_otlp_request_size", Ours { otlp_body_bytes: 101 << 20, ..OURS }),
    ] {
        let wanted = one("size-mismatch", &format!("distributor.{key}"));
        assert_eq!(with("target: all\n", ours), wanted);
        assert_eq!(with(&format!("distributor: {{{key}: 1000}}\n"), OURS), wanted);
        assert!(with(&format!("distributor: {{{key}: 209715200}}\n"), ours).is_empty());
    }
}

// What all stores inherit is one fault, at the place where it is to be mended.
#[test]
fn an_inherited_fault_is_told_once() {
    let common = "common: {storage: {backend: s3, s3: {endpoint: a.r2.cloudflarestorage.com, region: auto}}}\n\
                  blocks_storage: {s3: {bucket_name: a}}\nruler_storage: {s3: {bucket_name: b}}\n";
    assert_eq!(
        found(&format!("{common}{CLIENT}")),
        one("r2-content-md5", "common.storage.s3.send_content_md5")
    );
}

// Mimir compares bucket and prefix of rules and Alertmanager with those of the blocks.
#[test]
fn a_prefix_parts_what_a_bucket_shares() {
    let with = |prefix: &str| {
        let without_target = ALERTMANAGER.replace("target: all,alertmanager\n", "");
        found(&format!(
            "common: {{storage: {{backend: s3, s3: {{endpoint: s3.example.com, bucket_name: all}}}}}}\n\
             {without_target}{prefix}"
        ))
    };
    assert_eq!(with(""), one("storage-shared", "ruler_storage.storage_prefix"));
    assert_eq!(with("ruler_storage: {storage_prefix: rules}\n"), []);
    let alertmanager = "target: all,alertmanager\nruler_storage: {storage_prefix: rules}\n";
    assert_eq!(with(alertmanager), one("storage-shared", "alertmanager_storage.storage_prefix"));
    let mixed = "target: all,alertmanager\nruler_storage: {storage_prefix: rules}\n\
                 alertmanager_storage: {storage_prefix: rules}\n";
    assert_eq!(with(mixed), one("storage-mixed", "alertmanager_storage.storage_prefix"));
    let slash = "ruler_storage: {storage_prefix: rules/}\n";
    assert_eq!(with(slash), one("storage-prefix-form", "ruler_storage.storage_prefix"));
}

#[test]
fn federation_is_compared_with_ours() {
    let with = |theirs: &str, ours: usize| {
        found_with(theirs, Assumptions { ours: Some(Ours { federation: ours, ..OURS }), ..ALONE })
    };
    let (off, on) =
        ("tenant_federation: {enabled: false}\n", "tenant_federation: {enabled: true}\n");
    let limited = "tenant_federation: {enabled: true, max_tenants: 8}\n";
    let enabled = one("federation-mismatch", "tenant_federation.enabled");
    assert_eq!(
        (with("", 16), with(off, 16), with(on, 1)),
        (enabled.clone(), enabled.clone(), enabled)
    );
    assert_eq!(with(limited, 16), one("federation-mismatch", "tenant_federation.max_tenants"));
    assert!(with(on, 16).is_empty() && with(off, 1).is_empty() && with(limited, 8).is_empty());
    assert!(found(on).is_empty(), "without our configuration there is nothing to compare with");
}

// A write needs a majority of its copies.
#[test]
fn copies_are_counted_against_instances() {
    let with = |copies: &str, instances: u32| {
        let text = format!(
            "ingester: {{ring: {{replication_factor: {copies}}}}}\nmemberlist: {{join_members: [a]}}\n"
        );
        let assumptions = Assumptions { instances: Some(instances), ..ALONE };
        let text = format!("{PRIVATE}{text}");
        let findings = examine(&text, &Variables::Unknown, assumptions);
        findings.first().map(|finding| finding.severity)
    };
    assert_eq!(with("3", 1), Some(Severity::Error));
    assert_eq!(with("3", 2), Some(Severity::Warning));
    assert_eq!(with("3", 3), None);
    assert_eq!(with("1", 1), None);
    assert_eq!(with("1", 2), Some(Severity::Warning));
    assert_eq!(with("${COPIES}", 1), None, "what is not known is not judged");
}

#[test]
fn redis_is_gone_in_3_and_there_in_2() {
    let text = "frontend: {cache_results: true, results_cache: {backend: redis, redis: {endpoint: 'r:6379'}}}\n";
    assert_eq!(found(text), one("redis-removed", "frontend.results_cache.backend"));
    let two = Assumptions { mimir: MimirVersion(2, 17), ..ALONE };
    assert!(found_with(text, two).is_empty());
    let scheme = text.replace("r:6379", "redis://r:6379");
    assert_eq!(
        found_with(&scheme, two),
        one("cache-address", "frontend.results_cache.redis.endpoint")
    );
}

#[test]
fn listeners_are_judged_by_their_address() {
    let with = |address: &str, surroundings: &str| {
        let text = format!(
            "server: {{http_listen_address: '{address}', grpc_listen_address: 10.0.0.1}}\n{surroundings}"
        );
        let findings = examine(&text, &Variables::Unknown, ALONE);
        findings.first().map(|finding| finding.severity)
    };
    let (fly, warning) = ("frontend: {address: 1.vm.am.internal}\n", Some(Severity::Warning));
    let aws = "frontend: {address: ip-10-1-2-4.ec2.internal}\n";
    assert_eq!(with("0.0.0.0", aws), warning, "not everything that is .internal is Fly's");
    assert_eq!(with("[::]", ""), Some(Severity::Error));
    for address in ["0.0.0.0", "::", "203.0.113.7", "2001:db8::1"] {
        assert_eq!(with(address, ""), warning, "{address}");
    }
    for address in [
        "127.0.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "fc00:0:1::3",
        "::ffff:10.0.0.1",
        "::1",
        "fly-local-6pn",
        "",
    ] {
        assert_eq!(with(address, ""), None, "{address}");
    }
    assert_eq!(with("::", fly), None);
    assert_eq!(with("0.0.0.0", fly), Some(Severity::Error));
}

#[test]
fn versions_are_read() {
    for (text, version) in
        [("2.17", (2, 17)), ("2.17.4", (2, 17)), ("3.0", (3, 0)), ("3", (3, u32::MAX))]
    {
        assert_eq!(text.parse(), Ok(MimirVersion(version.0, version.1)), "{text}");
    }
    for text in ["", "4", "2.x", "main"] {
        assert!(text.parse::<MimirVersion>().is_err(), "{text}");
    }
}

// With the environment put in, what was unknown can be judged.
#[test]
fn values_of_variables_are_judged_when_they_are_known() {
    let text = format!("{PRIVATE}multitenancy_enabled: ${{MULTITENANCY}}\n");
    assert!(examine(&text, &Variables::Unknown, ALONE).is_empty());
    let values = BTreeMap::from([("MULTITENANCY".to_owned(), "false".to_owned())]);
    let findings = examine(&text, &Variables::Known(values), ALONE);
    assert_eq!(
        findings[0].to_string(),
        "line 2: error: multitenancy_enabled: is off, so Mimir \
        ignores X-Scope-OrgID and every tenant sees all data; leave it on [multitenancy-off]"
    );
}

#[test]
fn a_mistyped_key_is_named_with_the_one_that_was_meant() {
    let findings = examine(&format!("{PRIVATE}ingestor: {{}}\n"), &Variables::Unknown, ALONE);
    assert_eq!(findings.len(), 1);
    assert_eq!((findings[0].line, findings[0].right.as_str()), (2, "did you mean ingester?"));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}", instances in proptest::option::of(1_u32..9)) {
        let assumptions = Assumptions { instances, ours: Some(OURS), ..ALONE };
        for variables in [Variables::Unknown, Variables::Known(BTreeMap::new())] {
            examine(&text, &variables, assumptions);
        }
    }

    // Text that looks like a profile gets further than noise.
    #[test]
    fn no_yaml_makes_it_panic(lines in proptest::collection::vec(line(), 0..30)) {
        for mimir in [MimirVersion(2, 17), MimirVersion(3, 1)] {
            let assumptions = Assumptions { mimir, instances: Some(3), ours: Some(OURS) };
            examine(&lines.concat(), &Variables::Unknown, assumptions);
        }
    }

    // Every line that is told exists.
    #[test]
    fn lines_are_within_the_text(lines in proptest::collection::vec(line(), 0..30)) {
        let text = lines.concat();
        let count = text.lines().count() as u64;
        for finding in examine(&text, &Variables::Unknown, ALONE) {
            prop_assert!(finding.line <= count + 1, "{finding}");
        }
    }
}

fn line() -> impl Strategy<Value = String> {
    let keys = proptest::sample::select(vec![
        "ingester",
        "ring",
        "kvstore",
        "consul",
        "store",
        "prefix",
        "host",
        "ruler",
        "s3",
        "common",
        "storage",
        "backend",
        "endpoint",
        "server",
        "http_listen_address",
        "limits",
        "memcached",
        "frontend",
        "results_cache",
        "instance_addr",
        "replication_factor",
        "- a",
        "<<",
        "&x a",
    ]);
    let values = proptest::sample::select(vec![
        "",
        "consul",
        "s3",
        "redis",
        "${A}",
        "${A:-b}",
        "${",
        "'x",
        "[a",
        "{a: b}",
        "*x",
        "0",
        "on",
        "https://a/b",
        "| ",
        "0.0.0.0",
        "!!binary AA",
        "\"\\u0000\"",
    ]);
    (0_usize..5, keys, values).prop_map(|(depth, key, value)| {
        format!("{:indent$}{key}: {value}\n", "", indent = depth * 2)
    })
}

// Seen with Mimir 3.1: it starts with none of these, and each turned a comparison off in silence.
#[test]
fn a_value_that_mimir_cannot_read_is_an_error_where_it_is_compared() {
    for (text, key) in [
        ("querier: {timeout: 5min}\n", "querier.timeout"),
        ("querier: {timeout: 120}\n", "querier.timeout"),
        ("querier: {query_store_after: 1d}\n", "querier.query_store_after"),
        ("distributor: {max_recv_msg_size: 200MiB}\n", "distributor.max_recv_msg_size"),
        ("limits: {out_of_order_time_window: 7days}\n", "limits.out_of_order_time_window"),
    ] {
        assert_eq!(found(text), one("unreadable-value", key), "{text}");
    }
    let server = "server: {http_listen_address: 10.0.0.1, grpc_listen_address: 10.0.0.1, \
                  http_server_read_timeout: 5}\n";
    let findings = examine(server, &Variables::Unknown, ALONE);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].check, "unreadable-value");
    for right in [
        "querier: {timeout: 2m}\n",
        "querier: {timeout: \"${TIMEOUT}\"}\n",
        "querier: {timeout: }\n",
        "limits: {query_ingesters_within: 2d}\n",
        "distributor: {max_recv_msg_size: 104857600}\n",
    ] {
        assert!(found(right).iter().all(|(check, _)| *check != "unreadable-value"), "{right}");
    }
}

#[test]
fn a_target_or_backend_that_mimir_does_not_know_is_an_error() {
    for (text, key) in [
        ("target: al\n", "target"),
        ("target: all,alertmanger\n", "target"),
        ("target: all, alertmanager\n", "target"),
        ("target: [all]\n", "target"),
        ("target: server\n", "target"),
        ("target: flusher\n", "target"),
        ("common: {storage: {backend: minio}}\n", "common.storage.backend"),
        ("blocks_storage: {backend: local}\n", "blocks_storage.backend"),
        ("ruler_storage: {backend: S3}\n", "ruler_storage.backend"),
        ("ruler_storage: {cache: {backend: inmemory}}\n", "ruler_storage.cache.backend"),
    ] {
        let found = found(text);
        assert!(found.contains(&("unknown-value", key.to_owned())), "{text}: {found:?}");
    }
    for right in [
        "target: all,alertmanager\n",
        "target: \"${TARGET}\"\n",
        "target: query-frontend\n",
        "common: {storage: {backend: gcs}}\n",
        "common: {storage: {backend: \"${STORE}\"}}\n",
        "ruler_storage: {backend: local}\n",
        "blocks_storage: {bucket_store: {index_cache: {backend: inmemory}}}\n",
    ] {
        assert!(found(right).iter().all(|(check, _)| *check != "unknown-value"), "{right}");
    }
    let two = Assumptions { mimir: MimirVersion(2, 17), ..ALONE };
    assert!(found_with("target: flusher\n", two).is_empty());
    assert_eq!(found_with("target: usage-tracker\n", two), one("unknown-value", "target"));
}

// One run tells of both, and what else there is.
#[test]
fn a_key_that_stands_twice_hides_nothing_else() {
    let findings = found("querier: {timeout: 5min}\ntarget: all\ntarget: all\n");
    let checks: Vec<_> = findings.iter().map(|(check, _)| *check).collect();
    assert_eq!(checks, ["unreadable-value", "unreadable"]);
}
