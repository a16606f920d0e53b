//! The issuer's key set: rotation, outages, floods.

use std::time::Duration;

use harness::{
    Algorithm, Answer, Issuer, ORG_A, Proxy, ProxyOptions, SigningKey, Upstream, wait_until,
};
use serde_json::json;

use crate::support::responses::ok;

const QUERY: &str = "/prometheus/api/v1/query?query=up";

struct ProxyFixture {
    issuer: Issuer,
    _upstream: Upstream,
    proxy: Proxy,
}

/// A proxy with short intervals for the key set.
async fn proxy_fixture(settings: &[(&str, &str)]) -> ProxyFixture {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let proxy = start(&issuer, &upstream, settings).await;
    ProxyFixture { issuer, _upstream: upstream, proxy }
}

async fn start(issuer: &Issuer, upstream: &Upstream, settings: &[(&str, &str)]) -> Proxy {
    let options =
        ProxyOptions::new(&issuer.url(), &upstream.url()).set("auth.jwks_cool_down", "\"1s\"");
    settings.iter().fold(options, |options, (key, value)| options.set(key, value)).start().await
}

impl ProxyFixture {
    async fn query(&self, key: &SigningKey) -> Answer {
        let token = self.issuer.token().organisation(&json!(ORG_A)).signed_by(key).sign();
        self.proxy.client().bearer(&token).get(QUERY).await
    }
}

// Rotation as Supabase does it: a new key is published, and soon tokens are signed with it. The
// first such token is accepted immediately: its unknown kid triggers a fetch of the set.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_is_found_by_its_first_token() {
    let fixture = proxy_fixture(&[]).await;
    assert_eq!(fixture.query(&fixture.issuer.key).await.status, 200);
    let new = SigningKey::generate("key-2", Algorithm::ES256);
    fixture.issuer.publish(&[&fixture.issuer.key, &new]);
    tokio::time::sleep(Duration::from_millis(1100)).await; // the cool-down since start
    let answers = futures_util::future::join_all((0..30).map(|_| fixture.query(&new))).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(fixture.issuer.fetches(), 2, "thirty requests share one fetch");
}

// A withdrawn key stops working within the refresh interval, and so do cached tokens signed with
// it.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_key_stops_working_also_for_cached_tokens() {
    let fixture = proxy_fixture(&[("auth.jwks_refresh_interval", "\"1s\"")]).await;
    let new = SigningKey::generate("key-2", Algorithm::ES256);
    let client = fixture.proxy.client().bearer(&fixture.issuer.user_of(ORG_A));
    assert_eq!(client.get(QUERY).await.status, 200);
    fixture.issuer.publish(&[&new]);
    wait_until("the cached token is refused", Duration::from_secs(3), async || {
        client.get(QUERY).await.status == 401
    })
    .await;
    assert_eq!(fixture.query(&new).await.status, 200);
    // The same key, published again under the same name, is valid again.
    fixture.issuer.publish(&[&new, &fixture.issuer.key]);
    wait_until("the key is back", Duration::from_secs(3), async || {
        client.get(QUERY).await.status == 200
    })
    .await;
}

// A key that changes under the same name is a new key.
#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_key_of_the_same_name_retires_the_old_one() {
    let fixture = proxy_fixture(&[("auth.jwks_refresh_interval", "\"1s\"")]).await;
    let client = fixture.proxy.client().bearer(&fixture.issuer.user_of(ORG_A));
    assert_eq!(client.get(QUERY).await.status, 200);
    let replaced = SigningKey::generate("key-1", Algorithm::ES256);
    fixture.issuer.publish(&[&replaced]);
    wait_until("the old key is refused", Duration::from_secs(3), async || {
        client.get(QUERY).await.status == 401
    })
    .await;
    assert_eq!(fixture.query(&replaced).await.status, 200);
}

