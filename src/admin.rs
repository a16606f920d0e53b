//! `/admin`: what we answer ourselves, on the public port, behind the same checks as telemetry.
//!
//! Nothing here decides who may do what. [`Admin::serve`] gets an endpoint with the grant of its kind,
//! and each handler takes the grant that it needs as a parameter: one that acts on all organisations
//! cannot be written without an [`OperatorGrant`](crate::authz::OperatorGrant). What goes wrong is an
//! [`AdminError`], which `rejection` turns into a response.
//!
//! An organisation's administrators may be hostile to other organisations. So their requests have slots, and a
//! database connection of their own: they delay no look-up, no operator and no revocation.

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

use crate::admin_executor::{AdminExecutor, OrganisationSlot, OrganisationSlots};
use crate::authn::{Identity, Principal, Proof};
use crate::authz::{AdminGrant, Authorizer, OrganisationGrant};
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
    /// For operators, for their services and for what revokes.
    store: Option<Store>,
    /// The same database for what organisations' administrators ask: what is asked here delays nothing there.
    lists: Option<Store>,
    slots: OrganisationSlots,
    /// For what `lists` answers, until the answer is sent.
    listing: OrganisationSlots,
    /// The same, until it has the answer.
    asking: OrganisationSlots,
    /// For what revokes. No list keeps it waiting.
    revoking: OrganisationSlots,
    rules: Option<Arc<AdminExecutor<Reconciler>>>,
    channels: Option<Arc<ChannelAdmin>>,
    authorizer: Arc<Authorizer>,
    refusals: Arc<Refusals>,
    system: System,
    clock: Clock,
}

