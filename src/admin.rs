//! `/admin`: what we answer ourselves, on the public port, behind the same door as telemetry.
//!
//! Nothing here decides who may do what: a handler gets an [`AdminGrant`], and the organisation
//! that it acts on is the grant's. What goes wrong is an [`AdminError`], which `rejection` turns
//! into an answer.

mod all_rules;
mod audit;
mod device_keys;
mod error;
mod openapi;
mod revocations;
mod rule_views;
mod rules;
mod webhook;
mod whoami;
mod wire;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use crate::authn::Proof;
use crate::authz::{AdminGrant, Authorizer};
use crate::clock::Clock;
use crate::route::admin as path;
use crate::rules::{AdminExecutor, Reconciler};
use crate::store::Store;

pub use audit::Action;
pub use device_keys::{KeyRequest, Maker, create_key};
pub use error::AdminError;
pub use wire::{listed_key, time_text};

/// Serves `/admin`. One for the process.
pub struct Admin {
    router: Router,
}

/// What the handlers work with.
struct AdminContext {
    store: Option<Store>,
    rules: Option<Arc<AdminExecutor>>,
    authorizer: Arc<Authorizer>,
    clock: Clock,
}

/// What a handler acted on, for the audit.
#[derive(Clone, Debug)]
struct Target(String);

impl Admin {
    /// Makes the routes. Without a database there are no keys and no revocations, and where rules are
    /// not synced none of those either.
    pub fn new(
        store: Option<Store>,
        rules: Option<Arc<AdminExecutor>>,
        authorizer: Arc<Authorizer>,
        clock: Clock,
    ) -> Self {
        let parts = Arc::new(AdminContext { store, rules, authorizer, clock });
        let router = Router::new()
            .route(path::WHOAMI, get(whoami::show))
            .route(path::DEVICE_KEYS, get(device_keys::list).post(device_keys::create))
            .route(path::DEVICE_KEY, get(device_keys::show).delete(device_keys::revoke))
            .route(path::REVOCATIONS, post(revocations::add).get(revocations::list))
            .route(path::REVOCATION, axum::routing::delete(revocations::remove))
            .route(path::RULES, get(rules::list))
            .route(path::RULES_DIFF, get(rules::diff))
            .route(path::RULES_SYNC, post(rules::sync))
            .route(path::RULES_SYNC_PROGRESS, get(rules::progress))
            .route(path::RULES_CONFIRM, post(rules::confirm))
            .route(path::ALL_RULES_STATUS, get(all_rules::status))
            .route(path::ALL_RULES_SYNC, post(all_rules::sync))
            .route(path::ALL_RULES_SYNC_PROGRESS, get(all_rules::progress))
            .route(path::ALL_RULES_CONFIRM, post(all_rules::confirm))
            .route(path::ALERT_RULE_WEBHOOK, post(webhook::alert_rule))
            .route(path::OPENAPI, get(openapi::show))
            .with_state(parts);
        Self { router }
    }

    /// Serves one request. The identifier of what it acted on comes with the answer.
    pub async fn serve(
        &self,
        grant: AdminGrant,
        proof: Proof,
        request: Request<Bytes>,
    ) -> Result<(Response<Bytes>, Option<String>), AdminError> {
        let mut request = request.map(Body::from);
        request.extensions_mut().insert(grant);
        request.extensions_mut().insert(proof);
        let response = match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let (mut parts, body) = response.into_parts();
        if let Some(error) = parts.extensions.remove::<AdminError>() {
            return Err(error);
        }
        let target = parts.extensions.remove::<Target>().map(|Target(id)| id);
        // Answers are small and complete already.
        let body = body.collect().await.map_err(|_| AdminError::Broken)?.to_bytes();
        Ok((Response::from_parts(parts, body), target))
    }
}

impl AdminContext {
    fn store(&self) -> Result<&Store, AdminError> {
        self.store.as_ref().ok_or(AdminError::NoDatabase)
    }

    fn rules(&self) -> Result<&Reconciler, AdminError> {
        Ok(self.admin_executor()?.reconciler())
    }

    fn admin_executor(&self) -> Result<&AdminExecutor, AdminError> {
        self.rules.as_deref().ok_or(AdminError::NoRules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{ROUTES, Surface};

    /// A route in the table that nobody serves would be a 404 after authentication.
    #[tokio::test]
    async fn every_admin_route_of_the_table_is_served() {
        let config = crate::config::Config::read(
            "[auth]\nissuer = \"https://a.supabase.co/auth/v1\"\n[upstream]\nurls = [\"http://m\"]",
            &crate::config::Environment::default(),
        );
        let authorizer = Arc::new(Authorizer::new(config.unwrap().tenancy, None));
        let admin = Admin::new(None, None, authorizer, Clock::system());
        for route in ROUTES.iter().filter(|route| route.surface == Surface::Admin) {
            let path = route.path.replace("{organisation}", "a");
            let path = path.replace("{id}", "00000000-0000-0000-0000-000000000000");
            for method in route.methods {
                let request = Request::builder().method(method).uri(&path).body(Body::empty());
                let response = admin.router.clone().oneshot(request.unwrap()).await.unwrap();
                // Without a grant a handler that is there fails otherwise.
                let status = response.status().as_u16();
                assert!(![404, 405].contains(&status), "{method} {path}: {status}");
            }
        }
    }
}
