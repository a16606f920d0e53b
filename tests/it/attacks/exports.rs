//! Exports by OTLP that would take Mimir's memory, or end it.

use std::io::Write as _;
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::write::GzEncoder;
use harness::{Client, Issuer, Mimir, ProxyOptions, Upstream, fresh_organisation, wait_until};
use http_body_util::BodyExt as _;

use super::{ORG_A, Target, target_before};
use crate::support::responses::ok;

const OTLP: &str = "/otlp/v1/metrics";
const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// A field of protobuf with a length.
fn field(number: u8, contents: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    prost::encoding::encode_varint(contents.len() as u64, &mut field);
    field.extend_from_slice(contents);
    field
}

/// An export with an attribute of its resource that has this value.
fn protobuf_with(value: &[u8]) -> Vec<u8> {
    field(1, &field(1, &field(1, &[field(1, b"deep"), field(2, value)].concat())))
}

/// Lists within lists, written from the innermost on: their lengths are known only there.
fn protobuf_lists(levels: usize) -> Vec<u8> {
    let (mut backwards, mut length) = (Vec::new(), 0_u64);
    for level in 0..2 * levels {
        let tag = if level % 2 == 0 { 1 << 3 | 2 } else { 5 << 3 | 2 };
        let mut head = vec![tag];
        prost::encoding::encode_varint(length, &mut head);
        length += head.len() as u64;
        backwards.extend(head.iter().rev());
    }
    backwards.reverse();
    backwards
}

fn json_with(value: &str) -> Vec<u8> {
    let attribute = format!(r#"{{"key":"deep","value":{value}}}"#);
    format!(r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{attribute}]}}}}]}}"#).into_bytes()
}

