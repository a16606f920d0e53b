//! Which device a client's certificate is.

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// What of a certificate names its device.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum DeviceIdentity {
    /// Its SHA-256: another certificate is another device.
    Fingerprint,
    /// Its only URI among the subject alternative names, such as a SPIFFE ID.
    Uri,
    /// Its only DNS name there.
    Dns,
}

/// The certificate of a client that has shown that it has its key, as a device is looked up by it. Set by
/// the listener in a request's extensions, read by the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceCertificate {
    /// In the place of a device key's hash.
    pub hash: [u8; 32],
}

impl DeviceIdentity {
    /// The device of a verified certificate. None if it names none, or several: which of them counts would
    /// be a matter of opinion.
    pub fn of(self, certificate: &CertificateDer<'_>) -> Option<DeviceCertificate> {
        let parsed = EndEntityCert::try_from(certificate).ok()?;
        let hash = match self {
            Self::Fingerprint => hash(certificate),
            Self::Uri => name_hash("uri", only(parsed.valid_uri_names())?),
            Self::Dns => {
                let name = only(parsed.valid_dns_names()).filter(|name| !name.contains('*'))?;
                name_hash("dns", &name.to_ascii_lowercase())
            }
        };
        Some(DeviceCertificate { hash })
    }

    /// The hash of a name as it is stored: `uri:NAME` or `dns:NAME`. None if it is neither.
    pub fn hash_of_name(name: &str) -> Option<[u8; 32]> {
        let (kind, name) = name.split_once(':').filter(|(_, name)| !name.is_empty())?;
        match kind {
            "uri" => Some(name_hash("uri", name)),
            "dns" => Some(name_hash("dns", &name.to_ascii_lowercase())),
            _ => None,
        }
    }

    /// The hash of a certificate as it is stored.
    pub fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
        hash(certificate)
    }
}

/// No device key begins like this, or like a certificate: names and certificates are no secrets, so neither
/// may be accepted as a key.
fn name_hash(kind: &str, name: &str) -> [u8; 32] {
    hash(format!("{kind}:{name}").as_bytes())
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

fn only<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names.next().filter(|_| names.next().is_none())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(hosts: &[&str], uris: &[&str]) -> CertificateDer<'static> {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
        params.subject_alt_names.extend(uris);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_names_one_device_or_none() {
        let hash = |identity: DeviceIdentity, hosts: &[&str], uris: &[&str]| {
            identity.of(&certificate(hosts, uris)).map(|device| device.hash)
        };
        let spiffe = "spiffe://example.org/hub/17";
        let of = |name: &str| DeviceIdentity::hash_of_name(name);
        assert_eq!(
            hash(DeviceIdentity::Uri, &["a.example"], &[spiffe]),
            of("uri:spiffe://example.org/hub/17")
        );
        assert_eq!(
            hash(DeviceIdentity::Dns, &["Hub-17.example"], &[spiffe]),
            of("dns:hub-17.EXAMPLE")
        );
        assert_ne!(of("uri:a"), of("dns:a"));
        for none in [
            hash(DeviceIdentity::Uri, &["a.example"], &[]),
            hash(DeviceIdentity::Uri, &[], &[spiffe, "spiffe://example.org/hub/18"]),
            hash(DeviceIdentity::Dns, &["a.example", "b.example"], &[]),
            hash(DeviceIdentity::Dns, &["*.example"], &[]),
            hash(DeviceIdentity::Dns, &["127.0.0.1"], &[]),
            of("a"),
            of("uri:"),
            of("ip:127.0.0.1"),
        ] {
            assert_eq!(none, None);
        }
        let (one, other) = (certificate(&["a.example"], &[]), certificate(&["a.example"], &[]));
        let fingerprint = |one| DeviceIdentity::Fingerprint.of(one).unwrap().hash;
        assert_eq!(fingerprint(&one), DeviceIdentity::fingerprint(&one));
        assert_ne!(fingerprint(&one), fingerprint(&other));
    }
}
