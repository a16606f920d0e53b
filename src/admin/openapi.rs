//! `/admin` as `OpenAPI`, generated from the handlers themselves.

use axum::extract::State;
use serde_json::Value;
use std::sync::Arc;
use utoipa::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};

use super::wire::Answer;
use super::{
    AdminContext, AdminError, all_rules, device_keys, revocations, rule_views, rules, webhook,
    whoami,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "mimir-tenant-proxy: /admin",
        description = "Errors have Prometheus' form: {\"status\": \"error\", \"errorType\", \"error\"}. \
                       401: no credential or a bad one. 403: not allowed, or no such organisation. \
                       503 with Retry-After: ours to blame, try again.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        whoami::show, device_keys::list, device_keys::create, device_keys::show, device_keys::revoke,
        revocations::list, revocations::add, revocations::remove,
        rules::list, rules::diff, rules::sync, rules::progress, rules::confirm,
        all_rules::status, all_rules::sync, all_rules::progress, all_rules::confirm,
        webhook::alert_rule, show
    ),
    components(schemas(rule_views::DiffView, all_rules::AllDiffs)),
    security(("bearer" = []))
)]
struct Description;

/// The description, as it is served.
pub(super) fn description() -> Value {
    let mut description = Description::openapi();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("a Supabase access token, a device key, or auth.admin_key"))
        .build();
    let webhook = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("rules.webhook_secret, which opens nothing else"))
        .build();
    let components = description.components.get_or_insert_default();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    components.add_security_scheme("webhook", SecurityScheme::Http(webhook));
    let header = ApiKey::Header(ApiKeyValue::new("X-Webhook-Secret"));
    components.add_security_scheme("webhook_header", SecurityScheme::ApiKey(header));
    serde_json::to_value(&description).unwrap_or_default()
}

/// This description.
#[utoipa::path(get, path = crate::route::admin::OPENAPI, tag = "about",
    responses((status = 200, body = serde_json::Value)))]
pub(super) async fn show(State(_): State<Arc<AdminContext>>) -> Result<Answer, AdminError> {
    Ok(Answer::ok(description()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::route::{Access, ROUTES, Surface};

    /// What is served and not described nobody finds; what is described and not served is a lie.
    #[test]
    fn every_admin_route_is_described_and_nothing_else() {
        let description = description();
        let paths = description["paths"].as_object().unwrap();
        let described: BTreeSet<(String, String)> = paths
            .iter()
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().unwrap().keys();
                methods.map(move |method| (method.to_uppercase(), path.clone()))
            })
            .collect();
        let served = ROUTES.iter().filter(|route| route.surface == Surface::Admin);
        let served: BTreeSet<(String, String)> = served
            .flat_map(|route| {
                route.methods.iter().map(|method| (method.to_string(), route.path.to_owned()))
            })
            .collect();
        assert_eq!(described, served);
    }

    #[test]
    fn every_parameter_of_a_path_and_every_reference_is_described() {
        let description = description();
        let text = description.to_string();
        for reference in text.split("\"#/components/").skip(1) {
            let pointer = format!("/components/{}", reference.split('"').next().unwrap());
            assert!(description.pointer(&pointer).is_some(), "{pointer}");
        }
        for route in ROUTES.iter().filter(|route| matches!(route.access, Access::Organisation)) {
            for method in route.methods {
                let operation = &description["paths"][route.path][method.as_str().to_lowercase()];
                let named = operation["parameters"].to_string();
                assert!(named.contains("\"organisation\""), "{method} {}", route.path);
            }
        }
    }
}
