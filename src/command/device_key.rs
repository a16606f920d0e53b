//! `device-key create | list | revoke`

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Outcome, Said, database_failed, now, on_a_runtime};
use crate::admin::{AdminError, KeyRequest, Maker, create_key, listed_key};
use crate::config::{DatabaseConfig, TablesRead, parse_duration};
use crate::store::{Store, StoreError};
use crate::tenancy::{DeviceId, OrganisationId, Scope};

/// What is to be done with device keys.
#[derive(Subcommand)]
pub enum DeviceKeyCommand {
    /// Make a key and print it, this once.
    Create(Create),
    /// List an organisation's keys.
    List(Of),
    /// Revoke a key; within a second nobody can use it.
    Revoke(Revoke),
}

/// Which organisation.
#[derive(Args)]
pub struct Of {
    /// The organisation's identifier.
    #[arg(long, value_name = "ID")]
    organisation: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What a new key is to be.
#[derive(Args)]
pub struct Create {
    #[command(flatten)]
    of: Of,
    /// What the device is called.
    #[arg(long)]
    name: String,
    /// What it may do: metrics:write, metrics:read, rules:read.
    #[arg(long, value_delimiter = ',', default_value = "metrics:write")]
    scopes: Vec<String>,
    /// When it expires, such as 90d; never if this is left out.
    #[arg(long, value_name = "DURATION")]
    expires_in: Option<String>,
    /// How long it works on after that.
    #[arg(long, value_name = "DURATION", default_value = "7d")]
    grace: String,
}

/// Which key is to go.
#[derive(Args)]
pub struct Revoke {
    #[command(flatten)]
    of: Of,
    /// The key's identifier, as `list` shows it.
    id: Uuid,
}

/// Makes, lists or revokes device keys in the database.
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
    let request = KeyRequest {
        name: args.name,
        scopes: Some(args.scopes),
        expires_at: None,
        expires_in_seconds: args.expires_in.as_deref().map(seconds).transpose()?,
        grace_seconds: Some(seconds(&args.grace)?),
    };
    let now = now();
    let maker = Maker {
        name: "command line".to_owned(),
        // Whoever has the database's address may write anything there.
        scopes: Scope::ALL.into_iter().collect(),
        knows_organisation: false,
    };
    let created = create_key(store, &organisation, &request, maker, now).await;
    let (key, listed) = match created {
        Ok(created) => created,
        Err(AdminError::Store(error @ StoreError::Missing(_))) => {
            return Err(format!("{error}; it has to be in the table organisation first"));
        }
        Err(AdminError::Store(error)) => return database_failed(&error),
        Err(error) => return Err(error.to_string()),
    };
    let note = format!("device {}; this is shown once, only its hash is kept", listed.id);
    let answer = if args.of.json {
        let mut value = listed_key(&listed, now);
        value["key"] = json!(key.expose());
        value.to_string()
    } else {
        key.expose().to_owned()
    };
    Ok(Said { answer, note: Some(note), exit_code: 0 })
}

async fn list(store: &Store, of: &Of) -> Outcome {
    let keys = match store.list_device_keys(&organisation(of)?).await {
        Ok(keys) => keys,
        Err(error) => return database_failed(&error),
    };
    let now = now();
    let keys: Vec<Value> = keys.iter().map(|key| listed_key(key, now)).collect();
    if of.json {
        return Ok(json!(keys).to_string().into());
    }
    let header =
        ["ID", "HINT", "STATE", "LAST USED", "EXPIRES", "SCOPES", "NAME"].map(str::to_owned);
    let row = |key: &Value| {
        let text = |field: &str| key[field].as_str().unwrap_or("never").to_owned();
        let scopes = key["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let scopes = scopes.collect::<Vec<_>>().join(",");
        let (used, expires) = (text("last_used_at"), text("expires_at"));
        [text("id"), text("key_hint"), text("state"), used, expires, scopes, text("name")]
    };
    let rows: Vec<[String; 7]> = std::iter::once(header).chain(keys.iter().map(row)).collect();
    let note = keys.is_empty().then(|| "this organisation has no device keys".to_owned());
    Ok(Said { answer: table(&rows), note, exit_code: 0 })
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
    let revoked = store.revoke_device_key(&organisation(&args.of)?, DeviceId(args.id)).await;
    let revoked = match revoked {
        Ok(revoked) => revoked,
        Err(error) => return database_failed(&error),
    };
    match revoked {
        None => Err("the organisation has no such device key".to_owned()),
        Some(key) if args.of.json => Ok(listed_key(&key, now()).to_string().into()),
        Some(key) => Ok(format!("revoked: {} ({})", key.id, key.name).into()),
    }
}

fn organisation(of: &Of) -> Result<OrganisationId, String> {
    OrganisationId::parse(&of.organisation).map_err(|error| format!("--organisation: {error}"))
}

fn seconds(text: &str) -> Result<u32, String> {
    let seconds = parse_duration(text).and_then(|duration| u32::try_from(duration.as_secs()).ok());
    seconds.ok_or_else(|| format!("'{text}' is no duration; write for example 90d or 12h"))
}
