//! A set of public keys (JWKS, RFC 7517), each bound to one algorithm.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::jws::Named;

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

    /// Whether the key has left the set: its tokens are refused from then on.
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
    /// The names of those that are not meant to verify a signature of a token.
    other_ids: Vec<String>,
    /// The names of those that are, and that cannot be used here.
    unusable_ids: Vec<String>,
}

/// What a set says about a token's key.
pub(super) enum Lookup {
    Found(Arc<VerificationKey>),
    OtherAlgorithm,
    /// The issuer has such a key, and it cannot be used here.
    Unusable,
    Unknown,
}

/// Keys in one document; Supabase has a handful, and looking one up is a walk along the list.
const MAX_KEYS: usize = 64;

#[derive(Deserialize)]
struct Jwk {
    kid: Option<String>,
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
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
        let keys = read_document(document)?;
        if keys.len() > MAX_KEYS {
            return Err(format!("{} keys, of which at most {MAX_KEYS} are read", keys.len()));
        }
        let mut set = Self::default();
        for (at, key) in keys.into_iter().enumerate() {
            let name = key.get("kid").and_then(|id| id.as_str()).unwrap_or_default().to_owned();
            // What is logged of a remote document stays short.
            let id: String = match name.as_str() {
                "" => "without kid".to_owned(),
                name => name.chars().take(80).collect(),
            };
            let is_other = is_for_something_else(&key);
            let read = if key.is_object() {
                serde_json::from_value(key).map_err(|error| error.to_string()).and_then(read_key)
            } else {
                Err("it is no JSON object".to_owned())
            };
            match read {
                // Twice the same key is one: the second would be retired by the next document, and every
                // document would be a change.
                Ok(key) if set.keys.iter().any(|other| other.is_same(&key)) => {}
                Ok(key) => set.keys.push(Arc::new(key)),
                Err(why) => {
                    set.left_out.push(format!("key {at} ({id}): {why}"));
                    if is_other { &mut set.other_ids } else { &mut set.unusable_ids }.push(name);
                }
            }
        }
        Ok(set)
    }

    /// The name and the algorithm of each key.
    pub(super) fn names(&self) -> impl Iterator<Item = (&str, Algorithm)> {
        self.keys.iter().map(|key| (key.id.as_str(), key.algorithm))
    }

    pub(super) fn find(&self, id: &str, algorithm: Named) -> Lookup {
        let is_unusable = !id.is_empty() && self.unusable_ids.iter().any(|one| one == id);
        let mut lookup = if is_unusable { Lookup::Unusable } else { Lookup::Unknown };
        for key in self.keys.iter().filter(|key| key.id == id) {
            if Named::Known(key.algorithm) == algorithm {
                return Lookup::Found(Arc::clone(key));
            }
            if !is_unusable {
                lookup = Lookup::OtherAlgorithm;
            }
        }
        lookup
    }

    /// Takes the place of an older set: keys that stay keep their identity, keys that have left
    /// are retired. Says whether anything changed.
    pub(super) fn succeed(&mut self, older: &Self) -> bool {
        let mut changed = self.keys.len() != older.keys.len() || self.left_out != older.left_out;
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

    /// Whether a key of this name is in the set and is for something else.
    pub(super) fn leaves_out(&self, id: &str) -> bool {
        self.other_ids.iter().any(|one| one == id)
    }

    /// The names of the usable keys.
    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| key.id.as_str())
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What the document holds that is not used, and why.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }
}

/// The keys of a document, or what it is instead of a set, in words that say what is to be done.
fn read_document(document: &[u8]) -> Result<Vec<Value>, String> {
    const FORM: &str = "a JSON web key set is an object {\"keys\": [...]}";
    if document.trim_ascii_start().starts_with(b"-----BEGIN") {
        return Err(format!("a PEM file; {FORM}, as served at <issuer>/.well-known/jwks.json"));
    }
    let value: Value = serde_json::from_slice(document)
        .map_err(|error| format!("not a JSON web key set: {error}"))?;
    match value {
        Value::Object(mut set) => match set.remove("keys") {
            Some(Value::Array(keys)) => Ok(keys),
            Some(_) => Err(format!("its \"keys\" is no list; {FORM}")),
            None if set.contains_key("kty") => {
                Err(format!("a single key; {FORM}: put it into the list"))
            }
            None => Err(format!("an object without \"keys\"; {FORM}")),
        },
        Value::Array(_) => Err(format!("a list; {FORM}: put the list under \"keys\"")),
        _ => Err(format!("not a JSON web key set: {FORM}")),
    }
}

/// Whether the issuer says of a key that it verifies no token, or it is a secret, which nobody may publish. Of another
/// key that cannot be used, the tokens may be good.
fn is_for_something_else(key: &Value) -> bool {
    let is_for_signatures = |usage: &Value| usage.is_null() || usage == "sig";
    let holds_verify = |ops: &Value| match ops {
        Value::Array(ops) => ops.iter().any(|op| op == "verify"),
        other => other.is_null(),
    };
    let says = |name: &str, is_for_tokens: &dyn Fn(&Value) -> bool| {
        key.get(name).is_some_and(|value| !is_for_tokens(value))
    };
    says("use", &is_for_signatures)
        || says("key_ops", &holds_verify)
        || key.get("kty").is_some_and(|kind| kind == "oct")
}

