//! `POST /admin/webhooks/alert-rule`: Supabase tells that a row of `alert_rule` has changed.
//!
//! It is a hint and no more: what the body says of the row is not believed, only which organisations
//! it names. It is passed on as a notification, so that the copy that leads hears of it whichever copy
//! was told.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::wire::{Answer, read_body};
use super::{AdminContext, AdminError};
use crate::tenancy::OrganisationId;

/// Names that a column with the organisation may have.
const COLUMNS: [&str; 4] = ["organisation_id", "organization_id", "org_id", "tenant_id"];

/// Takes a hint of Supabase's database webhooks (insert, update or delete), with the secret as bearer
/// token or in `X-Webhook-Secret`.
#[utoipa::path(post, path = crate::route::admin::ALERT_RULE_WEBHOOK, tag = "webhooks",
    request_body = serde_json::Value, security(("webhook" = []), ("webhook_header" = [])),
    responses((status = 202, description = "it is looked at", body = serde_json::Value)))]
pub(super) async fn alert_rule(
    State(parts): State<Arc<AdminContext>>,
    body: Bytes,
) -> Result<Answer, AdminError> {
    let store = parts.rules()?.store();
    let body: Value = read_body(&body)?;
    if !body.is_object() {
        return Err(AdminError::Request("the body must be a JSON object".to_owned()));
    }
    let organisations = organisations_in(&body);
    // A change that names nobody is still a change.
    if organisations.is_empty() {
        store.announce_alert_rules(None).await?;
    }
    for organisation in &organisations {
        store.announce_alert_rules(Some(organisation.clone())).await?;
    }
    let named: Vec<&str> = organisations.iter().map(OrganisationId::as_str).collect();
    let answer = Answer::ok(json!({ "status": "accepted", "organisations": named }));
    Ok(answer.with_status(StatusCode::ACCEPTED).about(named.join(" ")))
}

/// The organisations of the row as it is and as it was: a rule may have moved.
fn organisations_in(body: &Value) -> BTreeSet<OrganisationId> {
    let rows = ["record", "old_record"].map(|name| &body[name]);
    let named = rows.into_iter().filter_map(|row| {
        let name = COLUMNS.iter().find_map(|column| row.get(column))?;
        OrganisationId::parse(name.as_str()?).ok()
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(body: &Value) -> Vec<String> {
        organisations_in(body).iter().map(ToString::to_string).collect()
    }

    // https://supabase.com/docs/guides/database/webhooks: record and old_record are null where there
    // is none.
    #[test]
    fn both_the_row_that_is_and_the_row_that_was_count() {
        let row = |organisation: &str| json!({ "id": "x", "organisation_id": organisation });
        let body = |kind: &str, record: Value, old: Value| json!({ "type": kind, "table": "alert_rule", "schema": "public", "record": record, "old_record": old });
        assert_eq!(named(&body("INSERT", row("a"), Value::Null)), ["a"]);
        assert_eq!(named(&body("UPDATE", row("a"), row("a"))), ["a"]);
        assert_eq!(named(&body("UPDATE", row("b"), row("a"))), ["a", "b"]);
        assert_eq!(named(&body("DELETE", Value::Null, row("a"))), ["a"]);
    }

    #[test]
    fn what_names_nobody_is_about_everybody() {
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
