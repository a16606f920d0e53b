//! Rules of the source tree that the compiler cannot check: which module may import which, and
//! which names are confined to one. Checked on the text of `src`, without its unit tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::documents::{files_below, root};

/// What each module may import, from the bottom up: a module is listed after all that it imports,
/// so there are no cycles. An edge that is no longer used must be removed, too.
const EDGES: &[(&str, &[&str])] = &[
    ("backoff", &[]),
    ("batch_size", &[]),
    ("causes", &[]),
    ("client_network", &[]),
    ("clock", &[]),
    ("deadline", &[]),
    ("heap", &[]),
    ("http_client", &[]),
    ("labels", &[]),
    ("lifecycle", &[]),
    ("net", &[]),
    ("prom_duration", &[]),
    ("reason", &[]),
    ("spelling", &[]),
    ("tenancy", &[]),
    ("tls", &[]),
    ("unified_diff", &[]),
    ("version", &[]),
    ("yaml", &[]),
    ("per_second", &[]),
    ("admin_executor", &["tenancy"]),
    ("due", &["tenancy"]),
    ("refusals", &["client_network", "reason"]),
    ("trace", &["clock", "per_second"]),
    ("mimir", &["backoff", "causes", "http_client", "prom_duration", "tenancy", "trace", "yaml"]),
    ("route", &["reason", "tenancy"]),
    ("config", &["clock", "mimir", "prom_duration", "spelling", "tenancy", "tls"]),
    ("console", &["config", "route"]),
    ("edge", &["config"]),
    ("mimir_profile", &["config", "mimir", "spelling", "yaml"]),
    ("store", &["backoff", "batch_size", "clock", "config", "labels", "tenancy"]),
    ("telemetry", &["clock", "config", "labels", "reason", "route", "version"]),
    ("directory", &["clock", "config", "store", "telemetry"]),
    (
        "otlp",
        &["backoff", "causes", "config", "http_client", "labels", "telemetry", "trace", "version"],
    ),
    ("request_body", &["deadline", "edge", "mimir", "reason"]),
    ("election", &["backoff", "mimir", "store", "telemetry", "tenancy"]),
    (
        "alert_events",
        &[
            "backoff",
            "batch_size",
            "clock",
            "config",
            "election",
            "labels",
            "mimir",
            "prom_duration",
            "store",
            "telemetry",
            "tenancy",
        ],
    ),
    (
        "rules",
        &[
            "batch_size",
            "clock",
            "config",
            "due",
            "election",
            "labels",
            "mimir",
            "store",
            "telemetry",
            "tenancy",
            "trace",
            "unified_diff",
        ],
    ),
    (
        "channels",
        &[
            "admin_executor",
            "clock",
            "config",
            "due",
            "election",
            "labels",
            "mimir",
            "prom_duration",
            "rules",
            "spelling",
            "store",
            "telemetry",
            "tenancy",
            "trace",
            "unified_diff",
            "yaml",
        ],
    ),
    (
        "authn",
        &[
            "backoff",
            "causes",
            "client_network",
            "clock",
            "config",
            "directory",
            "http_client",
            "labels",
            "reason",
            "store",
            "telemetry",
            "tenancy",
        ],
    ),
    (
        "authz",
        &[
            "authn",
            "config",
            "directory",
            "labels",
            "mimir",
            "reason",
            "route",
            "store",
            "telemetry",
            "tenancy",
        ],
    ),
    ("key_management", &["authn", "clock", "store", "tenancy"]),
    (
        "limits",
        &[
            "authn",
            "authz",
            "backoff",
            "config",
            "per_second",
            "reason",
            "request_body",
            "route",
            "store",
            "telemetry",
            "tenancy",
        ],
    ),
    (
        "record",
        &[
            "authn",
            "authz",
            "client_network",
            "clock",
            "config",
            "edge",
            "per_second",
            "reason",
            "refusals",
            "request_body",
            "route",
            "telemetry",
            "tenancy",
            "trace",
        ],
    ),
    (
        "forward",
        &[
            "authz",
            "backoff",
            "causes",
            "config",
            "deadline",
            "edge",
            "http_client",
            "labels",
            "limits",
            "mimir",
            "net",
            "reason",
            "request_body",
            "route",
            "telemetry",
            "tenancy",
            "trace",
        ],
    ),
    (
        "admin",
        &[
            "admin_executor",
            "authn",
            "authz",
            "channels",
            "clock",
            "config",
            "directory",
            "edge",
            "forward",
            "key_management",
            "labels",
            "limits",
            "per_second",
            "reason",
            "refusals",
            "route",
            "rules",
            "spelling",
            "store",
            "telemetry",
            "tenancy",
            "version",
        ],
    ),
    (
        "command",
        &[
            "authn",
            "authz",
            "causes",
            "channels",
            "clock",
            "config",
            "election",
            "forward",
            "http_client",
            "key_management",
            "labels",
            "limits",
            "mimir",
            "mimir_profile",
            "otlp",
            "route",
            "rules",
            "spelling",
            "store",
            "telemetry",
            "tenancy",
            "tls",
            "yaml",
        ],
    ),
    (
        "internal",
        &["alert_events", "authn", "forward", "lifecycle", "limits", "store", "telemetry", "trace"],
    ),
    (
        "rejection",
        &[
            "admin",
            "authn",
            "authz",
            "edge",
            "forward",
            "limits",
            "mimir",
            "reason",
            "request_body",
            "route",
        ],
    ),
    (
        "pipeline",
        &[
            "admin",
            "authn",
            "authz",
            "config",
            "console",
            "edge",
            "forward",
            "limits",
            "mimir",
            "record",
            "rejection",
            "request_body",
            "route",
            "tenancy",
            "tls",
            "trace",
        ],
    ),
    (
        "listener",
        &[
            "client_network",
            "config",
            "deadline",
            "edge",
            "labels",
            "net",
            "pipeline",
            "record",
            "telemetry",
            "tls",
        ],
    ),
    (
        "app",
        &[
            "admin_executor",
            "admin",
            "alert_events",
            "authn",
            "authz",
            "channels",
            "clock",
            "config",
            "console",
            "directory",
            "edge",
            "election",
            "forward",
            "internal",
            "lifecycle",
            "limits",
            "listener",
            "net",
            "mimir",
            "otlp",
            "pipeline",
            "record",
            "refusals",
            "rules",
            "store",
            "telemetry",
            "tenancy",
            "trace",
        ],
    ),
];

