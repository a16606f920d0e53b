//! `check-config --mimir`: each trap has a file of its own, which states what is found and where.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::{Process, Proxy, free_port, part};

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn yaml_files(name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory(name)).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|end| end == "yaml")).collect();
    files.sort();
    files
}

/// The exit code of `check-config`, its findings and its last line.
fn checked(arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new(Proxy::binary());
    command.arg("check-config").args(arguments).envs(environment.iter().copied());
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stderr), text(output.stdout))
}

/// The first lines of a trap: `# Finds: <severity> <check> line <n> <key>`, `# Checked with:
/// <what>`.
struct Trap {
    severity: String,
    check: String,
    line: String,
    key: String,
    arguments: Vec<String>,
}

fn read(file: &Path) -> Trap {
    let text = std::fs::read_to_string(file).unwrap();
    let word = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
    let finds: Vec<&str> = word("# Finds: ").unwrap().split(' ').collect();
    assert_eq!(text.matches("# Finds: ").count(), 1, "{}: one trap a file", file.display());
    let arguments = word("# Checked with: ").map(|with| match with.split_once(' ') {
        Some(("mimir", version)) => vec!["--mimir-version".to_owned(), version.to_owned()],
        Some(("instances", count)) => vec!["--mimir-instances".to_owned(), count.to_owned()],
        // The proxy's own configuration beside it.
        _ => {
            let ours = directory(&format!("tests/traps/{with}.toml"));
            assert!(ours.exists(), "{}", ours.display());
            vec!["--config".to_owned(), ours.display().to_string()]
        }
    });
    Trap {
        severity: finds[0].to_owned(),
        check: finds[1].to_owned(),
        line: finds[3].to_owned(),
        key: finds.get(4).copied().unwrap_or_default().to_owned(),
        arguments: arguments.unwrap_or_default(),
    }
}

#[test]
fn each_trap_is_found_where_it_is_and_nothing_else_is() {
    let traps = yaml_files("tests/traps");
    for file in &traps {
        let trap = read(file);
        let mut arguments = vec!["--mimir", file.to_str().unwrap()];
        arguments.extend(trap.arguments.iter().map(String::as_str));
        let (code, found, said) = checked(&arguments, &[]);
        let is_error = trap.severity == "error";
        assert_eq!(code, if is_error { 64 } else { 0 }, "{}\n{found}", file.display());
        assert_eq!(found.lines().count(), 1, "{}\n{found}", file.display());
        let key = if trap.key.is_empty() { String::new() } else { format!("{}: ", trap.key) };
        // Line 0 is for what is missing from the file.
        let line = if trap.line == "0" { String::new() } else { format!("line {}: ", trap.line) };
        let place = format!("{}: {line}{}: {key}", file.display(), trap.severity);
        assert!(found.starts_with(&place), "{found}\nbegins not with\n{place}");
        assert!(found.trim_end().ends_with(&format!("[{}]", trap.check)), "{found}");
        let count = if is_error { "1 errors, 0 warnings" } else { "0 errors, 1 warnings" };
        assert!(said.contains(count), "{said}");
        arguments.push("--strict");
        assert_eq!(checked(&arguments, &[]).0, 64, "{}: strict", file.display());
    }
    assert!(traps.len() >= 60, "{} traps", traps.len());
}

// The Alertmanager's keys are the same in both versions, and so are the findings.
#[test]
fn traps_about_alerts_are_found_in_2_17_too() {
    let of_alerts = ["alert", "silences", "notifications", "receivers"];
    let mut checked_files = 0;
    for file in yaml_files("tests/traps") {
        let name = file.file_name().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        // The ring of queriers came with 3.1.
        if !of_alerts.iter().any(|start| name.starts_with(start)) || text.contains("querier:") {
            continue;
        }
        let trap = read(&file);
        let mut arguments = vec!["--mimir", file.to_str().unwrap()];
        arguments.extend(trap.arguments.iter().map(String::as_str));
        let newest = checked(&arguments, &[]);
        arguments.extend(["--mimir-version", "2.17"]);
        assert_eq!(checked(&arguments, &[]), newest, "{name}");
        assert!(newest.1.trim_end().ends_with(&format!("[{}]", trap.check)), "{}", newest.1);
        checked_files += 1;
    }
    assert!(checked_files >= 14, "{checked_files}");
}

