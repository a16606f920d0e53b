use super::*;
use crate::authn::{CredentialFault, TokenFault};
use crate::authn::{DeviceKeyFault, RevokedUser};
use crate::authz::SelectorFault;
use crate::tenancy::{DeviceId, UserId};
use crate::tenancy::{OrganisationId, Scope};

fn every_kind() -> Vec<Rejection> {
    let device = DeviceId(uuid::Uuid::nil());
    let retry_after = Duration::from_secs(7);
    vec![
        Rejection::Route(Unroutable::Path),
        Rejection::Route(Unroutable::Form),
        Rejection::Route(Unroutable::Semicolon),
        Rejection::Route(Unroutable::Method(&crate::route::ROUTES[0])),
        Rejection::HeadTooLarge,
        Rejection::UnexpectedBody,
        Rejection::Body(BodyFault::TooLarge { limit: 1 }),
        Rejection::Body(BodyFault::Slow),
        Rejection::Failed(Failure::Body(BodyFault::Incomplete)),
        Rejection::Credential(Refusal::Credential(CredentialFault::Missing)),
        Rejection::Credential(Refusal::Credential(CredentialFault::Several)),
        Rejection::Credential(Refusal::Token(TokenFault::Signature)),
        Rejection::Credential(Refusal::Token(TokenFault::Expired { seconds: 3 })),
        Rejection::Credential(Refusal::KeysUnavailable { retry_after }),
        Rejection::Origin("https://evil.example".to_owned()),
        Rejection::Credential(Refusal::DatabaseUnavailable),
        Rejection::Credential(Refusal::SessionEnded),
        Rejection::Credential(Refusal::Revoked(RevokedUser {
            user: UserId(uuid::Uuid::nil()),
            until_issued: false,
        })),
        Rejection::Credential(Refusal::DeviceKey(DeviceKeyFault::Form)),
        Rejection::Credential(Refusal::DeviceKey(DeviceKeyFault::Unknown)),
        Rejection::Credential(Refusal::DeviceKey(DeviceKeyFault::Revoked(device))),
        Rejection::Credential(Refusal::DeviceKey(DeviceKeyFault::Expired { device, seconds: 1 })),
        Rejection::Credential(Refusal::DeviceKey(DeviceKeyFault::Off)),
        Rejection::Denied(Denial::Selector(SelectorFault::Several), None),
        Rejection::Denied(
            Denial::NameOne(vec![OrganisationId::parse("org-a").unwrap()]),
            Some("org-b".to_owned()),
        ),
        Rejection::Denied(Denial::NotAMember, Some("org-b".to_owned())),
        Rejection::Denied(Denial::Scope(Scope::MetricsWrite, None), None),
        Rejection::Denied(Denial::ServiceOnly, None),
        Rejection::Denied(Denial::NameAny, None),
        Rejection::Denied(Denial::Unavailable, None),
        Rejection::Admin(AdminError::Request("x".to_owned())),
        Rejection::Admin(AdminError::Missing("device key")),
        Rejection::Admin(AdminError::NoDatabase),
        Rejection::Admin(AdminError::Store(StoreError::Unavailable("10.0.0.7 refused".to_owned()))),
        Rejection::Admin(AdminError::Store(StoreError::Missing("organisation"))),
        Rejection::Admin(AdminError::Store(StoreError::Elsewhere("device_key"))),
        Rejection::Admin(AdminError::Store(StoreError::Full(1))),
        Rejection::Admin(AdminError::Broken),
        Rejection::Failed(Failure::NoInstance),
        Rejection::Failed(Failure::Connect(std::io::Error::other("10.0.0.7:8080 refused"))),
        Rejection::Failed(Failure::CircuitOpen),
        Rejection::Failed(Failure::Saturated),
        Rejection::Failed(Failure::Timeout),
    ]
}

fn answer(rejection: &Rejection, audience: Audience) -> Response<Full<Bytes>> {
    rejection.response(audience, &RequestId::of(&http::HeaderMap::new()))
}

fn text(response: Response<Full<Bytes>>) -> String {
    let mut body = response.into_body();
    let frame = std::pin::pin!(http_body_util::BodyExt::frame(&mut body));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(Some(Ok(frame))) = Future::poll(frame, &mut cx) else {
        panic!("a body of ours is there at once")
    };
    String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
}

#[test]
fn what_is_ours_to_blame_is_a_5xx_with_retry_after() {
    for rejection in every_kind() {
        let response = answer(&rejection, Audience::Sender);
        let is_5xx = response.status().is_server_error();
        assert_eq!(response.headers().contains_key("retry-after"), is_5xx, "{rejection:?}");
        // A 5xx that only keeps the sender from dropping what it has is nobody's failure.
        let is_kept = matches!(
            rejection,
            Rejection::Limited(_) | Rejection::Body(_) | Rejection::Failed(Failure::Body(_))
        );
        let is_failed = matches!(rejection.outcome(), Outcome::Failed(_));
        assert_eq!(is_failed, is_5xx && !is_kept, "{rejection:?}");
        assert!(response.headers().contains_key("x-request-id"));
    }
}

// What an organisation asks for above its limits is told to come again, and wakes nobody.
#[test]
fn a_limits_503_is_no_failure_of_ours() {
    for surface in [Surface::Push, Surface::Otlp] {
        let rejection = Rejection::Limited(Excess::InFlight { surface });
        assert_eq!(rejection.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(matches!(rejection.outcome(), Outcome::Rejected("requests_in_flight")));
    }
    let all = Rejection::Limited(Excess::All);
    assert_eq!(all.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(matches!(all.outcome(), Outcome::Rejected("overloaded")));
}

#[test]
fn every_reason_is_counted() {
    for rejection in every_kind() {
        let reasons: &[&str] = match rejection.outcome() {
            Outcome::Failed(_) => &Rejection::FAILURE_REASONS,
            _ => &Rejection::REJECTION_REASONS,
        };
        assert!(reasons.contains(&rejection.reason()), "{} is not registered", rejection.reason());
    }
}

#[test]
fn readers_get_json_and_senders_plain_text() {
    for rejection in every_kind() {
        let json: serde_json::Value =
            serde_json::from_str(&text(answer(&rejection, Audience::Reader))).unwrap();
        assert_eq!(json["status"], "error");
        let plain = text(answer(&rejection, Audience::Sender));
        assert_eq!(plain.trim_end(), json["error"].as_str().unwrap());
    }
}

#[test]
fn a_401_has_a_challenge() {
    for rejection in every_kind() {
        let response = answer(&rejection, Audience::Reader);
        let is_401 = response.status() == StatusCode::UNAUTHORIZED;
        assert_eq!(response.headers().contains_key("www-authenticate"), is_401, "{rejection:?}");
    }
}

#[test]
fn addresses_of_mimir_stay_inside() {
    for rejection in every_kind() {
        assert!(!text(answer(&rejection, Audience::Sender)).contains("10.0.0.7"));
    }
}

// A fleet that is sent away at one time must not come back at one time.
#[test]
fn retry_after_is_spread_in_whole_seconds() {
    let rejection = Rejection::Failed(Failure::CircuitOpen);
    let seconds: std::collections::BTreeSet<u64> = (0..200)
        .map(|_| {
            let response = answer(&rejection, Audience::Sender);
            response.headers()["retry-after"].to_str().unwrap().parse().unwrap()
        })
        .collect();
    assert!(seconds.iter().all(|seconds| (5..=15).contains(seconds)), "{seconds:?}");
    assert!(seconds.len() > 5, "{seconds:?}");
}
