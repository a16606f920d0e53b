//! Each tenant's rules are evaluated by one ruler, and their alerts reach the Alertmanager.

use std::time::Duration;

use harness::readings::{query, value};
use harness::{Client, wait_until};

use crate::system::System;
use crate::{chapter, fact};

/// Gives a tenant its rule: a row of `alert_rule`, which the proxies bring to Mimir.
async fn install(system: &System, organisation: &str) {
    let sql = format!(
        "insert into alert_rule (organisation_id, name, expr, rule_group, evaluation_interval, labels)
         values ('{organisation}', 'TopologyRuns', 'count(up{{job=\"node\"}}) >= 1', 'topology', '2s',
                 '{{\"severity\": \"none\"}}')"
    );
    system.database.execute(&sql).await;
    let live = format!(
        "select from alert_rule_status where organisation_id = '{organisation}' \
         and state in ('stored', 'live')"
    );
    wait_until("the row is in Mimir", Duration::from_secs(30), async || {
        !system.database.query(&live).await.is_empty()
    })
    .await;
}

pub async fn are_evaluated_once(system: &System) {
    chapter("Rules of two tenants");
    for organisation in &system.organisations {
        install(system, organisation.id).await;
    }
    for organisation in &system.organisations {
        let user = format!("user=\"{}\"", organisation.id);
        wait_until("a ruler evaluates", Duration::from_secs(60), async || {
            evaluations(system, &user).await.iter().any(|count| *count > 4.0)
        })
        .await;
        let before = evaluations(system, &user).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let after = evaluations(system, &user).await;
        let busy: Vec<&str> = system
            .mimirs
            .iter()
            .zip(before.iter().zip(&after))
            .filter(|(_, (before, after))| after > before)
            .map(|(mimir, _)| mimir.id())
            .collect();
        assert_eq!(busy.len(), 1, "rulers that evaluate the rules of {}", organisation.name);
        let member = system.member(organisation, 0);
        let firing = "ALERTS{alertname=\"TopologyRuns\",alertstate=\"firing\"}";
        wait_until("the alert's series is read", Duration::from_secs(30), async || {
            value(&member.get(&query(firing, None)).await) == Some(1.0)
        })
        .await;
        let mimir = system.mimirs[0].as_tenant(organisation.id);
        wait_until("the alert is at the Alertmanager", Duration::from_secs(60), async || {
            alerts(&mimir).await.iter().any(|name| name == "TopologyRuns")
        })
        .await;
        fact(format!(
            "of {}: a row of alert_rule, evaluated by {} alone; its series is read through the proxy, the alert is at the Alertmanager",
            organisation.name, busy[0]
        ));
    }
}

/// How many evaluations of a tenant's rules each instance counts.
async fn evaluations(system: &System, user: &str) -> Vec<f64> {
    let mut counts = Vec::new();
    for mimir in &system.mimirs {
        counts.push(mimir.metric("cortex_prometheus_rule_evaluations_total", &[user]).await);
    }
    counts
}

async fn alerts(mimir: &Client) -> Vec<String> {
    let answer = mimir.get("/alertmanager/api/v2/alerts").await;
    let json: serde_json::Value = serde_json::from_str(&answer.text).unwrap_or_default();
    let alerts = json.as_array().cloned().unwrap_or_default();
    alerts
        .iter()
        .filter_map(|alert| Some(alert["labels"]["alertname"].as_str()?.to_owned()))
        .collect()
}
