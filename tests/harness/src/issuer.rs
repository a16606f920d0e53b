//! An issuer of Supabase-shaped tokens: it publishes a key set over HTTP and mints tokens with
//! any algorithm, any header and any claim, right or wrong.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
pub use jsonwebtoken::Algorithm;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::jwk::Jwk;
use serde_json::{Map, Value, json};

use crate::upstream::Upstream;

/// A key that can sign, and its public half.
#[derive(Clone)]
pub struct SigningKey {
    /// `kid`.
    pub id: String,
    /// The algorithm that it signs with.
    pub algorithm: Algorithm,
    key: EncodingKey,
    /// As it stands in a key set.
    pub public: Value,
}

impl SigningKey {
    /// Makes a new key.
    pub fn generate(id: &str, algorithm: Algorithm) -> Self {
        use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512};
        let ec = |signing| {
            let pkcs8 = EcdsaKeyPair::generate(signing).expect("key").to_pkcs8v1().expect("key");
            EncodingKey::from_ec_der(pkcs8.as_ref())
        };
        let key = match algorithm {
            ES256 => ec(&ECDSA_P256_SHA256_FIXED_SIGNING),
            ES384 => ec(&ECDSA_P384_SHA384_FIXED_SIGNING),
            EdDSA => {
                let pkcs8 = Ed25519KeyPair::generate().expect("key").to_pkcs8v1().expect("key");
                EncodingKey::from_ed_der(pkcs8.as_ref())
            }
            HS256 | HS384 | HS512 => panic!("use SigningKey::secret"),
            _ => rsa(aws_lc_rs::rsa::KeySize::Rsa2048),
        };
        Self::with(id, algorithm, key)
    }

    fn with(id: &str, algorithm: Algorithm, key: EncodingKey) -> Self {
        let jwk = Jwk::from_encoding_key(&key, algorithm).expect("public key");
        let mut public = serde_json::to_value(jwk).expect("public key");
        // What Supabase publishes beside the numbers.
        public["kid"] = json!(id);
        public["use"] = json!("sig");
        public["key_ops"] = json!(["verify"]);
        public["ext"] = json!(true);
        Self { id: id.to_owned(), algorithm, key, public }
    }

    /// The same key by another name.
    #[must_use]
    pub fn named(mut self, id: &str) -> Self {
        self.public["kid"] = json!(id);
        self.id = id.to_owned();
        self
    }

    /// The signature of a token whose first two parts are these, in base64url.
    pub fn signature_of(&self, message: &str) -> String {
        jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, self.algorithm)
            .expect("signature")
    }

    /// A shared secret for HS256.
    pub fn secret(secret: &[u8]) -> Self {
        let (key, algorithm) = (EncodingKey::from_secret(secret), Algorithm::HS256);
        Self { id: "legacy".to_owned(), algorithm, key, public: json!({}) }
    }
}

fn rsa(size: aws_lc_rs::rsa::KeySize) -> EncodingKey {
    let pair = aws_lc_rs::rsa::KeyPair::generate(size).expect("key");
    let pkcs8: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().expect("key");
    let text = STANDARD.encode(pkcs8.as_ref());
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let pem =
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
    EncodingKey::from_rsa_pem(pem.as_bytes()).expect("key")
}

/// A running issuer.
pub struct Issuer {
    server: Upstream,
    state: Arc<State>,
    /// The key with which tokens are signed unless they say otherwise.
    pub key: SigningKey,
}

struct State {
    document: Mutex<Bytes>,
    status: AtomicUsize,
    delay_ms: AtomicU64,
    fetches: AtomicUsize,
}

impl Issuer {
    /// Starts an issuer with one ES256 key, as a new Supabase project has.
    pub async fn start() -> Self {
        let key = SigningKey::generate("key-1", Algorithm::ES256);
        let state = Arc::new(State {
            document: Mutex::new(document(&[&key.public])),
            status: AtomicUsize::new(200),
            delay_ms: AtomicU64::new(0),
            fetches: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&state);
        let server = Upstream::start(move |request| {
            let state = Arc::clone(&shared);
            async move {
                if request.target != "/auth/v1/.well-known/jwks.json" || request.method != "GET" {
                    return response(StatusCode::NOT_FOUND, Bytes::new());
                }
                state.fetches.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(state.delay_ms.load(Ordering::SeqCst)))
                    .await;
                let status = u16::try_from(state.status.load(Ordering::SeqCst)).unwrap_or(500);
                let document = state.document.lock().unwrap().clone();
                response(StatusCode::from_u16(status).unwrap(), document)
            }
        })
        .await;
        Self { server, state, key }
    }

    /// `iss`, and the base of the key set's address.
    pub fn url(&self) -> String {
        format!("{}/auth/v1", self.server.url())
    }

