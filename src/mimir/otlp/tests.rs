use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderValue;
use proptest::prelude::*;
use prost::encoding::encode_varint;

use super::*;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";
const MIB: u64 = 1 << 20;

fn limits() -> OtlpLimits {
    OtlpLimits { bytes: 16 * MIB, unchecked: Vec::new() }
}

fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
    let value = |text: &str| HeaderValue::from_str(text).unwrap();
    fields.iter().map(|(name, text)| (name.clone(), value(text))).collect()
}

fn scanner(content_type: &str, encoding: &str) -> OtlpScanner {
    let headers =
        headers(&[(header::CONTENT_TYPE, content_type), (header::CONTENT_ENCODING, encoding)]);
    OtlpScanner::for_body(&headers, &limits()).unwrap().unwrap()
}

fn in_pieces(mut scanner: OtlpScanner, pieces: &[&[u8]]) -> Result<(), OtlpFault> {
    pieces.iter().try_for_each(|piece| scanner.push(piece))?;
    scanner.end()
}

/// The verdict, which is the same with and without gzip.
fn verdict(content_type: &str, body: &[u8]) -> Result<(), OtlpFault> {
    let plain = in_pieces(scanner(content_type, ""), &[body]);
    let zipped = gzip(body);
    assert_eq!(in_pieces(scanner(content_type, "gzip"), &[&zipped]), plain);
    let bytes: Vec<&[u8]> = zipped.chunks(1000).collect();
    assert_eq!(in_pieces(scanner(content_type, "gzip"), &bytes), plain);
    plain
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn field(number: u64, contents: &[u8]) -> Vec<u8> {
    let mut field = Vec::new();
    encode_varint(number << 3 | 2, &mut field);
    encode_varint(contents.len() as u64, &mut field);
    field.extend_from_slice(contents);
    field
}

/// A value with so many lists, or key-value lists, around it.
fn value_in(levels: usize, is_list: bool) -> Vec<u8> {
    let mut value = field(1, b"a text");
    for _ in 0..levels {
        value = if is_list {
            field(5, &field(1, &value))
        } else {
            field(6, &field(1, &[field(1, b"key"), field(2, &value)].concat()))
        };
    }
    value
}

/// An export with this value in each attribute that a metric's export can have.
fn exports_with(value: &[u8]) -> Vec<Vec<u8>> {
    let attribute = |number| field(number, &[field(1, b"name"), field(2, value)].concat());
    let exemplar = attribute(7);
    let metrics = [
        attribute(12),
        field(5, &field(1, &attribute(7))),
        field(7, &field(1, &attribute(7))),
        field(9, &field(1, &attribute(9))),
        field(10, &field(1, &attribute(1))),
        field(11, &field(1, &attribute(7))),
        field(5, &field(1, &field(5, &exemplar))),
        field(9, &field(1, &field(8, &exemplar))),
        field(10, &field(1, &field(11, &exemplar))),
    ];
    let scopes = metrics.iter().map(|metric| field(2, &field(2, metric)));
    let old = field(1000, &field(2, &field(5, &field(1, &attribute(7)))));
    let others = [field(1, &attribute(1)), field(2, &field(1, &attribute(3))), old];
    scopes.chain(others).map(|resource_metrics| field(1, &resource_metrics)).collect()
}

#[test]
fn values_of_protobuf_nest_only_so_deep() {
    for export in [value_in(0, true), value_in(10, true), value_in(10, false)] {
        for export in exports_with(&export) {
            assert_eq!(verdict(PROTOBUF, &export), Ok(()));
        }
    }
    for value in [value_in(60, true), value_in(60, false), value_in(2_000, true)] {
        for export in exports_with(&value) {
            assert_eq!(verdict(PROTOBUF, &export), Err(OtlpFault::TooDeep));
        }
    }
    // Go takes the lower 32 bits of a number.
    let wrapped = field((1 << 32) + 1, &exports_with(&value_in(60, true))[0][3..]);
    assert_ne!(verdict(PROTOBUF, &wrapped), Ok(()));
    // A text may look like anything.
    let text = field(1, &field(2, &field(2, &field(1, &value_in(60, true)))));
    assert_eq!(verdict(PROTOBUF, &text), Ok(()));
}

// A field after one that nests belongs to the message around it.
#[test]
fn what_has_ended_is_no_longer_open() {
    let point = field(1, &field(7, &[field(1, b"a"), field(2, &value_in(20, true))].concat()));
    let metric = field(2, &[field(1, b"name"), field(5, &point.repeat(3))].concat());
    let export = field(1, &field(2, &metric.repeat(50))).repeat(2);
    assert_eq!(verdict(PROTOBUF, &export), Ok(()));
    // Numbers of each type beside it.
    let numbers =
        [&b"\x09\x01\x02\x03\x04\x05\x06\x07\x08"[..], b"\x10\x96\x01", b"\x1d\x01\x02\x03\x04"];
    let numbers = numbers.concat();
    let export = [&numbers[..], &export, &numbers].concat();
    assert_eq!(verdict(PROTOBUF, &export), Ok(()));
}

#[test]
fn what_breaks_the_structure_of_protobuf_is_refused() {
    let inside_too_long = field(1, b"\x12\x05\x0a");
    for body in [&b"\x0b"[..], b"\x0c", b"\x0e", b"\x0f", &[0xff; 10], &inside_too_long] {
        assert_eq!(verdict(PROTOBUF, body), Err(OtlpFault::NotProtobuf), "{body:x?}");
    }
    // A number that goes beyond its message, and eight bytes that do.
    for body in [field(1, b"\x08\xff"), field(1, b"\x09\x01"), field(1, b"\xff")] {
        let body = [&body[..], &[0; 20]].concat();
        assert_eq!(verdict(PROTOBUF, &body), Err(OtlpFault::NotProtobuf), "{body:x?}");
    }
    assert_eq!(
        verdict(PROTOBUF, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        Err(OtlpFault::NotProtobuf)
    );
    // What is cut off is Mimir's to refuse.
    assert_eq!(verdict(PROTOBUF, b"\x0a\x05\x0a"), Ok(()));
}

#[test]
fn values_of_json_nest_only_so_deep() {
    let nested = |open: &str, close: &str, levels: usize| {
        format!(r#"{{"a":{}1{}}}"#, open.repeat(levels), close.repeat(levels))
    };
    for (open, close) in [("[", "]"), (r#"{"b":"#, "}"), (r#"[{"b":"#, "}]")] {
        assert_eq!(verdict(JSON, nested(open, close, 49).as_bytes()), Ok(()), "{open}");
        let deep = nested(open, close, 100);
        assert_eq!(verdict(JSON, deep.as_bytes()), Err(OtlpFault::TooDeep), "{open}");
    }
    assert_eq!(verdict(JSON, nested("[", "]", 99).as_bytes()), Ok(()));
    // In a text nothing nests, whatever is escaped.
    let text = format!(r#"{{"a\"{{[":"\\\"{}"}}"#, "[{".repeat(500));
    assert_eq!(verdict(JSON, text.as_bytes()), Ok(()));
}

#[test]
fn only_the_structure_of_json_passes() {
    for text in [
        "{}",
        " [ ] ",
        "\t{\"a\" : [1, -2.5e+3 ,true,null,\"\"], \"b\":{}}\r\n",
        "\"\"",
        "1",
        // Mimir refuses these.
        "{\"a\":nonsense}",
        "[1,",
    ] {
        assert_eq!(verdict(JSON, text.as_bytes()), Ok(()), "{text}");
    }
    for text in [
        // Nothing that opens, and so nothing that would be counted.
        r#","arrayValue":,"values":,"#,
        r#"{"a":,"b":1}"#,
        r#"{"a" "b"}"#,
        r#"{"a":1 2}"#,
        r#"{"a":1,}"#,
        "{1:2}",
        "{,}",
        "[,]",
        "[1,]",
        "[1}",
        "{]",
        "]",
        "[]]",
        "{}{}",
        "{} 1",
        "\u{feff}{}",
        "[1;2]",
        "/**/{}",
    ] {
        assert_eq!(verdict(JSON, text.as_bytes()), Err(OtlpFault::NotJson), "{text}");
    }
}

#[test]
fn an_export_has_only_so_many_parts_and_bytes() {
    let many = b"\x0a\x00".repeat(MOST_PARTS as usize);
    assert_eq!(verdict(PROTOBUF, &many), Ok(()));
    let more = [&many[..], b"\x0a\x00"].concat();
    assert_eq!(verdict(PROTOBUF, &more), Err(OtlpFault::TooManyParts));
    let list = |parts: usize| format!("[{}[]]", "[],".repeat(parts - 2));
    let most = MOST_PARTS as usize;
    assert_eq!(verdict(JSON, list(most).as_bytes()), Ok(()));
    assert_eq!(verdict(JSON, list(most + 1).as_bytes()), Err(OtlpFault::TooManyParts));

    let text = field(1, &vec![b'x'; 16 * 1024 * 1024]);
    let fault = OtlpFault::TooLarge { limit: 16 * MIB };
    assert_eq!(verdict(PROTOBUF, &field(1, &field(3, &text))), Err(fault));
}

#[test]
fn only_one_whole_member_of_gzip_passes() {
    let good = gzip(b"{}");
    let zipped = |body: &[u8]| in_pieces(scanner(JSON, "gzip"), &[body]);
    assert_eq!(zipped(&good), Ok(()));
    let twice = [&good[..], &good].concat();
    let mut wrong = good.clone();
    let checksum = good.len() - 8;
    wrong[checksum] ^= 1;
    for body in [&b"{}"[..], &good[..good.len() - 1], &good[..5], &twice, &wrong, b"\x1f\x8b\x08"] {
        assert_eq!(zipped(body), Err(OtlpFault::NotGzip), "{body:x?}");
    }
}

#[test]
fn only_what_mimir_takes_passes_by_its_headers() {
    let (kind, encoding) = (header::CONTENT_TYPE, header::CONTENT_ENCODING);
    let checked = |fields: &[(HeaderName, &str)], limits: &OtlpLimits| {
        OtlpScanner::for_body(&headers(fields), limits).map(|scanner| scanner.is_some())
    };
    let limits = limits();
    for fields in [
        &[(kind.clone(), PROTOBUF)][..],
        &[(kind.clone(), JSON), (encoding.clone(), "")],
        &[(kind.clone(), JSON), (encoding.clone(), "gzip")],
    ] {
        assert_eq!(checked(fields, &limits), Ok(true), "{fields:?}");
    }
    for types in [
        &[][..],
        &["text/plain"],
        &["application/json; charset=utf-8"],
        &["Application/JSON"],
        &[JSON, PROTOBUF],
    ] {
        let fields: Vec<_> = types.iter().map(|text| (kind.clone(), *text)).collect();
        assert_eq!(checked(&fields, &limits), Err(OtlpHeadFault::ContentType), "{types:?}");
    }
    for encodings in [
        &["zstd"][..],
        &["lz4"],
        &["GZIP"],
        &["gzip, zstd"],
        &["identity"],
        &["", "zstd"],
        &["gzip", "zstd"],
    ] {
        let mut fields = vec![(kind.clone(), PROTOBUF)];
        fields.extend(encodings.iter().map(|text| (encoding.clone(), *text)));
        assert_eq!(checked(&fields, &limits), Err(OtlpHeadFault::ContentEncoding), "{encodings:?}");
    }
    let allowed = OtlpLimits { unchecked: vec![UncheckedEncoding::Zstd], ..limits };
    let zstd = |name| [(kind.clone(), PROTOBUF), (encoding.clone(), name)];
    assert_eq!(checked(&zstd("zstd"), &allowed), Ok(false));
    assert_eq!(checked(&zstd("lz4"), &allowed), Err(OtlpHeadFault::ContentEncoding));
    assert_eq!(checked(&zstd("gzip"), &allowed), Ok(true));
}

proptest! {
    #[test]
    fn a_body_may_come_in_any_pieces(
        body in proptest::collection::vec(prop_oneof![Just(0x0a_u8), Just(0x12), Just(0x2a), 0_u8..12, any::<u8>()], 0..200),
        text in r#"[\[\]{}:,"\\a1 ]{0,60}"#,
        cut in 0_usize..200,
    ) {
        for (content_type, body) in [(PROTOBUF, &body[..]), (JSON, text.as_bytes())] {
            let (first, second) = body.split_at(cut.min(body.len()));
            let whole = in_pieces(scanner(content_type, ""), &[body]);
            prop_assert_eq!(in_pieces(scanner(content_type, ""), &[first, second]), whole);
            let single: Vec<&[u8]> = body.chunks(1).collect();
            prop_assert_eq!(in_pieces(scanner(content_type, ""), &single), whole);
        }
    }

    // serde_json takes no text that is deeper than 127 either.
    #[test]
    fn all_json_passes(text in r#"[\[\]{}:,"a1 ]{0,12}"#) {
        if serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok() {
            prop_assert_eq!(verdict(JSON, text.as_bytes()), Ok(()));
        }
    }
}
