//! Alert rules: from a row to a group in Mimir's ruler and a firing alert. This file has the common
//! fixture.

mod admin;
mod budgets;
mod commands;
mod faults;
mod guard;
mod health;
mod leader;
mod life;
mod limits;
pub(crate) mod relay;
mod rows;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use harness::{Answer, Client, Database, Mimir, Postgres, wait_until};
use serde_json::{Value, json};

use crate::support::identity::{IdentityFixture, identity_fixture_on};

/// Long enough for a busy machine; other tests measure the actual time.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A proxy that syncs rules to a Mimir.
pub(crate) struct RulesFixture {
    pub(crate) identity: IdentityFixture,
    mimir: String,
}

pub(crate) async fn rules_fixture(settings: &[(&str, &str)]) -> RulesFixture {
    let mimir = Mimir::shared().await.url();
    let database = Postgres::shared().await.database("rules").await;
    rules_fixture_on(database, &mimir, &mimir, settings).await
}

/// Through another address of the same Mimir, and with a database of its own.
pub(crate) async fn rules_fixture_on(
    database: Database,
    mimir: &str,
    way: &str,
    settings: &[(&str, &str)],
) -> RulesFixture {
    let mut all = vec![("rules.enabled", "true")];
    all.extend_from_slice(settings);
    let identity = identity_fixture_on(database, way, &all).await;
    RulesFixture::of(identity, mimir)
}

impl RulesFixture {
    /// Of a proxy that syncs to a Mimir.
    pub(crate) fn of(identity: IdentityFixture, mimir: &str) -> Self {
        Self { identity, mimir: mimir.to_owned() }
    }

    /// Runs SQL on the rules' database.
    pub(crate) async fn sql(&self, sql: &str) {
        self.identity.database.execute(sql).await;
    }

    /// Inserts a rule whose expression is true or not.
    pub(crate) async fn rule(&self, organisation: &str, name: &str, expr: &str) -> String {
        self.rule_with(organisation, name, expr, "").await
    }

    /// The same with more columns: `, column = value`.
    pub(crate) async fn rule_with(
        &self,
        organisation: &str,
        name: &str,
        expr: &str,
        more: &str,
    ) -> String {
        let expr = expr.replace('\'', "''");
        let sql = format!(
            "insert into alert_rule (organisation_id, name, expr) values ('{organisation}', '{name}', '{expr}') returning id"
        );
        let id = self.identity.database.query(&sql).await[0][0].clone().unwrap();
        if !more.is_empty() {
            self.sql(&format!("update alert_rule set {more} where id = '{id}'")).await;
        }
        id
    }

    /// The groups in Mimir of an organisation, by namespace and group: the names of the alerts.
    pub(crate) async fn groups(&self, organisation: &str) -> BTreeMap<String, Vec<String>> {
        groups_of(&self.mimir, organisation, "alert_rule").await
    }

    pub(crate) fn ruler(&self, organisation: &str) -> Client {
        Client::new(&self.mimir).header("x-scope-orgid", organisation)
    }

    /// The state and reason of a rule, as the sync sees it: a rule that Mimir has as its row says is `live`,
    /// whether or not it was evaluated yet. An evaluation takes many seconds; only the tests of rule health
    /// wait for one.
    pub(crate) async fn status(&self, rule: &str) -> (String, String) {
        let (state, reason) = self.health(rule).await;
        if as_synced(&state) == "live" {
            ("live".to_owned(), String::new())
        } else {
            (state, reason)
        }
    }

    /// The state and reason of a rule.
    pub(crate) async fn health(&self, rule: &str) -> (String, String) {
        let sql = format!("select state, reason from alert_rule_status where rule_id = '{rule}'");
        let rows = self.identity.database.query(&sql).await;
        let text = |at: usize| rows.first().and_then(|row| row[at].clone()).unwrap_or_default();
        (text(0), text(1))
    }

    /// The number of rules of an organisation in each state, as the sync sees it.
    pub(crate) async fn states(&self, organisation: &str) -> BTreeMap<String, usize> {
        let sql = format!(
            "select state, count(*) from alert_rule_status where organisation_id = '{organisation}' group by 1"
        );
        let rows = self.identity.database.query(&sql).await;
        let mut states = BTreeMap::new();
        for row in rows {
            let state = as_synced(row[0].as_deref().unwrap()).to_owned();
            *states.entry(state).or_default() +=
                row[1].as_deref().unwrap().parse::<usize>().unwrap();
        }
        states
    }

