//! `explain-token`

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::explain::{Tried, explain};
use super::{Outcome, Said, on_a_runtime};
use crate::authn::{KeySet, Verdict, fetch_key_set, key_set_client};
use crate::config::{Config, KeySetConfig};

/// What `explain-token` is told.
#[derive(Args)]
pub struct ExplainToken {
    /// The token or device key; read from standard input if it is left out, which keeps it out of
    /// `ps`.
    token: Option<String>,
    /// The organisation that a request would name in `X-Scope-OrgID`.
    #[arg(long, value_name = "ID")]
    organisation: Option<String>,
    /// The path that would be asked for, such as `/api/v1/push` or `"POST /prometheus/api/v1/query"`.
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// A file with the issuer's key set (JWKS); then nothing is fetched.
    #[arg(long, value_name = "FILE")]
    key_set: Option<PathBuf>,
}

/// `EX_TEMPFAIL` of sysexits.h: neither yes nor no.
const EXIT_UNAVAILABLE: u8 = 75;

/// Says step by step why a token or device key would pass or not.
pub fn explain_token(config: &Config, args: ExplainToken) -> Outcome {
    let token = match args.token {
        Some(token) => token,
        None => read_standard_input()?,
    };
    let explanation = on_a_runtime(async {
        let keys = match args.key_set {
            Some(file) => read_key_set(&file)?,
            None => match &config.auth.key_set {
                Some(key_set) => fetch(key_set)
                    .await
                    .map_err(|error| format!("the key set could not be fetched: {error}")),
                None => Err("no key set is configured (auth.jwks_url is empty)".to_owned()),
            },
        };
        let keys = keys.as_ref().map_err(String::as_str);
        let tried = Tried { organisation: args.organisation, path: args.path };
        Ok::<_, String>(explain(config, &token, keys, &tried).await)
    })??;
    let answer = explanation.to_string();
    let (note, exit_code) = match explanation.verdict() {
        Verdict::Passes => (None, 0),
        Verdict::Refused => (Some("it would be refused"), 1),
        Verdict::Unavailable => (Some("it would be told to come again (503)"), EXIT_UNAVAILABLE),
    };
    Ok(Said { answer, note: note.map(str::to_owned), exit_code })
}

async fn fetch(config: &KeySetConfig) -> Result<KeySet, String> {
    let client = key_set_client().map_err(|error| error.to_string())?;
    fetch_key_set(config, &client).await
}

fn read_standard_input() -> Result<String, String> {
    let mut token = String::new();
    let read = std::io::stdin().read_to_string(&mut token);
    read.map(|_| token).map_err(|error| format!("standard input cannot be read: {error}"))
}

fn read_key_set(file: &Path) -> Result<Result<KeySet, String>, String> {
    let document = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let keys = KeySet::parse(&document);
    Ok(Ok(keys.map_err(|error| format!("{}: {error}", file.display()))?))
}