/// Requests of organisations' administrators that are worked on at one time. Answers that are not read have the slots
/// of their own organisation alone, or a few organisations would keep all others from asking.
const SLOTS: usize = 64;
/// Those of one organisation: what a page asks for at once, beside a test of a channel that takes its time.
const OF_EACH: usize = 4;
/// Those of one organisation that the connection for lists answers. One more than it works on, so that an answer that
/// is not read keeps no list from the organisation's others.
const LISTS_OF_EACH: usize = 2;
/// Those of them that it works on. So another organisation's waits for one statement of each, which ends after
/// `database.query_timeout` (2 s), and would wait for the connection for longer (`database.connect_timeout`, 5 s).
const ASKED_OF_EACH: usize = 1;

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
        Self {
            lists: store.as_ref().map(Store::for_lists),
            store: store.as_ref().map(Store::for_operators),
            slots: OrganisationSlots::new(SLOTS, OF_EACH),
            listing: OrganisationSlots::new(SLOTS, LISTS_OF_EACH),
            asking: OrganisationSlots::new(SLOTS, ASKED_OF_EACH),
            revoking: OrganisationSlots::new(SLOTS, OF_EACH),
            rules,
            channels: None,
            authorizer,
            refusals: Arc::default(),
            system,
            clock,
        }
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
        self: &Arc<Self>,
        grant: AdminGrant,
        request: AdminRequest,
    ) -> Result<Answer, AdminError> {
        let (uri, body) = (&request.uri, &request.body);
        match grant {
            AdminGrant::Caller(endpoint, grant) => match endpoint {
                CallerEndpoint::Whoami => Ok(whoami::show(self, &grant, request.proof).await),
                CallerEndpoint::OpenApi => Ok(openapi::show(&grant)),
            },
            AdminGrant::Organisation(endpoint, grant) => {
                self.serve_organisation(endpoint, grant, request).await
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

    /// Serves an administrator of one organisation, when there is a slot.
    ///
    /// Work that has begun is finished even if its client goes away: the database would not stop, so a client that
    /// resets its requests could have any number of statements there. The slot is held until the work is done, and
    /// its organisation's part of it until the answer is sent.
    async fn serve_organisation(
        self: &Arc<Self>,
        endpoint: OrganisationEndpoint,
        grant: OrganisationGrant,
        request: AdminRequest,
    ) -> Result<Answer, AdminError> {
        let slot = self.slot(endpoint, &grant).await?;
        let asking = match slot {
            Some(_) if is_listed(endpoint) => Some(self.asking.take(grant.organisation()).await?),
            _ => None,
        };
        let admin = Arc::clone(self);
        let work = tokio::spawn(async move {
            let answer = admin.for_organisation(endpoint, &grant, &request).await;
            drop(asking);
            // An answer that is not read holds its organisation's slot alone; that of a revocation is short and holds
            // none.
            let slot = slot.filter(|_| endpoint != OrganisationEndpoint::RevokeDeviceKey);
            answer.map(|answer| answer.holding(slot.map(OrganisationSlot::of_its_own)))
        });
        work.await.unwrap_or(Err(AdminError::Internal))
    }

    /// None for the operator's services, which must not wait for whom they act against.
    async fn slot(
        &self,
        endpoint: OrganisationEndpoint,
        grant: &OrganisationGrant,
    ) -> Result<Option<OrganisationSlot>, AdminError> {
        if is_service(grant) {
            return Ok(None);
        }
        let slots = match endpoint {
            OrganisationEndpoint::RevokeDeviceKey => &self.revoking,
            endpoint if is_listed(endpoint) => &self.listing,
            _ => &self.slots,
        };
        Ok(Some(slots.take(grant.organisation()).await?))
    }

    async fn for_organisation(
        &self,
        endpoint: OrganisationEndpoint,
        grant: &OrganisationGrant,
        request: &AdminRequest,
    ) -> Result<Answer, AdminError> {
        use OrganisationEndpoint as E;
        let (uri, body) = (&request.uri, &request.body);
        match endpoint {
            E::ListDeviceKeys => device_keys::list(self, grant, uri).await,
            E::CreateDeviceKey => device_keys::create(self, grant, body).await,
            E::ShowDeviceKey => device_keys::show(self, grant, request.id()?).await,
            E::RevokeDeviceKey => device_keys::revoke(self, grant, request.id()?).await,
            E::ListRules => rules::list(self, grant).await,
            E::DiffRules => rules::diff(self, grant).await,
            E::SyncRules => rules::sync(self, grant, uri).await,
            E::SyncProgress => rules::progress(self, grant, request.id()?).await,
            E::ConfirmDeletion => rules::confirm(self, grant, body).await,
            E::ListChannels => channels::list(self, grant).await,
            E::DiffChannels => channels::diff(self, grant).await,
            E::SyncChannels => channels::sync(self, grant).await,
            E::TestChannel => channels::test(self, grant, request.id()?).await,
            E::ConfirmChannels => channels::confirm(self, grant, body).await,
            E::ListMembers => organisations::members(self, grant, uri).await,
            E::ShowLimits => limits::show(self, grant).await,
        }
    }

    fn store(&self) -> Result<&Store, AdminError> {
        self.store.as_ref().ok_or(AdminError::NoDatabase)
    }

    /// For what is asked about one organisation.
    fn store_for(&self, grant: &OrganisationGrant) -> Result<&Store, AdminError> {
        let store = if is_service(grant) { &self.store } else { &self.lists };
        store.as_ref().ok_or(AdminError::NoDatabase)
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

/// Whether the caller is one of the operator's services.
fn is_service(grant: &OrganisationGrant) -> bool {
    matches!(grant.principal().identity(), Identity::Service(_))
}

/// Whether the connection for lists answers it, unless a service asks.
fn is_listed(endpoint: OrganisationEndpoint) -> bool {
    use OrganisationEndpoint as E;
    matches!(
        endpoint,
        E::ListDeviceKeys | E::CreateDeviceKey | E::ShowDeviceKey | E::ListMembers | E::ShowLimits
    )
}

/// The name under which a change is recorded.
fn recorded_name(principal: &Principal) -> String {
    format!("{} {}", principal.kind(), principal.id())
}
