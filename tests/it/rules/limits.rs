//! Rules that Mimir rejects, and the tenant's limits.

use std::collections::BTreeMap;

use harness::{Mimir, wait_until};

use super::{SOON, rules_fixture, write_group};

// Other syncers stop at the first invalid rule (alloy#307). Here 7 of 100 rules are invalid in
// different ways: 93 go live, and 7 have a reason.
#[tokio::test(flavor = "multi_thread")]
async fn seven_invalid_rules_delay_no_other() {
    let fixture = rules_fixture(&[]).await;
    let org = fixture.identity.organisation().await;
    let sql = format!(
        "insert into alert_rule (organisation_id, name, expr, rule_group) \
         select '{org}', 'Good' || n, 'up == ' || n, 'g' || n % 7 from generate_series(1, 93) as n"
    );
    fixture.sql(&sql).await;
    let broken = [
        ("parses nowhere", "expr = 'sum(('", "line 1, column"),
        ("unknown function", "expr = 'nosuch(up)'", "nosuch"),
        ("duration", "for_duration = 'soon'", "for_duration"),
        ("reserved label", "labels = '{\"__name__\": \"x\"}'", "__name__"),
        ("label value", "labels = '{\"a\": [1]}'", "labels"),
        // The numbers in the text are Mimir's.
        ("template", "annotations = '{\"summary\": \"{{ 0xzz }}\"}'", "template"),
        ("interval", "evaluation_interval = '0s'", "evaluation_interval"),
    ];
    let mut ids = BTreeMap::new();
    for (at, (what, change, _)) in broken.iter().enumerate() {
        let more = format!("rule_group = 'g{at}', {change}");
        ids.insert(*what, fixture.rule_with(&org, &format!("Broken{at}"), "up == 0", &more).await);
    }
    wait_until("93 are live and 7 are not", SOON, async || {
        let states = fixture.states(&org).await;
        states.get("live") == Some(&93) && states.get("invalid") == Some(&7)
    })
    .await;
    for (what, _, says) in broken {
        let (state, reason) = fixture.status(&ids[what]).await;
        println!("{what}: {reason}");
        assert_eq!(state, "invalid", "{what}");
        assert!(reason.contains(says), "{what}: {reason}");
        // No internal names: groups, indices, positions in our YAML.
        assert!(!reason.contains("rule 0") && !reason.contains("group \"g"), "{what}: {reason}");
    }
    let live: usize = fixture.groups(&org).await.values().map(Vec::len).sum();
    assert_eq!(live, 93);
    // A rejected rule is not sent again and again.
    fixture.sync(&org).await;
    let before = fixture.writes().await;
    fixture.sync(&org).await;
    fixture.sync_all().await;
    assert_eq!(fixture.writes().await, before);
    // After a fix, each goes live.
    for id in ids.values() {
        fixture
            .sql(&format!(
                "update alert_rule set expr = 'up == 0', for_duration = null, labels = null, \
                 annotations = null, evaluation_interval = null where id = '{id}'"
            ))
            .await;
    }
    wait_until("all are live", SOON, async || fixture.states(&org).await.get("live") == Some(&100))
        .await;
}

// Mimir's own limit: 20 rules in a group. The group is split, and adding a rule moves none.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_full_goes_on_in_another() {
    let fixture = rules_fixture(&[]).await;
    let org = fixture.identity.organisation().await;
    let sql = format!(
        "insert into alert_rule (organisation_id, name, expr, created_at) \
         select '{org}', 'A' || n, 'up == ' || n, now() - interval '1 day' + n * interval '1 s' \
         from generate_series(1, 40) as n"
    );
    fixture.sql(&sql).await;
    wait_until("all are live", SOON, async || fixture.states(&org).await.get("live") == Some(&40))
        .await;
    let before = fixture.groups(&org).await;
    assert_eq!(before.keys().collect::<Vec<_>>(), ["default", "default#2"]);
    assert!(before.values().all(|rules| rules.len() == 20), "{before:?}");
    let id = fixture.rule(&org, "A41", "up == 41").await;
    fixture.wait_state(&id, "live").await;
    let after = fixture.groups(&org).await;
    assert_eq!(after["default#3"], ["A41"]);
    for (group, rules) in before {
        assert_eq!(after[&group], rules, "{group}");
    }
}

