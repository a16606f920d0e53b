use super::*;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _,
};
use proptest::prelude::*;
use serde_json::json;

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn read(key: &Value) -> Result<VerificationKey, String> {
    serde_json::from_value(key.clone()).map_err(|error| error.to_string()).and_then(read_key)
}

/// A key of P-256 or P-384: its coordinates, its signature of `signed`, and its pair.
struct Elliptic {
    x: Vec<u8>,
    y: Vec<u8>,
    pair: EcdsaKeyPair,
    curve: &'static str,
}

fn elliptic_key(curve: &'static str) -> Elliptic {
    let signing = match curve {
        "P-384" => &ECDSA_P384_SHA384_FIXED_SIGNING,
        _ => &ECDSA_P256_SHA256_FIXED_SIGNING,
    };
    let pair = EcdsaKeyPair::generate(signing).unwrap();
    let point = pair.public_key().as_ref()[1..].to_vec();
    let (x, y) = point.split_at(point.len() / 2);
    Elliptic { x: x.to_vec(), y: y.to_vec(), pair, curve }
}

impl Elliptic {
    fn jwk(&self, x: &[u8], y: &[u8]) -> Value {
        json!({"kty": "EC", "crv": self.curve, "kid": "a", "x": encode(x), "y": encode(y)})
    }

    /// Whether a key that was read verifies what this one has signed.
    fn fits(&self, key: &VerificationKey) -> bool {
        let signature = self.pair.sign(&SystemRandom::new(), b"signed").unwrap();
        let signature = encode(signature.as_ref());
        jsonwebtoken::crypto::verify(&signature, b"signed", &key.key, key.algorithm).unwrap()
    }
}

// Found by fuzzing: the same document was a change again and again.
#[test]
fn a_key_that_is_listed_twice_is_one_key() {
    let curve = elliptic_key("P-256");
    let key = curve.jwk(&curve.x, &curve.y);
    let document = json!({"keys": [key, key]}).to_string();
    let read = || KeySet::parse(document.as_bytes()).unwrap();
    let (mut set, older) = (read(), read());
    assert_eq!(set.len(), 1);
    assert!(!set.succeed(&older));
    assert!(older.keys.iter().all(|key| !key.is_retired()));
}

// RFC 7517, 4.2 and 4.3: `use` and `key_ops` are optional.
#[test]
fn what_a_key_is_for_may_be_left_out() {
    let curve = elliptic_key("P-256");
    let with = |name: &str, value: Value| {
        let mut jwk = curve.jwk(&curve.x, &curve.y);
        jwk[name] = value;
        read(&jwk).err()
    };
    assert!(read(&curve.jwk(&curve.x, &curve.y)).is_ok());
    assert_eq!(with("use", json!("sig")), None);
    assert_eq!(with("use", json!(null)), None);
    assert_eq!(with("key_ops", json!(["verify"])), None);
    assert_eq!(with("key_ops", json!(["sign", "verify"])), None);
    for (name, value) in [
        ("use", json!("enc")),
        ("use", json!("")),
        ("use", json!(7)),
        ("key_ops", json!(["encrypt"])),
        ("key_ops", json!([])),
        ("key_ops", json!("verify")),
    ] {
        assert!(with(name, value.clone()).is_some(), "{name} {value}");
    }
    let mut both = curve.jwk(&curve.x, &curve.y);
    both["use"] = json!("enc");
    both["key_ops"] = json!(["verify"]);
    assert!(read(&both).is_err());
}

// RFC 7518, 6.2.1.2, which libraries get wrong in both directions: a number is a number.
#[test]
fn coordinates_may_have_too_many_or_too_few_zeros() {
    for curve in ["P-256", "P-384"] {
        // One in 256 begins with a zero byte.
        let short =
            std::iter::repeat_with(|| elliptic_key(curve)).find(|key| key.x[0] == 0).unwrap();
        let plain = read(&short.jwk(&short.x, &short.y)).unwrap();
        assert!(short.fits(&plain));
        let longer = [&[0, 0][..], &short.x].concat();
        for x in [&short.x[1..], &longer] {
            let key = read(&short.jwk(x, &short.y)).unwrap();
            assert!(short.fits(&key), "{curve}");
            assert!(key.is_same(&plain), "another spelling is the same key");
        }
        let too_long = [&[1][..], &short.y].concat();
        assert!(read(&short.jwk(&short.x, &too_long)).err().unwrap().contains("y has"));
        let elsewhere = read(&short.jwk(&short.y, &short.x)).err().unwrap();
        assert!(elsewhere.contains("no point"), "{elsewhere}");
    }
}