// VictoriaMetrics#10663: one unusable key broke the whole set.
#[tokio::test(flavor = "multi_thread")]
async fn one_bad_key_does_not_spoil_the_set() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let other = SigningKey::generate("other", Algorithm::RS256);
    let with = |key: &SigningKey, name: &str, value: serde_json::Value| {
        let mut public = key.public.clone();
        public[name] = value;
        public
    };
    let encryption = SigningKey::generate("encryption", Algorithm::ES256);
    let mismatched = SigningKey::generate("mismatched", Algorithm::ES256);
    let keys = json!({"keys": [
        with(&encryption, "use", json!("enc")), with(&mismatched, "alg", json!("RS256")),
        {"kty": "oct", "kid": "oct", "use": "sig", "alg": "HS256", "k": "c2VjcmV0"}, 7, null, {}, {"kty": "EC"},
        {"kty": "RSA", "kid": "short", "use": "sig", "alg": "RS256", "n": "AQAB", "e": "AQAB"},
        issuer.key.public, other.public,
    ]});
    issuer.publish_document(keys.to_string().as_bytes());
    let fixture =
        ProxyFixture { proxy: start(&issuer, &upstream, &[]).await, issuer, _upstream: upstream };
    assert_eq!(fixture.query(&fixture.issuer.key).await.status, 200);
    assert_eq!(fixture.query(&other).await.status, 200);
    assert_eq!(fixture.query(&encryption).await.status, 401);
    // Signed by a key of the issuer's that cannot be used: the token may be good, and a sender keeps its data.
    assert_eq!(fixture.query(&mismatched).await.status, 503);
    let symmetric = SigningKey::secret(b"secret").named("oct");
    assert_eq!(fixture.query(&symmetric).await.status, 401);
}

// Supabase Auth can sign with ES512. Every sender got 401, which they do not repeat.
#[tokio::test(flavor = "multi_thread")]
async fn a_set_of_nothing_but_unsupported_keys_is_no_fault_of_the_tokens() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let kind =
        json!({"kty": "EC", "crv": "P-521", "alg": "ES512", "kid": "large", "x": "AA", "y": "AA"});
    let secret = json!({"kty": "oct", "kid": "secret", "alg": "HS256", "k": "c2VjcmV0"});
    issuer.publish_document(json!({"keys": [kind, secret]}).to_string().as_bytes());
    let fixture =
        ProxyFixture { proxy: start(&issuer, &upstream, &[]).await, issuer, _upstream: upstream };
    let token = |header: serde_json::Value| {
        use base64::Engine as _;
        let encode = |text: String| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.AAAA", encode(header.to_string()), encode("{}".to_owned()))
    };
    let ask = async |header: serde_json::Value| {
        fixture.proxy.client().bearer(&token(header)).get(QUERY).await
    };
    let answer = ask(json!({"alg": "ES512", "kid": "large"})).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(!answer.header("retry-after").is_empty());
    assert!(answer.text.contains("cannot be used here"), "{answer:?}");
    for words in ["have the issuer sign with another key", "its type EC (P-521) is not supported"] {
        wait_until("the log says what to do", Duration::from_secs(5), async || {
            fixture.proxy.process.log().contains(words)
        })
        .await;
    }
    for header in [
        json!({"alg": "HS256", "kid": "secret"}),
        json!({"alg": "HS512", "kid": "large"}),
        json!({"alg": "none", "kid": "large"}),
        json!({"alg": "ES512"}),
    ] {
        let answer = ask(header.clone()).await;
        assert_eq!(answer.status, 401, "{header}: {answer:?}");
    }
}

// observatorium fetches again without a limit; others let one address block a rotation.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_unknown_keys_causes_one_fetch_a_cool_down() {
    let fixture = proxy_fixture(&[("auth.jwks_cool_down", "\"2s\"")]).await;
    let stranger = SigningKey::generate("x", Algorithm::ES256);
    let began = std::time::Instant::now();
    let flood = async {
        for round in 0..40 {
            let unknown = |number| stranger.clone().named(&format!("unknown-{round}-{number}"));
            let keys: Vec<_> = (0..10).map(unknown).collect();
            let answers =
                futures_util::future::join_all(keys.iter().map(|key| fixture.query(key))).await;
            // While it is unknown whether a key is new, the answer is not a 401.
            let is_right = |answer: &Answer| match answer.status.as_u16() {
                401 => true,
                503 => !answer.header("retry-after").is_empty(),
                _ => false,
            };
            assert!(answers.iter().all(is_right), "{answers:?}");
            assert_eq!(fixture.query(&fixture.issuer.key).await.status, 200);
        }
    };
    flood.await;
    let allowed = 2 + usize::try_from(began.elapsed().as_secs() / 2).unwrap();
    assert!(
        fixture.issuer.fetches() <= allowed,
        "{} fetches, {allowed} allowed",
        fixture.issuer.fetches()
    );
    // The flood does not block a rotation: the new key is known after one cool-down.
    let new = SigningKey::generate("key-2", Algorithm::ES256);
    fixture.issuer.publish(&[&fixture.issuer.key, &new]);
    wait_until("the new key is known", Duration::from_secs(5), async || {
        let _ = fixture
            .query(&stranger.clone().named(&format!("unknown-{}", fixture.issuer.fetches())))
            .await;
        fixture.query(&new).await.status == 200
    })
    .await;
}

