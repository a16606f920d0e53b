//! What stands for a token in the cache: a universal hash with a key that is drawn at the start and
//! leaves the process as little as the hashes do (docs/decisions/0003).
//!
//! It is UMAC's NH with words of 64 bits, twice, the second time with the key moved on by two words:
//! for two different texts of one length, whatever they are, at most one key in 2^128 gives both the
//! same hash. That is proven and needs no assumption about anybody's computing power, only that who
//! chooses the texts does not know the key: Black, Halevi, Krawczyk, Krovetz and Rogaway, "UMAC: Fast
//! and Secure Message Authentication" (CRYPTO '99), section 4.

use std::hash::{Hash, Hasher};

use aws_lc_rs::digest::{SHA256, digest as sha256};

/// The SHA-256 of a credential.
pub(super) type Digest = [u8; 32];

pub(super) fn digest(credential: &[u8]) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(sha256(&SHA256, credential).as_ref());
    bytes
}

/// Two texts with the same fingerprint are the same, for all practical purposes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fingerprint {
    hash: [u64; 4],
    /// Of the text, because the proof is about texts of one length.
    length: usize,
}

/// The key of all fingerprints of this process.
pub(super) struct FingerprintKey {
    words: Vec<u64>,
    /// The longest text that it is enough for.
    longest: usize,
}

/// More than Supabase's tokens have, with many claims.
const LONGEST: usize = 2 << 10;
/// Bytes that are hashed at once: two words.
const BLOCK: usize = 16;
/// Words by which the key is moved on.
const MOVED: usize = 2;

impl FingerprintKey {
    /// A random key.
    pub(super) fn generate() -> Self {
        let mut bytes = vec![0; LONGEST + MOVED * size_of::<u64>()];
        if aws_lc_rs::rand::fill(&mut bytes).is_err() {
            // Without a key every text is too long for it.
            return Self { words: Vec::new(), longest: 0 };
        }
        Self::of(&bytes)
    }

    fn of(bytes: &[u8]) -> Self {
        let words = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        Self { words, longest: bytes.len() - MOVED * size_of::<u64>() }
    }

    /// The fingerprint of a text. One that is too long for the key gets its SHA-256, which no shorter
    /// one's fingerprint equals, because the length is part of both.
    pub(super) fn of_text(&self, text: &[u8]) -> Fingerprint {
        let length = text.len();
        if length > self.longest {
            let digest = digest(text);
            let (halves, _) = digest.as_chunks::<BLOCK>();
            let [one, other] = [words(&halves[0]), words(&halves[1])];
            return Fingerprint { hash: [one[0], one[1], other[0], other[1]], length };
        }
        let (blocks, rest) = text.as_chunks::<BLOCK>();
        let mut last = [0; BLOCK];
        last[..rest.len()].copy_from_slice(rest);
        let mut sums = [0_u128; 2];
        let keys = self.words.windows(MOVED + 2).step_by(2);
        for (block, key) in blocks.iter().chain((!rest.is_empty()).then_some(&last)).zip(keys) {
            let [one, other] = words(block);
            let product = |at: usize| {
                u128::from(one.wrapping_add(key[at])) * u128::from(other.wrapping_add(key[at + 1]))
            };
            sums[0] = sums[0].wrapping_add(product(0));
            sums[1] = sums[1].wrapping_add(product(MOVED));
        }
        let [one, other] = sums.map(|sum| words(&sum.to_le_bytes()));
        Fingerprint { hash: [one[0], one[1], other[0], other[1]], length }
    }
}

fn words(bytes: &[u8; BLOCK]) -> [u64; 2] {
    let (words, _) = bytes.as_chunks();
    [words[0], words[1]].map(u64::from_le_bytes)
}

/// Takes the same time wherever the difference is: nothing of a hash may be learned by guessing.
impl PartialEq for Fingerprint {
    fn eq(&self, other: &Self) -> bool {
        let differences = self.hash.iter().zip(&other.hash).fold(0, |all, (a, b)| all | (a ^ b));
        differences == 0 && self.length == other.length
    }
}

impl Eq for Fingerprint {}

/// For a table whose own hash has a key: a place in it says nothing of the fingerprint.
impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Computed by Python from the definition, with the key 0, 1, 2, … in bytes.
    #[test]
    fn it_is_nh_with_a_key_that_moves_on() {
        let bytes: Vec<u8> = (0..64 + 16).map(|byte| u8::try_from(byte).unwrap()).collect();
        let key = FingerprintKey::of(&bytes);
        let hash = [
            0x296f_facd_3601_1d2e,
            0x6ee3_1c84_51e6_9cb0,
            0x70fc_c63b_7f3b_9dee,
            0x94c3_be83_7619_895d,
        ];
        let print = key.of_text(b"The quick brown fox jumps over the lazy dog");
        assert_eq!((print.hash, print.length), (hash, 43));
    }

    proptest! {
        #[test]
        fn texts_that_differ_have_other_fingerprints(
            text in proptest::collection::vec(any::<u8>(), 1..3000),
            at: usize,
            bit in 0..8_u32,
        ) {
            let key = FingerprintKey::generate();
            let mut other = text.clone();
            other[at % text.len()] ^= 1 << bit;
            let print = key.of_text(&text);
            prop_assert!(print == key.of_text(&text));
            prop_assert!(print != key.of_text(&other));
            // With zeros behind it, it would be padded to the same.
            other = text.clone();
            other.push(0);
            prop_assert!(print != key.of_text(&other));
            prop_assert!(print != key.of_text(&text[..text.len() - 1]));
        }

        #[test]
        fn another_key_gives_another_fingerprint(text in proptest::collection::vec(any::<u8>(), 1..2000)) {
            let [one, other] = [FingerprintKey::generate(), FingerprintKey::generate()];
            prop_assert!(one.of_text(&text) != other.of_text(&text));
        }
    }

    #[test]
    fn a_text_that_is_too_long_for_the_key_has_its_sha_256() {
        let key = FingerprintKey::generate();
        let (fits, long) = ([b'x'; LONGEST], [b'x'; LONGEST + 1]);
        let first = |text: &[u8]| u64::from_le_bytes(digest(text)[..8].try_into().unwrap());
        assert_eq!(key.of_text(&long).hash[0], first(&long));
        assert_ne!(key.of_text(&fits).hash[0], first(&fits));
    }
}