    /// Publishes these keys and no others.
    pub fn publish(&self, keys: &[&SigningKey]) {
        let keys: Vec<&Value> = keys.iter().map(|key| &key.public).collect();
        self.publish_document(&document(&keys));
    }

    /// Publishes any document.
    pub fn publish_document(&self, document: &[u8]) {
        *self.state.document.lock().unwrap() = Bytes::copy_from_slice(document);
    }

    /// Answers with this status from now on.
    pub fn answer_with(&self, status: u16) {
        self.state.status.store(usize::from(status), Ordering::SeqCst);
    }

    /// Answers this much later from now on.
    pub fn delay(&self, delay: Duration) {
        self.state.delay_ms.store(u64::try_from(delay.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// How often the key set has been fetched.
    pub fn fetches(&self) -> usize {
        self.state.fetches.load(Ordering::SeqCst)
    }

    /// A token of a user, in no organisation yet.
    pub fn token(&self) -> TokenBuilder {
        TokenBuilder::new(&self.key, &self.url())
    }

    /// A token of a user of one organisation.
    pub fn user_of(&self, organisation: &str) -> String {
        self.token().organisation(&json!(organisation)).sign()
    }
}

fn document(keys: &[&Value]) -> Bytes {
    json!({ "keys": keys }).to_string().into()
}

fn response(
    status: StatusCode,
    body: Bytes,
) -> Response<http_body_util::combinators::BoxBody<Bytes, std::io::Error>> {
    use http_body_util::BodyExt as _;
    let body = Full::new(body).map_err(|never| match never {}).boxed();
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.header("cache-control", "public, max-age=600").body(body).expect("response")
}

/// A token in the making. Everything can be changed, and everything starts as Supabase has it.
#[derive(Clone)]
pub struct TokenBuilder {
    key: SigningKey,
    header: Map<String, Value>,
    claims: Map<String, Value>,
}

impl TokenBuilder {
    /// A user's token, signed by a key.
    pub fn new(key: &SigningKey, issuer: &str) -> Self {
        let now = now();
        let claims = json!({
            "aal": "aal1", "amr": [{"method": "password", "timestamp": now}],
            "app_metadata": {"provider": "email", "providers": ["email"]},
            "aud": "authenticated", "email": "user@example.com", "exp": now + 3600, "iat": now,
            "is_anonymous": false, "iss": issuer, "phone": "", "role": "authenticated",
            "session_id": uuid::Uuid::new_v4().to_string(), "sub": uuid::Uuid::new_v4().to_string(),
            "user_metadata": {},
        });
        let builder = Self {
            key: key.clone(),
            header: Map::new(),
            claims: claims.as_object().unwrap().clone(),
        };
        builder.signed_by(key)
    }

    /// Puts an organisation, or an array of them, into `app_metadata.org_id`.
    #[must_use]
    pub fn organisation(mut self, organisation: &Value) -> Self {
        self.claims["app_metadata"]["org_id"] = organisation.clone();
        self
    }

    /// Sets a claim.
    #[must_use]
    pub fn claim(mut self, name: &str, value: Value) -> Self {
        self.claims.insert(name.to_owned(), value);
        self
    }

    /// Removes a claim.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// Makes the token valid for this many seconds from now, or invalid since as many.
    #[must_use]
    pub fn expires_in(self, seconds: i64) -> Self {
        let now = now();
        self.claim("exp", json!(now + seconds)).claim("iat", json!(now + seconds.min(0) - 60))
    }

    /// Sets a field of the header.
    #[must_use]
    pub fn header(mut self, name: &str, value: Value) -> Self {
        self.header.insert(name.to_owned(), value);
        self
    }

    /// Signs by another key, and says so in the header.
    #[must_use]
    pub fn signed_by(mut self, key: &SigningKey) -> Self {
        self.key = key.clone();
        let algorithm = serde_json::to_value(key.algorithm).expect("algorithm");
        self.header("typ", json!("JWT")).header("alg", algorithm).header("kid", json!(key.id))
    }

    /// Its claims as they are now.
    pub fn claims(&self) -> Value {
        Value::Object(self.claims.clone())
    }

    /// The token.
    pub fn sign(&self) -> String {
        let message = self.message();
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &self.key.key, self.key.algorithm)
                .expect("signature");
        format!("{message}.{signature}")
    }

    /// The token with a signature of one's own choice.
    pub fn with_signature(&self, signature: &str) -> String {
        format!("{}.{signature}", self.message())
    }

    fn message(&self) -> String {
        let part = |map: &Map<String, Value>| {
            URL_SAFE_NO_PAD.encode(Value::Object(map.clone()).to_string())
        };
        format!("{}.{}", part(&self.header), part(&self.claims))
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock");
    i64::try_from(since.as_secs()).expect("clock")
}