fn read_key(jwk: Jwk) -> Result<VerificationKey, String> {
    // RFC 7517, 4.2 and 4.3: both are optional.
    if let Some(usage) = jwk.usage.as_deref().filter(|usage| *usage != "sig") {
        return Err(format!("its use is {:?} and not \"sig\"", short(usage)));
    }
    if jwk.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
        return Err("its key_ops do not hold \"verify\"".to_owned());
    }
    let id = jwk.kid.as_deref().filter(|id| !id.is_empty()).ok_or("it has no kid")?;
    let algorithm = bound_algorithm(&jwk)?;
    let (numbers, key) = match jwk.kty.as_str() {
        "RSA" => rsa(&jwk),
        "EC" => elliptic(&jwk, algorithm),
        _ => edwards(&jwk),
    }?;
    Ok(VerificationKey::new(id, algorithm, numbers, key))
}

/// A public key, and its numbers in one spelling, by which it is recognised.
type Material = (String, DecodingKey);

/// An RSA key. RFC 7518, 6.3.1: the numbers have no leading zero bytes; some libraries write one
/// (DER's sign), and with it no signature would fit.
fn rsa(jwk: &Jwk) -> Result<Material, String> {
    let n = without_leading_zeros(&number("n", jwk.n.as_deref())?).to_vec();
    let e = without_leading_zeros(&number("e", jwk.e.as_deref())?).to_vec();
    let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
    if bits < 2048 {
        return Err(format!("its modulus has {bits} bits, fewer than 2048"));
    }
    if bits > 8192 {
        return Err(format!("its modulus has {bits} bits, more than 8192"));
    }
    if n.last().is_none_or(|last| last % 2 == 0) {
        return Err("n is even, which no RSA modulus is".to_owned());
    }
    // With 1 every text is its own signature.
    let is_plausible = e.len() <= 4 && e.last().is_some_and(|last| last % 2 == 1) && e != [1];
    if !is_plausible {
        return Err("e must be odd and from 3 to 2^32".to_owned());
    }
    let (n, e) = (URL_SAFE_NO_PAD.encode(n), URL_SAFE_NO_PAD.encode(e));
    let key = DecodingKey::from_rsa_components(&n, &e).map_err(|error| error.to_string())?;
    Ok((format!("{n}.{e}"), key))
}

/// A key on one of NIST's curves. RFC 7518, 6.2.1.2: a coordinate is as long as the curve's size;
/// some libraries leave leading zeros out, others write one more.
fn elliptic(jwk: &Jwk, algorithm: Algorithm) -> Result<Material, String> {
    let (length, on_curve) = match algorithm {
        Algorithm::ES384 => (48, &ECDSA_P384_SHA384_FIXED),
        _ => (32, &ECDSA_P256_SHA256_FIXED),
    };
    let x = of_length("x", &number("x", jwk.x.as_deref())?, length)?;
    let y = of_length("y", &number("y", jwk.y.as_deref())?, length)?;
    // X9.62: an uncompressed point.
    let point = [&[4_u8][..], &x, &y].concat();
    ParsedPublicKey::new(on_curve, point).map_err(|_| "x and y are no point of its curve")?;
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    let key = DecodingKey::from_ec_components(&x, &y).map_err(|error| error.to_string())?;
    Ok((format!("{x}.{y}"), key))
}

/// An Ed25519 key. RFC 8032, 5.1.2: 32 bytes, little end first, so that none is to spare.
fn edwards(jwk: &Jwk) -> Result<Material, String> {
    let x = number("x", jwk.x.as_deref())?;
    if x.len() != 32 {
        return Err(format!("x has {} bytes and must have 32", x.len()));
    }
    ParsedPublicKey::new(&ED25519, &x).map_err(|_| "x is no point of its curve")?;
    let x = URL_SAFE_NO_PAD.encode(x);
    let key = DecodingKey::from_ed_components(&x).map_err(|error| error.to_string())?;
    Ok((x, key))
}

/// The bytes of a number. Padding and the alphabet of plain base64 are understood, for the number is
/// the same.
fn number(name: &str, text: Option<&str>) -> Result<Vec<u8>, String> {
    let text = text.filter(|text| !text.is_empty()).ok_or(format!("{name} is missing"))?;
    let text = text.trim_end_matches('=').replace('+', "-").replace('/', "_");
    URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("{name} is not base64url"))
}

fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn of_length(name: &str, number: &[u8], length: usize) -> Result<Vec<u8>, String> {
    let number = without_leading_zeros(number);
    let missing = length
        .checked_sub(number.len())
        .ok_or_else(|| format!("{name} has {} bytes and must have {length}", number.len()))?;
    Ok([vec![0; missing], number.to_vec()].concat())
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
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
            let (kind, curve) = (short(kind), short(curve.unwrap_or("without a curve")));
            return Err(format!("its type {kind} ({curve}) is not supported"));
        }
    };
    let Some(name) = jwk.alg.as_deref() else {
        return Ok(allowed[0]);
    };
    allowed
        .iter()
        .copied()
        .find(|algorithm| name.parse() == Ok(*algorithm))
        .ok_or_else(|| format!("its algorithm {:?} does not fit its type {}", short(name), jwk.kty))
}

#[cfg(test)]
mod tests;
