//! The side of a client: of Mimir, with https.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::certificate::Certified;
use super::{OldestVersion, provider};

/// Whom to trust, and what to show.
#[derive(Debug)]
pub struct ClientSettings {
    /// No other authority counts.
    pub authorities: RootCertStore,
    /// The client's own certificate, for a server that asks for one.
    pub own: Option<Certified>,
    /// What the server's certificate must be for, if not for the name by which the server is known.
    pub server_name: Option<String>,
}

impl ClientSettings {
    /// For HTTP/1.1. The server's certificate must be for its name.
    pub fn build(self) -> Result<ClientConfig, String> {
        let authorities = Arc::new(self.authorities);
        let verifier = WebPkiServerVerifier::builder_with_provider(authorities, provider());
        let verifier = verifier.build().map_err(|error| error.to_string())?;
        let name = self.server_name.map(ServerName::try_from).transpose();
        let name = name.map_err(|error| error.to_string())?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(OldestVersion::Tls12.versions())
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ByName { verifier, name }));
        let mut config = match self.own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let own = Arc::new(rustls::sign::SingleCertAndKey::from(own.key));
                builder.with_client_cert_resolver(own)
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Verifies as rustls does, and perhaps for another name.
#[derive(Debug)]
struct ByName {
    verifier: Arc<WebPkiServerVerifier>,
    name: Option<ServerName<'static>>,
}

impl ServerCertVerifier for ByName {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let name = self.name.as_ref().unwrap_or(name);
        self.verifier.verify_server_cert(own, others, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
