use std::collections::BTreeSet;
use std::fmt::Write as _;

use strum::{EnumMessage as _, VariantArray as _};

use super::*;
use crate::authn::{CredentialFault, Times, TokenFault};
use crate::authn::{DeviceKeyFault, RevokedUser};
use crate::authz::SelectorFault;
use crate::forward::AlertmanagerState;
use crate::limits::Whose;
use crate::reason::Class;
use crate::store::StoreError;
use crate::tenancy::{DeviceId, UserId};
use crate::tenancy::{OrganisationId, Scope, TenantIdError};

/// Rejections of all statuses; [`Reason`] has the list of all reasons.
fn samples() -> Vec<Rejection> {
    let mut all = samples_of_callers();
    let (whose, retry_after) = (Whose::Organisation, Duration::from_secs(7));
    all.extend([
        Rejection::Route(RouteError::Path(None)),
        Rejection::Route(RouteError::Form),
        Rejection::Route(RouteError::Semicolon),
        Rejection::Route(RouteError::Name(&route::ROUTES[0])),
        Rejection::Route(RouteError::Write),
        Rejection::Route(RouteError::Host),
        Rejection::Route(RouteError::TransferCoding),
        Rejection::Route(RouteError::Method(&route::ROUTES[0])),
        Rejection::HeadTooLarge,
        Rejection::UnexpectedBody,
        Rejection::Body(BodyError::TooLarge { limit: 1 }),
        Rejection::Body(BodyError::Slow),
        Rejection::Body(BodyError::Incomplete),
        Rejection::Body(BodyError::Malformed),
        ForwardError::Body(BodyError::Slow).into(),
        ForwardError::Body(BodyError::Incomplete).into(),
        Rejection::Failed(ForwardError::UploadTimedOut),
        Rejection::Failed(ForwardError::Misdirected(301)),
        Rejection::Failed(ForwardError::Unreadable("10.0.0.7 says x".to_owned())),
        Rejection::Failed(ForwardError::Alertmanager(AlertmanagerState::Busy)),
        Rejection::Failed(ForwardError::Alertmanager(AlertmanagerState::Loading)),
        Rejection::Failed(ForwardError::Alertmanager(AlertmanagerState::Unconfigured)),
        Rejection::Failed(ForwardError::Alertmanager(AlertmanagerState::Absent)),
        Rejection::Silence(SilenceFault::NotJson),
        Rejection::Silence(SilenceFault::ContentType),
        Rejection::Limited(LimitError::All),
        Rejection::Limited(LimitError::Memory),
        Rejection::Limited(LimitError::Processor),
        Rejection::Limited(LimitError::InFlight { whose }),
        Rejection::Limited(LimitError::InFlight { whose: Whose::Device }),
        Rejection::Limited(LimitError::Share),
        Rejection::Limited(LimitError::Requests { whose, retry_after }),
        Rejection::Limited(LimitError::Requests { whose: Whose::Device, retry_after }),
        Rejection::Limited(LimitError::Bytes { whose, retry_after }),
        Rejection::Limited(LimitError::Bytes { whose: Whose::Device, retry_after }),
        Rejection::Admin(AdminError::Request("x".to_owned())),
        Rejection::Admin(AdminError::ScopesBeyondCaller(
            [Scope::MetricsRead].into_iter().collect(),
        )),
        Rejection::Admin(AdminError::Missing("device key")),
        Rejection::Admin(AdminError::Stale("x".to_owned())),
        Rejection::Admin(AdminError::NoDatabase),
        Rejection::Admin(AdminError::Store(StoreError::Unavailable("10.0.0.7 refused".to_owned()))),
        Rejection::Admin(AdminError::Store(StoreError::Unreachable("10.0.0.7 refused".to_owned()))),
        Rejection::Admin(AdminError::Store(StoreError::Missing("organisation"))),
        Rejection::Admin(AdminError::Store(StoreError::Elsewhere("device_key"))),
        Rejection::Admin(AdminError::Store(StoreError::Full(1))),
        Rejection::Admin(AdminError::Store(StoreError::Taken)),
        Rejection::Admin(AdminError::NoRules),
        Rejection::Admin(AdminError::Ruler("10.0.0.7 refused".to_owned())),
        Rejection::Admin(AdminError::Overloaded),
        Rejection::Admin(AdminError::Internal),
        Rejection::Failed(ForwardError::NoInstance),
        Rejection::Failed(ForwardError::Connect(std::io::Error::other("10.0.0.7:8080 refused"))),
        Rejection::Failed(ForwardError::CircuitOpen),
        Rejection::Failed(ForwardError::Saturated),
        Rejection::Failed(ForwardError::Timeout),
    ]);
    all
}

