//! Texts in Go's quotes (`%q`), as Mimir writes names in its messages.

/// Splits a quoted text, quotes included, from what follows it.
pub(super) fn quoted(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut is_escaped = false;
    for (at, character) in inner.char_indices() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return Some(text.split_at(at + 2)),
            _ => {}
        }
    }
    None
}

/// Unquotes a text. Invalid escapes are kept literally.
pub(super) fn unquote(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let escape = &rest[at + 1..];
        let (character, length) = unescape(escape).unwrap_or(('\\', 0));
        plain.push(character);
        rest = &escape[length..];
    }
    plain.push_str(rest);
    plain
}

/// The character of an escape, and its length without the backslash.
fn unescape(escape: &str) -> Option<(char, usize)> {
    let simple = |character| Some((character, 1));
    let code = |digits: usize| {
        let hexadecimal = escape.get(1..=digits)?;
        Some((char::from_u32(u32::from_str_radix(hexadecimal, 16).ok()?)?, digits + 1))
    };
    match escape.chars().next()? {
        'a' => simple('\x07'),
        'b' => simple('\x08'),
        'f' => simple('\x0c'),
        'n' => simple('\n'),
        'r' => simple('\r'),
        't' => simple('\t'),
        'v' => simple('\x0b'),
        '\\' => simple('\\'),
        '"' => simple('"'),
        'x' => code(2),
        'u' => code(4),
        'U' => code(8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_quoted_text_ends_at_its_own_quote() {
        assert_eq!(quoted(r#""a\\\"b", rule 1"#), Some((r#""a\\\"b""#, ", rule 1")));
        assert_eq!(quoted(r#""a\""#), None);
        assert_eq!(quoted("a"), None);
    }

    #[test]
    fn escapes_are_those_of_go() {
        let text = r#""\a\\ \" \n\t \x7f \u0085\u2028 \U000e0001 ä 🦀 \q""#;
        let plain = "\x07\\ \" \n\t \x7f \u{85}\u{2028} \u{e0001} ä 🦀 \\q";
        assert_eq!(unquote(text), plain);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\"|\\\\|[xuU0-9a-f]|\\PC){0,20}") {
            let _ = (quoted(&text), unquote(&text));
        }
    }
}
