//! The facts of one request, as they are known so far, and how it ended. Plain data:
//! [`super::Record`] fills it in, the access log writes it down.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Uri, Version};

use crate::authn::{Known, Principal, PrincipalId};
use crate::authz::Grant;
use crate::edge::RequestId;
use crate::reason::{Class, Reason, Sampled};
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
    /// The instance that answered, or was asked last.
    pub(super) upstream: Option<SocketAddr>,
    /// Time to the head of the upstream's response.
    pub(super) upstream_head: Option<Duration>,
    pub(super) status: u16,
    pub(super) outcome: RequestOutcome,
    /// What the log says beyond the reason.
    pub(super) detail: Option<String>,
    pub(super) sent: u64,
    pub(super) received: Option<ReceivedBytes>,
    /// The trace, if it is recorded.
    pub(super) trace: Option<u128>,
}

impl Facts {
    pub(super) fn received_bytes(&self) -> u64 {
        self.received.as_ref().map_or(0, ReceivedBytes::get)
    }

    /// The kind and identifier of who called, or of whose genuine credential was refused.
    pub(super) fn caller(&self) -> Option<(&'static str, PrincipalId)> {
        let principal = self.principal.as_ref().map(|known| (known.kind(), known.id()));
        principal.or_else(|| self.refused.map(|known| (known.kind, known.id)))
    }

    /// Which kind of requests it shares lines with, if anybody could make as many as they like.
    pub(super) fn sampled(&self) -> Option<Sampled> {
        match self.outcome {
            RequestOutcome::Unserved(reason) => Some(Sampled::Unserved(reason)),
            RequestOutcome::Forwarded => None,
            RequestOutcome::Answered | RequestOutcome::Cancelled => {
                self.caller().is_none().then_some(Sampled::UnknownCaller)
            }
        }
    }

    /// The organisations that were granted with `|` between them, or that of the path.
    pub(super) fn organisations(&self) -> Option<String> {
        if let Some(organisation) = &self.organisation {
            return Some(organisation.as_str().to_owned());
        }
        let organisations = self.grant.as_ref()?.organisations().iter();
        Some(organisations.map(OrganisationId::as_str).collect::<Vec<_>>().join("|"))
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// Mimir's response was passed on.
    Forwarded,
    /// The proxy answered by itself.
    Answered,
    /// Rejected or failed, as the reason says.
    Unserved(Reason),
    /// The client went away before the end.
    Cancelled,
}

impl RequestOutcome {
    /// The label of metrics and the field of the log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Answered => "answered",
            Self::Unserved(reason) => reason.class().into(),
            Self::Cancelled => "cancelled",
        }
    }

    pub(super) fn reason(self) -> Option<Reason> {
        match self {
            Self::Unserved(reason) => Some(reason),
            Self::Forwarded | Self::Answered | Self::Cancelled => None,
        }
    }

    /// Whether somebody should look.
    pub(super) fn is_failure(self) -> bool {
        self.reason().is_some_and(|reason| reason.class() == Class::Failed)
    }
}
