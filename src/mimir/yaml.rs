//! YAML as Mimir reads and writes it (1.1, by Go's library), for what must arrive byte for byte.

pub(in crate::mimir) mod line_breaks;
pub(in crate::mimir) mod node;

use std::fmt::Write as _;

/// A text in double quotes, in printable ASCII only, with YAML's escapes for all else: JSON would not
/// do, because its surrogate pairs are no YAML, and because YAML counts U+0085 and U+2028 among line
/// breaks and refuses a bare U+007F. So any text arrives as it is.
pub(crate) fn quoted(text: &str) -> String {
    let mut yaml = String::with_capacity(text.len() + 2);
    yaml.push('"');
    for character in text.chars() {
        match character {
            '"' => yaml.push_str("\\\""),
            '\\' => yaml.push_str("\\\\"),
            '\n' => yaml.push_str("\\n"),
            '\t' => yaml.push_str("\\t"),
            ' '..='~' => yaml.push(character),
            _ => {
                let code = u32::from(character);
                // Writing to a string cannot fail.
                let _ = match code {
                    0..=0xff => write!(yaml, "\\x{code:02X}"),
                    0x100..=0xffff => write!(yaml, "\\u{code:04X}"),
                    _ => write!(yaml, "\\U{code:08X}"),
                };
            }
        }
    }
    yaml.push('"');
    yaml
}
