//! From when to when a certificate is valid. rustls judges a peer's certificate itself; when one of ours
//! ends, it does not say. Only the way to two fields of RFC 5280, 4.1 is read, of DER.

use time::{Date, Month, PrimitiveDateTime, Time};

/// Seconds since the Unix epoch, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub from: i64,
    pub until: i64,
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

impl Validity {
    /// That of a certificate in DER; none if it is malformed.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (certificate, _) = expect(SEQUENCE, certificate)?;
        let (mut signed, _) = expect(SEQUENCE, certificate)?;
        if let Some((_, rest)) = expect(VERSION, signed) {
            signed = rest;
        }
        let (_serial, rest) = expect(INTEGER, signed)?;
        let (_algorithm, rest) = expect(SEQUENCE, rest)?;
        let (_issuer, rest) = expect(SEQUENCE, rest)?;
        let (validity, _) = expect(SEQUENCE, rest)?;
        let (from, rest) = instant(validity)?;
        let (until, _) = instant(rest)?;
        Some(Self { from, until })
    }
}

/// The content of the first element, if it has a tag, and what follows it.
fn expect(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(bytes)?;
    (found == tag).then_some((content, rest))
}

fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, short], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = if short < 0x80 {
        (usize::from(short), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
        if digits.is_empty() || digits.len() > 4 {
            return None;
        }
        (digits.iter().fold(0, |length, digit| (length << 8) | usize::from(*digit)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn instant(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (tag, content, rest) = element(bytes)?;
    let text = std::str::from_utf8(content.strip_suffix(b"Z")?).ok()?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest_of_text) = match (tag, text.len()) {
        (UTC_TIME, 12) => {
            let year: i32 = text[..2].parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &text[2..])
        }
        (GENERALIZED_TIME, 14) => (text[..4].parse().ok()?, &text[4..]),
        _ => return None,
    };
    let two = |at: usize| rest_of_text[at..at + 2].parse::<u8>().ok();
    let date = Date::from_calendar_date(year, Month::try_from(two(0)?).ok()?, two(2)?).ok()?;
    let time = Time::from_hms(two(4)?, two(6)?, two(8)?).ok()?;
    Some((PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp(), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn made(from: (i32, u8, u8), until: (i32, u8, u8)) -> Vec<u8> {
        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.not_before = date_time_ymd(from.0, from.1, from.2);
        params.not_after = date_time_ymd(until.0, until.1, until.2);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    // RFC 5280, 4.1.2.5: until 2049 with two digits of the year, then with four.
    #[test]
    fn both_forms_of_a_time_are_read() {
        let validity = Validity::of(&made((1999, 12, 31), (2026, 11, 26))).unwrap();
        assert_eq!(validity, Validity { from: 946_598_400, until: 1_795_651_200 });
        let validity = Validity::of(&made((2026, 2, 28), (4096, 1, 1))).unwrap();
        assert_eq!(validity, Validity { from: 1_772_236_800, until: 67_090_118_400 });
    }

    #[test]
    fn a_cut_off_certificate_has_no_validity_and_nothing_panics() {
        let whole = made((2020, 1, 1), (2030, 1, 1));
        for length in 0..60 {
            assert_eq!(Validity::of(&whole[..length]), None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
            places in proptest::collection::vec((0usize..200, any::<u8>()), 0..6),
        ) {
            let _ = Validity::of(&bytes);
            let mut whole = made((2020, 1, 1), (2030, 1, 1));
            for (place, byte) in places {
                whole[place] = byte;
            }
            let _ = Validity::of(&whole);
        }
    }
}
