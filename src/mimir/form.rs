//! Expressions in a form: in a query string or a body of `application/x-www-form-urlencoded`.
//!
//! A form is read as Mimir reads it (Go's `net/url.ParseQuery`): pairs between `&`; the first `=`
//! separates name and value; `+` is a space, `%XX` a byte. Go skips a pair with a malformed escape
//! or a `;`; here it is checked too, with the malformed part taken literally, so that everything
//! that Mimir may parse is checked. If a name occurs several times, each value is checked.

use http::{HeaderMap, header};

use super::expression::{Excess, ExpressionLimits, Scanner};

/// The parameters that Mimir parses as `PromQL`: `query` and `match[]` of Prometheus' API,
/// `selector` of the cardinality API.
const PARAMETERS: [&str; 3] = ["query", "match[]", "selector"];

/// The length of the longest parameter name.
const NAME: usize = 8;

/// The excess in one parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormExcess {
    pub parameter: &'static str,
    pub excess: Excess,
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Name,
    /// The value of one of [`PARAMETERS`].
    Expression(&'static str),
    Other,
}

/// The state of a percent escape.
#[derive(Clone, Copy, Debug)]
enum Escape {
    None,
    Percent,
    /// The first digit: its byte and its value.
    Digit(u8, u8),
}

/// Reads a form piece by piece and keeps nothing of it.
pub struct FormScanner {
    expression: Scanner,
    part: Part,
    escape: Escape,
    name: [u8; NAME],
    name_bytes: usize,
}

/// Checks all expressions of a query string.
pub fn check_query(query: &str, limits: &ExpressionLimits) -> Result<(), FormExcess> {
    if query.is_empty() {
        return Ok(());
    }
    let mut scanner = FormScanner::new(limits);
    scanner.push(query.as_bytes())?;
    scanner.end()
}

/// Whether a body with the content type of these headers has no parameters outside of a form. Mimir
/// also reads parameters from `multipart/form-data`, folds case and white space of the content type
/// by Unicode's rules, and takes the first of several headers; anything ambiguous is refused. With
/// any other content type Mimir reads no parameters, and checking the body as a form does no harm.
pub fn is_readable(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (first, second) = (types.next(), types.next());
    let Some(first) = first else { return true };
    let is_plain = first.as_bytes().iter().all(u8::is_ascii);
    let is_multipart =
        first.as_bytes().to_ascii_lowercase().windows(9).any(|part| part == b"multipart");
    second.is_none() && is_plain && !is_multipart
}

impl FormScanner {
    pub fn new(limits: &ExpressionLimits) -> Self {
        Self {
            expression: Scanner::new(limits),
            part: Part::Name,
            escape: Escape::None,
            name: [0; NAME],
            name_bytes: 0,
        }
    }

    pub fn push(&mut self, piece: &[u8]) -> Result<(), FormExcess> {
        piece.iter().try_for_each(|byte| self.byte(*byte))
    }

    pub fn end(&mut self) -> Result<(), FormExcess> {
        self.end_pair()
    }

    fn byte(&mut self, byte: u8) -> Result<(), FormExcess> {
        match byte {
            b'&' => self.end_pair(),
            b'=' if matches!(self.part, Part::Name) => self.end_name(),
            _ => match self.escape {
                Escape::None => match byte {
                    b'%' => {
                        self.escape = Escape::Percent;
                        Ok(())
                    }
                    b'+' => self.take(b' '),
                    _ => self.take(byte),
                },
                Escape::Percent => match hex(byte) {
                    Some(value) => {
                        self.escape = Escape::Digit(byte, value);
                        Ok(())
                    }
                    None => self.literally(byte),
                },
                Escape::Digit(_, high) => match hex(byte) {
                    Some(low) => {
                        self.escape = Escape::None;
                        self.take(high << 4 | low)
                    }
                    None => self.literally(byte),
                },
            },
        }
    }

    /// A `%` without two digits is literal, and so is what follows it.
    fn literally(&mut self, byte: u8) -> Result<(), FormExcess> {
        self.end_escape()?;
        self.byte(byte)
    }

    fn end_escape(&mut self) -> Result<(), FormExcess> {
        match std::mem::replace(&mut self.escape, Escape::None) {
            Escape::None => Ok(()),
            Escape::Percent => self.take(b'%'),
            Escape::Digit(digit, _) => {
                self.take(b'%')?;
                self.take(digit)
            }
        }
    }

    fn take(&mut self, byte: u8) -> Result<(), FormExcess> {
        match self.part {
            Part::Name => {
                if let Some(place) = self.name.get_mut(self.name_bytes) {
                    *place = byte;
                }
                self.name_bytes += 1;
                Ok(())
            }
            Part::Expression(parameter) => {
                self.expression.push(byte).map_err(|excess| FormExcess { parameter, excess })
            }
            Part::Other => Ok(()),
        }
    }

    fn end_name(&mut self) -> Result<(), FormExcess> {
        self.end_escape()?;
        let name = self.name.get(..self.name_bytes).unwrap_or_default();
        let known = PARAMETERS.into_iter().find(|known| known.as_bytes() == name);
        self.part = match known {
            Some(parameter) => {
                let begun = self.expression.begin_another();
                begun.map_err(|excess| FormExcess { parameter, excess })?;
                Part::Expression(parameter)
            }
            None => Part::Other,
        };
        Ok(())
    }

    fn end_pair(&mut self) -> Result<(), FormExcess> {
        self.end_escape()?;
        if let Part::Expression(parameter) = self.part {
            self.expression.end().map_err(|excess| FormExcess { parameter, excess })?;
        }
        self.part = Part::Name;
        self.name_bytes = 0;
        Ok(())
    }
}

fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

impl std::fmt::Display for FormExcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "invalid parameter \"{}\": the expression {}", self.parameter, self.excess)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mimir::expression::Measure;
    use proptest::prelude::*;

    fn depth(depth: usize) -> ExpressionLimits {
        ExpressionLimits { depth, ..ExpressionLimits::default() }
    }

    fn refused(form: &str) -> Option<&'static str> {
        check_query(form, &depth(2)).err().map(|excess| {
            assert_eq!(excess.excess.measure, Measure::Depth, "{form}");
            excess.parameter
        })
    }

    #[test]
    fn expressions_are_found_however_they_are_written() {
        for (form, parameter) in [
            ("query=(((", "query"),
            ("query=%28%28%28", "query"),
            ("query=%28(%28", "query"),
            ("quer%79=(((", "query"),
            ("%71%75%65%72%79=(((", "query"),
            ("time=1&query=(((", "query"),
            ("query=up&query=(((", "query"),
            ("query=(((&query=up", "query"),
            ("match[]=(((", "match[]"),
            ("match%5B%5D=(((", "match[]"),
            ("match%5b%5d=up&match[]=(((", "match[]"),
            ("selector=(((", "selector"),
            ("&&query=(((", "query"),
            ("query==(((", "query"),
            ("query=+-(+-", "query"),
            // What Go skips is checked, too: no reading may differ.
            ("query=((%(", "query"),
            ("query=%zz(((", "query"),
            ("query=(((%2", "query"),
            ("query=1;(((", "query"),
        ] {
            assert_eq!(refused(form), Some(parameter), "{form}");
        }
    }

    #[test]
    fn parameters_that_mimir_does_not_parse_are_not_checked() {
        for form in [
            "",
            "(((",
            "query",
            "&",
            "=(((",
            "Query=(((",
            "query%20=(((",
            "queryy=(((",
            "match[]%00=(((",
            "rule_name[]=(((",
            "query=((&match[]=((",
            "query=%22(((%22",
            "query=up%23(((",
            "query=%2528%2528%2528",
        ] {
            assert_eq!(refused(form), None, "{form}");
        }
    }

    // Mimir looks the series of each of them up.
    #[test]
    fn a_request_has_only_so_many_expressions() {
        let form = |count: usize| vec!["match[]=up&query=up"; count / 2].join("&");
        let limits = ExpressionLimits::default();
        assert_eq!(check_query(&form(100), &limits), Ok(()));
        assert_eq!(
            check_query(&form(102), &limits).unwrap_err().to_string(),
            "invalid parameter \"match[]\": the expression is one of more than 100 of the request \
             (limits.expression_count)"
        );
    }

    // One request compiles the patterns of all parameters.
    #[test]
    fn patterns_of_several_parameters_add_up() {
        let form = vec!["match[]={a=~\".{1000}\"}"; 40].join("&");
        let excess = check_query(&form, &ExpressionLimits::default()).unwrap_err();
        assert_eq!(excess.excess.measure, Measure::Patterns);
    }

    #[test]
    fn an_excess_names_the_parameter_and_the_limit() {
        assert_eq!(
            check_query("query=(((", &depth(2)).unwrap_err().to_string(),
            "invalid parameter \"query\": the expression nests parentheses, braces or signs more than \
             2 deep (limits.expression_depth)"
        );
    }

    // Go's `strings.ToLower` maps `İ` to `i`, and `net/http` takes the first of several headers.
    #[test]
    fn an_ambiguous_content_type_is_refused() {
        let readable = |types: &[&str]| {
            let value = |text: &&str| http::HeaderValue::from_bytes(text.as_bytes()).unwrap();
            is_readable(&types.iter().map(|text| (header::CONTENT_TYPE, value(text))).collect())
        };
        assert!(readable(&[]) && readable(&["application/json"]));
        assert!(readable(&["Application/X-WWW-Form-Urlencoded ; charset=utf-8"]));
        assert!(
            !readable(&["multipart/form-data; boundary=a"]) && !readable(&[" MultiPart/form-data"])
        );
        assert!(!readable(&["mult\u{130}part/form-data"]));
        assert!(!readable(&["application/x-www-form-urlencoded", "text/plain"]));
    }

    proptest! {
        #[test]
        fn a_form_may_come_in_any_pieces(form in "[a-y=&%+;()0-9]{0,80}", cuts in proptest::collection::vec(0usize..80, 0..5)) {
            let whole = check_query(&form, &depth(2));
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(form.len())).collect();
            cuts.sort_unstable();
            cuts.push(form.len());
            let (mut scanner, mut from) = (FormScanner::new(&depth(2)), 0);
            let mut pieces = cuts.into_iter().map(|to| {
                let piece = &form.as_bytes()[from..to];
                from = to;
                piece
            });
            let in_pieces = pieces.try_for_each(|piece| scanner.push(piece)).and_then(|()| scanner.end());
            prop_assert_eq!(whole, in_pieces);
        }

        // `url::form_urlencoded` reads a form as Go does, except for the pairs that Go skips.
        #[test]
        fn every_value_that_a_form_parser_returns_is_checked(
            pairs in proptest::collection::vec(("(query|match\\[\\]|selector|time|x)", "[(a %+&=;\"]{0,8}"), 0..6),
        ) {
            let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
            let wrong = pairs.iter().any(|(name, value)| {
                PARAMETERS.contains(&name.as_str()) && super::super::expression::check(value, &depth(2)).is_err()
            });
            prop_assert_eq!(check_query(&form, &depth(2)).is_err(), wrong);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut scanner = FormScanner::new(&depth(2));
            let _ = scanner.push(&bytes).and_then(|()| scanner.end());
        }
    }
}