/// The folders of `rules`, likewise.
const RULES_EDGES: &[(&str, &[&str])] = &[
    ("spec", &[]),
    ("status", &[]),
    ("plan", &["spec", "status"]),
    ("health", &["plan", "spec", "status"]),
    ("reconcile", &["health", "plan", "spec", "status"]),
    ("schedule", &["health", "plan", "reconcile", "spec", "status"]),
];

/// Names that may occur in one place only, and why.
const CONFINED: &[Confined] = &[
    Confined { name: "sqlx::", only_in: &["store"], why: "SQL stands only in store/" },
    Confined { name: "metrics::", only_in: &["telemetry"], why: "telemetry/ names the metrics" },
    // Two writers of X-Scope-OrgID are two chances for the wrong one: Mimir silently takes the
    // first. `explain-token` tries a request that is never sent.
    Confined {
        name: "insert(TENANT_HEADER",
        only_in: &["mimir", "command"],
        why: "mimir/ writes the tenant header",
    },
    Confined {
        name: "SystemTime::now",
        only_in: &["clock"],
        why: "wall-clock time is read only in clock.rs",
    },
];

struct Confined {
    name: &'static str,
    only_in: &'static [&'static str],
    why: &'static str,
}

/// A file of `src`: its path below `src` and its text without comments and unit tests.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// `rules/plan/diff.rs` belongs to `rules`, `clock.rs` to `clock`.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
    }
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut files = Vec::new();
    files_below(&src, &mut files);
    let sources: Vec<Source> = files.iter().filter_map(|file| read(&src, file)).collect();
    assert!(sources.len() > 100, "only {} files in src", sources.len());
    sources
}

