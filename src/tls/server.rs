//! The side of a server: which certificate a client gets, and what it must show.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};

use super::certificate::Certified;
use super::{OldestVersion, provider};

/// What a server serves.
#[derive(Debug)]
pub struct ServerSettings {
    /// The first is for clients that name none of them.
    pub certificates: Vec<Certified>,
    pub oldest: OldestVersion,
    /// Whether clients may choose HTTP/2.
    pub has_http2: bool,
    /// None if clients are not asked for certificates.
    pub clients: Option<ClientCertificates>,
}

/// The certificates of clients that are accepted.
#[derive(Debug)]
pub struct ClientCertificates {
    pub authorities: RootCertStore,
    /// Whether there is no connection without one.
    pub is_required: bool,
}

/// What a server asks of its clients, as a mark: two are equal if the same clients are let in as the same
/// devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientPolicy(pub u64);

/// What is spoken behind TLS, the preferred first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

impl ServerSettings {
    pub fn build(self) -> Result<ServerConfig, String> {
        let told = |error: &dyn std::error::Error| error.to_string();
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(self.oldest.versions())
            .map_err(|error| told(&error))?;
        let asks_clients = self.clients.is_some();
        let builder = match self.clients {
            None => builder.with_no_client_auth(),
            Some(ClientCertificates { authorities, is_required }) => {
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider());
                let verifier =
                    if is_required { verifier } else { verifier.allow_unauthenticated() };
                builder.with_client_cert_verifier(verifier.build().map_err(|error| told(&error))?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(ByName(self.certificates)));
        let protocols = if self.has_http2 { &PROTOCOLS[..] } else { &PROTOCOLS[1..] };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if asks_clients {
            // A resumed session keeps the client's certificate without looking at it again: one that has
            // expired, or whose authority was removed, would stay good for half a day.
            config.send_tls13_tickets = 0;
        } else {
            // Its keys change every six hours. There is no early data, which an attacker could send again.
            config.ticketer =
                rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|error| told(&error))?;
        }
        Ok(config)
    }
}

/// Finds the certificate for the name that a client asks for (SNI).
#[derive(Debug)]
struct ByName(Vec<Certified>);

impl ByName {
    /// The first for the name, or the first of all, of those that the client can verify. A name that no
    /// certificate is for gets one, too: devices connect to an address, and it is for the client to object.
    fn find(
        &self,
        name: Option<&str>,
        suits: impl Fn(&CertifiedKey) -> bool,
    ) -> Option<&Certified> {
        let suiting = || self.0.iter().filter(|one| suits(&one.key));
        let name = name.and_then(|name| ServerName::try_from(name).ok());
        let named = name.and_then(|name| suiting().find(|one| one.is_for(&name)));
        named.or_else(|| suiting().next())
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let suits = |one: &CertifiedKey| one.key.choose_scheme(schemes).is_some();
        self.find(hello.server_name(), suits).map(|one| Arc::clone(&one.key))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::super::certificate::{chain, key};
    use super::*;

    fn certified(names: &[&str]) -> Certified {
        let private = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&private).unwrap();
        let (pem, private) = (certificate.pem(), private.serialize_pem());
        Certified::new(chain(pem.as_bytes()).unwrap(), key(private.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn a_name_finds_its_certificate_and_any_other_the_first() {
        let all = ByName(vec![
            certified(&["a.example", "127.0.0.1"]),
            certified(&["*.b.example"]),
            certified(&["c.b.example"]),
        ]);
        let found = |name: Option<&str>| {
            let found = all.find(name, |_| true).unwrap();
            all.0.iter().position(|one| Arc::ptr_eq(&one.key, &found.key)).unwrap()
        };
        assert_eq!(found(None), 0);
        assert_eq!(found(Some("a.example")), 0);
        assert_eq!(found(Some("x.b.example")), 1);
        assert_eq!(found(Some("c.b.example")), 1, "in the order of the configuration");
        for strange in
            ["", "unknown.example", "*.b.example", "..", "a.example.", "b.example", "\u{e9}"]
        {
            assert_eq!(found(Some(strange)), 0, "{strange:?}");
        }
        assert!(
            all.find(Some("a.example"), |_| false).is_none(),
            "none that the client can verify"
        );
    }

    #[test]
    fn there_is_no_early_data_and_no_resumption_past_the_check_of_a_client() {
        let settings = |clients| ServerSettings {
            certificates: vec![certified(&["a.example"])],
            oldest: OldestVersion::Tls12,
            has_http2: true,
            clients,
        };
        let config = settings(None).build().unwrap();
        assert!(config.max_early_data_size == 0 && config.ticketer.enabled());
        let mut authorities = RootCertStore::empty();
        authorities.add(certified(&["ca.example"]).key.cert[0].clone()).unwrap();
        let clients = ClientCertificates { authorities, is_required: false };
        let config = settings(Some(clients)).build().unwrap();
        assert!(config.send_tls13_tickets == 0 && !config.ticketer.enabled());
        assert!(!config.session_storage.can_cache());
    }
}