// 70 groups at the limit: Mimir rejects even the update of an existing one; ours is written.
#[tokio::test(flavor = "multi_thread")]
async fn at_the_limit_of_groups_an_update_goes_through_and_more_is_told() {
    let fixture = rules_fixture(&[]).await;
    let org = fixture.identity.organisation().await;
    let sql = format!(
        "insert into alert_rule (organisation_id, name, expr, rule_group, created_at) \
         select '{org}', 'A' || n, 'up == ' || n, 'g' || n, now() - interval '1 day' + n * interval '1 s' \
         from generate_series(1, 70) as n"
    );
    fixture.sql(&sql).await;
    wait_until("all are live", SOON, async || fixture.states(&org).await.get("live") == Some(&70))
        .await;
    fixture.sql(&format!("update alert_rule set name = 'Changed' where organisation_id = '{org}' and rule_group = 'g33'")).await;
    wait_until("the update is there", SOON, async || {
        fixture.groups(&org).await.get("g33") == Some(&vec!["Changed".to_owned()])
    })
    .await;
    assert_eq!(fixture.groups(&org).await.len(), 70);
    // A further rule that needs a further group exceeds the limit, and its status says so; one that
    // does not goes live.
    let over = fixture.rule_with(&org, "Over", "up == 0", "rule_group = 'g71'").await;
    fixture.wait_state(&over, "over_limit").await;
    assert!(fixture.status(&over).await.1.contains("70"), "{:?}", fixture.status(&over).await);
    let fits = fixture.rule_with(&org, "Fits", "up == 0", "rule_group = 'g1'").await;
    fixture.wait_state(&fits, "live").await;
    assert_eq!(fixture.groups(&org).await.len(), 70);
    // When there is room, it goes live.
    fixture
        .sql(&format!(
            "delete from alert_rule where organisation_id = '{org}' and rule_group = 'g2'"
        ))
        .await;
    fixture.wait_state(&over, "live").await;
    // An interrupted update leaves its group without the rule, but with the others.
    fixture.sql(&format!("update alert_rule set expr = 'sum((' where id = '{fits}'")).await;
    fixture.wait_state(&fits, "invalid").await;
    assert_eq!(fixture.groups(&org).await["g1"], ["A1"]);
}

// The limits that Mimir reports for a tenant replace the configured ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_own_limits_are_learned_from_mimir() {
    let fixture = rules_fixture(&[]).await;
    let org = fixture.identity.organisation().await;
    let limits = "{ruler_max_rules_per_rule_group: 3, ruler_max_rule_groups_per_tenant: 2}";
    Mimir::shared().await.override_limits(&org, limits).await;
    let sql = format!(
        "insert into alert_rule (organisation_id, name, expr, created_at) \
         select '{org}', 'A' || n, 'up == ' || n, now() + n * interval '1 s' from generate_series(1, 8) as n"
    );
    fixture.sql(&sql).await;
    wait_until("six are live and two are over the limit", SOON, async || {
        let states = fixture.states(&org).await;
        states.get("live") == Some(&6) && states.get("over_limit") == Some(&2)
    })
    .await;
    fixture
        .wait_groups(&org, &[("default", &["A1", "A2", "A3"]), ("default#2", &["A4", "A5", "A6"])])
        .await;
    // Raised limits apply after a requested sync.
    let limits = "{ruler_max_rules_per_rule_group: 3, ruler_max_rule_groups_per_tenant: 9}";
    Mimir::shared().await.override_limits(&org, limits).await;
    fixture.sync(&org).await;
    assert_eq!(fixture.states(&org).await.get("live"), Some(&8));
}

// One organisation's many rules do not delay others.
#[tokio::test(flavor = "multi_thread")]
async fn an_organisation_with_very_large_rules_delays_no_other() {
    let fixture = rules_fixture(&[]).await;
    let (large, small) =
        (fixture.identity.organisation().await, fixture.identity.organisation().await);
    let sql = format!(
        "insert into alert_rule (organisation_id, name, expr, annotations, created_at) \
         select '{large}', 'A' || n, 'up == ' || n, jsonb_build_object('a', repeat('x', 16000), 'b', repeat('y', 16000)), \
                now() + n * interval '1 s' from generate_series(1, 200) as n"
    );
    fixture.sql(&sql).await;
    let huge = fixture.rule(&large, "Huge", "up == 0").await;
    // As a row from before the table had sizes.
    fixture.sql("alter table alert_rule drop constraint alert_rule_annotations_size").await;
    fixture.sql(&format!("update alert_rule set annotations = jsonb_build_object('a', repeat('x', 3000000)) where id = '{huge}'")).await;
    let good = fixture.rule(&small, "Good", "up == 0").await;
    fixture.wait_state(&good, "live").await;
    fixture.wait_state(&huge, "invalid").await;
    wait_until("what has room is live, and the rest is told", SOON, async || {
        let states = fixture.states(&large).await;
        states.get("over_limit").is_some_and(|over| (60..90).contains(over))
            && states.get("live").is_some_and(|live| (110..140).contains(live))
    })
    .await;
    let more = format!(
        "insert into alert_rule (organisation_id, name, expr) select '{small}', 'B' || n, 'up' from generate_series(1, 5001) as n"
    );
    let refused = fixture.identity.database.client().await.batch_execute(&more).await;
    let refused = refused.unwrap_err();
    assert!(refused.as_db_error().unwrap().message().contains("5000"), "{refused:?}");
}

