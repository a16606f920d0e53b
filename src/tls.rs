//! TLS: what certificates, keys and authorities make of rustls. Nothing here opens a socket or a file.
//!
//! One cryptographic provider, the one that tokens are verified with. [Decision
//! 41](../docs/decisions/0041-tls.md) says what is served and asked for, and why.

mod certificate;
mod client;
mod device;
mod server;
mod validity;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use certificate::{Certified, authorities, chain, key};
pub use client::ClientSettings;
pub use device::{DeviceCertificate, DeviceIdentity};
pub use server::{ClientCertificates, ClientPolicy, ServerSettings};
pub use validity::Validity;

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum OldestVersion {
    Tls12,
    Tls13,
}

impl OldestVersion {
    fn versions(self) -> &'static [&'static rustls::SupportedProtocolVersion] {
        match self {
            Self::Tls12 => rustls::ALL_VERSIONS,
            Self::Tls13 => ONLY_TLS13,
        }
    }
}

static ONLY_TLS13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
