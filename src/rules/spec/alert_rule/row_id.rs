//! The annotation with which each rule in Mimir names its row: evaluation results and alerts find their
//! row by it. It is the proxy's, so an author's own annotation of that name is dropped.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::AlertRule;
use crate::mimir::ruler::AlertingRule;

/// Its name. Alerts carry it too, so it is part of the interface: never rename it.
pub const ROW_ANNOTATION: &str = "alert_rule_id";

/// The row that a rule in Mimir was written from, if it names one.
pub fn row_of(annotations: &BTreeMap<String, String>) -> Option<Uuid> {
    Uuid::try_parse(annotations.get(ROW_ANNOTATION)?).ok()
}

/// The annotations of the author.
pub(super) fn without_row(
    annotations: &BTreeMap<String, String>,
) -> impl Iterator<Item = (&String, &String)> + Clone {
    annotations.iter().filter(|(name, _)| *name != ROW_ANNOTATION)
}

impl AlertRule {
    /// The rule as it is written to Mimir.
    pub(crate) fn to_written(&self) -> AlertingRule {
        let mut written = self.rule.clone();
        written.annotations.insert(ROW_ANNOTATION.to_owned(), self.id.to_string());
        written
    }

    /// Whether annotations in Mimir are those that are written.
    pub(crate) fn has_written(&self, annotations: &BTreeMap<String, String>) -> bool {
        self.is_named_by(annotations)
            && without_row(annotations).eq(without_row(&self.rule.annotations))
    }

    /// Whether a rule in Mimir says what the row says. One that names no row was written by an earlier
    /// version of the proxy; one that names another row is that row's.
    pub(crate) fn is_said_by(&self, stored: &AlertingRule) -> bool {
        // Destructured, so that a new field cannot be forgotten here.
        let AlertingRule { alert, expr, for_duration, keep_firing_for, labels, annotations } =
            stored;
        (alert, expr, for_duration, keep_firing_for, labels)
            == (
                &self.rule.alert,
                &self.rule.expr,
                &self.rule.for_duration,
                &self.rule.keep_firing_for,
                &self.rule.labels,
            )
            && without_row(annotations).eq(without_row(&self.rule.annotations))
            && self.may_be_named_by(annotations)
    }

    /// Whether annotations name this row, or none.
    pub(crate) fn may_be_named_by(&self, annotations: &BTreeMap<String, String>) -> bool {
        !annotations.contains_key(ROW_ANNOTATION) || self.is_named_by(annotations)
    }

    fn is_named_by(&self, annotations: &BTreeMap<String, String>) -> bool {
        let mut buffer = Uuid::encode_buffer();
        let id = self.id.hyphenated().encode_lower(&mut buffer);
        annotations.get(ROW_ANNOTATION).is_some_and(|named| named == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::plan::desired::tests::rule;

    #[test]
    fn a_written_rule_names_its_row_and_nothing_else_changes() {
        let mut row = rule(1, "a", 60);
        row.rule.annotations.insert("summary".to_owned(), "hot".to_owned());
        let written = row.to_written();
        assert_eq!(row_of(&written.annotations), Some(row.id));
        assert!(row.has_written(&written.annotations) && row.is_said_by(&written));
        assert!(!row.has_written(&row.rule.annotations), "an earlier version wrote it");
        assert!(row.is_said_by(&row.rule));
        // A rule of the same content that is another row's.
        let other = AlertRule { id: Uuid::from_u128(2), ..row.clone() };
        assert!(!other.has_written(&written.annotations) && !other.is_said_by(&written));
        assert_eq!(other.hash(), row.hash());
        let mut edited = written;
        edited.annotations.insert("summary".to_owned(), "cold".to_owned());
        assert!(!row.has_written(&edited.annotations) && !row.is_said_by(&edited));
    }
}
