//! A set of public keys (JWKS, RFC 7517), each bound to one algorithm.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

/// A key and the only algorithm that it is used with.
pub(super) struct VerificationKey {
    id: String,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
    /// The public numbers as they were published, to see whether a key is still the same.
    material: String,
    retired: AtomicBool,
}

impl VerificationKey {
    fn new(id: &str, algorithm: Algorithm, material: String, key: DecodingKey) -> Self {
        Self { id: id.to_owned(), algorithm, key, material, retired: AtomicBool::new(false) }
    }

    /// The legacy shared secret as a key. It is bound to HS256 and in no set.
    pub(super) fn shared_secret(secret: &[u8]) -> Self {
        Self::new(
            "shared secret",
            Algorithm::HS256,
            String::new(),
            DecodingKey::from_secret(secret),
        )
    }

    /// Whether the key has left the set: tokens that it signed are no longer believed.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    fn is_same(&self, other: &Self) -> bool {
        self.id == other.id && self.algorithm == other.algorithm && self.material == other.material
    }
}

/// The keys of one issuer at one time.
#[derive(Default)]
pub struct KeySet {
    keys: Vec<Arc<VerificationKey>>,
    /// What the document holds that is not used, and why.
    left_out: Vec<String>,
}

/// What a set says about a token's key.
pub(super) enum Lookup {
    Found(Arc<VerificationKey>),
    OtherAlgorithm,
    Unknown,
}

/// Keys in one document; Supabase has a handful, and looking one up is a walk along the list.
const MAX_KEYS: usize = 64;

#[derive(Deserialize)]
struct JwksDocument {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kid: Option<String>,
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a JWKS document. Only a document of another form is an error: one key that cannot be
    /// used is left out and does not spoil the others.
    pub fn parse(document: &[u8]) -> Result<Self, String> {
        let document: JwksDocument = serde_json::from_slice(document)
            .map_err(|error| format!("not a JSON web key set: {error}"))?;
        if document.keys.len() > MAX_KEYS {
            return Err(format!(
                "{} keys, of which at most {MAX_KEYS} are read",
                document.keys.len()
            ));
        }
        let mut set = Self::default();
        for (at, key) in document.keys.into_iter().enumerate() {
            let id = key.get("kid").and_then(|id| id.as_str()).unwrap_or("without kid").to_owned();
            match serde_json::from_value(key).map_err(|error| error.to_string()).and_then(read_key)
            {
                Ok(key) => set.keys.push(Arc::new(key)),
                Err(why) => set.left_out.push(format!("key {at} ({id}): {why}")),
            }
        }
        Ok(set)
    }

    pub(super) fn find(&self, id: &str, algorithm: Algorithm) -> Lookup {
        let mut lookup = Lookup::Unknown;
        for key in self.keys.iter().filter(|key| key.id == id) {
            if key.algorithm == algorithm {
                return Lookup::Found(Arc::clone(key));
            }
            lookup = Lookup::OtherAlgorithm;
        }
        lookup
    }

    /// Takes the place of an older set: keys that stay keep their identity, keys that have left
    /// are retired. Says whether anything changed.
    pub(super) fn succeed(&mut self, older: &Self) -> bool {
        let mut changed = self.keys.len() != older.keys.len();
        for key in &mut self.keys {
            match older.keys.iter().find(|old| old.is_same(key)) {
                Some(same) => *key = Arc::clone(same),
                None => changed = true,
            }
        }
        for old in &older.keys {
            if !self.keys.iter().any(|key| Arc::ptr_eq(key, old)) {
                old.retired.store(true, Ordering::Release);
                changed = true;
            }
        }
        changed
    }

    /// The number of usable keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key is usable.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What the document holds that is not used, and why.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }
}

fn read_key(jwk: Jwk) -> Result<VerificationKey, String> {
    if jwk.usage.as_deref() != Some("sig") {
        return Err("its use is not \"sig\"".to_owned());
    }
    let id = jwk.kid.as_deref().filter(|id| !id.is_empty()).ok_or("it has no kid")?;
    let algorithm = bound_algorithm(&jwk)?;
    let key = match jwk.kty.as_str() {
        "RSA" => {
            let (n, e) = jwk.n.as_deref().zip(jwk.e.as_deref()).ok_or("n or e is missing")?;
            let modulus = URL_SAFE_NO_PAD.decode(n).map_err(|_| "n is not base64url")?;
            if modulus.iter().skip_while(|byte| **byte == 0).count() < 256 {
                return Err("its modulus has fewer than 2048 bits".to_owned());
            }
            DecodingKey::from_rsa_components(n, e)
        }
        "EC" => {
            let (x, y) = jwk.x.as_deref().zip(jwk.y.as_deref()).ok_or("x or y is missing")?;
            DecodingKey::from_ec_components(x, y)
        }
        _ => DecodingKey::from_ed_components(jwk.x.as_deref().ok_or("x is missing")?),
    };
    let numbers =
        [&jwk.n, &jwk.e, &jwk.x, &jwk.y].map(|number| number.as_deref().unwrap_or_default());
    Ok(VerificationKey::new(
        id,
        algorithm,
        numbers.join("."),
        key.map_err(|error| error.to_string())?,
    ))
}

/// The one algorithm of a key. Symmetric keys never get in: a public document is no place for a
/// secret, and a set that mixes both is how algorithms get confused (CVE-2024-37568).
fn bound_algorithm(jwk: &Jwk) -> Result<Algorithm, String> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let allowed: &[Algorithm] = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("EC", Some("P-256")) => &[ES256],
        ("EC", Some("P-384")) => &[ES384],
        ("OKP", Some("Ed25519")) => &[EdDSA],
        // Without alg an RSA key is taken for RS256, the only RSA algorithm that all must know.
        ("RSA", _) => &[RS256, RS384, RS512, PS256, PS384, PS512],
        (kind, curve) => {
            return Err(format!("its type {kind} {} is not supported", curve.unwrap_or_default()));
        }
    };
    let Some(name) = jwk.alg.as_deref() else {
        return Ok(allowed[0]);
    };
    allowed
        .iter()
        .copied()
        .find(|algorithm| name.parse() == Ok(*algorithm))
        .ok_or_else(|| format!("its algorithm {name} does not fit its type {}", jwk.kty))
}
