use std::sync::Mutex;

use super::*;
use crate::mimir::ExchangeError;
use crate::mimir::ruler::RuleHealth;
use crate::rules::plan::desired::tests::rule;
use crate::rules::status::statuses::RuleStatus;

/// A Mimir and a database.
struct Both {
    evaluation: Result<Evaluation, RulerError>,
    rows: Result<Vec<AlertRule>, StoreError>,
    asked: Mutex<Vec<String>>,
}

impl Source for Both {
    async fn evaluation(&self) -> Result<Evaluation, RulerError> {
        self.evaluation.clone()
    }

    async fn rules(&self) -> Result<Vec<AlertRule>, StoreError> {
        self.asked.lock().unwrap().push("rows".to_owned());
        self.rows.clone()
    }

    /// White space does not count, and `no` is no expression.
    async fn format(&self, expr: &str) -> Result<Option<String>, RulerError> {
        self.asked.lock().unwrap().push(expr.to_owned());
        match expr {
            "away" => Err(ExchangeError::Unreachable("away".to_owned()).into()),
            "no" => Ok(None),
            _ => Ok(Some(expr.replace(' ', ""))),
        }
    }
}

fn evaluated(row: &AlertRule, expr: &str) -> EvaluatedRule {
    let mut rule = row.to_written();
    expr.clone_into(&mut rule.expr);
    EvaluatedRule {
        rule,
        health: RuleHealth::Good,
        last_error: String::new(),
        last_evaluation: Some(OffsetDateTime::UNIX_EPOCH),
    }
}

fn group(rules: Vec<EvaluatedRule>) -> Evaluation {
    let interval = PromDuration::from_millis(60_000);
    let took = PromDuration::ZERO;
    let group = EvaluatedGroup { name: "a".to_owned(), interval, took, rules };
    Evaluation { answered_at: None, is_switched_off: false, groups: vec![group] }
}

fn stored(rows: &[AlertRule]) -> RuleStatuses {
    rows.iter().map(|row| (row.id, RuleStatus::in_mimir(None, row.hash()))).collect()
}

/// An expression that the local parser does not know.
fn strange(id: u32) -> AlertRule {
    let mut row = rule(id, "a", 60);
    row.rule.expr = format!("future_function( {id} )");
    row
}

async fn versions(
    rows: &[AlertRule],
    evaluated: Vec<EvaluatedRule>,
    known: &RuleStatuses,
) -> (Vec<Version>, Vec<String>, u32) {
    let evaluation = Ok(group(evaluated));
    let both = Both { evaluation, rows: Ok(rows.to_vec()), asked: Mutex::default() };
    let wanted = wanted(known, &Memory::default());
    let reading = read(&both, &wanted, OffsetDateTime::UNIX_EPOCH).await.unwrap();
    let mut rules: Vec<(Uuid, SeenRule)> = reading
        .seen
        .rules
        .into_iter()
        .flat_map(|(id, rules)| rules.into_iter().map(move |rule| (id, rule)))
        .collect();
    rules.sort_by_key(|(id, _)| *id);
    let versions = rules.into_iter().map(|(_, rule)| rule.version).collect();
    (versions, both.asked.into_inner().unwrap(), reading.more_requests)
}

#[tokio::test]
async fn an_expression_that_only_mimir_can_compare_is_asked_about() {
    let row = strange(1);
    let is = Version::Is(row.hash());
    let known = stored(std::slice::from_ref(&row));
    let rows = [row.clone()];
    let of = async |shown: &str| versions(&rows, vec![evaluated(&row, shown)], &known).await;
    let asked = ["rows", "future_function( 1 )", "future_function(1)"].map(str::to_owned);
    assert_eq!(of("future_function(1)").await, (vec![is], asked.to_vec(), 2));
    assert_eq!(of("future_function(2)").await.0, [Version::Other]);
    assert_eq!(of("no").await.0, [Version::Other]);
    assert_eq!(of("away").await.0, [Version::Unclear]);
}

