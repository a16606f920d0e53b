//! The facts of one request, as they are known so far. Plain data: [`super::Record`] fills it in,
//! the access log writes it down.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Uri, Version};

use super::RequestOutcome;
use crate::authn::{Known, Principal};
use crate::authz::Grant;
use crate::edge::RequestId;
use crate::request_body::ReceivedBytes;
use crate::route::Route;
use crate::tenancy::OrganisationId;

pub(super) struct Facts {
    pub(super) id: RequestId,
    pub(super) client: IpAddr,
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) version: Version,
    pub(super) route: Option<&'static Route>,
    pub(super) principal: Option<Arc<Principal>>,
    /// Whose credential was refused, if that is certain.
    pub(super) refused: Option<Known>,
    /// What `X-Scope-OrgID` names and was not granted.
    pub(super) asked: Option<String>,
    pub(super) grant: Option<Grant>,
    /// The organisation that an administrator's request is about.
    pub(super) organisation: Option<OrganisationId>,
    pub(super) upstream: Option<SocketAddr>,
    /// Time to the head of the upstream's response.
    pub(super) upstream_head: Option<Duration>,
    pub(super) status: u16,
    pub(super) outcome: RequestOutcome,
    /// What the log says beyond the reason.
    pub(super) detail: Option<String>,
    pub(super) sent: u64,
    pub(super) received: Option<ReceivedBytes>,
}

impl Facts {
    pub(super) fn received_bytes(&self) -> u64 {
        self.received.as_ref().map_or(0, ReceivedBytes::get)
    }
}
