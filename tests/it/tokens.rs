//! Tokens of every algorithm and shape.

use std::time::{Duration, Instant};

use harness::{Algorithm, Issuer, ORG_A, ProxyOptions, SigningKey, Upstream};
use serde_json::json;

use crate::support::responses::ok;

const QUERY: &str = "/prometheus/api/v1/query?query=up";

// Every algorithm of the key set is verified, by the key's own algorithm.
#[tokio::test(flavor = "multi_thread")]
async fn every_asymmetric_algorithm_is_verified() {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let algorithms = [ES256, ES384, RS256, RS384, RS512, PS256, PS384, PS512, EdDSA];
    let keys: Vec<SigningKey> = algorithms
        .iter()
        .map(|algorithm| SigningKey::generate(&format!("{algorithm:?}"), *algorithm))
        .collect();
    issuer.publish(&keys.iter().collect::<Vec<_>>());
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url()).start().await;
    for key in &keys {
        let token = issuer.token().organisation(&json!(ORG_A)).signed_by(key);
        let good = proxy.client().bearer(&token.sign()).get(QUERY).await;
        assert_eq!(good.status, 200, "{:?}: {good:?}", key.algorithm);
        // The same name on another key, and every other algorithm on this one.
        let stranger = SigningKey::generate(&key.id, key.algorithm);
        let forged =
            proxy.client().bearer(&token.clone().signed_by(&stranger).sign()).get(QUERY).await;
        assert_eq!(forged.status, 401, "{:?}: {forged:?}", key.algorithm);
        for other in algorithms.iter().filter(|other| **other != key.algorithm) {
            let confused = token.clone().header("alg", json!(other)).sign();
            let answer = proxy.client().bearer(&confused).get(QUERY).await;
            assert_eq!(answer.status, 401, "{:?} as {other:?}: {answer:?}", key.algorithm);
        }
    }
}

// CVE-2024-37568 and similar: the public key, in any form, is not an HMAC secret.
#[tokio::test(flavor = "multi_thread")]
async fn a_public_key_is_no_shared_secret() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let rsa = SigningKey::generate("rsa", Algorithm::RS256);
    issuer.publish(&[&issuer.key, &rsa]);
    let secret = "\"a legacy secret of more than thirty-two bytes\"";
    let with_secret =
        ProxyOptions::new(&issuer.url(), &upstream.url()).set("auth.hs256_secret", secret);
    for proxy in
        [ProxyOptions::new(&issuer.url(), &upstream.url()).start().await, with_secret.start().await]
    {
        for key in [&issuer.key, &rsa] {
            let mut guesses = vec![key.public.to_string().into_bytes(), b"".to_vec()];
            guesses.extend(
                ["n", "x", "y"]
                    .iter()
                    .filter_map(|part| Some(key.public.get(part)?.as_str()?.as_bytes().to_vec())),
            );
            for guess in guesses {
                let forger = SigningKey::secret(&guess).named(&key.id);
                let token = issuer.token().organisation(&json!(ORG_A)).signed_by(&forger).sign();
                let answer = proxy.client().bearer(&token).get(QUERY).await;
                assert_eq!(answer.status, 401, "{answer:?}");
            }
        }
    }
    assert!(upstream.heads().is_empty());
}

// A token must not bring its own key (CVE-2018-0114), nor trigger a fetch of one.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_cannot_bring_its_own_key() {
    let (issuer, upstream, bait) =
        (Issuer::start().await, Upstream::start(ok).await, Upstream::start(ok).await);
    let options = ProxyOptions::new(&issuer.url(), &upstream.url());
    let proxy = options.set("auth.jwks_cool_down", "\"200ms\"").start().await;
    let own = SigningKey::generate("own", Algorithm::ES256);
    let token = issuer.token().organisation(&json!(ORG_A)).signed_by(&own);
    let bait_url = format!("{}/jwks.json", bait.url());
    for (name, value) in [
        ("jku", json!(bait_url)),
        ("x5u", json!(bait_url)),
        ("jwk", own.public.clone()),
        ("x5c", json!(["AAAA"])),
        ("crit", json!(["exp"])),
        ("kid", json!(bait_url)),
        ("kid", json!("../../../../dev/null")),
        ("kid", json!("' OR 1=1 --")),
        ("kid", json!(["key-1"])),
    ] {
        let client = proxy.client().bearer(&token.clone().header(name, value).sign());
        let mut answer = client.get(QUERY).await;
        // Whether such a key exists is unknown until the set may be fetched again.
        let until = Instant::now() + Duration::from_secs(10);
        while answer.status == 503 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(100)).await;
            answer = client.get(QUERY).await;
        }
        assert_eq!(answer.status, 401, "{name}: {answer:?}");
    }
    assert!(bait.heads().is_empty() && upstream.heads().is_empty());
}

// Supabase's real tokens have a string or an array as audience, and many more claims.
#[tokio::test(flavor = "multi_thread")]
async fn shapes_of_real_tokens_pass() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let options = ProxyOptions::new(&issuer.url(), &upstream.url());
    let proxy = options.set("auth.organisation_claim", "\"https://example.com/org\"").start().await;
    let token = issuer.token().claim("https://example.com/org", json!(ORG_A.to_uppercase()));
    for (about, token) in [
        ("as it is", token.clone()),
        ("audience in an array", token.clone().claim("aud", json!(["authenticated"]))),
        (
            "without optional claims",
            token.clone().without("iat").without("session_id").without("is_anonymous"),
        ),
        ("long", token.clone().claim("user_metadata", json!({"bio": "x".repeat(6000)}))),
    ] {
        let answer = proxy.client().bearer(&token.sign()).get(QUERY).await;
        assert_eq!(answer.status, 200, "{about}: {answer:?}");
    }
    let tenants: Vec<_> =
        upstream.heads().iter().map(|head| head.headers["x-scope-orgid"].clone()).collect();
    assert_eq!(tenants, [ORG_A; 4]);
}

// A cached token must not outlive its expiry: no leeway beyond the configured one.
#[tokio::test(flavor = "multi_thread")]
async fn a_cached_token_ends_when_it_expires() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url())
        .set("auth.leeway", "\"0s\"")
        .start()
        .await;
    let client =
        proxy.client().bearer(&issuer.token().organisation(&json!(ORG_A)).expires_in(2).sign());
    assert_eq!(client.get(QUERY).await.status, 200);
    assert_eq!(client.get(QUERY).await.status, 200);
    assert!(
        proxy.metric("mimir_tenant_proxy_token_cache_lookups_total{outcome=\"hit\"}").await >= 1.0
    );
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let answer = client.get(QUERY).await;
    assert_eq!(answer.status, 401, "{answer:?}");
    assert!(answer.text.contains("expired"), "{answer:?}");
}
