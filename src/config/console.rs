//! `[console]`

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use url::Url;

use super::reader::{Raw, Section};
use super::values::{switch, text, url};

/// The page at `/admin/console`.
#[derive(Clone, Debug)]
pub struct ConsoleConfig {
    /// Whether it is served. What it shows depends on the caller's token either way.
    pub enabled: bool,
    /// Where people sign in; none if only with a token.
    pub sign_in: Option<ConsoleSignIn>,
    supabase_url: Option<Url>,
    supabase_key: String,
}

/// A Supabase project as a browser may know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleSignIn {
    /// The project's address, without a slash at the end.
    pub url: String,
    /// The project's publishable key or its `anon` key, which are public.
    pub key: String,
}

pub(super) fn read(section: &mut Section<'_>) -> ConsoleConfig {
    ConsoleConfig {
        enabled: section.get("enabled", true, switch),
        supabase_url: section.get("supabase_url", None, |raw| match text(raw)? {
            none if none.is_empty() => Ok(None),
            some => url(Raw::Text(some), "https://<ref>.supabase.co").map(Some),
        }),
        supabase_key: section.get("supabase_key", String::new(), public_key),
        sign_in: None,
    }
}

impl ConsoleConfig {
    /// Without an address of its own, people sign in where their tokens are from.
    pub(super) fn complete(&mut self, issuer: &str) {
        let of_issuer = || issuer.strip_suffix("/auth/v1").and_then(|base| Url::parse(base).ok());
        let url = self.supabase_url.clone().or_else(of_issuer);
        self.sign_in = url.filter(|_| !self.supabase_key.is_empty()).map(|url| ConsoleSignIn {
            url: url.as_str().trim_end_matches('/').to_owned(),
            key: self.supabase_key.clone(),
        });
    }
}

/// Everybody who opens the page gets the key, so one that opens more than sign-in is refused.
fn public_key(raw: Raw) -> Result<String, String> {
    let key = text(raw)?;
    let wanted = "must be the project's publishable key (sb_publishable_…) or its anon key";
    let is_public = key.is_empty()
        || (key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            && (key.starts_with("sb_publishable_") || role_of(&key).as_deref() == Some("anon")));
    if is_public { Ok(key) } else { Err(format!("{wanted}: every visitor gets it")) }
}

fn role_of(key: &str) -> Option<String> {
    let claims = URL_SAFE_NO_PAD.decode(key.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    Some(claims.get("role")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(role: &str) -> String {
        let claims = serde_json::json!({"iss": "supabase", "role": role}).to_string();
        format!("e30.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_key_that_opens_the_database_is_not_given_to_visitors() {
        let read = |key: &str| public_key(Raw::Text(key.to_owned()));
        for public in ["", "sb_publishable_abc", &token("anon")] {
            assert_eq!(read(public).as_deref(), Ok(public));
        }
        for secret in ["sb_secret_abc", &token("service_role"), "a.b.c", "sb_publishable_a\"b"] {
            let problem = read(secret).unwrap_err();
            assert!(!problem.contains(secret), "{problem}");
        }
    }
}