/// The variables of the traps, for the real Mimir.
const VARIABLES: [(&str, &str); 10] = [
    ("FLY_ALLOC_ID", "a"),
    ("FLY_APP_NAME", "b"),
    ("CONSUL_PREFIX", "p"),
    ("CONSUL_HOST", "http://127.0.0.1:9"),
    ("CONSUL_TOKEN", "t"),
    ("R2_ACCOUNT", "account"),
    ("R2_ACCESS_KEY_ID", "k"),
    ("R2_SECRET_ACCESS_KEY", "s"),
    ("REDIS_ENDPOINT", "127.0.0.1:9"),
    ("REDIS_PASSWORD", "p"),
];

// Where a finding says that Mimir does not start, the real one is started.
#[test]
fn mimir_does_not_start_where_a_finding_says_so() {
    let mut refused = 0;
    for file in yaml_files("tests/traps") {
        let trap = read(&file);
        let (_, found, _) = checked(&["--mimir", file.to_str().unwrap()], &[]);
        let says_so = found.contains("does not start") || found.contains("the S3 client refuses");
        if !trap.arguments.is_empty() || !(says_so || trap.check == "unreadable") {
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        let (http, grpc, gossip) = (free_port(), free_port(), free_port());
        let mut mimir = Process::start("mimir", &part("mimir"), directory.path(), |command| {
            command.current_dir(directory.path()).envs(VARIABLES);
            command.arg(format!("-config.file={}", file.display())).arg("-config.expand-env=true");
            // No address of the file should make it fail, unless the trap is about addresses.
            if !trap.key.contains("listen_address") {
                command.arg("-server.http-listen-address=127.0.0.1");
                command.arg("-server.grpc-listen-address=127.0.0.1");
            }
            command.arg(format!("-server.http-listen-port={http}"));
            command.arg(format!("-server.grpc-listen-port={grpc}"));
            command.arg("-memberlist.bind-addr=127.0.0.1");
            command
                .arg(format!("-memberlist.bind-port={gossip}"))
                .arg("-usage-stats.enabled=false");
        });
        let status = mimir.wait(Duration::from_secs(60));
        let code = status.and_then(|status| status.code());
        assert_eq!(code, Some(1), "{}: {}", file.display(), mimir.log());
        refused += 1;
    }
    assert!(refused >= 12, "{refused} were refused");
}

// Every check is shown by a trap.
#[test]
fn every_check_has_a_trap() {
    let shown: Vec<String> =
        yaml_files("tests/traps").iter().map(|file| read(file).check).collect();
    let mut checks = 0;
    for file in std::fs::read_dir(directory("src/mimir_profile")).unwrap() {
        let source = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let source = source.split("#[cfg(test)]").next().unwrap();
        // Names of checks are the only texts in these files with only lower-case letters, digits
        // and a dash.
        for name in source.split('"').skip(1).step_by(2) {
            let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            let is_check = name.contains('-')
                && !name.starts_with('-')
                && name.len() > 4
                && name.chars().all(letters)
                && !["store-gateway", "query-scheduler", "overrides-exporter", "fly-local-6pn"]
                    .contains(&name);
            if is_check {
                checks += 1;
                assert!(shown.iter().any(|check| check == name), "no trap shows {name}");
            }
        }
    }
    assert!(checks >= 20, "{checks} names of checks found in the sources");
}

// The profiles that we ship, as they are and with the sizes for which they are made.
#[test]
fn our_own_profiles_have_no_trap() {
    let profiles = yaml_files("config/mimir");
    let is_profile = |file: &&PathBuf| {
        let text = std::fs::read_to_string(file).unwrap();
        // The other files are overrides, not profiles.
        text.lines().any(|line| line.starts_with("blocks_storage:"))
    };
    let profiles: Vec<&PathBuf> = profiles.iter().filter(is_profile).collect();
    for file in &profiles {
        let name = file.file_name().unwrap().to_str().unwrap();
        let version = if name.contains("2.17") { "2.17" } else { "3.1" };
        let arguments = [
            "--mimir",
            file.to_str().unwrap(),
            "--mimir-version",
            version,
            "--mimir-instances",
            "3",
        ];
        let (code, found, said) = checked(&arguments, &[]);
        assert_eq!((code, found.as_str()), (0, ""), "{name}");
        assert!(said.contains("no known trap"), "{said}");
    }
    assert!(profiles.len() >= 2, "a profile for 2.17 and one for 3: {profiles:?}");
}

// As config/fly/mimir-entrypoint makes it of ALERT_EVENTS_HOST and ALERT_EVENTS_SECRET, and without them.
#[test]
fn our_own_profiles_name_the_proxy_as_second_receiver_if_the_environment_does() {
    let ours = directory("tests/traps/alert-events.toml");
    let receiver = ",http://mimir:a-secret-of-more-than-16-characters@mimir-tenant-proxy.internal:9090/alertmanager";
    for (name, version) in [("mimir-3.yaml", "3.1"), ("mimir-2.17.yaml", "2.17")] {
        let file = directory("config/mimir").join(name);
        let (file, ours) = (file.to_str().unwrap(), ours.to_str().unwrap());
        let arguments =
            ["--mimir", file, "--mimir-version", version, "--config", ours, "--expand-env"];
        let events = |environment: &[(&str, &str)]| {
            let (_, found, _) = checked(&arguments, environment);
            found.contains("[alert-events-receiver]")
        };
        assert!(!events(&[("ALERT_EVENTS_RECEIVER", receiver)]), "{name}");
        assert!(events(&[]), "{name}");
        // Without the variables nothing is compared: that is told, and is no finding.
        let arguments = ["--mimir", file, "--mimir-version", version, "--config", ours, "--strict"];
        let (code, found, said) = checked(&arguments, &[]);
        let is_note = found.contains(": note: limits.ruler_alertmanager_client_config.");
        assert!(is_note && found.contains("are not compared"), "{name}: {found}");
        assert!(code == 0 && said.contains("no known trap"), "{name}: {code} {said} {found}");
    }
}

#[test]
fn both_configurations_are_checked_in_one_run() {
    let trap = directory("tests/traps/multitenancy-off.yaml");
    let trap = trap.to_str().unwrap();
    let sample = directory("config/proxy.toml");
    let (code, found, said) =
        checked(&["--mimir", trap, "--config", sample.to_str().unwrap()], &[]);
    assert_eq!(code, 64);
    assert!(said.contains("the configuration is valid") && said.contains("1 errors"), "{said}");
    assert!(found.contains("multitenancy-off"), "{found}");
    let ours = [("MTP__LISTEN__WORKERS", "many")];
    let (code, found, _) = checked(&["--mimir", trap], &ours);
    assert_eq!(code, 64);
    for wanted in ["MTP__LISTEN__WORKERS", "auth.issuer", "multitenancy-off"] {
        assert!(found.contains(wanted), "{wanted} is not in\n{found}");
    }
    let (code, found, _) = checked(&["--mimir", "/nowhere.yaml"], &[]);
    assert_eq!(code, 64);
    assert!(found.contains("/nowhere.yaml: cannot be read"), "{found}");
}

// As Mimir does with -config.expand-env=true: the variable, else the default, else empty.
#[test]
fn variables_come_from_the_environment_if_requested() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mimir.yaml");
    let listeners = "{http_listen_address: 10.0.0.1, grpc_listen_address: 10.0.0.1}";
    let text = format!("server: {listeners}\nmultitenancy_enabled: ${{TENANTS_APART:true}}\n");
    std::fs::write(&file, text).unwrap();
    let off = [("TENANTS_APART", "false")];
    let file = file.to_str().unwrap();
    assert_eq!(checked(&["--mimir", file], &off).0, 0);
    assert_eq!(checked(&["--mimir", file, "--expand-env"], &off).0, 64);
    assert_eq!(checked(&["--mimir", file, "--expand-env"], &[]).0, 0);
}
