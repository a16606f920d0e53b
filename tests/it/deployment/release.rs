//! The release workflow: it can be read, everything that it names exists, and what it runs works. GitHub
//! itself is not here: whether its actions do what they say is not tested.

use std::process::Command;

use harness::Proxy;
use serde_json::Value;

use super::repository;

fn workflow() -> Value {
    read("release.yml")
}

fn read(file: &str) -> Value {
    let text = std::fs::read_to_string(repository(&format!(".github/workflows/{file}"))).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

/// All steps, each with the name of its job.
fn steps() -> Vec<(String, Value)> {
    steps_of(&workflow())
}

fn steps_of(workflow: &Value) -> Vec<(String, Value)> {
    let jobs = workflow["jobs"].as_object().unwrap();
    let steps = jobs.iter().flat_map(|(name, job)| {
        let steps = job["steps"].as_array().unwrap();
        steps.iter().map(|step| (name.clone(), step.clone())).collect::<Vec<_>>()
    });
    steps.collect()
}

fn runs() -> String {
    let steps = steps();
    steps.iter().filter_map(|(_, step)| step["run"].as_str()).collect::<Vec<_>>().join("\n")
}

fn manifest() -> toml::Table {
    std::fs::read_to_string(repository("Cargo.toml")).unwrap().parse().unwrap()
}

// A tag can be moved to other code; a commit cannot. No job has more rights than it needs, and none runs for ever.
#[test]
fn actions_are_pinned_by_commit_and_jobs_are_bounded() {
    let (mut files, mut count) = (0, 0);
    for file in std::fs::read_dir(repository(".github/workflows")).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        let workflow = read(&file);
        files += 1;
        for (job, step) in steps_of(&workflow) {
            let Some(action) = step["uses"].as_str() else { continue };
            let (_, commit) = action.split_once('@').unwrap();
            let is_commit = commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit());
            assert!(is_commit, "{file}, {job}: {action}");
            count += 1;
        }
        assert_eq!(workflow["permissions"], serde_json::json!({"contents": "read"}), "{file}");
        for (name, job) in workflow["jobs"].as_object().unwrap() {
            assert!(job["timeout-minutes"].is_u64(), "{file}: {name}");
        }
    }
    assert!(files >= 3 && count >= 20, "{files} files, {count} actions");
}

// Seen: the parts were built where no step cached them, because `github.workspace` is a path of the host and the job
// runs in a container, and the logs were looked for where none are.
#[test]
fn the_tests_workflow_keeps_the_parts_and_the_logs() {
    let workflow = read("test.yml");
    let job = &workflow["jobs"]["test"];
    assert_eq!(job["container"]["image"], "debian:bookworm");
    let parts = job["env"]["MTP_PARTS"].as_str().unwrap();
    assert!(parts.starts_with('/'), "{parts}");
    let kept = |action: &str| {
        let steps = steps_of(&workflow);
        let paths = steps
            .iter()
            .filter(|(_, step)| step["uses"].as_str().is_some_and(|uses| uses.starts_with(action)));
        paths
            .filter_map(|(_, step)| step["with"]["path"].as_str().map(str::to_owned))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert!(kept("actions/cache@").lines().any(|path| path == parts));
    // Where scripts/test writes them: beside the parts.
    let logs = format!("{}/test-logs", parts.rsplit_once('/').unwrap().0);
    assert!(kept("actions/upload-artifact@").lines().any(|path| path == logs));
    let script = std::fs::read_to_string(repository("scripts/test")).unwrap();
    assert!(script.contains("LOGS=$(scripts/parts --dir)/../test-logs"));
}

#[test]
fn what_the_workflow_names_exists() {
    let runs = runs();
    for script in runs.split_whitespace().filter(|word| word.starts_with("scripts/")) {
        assert!(repository(script).is_file(), "{script}");
    }
    assert!(runs.contains("scripts/release-files"), "{runs}");
    for (job, step) in steps() {
        if let Some(file) = step["with"]["file"].as_str() {
            assert!(repository(file).is_file(), "{job}: {file}");
        }
        // Outputs of a step that has no such name are empty, silently.
        let text = step.to_string();
        for name in text.split("steps.").skip(1).map(|rest| rest.split('.').next().unwrap()) {
            assert!(steps().iter().any(|(of, other)| *of == job && other["id"] == name), "{name}");
        }
    }
    let workflow = workflow();
    let jobs = workflow["jobs"].as_object().unwrap();
    for (name, job) in jobs {
        let needs = match &job["needs"] {
            Value::Array(all) => all.clone(),
            Value::Null => Vec::new(),
            one => vec![one.clone()],
        };
        for need in needs {
            assert!(jobs.contains_key(need.as_str().unwrap()), "{name} needs {need}");
        }
    }
    // Built with the version of Rust that is required, on the Debian of the image.
    let container = jobs["binaries"]["container"].as_str().unwrap();
    let dockerfile = std::fs::read_to_string(repository("Dockerfile")).unwrap();
    assert!(dockerfile.contains(&format!("FROM {container} ")), "{container}");
    let version = manifest()["workspace"]["package"]["rust-version"].as_str().unwrap().to_owned();
    assert!(container.contains(&version), "{container}");
    let targets: Vec<String> = jobs["binaries"]["strategy"]["matrix"]["include"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["target"].as_str().unwrap().to_owned())
        .collect();
    let page = std::fs::read_to_string(repository("docs/release.md")).unwrap();
    for target in targets {
        assert!(page.contains(&target), "docs/release.md: {target}");
    }
}

// A plain build is slower, and nobody would notice.
#[test]
fn releases_and_images_are_optimised_by_a_profile() {
    let runs = runs();
    let build = runs.find("scripts/pgo\n").expect("scripts/pgo in the workflow");
    let archive = runs.find("scripts/release-files archive").unwrap();
    assert!(build < archive && !runs.contains("cargo build"), "{runs}");
    let dockerfile = std::fs::read_to_string(repository("Dockerfile")).unwrap();
    assert!(dockerfile.contains("ARG PROFILE=load\n"), "{dockerfile}");
    assert!(dockerfile.contains("load) scripts/pgo ;;"), "{dockerfile}");
    // What it reads is copied, and let through.
    let let_through = std::fs::read_to_string(repository(".dockerignore")).unwrap();
    for path in ["scripts/pgo", "scripts/parts", "loadtest/peers", "tests"] {
        assert!(repository(path).exists(), "{path}");
        assert!(let_through.lines().any(|line| line == format!("!{path}")), "{path}");
        let copied = dockerfile.lines().filter(|line| line.starts_with("COPY "));
        assert!(copied.flat_map(str::split_whitespace).any(|word| word == path), "{path}");
    }
}

// The build ends with an error rather than with a program without a profile.
#[test]
fn an_option_that_is_not_known_ends_the_build_with_a_profile() {
    let output = Command::new(repository("scripts/pgo")).arg("--fast").output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("scripts/pgo [--seconds N]"));
}

