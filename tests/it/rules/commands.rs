//! `rules check | diff | sync | guard`, and mimirtool's view of their effects.

use std::process::Output;

use harness::{Client, Mimir, Postgres, part, wait_until};
use serde_json::Value;

use super::{RulesFixture, SOON, rules_fixture, write_group};
use crate::support::identity::command_with;

pub(super) fn run(fixture: &RulesFixture, args: &[&str]) -> (i32, String, String) {
    let url = fixture.mimir.clone();
    let env = [("MTP__UPSTREAM__URLS", url.as_str())];
    let Output { status, stdout, stderr } = command_with(&fixture.identity.database, &env, args);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

// Operators use mimirtool: it reads what was written, and `rules diff` agrees with it.
#[tokio::test(flavor = "multi_thread")]
async fn mimirtool_reads_back_what_was_written() {
    let fixture = rules_fixture(&[]).await;
    let org = fixture.identity.organisation().await;
    let id = fixture
        .rule_with(
            &org,
            "Hot: \"very\"",
            "temperature{hub=\"a\"} > 50",
            "annotations = '{\"s\": \"é # {{ $value }}\"}'",
        )
        .await;
    fixture.wait_state(&id, "live").await;
    let print = || {
        let output = std::process::Command::new(part("mimirtool"))
            .args(["rules", "get", "alert_rule", "default", "--disable-color"])
            .args([&format!("--address={}", fixture.mimir), &format!("--id={org}")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        // It reports first what it would change.
        let said = std::str::from_utf8(&output.stdout).unwrap();
        let yaml = &said[said.find("name:").unwrap()..];
        serde_saphyr::from_str::<Value>(yaml).unwrap()["rules"][0].clone()
    };
    let printed = print();
    assert_eq!(printed["alert"], "Hot: \"very\"");
    assert_eq!(printed["annotations"]["s"], "é # {{ $value }}");
    let (code, diff, note) = run(&fixture, &["rules", "diff", "--organisation", &org]);
    assert_eq!((code, diff.trim()), (0, ""), "{note}");
    // A change with mimirtool is in the diff, and is reverted by a sync.
    let delete = std::process::Command::new(part("mimirtool"))
        .args(["rules", "delete", "alert_rule", "default"])
        .args([&format!("--address={}", fixture.mimir), &format!("--id={org}")])
        .status()
        .unwrap();
    assert!(delete.success());
    let (code, diff, _) = run(&fixture, &["rules", "diff", "--organisation", &org]);
    assert!(code == 1 && diff.contains("+- alert: \"Hot: \\\"very\\\"\""), "{code} {diff}");
    let (code, said, note) = run(&fixture, &["rules", "sync", "--organisation", &org]);
    assert_eq!(code, 0, "{said} {note}");
    assert_eq!(print()["alert"], "Hot: \"very\"");
}

// For pipelines: the exit codes are sufficient. Without a running proxy the command itself does the
// sync.
#[tokio::test(flavor = "multi_thread")]
async fn the_commands_exit_codes_are_for_pipelines() {
    let mut fixture = rules_fixture(&[]).await;
    let org = fixture.identity.organisation().await;
    write_group(&fixture.ruler(&org), "theirs", "theirs", "Theirs").await;
    fixture.identity.proxy.process.signal("TERM");
    wait_until("the proxy has ended", SOON, async || !fixture.identity.proxy.process.is_running())
        .await;
    fixture.rule(&org, "Good", "up == 0").await;
    let (code, diff, note) = run(&fixture, &["rules", "diff"]);
    assert!(
        code == 1 && diff.contains("Good") && note.contains("1 of them not in sync"),
        "{code} {diff} {note}"
    );
    let (code, said, note) = run(&fixture, &["rules", "sync"]);
    assert!(code == 0 && said.contains("1 changed"), "{code} {said} {note}");
    assert_eq!(fixture.groups(&org).await["default"], ["Good"]);
    assert_eq!(run(&fixture, &["rules", "diff"]).0, 0);
    assert_eq!(run(&fixture, &["rules", "check", "--database"]).0, 0);
    fixture.rule(&org, "Bad", "sum((").await;
    let (code, said, _) = run(&fixture, &["rules", "check", "--database", "--json"]);
    assert!(code == 1 && said.contains("\"invalid\":1"), "{code} {said}");
    // Files, with Mimir and without.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rules.yaml");
    std::fs::write(
        &file,
        "- {organisation_id: acme, name: A, expr: 'up == 0'}\n\
         - {organisation_id: acme, name: B, expr: 'sum(('}\n\
         - {organisation_id: acme, name: '', expr: up, for_duration: soon}\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let (code, said, note) = run(&fixture, &["rules", "check", file]);
    assert!(
        code == 1 && said.contains("rule 2 (B)") && said.contains("for_duration"),
        "{code} {said}"
    );
    assert!(note.contains("3 rules, 2 invalid"), "{note}");
    let offline = std::process::Command::new(harness::Proxy::binary())
        .args(["rules", "check", file])
        .output()
        .unwrap();
    let said = String::from_utf8(offline.stdout).unwrap();
    assert!(offline.status.code() == Some(1) && said.contains("rule 2 (B): warning"), "{said}");
    // A mistake in the arguments is not a fault of the rules.
    for arguments in [
        &["rules", "check", "nosuch.yaml"][..],
        &["rules", "check", "--database", "--organisation", "nosuch"],
        &["rules", "diff", "--organisation", "nosuch"],
        &["rules", "sync", "--organisation", "nosuch"],
    ] {
        let (code, said, note) = run(&fixture, arguments);
        assert!(code == 64 && note.contains("nosuch"), "{arguments:?}: {code} {said} {note}");
    }
    let nowhere = std::process::Command::new(harness::Proxy::binary())
        .args(["rules", "diff"])
        .env("MTP__UPSTREAM__URLS", "http://127.0.0.1:1")
        .output()
        .unwrap();
    assert_eq!(nowhere.status.code(), Some(64), "{nowhere:?}");
    let (code, said, note) = run(&fixture, &["rules", "sync", "--organisation", &org]);
    assert!(code == 1 && said.contains("1 invalid"), "{code} {said} {note}");
    let away = [("MTP__UPSTREAM__URLS", "http://127.0.0.1:1")];
    // However few they are: unchecked rules are not valid.
    let one = directory.path().join("one.yaml");
    std::fs::write(&one, "- {organisation_id: acme, name: A, expr: 'up == 0'}\n").unwrap();
    let unjudged =
        command_with(&fixture.identity.database, &away, &["rules", "check", one.to_str().unwrap()]);
    assert_eq!(unjudged.status.code(), Some(69), "{unjudged:?}");
    assert_eq!(
        command_with(&fixture.identity.database, &away, &["rules", "diff"]).status.code(),
        Some(69)
    );
    let _ = Mimir::shared().await;
    let _: Client = fixture.ruler(&org);
}

// An organisation whose ID cannot be a tenant ID is reported and does not delay others.
#[tokio::test(flavor = "multi_thread")]
async fn an_organisation_without_a_tenant_delays_no_other() {
    let settings = [("rules.organisation_grace", "\"0s\"")];
    let fixture = rules_fixture(&settings).await;
    fixture.sql("insert into organisation (id) values ('__mimir_cluster')").await;
    let id = fixture.rule("__mimir_cluster", "Up", "up == 0").await;
    let org = fixture.identity.organisation().await;
    let good = fixture.rule(&org, "Good", "up == 0").await;
    fixture.wait_state(&good, "live").await;
    fixture.wait_state(&id, "error").await;
    let (code, said, note) = run(&fixture, &["rules", "diff"]);
    assert!(code == 0 && note.contains("__mimir_cluster"), "{code} {said} {note}");
    let (code, said, note) = run(&fixture, &["rules", "check", "--database"]);
    assert!(code == 1 && note.contains("2 rules, 1 invalid"), "{code} {said} {note}");
    let failing = "mimir_tenant_proxy_rules_tenants_failing";
    fixture.sync_all().await;
    assert_eq!(fixture.identity.proxy.metric(failing).await, 1.0);
    fixture.sql("delete from organisation where id = '__mimir_cluster'").await;
    fixture.sync_all().await;
    fixture.sync_all().await;
    wait_until("nothing is left of it", SOON, async || {
        let left = "select count(*) from alert_rule_sync where organisation_id = '__mimir_cluster'";
        fixture.identity.database.query(left).await[0][0].as_deref() == Some("0")
            && fixture.identity.proxy.metric(failing).await == 0.0
    })
    .await;
}

// A held deletion is listed with its ID and its rules, and confirmed by the ID; an unknown or
// outdated ID is an error.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_deletion_is_listed_and_confirmed_on_the_command_line() {
    let fixture = rules_fixture(&[("rules.reconcile_interval", "\"1h\"")]).await;
    let org = fixture.identity.organisation().await;
    for n in 1..=6 {
        fixture.rule(&org, &format!("A{n}"), "up == 0").await;
    }
    wait_until("all are live", SOON, async || fixture.states(&org).await.get("live") == Some(&6))
        .await;
    fixture.sync_all().await;
    assert_eq!(run(&fixture, &["rules", "guard", "list"]).0, 0);
    let lose = async |names: &str| {
        let lost = format!(
            "set session_replication_role = replica; delete from alert_rule where name in ({names})"
        );
        fixture.sql(&lost).await;
    };
    lose("'A1', 'A2'").await;
    // Before the first reconcile, the guard's decision can be read all the same.
    let (code, diff, note) = run(&fixture, &["rules", "diff", "--organisation", &org]);
    assert_eq!(code, 1, "{diff} {note}");
    let (code, said, note) = run(&fixture, &["rules", "sync", "--organisation", &org]);
    assert!(code == 1 && note.contains("rules guard confirm "), "{said} {note}");
    let (code, list, note) = run(&fixture, &["rules", "guard", "list"]);
    assert!(code == 1 && note.contains("1 deletion is held"), "{list} {note}");
    let id = list.split_whitespace().next().unwrap().to_owned();
    assert!(diff.contains(&id), "{diff}");
    assert!(list.contains("A1 (default)") && list.contains("A2 (default)"), "{list}");
    let (code, json, _) =
        run(&fixture, &["rules", "guard", "list", "--organisation", &org, "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(code == 1 && json["guards"][0]["id"] == *id, "{json}");
    assert_eq!(json["guards"][0]["vanishing"][0]["rules"].as_array().unwrap().len(), 2, "{json}");
    lose("'A3'").await;
    run(&fixture, &["rules", "sync", "--organisation", &org]);
    let (code, said, note) = run(&fixture, &["rules", "guard", "confirm", &id]);
    assert!(
        code == 1 && note.contains("has grown: 1 more rule would be deleted (A3)"),
        "{said} {note}"
    );
    let now = run(&fixture, &["rules", "guard", "list"]).1;
    let now = now.split_whitespace().next().unwrap();
    assert!(now != id && note.contains(now), "{now} {note}");
    for (arguments, wrong) in [
        (&["rules", "guard", "confirm", "0123456789abcdef"][..], "0123456789abcdef"),
        (&["rules", "guard", "confirm", now, "--organisation", "nosuch"], now),
        (&["rules", "guard", "list", "--organisation", "nosuch"], "nosuch"),
    ] {
        let (code, said, note) = run(&fixture, arguments);
        assert!(code == 64 && note.contains(wrong), "{arguments:?}: {code} {said} {note}");
    }
    let (code, said, note) = run(&fixture, &["rules", "guard", "confirm", now]);
    assert_eq!(code, 0, "{said} {note}");
    assert_eq!(fixture.groups(&org).await["default"], ["A4", "A5", "A6"]);
    assert_eq!(run(&fixture, &["rules", "guard", "list"]).0, 0);
    let (code, _, note) = run(&fixture, &["rules", "guard", "confirm", now]);
    assert!(code == 1 && note.contains("is no longer held"), "{code} {note}");
    let away = [("MTP__DATABASE__URL", "postgres://nobody@127.0.0.1:1/none")];
    let unread = command_with(&fixture.identity.database, &away, &["rules", "guard", "list"]);
    assert_eq!(unread.status.code(), Some(69), "{unread:?}");
}

// Before, diff named a deletion that confirm did not know until the next full resync; and a sync
// that carried it out ended with 1, like one that has grown, because another rule was invalid.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_only_diff_has_shown_is_confirmed_with_its_organisation() {
    let fixture = rules_fixture(&[("rules.reconcile_interval", "\"1h\"")]).await;
    let org = fixture.identity.organisation().await;
    for n in 1..=6 {
        fixture.rule(&org, &format!("A{n}"), "up == 0").await;
    }
    fixture.rule(&org, "Broken", "up ==").await;
    wait_until("all are judged", SOON, async || {
        let states = fixture.states(&org).await;
        states.get("live") == Some(&6) && states.get("invalid") == Some(&1)
    })
    .await;
    let lost =
        "set session_replication_role = replica; delete from alert_rule where name in ('A1', 'A2')";
    fixture.sql(lost).await;
    let (code, diff, note) = run(&fixture, &["rules", "diff", "--organisation", &org]);
    assert_eq!(code, 1, "{diff} {note}");
    let command = diff.lines().find_map(|line| line.split_once("rules guard confirm ")).unwrap().1;
    let (id, rest) = command.split_once(' ').unwrap();
    assert_eq!(rest, format!("--organisation {org}"), "{diff}");
    let (code, _, note) = run(&fixture, &["rules", "guard", "confirm", id]);
    assert!(code == 64 && note.contains("needs --organisation"), "{code} {note}");
    let with = ["rules", "guard", "confirm", id, "--organisation", &org];
    let (code, said, note) = run(&fixture, &with);
    assert_eq!(code, 0, "{said} {note}");
    assert!(said.contains("1 invalid"), "{said}");
    assert_eq!(fixture.groups(&org).await["default"], ["A3", "A4", "A5", "A6"]);
}

// Seen: 69, as if it were away, so that a pipeline waited for what only a change of the configuration ends. Not 1
// either, which says that rules differ or that a deletion is held.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_refuses_is_a_fault_of_the_configuration() {
    let unmigrated = Postgres::shared().await.database("unmigrated").await;
    let channels = [("MTP__CHANNELS__ENABLED", "true")];
    let run = |arguments: &[&str]| {
        let output = command_with(&unmigrated, &channels, arguments);
        let note = String::from_utf8(output.stderr).unwrap();
        assert!(note.contains("the database cannot be used"), "{arguments:?}: {note}");
        output.status.code()
    };
    let channel = "6a1a9a3e-5f1c-4d0b-9c58-2f5a0f9b7c11";
    for arguments in [
        &["rules", "check", "--database"][..],
        &["rules", "diff"],
        &["rules", "sync"],
        &["rules", "guard", "list"],
        &["rules", "guard", "confirm", "0123456789abcdef"],
        &["channels", "diff"],
        &["channels", "sync", "--organisation", "acme"],
        &["channels", "test", "--organisation", "acme", channel],
        &["channels", "confirm", "--organisation", "acme", "0123456789abcdef"],
    ] {
        assert_eq!(run(arguments), Some(64), "{arguments:?}");
    }
    assert_eq!(run(&["device-key", "list", "--organisation", "acme"]), Some(1));
}
