//! Services that page somebody, and the webhook receiver.

use serde_json::{Value, json};

use super::super::{Asked, Service, State};
use super::{JSON, Judged, TEXT, known, length, must, object, path, text};

/// Alertmanager's own form, version 4.
pub(super) fn webhook(secret: &str, asked: &Asked) -> Judged {
    known(Service::Webhook, asked.path == path(Service::Webhook, secret))?;
    let body = Value::Object(object(asked)?);
    must(text(&body, "version") == "4", "version is not 4")?;
    for key in ["groupKey", "receiver"] {
        must(!text(&body, key).is_empty(), &format!("{key} is missing"))?;
    }
    for key in ["groupLabels", "commonLabels", "commonAnnotations"] {
        must(body[key].is_object(), &format!("{key} is not an object"))?;
    }
    let alerts = body["alerts"].as_array().filter(|alerts| !alerts.is_empty());
    must(alerts.is_some(), "there are no alerts")?;
    for alert in alerts.into_iter().flatten() {
        must(alert["labels"].is_object(), "an alert has no labels")?;
        must(alert["startsAt"].is_string(), "an alert has no start")?;
        must(alert["fingerprint"].is_string(), "an alert has no fingerprint")?;
    }
    let state = match text(&body, "status") {
        "firing" => State::Firing,
        "resolved" => State::Resolved,
        _ => return Err((400, "status is neither firing nor resolved".to_owned())),
    };
    Ok((200, TEXT, String::new(), Some(state)))
}

pub(super) fn pagerduty(secret: &str, asked: &Asked) -> Judged {
    if asked.path != path(Service::PagerDuty, secret) {
        return Err((404, "not found".to_owned()));
    }
    must(asked.body.len() <= 512_000, "the event is larger than 512 KB")?;
    let body = Value::Object(object(asked)?);
    let key = text(&body, "routing_key");
    must(key.len() == 32, "Length of 'routing_key' is incorrect (should be 32 characters)")?;
    must(key == secret, "Invalid routing key")?;
    let dedup_key = text(&body, "dedup_key");
    must(dedup_key.len() <= 255, "Length of 'dedup_key' is incorrect (at most 255)")?;
    let state = match text(&body, "event_action") {
        "trigger" => State::Firing,
        "resolve" => {
            must(!dedup_key.is_empty(), "'dedup_key' is missing or blank")?;
            State::Resolved
        }
        _ => return Err((400, "'event_action' must be one of trigger, resolve".to_owned())),
    };
    let payload = &body["payload"];
    if state == State::Firing {
        for key in ["summary", "source", "severity"] {
            let is_there = !text(payload, key).is_empty();
            must(is_there, &format!("'payload.{key}' is missing or blank"))?;
        }
        must(length(text(payload, "summary")) <= 1024, "'payload.summary' is too long")?;
        let severity = ["critical", "warning", "error", "info"];
        must(severity.contains(&text(payload, "severity")), "'payload.severity' is invalid")?;
    }
    for link in body["links"].as_array().into_iter().flatten() {
        must(text(link, "href").contains("://"), "'links.href' is not a URL")?;
    }
    let answer = json!({"status": "success", "message": "Event processed", "dedup_key": dedup_key});
    Ok((202, JSON, answer.to_string(), Some(state)))
}

pub(super) fn opsgenie(secret: &str, asked: &Asked) -> Judged {
    let key = asked.headers.get("authorization").and_then(|value| value.to_str().ok());
    known(Service::Opsgenie, key == Some(&format!("GenieKey {secret}")))?;
    let body = Value::Object(object(asked)?);
    let limit = |key: &str, most: usize| {
        must(length(text(&body, key)) <= most, &format!("{key} is longer than {most}"))
    };
    limit("source", 100)?;
    let state = if asked.path == "/v2/alerts" {
        let is_there = !text(&body, "message").is_empty();
        if !is_there {
            return Err((422, "Message can not be empty.".to_owned()));
        }
        for (key, most) in
            [("message", 130), ("alias", 512), ("description", 15_000), ("entity", 512)]
        {
            limit(key, most)?;
        }
        let priority = text(&body, "priority");
        must(
            priority.is_empty() || ["P1", "P2", "P3", "P4", "P5"].contains(&priority),
            "priority",
        )?;
        State::Firing
    } else {
        let alias = asked.path.strip_prefix("/v2/alerts/");
        let alias = alias.and_then(|rest| rest.strip_suffix("/close"));
        if alias.is_none_or(str::is_empty) || asked.query != "identifierType=alias" {
            return Err((404, "not found".to_owned()));
        }
        State::Resolved
    };
    let answer = json!({
        "result": "Request will be processed", "took": 0.107,
        "requestId": uuid::Uuid::new_v4().to_string(),
    });
    Ok((202, JSON, answer.to_string(), Some(state)))
}
