//! The endpoints of `/admin`: the one declaration of each.
//!
//! An endpoint belongs to the kind of grant that it takes, and its handler takes that grant as a
//! parameter. To move an endpoint to another kind by mistake does not compile: the dispatch in
//! `admin` would call its handler with a grant of the wrong type.

use super::{Access, Route, table};

/// Declares the endpoints, their paths and their routes. The comment of an endpoint is its summary in
/// the `OpenAPI` document.
macro_rules! endpoints {
    ($(
        $(#[doc = $about:literal])+
        $kind:ident($name:ident) {
            $( #[doc = $summary:literal] $variant:ident = $row:ident($path:literal), )+
        }
    )+) => {
        /// An endpoint of `/admin`, by the kind of grant that it takes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum AdminEndpoint {
            $( $(#[doc = $about])+ $kind($name), )+
        }

        $(
            $(#[doc = $about])+
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum $name {
                $( #[doc = $summary] $variant, )+
            }
        )+

        impl AdminEndpoint {
            /// The path, as the route has it.
            pub const fn path(self) -> &'static str {
                match self {
                    $( $( Self::$kind($name::$variant) => $path, )+ )+
                }
            }

            /// The name in the `OpenAPI` document.
            pub const fn name(self) -> &'static str {
                match self {
                    $( $( Self::$kind($name::$variant) => stringify!($variant), )+ )+
                }
            }

            /// What the endpoint does, in a sentence or two.
            pub const fn summary(self) -> &'static str {
                match self {
                    $( $( Self::$kind($name::$variant) => $summary.trim_ascii(), )+ )+
                }
            }
        }

        pub(super) const ENDPOINT_ROUTES: &[Route] = &[
            $( $( table::$row($path, Access::Admin(AdminEndpoint::$kind($name::$variant))), )+ )+
        ];
    };
}

endpoints! {
    /// For every known caller: what concerns the caller alone.
    Caller(CallerEndpoint) {
        /// Who the caller is, in which organisations, and how that is known.
        Whoami = admin_get("/admin/whoami"),
        /// This document.
        OpenApi = admin_get("/admin/openapi.json"),
    }

    /// For administrators of the organisation that the path names.
    Organisation(OrganisationEndpoint) {
        /// Lists the device keys of the organisation.
        ListDeviceKeys = admin_get("/admin/organisations/{organisation}/device-keys"),
        /// Creates a device key. The key itself is in this answer only.
        CreateDeviceKey = admin_post("/admin/organisations/{organisation}/device-keys"),
        /// Shows one device key.
        ShowDeviceKey = admin_get("/admin/organisations/{organisation}/device-keys/{id}"),
        /// Revokes a device key. No copy accepts it for longer than a second.
        RevokeDeviceKey = admin_delete("/admin/organisations/{organisation}/device-keys/{id}"),
        /// Lists the organisation's alert rules with the status of each.
        ListRules = admin_get("/admin/organisations/{organisation}/rules"),
        /// Shows what a sync would change now.
        DiffRules = admin_get("/admin/organisations/{organisation}/rules/diff"),
        /// Syncs the organisation's rules now. With `?dry_run=true` it only shows what would change.
        SyncRules = admin_post_empty("/admin/organisations/{organisation}/rules/sync"),
        /// Shows the progress of a sync of the organisation's rules.
        SyncProgress = admin_get("/admin/organisations/{organisation}/rules/sync/{id}"),
        /// Confirms a deletion that the deletion guard holds back.
        ConfirmDeletion = admin_post("/admin/organisations/{organisation}/rules/guard/confirm"),
        /// Lists the organisation's notification channels and routes with the status of each.
        ListChannels = admin_get("/admin/organisations/{organisation}/channels"),
        /// Shows what a sync of the channels would change now, without secrets.
        DiffChannels = admin_get("/admin/organisations/{organisation}/channels/diff"),
        /// Syncs the organisation's channels and routes now.
        SyncChannels = admin_post_empty("/admin/organisations/{organisation}/channels/sync"),
        /// Sends a test to a channel, and says what became of it.
        TestChannel = admin_post_empty("/admin/organisations/{organisation}/channels/{id}/test"),
        /// Confirms a write of the channels that the deletion guard holds back.
        ConfirmChannels = admin_post("/admin/organisations/{organisation}/channels/guard/confirm"),
        /// Lists the organisation's members with their roles and scopes, as far as the proxy knows them.
        ListMembers = admin_get("/admin/organisations/{organisation}/members"),
        /// Shows the organisation's limits on this copy, and which of them have refused its requests.
        ShowLimits = admin_get("/admin/organisations/{organisation}/limits"),
    }

    /// For the operator's services: what concerns all organisations.
    Operator(OperatorEndpoint) {
        /// Lists the revocations in force, the newest first.
        ListRevocations = admin_get("/admin/revocations"),
        /// Revokes a session, a token or all tokens of a user.
        AddRevocation = admin_post("/admin/revocations"),
        /// Removes a revocation.
        RemoveRevocation = admin_delete("/admin/revocations/{id}"),
        /// Shows the leader, the sync of each organisation and the deletions that are held back.
        RulesStatus = admin_get("/admin/rules/status"),
        /// Syncs the rules of all organisations now. With `?dry_run=true` it only shows what would change.
        SyncAllRules = admin_post_empty("/admin/rules/sync"),
        /// Shows the progress of a sync of all organisations' rules.
        SyncAllProgress = admin_get("/admin/rules/sync/{id}"),
        /// Confirms a deletion in many organisations that the deletion guard holds back.
        ConfirmAllDeletions = admin_post("/admin/rules/guard/confirm"),
        /// Shows the sync of each organisation's channels, and what is held back.
        ChannelsStatus = admin_get("/admin/channels/status"),
        /// Lists the most recent requests that this copy did not serve, the newest first.
        ListRefusals = admin_get("/admin/refusals"),
        /// Lists all organisations with counts of rules, channels, devices and members, page by page.
        ListOrganisations = admin_get("/admin/organisations"),
        /// Shows how this copy is: build, traffic of the last minutes, key set, instances, database, leader.
        ShowStatus = admin_get("/admin/status"),
        /// Shows Mimir's instances and the health of each, as this copy sees them.
        ListUpstreams = admin_get("/admin/upstreams"),
        /// Shows the issuer's key set: its age, its keys, the next fetch and the last error.
        ShowKeys = admin_get("/admin/keys"),
        /// Shows the limits on this copy, and the organisations that they have refused.
        ListLimits = admin_get("/admin/limits"),
        /// Shows the configuration that runs. A secret is only said to be set.
        ShowConfig = admin_get("/admin/config"),
    }

    /// For the database's webhooks, with a secret that opens nothing else.
    Webhook(WebhookEndpoint) {
        /// Takes a notification of Supabase's database webhooks: a row of `alert_rule` has changed.
        AlertRuleChanged = webhook("/admin/webhooks/alert-rule"),
    }
}
