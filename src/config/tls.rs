//! `[tls]`: the certificates of the public port, and those that clients show.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;

use super::reader::{Raw, Section};
use super::shown::{Shown, mark_of};
use super::values::{switch, text};
use crate::clock::{Clock, rfc3339};
use crate::tls::{
    Certified, ClientCertificates, ClientPolicy, DeviceIdentity, OldestVersion, ServerSettings,
    Validity, authorities, chain, key,
};

/// What the public port serves with TLS.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    pub server: Arc<ServerConfig>,
    pub certificates: Vec<ServedCertificate>,
    pub policy: ClientPolicy,
    /// How a client's certificate says which device it is; none if it only lets in.
    pub device_identity: Option<DeviceIdentity>,
}

/// One of our own certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedCertificate {
    pub file: PathBuf,
    pub names: Vec<String>,
    pub validity: Validity,
}

impl ServedCertificate {
    /// Why it is not good at a time (seconds since the epoch).
    pub fn problem(&self, now: i64) -> Option<String> {
        let Validity { from, until } = self.validity;
        let file = self.file.display();
        let when = |seconds| {
            let time = time::OffsetDateTime::from_unix_timestamp(seconds);
            time.map_or_else(|_| format!("second {seconds}"), rfc3339)
        };
        if now > until {
            Some(format!("the certificate in {file} expired at {}: clients refuse it", when(until)))
        } else if now < from {
            let from = when(from);
            Some(format!("the certificate in {file} is not valid before {from}: clients refuse it"))
        } else {
            None
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IsRequired(bool);

impl Shown for IsRequired {
    fn shown(&self) -> String {
        if self.0 { "required" } else { "optional" }.to_owned()
    }
}

impl Shown for DeviceIdentity {
    fn shown(&self) -> String {
        match self {
            Self::Fingerprint => "fingerprint",
            Self::Uri => "uri",
            Self::Dns => "dns",
        }
        .to_owned()
    }
}

impl Shown for OldestVersion {
    fn shown(&self) -> String {
        match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        }
        .to_owned()
    }
}

pub(super) fn read(section: &mut Section<'_>) -> Option<TlsConfig> {
    let certificate_files = section.get_list("certificate_files", Vec::new(), path);
    let key_files = section.get_list("key_files", Vec::new(), path);
    let oldest =
        section.get("min_version", OldestVersion::Tls12, |raw| match text(raw)?.as_str() {
            "1.2" => Ok(OldestVersion::Tls12),
            "1.3" => Ok(OldestVersion::Tls13),
            _ => Err("must be \"1.2\" or \"1.3\"; older ones are broken".to_owned()),
        });
    let has_http2 = section.get("http2", true, switch);
    let client_ca_file = optional_path(section, "client_ca_file");
    let IsRequired(is_required) =
        section.get("client_certificates", IsRequired(false), |raw| match text(raw)?.as_str() {
            "optional" => Ok(IsRequired(false)),
            "required" => Ok(IsRequired(true)),
            _ => Err("must be \"optional\" or \"required\"".to_owned()),
        });
    let device_identity = section.get("device_identity", None, |raw| match text(raw)?.as_str() {
        "none" => Ok(None),
        "fingerprint" => Ok(Some(DeviceIdentity::Fingerprint)),
        "uri" => Ok(Some(DeviceIdentity::Uri)),
        "dns" => Ok(Some(DeviceIdentity::Dns)),
        _ => Err("must be \"none\", \"fingerprint\", \"uri\" or \"dns\"".to_owned()),
    });
    if certificate_files.is_empty() {
        let others = [
            "key_files",
            "min_version",
            "http2",
            "client_ca_file",
            "client_certificates",
            "device_identity",
        ];
        if !section.is_faulty("certificate_files")
            && let Some(key) = others.into_iter().find(|key| section.says(key))
        {
            section.fault(key, "has no effect without tls.certificate_files".to_owned());
        }
        return None;
    }
    for key in ["client_certificates", "device_identity"] {
        if client_ca_file.is_none() && section.says(key) {
            section.fault(key, "has no effect without tls.client_ca_file".to_owned());
        }
    }
    let certified = certificates(section, &certificate_files, &key_files);
    let mut authorities_file = Vec::new();
    let clients = client_ca_file.map(|file| {
        let authorities = file_of(section, "client_ca_file", &file, |pem| {
            authorities_file = pem.to_vec();
            authorities(pem)
        });
        authorities.map(|authorities| ClientCertificates { authorities, is_required })
    });
    let clients = match clients {
        None => None,
        Some(Some(clients)) => Some(clients),
        Some(None) => return None,
    };
    let (certificates, certified) = certified?.into_iter().unzip();
    let policy = ClientPolicy(mark_of(&(authorities_file, is_required, device_identity, oldest)));
    match (ServerSettings { certificates: certified, oldest, has_http2, clients }).build() {
        Ok(server) => {
            Some(TlsConfig { server: Arc::new(server), certificates, policy, device_identity })
        }
        Err(problem) => {
            section.fault("certificate_files", problem);
            None
        }
    }
}

/// The certificates, each with the file of its place; none if any is faulty.
fn certificates(
    section: &mut Section<'_>,
    certificate_files: &[PathBuf],
    key_files: &[PathBuf],
) -> Option<Vec<(ServedCertificate, Certified)>> {
    if !key_files.is_empty() && key_files.len() != certificate_files.len() {
        let (keys, all) = (key_files.len(), certificate_files.len());
        let problem = format!(
            "names {keys} files for {all} of tls.certificate_files; name one for each, in the same \
             order, or none if each key is in the file of its certificate"
        );
        section.fault("key_files", problem);
        return None;
    }
    let now = Clock::system().unix_seconds();
    let mut all = Vec::new();
    for (place, file) in certificate_files.iter().enumerate() {
        let own = file_of(section, "certificate_files", file, chain);
        let private = match key_files.get(place) {
            Some(key_file) => file_of(section, "key_files", key_file, key),
            None => file_of(section, "certificate_files", file, key),
        };
        let (Some(own), Some(private)) = (own, private) else { continue };
        match Certified::new(own, private) {
            Ok(certified) => {
                let (names, validity) = (certified.names(), certified.validity);
                let served = ServedCertificate { file: file.clone(), names, validity };
                if let Some(problem) = served.problem(now) {
                    section.warn("certificate_files", problem);
                }
                all.push((served, certified));
            }
            Err(problem) => {
                section.fault("certificate_files", format!("{}: {problem}", file.display()));
            }
        }
    }
    (all.len() == certificate_files.len()).then_some(all)
}

/// What a file holds. A change of its content counts as one of the key.
pub(super) fn file_of<T>(
    section: &mut Section<'_>,
    key: &'static str,
    file: &Path,
    read: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Option<T> {
    let content = std::fs::read(file).map_err(|error| format!("cannot be read: {error}"));
    let content = content.and_then(|content| {
        section.has_content(key, &content);
        read(&content)
    });
    content.map_err(|problem| section.fault(key, format!("{} {problem}", file.display()))).ok()
}

/// The path of a file; none if it is empty.
pub(super) fn optional_path(section: &mut Section<'_>, key: &'static str) -> Option<PathBuf> {
    section.get(key, None, |raw: Raw| {
        let path = text(raw)?;
        Ok(Some(path).filter(|path| !path.is_empty()).map(PathBuf::from))
    })
}

fn path(text: String) -> Result<PathBuf, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.into()) }
}
