//! `device-key create | list | revoke`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use uuid::Uuid;

use super::{Outcome, Said, database_failed, now, on_a_runtime};
use crate::authn::NewKey;
use crate::config::{DatabaseConfig, TablesRead, parse_duration};
use crate::key_management::{self, Creator, DeviceKeyRequest, DeviceKeyView, KeyError};
use crate::store::{KeyHash, Store, StoreError};
use crate::tenancy::{DeviceId, OrganisationId, Scope};
use crate::tls::{self, DeviceIdentity};

/// Creates, lists or revokes device keys.
#[derive(Subcommand)]
pub enum DeviceKeyCommand {
    /// Create a key and print it; it is not shown again.
    Create(Create),
    /// List an organisation's keys.
    List(Of),
    /// Revoke a key; it is refused within a second.
    Revoke(Revoke),
}

/// The organisation, and the form of the output.
#[derive(Args)]
pub struct Of {
    /// The organisation's identifier.
    #[arg(long, value_name = "ID")]
    organisation: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The new key.
#[derive(Args)]
pub struct Create {
    #[command(flatten)]
    of: Of,
    /// A name for the device.
    #[arg(long)]
    name: String,
    /// Its scopes: metrics:write, metrics:read, rules:read, alerts:read.
    #[arg(long, value_delimiter = ',', default_value = "metrics:write")]
    scopes: Vec<String>,
    /// When it expires, such as 90d; never if omitted.
    #[arg(long, value_name = "DURATION")]
    expires_in: Option<String>,
    /// For how long it is still accepted after it expired.
    #[arg(long, value_name = "DURATION", default_value = "7d")]
    grace: String,
    /// Instead of a key, the device's certificate (PEM): its SHA-256 is stored. For
    /// `tls.device_identity = "fingerprint"`.
    #[arg(long, value_name = "FILE", conflicts_with = "certificate_name")]
    certificate: Option<PathBuf>,
    /// Instead of a key, the URI or the host name that the device's certificates have. For
    /// `tls.device_identity = "uri"` or `"dns"`.
    #[arg(long, value_name = "uri:URI|dns:NAME")]
    certificate_name: Option<String>,
}

/// The key to revoke.
#[derive(Args)]
pub struct Revoke {
    #[command(flatten)]
    of: Of,
    /// The key's identifier, as `list` shows it.
    id: Uuid,
}

/// The JSON of a key that was just created.
#[derive(Serialize)]
struct CreatedKey<'a> {
    #[serde(flatten)]
    device_key: &'a DeviceKeyView,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    /// What is stored in the place of the key's hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_hash: Option<&'a str>,
}

/// Creates, lists or revokes device keys in the database.
pub fn device_key(database: &DatabaseConfig, command: DeviceKeyCommand) -> Outcome {
    on_a_runtime(async {
        let store =
            Store::new(database, TablesRead::default()).map_err(|error| error.to_string())?;
        match command {
            DeviceKeyCommand::Create(args) => create(&store, args).await,
            DeviceKeyCommand::List(of) => list(&store, &of).await,
            DeviceKeyCommand::Revoke(args) => revoke(&store, &args).await,
        }
    })?
}

async fn create(store: &Store, args: Create) -> Outcome {
    let organisation = organisation(&args.of)?;
    let request = DeviceKeyRequest {
        name: args.name,
        scopes: Some(args.scopes),
        expires_at: None,
        expires_in_seconds: args.expires_in.as_deref().map(seconds).transpose()?,
        grace_seconds: Some(seconds(&args.grace)?),
    };
    let creator = Creator {
        name: "command line".to_owned(),
        // Anybody with the database's URL can write every key there anyway.
        scopes: Scope::ALL.into_iter().collect(),
        proves_organisation: false,
    };
    let by_certificate = by_certificate(args.certificate.as_deref(), args.certificate_name)?;
    let created = match by_certificate.clone() {
        None => key_management::create(store, &organisation, &request, creator, now())
            .await
            .map(|(key, device_key)| (Some(key), device_key)),
        Some(of) => key_management::register(store, &organisation, &request, creator, of, now())
            .await
            .map(|device_key| (None, device_key)),
    };
    let (key, device_key) = match created {
        Ok(created) => created,
        Err(KeyError::Store(error @ StoreError::Missing(_))) => {
            return Err(format!("{error}; add it to the table organisation first"));
        }
        Err(KeyError::Store(error @ StoreError::Taken)) => {
            return Err(format!(
                "{error} with this certificate, or name in it; one that was revoked counts, too"
            ));
        }
        Err(KeyError::Store(error)) => return database_failed(&error),
        Err(error) => return Err(error.to_string()),
    };
    let note = match key {
        Some(_) => {
            format!("device {}; the key is shown once, only its hash is stored", device_key.id)
        }
        None => format!("device {}, known by its certificate", device_key.id),
    };
    let hash = by_certificate.map(|(hash, _)| hex::encode(hash));
    let answer = if args.of.json {
        let (key, certificate_hash) = (key.as_ref().map(NewKey::expose), hash.as_deref());
        json(&CreatedKey { device_key: &device_key, key, certificate_hash })?
    } else {
        key.map_or_else(|| hash.unwrap_or_default(), |key| key.expose().to_owned())
    };
    Ok(Said { answer, note: Some(note), exit_code: 0 })
}