fn json_lists(levels: usize) -> Vec<u8> {
    let (open, close) = (r#"{"arrayValue":{"values":["#, "]}}");
    json_with(&format!("{}{}", open.repeat(levels), close.repeat(levels)))
}

/// A target whose upstream notes the path of each body that it has got whole.
async fn target_of_whole_bodies() -> (Target, Arc<Mutex<Vec<usize>>>) {
    let whole: Arc<Mutex<Vec<usize>>> = Arc::default();
    let notes = Arc::clone(&whole);
    let upstream = Upstream::start(move |mut received: harness::Received| {
        let notes = Arc::clone(&notes);
        async move {
            if received.target.starts_with(OTLP)
                && let Some(body) = received.body.take()
                && let Ok(body) = body.collect().await
            {
                notes.lock().unwrap().push(body.to_bytes().len());
            }
            ok(received).await
        }
    })
    .await;
    (target_before(upstream, &[]).await, whole)
}

/// In one piece, and in many whose number nobody knows before.
async fn both_ways(client: &Client, body: &[u8]) -> [harness::Answer; 2] {
    let pieces: Vec<_> =
        body.chunks(1000).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    [client.post(OTLP, body.to_vec()).await, client.post(OTLP, chunked).await]
}

// Mimir 3.1 ends for all tenants after the first of these ("goroutine stack exceeds 1000000000-byte limit"), takes
// 0.5 GB for the second, and never gives back the memory of a decoder for zstd whose output is too large.
#[tokio::test(flavor = "multi_thread")]
async fn no_export_that_takes_mimirs_memory_reaches_it() {
    let (target, whole) = target_of_whole_bodies().await;
    let user = target.proxy.client().bearer(&target.issuer.user_of(ORG_A));
    let of = |content_type: &'static str, encoding: &'static str| {
        user.clone().header("content-type", content_type).header("content-encoding", encoding)
    };
    let list = r#","arrayValue":,"values":,"#;
    let bracketless = json_with(&list.repeat(100_000));
    let large = field(1, &field(15, &vec![0; 17 << 20]));
    let many = b"\x0a\x00".repeat(1_000_001);
    let cases = [
        ("JSON", JSON, json_lists(100_000), 400, "nest"),
        ("JSON without brackets", JSON, bracketless, 400, "JSON"),
        ("protobuf", PROTOBUF, protobuf_with(&protobuf_lists(400_000)), 400, "nest"),
        ("a large text", PROTOBUF, large, 413, "limits.otlp_body_bytes"),
        ("many empty messages", PROTOBUF, many, 413, "messages"),
        ("no gzip", PROTOBUF, b"\x0a\x00".to_vec(), 400, "gzip"),
    ];
    for (what, content_type, body, status, says) in cases {
        let is_zipped = what != "no gzip";
        let zipped = if is_zipped { gzip(&body) } else { body.clone() };
        let mut answers = both_ways(&of(content_type, "gzip"), &zipped).await.to_vec();
        if is_zipped && body.len() < 16 << 20 {
            let plain = user.clone().header("content-type", content_type);
            answers.extend(both_ways(&plain, &body).await);
        }
        for answer in answers {
            assert_eq!(answer.status, status, "{what}: {answer:?}");
            assert!(answer.text.contains(says), "{what}: {answer:?}");
        }
    }
    for encoding in ["zstd", "lz4", "identity", "gzip, zstd", "GZIP"] {
        let answer = of(PROTOBUF, encoding).post(OTLP, "x").await;
        assert_eq!(answer.status, 415, "{encoding}: {answer:?}");
        assert!(answer.text.contains("limits.otlp_unchecked_encodings"), "{answer:?}");
    }
    for content_type in ["text/plain", "application/json; charset=utf-8", "application/protobuf"] {
        let answer = user.clone().header("content-type", content_type).post(OTLP, "x").await;
        assert_eq!(answer.status, 415, "{content_type}: {answer:?}");
    }
    assert!(whole.lock().unwrap().is_empty(), "{whole:?}");
    target.others_are_served().await;
    for reason in ["body_too_deep", "unsupported_content_encoding", "unsupported_content_type"] {
        let series = format!(
            "mimir_tenant_proxy_requests_total{{surface=\"otlp\",outcome=\"rejected\",reason=\"{reason}\"}}"
        );
        assert!(target.proxy.metric(&series).await >= 1.0, "{reason}");
    }
}

// What a sender may honestly send passes byte by byte, and is stored.
#[tokio::test(flavor = "multi_thread")]
async fn exports_with_nested_attributes_are_stored() {
    let mimir = Mimir::shared().await;
    let issuer = Issuer::start().await;
    let proxy = ProxyOptions::new(&issuer.url(), &mimir.url()).start().await;
    let organisation = fresh_organisation();
    let client = proxy.client().bearer(&issuer.user_of(&organisation));
    let now = u64::try_from(harness::samples::now_ms()).unwrap() * 1_000_000;
    let point = |value: &[u8]| {
        let attribute = field(7, &[field(1, b"nested"), field(2, value)].concat());
        let time = [&[3 << 3 | 1][..], &now.to_le_bytes()].concat();
        let number = [&[4 << 3 | 1][..], &1_f64.to_le_bytes()].concat();
        field(1, &[attribute, time, number].concat())
    };
    let export = |name: &str, value: &[u8]| {
        let metric = [field(1, name.as_bytes()), field(5, &point(value))].concat();
        field(1, &field(2, &field(2, &metric)))
    };
    let json = |name: &str, value: &str| {
        let point = format!(
            r#"{{"asDouble":1,"timeUnixNano":"{now}","attributes":[{{"key":"nested","value":{value}}}]}}"#
        );
        let metric = format!(r#"{{"name":"{name}","gauge":{{"dataPoints":[{point}]}}}}"#);
        format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{metric}]}}]}}]}}"#)
            .into_bytes()
    };
    let lists = r#"{"arrayValue":{"values":["#.repeat(20)
        + "{\"stringValue\":\"[{\\\"\"}"
        + &"]}}".repeat(20);
    let cases = [
        ("otlp_protobuf", PROTOBUF, export("otlp_protobuf", &protobuf_lists(30)), false),
        ("otlp_protobuf_gzip", PROTOBUF, export("otlp_protobuf_gzip", &protobuf_lists(30)), true),
        ("otlp_json", JSON, json("otlp_json", &lists), false),
        ("otlp_json_gzip", JSON, json("otlp_json_gzip", &lists), true),
    ];
    for (name, content_type, body, is_zipped) in cases {
        let client = client.clone().header("content-type", content_type);
        let (client, body) = if is_zipped {
            (client.header("content-encoding", "gzip"), gzip(&body))
        } else {
            (client, body)
        };
        for answer in both_ways(&client, &body).await {
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
        }
        wait_until(name, std::time::Duration::from_secs(30), async || {
            let answer = client.get(&format!("/prometheus/api/v1/query?query={name}")).await;
            answer.json()["data"]["result"].as_array().is_some_and(|result| !result.is_empty())
        })
        .await;
    }
}

// An operator who trusts all senders can let other encodings pass.
#[tokio::test(flavor = "multi_thread")]
async fn unchecked_encodings_pass_where_they_are_allowed() {
    let settings = [("limits.otlp_unchecked_encodings", "[\"zstd\"]")];
    let target = target_before(Upstream::start(ok).await, &settings).await;
    let user = target.proxy.client().bearer(&target.issuer.user_of(ORG_A));
    let user = user.header("content-type", PROTOBUF);
    let zstd = user.clone().header("content-encoding", "zstd").post(OTLP, "anything").await;
    assert_eq!(zstd.status, 200, "{zstd:?}");
    let lz4 = user.header("content-encoding", "lz4").post(OTLP, "anything").await;
    assert_eq!(lz4.status, 415, "{lz4:?}");
}
