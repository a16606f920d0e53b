//! Checks an operator's query without a database: its parameters, and that it is a single query.
//! The columns that it returns are checked when it is prepared.

/// Returns what is wrong with a query with one parameter of a type, or none.
pub(super) fn check(query: &str, parameter: Option<&str>) -> Result<(), String> {
    let found = Found::of(query);
    if found.is_open {
        return Err("has a quote or a comment that does not end".to_owned());
    }
    if found.goes_on {
        return Err("must be one query and has multiple commands, with a ';' between".to_owned());
    }
    let first = found.first.to_ascii_lowercase();
    if !["select", "with", "values", "table"].contains(&first.as_str()) {
        return Err(format!(
            "has a syntax error: begin with select or with, not {:?}",
            found.first
        ));
    }
    let names: Vec<String> = found.parameters.iter().map(|number| format!("${number}")).collect();
    let (count, names) = (names.len(), names.join(", "));
    match parameter {
        None if count == 0 => Ok(()),
        None => Err(format!("has a parameter ({names}) and must have none")),
        Some(_) if found.parameters == [1] => Ok(()),
        Some(kind) if count == 0 => Err(format!(
            "has 0 parameters, so every look-up would read everything, and must have $1, a {kind}, \
             as in \"where … = any($1)\""
        )),
        Some(kind) => Err(format!("has {count} parameters ({names}) and must have $1, a {kind}")),
    }
}

/// The contents of a query outside of quotes and comments.
#[derive(Default)]
struct Found<'a> {
    first: &'a str,
    parameters: Vec<u32>,
    /// Something follows a `;`.
    goes_on: bool,
    /// A quote or comment is not closed.
    is_open: bool,
}

impl<'a> Found<'a> {
    /// By the lexical rules of Postgres
    /// (<https://www.postgresql.org/docs/current/sql-syntax-lexical.html>).
    fn of(query: &'a str) -> Self {
        let mut found = Self::default();
        let (mut at, mut ended) = (0, false);
        while let Some(letter) = query[at..].chars().next() {
            let rest = &query[at..];
            if letter.is_whitespace() || letter == '(' && found.first.is_empty() {
                at += letter.len_utf8();
                continue;
            }
            match comment(rest) {
                Comment::None => {}
                Comment::Ends(length) => {
                    at += length;
                    continue;
                }
                Comment::IsOpen => {
                    found.is_open = true;
                    break;
                }
            }
            if letter == ';' {
                ended = true;
                at += 1;
                continue;
            }
            found.goes_on |= ended;
            let (length, parameter) = token(rest).unwrap_or_else(|| {
                found.is_open = true;
                (rest.len(), None)
            });
            if found.first.is_empty() {
                found.first = &rest[..length];
            }
            found.parameters.extend(parameter);
            at += length;
        }
        found.parameters.sort_unstable();
        found.parameters.dedup();
        found
    }
}

enum Comment {
    None,
    Ends(usize),
    IsOpen,
}

/// `/* */` nest.
fn comment(rest: &str) -> Comment {
    if rest.starts_with("--") {
        return Comment::Ends(rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return Comment::None;
    }
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let bytes = &rest.as_bytes()[at..];
        if bytes.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if bytes.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return Comment::Ends(at);
            }
        } else {
            at += 1;
        }
    }
    Comment::IsOpen
}

/// The length of a token, and the number of the parameter that it is; `None` if it does not end.
fn token(rest: &str) -> Option<(usize, Option<u32>)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let first = rest.chars().next()?;
    let plain = |length: usize| Some((length, None));
    match first {
        '\'' => plain(quoted(rest, '\'', false)?),
        '"' => plain(quoted(rest, '"', false)?),
        'e' | 'E' if rest[1..].starts_with('\'') => plain(1 + quoted(&rest[1..], '\'', true)?),
        '$' => {
            let digits = rest[1..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - 1);
            if digits > 0 {
                return Some((1 + digits, rest[1..=digits].parse().ok()));
            }
            let tag = rest[1..].find(|c: char| !(c.is_alphanumeric() || c == '_'));
            match tag.filter(|tag| rest[1 + tag..].starts_with('$')) {
                None => plain(1),
                Some(tag) => {
                    let tag = &rest[..tag + 2];
                    let end = rest[tag.len()..].find(tag)?;
                    plain(end + 2 * tag.len())
                }
            }
        }
        // A word may contain dollars, which are not parameters.
        c if c.is_alphabetic() || c == '_' => {
            plain(rest.find(|c| !is_word(c)).unwrap_or(rest.len()))
        }
        c => plain(c.len_utf8()),
    }
}

/// The length of a quoted text that begins here. A doubled quote does not end it.
fn quoted(rest: &str, quote: char, escapes: bool) -> Option<usize> {
    let mut letters = rest.char_indices().skip(1).peekable();
    while let Some((at, letter)) = letters.next() {
        if escapes && letter == '\\' {
            letters.next();
        } else if letter == quote {
            if letters.peek().is_some_and(|(_, next)| *next == quote) {
                letters.next();
            } else {
                return Some(at + 1);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parameters(query: &str) -> Vec<u32> {
        Found::of(query).parameters
    }

    #[test]
    fn parameters_are_those_outside_of_quotes_and_comments() {
        for (query, expected) in [
            ("select $1", vec![1]),
            ("select $2, $1, $1", vec![1, 2]),
            ("select '$1', \"$1\", $$ $1 $$, $t$ $1 $t$ -- $1\n", vec![]),
            ("select /* $1 /* $1 */ $1 */ 1", vec![]),
            ("select E'it\\'s $1', 'it''s $1'", vec![]),
            ("select a$1 from t", vec![]),
            ("select any($12)", vec![12]),
            ("select 'ä', $1 -- ü", vec![1]),
        ] {
            assert_eq!(parameters(query), expected, "{query}");
        }
    }

    #[test]
    fn a_query_has_the_parameters_that_it_gets() {
        let (one, none) = (Some("uuid[]"), None);
        assert!(check("select 1 where a = any($1);  -- end", one).is_ok());
        assert!(check("(with a as (select 1) select * from a where b = any($1))", one).is_ok());
        assert!(check("(select 1 where b = any($1))", one).is_ok());
        assert!(check("select 1", none).is_ok());
        for (query, parameter, words) in [
            ("select 1", one, "must have $1, a uuid[]"),
            ("select '$1'", one, "has 0 parameters"),
            ("select $1, $2", one, "has 2 parameters ($1, $2)"),
            ("select $2", one, "($2) and must have $1"),
            ("select $1", none, "must have none"),
            ("select $1; drop table x", one, "one query"),
            ("delete from x where a = $1", one, "begin with select"),
            ("public.membership", one, "begin with select"),
            ("select 'a where b = $1", one, "does not end"),
        ] {
            let problem = check(query, parameter).unwrap_err();
            assert!(problem.contains(words), "{query}: {problem}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(query in "[a-z$'\"1;/*\\\\ä -]{0,40}") {
            let _ = check(&query, Some("uuid[]"));
        }
    }
}