// RFC 8037: an octet string of fixed length, not a number.
#[test]
fn an_edwards_key_has_32_bytes() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let x = pair.public_key().as_ref();
    let jwk = |x: &[u8]| json!({"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": encode(x)});
    assert!(read(&jwk(x)).is_ok());
    for wrong in [&[&[0][..], x].concat()[..], &x[1..], b""] {
        assert!(read(&jwk(wrong)).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_modulus_may_have_leading_zeros_and_must_be_one() {
    let rsa = |n: &[u8], e: &[u8]| {
        read(&json!({"kty": "RSA", "kid": "a", "n": encode(n), "e": encode(e)}))
    };
    let mut n = vec![0xff; 256];
    let e = [1, 0, 1];
    let plain = rsa(&n, &e).unwrap();
    for (n, e) in
        [([&[0][..], &n].concat(), e.to_vec()), ([&[0, 0, 0][..], &n].concat(), vec![0, 1, 0, 1])]
    {
        assert!(rsa(&n, &e).unwrap().is_same(&plain));
    }
    assert!(rsa(&n[1..], &e).err().unwrap().contains("2040 bits"));
    assert!(rsa(&[&[0][..], &n[1..]].concat(), &e).err().unwrap().contains("2040 bits"));
    assert!(rsa(&vec![0xff; 1025], &e).err().unwrap().contains("8200 bits"));
    for exponent in [&[1][..], &[0, 1], &[2], &[0], &[1, 0, 0, 0, 1]] {
        assert!(rsa(&n, exponent).is_err(), "{exponent:?}");
    }
    n[255] = 0xfe;
    assert!(rsa(&n, &e).err().unwrap().contains("even"));
}

#[test]
fn numbers_are_read_with_padding_and_in_plain_base64() {
    let curve = elliptic_key("P-256");
    let mut jwk = curve.jwk(&curve.x, &curve.y);
    jwk["x"] = json!(base64::engine::general_purpose::STANDARD.encode(&curve.x));
    assert!(curve.fits(&read(&jwk).unwrap()));
    jwk["x"] = json!("not base64!");
    assert_eq!(read(&jwk).err().unwrap(), "x is not base64url");
}

// What an operator may well give by mistake.
#[test]
fn what_is_no_key_set_is_named() {
    let problem = |text: &str| KeySet::parse(text.as_bytes()).err().unwrap();
    assert!(problem("-----BEGIN PUBLIC KEY-----\nMFkw").contains("PEM"));
    assert!(problem("[{\"kty\":\"EC\"}]").contains("a list"));
    assert!(problem("[[]]").contains("a list"));
    assert!(problem("{\"kty\":\"EC\"}").contains("a single key"));
    assert!(problem("{}").contains("without \"keys\""));
    assert!(problem("{\"keys\":{}}").contains("no list"));
    assert!(problem("<html>").contains("not a JSON web key set"));
    assert!(problem("7").contains("not a JSON web key set"));
    assert!(KeySet::parse(b"{\"keys\":[]}").unwrap().is_empty());
}

#[test]
fn every_key_that_is_left_out_has_its_reason() {
    let keys = json!({"keys": [
        7, null, [], ["a", "EC"], {}, {"kty": "EC", "kid": "no curve"},
        {"kty": "oct", "kid": "secret", "k": "c2VjcmV0"},
        {"kty": "RSA", "kid": "alg", "alg": "ES256", "n": "AQAB", "e": "AQAB"},
    ]});
    let set = KeySet::parse(keys.to_string().as_bytes()).unwrap();
    assert_eq!((set.len(), set.left_out().len()), (0, 8), "{:?}", set.left_out());
    assert!(set.left_out()[6].contains("key 6 (secret): its type oct"), "{:?}", set.left_out());
}

// An issuer that changed to a key of another kind: its senders got 401 and dropped what they had.
#[test]
fn a_key_of_a_kind_that_is_not_supported_is_told_from_one_for_something_else() {
    let curve = elliptic_key("P-256");
    let (x, y) = (encode(&curve.x), encode(&curve.y));
    let long = "k".repeat(200);
    let keys = json!({"keys": [
        {"kty": "EC", "crv": "P-521", "alg": "ES512", "kid": "curve", "x": x, "y": y},
        {"kty": "AKP", "alg": "ML-DSA-44", "kid": long, "pub": "AA"},
        {"kty": "EC", "crv": "P-256", "alg": "ES512", "kid": "algorithm", "x": x, "y": y},
        {"kty": "RSA", "use": "sig", "kid": "short", "n": "AQAB", "e": "AQAB"},
        {"kty": "OKP", "crv": "Ed448", "kid": "use", "use": "enc", "x": x},
        {"kty": "OKP", "crv": "Ed448", "kid": "ops", "key_ops": ["sign"], "x": x},
        {"kty": "oct", "kid": "secret", "alg": "HS256", "k": "c2VjcmV0"},
        {"kty": "EC", "crv": "P-521", "x": x, "y": y}, 7,
    ]});
    let set = KeySet::parse(keys.to_string().as_bytes()).unwrap();
    assert!(set.is_empty());
    let is_unusable = |id: &str| {
        let named = [Named::Known(Algorithm::ES256), Named::Unsupported("ES512")];
        let found = named.map(|named| matches!(set.find(id, named), Lookup::Unusable));
        assert_eq!(found[0], found[1], "{id}");
        found[0]
    };
    for id in ["curve", &long, "algorithm", "short"] {
        assert!(is_unusable(id) && !set.leaves_out(id), "{id}");
    }
    for id in ["use", "ops", "secret"] {
        assert!(!is_unusable(id) && set.leaves_out(id), "{id}");
    }
    assert!(!is_unusable("") && !is_unusable("made up"));
    // A secret that is published is no key, for whatever it is taken.
    for algorithm in [Algorithm::HS256, Algorithm::ES256, Algorithm::RS256] {
        assert!(matches!(set.find("secret", Named::Known(algorithm)), Lookup::Unknown));
    }
}

proptest! {
    #[test]
    fn no_document_panics(text in "\\PC{0,60}", bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = KeySet::parse(text.as_bytes());
        let _ = KeySet::parse(&bytes);
        for kty in ["RSA", "EC", "OKP"] {
            for crv in ["P-256", "P-384", "Ed25519"] {
                let number = encode(&bytes);
                let key = json!({"kty": kty, "crv": crv, "kid": "a", "n": number, "e": "AQAB",
                    "x": number, "y": number});
                let _ = read(&key);
            }
        }
    }
}
