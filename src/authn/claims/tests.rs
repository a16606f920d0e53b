use super::*;
use crate::authn::principal::{ClaimedOrganisations, ClaimedRole, Identity};
use crate::config::OrganisationForm;
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
        organisation_form: OrganisationForm::Texts,
        user_roles: vec!["authenticated".to_owned()],
        leeway: Duration::from_secs(10),
        allow_anonymous: false,
        oauth_clients: OauthClients::Listed(vec!["known".to_owned()]),
        required_aal: AssuranceLevel::Aal1,
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
    assert_eq!(fault.reason().name(), reason, "{text}: {fault}");
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
    refused(json!({"iat": NOW + 11}), "not_yet_valid");
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
    assert_eq!(verify(ours()).unwrap_err().reason().name(), "wrong_role");
    for (other, reason) in [
        (legacy("anon", "supabase", json!("ref")), "wrong_role"),
        (legacy("service_role", "supabase", json!("another")), "wrong_issuer"),
        (legacy("service_role", "supabase", json!(null)), "wrong_issuer"),
        (legacy("service_role", "https://evil.example", json!("ref")), "wrong_issuer"),
    ] {
        assert_eq!(
            verify_by(&allowed, other.clone()).unwrap_err().reason().name(),
            reason,
            "{other}"
        );
    }
    let mut expired = ours();
    expired["exp"] = json!(NOW - 60);
    expired["iat"] = json!(NOW - 600);
    assert_eq!(verify_by(&allowed, expired).unwrap_err().reason().name(), "expired");
    // Everybody else is still a user.
    assert!(matches!(verify_by(&allowed, json!({})).unwrap().identity(), Identity::User(_)));
}

// `auth.admin.updateUserById` can give a user this role. Taken for a service, the user would pass revocations, bans,
// sign-outs, the second factor and the check of OAuth clients.
#[test]
fn a_user_with_the_role_service_role_is_no_service() {
    let allowed = TokenPolicy { service_role: ServiceRole::Allowed, ..policy() };
    let (sub, session) = ("11111111-2222-4333-8444-555555555555", "s");
    for (sub, session) in [
        (json!(sub), json!(session)),
        (json!(sub), json!(null)),
        (json!(null), json!(session)),
        (json!(""), json!(null)),
        (json!(7), json!(null)),
    ] {
        let claims = json!({"role": "service_role", "sub": sub, "session_id": session});
        let fault = verify_by(&allowed, claims).unwrap_err();
        assert_eq!(fault.reason().name(), "wrong_role", "{sub} {session}");
    }
    assert!(
        verify_by(&allowed, json!({"role": "service_role", "sub": null, "session_id": null}))
            .is_ok()
    );
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

// A custom access token hook that builds the claims by itself drops `client_id`; the token passed as the user's own.
#[test]
fn an_oauth_clients_token_without_its_name_is_no_users() {
    const METHOD: &str = "oauth_provider/authorization_code";
    for signs in [
        json!({"amr": [{"method": METHOD, "timestamp": NOW}]}),
        json!({"amr": [{"method": "totp", "timestamp": NOW}, {"method": METHOD, "timestamp": NOW}]}),
        json!({"amr": [METHOD]}),
        json!({"scope": "openid"}),
        json!({"scope": "profile email"}),
        json!({"scope": "own:read offline_access"}),
    ] {
        refused(signs.clone(), "oauth_client");
        let any = TokenPolicy { oauth_clients: OauthClients::Any, ..policy() };
        assert!(verify_by(&any, signs.clone()).is_ok(), "{signs}");
        let mut named = signs;
        named["client_id"] = json!("known");
        assert!(verify(named).is_ok());
    }
    for users_own in [
        json!({"amr": [{"method": "password", "timestamp": NOW}]}),
        json!({"amr": [{"method": "oauth", "timestamp": NOW}, {"method": "totp"}, "otp", 7]}),
        json!({"amr": "password"}),
        json!({"amr": null, "scope": ""}),
        // What an operator's hook writes for users.
        json!({"scope": "metrics:read dashboards"}),
        json!({"scope": {"openid": true}}),
    ] {
        assert!(verify(users_own.clone()).is_ok(), "{users_own}");
    }
    let fault = verify(json!({"scope": "openid"})).unwrap_err().inside();
    assert!(fault.contains("hook") && fault.contains("auth.oauth_clients"), "{fault}");
    let fault = verify(json!({"client_id": "unknown"})).unwrap_err().inside();
    assert!(fault.contains("\"unknown\"") && fault.contains("auth.oauth_clients"), "{fault}");
}

// Supabase Auth gives a whole access token after the password, before the second factor; only `aal` says so
// (<https://supabase.com/docs/guides/auth/auth-mfa>).
#[test]
fn a_password_alone_is_refused_where_a_second_factor_is_required() {
    let (aal1, aal2) = (AssuranceLevel::Aal1, AssuranceLevel::Aal2);
    let strict = TokenPolicy { required_aal: aal2, ..policy() };
    let level = |policy: &TokenPolicy, aal: &Value| {
        let verified = verify_by(policy, json!({ "aal": aal }));
        let level = verified.map(|who| user_of(&who).assurance_level());
        level.map_err(|fault| fault.reason().name())
    };
    for second in [json!("aal2"), json!("aal3")] {
        assert_eq!(level(&strict, &second), Ok(aal2), "{second}");
        assert_eq!(level(&policy(), &second), Ok(aal2), "{second}");
    }
    // Null removes the claim.
    for first in [json!("aal1"), json!(null), json!(""), json!("AAL2"), json!("aal"), json!("2")] {
        assert_eq!(level(&strict, &first), Err("second_factor_missing"), "{first}");
        assert_eq!(level(&policy(), &first), Ok(aal1), "{first}");
    }
    for wrong in [json!(2), json!(true), json!(["aal2"]), json!({"aal": "aal2"})] {
        assert_eq!(level(&strict, &wrong), Err("malformed_claims"), "{wrong}");
        assert_eq!(level(&policy(), &wrong), Err("malformed_claims"), "{wrong}");
    }
    assert_eq!(with_null("aal").reason().name(), "malformed_claims");
    let fault = verify_by(&strict, json!({"aal": "aal1"})).unwrap_err();
    let inside = fault.inside();
    assert!(inside.ends_with("aal is \"aal1\", auth.required_aal is \"aal2\""), "{inside}");
    // Whatever else is wrong is told first: a second factor would not help.
    let expired = json!({"aal": "aal1", "exp": NOW - 60, "iat": NOW - 600});
    assert_eq!(verify_by(&strict, expired).unwrap_err().reason().name(), "expired");
}

/// `null` as a claim's value, which [`verify`] takes for "remove it".
fn with_null(claim: &str) -> TokenFault {
    let text = format!(
        r#"{{"iss":"{ISSUER}","aud":"authenticated","role":"authenticated","exp":{},"iat":{NOW},
            "sub":"11111111-2222-4333-8444-555555555555","{claim}":null}}"#,
        NOW + 3600
    );
    let text = text.replacen(&format!("\"{claim}\":\""), "\"was\":\"", 1);
    Claims::parse(text.as_bytes()).unwrap().verify(&policy(), NOW).expect_err(claim)
}

