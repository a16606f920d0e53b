use std::process::{Command, Output, Stdio};

use super::*;

fn texts(rows: &[&[Option<&str>]]) -> Vec<Vec<Option<String>>> {
    rows.iter().map(|row| row.iter().map(|value| value.map(str::to_owned)).collect()).collect()
}

/// Asks by way of libpq, which is neither the harness's driver nor the proxy's.
fn psql(url: &str, sql: &str) -> Output {
    let mut command = Command::new(programs().join("psql"));
    command.args(["-X", "-A", "-t", "-c", sql, url]).stdin(Stdio::null()).output().expect("psql")
}

#[tokio::test]
async fn databases_are_separate_and_outlive_a_restart() {
    let mut cluster = Postgres::start().await;
    let one = cluster.database("one").await;
    let other = cluster.database("other").await;
    one.execute("CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, NULL), (2, 'two')").await;
    cluster.stop().await;
    assert!(one.connect().await.is_err());
    cluster.start_again().await;
    let want = texts(&[&[Some("1"), None], &[Some("2"), Some("two")]]);
    assert_eq!(one.query("SELECT a, b FROM t ORDER BY a").await, want);
    let absent = other.query("SELECT to_regclass('t')").await;
    assert_eq!(absent, texts(&[&[None]]));
    let asked = psql(&one.url(), "SELECT count(*) FROM t");
    assert_eq!(String::from_utf8_lossy(&asked.stdout), "2\n", "{asked:?}");
}

#[tokio::test]
async fn connections_of_one_database_are_killed_and_no_others() {
    let cluster = Postgres::shared().await;
    let (one, other) = (cluster.database("one").await, cluster.database("other").await);
    let (killed, spared) = (one.client().await, other.client().await);
    let also_killed = one.client().await;
    assert_eq!(cluster.kill_connections_of(&one).await, 2);
    assert!(killed.simple_query("SELECT 1").await.is_err());
    assert!(also_killed.simple_query("SELECT 1").await.is_err());
    assert!(spared.simple_query("SELECT 1").await.is_ok());
}

#[tokio::test]
async fn tls_is_demanded_and_only_the_right_authority_is_good() {
    let cluster = Postgres::start_with_tls().await;
    let database = cluster.database("tls").await;
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let ask = |url: &str, parameters: &str| psql(&format!("{url}?{parameters}"), sql);
    let trusting = |ca: &Path| format!("sslmode=verify-full&sslrootcert={}", ca.display());

    let good = ask(&database.url(), &trusting(cluster.ca_file()));
    assert_eq!(String::from_utf8_lossy(&good.stdout), "t\n", "{good:?}");
    let by_name = database.url().replace("127.0.0.1", "localhost");
    let named = ask(&by_name, &trusting(cluster.ca_file()));
    assert_eq!(String::from_utf8_lossy(&named.stdout), "t\n", "{named:?}");

    let refused = |output: Output, why: &str| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(why), "{said}");
    };
    let wrong_ca = trusting(cluster.other_ca_file());
    refused(ask(&database.url(), &wrong_ca), "certificate verify failed");
    refused(ask(&database.url(), "sslmode=disable"), "no encryption");
    let wrong = format!("postgres://postgres:wrong@{}/{}", cluster.address(), database.name());
    refused(ask(&wrong, "sslmode=require"), "password authentication failed");
}

const ABORTS: &str = "HARNESS_TEST_ABORTS";

/// Not a test of its own: the process whose end the next one watches.
#[tokio::test]
async fn helper_that_aborts() {
    if std::env::var_os(ABORTS).is_some() {
        let cluster = Postgres::shared().await;
        let directory = cluster.scratch.path().display();
        eprintln!("cluster {} {directory}", cluster.process.id());
        std::process::abort();
    }
}

/// With `setpriv`'s change of user on the way, "die with your parent" would be easily lost.
#[tokio::test]
async fn a_cluster_ends_with_its_process_however_that_ends() {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.args(["--exact", "postgres::tests::helper_that_aborts", "--nocapture"]);
    let output = command.env(ABORTS, "1").output().expect("own program");
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find_map(|line| line.strip_prefix("cluster "));
    let (id, directory) = line.and_then(|line| line.split_once(' ')).expect("the helper's line");
    wait_until("the cluster and its files are gone", PATIENCE, async || {
        // What has ended and waits to be collected has no command line any more.
        let running = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        running.is_empty() && !Path::new(directory).exists()
    })
    .await;
}