fn read(src: &Path, file: &Path) -> Option<Source> {
    let path = file.strip_prefix(src).unwrap().to_str()?.to_owned();
    // `reference` writes docs/reference in a test; `fuzzing` is no part of the program.
    let others = ["tests", "tests.rs", "reference.rs", "fuzzing", "fuzzing.rs"];
    let of_tests = path.split('/').any(|part| others.contains(&part));
    if of_tests
        || file.extension().is_none_or(|end| end != "rs")
        || path == "lib.rs"
        || path == "main.rs"
    {
        return None;
    }
    let text = std::fs::read_to_string(file).unwrap();
    Some(Source { path, text: production(&text) })
}

/// The text without comments and without the unit tests, which are at the end of a file.
fn production(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let lines = text[..end].lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The first names after `prefix`: `crate::a::b` has `a`, `crate::{a::b, c}` has `a` and `c`.
fn names_after<'a>(prefix: &str, text: &'a str) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices(prefix) {
        if text[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
            continue;
        }
        let rest = &text[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(first_name(rest));
            continue;
        };
        let mut depth = 0_usize;
        let mut begin = 0;
        for (index, byte) in group.bytes().enumerate() {
            let ends = depth == 0 && (byte == b',' || byte == b'}');
            if ends {
                names.insert(first_name(group[begin..index].trim_start()));
                begin = index + 1;
            }
            match byte {
                b'{' => depth += 1,
                b'}' if depth == 0 => break,
                b'}' => depth -= 1,
                _ => {}
            }
        }
    }
    // A capital is an item of the crate root, which has none; "" is `use crate::*`.
    names.retain(|name| name.starts_with(|first: char| first.is_ascii_lowercase()));
    names
}

fn first_name(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// Module, imported module, and a file that imports it.
type Edges<'a> = BTreeMap<(&'a str, &'a str), &'a str>;

fn edges<'a>(
    sources: &'a [Source],
    prefix: &str,
    module: impl Fn(&'a Source) -> &'a str,
) -> Edges<'a> {
    let mut edges = Edges::new();
    for source in sources {
        for imported in names_after(prefix, &source.text) {
            if imported != module(source) {
                edges.entry((module(source), imported)).or_insert(&source.path);
            }
        }
    }
    edges
}

/// Edges in `found` that `allowed` lacks, and the other way round.
fn differences(found: &Edges, allowed: &[(&str, &[&str])]) -> Vec<String> {
    let allowed: BTreeSet<(&str, &str)> = allowed
        .iter()
        .flat_map(|(module, imports)| imports.iter().map(move |imported| (*module, *imported)))
        .collect();
    let new = found.iter().filter(|(edge, _)| !allowed.contains(*edge));
    let new =
        new.map(|((module, imported), file)| format!("{file}: {module} may not import {imported}"));
    let unused = allowed.iter().filter(|edge| !found.contains_key(*edge));
    let unused = unused.map(|(module, imported)| {
        format!("{module} does not import {imported} any more: take the edge out of the list")
    });
    new.chain(unused).collect()
}

/// A module imports only modules that are listed before it.
fn upward(allowed: &[(&str, &[&str])]) -> Vec<String> {
    let place = |name: &str| allowed.iter().position(|(module, _)| *module == name);
    let mut wrong = Vec::new();
    for (index, (module, imports)) in allowed.iter().enumerate() {
        for imported in *imports {
            if place(imported).is_none_or(|place| place >= index) {
                wrong.push(format!("{module} imports {imported}, which does not stand below it"));
            }
        }
    }
    wrong
}

/// The direction of dependencies: docs/architecture.md.
#[test]
fn modules_import_only_what_stands_below_them() {
    let sources = sources();
    assert_downward(&sources, "crate::", EDGES);
}

