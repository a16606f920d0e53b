//! The secret of the database's webhooks: Supabase sends fixed headers and no signature, so a secret
//! that only it knows is all there is.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::{HeaderMap, HeaderName};

use super::credential::{self, Credential};
use super::fingerprint::{Digest, digest};
use super::refusal::{CredentialFault, Refusal};
use crate::config::Secret;

/// The secret's digest; none if webhooks are off.
#[derive(Default)]
pub(super) struct WebhookSecret(Option<Digest>);

/// For those who keep `Authorization` for something else.
const HEADER: HeaderName = HeaderName::from_static("x-webhook-secret");

impl WebhookSecret {
    pub(super) fn new(secret: &Secret) -> Self {
        Self((!secret.is_empty()).then(|| digest(secret.expose())))
    }

    /// Sees whether a request shows it, as a bearer token or in a header of its own. Compared are
    /// digests, in constant time.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let wrong = Refusal::Credential(CredentialFault::Webhook);
        let own = headers.get_all(&HEADER);
        let mut own = own.iter();
        let shown = match (own.next(), own.next()) {
            (Some(value), None) => digest(value.as_bytes()),
            (Some(_), Some(_)) => return Err(Refusal::Credential(CredentialFault::Several)),
            (None, _) => match credential::read(headers, None)? {
                Credential::Bearer(bytes) => digest(bytes),
                Credential::Password(password) => digest(&password),
                Credential::DeviceKey(_) | Credential::Certificate(_) => return Err(wrong),
            },
        };
        match &self.0 {
            Some(secret) if verify_slices_are_equal(secret, &shown).is_ok() => Ok(()),
            _ => Err(wrong),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_the_secret_opens_and_only_where_there_is_one() {
        let secret = WebhookSecret::new(&Secret::new("a secret of the webhooks"));
        let off = WebhookSecret::new(&Secret::default());
        let good = [
            headers(&[("authorization", "Bearer a secret of the webhooks")]),
            headers(&[("x-webhook-secret", "a secret of the webhooks")]),
            headers(&[
                ("authorization", "Basic YTpi"),
                ("x-webhook-secret", "a secret of the webhooks"),
            ]),
        ];
        for headers in &good {
            assert!(secret.check(headers).is_ok(), "{headers:?}");
            assert!(off.check(headers).is_err(), "{headers:?}");
        }
        for wrong in [
            headers(&[]),
            headers(&[("authorization", "Bearer ")]),
            headers(&[("x-webhook-secret", "")]),
            headers(&[("x-webhook-secret", "a secret of the webhook")]),
            headers(&[("x-webhook-secret", "x"), ("x-webhook-secret", "a secret of the webhooks")]),
        ] {
            assert!(secret.check(&wrong).is_err(), "{wrong:?}");
            assert!(off.check(&wrong).is_err(), "{wrong:?}");
        }
    }
}