#[tokio::test]
async fn only_so_many_expressions_are_asked_about_at_once() {
    let rows: Vec<AlertRule> = (1..=30).map(strange).collect();
    let shown = rows.iter().map(|row| evaluated(row, &row.rule.expr.replace(' ', ""))).collect();
    let (versions, _, more) = versions(&rows, shown, &stored(&rows)).await;
    let clear = versions.iter().filter(|version| **version != Version::Unclear).count();
    assert_eq!((clear, more), (20, 40));
}

// Mimir shows `{{ … }}` as it was written: a route that may well match was told never to. The name of an alert is no
// template.
#[tokio::test]
async fn what_a_template_makes_of_a_label_is_not_known() {
    let mut row = rule(1, "a", 60);
    row.rule.alert = "{{ Hot }}".to_owned();
    let severity = "{{ if gt $value 90.0 }}critical{{ else }}warning{{ end }}";
    let labels =
        [("severity", severity), ("site", "a{{ $labels.site }}"), ("team", "}}"), ("job", "")];
    row.rule.labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let evaluation = Ok(group(vec![evaluated(&row, &row.rule.expr)]));
    let known = stored(std::slice::from_ref(&row));
    let both = Both { evaluation, rows: Ok(vec![row.clone()]), asked: Mutex::default() };
    let wanted = wanted(&known, &Memory::default());
    let reading = read(&both, &wanted, OffsetDateTime::UNIX_EPOCH).await.unwrap();
    let seen = &reading.seen.rules[&row.id][0];
    assert_eq!(seen.version, Version::Is(row.hash()));
    let fixed = [("alertname", "{{ Hot }}"), ("job", ""), ("team", "}}")];
    assert!(seen.labels.iter().map(|(name, value)| (&**name, &**value)).eq(fixed), "{seen:?}");
}

// Rows are read only for rules that were just written.
#[tokio::test]
async fn what_was_seen_before_needs_one_request_and_no_row() {
    let row = strange(1);
    let mut known = stored(std::slice::from_ref(&row));
    known.get_mut(&row.id).unwrap().evaluated_at = Some(OffsetDateTime::UNIX_EPOCH);
    let rows = [row.clone()];
    let (versions, asked, more) =
        versions(&rows, vec![evaluated(&row, "future_function(1)")], &known).await;
    assert_eq!((versions, asked, more), (vec![Version::Is(row.hash())], Vec::new(), 0));
}

// The row was edited since the rule was written: it does not tell which version Mimir was given.
#[tokio::test]
async fn a_row_that_has_moved_on_proves_nothing() {
    let row = strange(1);
    let mut edited = row.clone();
    edited.rule.alert.push('x');
    let known = stored(std::slice::from_ref(&row));
    let shown = vec![evaluated(&edited, "future_function(1)")];
    let (versions, _, more) = versions(&[edited], shown, &known).await;
    assert_eq!((versions, more), (vec![Version::Unclear], 0));
}

#[tokio::test]
async fn other_rules_are_not_ours_and_an_error_is_no_reading() {
    let row = rule(1, "a", 60);
    let mut unnamed = evaluated(&row, "up");
    unnamed.rule.annotations.clear();
    let stranger = evaluated(&rule(2, "a", 60), "up");
    let known = stored(std::slice::from_ref(&row));
    let rows = [row];
    assert_eq!(versions(&rows, vec![unnamed, stranger], &known).await.0, []);
    for (evaluation, rows) in [
        (Err(RulerError::from(ExchangeError::Unreachable("away".to_owned()))), Ok(Vec::new())),
        (Ok(group(vec![evaluated(&rows[0], "up")])), Err(StoreError::Unavailable("no".to_owned()))),
    ] {
        let both = Both { evaluation, rows, asked: Mutex::default() };
        let wanted = wanted(&known, &Memory::default());
        assert!(read(&both, &wanted, OffsetDateTime::UNIX_EPOCH).await.is_err());
    }
}
