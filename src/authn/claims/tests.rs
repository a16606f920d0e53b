use super::*;
use crate::authn::principal::{ClaimedRole, Identity};
use crate::tenancy::{OrganisationId, Role};
use serde_json::json;
use std::time::Duration;

const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://ref.supabase.co/auth/v1";

fn policy() -> TokenPolicy {
    TokenPolicy {
        default_organisation_claim: None,
        role_claim: None,
        service_role: ServiceRole::Refused,
        issuer: ISSUER.to_owned(),
        audience: "authenticated".to_owned(),
        organisation_claim: "app_metadata.org_id".to_owned(),
        leeway: Duration::from_secs(10),
        allow_anonymous: false,
        oauth_clients: OauthClients::Listed(vec!["known".to_owned()]),
    }
}

/// A real token's claims with some of them changed; `null` removes a claim.
fn verify(changes: Value) -> Result<Principal, TokenFault> {
    verify_by(&policy(), changes)
}

fn verify_by(policy: &TokenPolicy, changes: Value) -> Result<Principal, TokenFault> {
    let mut claims = json!({
        "iss": ISSUER, "aud": "authenticated", "role": "authenticated",
        "sub": "11111111-2222-4333-8444-555555555555", "exp": NOW + 3600, "iat": NOW,
        "is_anonymous": false, "session_id": "s", "app_metadata": {"org_id": "org-a"},
    });
    for (claim, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(claim),
            value => claims.as_object_mut().unwrap().insert(claim.clone(), value.clone()),
        };
    }
    Claims::parse(claims.to_string().as_bytes())?.verify(policy, NOW).map(|(who, _)| who)
}

fn user_of(who: &Principal) -> &User {
    let Identity::User(user) = who.identity() else { panic!("{who:?}") };
    user
}

#[track_caller]
fn refused(changes: Value, reason: &str) {
    let text = changes.to_string();
    let fault = verify(changes).expect_err(&text);
    assert_eq!(fault.reason(), reason, "{text}: {fault}");
}

#[test]
fn a_users_token_passes() {
    let who = verify(json!({})).unwrap();
    assert_eq!(user_of(&who).id().to_string(), "11111111-2222-4333-8444-555555555555");
    assert_eq!(user_of(&who).session_id(), Some("s"));
}

// Supabase: aud is a string, and an array once a custom access token hook is on.
#[test]
fn audience_is_a_text_or_a_list() {
    assert!(verify(json!({"aud": ["other", "authenticated"]})).is_ok());
    refused(json!({"aud": "other"}), "wrong_audience");
    refused(json!({"aud": []}), "wrong_audience");
    refused(json!({"aud": null}), "malformed_claims");
    refused(json!({"aud": 7}), "malformed_claims");
    refused(json!({"aud": ["authenticated", 7]}), "malformed_claims");
}

