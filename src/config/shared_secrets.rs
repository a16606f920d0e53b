//! `auth.hs256_secret`: one secret or several, in the forms that a file or the environment can
//! have.
//!
//! A secret that is parsed differently than it was meant rejects every token, and looks valid until
//! then. So a text that looks like a list, or like a secret in quotation marks, is parsed as such
//! or rejected. A secret that really looks like that is written as a list of one, whose items are
//! taken literally.

use toml::Value;

use super::reader::Raw;
use super::values::list;

/// HS256 needs a key of at least the size of its hash (RFC 7518, section 3.2).
pub(super) const MIN_SECRET_BYTES: usize = 32;

/// Reads the value of the file or of the environment.
pub(super) fn read(raw: Raw) -> Result<Vec<String>, String> {
    match raw {
        Raw::Toml(Value::String(text)) | Raw::Text(text) => of_text(&text),
        other @ Raw::Toml(_) => of_list(list(other)?),
    }
}

/// Parses a text: a list as in the file, secrets separated by commas or white space, or one secret.
/// A passphrase of short words is one secret.
pub(super) fn of_text(text: &str) -> Result<Vec<String>, String> {
    let text = text.trim();
    if text.starts_with('[') {
        match list(Raw::Text(text.to_owned())) {
            Ok(items) => return of_list(items),
            // A secret may begin with a bracket, too.
            Err(_) if text.ends_with(']') || text.contains(is_separator) => {
                return Err(
                    "begins with [ and is no list; write [\"NEW\", \"OLD\"], and a secret with a \
                     bracket as [\"SECRET\"]"
                        .to_owned(),
                );
            }
            Err(_) => {}
        }
    }
    if ['"', '\'', '`'].into_iter().any(|quote| is_between(text, quote)) {
        return Err(
            "is in quotation marks, which would be part of the secret; leave them out, or \
                    write several as [\"NEW\", \"OLD\"]"
                .to_owned(),
        );
    }
    let parts: Vec<&str> = parts(text).collect();
    let long = parts.iter().filter(|part| part.len() >= MIN_SECRET_BYTES).count();
    if long < 2 {
        return Ok(vec![text.to_owned()]);
    }
    // One secret with a comma or a space in it looks the same, so the whole text is tried, too.
    let whole = std::iter::once(text).filter(|_| long == parts.len());
    Ok(parts.iter().copied().chain(whole).map(str::to_owned).collect())
}

/// The items of a list, each taken literally except for white space around it.
fn of_list(items: Vec<String>) -> Result<Vec<String>, String> {
    let read = |item: String| {
        let long = parts(&item).filter(|part| part.len() >= MIN_SECRET_BYTES).count();
        if long > 1 {
            return Err(
                "has an item that looks like several secrets; write each as an item of its \
                        own: [\"NEW\", \"OLD\"]"
                    .to_owned(),
            );
        }
        Ok(item.trim().to_owned())
    };
    items.into_iter().map(read).collect()
}

/// Whether a secret of sufficient length has something after a comma, which may be another secret
/// that is too short, or a part of one secret.
pub(super) fn may_be_several(secret: &str) -> bool {
    let parts = || secret.split(',').map(str::trim);
    parts().count() > 1 && parts().any(|part| part.len() >= MIN_SECRET_BYTES)
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_separator).filter(|part| !part.is_empty())
}

fn is_separator(c: char) -> bool {
    c == ',' || c.is_whitespace()
}

fn is_between(text: &str, quote: char) -> bool {
    text.len() > 1 && text.starts_with(quote) && text.ends_with(quote)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "a-new-secret-of-more-than-32-bytes!";
    const OLD: &str = "an-old-secret-of-more-than-32-bytes";

    // Each of these passed check-config and then rejected every token.
    #[test]
    fn a_misformatted_secret_is_parsed_as_meant_or_refused() {
        for text in [
            format!("{NEW},{OLD}"),
            format!("{NEW}, {OLD}"),
            format!("{NEW} {OLD}"),
            format!("{NEW}\n{OLD}\n"),
            format!("[{NEW:?}, {OLD:?}]"),
            format!(" [{NEW:?}, {OLD:?}]\n"),
        ] {
            let read = of_text(&text).unwrap();
            assert_eq!(read[..2], [NEW, OLD], "{text}");
        }
        for text in [
            format!("[{NEW}, {OLD}]"),
            format!("[{NEW:?} {OLD:?}]"),
            format!("[{NEW}]"),
            format!("[{NEW:?}, {OLD:?}"),
            format!("{NEW:?}"),
            format!("'{NEW}'"),
            format!("'{NEW}','{OLD}'"),
            format!("[\"{NEW}, {OLD}\"]"),
        ] {
            let problem = of_text(&text).unwrap_err();
            assert!(!problem.contains(NEW) && problem.contains("[\""), "{text}: {problem}");
        }
    }

    #[test]
    fn white_space_around_a_secret_is_no_part_of_it() {
        for text in [
            format!("{NEW}\n"),
            format!(" {NEW}"),
            format!("{NEW}\r\n"),
            format!("[\" {NEW}\\n\"]"),
        ] {
            assert_eq!(of_text(&text).unwrap(), [NEW], "{text:?}");
        }
    }

    #[test]
    fn one_secret_stays_one_whatever_it_contains() {
        let phrase = "a legacy secret of more than thirty-two bytes";
        let bracket = "[bKd9s8f7s9d8f7s9d8f7s9d8f7s9d8f7s";
        let quote = "bKd9s8f7s9d8f7s9d8f7s9d8f7s9d8f7s'";
        for secret in [phrase, bracket, quote, "", "short, and more"] {
            assert_eq!(of_text(secret).unwrap(), [secret]);
        }
        let both = format!("{NEW},{OLD}");
        assert!(of_text(&both).unwrap().contains(&both), "the whole is tried, too");
        assert_eq!(of_text("['\"quoted-secret-of-more-than-32-bytes\"']").unwrap().len(), 1);
    }
}
