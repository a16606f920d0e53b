//! Certificates, keys and authorities from PEM. Errors say what an operator can correct, and repeat nothing
//! of a key.

use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

use super::provider;
use super::validity::Validity;

/// A certificate with its chain and its key.
#[derive(Clone)]
pub struct Certified {
    pub(super) key: Arc<CertifiedKey>,
    pub validity: Validity,
}

impl fmt::Debug for Certified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certified").field("validity", &self.validity).finish_non_exhaustive()
    }
}

impl Certified {
    /// A chain, whose first certificate is the server's own, and the key of that one.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, String> {
        let own = chain.first().ok_or("there is no certificate")?;
        let validity = Validity::of(own).filter(|_| EndEntityCert::try_from(own).is_ok());
        let validity =
            validity.ok_or("the first certificate cannot be read as X.509, version 3")?;
        let certified =
            CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    "the key is not that of the certificate; the server's own certificate comes \
                     first in its file, those of its authorities behind it"
                        .to_owned()
                }
                error => format!("the key cannot be used: {error}"),
            })?;
        Ok(Self { key: Arc::new(certified), validity })
    }

    /// Whether it is for a name, by the rules of clients.
    pub(super) fn is_for(&self, name: &ServerName<'_>) -> bool {
        let own = self.key.cert.first().and_then(|own| EndEntityCert::try_from(own).ok());
        own.is_some_and(|own| own.verify_is_valid_for_subject_name(name).is_ok())
    }

    /// The names of hosts that it has, wildcards included.
    pub fn names(&self) -> Vec<String> {
        let own = self.key.cert.first().and_then(|own| EndEntityCert::try_from(own).ok());
        own.map(|own| own.valid_dns_names().map(str::to_owned).collect()).unwrap_or_default()
    }
}

/// The certificates of a PEM file.
pub fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let wanted = "a PEM file of certificates has lines -----BEGIN CERTIFICATE-----";
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| format!("is not a PEM file: {}", told(&error)))?;
    if all.is_empty() { Err(format!("holds no certificate: {wanted}")) } else { Ok(all) }
}

/// The private key of a PEM file.
pub fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        Error::NoItemsFound => "holds no private key: it must be PEM, and not encrypted".to_owned(),
        error => format!("is not a PEM file: {}", told(&error)),
    })
}

/// The authorities of a PEM file.
pub fn authorities(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for (place, authority) in chain(pem)?.into_iter().enumerate() {
        store.add(authority).map_err(|error| {
            format!("certificate {} cannot be an authority: {error}", place + 1)
        })?;
    }
    Ok(store)
}

/// The parser repeats lines of the file, which may be a key's.
fn told(error: &Error) -> &'static str {
    match error {
        Error::MissingSectionEnd { .. } => "a section has no end",
        Error::IllegalSectionStart { .. } => "a section begins wrongly",
        Error::Base64Decode(_) => "a section is not in base64",
        _ => "it cannot be parsed",
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pair(name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn a_certificate_is_for_the_names_that_it_has() {
        let (certificate, private) = pair("*.example.com");
        let one = Certified::new(
            chain(certificate.as_bytes()).unwrap(),
            key(private.as_bytes()).unwrap(),
        );
        let one = one.unwrap();
        let is_for = |name: &'static str| one.is_for(&ServerName::try_from(name).unwrap());
        assert!(is_for("a.example.com") && is_for("A.EXAMPLE.com"));
        assert!(!is_for("example.com") && !is_for("a.b.example.com") && !is_for("127.0.0.1"));
        assert_eq!(one.names(), ["*.example.com"]);
        assert!(!format!("{one:?}").contains("key"));
    }

    // Both in one file is common, and the order of the two is anybody's choice.
    #[test]
    fn a_file_may_hold_both() {
        let (certificate, private) = pair("a.example");
        for both in [format!("{certificate}{private}"), format!("{private}\n{certificate}")] {
            let both = both.as_bytes();
            assert!(Certified::new(chain(both).unwrap(), key(both).unwrap()).is_ok());
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let ((certificate, private), (other, _)) = (pair("a.example"), pair("b.example"));
        assert!(chain(private.as_bytes()).unwrap_err().contains("no certificate"));
        assert!(chain(b"").unwrap_err().contains("no certificate"));
        assert!(key(certificate.as_bytes()).unwrap_err().contains("no private key"));
        let half = &private[..private.len() / 2];
        let problem = key(half.as_bytes()).unwrap_err();
        assert!(problem.contains("no end") && !problem.contains(&half[40..60]), "{problem}");
        let both = (chain(other.as_bytes()).unwrap(), key(private.as_bytes()).unwrap());
        assert!(
            Certified::new(both.0, both.1).unwrap_err().contains("not that of the certificate")
        );
        let swapped = (
            chain(format!("{other}{certificate}").as_bytes()).unwrap(),
            key(private.as_bytes()).unwrap(),
        );
        assert!(Certified::new(swapped.0, swapped.1).unwrap_err().contains("comes first"));
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let nonsense = chain(nonsense.as_bytes()).unwrap();
        let problem = Certified::new(nonsense, key(private.as_bytes()).unwrap()).unwrap_err();
        assert!(problem.contains("X.509"), "{problem}");
        assert!(
            authorities(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err()
        );
    }
}
