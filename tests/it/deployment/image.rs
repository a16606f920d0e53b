//! The image's file tree, built by the script that the Dockerfile calls and started without a
//! container engine: with its own root file system, as process 1, as the Dockerfile's user.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use harness::{Client, Issuer, ORG_A, Process, Proxy, Upstream, free_port, wait_until};

use super::{environment, repository, sample, seconds};
use crate::support::responses::ok;

const QUERY: &str = "/prometheus/api/v1/query?query=up";
const PROGRAM: &str = "/usr/local/bin/mimir-tenant-proxy";

/// Builds a tree and returns the script's output.
fn assemble(tree: &Path) -> String {
    let script = repository("scripts/image-tree");
    let output = Command::new(script).arg(Proxy::binary()).arg(tree).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn said<'a>(facts: &'a str, name: &str) -> &'a str {
    facts.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap()
}

/// All files of a tree, as seen from inside.
fn files(tree: &Path) -> Vec<String> {
    let output = Command::new("find").arg(tree).args(["-type", "f", "-printf", "/%P\n"]).output();
    let mut files: Vec<String> =
        String::from_utf8(output.unwrap().stdout).unwrap().lines().map(str::to_owned).collect();
    files.sort();
    files
}

/// `unshare` with the root and the user of the Dockerfile.
fn unshare(tree: &Path) -> Vec<String> {
    let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    assert!(root, "only root may change the root directory: run this test as root");
    let dockerfile = std::fs::read_to_string(repository("Dockerfile")).unwrap();
    let user = dockerfile.lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
    let (user, group) = user.split_once(':').unwrap();
    assert_ne!((user, group), ("0", "0"));
    let root = format!("--root={}", tree.display());
    let options =
        ["--pid", "--fork", "--kill-child", &root, "--wd=/", "--setgid", group, "--setuid", user];
    options.map(str::to_owned).to_vec()
}

fn in_the_tree(tree: &Path, environment: &[(String, String)], command: &str) -> Output {
    let mut unshared = Command::new("unshare");
    unshared.args(unshare(tree)).args([PROGRAM, command]);
    unshared
        .env_clear()
        .envs(environment.iter().cloned())
        .env("PATH", "/usr/bin:/bin")
        .output()
        .unwrap()
}

/// The PID, outside, of the first process inside.
fn child_of(parent: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    children.unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

// Only what the program needs: no shell for an intruder, and the same bytes for each build.
#[test]
fn the_images_tree_is_small_and_the_same_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let trees: [PathBuf; 2] = ["first", "second"].map(|name| directory.path().join(name));
    let [first, second] = trees.each_ref().map(|tree| assemble(tree));
    assert_eq!(first, second, "the trees differ");
    assert_eq!(said(&first, "sha256").len(), 64);
    let mut files = files(&trees[0]);
    files.retain(|file| !file.starts_with("/lib"));
    let expected = [
        "/etc/group",
        "/etc/nsswitch.conf",
        "/etc/passwd",
        "/etc/ssl/certs/ca-certificates.crt",
        PROGRAM,
    ];
    assert_eq!(files, expected);
    println!(
        "the tree of the binary under test: {} bytes, {} compressed",
        said(&first, "size_bytes"),
        said(&first, "compressed_bytes")
    );
}

// Fly's kill_signal ends it within Fly's kill_timeout, and requests in flight are answered.
#[tokio::test(flavor = "multi_thread")]
async fn the_images_tree_starts_unprivileged_passes_its_healthcheck_and_drains() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    assemble(&tree);
    // What a container engine and Fly add. libc uses them for name resolution.
    std::fs::write(tree.join("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
    let issuer = Issuer::start().await;
    let upstream = Upstream::start(|request| async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        ok(request).await
    })
    .await;
    let (port, internal) = (free_port(), free_port());
    let fly = sample("fly.toml");
    let mut environment = environment(&fly);
    for (name, value) in [
        ("MTP__AUTH__ISSUER", issuer.url()),
        ("MTP__UPSTREAM__URLS", upstream.url().replace("127.0.0.1", "localhost")),
        ("MTP__LISTEN__ADDRESS", format!("127.0.0.1:{port}")),
        ("MTP__LISTEN__INTERNAL_ADDRESS", format!("127.0.0.1:{internal}")),
        // A test need not wait for Fly's proxy.
        // There is no database here.
        ("MTP__RULES__ENABLED", "false".to_owned()),
        ("MTP__CHANNELS__ENABLED", "false".to_owned()),
        ("MTP__ALERT_EVENTS__ENABLED", "false".to_owned()),
        ("MTP__SHUTDOWN__DRAIN_DELAY", "1s".to_owned()),
    ] {
        environment.retain(|(known, _)| known != name);
        environment.push((name.to_owned(), value));
    }
    let unshare = unshare(&tree);
    let mut process =
        Process::start("image", Path::new("/usr/bin/unshare"), directory.path(), |command| {
            command.args(&unshare).args([PROGRAM, "serve"]);
            command
                .env_clear()
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .envs(environment.iter().cloned());
        });
    let ready = format!("http://127.0.0.1:{internal}/ready");
    process.wait_ready(&ready, "ready", Duration::from_secs(30)).await;

    let inside = child_of(process.id());
    let status = std::fs::read_to_string(format!("/proc/{inside}/status")).unwrap();
    for fact in [
        "Uid:\t10001\t10001\t10001\t10001",
        "Gid:\t10001\t10001\t10001\t10001",
        "CapEff:\t0000000000000000",
        "NSpid:",
    ] {
        assert!(status.contains(fact), "{fact} is not in\n{status}");
    }
    let health = in_the_tree(&tree, &environment, "healthcheck");
    assert!(health.status.success(), "{}", String::from_utf8_lossy(&health.stderr));
    let version = in_the_tree(&tree, &[], "--version").stdout;
    let version = String::from_utf8(version).unwrap();
    assert!(
        version.starts_with("mimir-tenant-proxy ") && version.contains("(commit "),
        "{version}"
    );

    let client = Client::new(&format!("http://127.0.0.1:{port}")).bearer(&issuer.user_of(ORG_A));
    let in_flight = tokio::spawn({
        let client = client.clone();
        async move { client.get(QUERY).await }
    });
    wait_until("the request is upstream", Duration::from_secs(5), async || {
        !upstream.heads().is_empty()
    })
    .await;
    let signal = fly["kill_signal"].as_str().unwrap().strip_prefix("SIG").unwrap().to_owned();
    let told = Instant::now();
    Command::new("kill").args(["-s", &signal, &inside.to_string()]).status().unwrap();
    assert_eq!(in_flight.await.unwrap().status, 200, "what was in flight is answered");
    let patience = Duration::from_secs(seconds(&fly["kill_timeout"]));
    let end = process.wait(patience).expect("it ends in time");
    assert_eq!(end.code(), Some(0), "{}", process.log());
    assert!(told.elapsed() < Duration::from_secs(10), "it took {:?}", told.elapsed());
    let health = in_the_tree(&tree, &environment, "healthcheck");
    assert_eq!(health.status.code(), Some(1), "nobody is there any more");
}
