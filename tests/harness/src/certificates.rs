//! Certificates: for a server on loopback with two authorities, of which one signed it and one did not; and
//! any others that a test asks an authority for.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};

/// Where the files are, all PEM.
pub(crate) struct Certificates {
    pub(crate) ca: PathBuf,
    pub(crate) other_ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificates {
    /// Makes them for `127.0.0.1` and `localhost`.
    pub(crate) fn make(directory: &Path) -> Self {
        let (ca, other_ca) = (authority("Harness CA"), authority("Other harness CA"));
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, "localhost");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().expect("key");
        let certificate = params.signed_by(&key, &ca).expect("certificate");
        let write = |name: &str, pem: String| {
            let file = directory.join(name);
            std::fs::write(&file, pem).expect("certificate file");
            file
        };
        let made = Self {
            ca: write("ca.pem", ca.pem()),
            other_ca: write("other-ca.pem", other_ca.pem()),
            certificate: write("server.pem", certificate.pem()),
            key: write("server.key", key.serialize_pem()),
        };
        // PostgreSQL refuses a key that others may read.
        std::fs::set_permissions(&made.key, Permissions::from_mode(0o600)).expect("permissions");
        made
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("authority")
}

/// An authority that signs what a test asks for.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, both PEM.
#[derive(Clone, Debug)]
pub struct KeyPairPem {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// The certificate in DER.
    pub der: Vec<u8>,
}

/// The purpose of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Of a server.
    Server,
    /// Of a client.
    Client,
}

impl Authority {
    /// A new one.
    pub fn new(name: &str) -> Self {
        Self(authority(name))
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for names: of hosts, addresses, or URIs.
    pub fn sign(&self, purpose: Purpose, names: &[&str]) -> KeyPairPem {
        self.sign_until(purpose, names, 4096)
    }

    /// One that expires at the beginning of a year.
    pub fn sign_until(&self, purpose: Purpose, names: &[&str], year: i32) -> KeyPairPem {
        self.sign_with(purpose, names, |params| params.not_after = date_time_ymd(year, 1, 1))
    }

    /// One that expires so soon.
    pub fn sign_for(&self, purpose: Purpose, names: &[&str], time: Duration) -> KeyPairPem {
        let end = SystemTime::now().duration_since(UNIX_EPOCH).expect("now") + time;
        self.sign_with(purpose, names, |params| params.not_after = date_time_ymd(1970, 1, 1) + end)
    }

    /// The TLS of a client that trusts it alone, with a certificate of the client's own or without, and with what it
    /// offers by ALPN.
    pub fn client(&self, own: Option<&KeyPairPem>, protocols: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(read_certificate(&self.pem())).expect("authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("key");
                let certificate = read_certificate(&own.certificate);
                builder.with_client_auth_cert(vec![certificate], key).expect("own certificate")
            }
        };
        config.alpn_protocols = protocols.iter().map(|one| one.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    fn sign_with(
        &self,
        purpose: Purpose,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> KeyPairPem {
        let (uris, hosts): (Vec<&str>, Vec<&str>) =
            names.iter().partition(|name| name.contains("://"));
        let hosts: Vec<String> = hosts.into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(hosts).expect("names");
        params.distinguished_name.push(DnType::CommonName, "harness");
        for uri in uris {
            params.subject_alt_names.push(SanType::URI(uri.try_into().expect("a URI")));
        }
        params.not_before = date_time_ymd(2000, 1, 1);
        change(&mut params);
        params.extended_key_usages = vec![match purpose {
            Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        let key = KeyPair::generate().expect("key");
        let certificate = params.signed_by(&key, &self.0).expect("certificate");
        let (der, pem) = (certificate.der().to_vec(), certificate.pem());
        KeyPairPem { certificate: pem, key: key.serialize_pem(), der }
    }
}

fn read_certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("certificate")
}

/// A TLS session with `localhost` that has not begun.
pub fn session(config: &Arc<ClientConfig>) -> ClientConnection {
    let name = ServerName::try_from("localhost").expect("name");
    ClientConnection::new(Arc::clone(config), name).expect("session")
}

/// The first bytes of a handshake.
pub fn hello(config: &Arc<ClientConfig>) -> Vec<u8> {
    let mut hello = Vec::new();
    session(config).write_tls(&mut hello).expect("hello");
    hello
}

impl KeyPairPem {
    /// Writes both into a directory, as NAME.pem and NAME.key.
    pub fn write(&self, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let files = [("pem", &self.certificate), ("key", &self.key)].map(|(end, text)| {
            let file = directory.join(format!("{name}.{end}"));
            std::fs::write(&file, text).expect("certificate file");
            file
        });
        files.into()
    }
}