// The first job, with the version that Cargo.toml has.
#[test]
fn the_changelog_has_the_version_of_the_manifest() {
    let version = manifest()["package"]["version"].as_str().unwrap().to_owned();
    let changelog = std::fs::read_to_string(repository("CHANGELOG.md")).unwrap();
    let heading = format!("## {version} - ");
    assert!(changelog.lines().any(|line| line.starts_with(&heading)), "{heading}");
    let run = runs();
    assert!(run.contains("grep -qx \"version = \\\"$version\\\"\" Cargo.toml"), "{run}");
    // What the draft says: the entries of that version, and of no other.
    let awk = run.lines().find(|line| line.trim_start().starts_with("awk ")).unwrap();
    let awk = awk.split(" > ").next().unwrap();
    let output = Command::new("sh")
        .args(["-c", awk])
        .env("VERSION", &version)
        .current_dir(repository(""))
        .output()
        .unwrap();
    let notes = String::from_utf8(output.stdout).unwrap();
    assert!(notes.contains("\n- ") && !notes.contains("\n## "), "{notes}");
}

#[test]
fn an_archive_has_the_program_its_manual_and_its_completions() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let binary = Proxy::binary();
    let script = |arguments: &[&str]| {
        let output = Command::new(repository("scripts/release-files")).args(arguments).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let binary = binary.to_str().unwrap();
    script(&["share", binary, &path("share")]);
    let mut sums = Vec::new();
    for out in ["one", "two"] {
        sums.push(script(&["archive", binary, &path("share"), "mimir-tenant-proxy-x", &path(out)]));
    }
    assert_eq!(sums[0], sums[1], "the archives differ");
    let listed = Command::new("tar")
        .args(["-tzf", &path("one/mimir-tenant-proxy-x.tar.gz")])
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    for file in [
        "mimir-tenant-proxy",
        "man/mimir-tenant-proxy.1",
        "man/mimir-tenant-proxy-rules-diff.1",
        "completions/_mimir-tenant-proxy",
        "completions/mimir-tenant-proxy.fish",
        "completions/mimir-tenant-proxy.bash",
        "monitoring/alerts.yaml",
        "monitoring/operator.json",
        "proxy.toml",
        "mimir-tenant-proxy.service",
        "LICENSE",
    ] {
        let entry = format!("mimir-tenant-proxy-x/{file}");
        assert!(listed.lines().any(|line| line == entry), "{file} is not in\n{listed}");
    }
    // bash itself reads the completions.
    let completions = path("share/completions/mimir-tenant-proxy.bash");
    let read = Command::new("bash").args(["-n", &completions]).output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
}

// What the package would install is there, once the release files are made.
#[test]
fn the_packages_files_exist() {
    let manifest = manifest();
    let deb = &manifest["package"]["metadata"]["deb"];
    let mut made = 0;
    for asset in deb["assets"].as_array().unwrap() {
        let source = asset[0].as_str().unwrap();
        if source.starts_with("target/") {
            made += 1;
            continue;
        }
        let folder = source.rsplit_once('/').map_or("", |(folder, _)| folder);
        let path = if source.contains('*') { repository(folder) } else { repository(source) };
        assert!(path.exists(), "{source}");
    }
    assert_eq!(made, 5, "the program, and what scripts/release-files makes");
    let scripts = deb["maintainer-scripts"].as_str().unwrap();
    let unit = deb["systemd-units"]["unit-name"].as_str().unwrap();
    let unit = std::fs::read_to_string(repository(&format!("{scripts}/{unit}.service"))).unwrap();
    let conf = deb["conf-files"][0].as_str().unwrap();
    assert!(unit.contains(conf), "{conf}");
    for hardening in ["NoNewPrivileges=yes", "ProtectSystem=strict", "DynamicUser=yes"] {
        assert!(unit.contains(hardening), "{hardening}");
    }
}
