//! The side of a client: of Mimir, with https.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use super::certificate::Certified;
use super::{OldestVersion, provider};

/// Whom to trust, and what to show.
#[derive(Debug)]
pub struct ClientSettings {
    /// No other authority counts.
    pub authorities: RootCertStore,
    /// The client's own certificate, for a server that asks for one.
    pub own: Option<Certified>,
}

impl ClientSettings {
    /// For HTTP/1.1. The server's certificate must be for its name.
    pub fn build(self) -> Result<ClientConfig, String> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(OldestVersion::Tls12.versions())
            .map_err(|error| error.to_string())?
            .with_root_certificates(Arc::new(self.authorities));
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