// An empty key set is valid; a project on HS256 has one.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_key_set_does_not_get_round_the_cool_down() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    issuer.publish(&[]);
    let fixture = ProxyFixture {
        proxy: start(&issuer, &upstream, &[("auth.jwks_cool_down", "\"60s\"")]).await,
        issuer,
        _upstream: upstream,
    };
    wait_until("the first fetch", Duration::from_secs(5), async || fixture.issuer.fetches() == 1)
        .await;
    // The first request triggers a fetch and gets its result; later ones may have a newer key.
    assert_eq!(fixture.query(&fixture.issuer.key).await.status, 401);
    for _ in 0..50 {
        assert_eq!(fixture.query(&fixture.issuer.key).await.status, 503);
    }
    assert_eq!(fixture.issuer.fetches(), 2);
}

// An issuer, or a cache before it, answers {"keys": []} for a moment. docs/decisions/0004.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_set_that_is_empty_for_a_moment_costs_no_401() {
    let fixture = proxy_fixture(&[]).await;
    let key = fixture.issuer.key.clone();
    let cached = fixture.proxy.client().bearer(&fixture.issuer.user_of(ORG_A));
    assert_eq!(cached.get(QUERY).await.status, 200);
    tokio::time::sleep(Duration::from_millis(1100)).await; // the cool-down since start
    let stranger = SigningKey::generate("x", Algorithm::ES256);
    fixture.issuer.publish(&[]);
    let fetches = fixture.issuer.fetches();
    assert_eq!(fixture.query(&stranger).await.status, 503);
    // Two empty sets: the second is fetched for the tokens that have lost their key.
    wait_until("a second empty set", Duration::from_secs(10), async || {
        for answer in [fixture.query(&key).await, cached.get(QUERY).await] {
            assert_eq!(answer.status, 503, "{answer:?}");
            assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
        }
        fixture.issuer.fetches() >= fetches + 2
    })
    .await;
    fixture.issuer.publish(&[&key]);
    wait_until("the key is back", Duration::from_secs(10), async || {
        let answer = fixture.query(&key).await;
        assert!(answer.status == 200 || answer.status == 503, "{answer:?}");
        answer.status == 200
    })
    .await;
    assert_eq!(cached.get(QUERY).await.status, 200);
}

// The issuer means it: a project that signs with its legacy secret from now on.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_set_that_stays_empty_is_believed() {
    let fixture = proxy_fixture(&[("auth.jwks_refresh_interval", "\"1s\"")]).await;
    let key = fixture.issuer.key.clone();
    assert_eq!(fixture.query(&key).await.status, 200);
    fixture.issuer.publish(&[]);
    wait_until("its key is refused", Duration::from_secs(10), async || {
        fixture.query(&key).await.status == 401
    })
    .await;
}

// One forgotten device with an old token must not cause fetches for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_seen_to_be_absent_causes_no_more_fetches() {
    let fixture = proxy_fixture(&[("auth.jwks_cool_down", "\"100ms\"")]).await;
    let old = SigningKey::generate("old", Algorithm::ES256);
    tokio::time::sleep(Duration::from_millis(150)).await;
    for _ in 0..10 {
        assert_eq!(fixture.query(&old).await.status, 401);
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    assert_eq!(fixture.issuer.fetches(), 2);
}