// A token whose session_id or jti cannot be read could not be revoked by it.
#[test]
fn what_a_token_is_revoked_by_is_a_text() {
    for claim in ["session_id", "jti"] {
        for value in [json!(7), json!(["a"]), json!({"a": "b"}), json!(true), json!("")] {
            refused(json!({claim: value}), "malformed_claims");
        }
        assert_eq!(with_null(claim).reason().name(), "malformed_claims");
        assert!(verify(json!({claim: null})).is_ok(), "{claim} may be absent");
    }
    assert!(verify(json!({"jti": "token-1"})).is_ok());
    for claim in ["client_id", "is_anonymous", "nbf"] {
        assert_eq!(with_null(claim).reason().name(), "malformed_claims", "{claim}");
    }
}

// Which of two values counts would be a matter of opinion.
#[test]
fn a_claim_is_there_once() {
    let sub = "11111111-2222-4333-8444-555555555555";
    for twice in [
        format!(r#"{{"sub":"{sub}","sub":"{sub}"}}"#),
        format!(r#"{{"sub":"{sub}","app_metadata":{{"org_id":"a","org_id":"b"}}}}"#),
        format!(r#"{{"role":"anon","sub":"{sub}","\u0072ole":"authenticated"}}"#),
    ] {
        assert_eq!(Claims::parse(twice.as_bytes()).err(), Some(TokenFault::Claims), "{twice}");
    }
}

// An operator may count other roles as users; a project's API keys stay out whatever is set.
#[test]
fn users_have_the_roles_that_the_operator_names() {
    let roles = ["authenticated", "tenant_admin", "anon", "service_role"];
    let policy = TokenPolicy { user_roles: roles.map(str::to_owned).into(), ..policy() };
    for role in ["authenticated", "tenant_admin"] {
        assert!(verify_by(&policy, json!({ "role": role })).is_ok(), "{role}");
    }
    for role in ["anon", "service_role", "Tenant_admin", "postgres", ""] {
        let fault = verify_by(&policy, json!({ "role": role })).unwrap_err();
        assert_eq!(fault.reason().name(), "wrong_role", "{role}");
    }
    refused(json!({"role": "tenant_admin"}), "wrong_role");
}

// The operator sees both sides of what does not fit; the caller sees its own side.
#[test]
fn a_comparison_that_fails_shows_both_values_to_the_operator() {
    let cases = [
        (json!({"iss": "https://other.example/auth/v1"}), "https://other.example/auth/v1", ISSUER),
        (json!({"aud": "other"}), "\"other\"", "\"authenticated\""),
        (json!({"aud": ["x", "y"]}), "[\"x\",\"y\"]", "\"authenticated\""),
        (json!({"role": "editor"}), "\"editor\"", "[\"authenticated\"]"),
        (json!({"exp": NOW - 40, "iat": NOW - 90}), "40 s ago", "1800000000"),
        (json!({"nbf": NOW + 40}), "another 40 s", "1800000000"),
        (json!({"iat": NOW + 41}), "41 s in the future", "1800000000"),
        (json!({"iat": NOW + 9, "exp": NOW + 8}), "1800000009", "1800000008"),
    ];
    for (changes, theirs, ours) in cases {
        let text = changes.to_string();
        let fault = verify(changes).expect_err(&text);
        assert!(
            fault.inside().contains(theirs) && fault.inside().contains(ours),
            "{}",
            fault.inside()
        );
    }
    let fault = verify(json!({"iss": "https://other.example/auth/v1"})).unwrap_err();
    assert!(!fault.to_string().contains(ISSUER), "{fault}");
    let long = "x".repeat(10_000);
    for claim in ["iss", "aud", "role"] {
        let fault = verify(json!({ claim: long })).unwrap_err();
        assert!(fault.inside().len() < 700, "{claim}");
    }
}

#[test]
fn organisations_may_be_keys_or_objects() {
    let read = |form: OrganisationForm, claim: Value| {
        let policy = TokenPolicy { organisation_form: form, ..policy() };
        let who = verify_by(&policy, json!({"app_metadata": {"org_id": claim}})).unwrap();
        user_of(&who).claimed().organisations.clone()
    };
    let listed = |names: &[&str]| {
        let ids = names.iter().map(|name| OrganisationId::parse(name).unwrap());
        ClaimedOrganisations::Listed(ids.collect())
    };
    let objects = |field: &str| OrganisationForm::Objects { field: field.to_owned() };
    let keys = || OrganisationForm::Keys;
    assert_eq!(read(keys(), json!({"b": {"role": "admin"}, "a": true})), listed(&["a", "b"]));
    assert_eq!(read(keys(), json!({"a": true, "b": false, "c": null})), listed(&["a"]));
    assert_eq!(read(keys(), json!({})), ClaimedOrganisations::Missing);
    let two = json!([{"id": "a", "role": "x"}, {"id": "b"}]);
    assert_eq!(read(objects("id"), two.clone()), listed(&["a", "b"]));
    assert_eq!(read(objects("org"), json!([{"org": "a"}])), listed(&["a"]));
    assert_eq!(read(objects("id"), json!([])), ClaimedOrganisations::Missing);
    // What does not fit is unreadable, and says which setting helps.
    for (form, claim, setting) in [
        (OrganisationForm::Texts, json!({"a": {}}), "\"keys\""),
        (OrganisationForm::Texts, two.clone(), "\"objects\""),
        (keys(), json!(["a"]), "\"texts\""),
        (keys(), two.clone(), "\"objects\""),
        (keys(), json!("a"), "\"texts\""),
        (objects("id"), json!({"a": {}}), "\"keys\""),
        (objects("id"), json!(["a"]), "\"texts\""),
        (objects("org"), two, "organisation_claim_field"),
    ] {
        let ClaimedOrganisations::Unreadable(problem) = read(form, claim.clone()) else {
            panic!("{claim}")
        };
        assert!(problem.contains(setting), "{claim}: {problem}");
    }
}

// Seen: "the token's iss must be a text", of a token without one, and nothing of what it must be.
#[test]
fn a_claim_that_is_compared_is_told_with_the_setting_if_it_is_missing_or_malformed() {
    let fault = |changes: Value| verify(changes).unwrap_err();
    for (changes, outside, setting) in [
        (json!({"iss": null}), "the token has no iss", "auth.issuer is \"https://ref."),
        (json!({"iss": [ISSUER]}), "the token's iss must be a text", "auth.issuer is"),
        (json!({"aud": null}), "the token has no aud", "auth.audience is \"authenticated\""),
        (json!({"aud": 7}), "the token's aud must be a text or a list", "auth.audience is"),
        (json!({"role": null}), "the token has no role", "auth.user_roles is [\"authenticated\"]"),
    ] {
        let fault = fault(changes.clone());
        assert_eq!(fault.reason().name(), "malformed_claims", "{changes}");
        assert!(fault.to_string().starts_with(outside), "{fault}");
        assert!(!fault.to_string().contains("auth."), "the caller is not told ours: {fault}");
        assert!(fault.inside().contains(setting), "{}", fault.inside());
    }
    assert!(fault(json!({"exp": null})).to_string().starts_with("the token has no exp"));
}

// Seen: a second line of explain-token, about an iat that is right.
#[test]
fn an_end_that_cannot_be_read_is_no_fault_of_the_issue_time() {
    for exp in [json!(1e30), json!("tomorrow")] {
        let claims = json!({"iat": NOW, "exp": exp});
        let claims = Claims::parse(claims.to_string().as_bytes()).unwrap();
        assert!(expiry(&claims, &policy(), NOW).is_err());
        assert_eq!(issued_at(&claims, &policy(), NOW), Ok(Found::Time(NOW)));
    }
}
