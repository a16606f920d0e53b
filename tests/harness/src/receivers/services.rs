//! The services' own rules, each as its public documentation has them:
//!
//! - Slack: "Sending messages using incoming webhooks", section "Handling errors"
//! - PagerDuty: "Events API v2 overview" and its OpenAPI file
//! - Telegram: "Telegram Bot API", sections "Making requests" and "sendMessage"
//! - Opsgenie: "Alert API" and "Response"
//! - Discord: "Webhook resource", "Execute Webhook"
//! - Teams: "Create incoming webhooks with Workflows", and the adaptive cards' schema

mod chats;
mod pages;

use base64::Engine as _;
use serde_json::{Map, Value, json};

use super::{Asked, Reply, Service, State, Trouble};

const TEXT: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

/// A secret of the form that the service gives out.
pub(super) fn new_secret(service: Service) -> String {
    let letters = uuid::Uuid::new_v4().simple().to_string();
    match service {
        // Integration keys have 32 characters.
        Service::Webhook | Service::PagerDuty => letters,
        Service::Slack => letters[..24].to_owned(),
        Service::Telegram => format!("{}:AA{}x", fastrand::u32(100_000_000..999_999_999), letters),
        Service::Opsgenie => uuid::Uuid::new_v4().to_string(),
        Service::Discord => format!("{letters}{letters}Ab-_"),
        Service::Teams => {
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(letters.as_bytes())
        }
    }
}

/// The path, and for those whose URL is the secret the whole URL.
pub(super) fn path(service: Service, secret: &str) -> String {
    match service {
        Service::Webhook => format!("/hook/{secret}"),
        Service::Slack => format!("/services/T0TEST0/B0TEST0/{secret}"),
        Service::PagerDuty => "/v2/enqueue".to_owned(),
        Service::Telegram => String::new(),
        Service::Opsgenie => "/".to_owned(),
        Service::Discord => format!("/api/webhooks/1234567890123456789/{secret}"),
        Service::Teams => format!(
            "/workflows/86ffea6392fe4f3f9555f5e8f9b1f06e/triggers/manual/paths/invoke\
             ?api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig={secret}"
        ),
    }
}

/// What the service says to a request.
pub(super) fn judge(
    service: Service,
    secret: &str,
    trouble: Option<Trouble>,
    asked: &Asked,
) -> Reply {
    // An error of each service has another body; what they share is the status.
    let refuse = |status, why: &str| {
        let (content_type, body) = error(service, status, why);
        Reply { status, content_type, body, taken: Err(format!("{status} {why}")) }
    };
    match trouble {
        Some(Trouble::Down) => return refuse(503, "service unavailable"),
        Some(Trouble::TooMany) => return refuse(429, "too many requests"),
        Some(Trouble::Revoked) => return refuse(unauthorised(service), "the secret was revoked"),
        Some(Trouble::Silent) | None => {}
    }
    if asked.method != "POST" {
        return refuse(405, "method not allowed");
    }
    let content_type = asked.headers.get("content-type").map(|value| value.to_str());
    if !content_type.is_some_and(|value| value.is_ok_and(|text| text.starts_with(JSON))) {
        return refuse(400, "the content type is not JSON");
    }
    let judged = match service {
        Service::Webhook => pages::webhook(secret, asked),
        Service::Slack => chats::slack(secret, asked),
        Service::PagerDuty => pages::pagerduty(secret, asked),
        Service::Telegram => chats::telegram(secret, asked),
        Service::Opsgenie => pages::opsgenie(secret, asked),
        Service::Discord => chats::discord(secret, asked),
        Service::Teams => chats::teams(secret, asked),
    };
    match judged {
        Ok((status, content_type, body, state)) => {
            Reply { status, content_type, body, taken: Ok(state) }
        }
        Err((status, why)) => refuse(status, &why),
    }
}

type Judged = Result<(u16, &'static str, String, Option<State>), (u16, String)>;

/// What a wrong or revoked secret is answered with.
fn unauthorised(service: Service) -> u16 {
    match service {
        Service::Slack => 403,
        Service::PagerDuty => 400,
        Service::Discord => 404,
        Service::Webhook | Service::Telegram | Service::Opsgenie | Service::Teams => 401,
    }
}

fn error(service: Service, status: u16, why: &str) -> (&'static str, String) {
    let request = "43a29c5c-3dbf-4fa4-9c26-f4f71023e120";
    let body = match service {
        Service::Webhook => return (TEXT, why.to_owned()),
        Service::Slack => {
            let word = match status {
                403 => "invalid_token",
                404 => "no_service",
                429 => "rate_limited",
                503 => "service_unavailable",
                _ => "invalid_payload",
            };
            return (TEXT, word.to_owned());
        }
        Service::PagerDuty => json!({
            "status": "invalid event", "message": "Event object is invalid", "errors": [why]
        }),
        Service::Telegram => {
            let name = match status {
                401 => "Unauthorized".to_owned(),
                404 => "Not Found".to_owned(),
                429 => "Too Many Requests: retry after 1".to_owned(),
                _ => format!("Bad Request: {why}"),
            };
            json!({"ok": false, "error_code": status, "description": name})
        }
        Service::Opsgenie => json!({"message": why, "took": 0.003, "requestId": request}),
        Service::Discord if status == 429 => {
            json!({"message": "You are being rate limited.", "retry_after": 1.0, "global": false})
        }
        Service::Discord if status == 404 => json!({"message": "Unknown Webhook", "code": 10015}),
        Service::Discord => json!({"message": "Invalid Form Body", "code": 50035, "errors": why}),
        Service::Teams => json!({"error": {"code": "InvalidRequest", "message": why}}),
    };
    (JSON, body.to_string())
}

/// Refuses with 400 what is not so.
fn must(condition: bool, why: &str) -> Result<(), (u16, String)> {
    if condition { Ok(()) } else { Err((400, why.to_owned())) }
}

fn known(service: Service, condition: bool) -> Result<(), (u16, String)> {
    if condition { Ok(()) } else { Err((unauthorised(service), "the secret is wrong".to_owned())) }
}

fn object(asked: &Asked) -> Result<Map<String, Value>, (u16, String)> {
    match serde_json::from_slice(&asked.body) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err((400, "the body is not an object of JSON".to_owned())),
    }
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object[key].as_str().unwrap_or_default()
}

fn length(text: &str) -> usize {
    text.chars().count()
}
