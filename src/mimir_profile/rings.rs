//! The hash rings, and the store of each.

use super::expansion::is_unknown;
use super::{Finding, MimirVersion, Profile};
use crate::yaml::Kind;

/// A hash ring by which instances find each other.
pub(super) struct Ring {
    /// The key of its block.
    pub(super) path: &'static str,
    /// Its name in the key-value store, behind the prefix.
    pub(super) name: &'static str,
    /// The prefix that Mimir takes if there is none.
    pub(super) default_prefix: &'static str,
    /// Its keys beside those that every ring has.
    own: &'static [&'static str],
    is_used: fn(&Profile) -> bool,
}

/// The keys that every ring has, by Mimir's `config-descriptor.json`.
const OF_ALL: [&str; 8] = [
    "kvstore",
    "heartbeat_period",
    "heartbeat_timeout",
    "instance_id",
    "instance_interface_names",
    "instance_port",
    "instance_addr",
    "instance_enable_ipv6",
];

// Names and prefixes as Mimir's sources have them: ingester and ruler both say `ring`.
const RINGS: [Ring; 9] = [
    Ring {
        path: "ingester.ring",
        name: "ring",
        default_prefix: COLLECTORS,
        own: &[
            "replication_factor",
            "zone_awareness_enabled",
            "excluded_zones",
            "tokens_file_path",
            "num_tokens",
            "instance_availability_zone",
            "unregister_on_shutdown",
            "observe_period",
            "min_ready_duration",
            "final_sleep",
            "token_generation_strategy",
            "spread_minimizing_join_ring_in_order",
            "spread_minimizing_zones",
        ],
        is_used: always,
    },
    Ring {
        path: "distributor.ring",
        name: "distributor",
        default_prefix: COLLECTORS,
        own: &["instance_availability_zone", "auto_forget_unhealthy_periods"],
        is_used: always,
    },
    Ring {
        path: "compactor.sharding_ring",
        name: "compactor",
        default_prefix: COLLECTORS,
        own: &[
            "wait_stability_min_duration",
            "wait_stability_max_duration",
            "wait_active_instance_timeout",
            "auto_forget_unhealthy_periods",
        ],
        is_used: always,
    },
    Ring {
        path: "store_gateway.sharding_ring",
        name: "store-gateway",
        default_prefix: COLLECTORS,
        own: &[
            "auto_forget_enabled",
            "auto_forget_unhealthy_periods",
            "replication_factor",
            "tokens_file_path",
            "num_tokens",
            "zone_awareness_enabled",
            "excluded_zones",
            "wait_stability_min_duration",
            "wait_stability_max_duration",
            "instance_availability_zone",
            "unregister_on_shutdown",
        ],
        is_used: always,
    },
    Ring {
        path: "ruler.ring",
        name: "ring",
        default_prefix: "rulers/",
        own: &["auto_forget_unhealthy_periods", "num_tokens"],
        is_used: always,
    },
    Ring {
        path: "querier.ring",
        name: "querier",
        default_prefix: COLLECTORS,
        own: &["auto_forget_unhealthy_periods"],
        is_used: |profile| profile.assumptions.mimir >= WITH_QUERIERS,
    },
    Ring {
        path: "query_scheduler.ring",
        name: "query-scheduler",
        default_prefix: COLLECTORS,
        own: &["auto_forget_unhealthy_periods"],
        is_used: |profile| profile.text("query_scheduler.service_discovery_mode") == Some("ring"),
    },
    Ring {
        path: "alertmanager.sharding_ring",
        name: "alertmanager",
        default_prefix: "alertmanagers/",
        own: &["replication_factor", "zone_awareness_enabled", "instance_availability_zone"],
        is_used: Profile::runs_alertmanager,
    },
    Ring {
        path: "overrides_exporter.ring",
        name: "overrides-exporter",
        default_prefix: COLLECTORS,
        own: &[
            "enabled",
            "wait_stability_min_duration",
            "wait_stability_max_duration",
            "auto_forget_unhealthy_periods",
        ],
        is_used: |profile| profile.is("overrides_exporter.ring.enabled", true),
    },
];

/// The first version with a ring of queriers.
const WITH_QUERIERS: MimirVersion = MimirVersion(3, 1);

const COLLECTORS: &str = "collectors/";

fn always(_: &Profile) -> bool {
    true
}

impl Ring {
    pub(super) fn key(&self, rest: &str) -> String {
        format!("{}.{rest}", self.path)
    }

    /// All keys that may stand directly in it.
    pub(super) fn keys(&self) -> Vec<&'static str> {
        OF_ALL.iter().chain(self.own).copied().collect()
    }

    pub(super) fn store<'a>(&self, profile: &'a Profile) -> Option<&'a str> {
        profile.text(&self.key("kvstore.store"))
    }

    pub(super) fn is_on_consul(&self, profile: &Profile) -> bool {
        self.store(profile) == Some("consul")
    }

    pub(super) fn prefix<'a>(&self, profile: &'a Profile) -> Option<&'a str> {
        profile.text(&self.key("kvstore.prefix"))
    }

    /// The value of `<ring>.kvstore.consul.<name>`.
    pub(super) fn consul<'a>(&self, profile: &'a Profile, name: &str) -> Option<&'a str> {
        profile.text(&self.key(&format!("kvstore.consul.{name}")))
    }
}

/// Every ring in the file, used or not.
pub(super) fn written(profile: &Profile) -> impl Iterator<Item = &'static Ring> {
    RINGS.iter().filter(|ring| profile.get(ring.path).is_some())
}

