//! `/admin`: what we answer ourselves, on the public port, behind the same checks as telemetry.
//!
//! Nothing here decides who may do what. [`Admin::serve`] gets an endpoint with the grant of its kind,
//! and each handler takes the grant that it needs as a parameter: one that acts on all organisations
//! cannot be written without an [`OperatorGrant`](crate::authz::OperatorGrant). What goes wrong is an
//! [`AdminError`], which `rejection` turns into a response.

mod all_rules;
mod answer;
mod audit;
mod body;
mod channel_views;
mod channels;
mod device_keys;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod limits;
mod openapi;
mod organisations;
mod paging;
mod refusals;
mod revocations;
mod rule_views;
mod rules;
mod system;
mod webhook;
mod whoami;

use std::sync::Arc;

use bytes::Bytes;
use http::Uri;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::admin_executor::AdminExecutor;
use crate::authn::{Principal, Proof};
use crate::authz::{AdminGrant, Authorizer};
use crate::channels::ChannelAdmin;
use crate::clock::Clock;
use crate::refusals::Refusals;
use crate::route::{
    CallerEndpoint, OperatorEndpoint, OrganisationEndpoint, Route, WebhookEndpoint,
};
use crate::rules::Reconciler;
use crate::store::Store;

pub use answer::Answer;
pub use audit::{Action, Audit};
pub use error::AdminError;
pub use system::{ConfigState, Reloads, System};

/// Serves `/admin`. One for the process.
pub struct Admin {
    store: Option<Store>,
    rules: Option<Arc<AdminExecutor<Reconciler>>>,
    channels: Option<Arc<ChannelAdmin>>,
    authorizer: Arc<Authorizer>,
    refusals: Arc<Refusals>,
    system: System,
    clock: Clock,
}

/// What an endpoint may use of a request. No header of the client's gets here.
pub struct AdminRequest {
    /// The route, whose path says where the identifier is.
    pub route: &'static Route,
    /// The path and the query string.
    pub uri: Uri,
    /// The whole body.
    pub body: Bytes,
    /// How the caller's credential was verified.
    pub proof: Proof,
}

impl Admin {
    /// `store` is none without a database, and `rules` where alert rules are not synced: the endpoints
    /// that need them then answer that they are not available.
    pub fn new(
        store: Option<Store>,
        rules: Option<Arc<AdminExecutor<Reconciler>>>,
        authorizer: Arc<Authorizer>,
        system: System,
        clock: Clock,
    ) -> Self {
        Self { store, rules, channels: None, authorizer, refusals: Arc::default(), system, clock }
    }

    /// Shows these refusals.
    #[must_use]
    pub fn with_refusals(self, refusals: Arc<Refusals>) -> Self {
        Self { refusals, ..self }
    }

    /// Serves the endpoints of notification channels, too.
    #[must_use]
    pub fn with_channels(self, channels: Option<Arc<ChannelAdmin>>) -> Self {
        Self { channels, ..self }
    }

    /// Serves one request.
    pub async fn serve(
        &self,
        grant: AdminGrant,
        request: &AdminRequest,
    ) -> Result<Answer, AdminError> {
        let (uri, body) = (&request.uri, &request.body);
        match grant {
            AdminGrant::Caller(endpoint, grant) => match endpoint {
                CallerEndpoint::Whoami => Ok(whoami::show(self, &grant, request.proof).await),
                CallerEndpoint::OpenApi => Ok(openapi::show(&grant)),
            },
            AdminGrant::Organisation(endpoint, grant) => {
                use OrganisationEndpoint as E;
                match endpoint {
                    E::ListDeviceKeys => device_keys::list(self, &grant).await,
                    E::CreateDeviceKey => device_keys::create(self, &grant, body).await,
                    E::ShowDeviceKey => device_keys::show(self, &grant, request.id()?).await,
                    E::RevokeDeviceKey => device_keys::revoke(self, &grant, request.id()?).await,
                    E::ListRules => rules::list(self, &grant).await,
                    E::DiffRules => rules::diff(self, &grant).await,
                    E::SyncRules => rules::sync(self, &grant, uri).await,
                    E::SyncProgress => rules::progress(self, &grant, request.id()?).await,
                    E::ConfirmDeletion => rules::confirm(self, &grant, body).await,
                    E::ListChannels => channels::list(self, &grant).await,
                    E::DiffChannels => channels::diff(self, &grant).await,
                    E::SyncChannels => channels::sync(self, &grant).await,
                    E::TestChannel => channels::test(self, &grant, request.id()?).await,
                    E::ConfirmChannels => channels::confirm(self, &grant, body).await,
                    E::ListMembers => organisations::members(self, &grant, uri).await,
                    E::ShowLimits => limits::show(self, &grant).await,
                }
            }
            AdminGrant::Operator(endpoint, grant) => {
                use OperatorEndpoint as E;
                match endpoint {
                    E::ListRevocations => revocations::list(self, &grant).await,
                    E::AddRevocation => revocations::add(self, &grant, body).await,
                    E::RemoveRevocation => revocations::remove(self, &grant, request.id()?).await,
                    E::RulesStatus => all_rules::status(self, &grant).await,
                    E::SyncAllRules => all_rules::sync(self, &grant, uri).await,
                    E::SyncAllProgress => all_rules::progress(self, &grant, request.id()?).await,
                    E::ConfirmAllDeletions => all_rules::confirm(self, &grant, body).await,
                    E::ChannelsStatus => channels::status(self, &grant).await,
                    E::ListRefusals => refusals::list(self, &grant, uri),
                    E::ListOrganisations => organisations::list(self, &grant, uri).await,
                    E::ShowStatus => Ok(system::status(self, &grant).await),
                    E::ListUpstreams => Ok(system::upstreams(self, &grant)),
                    E::ShowKeys => Ok(system::keys(self, &grant)),
                    E::ListLimits => limits::list(self, &grant, uri),
                    E::ShowConfig => Ok(system::config(self, &grant)),
                }
            }
            AdminGrant::Webhook(endpoint, grant) => match endpoint {
                WebhookEndpoint::AlertRuleChanged => webhook::alert_rule(self, &grant, body).await,
            },
        }
    }

    fn store(&self) -> Result<&Store, AdminError> {
        self.store.as_ref().ok_or(AdminError::NoDatabase)
    }

    fn rules(&self) -> Result<&Reconciler, AdminError> {
        Ok(self.admin_executor()?.reconciler())
    }

    fn admin_executor(&self) -> Result<&AdminExecutor<Reconciler>, AdminError> {
        self.rules.as_deref().ok_or(AdminError::NoRules)
    }

    fn channels(&self) -> Result<&ChannelAdmin, AdminError> {
        self.channels.as_deref().ok_or(AdminError::NoChannels)
    }

    fn now(&self) -> OffsetDateTime {
        self.clock.utc()
    }
}

impl AdminRequest {
    /// The identifier in the path. Routes without one have no endpoint that asks for it.
    fn id(&self) -> Result<Uuid, AdminError> {
        self.route.id_in(self.uri.path()).ok_or(AdminError::Missing("identifier"))
    }
}

/// The name under which a change is recorded.
fn recorded_name(principal: &Principal) -> String {
    format!("{} {}", principal.kind(), principal.id())
}