/// What a device with a certificate is looked up by, and by which its owner recognises it.
fn by_certificate(
    file: Option<&Path>,
    name: Option<String>,
) -> Result<Option<(KeyHash, String)>, String> {
    if let Some(file) = file {
        let content = std::fs::read(file).map_err(|error| format!("cannot be read: {error}"));
        let chain = content.and_then(|content| tls::chain(&content));
        let chain = chain.map_err(|problem| format!("{} {problem}", file.display()))?;
        let hash = chain.first().map(DeviceIdentity::fingerprint).unwrap_or_default();
        return Ok(Some((hash, format!("certificate {}", hex::encode(&hash[..4])))));
    }
    let Some(name) = name else { return Ok(None) };
    let hash = DeviceIdentity::hash_of_name(&name).ok_or_else(|| {
        format!("'{name}' is no name in a certificate; write uri:URI or dns:NAME")
    })?;
    Ok(Some((hash, name)))
}

async fn list(store: &Store, of: &Of) -> Outcome {
    let (keys, _) = match key_management::list(store, &organisation(of)?, now()).await {
        Ok(listed) => listed,
        Err(error) => return database_failed(&error),
    };
    if of.json {
        return Ok(json(&keys)?.into());
    }
    let header =
        ["ID", "HINT", "STATE", "LAST USED", "EXPIRES", "SCOPES", "NAME"].map(str::to_owned);
    let rows: Vec<[String; 7]> = std::iter::once(header).chain(keys.iter().map(row)).collect();
    let note = keys.is_empty().then(|| "this organisation has no device keys".to_owned());
    Ok(Said { answer: table(&rows), note, exit_code: 0 })
}

fn row(key: &DeviceKeyView) -> [String; 7] {
    let time = |time: &Option<String>| time.clone().unwrap_or_else(|| "never".to_owned());
    [
        key.id.to_string(),
        key.key_hint.clone(),
        key.state.name().to_owned(),
        time(&key.last_used_at),
        time(&key.expires_at),
        key.scopes.join(","),
        key.name.clone(),
    ]
}

/// Columns as wide as their widest cell.
fn table(rows: &[[String; 7]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..7).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

async fn revoke(store: &Store, args: &Revoke) -> Outcome {
    let organisation = organisation(&args.of)?;
    match key_management::revoke(store, &organisation, DeviceId(args.id), now()).await {
        Err(error) => database_failed(&error),
        Ok(None) => Err("the organisation has no such device key".to_owned()),
        Ok(Some(key)) if args.of.json => Ok(json(&key)?.into()),
        Ok(Some(key)) => Ok(format!("revoked: {} ({})", key.id, key.name).into()),
    }
}

fn json(value: &impl Serialize) -> Result<String, String> {
    serde_json::to_string(value).map_err(|error| error.to_string())
}

fn organisation(of: &Of) -> Result<OrganisationId, String> {
    OrganisationId::parse(&of.organisation).map_err(|error| format!("--organisation: {error}"))
}

fn seconds(text: &str) -> Result<u32, String> {
    let seconds = parse_duration(text).and_then(|duration| u32::try_from(duration.as_secs()).ok());
    seconds.ok_or_else(|| format!("'{text}' is not a duration; write for example 90d or 12h"))
}