fn assert_downward(sources: &[Source], prefix: &str, allowed: &[(&str, &[&str])]) {
    let found = edges(sources, prefix, Source::module);
    let mut wrong = differences(&found, allowed);
    wrong.extend(upward(allowed));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The engine of alert rules: decisions are below actions.
#[test]
fn folders_of_rules_import_only_what_stands_below_them() {
    let mut sources = sources();
    sources.retain_mut(|source| {
        let inside = source.path.strip_prefix("rules/").map(str::to_owned);
        inside.map(|inside| source.path = inside).is_some()
    });
    assert_downward(&sources, "crate::rules::", RULES_EDGES);
}

#[test]
fn a_new_edge_and_a_circle_are_found() {
    let source = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
    let sources = [
        source("store/rows.rs", "use crate::{config::{Url, Kind}, tenancy::TenantId};"),
        source("config.rs", "fn f() -> crate::store::Store { mycrate::x() }"),
    ];
    let found = edges(&sources, "crate::", Source::module);
    let pairs: Vec<_> = found.keys().copied().collect();
    assert_eq!(pairs, [("config", "store"), ("store", "config"), ("store", "tenancy")]);
    let allowed: &[(&str, &[&str])] = &[("tenancy", &[]), ("config", &[]), ("store", &["config"])];
    assert_eq!(
        differences(&found, allowed),
        ["config.rs: config may not import store", "store/rows.rs: store may not import tenancy"]
    );
    let circle: &[(&str, &[&str])] = &[("config", &["store"]), ("store", &["config"])];
    assert_eq!(upward(circle), ["config imports store, which does not stand below it"]);
}

#[test]
fn confined_names_stand_in_their_module() {
    let sources = sources();
    let mut wrong = Vec::new();
    for Confined { name, only_in, why } in CONFINED {
        let holds = |source: &Source| {
            source.text.match_indices(name).any(|(at, _)| {
                !source.text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
            })
        };
        let mut holders = sources.iter().filter(|source| holds(source)).peekable();
        assert!(holders.peek().is_some(), "nothing has {name}: take it out of the list");
        let elsewhere = holders.filter(|source| !only_in.contains(&source.module()));
        wrong.extend(elsewhere.map(|source| format!("{} has {name}: {why}", source.path)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

// Seen: `scripts/test` did not install nginx. The load tests install it, so the tests passed where these had run.
#[test]
fn every_part_of_a_test_is_installed_by_the_command_that_runs_it() {
    let root = root();
    let script = std::fs::read_to_string(root.join("scripts/test")).unwrap();
    let (_, list) = script.split_once("step parts scripts/parts ").unwrap();
    let (list, _) = list.split_once("\n[ ${#failed[@]}").unwrap();
    let installed: Vec<&str> = list.split_whitespace().filter(|word| *word != "\\").collect();
    // The part that brings a program of another name.
    let part_of = |program: &str| {
        match program {
            "exim4" => "smtp",
            "mimir-2.json" => "mimir-2",
            "node" => "otel-sdk",
            "prometheus-node-exporter" => "node-exporter",
            "promtool" => "prometheus",
            "redis-server" => "redis",
            other => other,
        }
        .to_owned()
    };
    // Programs of load tests and of scripts/chaos, which install their own.
    let others = |file: &Path| {
        file.starts_with(root.join("tests/harness/src/bin")) || file.ends_with("src/haproxy.rs")
    };
    let mut found = 0;
    for folder in ["tests/it", "tests/harness/src"] {
        let mut files = Vec::new();
        files_below(&root.join(folder), &mut files);
        for file in files.iter().filter(|file| !others(file)) {
            let text = std::fs::read_to_string(file).unwrap();
            for named in text.split("part(\"").skip(1) {
                let part = part_of(named.split('"').next().unwrap());
                found += 1;
                assert!(installed.contains(&part.as_str()), "{}: {part}", file.display());
            }
        }
    }
    assert!(found > 20, "{found}");
}
