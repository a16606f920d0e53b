//! Requests that create, change or expire a silence. The proxy sets the author and writes the audit log.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body_util::BodyExt as _;

use super::{Pipeline, failed};
use crate::admin::Action;
use crate::authn::{Identity, Principal};
use crate::edge::RequestId;
use crate::forward::{ForwardError, Forwarded, ResponseBody};
use crate::limits::Permit;
use crate::mimir::silence::{Silence, SilenceFault};
use crate::record::Record;
use crate::rejection::Rejection;
use crate::request_body::RequestBody;
use crate::route::{BodyPolicy, Route};

/// A request that changes a silence, without its head and body.
pub(super) struct SilenceChange<'a> {
    pub(super) id: &'a RequestId,
    pub(super) client: IpAddr,
    pub(super) route: &'static Route,
    pub(super) permit: Permit,
    pub(super) record: &'a mut Record,
}

/// `{"silenceID":"…"}`
const ANSWER_BYTES: usize = 1 << 10;

impl Pipeline {
    /// Serves a request that changes a silence, and writes what became of it to the audit log.
    pub(super) async fn change_silence(
        &self,
        change: SilenceChange<'_>,
        request: Request<RequestBody>,
    ) -> Result<Forwarded, Rejection> {
        let SilenceChange { id, client, route, permit, record } = change;
        let grant = permit.grant();
        let organisation = grant.organisations().first().cloned();
        let mut action =
            self.audit.begin(id, client, grant.principal(), request.method(), route, organisation);
        action.set_target(route.silence_in(request.uri().path()).map(str::to_owned));
        let done = self.forward_silence(route, permit, (id, record), request, &mut action).await;
        match &done {
            Ok((forwarded, made)) if forwarded.response.status().is_success() => {
                action.done(made.clone());
            }
            Ok(_) => action.refused_by_mimir(),
            Err(rejection) => action.refused(rejection.reason()),
        }
        done.map(|(forwarded, _)| forwarded)
    }

    /// Mimir's answer, and the silence that it names.
    async fn forward_silence(
        &self,
        route: &'static Route,
        permit: Permit,
        (id, record): (&RequestId, &mut Record),
        request: Request<RequestBody>,
        action: &mut Action,
    ) -> Result<(Forwarded, Option<String>), Rejection> {
        let (mut parts, mut body) = request.into_parts();
        if route.body == BodyPolicy::Silence {
            check_type(&parts.headers)?;
            let silence = Silence::parse(&body.collect().await?.to_bytes())?;
            action
                .set_end(silence.ends_at().filter(|end| end.len() <= LONGEST_TIME).map(Into::into));
            let written = Bytes::from(silence.by(&author(permit.grant().principal())));
            // The new body has a length of its own.
            parts.headers.remove(header::CONTENT_LENGTH);
            body = RequestBody::replaced(written, self.body_limits(route));
        }
        let request = Request::from_parts(parts, body);
        let forwarded = self.forwarder.forward(permit, id, record.span(), request).await;
        let mut forwarded = forwarded.map_err(|failure| failed(failure, record))?;
        let made = if route.body == BodyPolicy::Silence {
            silence_of(&mut forwarded.response).await?
        } else {
            None
        };
        Ok((forwarded, made))
    }
}

/// No time that Mimir accepts is longer.
const LONGEST_TIME: usize = 64;

/// Alertmanager accepts JSON without an encoding.
fn check_type(headers: &HeaderMap) -> Result<(), SilenceFault> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let is_json = match (types.next(), types.next()) {
        (Some(one), None) => {
            let essence = one.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
            essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
        }
        _ => false,
    };
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    let is_plain = encodings.all(|one| one.as_bytes().eq_ignore_ascii_case(b"identity"));
    if is_json && is_plain { Ok(()) } else { Err(SilenceFault::ContentType) }
}

/// What others see as the author: a user's e-mail address if the token has one, else the user's
/// identifier. Devices cannot have the scope; the match is complete anyway.
fn author(principal: &Principal) -> String {
    match principal.identity() {
        Identity::User(user) => user.email().map_or_else(|| user.id().to_string(), str::to_owned),
        Identity::Device(device) => device.name().to_owned(),
        Identity::Service(service) => service.name().to_owned(),
    }
}

/// The identifier of the silence in Mimir's answer. The client still gets the whole answer.
async fn silence_of(response: &mut Response<ResponseBody>) -> Result<Option<String>, ForwardError> {
    if !response.status().is_success() {
        return Ok(None);
    }
    let answer = response.body_mut().peek(ANSWER_BYTES).await?;
    let answer = serde_json::from_slice::<serde_json::Value>(answer).ok();
    let id = answer.as_ref().and_then(|answer| answer.get("silenceID")?.as_str());
    Ok(id.and_then(|id| uuid::Uuid::try_parse(id).ok()).map(|id| id.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::samples::{device, principal, user};
    use crate::authn::{Identity, Service};
    use crate::tenancy::Scopes;
    use http::{HeaderName, HeaderValue};

    #[test]
    fn the_author_is_who_calls() {
        let of = |identity| author(&principal(identity));
        assert_eq!(of(Identity::User(user())), "alice@example.com");
        assert_eq!(of(Identity::Device(device("a", Scopes::default()))), "hub");
        assert_eq!(of(Identity::Service(Service::AdminKey)), "admin_key");
    }

    fn accepts(headers: &[(&'static str, &'static str)]) -> bool {
        let header = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers.iter().map(header) {
            map.append(name, value);
        }
        check_type(&map).is_ok()
    }

    #[test]
    fn a_silence_is_plain_json() {
        let json = ("content-type", "application/json");
        assert!(accepts(&[json]));
        assert!(accepts(&[("content-type", "Application/JSON; charset=utf-8")]));
        assert!(accepts(&[json, ("content-encoding", "identity")]));
        assert!(!accepts(&[]));
        assert!(!accepts(&[json, json]));
        assert!(!accepts(&[("content-type", "text/plain")]));
        assert!(!accepts(&[("content-type", "application/jsonp")]));
        assert!(!accepts(&[json, ("content-encoding", "gzip")]));
    }
}