/// Of who asks, and what they may.
fn samples_of_callers() -> Vec<Rejection> {
    let (device, retry_after) = (DeviceId(uuid::Uuid::nil()), Duration::from_secs(7));
    vec![
        Rejection::Credential(Refusal::Credential(CredentialFault::Missing)),
        Rejection::Credential(Refusal::Credential(CredentialFault::Several)),
        Rejection::Credential(Refusal::Token(TokenFault::Signature)),
        Rejection::Credential(Refusal::Token(TokenFault::Expired(Times {
            token: 1,
            now: 4,
            leeway: 0,
        }))),
        Rejection::Credential(Refusal::Token(TokenFault::SecondFactor {
            found: "\"aal1\"".to_owned(),
            wanted: "aal2",
        })),
        Rejection::Credential(Refusal::KeysUnavailable { retry_after }),
        Rejection::Credential(Refusal::KeyPending { retry_after }),
        Rejection::Origin("https://evil.example".to_owned()),
        Rejection::Credential(Refusal::DatabaseUnavailable),
        Rejection::Credential(Refusal::NoDeviceKeys),
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
        Rejection::Denied(Denial::SecondFactor, None),
        Rejection::Denied(Denial::ServiceOnly, None),
        Rejection::Denied(Denial::NameAny, None),
        Rejection::Denied(Denial::Unavailable, None),
        Rejection::Denied(
            Denial::NoTenant(OrganisationId::parse("org-a").unwrap(), TenantIdError::TooLong),
            None,
        ),
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
    for rejection in samples() {
        let response = answer(&rejection, Audience::Sender);
        let is_5xx = response.status().is_server_error();
        let is_429 = response.status() == StatusCode::TOO_MANY_REQUESTS;
        let retries = is_5xx || is_429;
        assert_eq!(response.headers().contains_key("retry-after"), retries, "{rejection:?}");
        assert!(response.headers().contains_key("x-request-id"));
    }
}

// Prometheus, Alloy and the collector drop what is answered with 408.
#[test]
fn nothing_is_a_408_or_a_success() {
    for reason in Reason::VARIANTS {
        let status = status_of(*reason);
        assert!(status.is_client_error() || status.is_server_error(), "{reason:?}");
        assert_ne!(status, StatusCode::REQUEST_TIMEOUT, "{reason:?}");
    }
}

// An alert on failures must not fire for a tenant at its limit or a device on a thin line.
#[test]
fn a_limit_and_a_slow_body_are_rejections_and_every_other_5xx_is_a_failure() {
    let rejections = [
        Reason::OrganisationShare,
        Reason::Overloaded,
        Reason::MemoryShort,
        Reason::ProcessorShort,
        Reason::UpstreamSaturated,
        Reason::BodySlow,
        Reason::BodyIncomplete,
        Reason::BodySlowForUpstream,
        Reason::KeyPending,
        Reason::AlertmanagerBusy,
    ];
    for reason in Reason::VARIANTS {
        let is_5xx = status_of(*reason).is_server_error();
        let failed = reason.class() == Class::Failed;
        assert_eq!(failed, is_5xx && !rejections.contains(reason), "{reason:?}");
    }
    for reason in Reason::VARIANTS {
        let is_limit = statuses(*reason).contains("429");
        assert!(!is_limit || reason.class() == Class::Rejected, "{reason:?}");
    }
}

#[test]
fn readers_get_json_and_senders_plain_text() {
    for rejection in samples() {
        let json: serde_json::Value =
            serde_json::from_str(&text(answer(&rejection, Audience::Reader))).unwrap();
        assert_eq!(json["status"], "error");
        for audience in [Audience::Sender, Audience::OtlpSender] {
            let plain = text(answer(&rejection, audience));
            assert_eq!(plain.trim_end(), json["error"].as_str().unwrap());
        }
        let response = answer(&rejection, Audience::Alertmanager);
        let is_text = response.status() == StatusCode::BAD_REQUEST;
        let of_alertmanager: serde_json::Value = serde_json::from_str(&text(response)).unwrap();
        assert_eq!(of_alertmanager, if is_text { json["error"].clone() } else { json });
    }
}

// A path that is not there is answered to the one who probably asks.
#[test]
fn a_near_miss_of_a_read_gets_json_and_one_of_a_write_plain_text() {
    use Audience::{Alertmanager, OtlpSender, Reader, Sender};
    for (path, wanted) in [
        ("/api/v1/query", Reader),
        ("/api/v1/label/job/values", Reader),
        ("/prometheus/api/v1/qery", Reader),
        ("/api/v1/status/tsdb", Reader),
        ("/query_range", Reader),
        ("/admin/whoami/", Reader),
        ("/alertmanager/api/v1/alerts", Alertmanager),
        ("/api/v2/silences", Alertmanager),
        ("/api/v1/push/", Sender),
        ("/api/v1/write", Sender),
        ("/prometheus/api/v1/write", Sender),
        ("/api/v1/unknown", Sender),
        ("/unknown", Sender),
        ("/", Sender),
        ("/v1/metrics", OtlpSender),
        ("/otlp/v1/traces", OtlpSender),
    ] {
        let refused = route::find_path(&http::Method::GET, path, None).unwrap_err();
        let rejection = Rejection::from(refused);
        assert_eq!(Audience::of(rejection.route(), path), wanted, "{path}");
    }
}

#[test]
fn a_401_has_a_challenge() {
    for rejection in samples() {
        let response = answer(&rejection, Audience::Reader);
        let is_401 = response.status() == StatusCode::UNAUTHORIZED;
        assert_eq!(response.headers().contains_key("www-authenticate"), is_401, "{rejection:?}");
    }
}

#[test]
fn addresses_of_mimir_stay_inside() {
    for rejection in samples() {
        assert!(!text(answer(&rejection, Audience::Sender)).contains("10.0.0.7"));
    }
}

/// All that `Retry-After` says, if it is asked often.
fn retry_after(rejection: &Rejection, audience: Audience) -> BTreeSet<u64> {
    let one = |_| {
        let response = answer(rejection, audience);
        response.headers()["retry-after"].to_str().unwrap().parse().unwrap()
    };
    (0..200).map(one).collect()
}

// A fleet that is sent away at one time must not come back at one time. An SDK drops what it may not send again
// within its export timeout, 10 s by default.
#[test]
fn retry_after_of_a_5xx_is_spread_and_by_otlp_within_an_sdks_timeout() {
    let rejection = Rejection::Failed(ForwardError::CircuitOpen);
    for route in &route::ROUTES {
        let seconds = retry_after(&rejection, Audience::of(Some(route), route.path));
        let range = if route.surface == Surface::Otlp { 1..=4 } else { 5..=15 };
        assert!(seconds.iter().all(|seconds| range.contains(seconds)), "{route:?}: {seconds:?}");
        assert!(seconds.len() > 2, "{route:?}: {seconds:?}");
    }
    let otlp = Audience::OtlpSender;
    for rejection in samples().iter().filter(|sample| sample.status(otlp).is_server_error()) {
        let seconds = retry_after(rejection, otlp);
        assert!(*seconds.last().unwrap() <= 4, "{rejection:?}: {seconds:?}");
    }
}

// The SDK for Python drops data that is answered with a 429 (`_is_retryable`: 408 and 5xx). So does Prometheus unless
// `retry_on_http_429` is set.
#[test]
fn no_sender_is_answered_with_429_and_every_limit_is_a_503_for_it() {
    for rejection in samples() {
        for audience in [Audience::Sender, Audience::OtlpSender] {
            let status = rejection.status(audience);
            assert_ne!(status, StatusCode::TOO_MANY_REQUESTS, "{rejection:?} for {audience:?}");
            let is_limit = matches!(rejection, Rejection::Limited(_));
            assert!(!is_limit || status == StatusCode::SERVICE_UNAVAILABLE, "{rejection:?}");
        }
    }
    let whose = Whose::Device;
    for own in [
        LimitError::InFlight { whose },
        LimitError::Requests { whose, retry_after: Duration::ZERO },
        LimitError::Bytes { whose, retry_after: Duration::ZERO },
    ] {
        let status = Rejection::Limited(own).status(Audience::Reader);
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    }
}

// A body of 100 MB against 1 KB/s is paid after a day.
#[test]
fn no_rate_sends_anybody_away_for_more_than_a_minute() {
    let (whose, moment) = (Whose::Device, Duration::from_secs(100_000));
    for rejection in [
        Rejection::Limited(LimitError::Requests { whose, retry_after: moment }),
        Rejection::Limited(LimitError::Bytes { whose, retry_after: moment }),
    ] {
        for audience in [Audience::Reader, Audience::Sender] {
            assert_eq!(retry_after(&rejection, audience), [58, 59, 60].into(), "{rejection:?}");
        }
    }
}

// Who is told a moment is told the same one as all others.
#[test]
fn a_moment_that_many_wait_for_is_spread() {
    let (whose, moment) = (Whose::Organisation, Duration::from_secs(7));
    for rejection in [
        Rejection::Credential(Refusal::KeysUnavailable { retry_after: moment }),
        Rejection::Credential(Refusal::KeyPending { retry_after: moment }),
        Rejection::Limited(LimitError::Requests { whose, retry_after: moment }),
        Rejection::Limited(LimitError::Bytes { whose, retry_after: moment }),
    ] {
        for audience in [Audience::Reader, Audience::Sender] {
            assert_eq!(retry_after(&rejection, audience), [8, 9, 10].into(), "{rejection:?}");
        }
    }
}

// RFC 9110, 15.5.6.
#[test]
fn a_405_says_what_is_allowed_and_nothing_else_does() {
    for rejection in samples() {
        let response = answer(&rejection, Audience::Reader);
        let is_405 = response.status() == StatusCode::METHOD_NOT_ALLOWED;
        assert_eq!(response.headers().contains_key("allow"), is_405, "{rejection:?}");
    }
    let push = Rejection::Route(RouteError::Method(&route::ROUTES[0]));
    assert_eq!(answer(&push, Audience::Sender).headers()["allow"], "POST");
}

// `curl --anyauth` and small senders send a password only where they are offered it.
#[test]
fn basic_is_offered_where_devices_push_and_nowhere_else() {
    let challenges = |rejection: &Rejection, audience| -> Vec<String> {
        let response = answer(rejection, audience);
        let all = response.headers().get_all("www-authenticate").iter();
        all.map(|value| value.to_str().unwrap().to_owned()).collect()
    };
    let basic = "Basic realm=\"device keys\"".to_owned();
    let missing = Rejection::Credential(Refusal::Credential(CredentialFault::Missing));
    for audience in [Audience::Sender, Audience::OtlpSender] {
        assert_eq!(challenges(&missing, audience), ["Bearer".to_owned(), basic.clone()]);
    }
    assert_eq!(challenges(&missing, Audience::Reader), ["Bearer".to_owned()]);
    let token = Rejection::Credential(Refusal::Token(TokenFault::Signature));
    assert_eq!(challenges(&token, Audience::Sender).len(), 1);
    for fault in [DeviceKeyFault::Form, DeviceKeyFault::Unknown, DeviceKeyFault::Off] {
        let device = Rejection::Credential(Refusal::DeviceKey(fault));
        assert_eq!(challenges(&device, Audience::Sender).last(), Some(&basic), "{fault:?}");
        // A page that asks with a mistyped key would wait for the browser's dialog.
        for audience in [Audience::Reader, Audience::Alertmanager] {
            assert_eq!(challenges(&device, audience).len(), 1, "{fault:?}");
        }
    }
}

#[test]
fn a_wait_is_rounded_up() {
    for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (5900, 6)] {
        assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
    }
}