    pub(crate) async fn wait_state(&self, rule: &str, state: &str) {
        wait_until(&format!("rule {rule} is {state}"), SOON, async || {
            self.status(rule).await.0 == state
        })
        .await;
    }

    pub(crate) async fn wait_groups(&self, organisation: &str, wanted: &[(&str, &[&str])]) {
        let wanted: BTreeMap<String, Vec<String>> = wanted
            .iter()
            .map(|(group, alerts)| {
                ((*group).to_owned(), alerts.iter().map(ToString::to_string).collect())
            })
            .collect();
        wait_until(&format!("{organisation} has {wanted:?}"), SOON, async || {
            self.groups(organisation).await == wanted
        })
        .await;
    }

    /// Requests a sync of an organisation and waits for its end.
    pub(crate) async fn sync(&self, organisation: &str) -> Value {
        let path = format!("/admin/organisations/{organisation}/rules/sync");
        self.finished(self.identity.service().post(&path, "").await).await
    }

    /// Requests a sync of all organisations and waits for its end.
    pub(crate) async fn sync_all(&self) -> Value {
        self.finished(self.identity.service().post("/admin/rules/sync", "").await).await
    }

    pub(crate) async fn finished(&self, answer: Answer) -> Value {
        assert!([200, 202].contains(&answer.status.as_u16()), "{answer:?}");
        let mut progress = answer.json();
        let poll = progress["poll"].as_str().unwrap().to_owned();
        wait_until("the sync is done", SOON, async || {
            if progress["state"] != "done" {
                progress = self.identity.service().get(&poll).await.json();
            }
            progress["state"] == "done"
        })
        .await;
        progress
    }

    /// How often groups were written or deleted so far.
    pub(crate) async fn writes(&self) -> f64 {
        let proxy = &self.identity.proxy;
        let of = |kind| format!("mimir_tenant_proxy_rules_group_writes_total{{kind=\"{kind}\"}}");
        proxy.metric(&of("set")).await + proxy.metric(&of("delete")).await
    }

    pub(crate) async fn rule_status(&self) -> Value {
        self.identity.service().get("/admin/rules/status").await.json()
    }
}

/// A state without what is known of evaluation.
fn as_synced(state: &str) -> &str {
    if ["stored", "live", "failing"].contains(&state) { "live" } else { state }
}

/// Of counted states, those of rules that Mimir has.
fn in_mimir(states: &Value) -> u64 {
    ["stored", "live", "failing"].iter().filter_map(|state| states[state].as_u64()).sum()
}

/// The contents of a namespace in a Mimir: the names of the alerts in each group.
pub(crate) async fn groups_of(
    mimir: &str,
    tenant: &str,
    namespace: &str,
) -> BTreeMap<String, Vec<String>> {
    let client = Client::new(mimir).header("x-scope-orgid", tenant);
    let mut answer = client.get("/prometheus/config/v1/rules").await;
    // Mimir reads files while it writes them, and then reports an error.
    let is_torn = |answer: &Answer| {
        ["mismatch between requested rule group", "readdirent"]
            .iter()
            .any(|text| answer.text.contains(text))
    };
    let until = Instant::now() + Duration::from_secs(10);
    while answer.status == 400 && is_torn(&answer) && Instant::now() < until {
        answer = client.get("/prometheus/config/v1/rules").await;
    }
    assert!([200, 404].contains(&answer.status.as_u16()), "{answer:?}");
    if answer.status == 404 {
        return BTreeMap::new();
    }
    let all: Value = serde_saphyr::from_str(&answer.text).unwrap();
    let groups = all[namespace].as_array().cloned().unwrap_or_default();
    let alerts = |group: &Value| {
        let rules = group["rules"].as_array().unwrap();
        rules.iter().map(|rule| rule["alert"].as_str().unwrap_or("?").to_owned()).collect()
    };
    groups.iter().map(|group| (group["name"].as_str().unwrap().to_owned(), alerts(group))).collect()
}

/// A group that someone else writes into a namespace.
pub(crate) async fn write_group(ruler: &Client, namespace: &str, name: &str, alert: &str) {
    let yaml = format!("name: {name}\nrules:\n- alert: {alert}\n  expr: vector(1)\n");
    let path = format!("/prometheus/config/v1/rules/{namespace}");
    let answer = ruler.clone().header("content-type", "application/yaml").post(&path, yaml).await;
    assert_eq!(answer.status, 202, "{answer:?}");
}

/// JSON for a confirmation.
pub(crate) fn confirmation(guard: &Value) -> String {
    json!({ "guard": guard["id"] }).to_string()
}
