//! Forged tokens: vectors of our own, after the ideas of Wycheproof's JWS vectors and of the CVEs that are
//! named. Where a signature can be right it is, so that only the fault in question refuses the token.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use harness::{Algorithm, Client, ORG_A, SigningKey};
use serde_json::{Value, json};

use super::{QUERY, Target, target};

const SECRET: &str = "a legacy secret of more than thirty-two bytes";

/// A token and what is wrong with it.
type Vector = (String, String);

fn encode(text: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

/// A token with a right signature over any header and claims.
fn signed(key: &SigningKey, header: &str, claims: &str) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    format!("{message}.{}", key.signature_of(&message))
}

struct Keys {
    ec: SigningKey,
    rsa: SigningKey,
    own: SigningKey,
    secret: SigningKey,
}

/// Headers that no reader may take, or that two readers read differently (RFC 7515, 4 and 4.1.11).
fn headers(keys: &Keys, claims: &str) -> Vec<Vector> {
    let deep = format!(
        r#"{{"alg":"ES256","kid":"key-1","x":{}{}}}"#,
        "[".repeat(2_000),
        "]".repeat(2_000)
    );
    let long = format!(r#"{{"alg":"ES256","kid":"{}"}}"#, "k".repeat(257));
    let headers = [
        r#"{"alg":"none","alg":"ES256","kid":"key-1"}"#,
        r#"{"alg":"ES256","alg":"none","kid":"key-1"}"#,
        r#"{"alg":"ES256","kid":"other","kid":"key-1"}"#,
        r#"{"alg":"ES256","kid":"key-1","\u0061lg":"HS256"}"#,
        r#"{"alg":"ES256","kid":"key-1","crit":["b64"],"b64":false}"#,
        r#"{"alg":"ES256","kid":"key-1","crit":[]}"#,
        r#"{"alg":"ES256","kid":"key-1","crit":["exp"],"exp":1}"#,
        r#"{"alg":"ES256","kid":"key-1","crit":null}"#,
        r#"{"alg":"ES256","kid":"key-1","typ":"JWE"}"#,
        r#"{"alg":"ES256","kid":"key-1","typ":["JWT"]}"#,
        r#"{"alg":"es256","kid":"key-1"}"#,
        r#"{"alg":"ES256 ","kid":"key-1"}"#,
        r#"{"alg":["ES256"],"kid":"key-1"}"#,
        r#"{"alg":null,"kid":"key-1"}"#,
        r#"{"alg":1e400,"kid":"key-1"}"#,
        r#"{"kid":"key-1"}"#,
        r#"{"alg":"ES256"}"#,
        r#"{"alg":"ES256","kid":["key-1"]}"#,
        r#"{"alg":"ES256","kid":{"$ne":""}}"#,
        r#"{"alg":"ES256","kid":1}"#,
        r#"["ES256","key-1","JWT"]"#,
        r#""ES256""#,
        "null",
        "",
        "{\"alg\":\"ES256\",\"kid\":\"key-1\",}",
        "{\"alg\":\"ES256\",\"kid\":\"key-1\"}}",
        "\u{feff}{\"alg\":\"ES256\",\"kid\":\"key-1\"}",
        "{'alg':'ES256','kid':'key-1'}",
        "{\"alg\":\"ES256\",/**/\"kid\":\"key-1\"}",
        "{\"alg\":\"ES256\",\"kid\":\"key-1\",\"x\":\"\\ud800\"}",
        &deep,
        &long,
    ];
    headers.iter().map(|header| ((*header).to_owned(), signed(&keys.ec, header, claims))).collect()
}

/// The algorithm is the key's, not the token's word (CVE-2015-9235, CVE-2016-5431, CVE-2024-37568).
fn algorithms(keys: &Keys, claims: &str) -> Vec<Vector> {
    let mut vectors = Vec::new();
    for name in ["none", "None", "nOnE", "NONE", ""] {
        let message = format!(
            "{}.{}",
            encode(&format!(r#"{{"alg":"{name}","kid":"key-1"}}"#)),
            encode(claims)
        );
        vectors.push((format!("alg {name:?}"), format!("{message}.")));
        vectors.push((
            format!("alg {name:?}, signed"),
            format!("{message}.{}", keys.ec.signature_of(&message)),
        ));
    }
    for (algorithm, id) in
        [("RS256", "key-1"), ("HS256", "key-1"), ("ES384", "key-1"), ("EdDSA", "key-1")]
    {
        let header = format!(r#"{{"alg":"{algorithm}","kid":"{id}"}}"#);
        vectors.push((format!("{header} by an ES256 key"), signed(&keys.ec, &header, claims)));
    }
    for algorithm in ["PS256", "RS384", "RS512", "ES256", "HS256"] {
        let header = format!(r#"{{"alg":"{algorithm}","kid":"rsa"}}"#);
        vectors.push((format!("{header} by an RS256 key"), signed(&keys.rsa, &header, claims)));
    }
    for algorithm in ["HS384", "HS512", "ES256", "RS256"] {
        let header = format!(r#"{{"alg":"{algorithm}","kid":"key-1"}}"#);
        vectors.push((format!("{header} by the secret"), signed(&keys.secret, &header, claims)));
    }
    // The bytes of public keys as secrets; their texts are in `a_public_key_is_no_shared_secret`.
    let number = |key: &SigningKey, name: &str| {
        BASE64_URL_SAFE_NO_PAD.decode(key.public[name].as_str().unwrap()).unwrap()
    };
    let (x, y) = (number(&keys.ec, "x"), number(&keys.ec, "y"));
    let point = [&[4_u8][..], &x, &y].concat();
    for secret in
        [number(&keys.rsa, "n"), x.clone(), [&x[..], &y].concat(), point, vec![0], vec![0; 32]]
    {
        let forger = SigningKey::secret(&secret);
        for header in [
            r#"{"alg":"HS256"}"#,
            r#"{"alg":"HS256","kid":"key-1"}"#,
            r#"{"alg":"HS256","kid":"rsa"}"#,
        ] {
            vectors.push((format!("{header} by public bytes"), signed(&forger, header, claims)));
        }
    }
    // A key of its own (CVE-2018-0114).
    for (name, value) in
        [("jwk", keys.own.public.clone()), ("x5c", json!(["MIIB"])), ("x5t", json!("AAAA"))]
    {
        let header = json!({"alg": "ES256", "kid": "key-1", name: value}).to_string();
        vectors.push((format!("brings {name}"), signed(&keys.own, &header, claims)));
    }
    vectors
}

/// Signatures that some library took (CVE-2022-21449, and Wycheproof's encodings).
fn signatures(keys: &Keys, claims: &str) -> Vec<Vector> {
    let message = format!("{}.{}", encode(r#"{"alg":"ES256","kid":"key-1"}"#), encode(claims));
    let right = BASE64_URL_SAFE_NO_PAD.decode(keys.ec.signature_of(&message)).unwrap();
    let order = hex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
    let one = [vec![0; 31], vec![1]].concat();
    let zero = vec![0; 32];
    // ASN.1, as TLS has it.
    let integer = |bytes: &[u8]| [&[2, 33, 0][..], bytes].concat();
    let der = [integer(&right[..32]), integer(&right[32..])].concat();
    let der = [&[0x30, u8::try_from(der.len()).unwrap()][..], &der].concat();
    let forged = [
        ("nothing", vec![]),
        ("one byte", vec![0]),
        ("r = s = 0", [zero.clone(), zero.clone()].concat()),
        ("r = 0", [zero.clone(), right[32..].to_vec()].concat()),
        ("s = 0", [right[..32].to_vec(), zero.clone()].concat()),
        ("r = s = 1", [one.clone(), one.clone()].concat()),
        ("r = s = n", [order.clone(), order.clone()].concat()),
        ("r = n", [order.clone(), one.clone()].concat()),
        ("r = 1, s = n", [one, order].concat()),
        ("all ones", vec![0xff; 64]),
        ("cut off", right[..63].to_vec()),
        ("half", right[..32].to_vec()),
        ("one byte more", [&right[..], &[0]].concat()),
        ("twice", right.repeat(2)),
        ("leading zeros", [&[0][..], &right[..32], &[0], &right[32..]].concat()),
        ("turned", [&right[32..], &right[..32]].concat()),
        ("ASN.1", der),
        (
            "one bit",
            right
                .iter()
                .enumerate()
                .map(|(at, byte)| if at == 40 { byte ^ 1 } else { *byte })
                .collect(),
        ),
    ];
    let forged = forged
        .into_iter()
        .map(|(what, bytes)| (what.to_owned(), BASE64_URL_SAFE_NO_PAD.encode(bytes)));
    let text = BASE64_URL_SAFE_NO_PAD.encode(&right);
    // Other encodings of the right bytes: two spellings of a token are two entries of every list of tokens.
    let mut last = text.clone().into_bytes();
    let at = last.len() - 1;
    last[at] = if last[at] == b'Q' { b'R' } else { last[at] + 1 };
    let spelled = [
        ("padded", format!("{text}==")),
        ("plain base64 and padded", BASE64_STANDARD.encode(&right)),
        ("bits to spare", String::from_utf8(last).unwrap()),
        ("a dot behind", format!("{text}.")),
        ("a dot before", format!(".{text}")),
    ];
    let spelled = spelled.map(|(what, text)| (what.to_owned(), text));
    let all = forged.chain(spelled);
    let mut vectors: Vec<Vector> =
        all.map(|(what, text)| (what, format!("{message}.{text}"))).collect();
    // Other serialisations (RFC 7515, 7.2; RFC 7516).
    let (header, payload) = message.split_once('.').unwrap();
    vectors.extend([
        ("two parts".to_owned(), message.clone()),
        ("one part".to_owned(), header.to_owned()),
        ("five parts".to_owned(), format!("{message}.{text}.AAAA.AAAA")),
        ("empty parts".to_owned(), "..".to_owned()),
        ("no claims".to_owned(), format!("{header}..{text}")),
        (
            "JSON".to_owned(),
            json!({"protected": header, "payload": payload, "signature": text}).to_string(),
        ),
    ]);
    vectors
}

/// Claims that are signed by the issuer's own key and say what no token may (CVE-2026-25537: a claim of the
/// wrong type counted as none).
fn claims(keys: &Keys, good: &Value) -> Vec<Vector> {
    let header = r#"{"alg":"ES256","kid":"key-1"}"#;
    let mut vectors = Vec::new();
    let mut add =
        |what: String, claims: &str| vectors.push((what, signed(&keys.ec, header, claims)));
    let raw = |name: &str, value: &str| {
        let mut claims = good.as_object().unwrap().clone();
        claims.remove(name);
        let text = Value::Object(claims).to_string();
        format!("{},\"{name}\":{value}}}", text.strip_suffix('}').unwrap())
    };
    let sub = good["sub"].to_string();
    for (name, values) in [
        (
            "exp",
            &[
                "null",
                "\"9999999999\"",
                "true",
                "[9999999999]",
                "{}",
                "-1",
                "0",
                "1e400",
                "1e300",
                "99999999999999999999999",
                "\"\"",
            ][..],
        ),
        ("nbf", &["\"0\"", "1e15", "null", "[]", "-1e400"]),
        ("iat", &["\"0\"", "1e15", "false"]),
        (
            "aud",
            &[
                "null",
                "[]",
                "{}",
                "\"Authenticated\"",
                "\"authenticated \"",
                "[[\"authenticated\"]]",
                "[null]",
                "\"*\"",
                "1",
            ],
        ),
        ("iss", &["null", "\"\"", "[]", "\"supabase\"", "\"https://evil.example/auth/v1\""]),
        (
            "role",
            &[
                "null",
                "\"service_role\"",
                "\"anon\"",
                "[\"authenticated\"]",
                "\"supabase_admin\"",
                "\"\"",
            ],
        ),
        (
            "sub",
            &[
                "null",
                "\"\"",
                "1",
                "[]",
                "\"../../etc/passwd\"",
                "\"00000000-0000-0000-0000-00000000000g\"",
            ],
        ),
        ("is_anonymous", &["true", "\"false\"", "1", "null", "[]"]),
        ("session_id", &["1", "\"\"", "[]"]),
        ("jti", &["1", "\"\"", "{}"]),
        ("client_id", &["\"app\"", "1", "[]"]),
        ("aal", &["2", "[\"aal2\"]", "null"]),
    ] {
        for value in values {
            add(format!("{name} is {value}"), &raw(name, value));
        }
    }
    for twice in [
        format!("{},\"exp\":9999999999}}", good.to_string().strip_suffix('}').unwrap()),
        format!("{},\"sub\":{sub}}}", good.to_string().strip_suffix('}').unwrap()),
        format!(
            "{},\"\\u0061ud\":\"authenticated\"}}",
            good.to_string().strip_suffix('}').unwrap()
        ),
        format!(
            "{},\"app_metadata\":{{\"org_id\":\"{ORG_A}\"}}}}",
            good.to_string().strip_suffix('}').unwrap()
        ),
    ] {
        add("a claim twice".to_owned(), &twice);
    }
    for strange in ["[]", "null", "\"x\"", "1", "", "{", "{}", "{} {}"] {
        add(format!("claims {strange:?}"), strange);
    }
    add("a byte order mark".to_owned(), &format!("\u{feff}{good}"));
    add("very deep".to_owned(), &raw("x", &format!("{}{}", "[".repeat(2_000), "]".repeat(2_000))));
    vectors
}

fn hex(text: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect()
}

async fn ask(client: &Client, token: &str) -> Option<(u16, String)> {
    let answer =
        client.clone().header("authorization", &format!("Bearer {token}")).get(QUERY).await;
    Some((answer.status.as_u16(), answer.header("x-request-id").to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_vector_of_a_forged_token_is_let_in() {
    let target: Target = target(&[
        ("auth.hs256_secret", &format!("{SECRET:?}")),
        ("auth.jwks_cool_down", "\"200ms\""),
    ])
    .await;
    let keys = Keys {
        ec: target.issuer.key.clone(),
        rsa: SigningKey::generate("rsa", Algorithm::RS256),
        own: SigningKey::generate("key-1", Algorithm::ES256),
        secret: SigningKey::secret(SECRET.as_bytes()),
    };
    target.issuer.publish(&[&keys.ec, &keys.rsa]);
    let token = target.issuer.token().organisation(&json!(ORG_A));
    let good = token.claims();
    let text = good.to_string();
    let clients = [target.proxy.client(), Client::h2c(&target.proxy.url())];
    // What is forged below is let in when it is not.
    let headers_of_good = [
        (&keys.ec, r#"{"alg":"ES256","kid":"key-1"}"#),
        (&keys.rsa, r#"{"alg":"RS256","kid":"rsa","typ":"JWT"}"#),
        (&keys.secret, r#"{"alg":"HS256"}"#),
    ];
    for (key, header) in headers_of_good {
        for client in &clients {
            loop {
                let (status, _) = ask(client, &signed(key, header, &text)).await.unwrap();
                if status == 200 {
                    break;
                }
                // A new key is found with the first token that names it.
                assert_eq!(status, 503, "{header}");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
    let reached = target.upstream.heads().len();
    let vectors = [
        headers(&keys, &text),
        algorithms(&keys, &text),
        signatures(&keys, &text),
        claims(&keys, &good),
    ];
    let vectors = vectors.concat();
    assert!(vectors.len() > 150, "{}", vectors.len());
    let mut ids = Vec::new();
    for (what, token) in &vectors {
        for client in &clients {
            let (status, id) = ask(client, token).await.unwrap();
            assert_eq!(status, 401, "{what}: {token}");
            ids.push(id);
        }
    }
    assert_eq!(target.upstream.heads().len(), reached, "a forged token reached Mimir");
    let reasons = target.reasons(&ids).await;
    assert!(reasons.iter().all(|reason| !reason.is_empty()), "{reasons:?}");
    println!("{} vectors, over HTTP/1.1 and HTTP/2", vectors.len());
}
