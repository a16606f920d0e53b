//! `POST /admin/webhooks/alert-rule`: Supabase reports that a row of `alert_rule` has changed.
//!
//! It is a trigger and no more: of the body only the organisations are used, never the row. It is
//! passed on as a notification of the database, so that it reaches the leader through any copy.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::body::read_object;
use super::{Admin, AdminError, Answer};
use crate::authz::WebhookGrant;
use crate::tenancy::OrganisationId;

/// A trigger that was accepted.
#[derive(Serialize, ToSchema)]
pub(super) struct AcceptedTrigger<'a> {
    /// `accepted`.
    status: &'a str,
    /// The organisations whose rules are reconciled; all if there are none.
    organisations: Vec<&'a str>,
}

/// The names that the column with the organisation may have.
const COLUMNS: [&str; 4] = ["organisation_id", "organization_id", "org_id", "tenant_id"];

pub(super) async fn alert_rule(
    admin: &Admin,
    _: &WebhookGrant,
    body: &[u8],
) -> Result<Answer, AdminError> {
    let store = admin.rules()?.store();
    let organisations = organisations_in(&read_object(body)?);
    // A change that names no organisation is still a change.
    if organisations.is_empty() {
        store.announce_alert_rules(None).await?;
    }
    for organisation in &organisations {
        store.announce_alert_rules(Some(organisation.clone())).await?;
    }
    let named: Vec<&str> = organisations.iter().map(OrganisationId::as_str).collect();
    let target = named.join(" ");
    let accepted = AcceptedTrigger { status: "accepted", organisations: named };
    Ok(Answer::of(&accepted).accepted().about(target))
}

/// The organisations of the row as it is and as it was: a row may have moved from one to another.
pub(super) fn organisations_in(body: &Map<String, Value>) -> BTreeSet<OrganisationId> {
    let rows = ["record", "old_record"].into_iter().filter_map(|name| body.get(name));
    let named = rows.filter_map(|row| {
        let name = COLUMNS.iter().find_map(|column| row.get(column))?;
        OrganisationId::parse(name.as_str()?).ok()
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named(body: &Value) -> Vec<String> {
        organisations_in(body.as_object().unwrap()).iter().map(ToString::to_string).collect()
    }

    // https://supabase.com/docs/guides/database/webhooks: record and old_record are null where there
    // is none.
    #[test]
    fn the_new_row_and_the_old_row_both_count() {
        let row = |organisation: &str| json!({ "id": "x", "organisation_id": organisation });
        let body = |kind: &str, record: Value, old: Value| json!({ "type": kind, "table": "alert_rule", "schema": "public", "record": record, "old_record": old });
        assert_eq!(named(&body("INSERT", row("a"), Value::Null)), ["a"]);
        assert_eq!(named(&body("UPDATE", row("a"), row("a"))), ["a"]);
        assert_eq!(named(&body("UPDATE", row("b"), row("a"))), ["a", "b"]);
        assert_eq!(named(&body("DELETE", Value::Null, row("a"))), ["a"]);
    }

    #[test]
    fn a_body_may_name_no_organisation() {
        for body in [
            json!({}),
            json!({"record": null}),
            json!({"record": {"organisation_id": 7}}),
            json!({"record": {"organisation_id": "a b"}}),
            json!({"record": []}),
        ] {
            assert_eq!(named(&body), Vec::<String>::new(), "{body}");
        }
    }
}