/// Every ring that Mimir uses.
pub(super) fn used(profile: &Profile) -> impl Iterator<Item = &'static Ring> {
    RINGS.iter().filter(|ring| (ring.is_used)(profile))
}

/// A ring of a later version is an unknown key.
pub(super) fn unknown_to_the_version(profile: &Profile) -> Vec<Finding> {
    let key = "querier.ring";
    if profile.get(key).is_none() || profile.assumptions.mimir >= WITH_QUERIERS {
        return Vec::new();
    }
    let wrong = "is not a key of this Mimir: it does not start";
    vec![profile.error("ring-too-new", key, wrong, "leave it out: it came with 3.1")]
}

fn joins(profile: &Profile) -> bool {
    profile.get("memberlist.join_members").is_some_and(|members| match &members.kind {
        Kind::List(members) => !members.is_empty(),
        _ => members.text().is_some_and(|members| !members.is_empty()),
    })
}

/// Mimir does not start with another one.
pub(super) fn unknown_store(profile: &Profile) -> Vec<Finding> {
    const STORES: [&str; 5] = ["consul", "etcd", "inmemory", "memberlist", "multi"];
    written(profile)
        .filter_map(|ring| {
            let store = ring.store(profile).filter(|store| !is_unknown(store))?;
            let wrong = "is not a store of Mimir: it does not start";
            let right = format!("one of {}", STORES.join(", "));
            let key = ring.key("kvstore.store");
            let is_known = STORES.contains(&store);
            (!is_known).then(|| profile.error("ring-store-unknown", &key, wrong, &right))
        })
        .collect()
}

/// Several instances that do not find each other: each is alone in its ring, and every compactor
/// compacts everything.
pub(super) fn alone(profile: &Profile) -> Vec<Finding> {
    if profile.assumptions.instances.is_none_or(|instances| instances < 2) {
        return Vec::new();
    }
    let any_on_consul = used(profile).any(|ring| ring.is_on_consul(profile));
    let mut findings: Vec<Finding> = used(profile)
        .filter(|ring| ring.store(profile) == Some("inmemory"))
        .map(|ring| {
            let wrong = "is the memory of each instance, so each is alone in this ring";
            let key = ring.key("kvstore.store");
            profile.error("ring-alone", &key, wrong, "consul, or memberlist with its join_members")
        })
        .collect();
    let gossips = |ring: &Ring| matches!(ring.store(profile), None | Some("memberlist"));
    if !any_on_consul && !joins(profile) && used(profile).any(gossips) {
        let wrong = "is missing, so each instance is alone in its rings";
        let right = "name the others, or keep the rings on Consul";
        findings.push(profile.error("ring-alone", "memberlist.join_members", wrong, right));
    }
    findings
}

/// A ring that is not configured stays on memberlist. Without `join_members` each instance is then
/// alone in it: every compactor compacts everything, every ruler evaluates everything.
pub(super) fn on_the_default_store(profile: &Profile) -> Vec<Finding> {
    let any_on_consul = used(profile).any(|ring| ring.is_on_consul(profile));
    let silent = used(profile).filter(|ring| any_on_consul && ring.store(profile).is_none());
    let joins = joins(profile);
    silent
        .map(|ring| {
            let key = ring.key("kvstore.store");
            let wrong = "is missing, so this ring is on memberlist, unlike the others";
            let right = "set it to consul, with its prefix and consul block";
            let tell = if joins { Profile::warning } else { Profile::error };
            tell(profile, "ring-on-default", &key, wrong, right)
        })
        .collect()
}

/// Memberlist beside Consul: two kinds of discovery, of which memberlist does not work where instances
/// cannot reach each other by the address that they detect.
pub(super) fn memberlist_beside_consul(profile: &Profile) -> Vec<Finding> {
    if !used(profile).any(|ring| ring.is_on_consul(profile)) {
        return Vec::new();
    }
    let check = "memberlist-beside-consul";
    let named = used(profile).filter(|ring| ring.store(profile) == Some("memberlist"));
    let mut findings: Vec<Finding> = named
        .map(|ring| {
            let wrong = "is memberlist while other rings are on Consul";
            profile.warning(check, &ring.key("kvstore.store"), wrong, "set it to consul")
        })
        .collect();
    if joins(profile) && findings.is_empty() {
        let wrong = "configures memberlist while rings are on Consul";
        let right = "leave it out: no ring needs it then";
        findings.push(profile.warning(check, "memberlist.join_members", wrong, right));
    }
    findings
}

/// `FLY_CONSUL_URL` holds token, host and prefix in one; Mimir needs them separate.
pub(super) fn consul_host(profile: &Profile) -> Vec<Finding> {
    let on_consul = written(profile).filter(|ring| ring.is_on_consul(profile));
    on_consul
        .filter_map(|ring| {
            let host = ring.consul(profile, "host").unwrap_or_default();
            let bare = host.split_once("://").map_or(host, |(_, bare)| bare);
            let bare = bare.strip_suffix('/').unwrap_or(bare);
            let whole = bare.contains('/') || bare.contains('@') || host.contains("⟦FLY_CONSUL_URL⟧");
            let wrong = if host.is_empty() {
                "is missing, so Consul is looked for on this machine"
            } else if whole {
                "holds more than a host"
            } else {
                return None;
            };
            let right = "scheme and host only, such as https://consul.example.com, the token in acl_token and the path in prefix";
            let key = ring.key("kvstore.consul.host");
            let tell = if whole { Profile::error } else { Profile::warning };
            Some(tell(profile, "consul-host", &key, wrong, right))
        })
        .collect()
}