// A 401 while the key set is unavailable loses telemetry.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_outage_is_a_503_and_never_a_401() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    issuer.answer_with(500);
    let fixture =
        ProxyFixture { proxy: start(&issuer, &upstream, &[]).await, issuer, _upstream: upstream };
    for _ in 0..5 {
        let answer = fixture.query(&fixture.issuer.key).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
    }
    // A credential that no key could verify is still a 401.
    assert_eq!(fixture.proxy.client().bearer("garbage").get(QUERY).await.status, 401);
    // It recovers by itself.
    fixture.issuer.answer_with(200);
    wait_until("the keys are back", Duration::from_secs(10), async || {
        fixture.query(&fixture.issuer.key).await.status == 200
    })
    .await;
    // In the next outage known tokens continue to work, and unknown ones get 503.
    for (status, document) in [(500, None), (200, Some(&b"<html>gateway</html>"[..])), (302, None)]
    {
        fixture.issuer.answer_with(status);
        if let Some(document) = document {
            fixture.issuer.publish_document(document);
        }
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let unknown = SigningKey::generate(&format!("new-{status}"), Algorithm::ES256);
        assert_eq!(fixture.query(&unknown).await.status, 503, "{status}");
        assert_eq!(fixture.query(&fixture.issuer.key).await.status, 200, "{status}");
    }
    assert!(
        fixture.proxy.metric("mimir_tenant_proxy_key_set_fetches_total{outcome=\"failed\"}").await
            >= 4.0
    );
    assert!(fixture.proxy.metric("mimir_tenant_proxy_key_set_age_seconds").await > 3.0);
}

// Keys are kept through an outage up to a configured age, also for cached tokens.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_too_old_are_no_longer_trusted() {
    let settings = [("auth.jwks_refresh_interval", "\"500ms\""), ("auth.jwks_max_age", "\"2s\"")];
    let fixture = proxy_fixture(&settings).await;
    let cached = fixture.proxy.client().bearer(&fixture.issuer.user_of(ORG_A));
    assert_eq!(cached.get(QUERY).await.status, 200);
    fixture.issuer.answer_with(500);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cached.get(QUERY).await.status, 200);
    wait_until("a cached token meets 503", Duration::from_secs(5), async || {
        cached.get(QUERY).await.status == 503
    })
    .await;
    assert_eq!(fixture.query(&fixture.issuer.key).await.status, 503);
    fixture.issuer.answer_with(200);
    wait_until("it is back", Duration::from_secs(5), async || {
        cached.get(QUERY).await.status == 200
    })
    .await;
}

// A slow issuer delays no caller whose key is known, and an endless document is not read.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_or_endless_issuer_is_an_outage() {
    let fixture = proxy_fixture(&[("auth.jwks_fetch_timeout", "\"500ms\"")]).await;
    assert_eq!(fixture.query(&fixture.issuer.key).await.status, 200);
    fixture.issuer.delay(Duration::from_secs(30));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let unknown = SigningKey::generate("new", Algorithm::ES256);
    let fetches = fixture.issuer.fetches();
    let timed = async |key: &SigningKey| {
        let began = std::time::Instant::now();
        (fixture.query(key).await, began.elapsed())
    };
    let ((slow, slow_took), (fast, fast_took)) = tokio::join!(timed(&unknown), async {
        // Not before the fetch for the unknown key has begun.
        wait_until("it is fetched", Duration::from_secs(5), async || {
            fixture.issuer.fetches() > fetches
        })
        .await;
        timed(&fixture.issuer.key).await
    });
    assert_eq!(slow.status, 503, "{slow:?}");
    assert_eq!(fast.status, 200, "{fast:?}");
    // The fetch takes its whole timeout, and the known key waits for none of it.
    assert!(slow_took >= Duration::from_millis(450), "{slow_took:?}");
    assert!(fast_took < slow_took / 2, "{fast_took:?} beside {slow_took:?}");
    fixture.issuer.delay(Duration::ZERO);
    fixture.issuer.publish_document(format!("{{\"keys\":[{}1]}}", "1,".repeat(1 << 20)).as_bytes());
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(fixture.query(&unknown).await.status, 503);
    assert_eq!(fixture.query(&fixture.issuer.key).await.status, 200);
}

