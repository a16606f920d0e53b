//! The operator's own keys, which stand in the configuration.

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::fingerprint::{Digest, digest};
use crate::config::Secret;

/// Keys of services. Only their digests are kept, and they are compared in constant time.
pub(super) struct AdminKeys(Vec<Digest>);

impl AdminKeys {
    pub(super) fn new(keys: &[Secret]) -> Self {
        Self(keys.iter().map(|key| digest(key.expose())).collect())
    }

    /// Whether a digest is that of a key. Every key is compared, whichever it is.
    pub(super) fn has(&self, candidate: &Digest) -> bool {
        let equal = |key: &Digest| verify_slices_are_equal(key, candidate).is_ok();
        self.0.iter().fold(false, |found, key| equal(key) | found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_of_the_keys_will_do_and_nothing_else() {
        let keys = AdminKeys::new(&[Secret::new("the old key"), Secret::new("the new key")]);
        for key in ["the old key", "the new key"] {
            assert!(keys.has(&digest(key.as_bytes())));
        }
        for other in ["", "the", "the new key "] {
            assert!(!keys.has(&digest(other.as_bytes())));
        }
        assert!(!AdminKeys::new(&[]).has(&digest(b"")));
    }
}
