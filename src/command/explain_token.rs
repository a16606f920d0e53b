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

/// `EX_USAGE` of sysexits.h: what it is told is at fault.
const EXIT_USAGE: u8 = 64;
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
            Some(file) => Ok(read_key_set(&file)?),
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
    })?;
    let explanation = match explanation {
        Ok(explanation) => explanation,
        // Nothing was said of the token, so this is neither 0 nor 1.
        Err(problem) => {
            let note = Some(format!("--key-set: {problem}"));
            return Ok(Said { answer: String::new(), note, exit_code: EXIT_USAGE });
        }
    };
    let answer = explanation.to_string();
    let exit_code = match explanation.verdict() {
        Verdict::Passes => 0,
        Verdict::Refused => 1,
        Verdict::Unavailable => EXIT_UNAVAILABLE,
    };
    Ok(Said { answer, note: None, exit_code })
}

async fn fetch(config: &KeySetConfig) -> Result<KeySet, String> {
    let client = key_set_client().map_err(|error| error.to_string())?;
    fetch_key_set(config, &client).await.map_err(|error| error.to_string())
}

fn read_standard_input() -> Result<String, String> {
    let mut token = String::new();
    let read = std::io::stdin().read_to_string(&mut token);
    read.map(|_| token).map_err(|error| format!("standard input cannot be read: {error}"))
}

fn read_key_set(file: &Path) -> Result<KeySet, String> {
    let named = |problem: String| format!("{}: {problem}", file.display());
    let document =
        std::fs::read(file).map_err(|error| named(format!("cannot be read: {error}")))?;
    parse_key_set(&document).map_err(named)
}

fn parse_key_set(document: &[u8]) -> Result<KeySet, String> {
    // Editors of Windows put it in front.
    let document = document.strip_prefix(b"\xef\xbb\xbf").unwrap_or(document).trim_ascii();
    let instead = match document {
        [] => "is empty",
        [b'<', ..] => "is HTML or XML",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "is UTF-16, and must be UTF-8",
        [b'{' | b'[', ..] => "is not a key set",
        _ if document.starts_with(b"-----BEGIN") => "is a PEM file",
        _ => "is not JSON",
    };
    KeySet::parse(document).map_err(|error| {
        let why =
            if instead == "is not a key set" { format!(" ({error})") } else { String::new() };
        format!(
            "{instead}{why}; save what the issuer serves at /.well-known/jwks.json: {{\"keys\": [...]}}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // Seen: words of the JSON parser, such as "expected value at line 1 column 1".
    #[test]
    fn a_file_that_is_no_key_set_is_told_by_what_it_is() {
        let is = |document: &[u8]| parse_key_set(document).err().unwrap();
        for (document, wanted) in [
            (&b""[..], "is empty"),
            (b" \n", "is empty"),
            (b"<!doctype html>", "is HTML"),
            (b"\xff\xfe{\0", "is UTF-16"),
            (b"keys: []", "is not JSON"),
            (b"-----BEGIN PUBLIC KEY-----", "is a PEM file"),
            (b"{}", "is not a key set"),
            (b"[]", "is not a key set"),
        ] {
            let problem = is(document);
            assert!(problem.starts_with(wanted) && problem.contains("jwks.json"), "{problem}");
            assert!(!problem.contains("column") && !problem.contains("EOF"), "{problem}");
        }
        assert!(parse_key_set(b"\xef\xbb\xbf{\"keys\": []}").is_ok());
    }
}