// A key is published during the cool-down that an unknown caller's key began. It cannot be known
// yet, so its first pushes get 503, and they are accepted soon, whatever the unknown caller sends
// meanwhile. docs/decisions/0004.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_within_an_unknown_callers_cool_down_loses_nothing() {
    let fixture = proxy_fixture(&[("auth.jwks_cool_down", "\"2s\"")]).await;
    let stranger = SigningKey::generate("x", Algorithm::ES256);
    assert_eq!(fixture.query(&stranger.clone().named("first")).await.status, 401);
    let new = SigningKey::generate("key-2", Algorithm::ES256);
    fixture.issuer.publish(&[&fixture.issuer.key, &new]);
    let began = std::time::Instant::now();
    let first = fixture.query(&new).await;
    assert_eq!(first.status, 503, "{first:?}");
    let wait: u64 = first.header("retry-after").parse().unwrap();
    // The end of the cool-down, and what spreads those that wait for it.
    assert!((2..=6).contains(&wait), "{first:?}");
    let mut number = 0;
    loop {
        number += 1;
        let _ = fixture.query(&stranger.clone().named(&format!("flood-{number}"))).await;
        let answer = fixture.query(&new).await;
        if answer.status == 200 {
            break;
        }
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(began.elapsed() < Duration::from_secs(4), "one cool-down and one fetch");
    }
    println!("let in after {:?}, beside {number} strangers", began.elapsed());
    // A single request is enough to trigger the fetch: the key is there for the retry.
    let third = SigningKey::generate("key-3", Algorithm::ES256);
    fixture.issuer.publish(&[&fixture.issuer.key, &third]);
    assert_eq!(fixture.query(&third).await.status, 503);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let fetches = fixture.issuer.fetches();
    assert_eq!(fixture.query(&third).await.status, 200);
    assert_eq!(fixture.issuer.fetches(), fetches);
}

// RFC 7517, 4.2: `use` is optional. RFC 7518, 6.3.1: no leading zeros, which DER has and some
// issuers copy. Unusable keys are logged with the reason.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_set_is_read_as_other_issuers_write_it() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let plain = SigningKey::generate("plain", Algorithm::ES256);
    let rsa = SigningKey::generate("rsa", Algorithm::RS256);
    let enc = SigningKey::generate("enc", Algorithm::ES256);
    let mut keys = [plain.public.clone(), rsa.public.clone(), enc.public.clone()];
    for key in &mut keys {
        key.as_object_mut().unwrap().remove("use");
    }
    let n = URL_SAFE_NO_PAD.decode(rsa.public["n"].as_str().unwrap()).unwrap();
    keys[1]["n"] = json!(URL_SAFE_NO_PAD.encode([&[0][..], &n].concat()));
    keys[2]["key_ops"] = json!(["encrypt"]);
    issuer.publish_document(json!({ "keys": keys }).to_string().as_bytes());
    let settings = [("auth.jwks_refresh_interval", "\"500ms\"")];
    let proxy = start(&issuer, &upstream, &settings).await;
    let fixture = ProxyFixture { proxy, issuer, _upstream: upstream };
    assert_eq!(fixture.query(&plain).await.status, 200);
    assert_eq!(fixture.query(&rsa).await.status, 200);
    assert_ne!(fixture.query(&enc).await.status, 200);
    let log = || fixture.proxy.process.log();
    let reason = "its key_ops do not hold";
    wait_until("the reason is in the log", Duration::from_secs(3), async || log().contains(reason))
        .await;
    // Fewer keys than before, and then none.
    let lines = |message: &str| log().lines().filter(|line| line.contains(message)).count();
    fixture.issuer.publish_document(json!({ "keys": &keys[1..] }).to_string().as_bytes());
    wait_until("fewer", Duration::from_secs(3), async || lines("fewer usable keys") > 0).await;
    fixture.issuer.publish_document(json!({ "keys": &keys[2..] }).to_string().as_bytes());
    wait_until("none", Duration::from_secs(3), async || lines("no usable key") > 1).await;
    assert_eq!(lines("fewer usable keys"), 1);
    let all = log();
    let none = all.lines().find(|line| line.contains("no usable key")).unwrap();
    assert!(none.contains(reason), "{none}");
}

// Rotation of the legacy secret: tokens of both are valid meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_any_of_several_shared_secrets_are_good() {
    let (new, old) = ("a-new-secret-of-more-than-32-bytes!", "an-old-secret-of-more-than-32-bytes");
    for value in [format!("[{new:?}, {old:?}]"), format!("{:?}", format!("{new} {old}"))] {
        let fixture = proxy_fixture(&[("auth.hs256_secret", value.as_str())]).await;
        for secret in [new, old] {
            let key = SigningKey::secret(secret.as_bytes());
            assert_eq!(fixture.query(&key).await.status, 200, "{value}");
        }
        let other = SigningKey::secret(b"another-secret-of-more-than-32-bytes");
        assert_eq!(fixture.query(&other).await.status, 401);
    }
}
