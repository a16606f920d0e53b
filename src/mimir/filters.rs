//! The parameters that filter the lists of Alertmanager's API, `filter` and `receiver`: regular expressions, which it
//! compiles for each request.

use super::expression::Patterns;
use super::form::FormExcess;

/// Checks a query string. Every value counts: another version may compile more of them.
pub fn check(query: &str) -> Result<(), FormExcess> {
    let mut patterns = Patterns::default();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let unquoted = unquoted(&value);
        let added = patterns.add([value.as_bytes(), &unquoted]);
        let parameter = if name == "receiver" { "receiver" } else { "filter" };
        added.map_err(|excess| FormExcess { parameter, excess })?;
    }
    Ok(())
}

/// A text with the escapes of Go's strings decoded, wherever they stand: of a matcher in quotes Alertmanager decodes them
/// (`strconv.Unquote`), if it reads matchers by its newer syntax.
fn unquoted(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        let (from, length, base) = match escape.as_bytes().first() {
            Some(b'x') => (1, 2, 16),
            Some(b'u') => (1, 4, 16),
            Some(b'U') => (1, 8, 16),
            _ => (0, 3, 8),
        };
        let digits = escape.get(from..from + length);
        let code = digits.and_then(|digits| u32::from_str_radix(digits, base).ok());
        rest = match code.and_then(char::from_u32) {
            Some(character) => {
                bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                &escape[from + length..]
            }
            // The character behind the backslash stands for itself, or for one that counts as much.
            None => escape,
        };
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mimir::expression::Measure;

    // 23 KB took a gigabyte in the Alertmanager of everybody.
    #[test]
    fn patterns_for_the_alertmanager_add_up() {
        for query in [
            format!("receiver={}", ".{1000}".repeat(40)),
            format!("filter={}", "a%3D~%22.%7B1000%7D%22".repeat(40)),
            vec!["filter=a%3D~.{1000}"; 40].join("&"),
            format!("receiver_matchers={}", ".{1000}".repeat(40)),
            format!("filter=a%3D~%22{}%22", r".\x7b1000\x7D".repeat(40)),
            format!("filter=a%3D~%22{}%22", r".\u007b\x31000\U0000007d".repeat(40)),
            format!("filter=a%3D~%22{}%22", r".\173100\060\175".repeat(40)),
        ] {
            let excess = check(&query).unwrap_err();
            assert_eq!(excess.excess.measure, Measure::Patterns, "{query}");
        }
        for query in [
            format!("receiver={}", "(.?)".repeat(1_100)),
            format!("filter=a%3D~{}", "(.?)".repeat(1_100)),
            format!("filter=a%3D~%22{}%22", r"\x28.?)".repeat(1_100)),
            vec![format!("filter=a%3D~{}", "(.?)".repeat(500)); 6].join("&"),
        ] {
            let excess = check(&query).unwrap_err();
            assert_eq!(excess.excess.measure, Measure::Captures, "{query}");
        }
        for query in
            ["", "filter=a%3D%22b%22&active=true", "receiver=.*", "filter=a=~%22[0-9]{3}%22"]
        {
            assert_eq!(check(query), Ok(()), "{query}");
        }
    }
}
