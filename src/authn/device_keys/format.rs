//! The form of a device key: `mtpd_`, 43 characters that hold 256 random bits, 6 that hold a
//! checksum.
//!
//! The prefix lets secret scanners find one that leaked (`mtpd_[0-9A-Za-z]{49}`), and the checksum
//! lets them be sure; it also tells a mistyped key from an unknown one without a look-up.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};

use crate::store::KeyHash;

pub const DEVICE_KEY_PREFIX: &str = "mtpd_";

const RANDOM_CHARACTERS: usize = 43;
const CHECKSUM_CHARACTERS: usize = 6;
const LENGTH: usize = DEVICE_KEY_PREFIX.len() + RANDOM_CHARACTERS + CHECKSUM_CHARACTERS;
/// Characters that are kept in the clear, so that owners can tell their keys apart.
const HINT_CHARACTERS: usize = DEVICE_KEY_PREFIX.len() + 4;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A new key. It is shown once; only its hash is kept.
pub struct NewKey {
    text: String,
}

/// The machine gave no random bytes.
#[derive(Clone, Copy, Debug)]
pub struct NoRandomness;

impl NewKey {
    /// Makes a key of 256 random bits.
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut bits = [0; 32];
        SystemRandom::new().fill(&mut bits).map_err(|_| NoRandomness)?;
        Ok(Self::of(bits))
    }

    fn of(bits: [u8; 32]) -> Self {
        let random = base62::<RANDOM_CHARACTERS>(&bits);
        let mut text = format!("{DEVICE_KEY_PREFIX}{}", String::from_utf8_lossy(&random));
        let checksum = checksum(text.as_bytes());
        text.push_str(&String::from_utf8_lossy(&checksum));
        Self { text }
    }

    pub fn expose(&self) -> &str {
        &self.text
    }

    pub fn hash(&self) -> KeyHash {
        hash(self.text.as_bytes())
    }

    /// By which its owner recognises it.
    pub fn hint(&self) -> String {
        self.text.chars().take(HINT_CHARACTERS).collect()
    }
}

/// The hash of a key that has the right form; none if it was mistyped or cut off.
pub fn hash_of(key: &[u8]) -> Option<KeyHash> {
    if key.len() != LENGTH || !key.starts_with(DEVICE_KEY_PREFIX.as_bytes()) {
        return None;
    }
    let (body, sum) = key.split_at(LENGTH - CHECKSUM_CHARACTERS);
    (sum == checksum(body)).then(|| hash(key))
}

fn hash(key: &[u8]) -> KeyHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, key).as_ref());
    hash
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_CHARACTERS] {
    base62(&crc32fast::hash(body).to_be_bytes())
}

/// A number in base 62, with leading zeros. 43 digits hold 256 bits, 6 hold 32.
fn base62<const LENGTH: usize>(number: &[u8]) -> [u8; LENGTH] {
    let mut number = number.to_vec();
    let mut digits = [b'0'; LENGTH];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0_u32;
        for byte in &mut number {
            let value = rest * 256 + u32::from(*byte);
            // The rest was below 62, so that the quotient is below 256.
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            rest = value % 62;
        }
        *digit = DIGITS[rest as usize];
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_new_key_has_the_right_form_and_no_two_are_alike() {
        let (one, other) = (NewKey::generate().unwrap(), NewKey::generate().unwrap());
        assert_ne!(one.expose(), other.expose());
        assert_eq!(one.expose().len(), LENGTH);
        assert_eq!(hash_of(one.expose().as_bytes()), Some(one.hash()));
        assert!(one.expose().starts_with(&one.hint()) && one.hint().len() == 9);
    }

    #[test]
    fn the_largest_number_fits() {
        let key = NewKey::of([0xff; 32]);
        // 2^256 - 1 in base 62, by Python.
        assert_eq!(&key.expose()[5..48], "yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp1");
        assert!(hash_of(key.expose().as_bytes()).is_some());
        assert_eq!(&NewKey::of([0; 32]).expose()[5..48], "0".repeat(43));
    }

    proptest! {
        #[test]
        fn every_single_mistake_is_noticed(bits: [u8; 32], at in 0..LENGTH, other in 0..62_usize) {
            let key = NewKey::of(bits);
            let mut mistyped = key.expose().as_bytes().to_vec();
            prop_assume!(mistyped[at] != DIGITS[other]);
            mistyped[at] = DIGITS[other];
            prop_assert_eq!(hash_of(&mistyped), None);
            prop_assert_eq!(hash_of(&key.expose().as_bytes()[..at]), None);
        }

        #[test]
        fn different_bits_are_different_keys(one: [u8; 32], other: [u8; 32]) {
            prop_assert_eq!(one == other, NewKey::of(one).expose() == NewKey::of(other).expose());
        }
    }
}
