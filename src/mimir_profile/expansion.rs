//! Variables in a configuration, as Mimir expands them with `-config.expand-env=true`: `$NAME`,
//! `${NAME}` and `${NAME:default}`, everywhere in the text, comments included; line breaks are removed
//! from the values.
//!
//! Without the values (a check away from the machine) a variable without a default stands for an
//! unknown text. It becomes `⟦NAME⟧`, which no YAML syntax ends, so that `{host: ${HOST}}` can still be read
//! and two keys that differ only by a variable's value are not taken for equal.

use std::collections::BTreeMap;

use super::finding::{Finding, Severity};

/// Where the values come from.
#[derive(Clone, Debug, Default)]
pub enum Variables {
    /// Nowhere: defaults apply, the rest is unknown.
    #[default]
    Unknown,
    /// From these; one that is missing is empty, as it is for Mimir.
    Known(BTreeMap<String, String>),
}

const OPEN: char = '⟦';
const CLOSE: char = '⟧';

impl Variables {
    /// The text with variables put in.
    pub(super) fn expand(&self, text: &str) -> String {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            expanded.push_str(&rest[..at]);
            let (token, length) = token(&rest[at + 1..]);
            match token {
                Token::Name(name) => expanded.push_str(&self.value(name)),
                Token::Nothing => {}
                Token::Dollar => expanded.push('$'),
            }
            rest = &rest[at + 1 + length..];
        }
        expanded + rest
    }

    fn value(&self, reference: &str) -> String {
        let (name, default) = match reference.split_once(':') {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        let unknown = || format!("{OPEN}{name}{CLOSE}");
        let set = match self {
            Self::Known(values) => {
                Some(values.get(name).map_or("", String::as_str)).filter(|value| !value.is_empty())
            }
            Self::Unknown => None,
        };
        let value = match (set, default, self) {
            (Some(value), _, _) => value.to_owned(),
            // What was intended is not known, and the syntax has a finding of its own.
            (None, Some(_), _) if of_the_shell(reference).is_some() => unknown(),
            (None, Some(default), _) => default.to_owned(),
            (None, None, Self::Known(_)) => String::new(),
            (None, None, Self::Unknown) => unknown(),
        };
        value.replace('\n', "")
    }
}

enum Token<'a> {
    /// A variable, with its default.
    Name(&'a str),
    /// Bad syntax, which Mimir drops.
    Nothing,
    /// A dollar sign that stands for itself.
    Dollar,
}

/// What follows a dollar sign and how many bytes of it belong to it: Go's `os.Expand`.
fn token(after: &str) -> (Token<'_>, usize) {
    if let Some(inner) = after.strip_prefix('{') {
        return match inner.find('}') {
            Some(0) => (Token::Nothing, 2),
            Some(end) => (Token::Name(&inner[..end]), end + 2),
            None => (Token::Nothing, 1),
        };
    }
    match after.chars().next() {
        Some(special) if "*#$@!?-0123456789".contains(special) => (Token::Name(&after[..1]), 1),
        _ => {
            let is_name = |c: char| c == '_' || c.is_ascii_alphanumeric();
            let end = after.find(|c| !is_name(c)).unwrap_or(after.len());
            if end == 0 { (Token::Dollar, 0) } else { (Token::Name(&after[..end]), end) }
        }
    }
}

/// Whether a text contains an unknown value.
pub(super) fn is_unknown(text: &str) -> bool {
    text.contains(OPEN)
}

/// Unknown values as written in the file.
pub(super) fn as_written(text: &str) -> String {
    text.replace(OPEN, "${").replace(CLOSE, "}")
}

/// `${NAME:-default}` is shell syntax; for Mimir the default is then `-default`. Other shell forms, such
/// as `${NAME:?message}` and `${NAME-default}`, are not Mimir's either.
pub(super) fn shell_defaults(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let code = line.split_once('#').map_or(line, |(code, _)| code);
        for piece in code.split("${").skip(1) {
            let Some((reference, _)) = piece.split_once('}') else { continue };
            let Some((wrong, right)) = of_the_shell(reference) else { continue };
            findings.push(Finding {
                check: "shell-default",
                severity: Severity::Error,
                key: format!("${{{reference}}}"),
                line: number,
                wrong,
                right,
            });
        }
    }
    findings
}

/// What a reference in shell syntax means to Mimir, and what was intended.
fn of_the_shell(reference: &str) -> Option<(String, String)> {
    let Some((name, default)) = reference.split_once(':') else {
        let end = reference.find(['-', '?', '+', '='])?;
        let (sign, meant) = (&reference[end..=end], &reference[end + 1..]);
        let wrong = format!("is a variable of just that name: '{sign}' is the shell's");
        return Some((wrong, format!("write ${{{}:{meant}}}", &reference[..end])));
    };
    let sign = default.chars().next().filter(|sign| "-?+=".contains(*sign))?;
    // -1 is a common value for "no limit".
    if default == "-1" {
        return None;
    }
    let wrong = format!("is '{default}' where {name} is not set: ':{sign}' is the shell's");
    let has_default = sign == '-' || sign == '=';
    let meant = if has_default { format!(":{}", &default[1..]) } else { String::new() };
    Some((wrong, format!("write ${{{name}{meant}}}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(values: &[(&str, &str)]) -> Variables {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Variables::Known(values.iter().map(own).collect())
    }

    // What Go's os.Expand with Mimir's mapping gives, each tried with it.
    #[test]
    fn variables_are_expanded_as_mimir_does() {
        let variables = known(&[("A", "x"), ("B_1", "y\nz"), ("E", "")]);
        for (text, expected) in [
            ("${A}", "x"),
            ("$A.b", "x.b"),
            ("$B_1", "yz"),
            ("${E:d}", "d"),
            ("${N:d:e}", "d:e"),
            ("${N}|", "|"),
            ("${}|", "|"),
            ("${A", "A"),
            ("$", "$"),
            ("$.", "$."),
            ("a$$b", "ab"),
            ("$1 ", " "),
            ("${A}${A:z}", "xx"),
        ] {
            assert_eq!(variables.expand(text), expected, "{text}");
        }
    }

    #[test]
    fn without_values_defaults_hold_and_the_rest_is_unknown() {
        let unknown = Variables::Unknown;
        assert_eq!(unknown.expand("${A:3}"), "3");
        let text = unknown.expand("{host: ${HOST}}");
        assert!(is_unknown(&text));
        assert_eq!(as_written(&text), "{host: ${HOST}}");
    }

    #[test]
    fn a_default_in_the_shells_way_is_found_and_a_negative_number_is_none() {
        let found = shell_defaults("a: 1\nb: ${X:-y}\n# ${X:-y}\nc: ${N:-1}\n");
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].line, found[0].key.as_str()), (2, "${X:-y}"));
        for wrong in ["${P:-8080}", "${D:-10s}", "${X:?no}", "${X:+y}", "${X-y}", "${X?no}"] {
            assert_eq!(shell_defaults(&format!("a: {wrong}")).len(), 1, "{wrong}");
        }
        for right in ["${X}", "${X:y}", "${X:a-b}", "${X:http://a}", "${X:}"] {
            assert!(shell_defaults(&format!("a: {right}")).is_empty(), "{right}");
        }
    }
}