const AUDIENCES: [Audience; 4] =
    [Audience::Reader, Audience::Alertmanager, Audience::Sender, Audience::OtlpSender];

/// The statuses that a reason is answered with, the usual one first.
fn statuses(reason: Reason) -> String {
    if matches!(reason, Reason::UpstreamBrokenBody | Reason::UpstreamIdleBody) {
        // It had been sent when the body broke off.
        return "Mimir's".to_owned();
    }
    let usual = status_of(reason).as_u16();
    let others: BTreeSet<u16> = samples()
        .iter()
        .filter(|sample| sample.reason() == reason)
        .flat_map(|sample| AUDIENCES.map(|audience| sample.status(audience).as_u16()))
        .filter(|status| *status != usual)
        .collect();
    let all: Vec<_> =
        std::iter::once(usual).chain(others).map(|status| status.to_string()).collect();
    all.join(", ")
}

/// In one line.
fn meaning(reason: Reason) -> String {
    let lines = reason.get_documentation().unwrap_or_default();
    lines.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn reference() -> String {
    let mut page = String::from(
        "# Reasons\n\nWritten from the code (`src/reason.rs`, `src/rejection.rs`) by a test; do not edit.\n\n\
         Why a request was not served: the label `reason` of `mimir_tenant_proxy_requests_total` and the \
         field `reason` of the [log](log.md). `failed` means that something is broken or unavailable, and \
         the operator should look. `rejected` means that the request was refused on purpose, also where its \
         status is a 503 so that senders keep what they have. From an answer to its reason: \
         [refusals](../runbooks/refusals.md).\n\n\
         | reason | status | outcome | meaning | what to do |\n|---|---|---|---|---|\n",
    );
    for reason in Reason::VARIANTS {
        let class: &str = reason.class().into();
        let meaning = meaning(*reason);
        let action = reason.get_message().unwrap_or_default();
        let (name, statuses) = (reason.name(), statuses(*reason));
        let _ = writeln!(page, "| `{name}` | {statuses} | {class} | {meaning} | {action} |");
    }
    page
}

#[test]
fn the_reference_of_reasons_is_that_of_the_code() {
    crate::reference::check("docs/reference/reasons.md", &reference());
}

// A reason that nobody can act on helps nobody.
#[test]
fn every_reason_says_what_it_means_and_what_to_do() {
    for reason in Reason::VARIANTS {
        for text in [meaning(*reason), reason.get_message().unwrap_or_default().to_owned()] {
            assert!(
                text.len() > 10 && text.ends_with(['.', '?', '!']),
                "{}: {text:?}",
                reason.name()
            );
        }
    }
}