// Mimir does not report the limits of a single namespace: they are learned from its rejections,
// kept, and tested again by a requested sync, without other writes.
#[tokio::test(flavor = "multi_thread")]
async fn limits_that_mimir_does_not_report_are_learned_and_kept() {
    let fixture = rules_fixture(&[("rules.reconcile_interval", "\"1h\"")]).await;
    let org = fixture.identity.organisation().await;
    let mimir = Mimir::shared().await;
    let limits = |rules: u32, groups: u32| {
        format!(
            "{{ruler_max_rules_per_rule_group_by_namespace: {{alert_rule: {rules}}}, \
             ruler_max_rule_groups_per_tenant_by_namespace: {{alert_rule: {groups}}}}}"
        )
    };
    mimir.override_limits(&org, &limits(10, 3)).await;
    // They count only the groups of that namespace.
    write_group(&fixture.ruler(&org), "theirs", "theirs", "Theirs").await;
    let sql = format!(
        "insert into alert_rule (organisation_id, name, expr, created_at) \
         select '{org}', 'A' || n, 'up == ' || n, now() + n * interval '1 s' from generate_series(1, 32) as n"
    );
    fixture.sql(&sql).await;
    let split = async |live: usize, over: usize| {
        wait_until(&format!("{live} live, {over} over the limit"), SOON, async || {
            let states = fixture.states(&org).await;
            (states.get("live"), states.get("over_limit"))
                == (Some(&live), Some(&over).filter(|over| **over > 0))
        })
        .await;
    };
    split(30, 2).await;
    let groups = fixture.groups(&org).await;
    let sizes: Vec<usize> = groups.values().map(Vec::len).collect();
    assert_eq!(sizes, [10, 10, 10], "{groups:?}");
    // A change, and requested syncs: no other group is written.
    fixture.sql(&format!("update alert_rule set expr = 'up == 1000' where organisation_id = '{org}' and name = 'A24'")).await;
    let before = fixture.writes().await;
    wait_until("it is written", SOON, async || fixture.writes().await > before).await;
    let before = fixture.writes().await;
    let service = fixture.identity.service();
    for _ in 0..3 {
        fixture.sync(&org).await;
        fixture.sync_all().await;
        assert_eq!(fixture.groups(&org).await, groups);
        let diff = service.get(&format!("/admin/organisations/{org}/rules/diff")).await.json();
        assert_eq!(diff["in_sync"], true, "{diff}");
    }
    assert_eq!(fixture.writes().await, before, "an unchanged state was written");
    // Raised limits apply after a requested sync.
    mimir.override_limits(&org, &limits(10, 5)).await;
    fixture.sync(&org).await;
    split(32, 0).await;
    mimir.override_limits(&org, &limits(20, 5)).await;
    fixture.sync(&org).await;
    let sizes: Vec<usize> = fixture.groups(&org).await.values().map(Vec::len).collect();
    assert_eq!(sizes, [20, 12]);
}

// An interval that is too short today may be accepted after the operator has changed that.
#[tokio::test(flavor = "multi_thread")]
async fn a_requested_sync_tries_refused_rules_again() {
    let fixture = rules_fixture(&[("rules.reconcile_interval", "\"1h\"")]).await;
    let org = fixture.identity.organisation().await;
    let mimir = Mimir::shared().await;
    mimir.override_limits(&org, "{ruler_min_rule_evaluation_interval: 5m}").await;
    let id = fixture.rule(&org, "Often", "up == 0").await;
    fixture.wait_state(&id, "invalid").await;
    assert!(fixture.status(&id).await.1.contains("5m"), "{:?}", fixture.status(&id).await);
    mimir.override_limits(&org, "{}").await;
    fixture.sync(&org).await;
    assert_eq!(fixture.status(&id).await.0, "live");
}
