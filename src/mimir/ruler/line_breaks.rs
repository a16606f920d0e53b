//! Line breaks of YAML 1.1.
//!
//! Mimir writes YAML 1.1, in which U+2028 and U+2029 are line breaks: it indents what follows them,
//! and a text that ends with one needs no other break. In YAML 1.2, and so for our parser, they are
//! ordinary characters, and the same bytes are a different document or invalid. So they are
//! replaced by plain line breaks for the parser, and put back into the texts that it returns.

use std::borrow::Cow;

use granit_parser::{ScalarStyle, Span};

const BREAKS: [char; 2] = ['\u{2028}', '\u{2029}'];

/// Whether a line ends with a break of YAML 1.1 only.
pub(super) fn ends_with_old_break(line: &str) -> bool {
    line.ends_with(BREAKS)
}

/// Whether a line is empty.
pub(super) fn is_blank(line: &str) -> bool {
    matches!(line, "\n" | "\u{2028}" | "\u{2029}")
}

/// Lines by the rules of YAML 1.1, with their breaks.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(['\n', BREAKS[0], BREAKS[1]])
}

/// A document for the parser, with the positions of replaced line breaks.
pub(super) struct Document<'a> {
    text: Cow<'a, str>,
    /// The replaced line breaks, by their position in the text.
    replaced: Vec<(usize, char)>,
}

impl<'a> Document<'a> {
    pub(super) fn new(original: &'a str) -> Self {
        if !original.contains(BREAKS) {
            return Self { text: Cow::Borrowed(original), replaced: Vec::new() };
        }
        let (mut text, mut replaced) = (String::with_capacity(original.len()), Vec::new());
        for character in original.chars() {
            if BREAKS.contains(&character) {
                replaced.push((text.len(), character));
                text.push('\n');
            } else {
                text.push(character);
            }
        }
        Self { text: Cow::Owned(text), replaced }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// A scalar with its original breaks. `before` is the end of what precedes it.
    pub(super) fn scalar(
        &self,
        value: Cow<'_, str>,
        style: ScalarStyle,
        span: &Span,
        before: usize,
    ) -> String {
        let bounds = span.start.byte_offset().zip(span.end.byte_offset());
        let Some((start, end)) = bounds.filter(|_| !self.replaced.is_empty()) else {
            return value.into_owned();
        };
        let raw = self.text.get(start..end).unwrap_or_default();
        match style {
            ScalarStyle::Literal => self.literal(&value, before),
            ScalarStyle::SingleQuoted if raw.contains('\n') => self.single_quoted(raw, start),
            // Mimir escapes them in double quotes, and writes them literally nowhere else.
            _ => value.into_owned(),
        }
    }

    /// In a block scalar every break is literal, except the one that ends the block's header. The
    /// parser does not report the position of the header; it begins with `|`.
    fn literal(&self, value: &str, before: usize) -> String {
        let rest = self.text.get(before..).unwrap_or_default();
        let head = before + rest.find('|').unwrap_or_default();
        let rest = self.text.get(head..).unwrap_or_default();
        let mut breaks = rest.match_indices('\n').map(|(at, _)| self.at(head + at)).skip(1);
        let restore = |character| match character {
            '\n' => breaks.next().unwrap_or('\n'),
            other => other,
        };
        value.chars().map(restore).collect()
    }

    /// In quotes, white space around a break is folded. A plain break would become a space, but
    /// Mimir writes texts with plain breaks as blocks.
    fn single_quoted(&self, raw: &str, start: usize) -> String {
        let inner = raw.strip_prefix('\'').unwrap_or(raw);
        let offset = start + (raw.len() - inner.len());
        let inner = inner.strip_suffix('\'').unwrap_or(inner);
        let (mut text, mut at) = (String::with_capacity(inner.len()), offset);
        for (number, line) in inner.split('\n').enumerate() {
            if number > 0 {
                text.truncate(text.trim_end_matches([' ', '\t']).len());
                text.push(self.at(at - 1));
            }
            let begin = if number > 0 { line.trim_start_matches([' ', '\t']) } else { line };
            text.push_str(&begin.replace("''", "'"));
            at += line.len() + 1;
        }
        text
    }

    /// The original break at a position.
    fn at(&self, offset: usize) -> char {
        let found = self.replaced.binary_search_by_key(&offset, |(at, _)| *at);
        found.map_or('\n', |index| self.replaced[index].1)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::{RawListing, StoredRule};

    // Bytes of a real Mimir. Between the breaks there is only indentation.
    #[test]
    fn breaks_of_yaml_1_1_are_read_as_mimir_writes_them() {
        let text = concat!(
            "ours:\n    - name: 'a\u{2028}        it''s\u{2029}\u{2028}'\n      rules:\n",
            "        - alert: |-\n            a\u{2028}            b\n",
            "          expr: up\n          annotations:\n",
            "            one: |4+\n\u{2028}            two: |4+\n\n\u{2028}",
            "            three: |\n                a\n                b\u{2028}",
            "            four: |4-\n                  a\u{2029}                b\n",
            "            five: \"\\L\\n\"\n",
        );
        let listed = RawListing::new(Bytes::from(text)).parse("ours").unwrap();
        assert_eq!(listed.ours[0].name, "a\u{2028}it's\u{2029}\u{2028}");
        let StoredRule::Alerting(rule) = &listed.ours[0].rules[0] else { panic!("{listed:?}") };
        assert_eq!(rule.alert, "a\u{2028}b");
        for (name, text) in [
            ("one", "\u{2028}"),
            ("two", "\n\u{2028}"),
            ("three", "a\nb\u{2028}"),
            ("four", "  a\u{2029}b"),
            ("five", "\u{2028}\n"),
        ] {
            assert_eq!(rule.annotations[name], text, "{name}");
        }
    }
}