// CVE-2026-25537: a claim of the wrong type must not count as absent.
#[test]
fn times_are_numbers() {
    for claim in ["exp", "nbf", "iat"] {
        for value in
            [json!("1900000000"), json!([1]), json!(true), json!(-1), json!(1e300), json!({})]
        {
            refused(json!({claim: value}), "malformed_claims");
        }
    }
    refused(json!({"exp": null}), "malformed_claims");
    let parse = |text: &str| Claims::parse(text.as_bytes()).err();
    assert_eq!(parse(r#"["exp"]"#), Some(TokenFault::Claims));
    assert!(verify(json!({"exp": NOW + 10, "nbf": null, "iat": null})).is_ok());
    assert!(verify(json!({"exp": 1_800_000_010.5})).is_ok());
}

#[test]
fn leeway_covers_a_small_difference_of_clocks() {
    assert!(verify(json!({"exp": NOW - 9, "iat": NOW - 100})).is_ok());
    refused(json!({"exp": NOW - 10, "iat": NOW - 100}), "expired");
    assert!(verify(json!({"nbf": NOW + 10})).is_ok());
    refused(json!({"nbf": NOW + 11}), "not_yet_valid");
    assert!(verify(json!({"iat": NOW + 10})).is_ok());
    refused(json!({"iat": NOW + 11}), "malformed_claims");
    refused(json!({"iat": NOW + 5, "exp": NOW + 4}), "malformed_claims");
}

#[test]
fn issuer_is_compared_exactly() {
    for issuer in
        ["https://ref.supabase.co/auth/v1/", "https://REF.supabase.co/auth/v1", "supabase", ""]
    {
        refused(json!({"iss": issuer}), "wrong_issuer");
    }
    refused(json!({"iss": [ISSUER]}), "malformed_claims");
}

// Legacy project keys are valid HS256 tokens of role anon and service_role, without sub and aud.
#[test]
fn project_keys_are_no_users() {
    for role in ["anon", "service_role", "Authenticated", "", "postgres"] {
        refused(json!({"role": role, "iss": "supabase", "sub": null, "aud": null}), "wrong_role");
    }
    refused(json!({"role": null}), "malformed_claims");
}

// Where an operator lets the service_role key in, it must be that of the project.
#[test]
fn a_service_is_let_in_only_if_it_is_the_projects_own_and_only_if_that_is_wished() {
    let allowed = TokenPolicy { service_role: ServiceRole::Allowed, ..policy() };
    let legacy = |role: &str, issuer: &str, project: Value| json!({"role": role, "iss": issuer, "ref": project, "sub": null, "aud": null, "session_id": null});
    let ours = || legacy("service_role", "supabase", json!("ref"));
    let service = verify_by(&allowed, ours()).unwrap();
    assert!(matches!(service.identity(), Identity::Service(Service::ServiceRole)));
    assert_eq!(verify(ours()).unwrap_err().reason(), "wrong_role");
    for (other, reason) in [
        (legacy("anon", "supabase", json!("ref")), "wrong_role"),
        (legacy("service_role", "supabase", json!("another")), "wrong_issuer"),
        (legacy("service_role", "supabase", json!(null)), "wrong_issuer"),
        (legacy("service_role", "https://evil.example", json!("ref")), "wrong_issuer"),
    ] {
        assert_eq!(verify_by(&allowed, other.clone()).unwrap_err().reason(), reason, "{other}");
    }
    let mut expired = ours();
    expired["exp"] = json!(NOW - 60);
    expired["iat"] = json!(NOW - 600);
    assert_eq!(verify_by(&allowed, expired).unwrap_err().reason(), "expired");
    // Everybody else is still a user.
    assert!(matches!(verify_by(&allowed, json!({})).unwrap().identity(), Identity::User(_)));
}

#[test]
fn a_claim_may_name_a_default_organisation_and_a_role() {
    let policy = TokenPolicy {
        default_organisation_claim: Some("app_metadata.default".to_owned()),
        role_claim: Some("app_metadata.role".to_owned()),
        ..policy()
    };
    let claimed = |metadata: Value| {
        let who = verify_by(&policy, json!({ "app_metadata": metadata })).unwrap();
        let claimed = user_of(&who).claimed();
        (claimed.default.clone(), claimed.role.clone())
    };
    let a = OrganisationId::parse("a").ok();
    let viewer = ClaimedRole::Named(Role::new("viewer"));
    assert_eq!(claimed(json!({"default": "a", "role": "viewer"})), (a, viewer));
    assert_eq!(claimed(json!({"default": "a|b", "role": 7})), (None, ClaimedRole::Missing));
    assert_eq!(claimed(json!({})), (None, ClaimedRole::Missing));
    assert_eq!(user_of(&verify(json!({})).unwrap()).claimed().role, ClaimedRole::Unasked);
}

#[test]
fn subject_is_a_hyphenated_uuid() {
    for subject in [
        "",
        "admin",
        "11111111222243338444555555555555",
        "urn:uuid:11111111-2222-4333-8444-555555555555",
        "{11111111-2222-4333-8444-555555555555}",
    ] {
        refused(json!({"sub": subject}), "malformed_claims");
    }
    refused(json!({"sub": null}), "malformed_claims");
}

#[test]
fn anonymous_users_are_refused_by_default() {
    refused(json!({"is_anonymous": true}), "anonymous");
    refused(json!({"is_anonymous": "false"}), "malformed_claims");
    assert!(verify(json!({"is_anonymous": null})).is_ok());
}

#[test]
fn only_listed_oauth_clients_pass() {
    assert!(verify(json!({"client_id": "known"})).is_ok());
    refused(json!({"client_id": "unknown"}), "oauth_client");
    refused(json!({"client_id": ["known"]}), "malformed_claims");
}
