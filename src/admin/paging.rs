//! Reading the query string of a list: how much of it, after what, and which.

use http::Uri;

use super::AdminError;

/// What a list may be asked for. An endpoint takes some of these.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Paging {
    pub(super) limit: usize,
    /// The last one of the page before; empty for the first page.
    pub(super) after: String,
    /// A text that is looked for; empty for all.
    pub(super) filter: String,
    pub(super) problems: bool,
}

/// The length of a page that is not said, and of the longest.
pub(super) const LIMIT: usize = 100;
pub(super) const MOST: usize = 1000;
/// The longest text, in bytes.
const LONGEST: usize = 200;

impl Paging {
    /// Reads the parameters that are `known`. Another one, and one that is repeated, is refused: a
    /// mistyped filter must not become a list of all.
    pub(super) fn read(uri: &Uri, known: &[&str]) -> Result<Self, AdminError> {
        Self::read_or(LIMIT, uri, known)
    }

    /// The same, with another length of a page that is not said.
    pub(super) fn read_or(limit: usize, uri: &Uri, known: &[&str]) -> Result<Self, AdminError> {
        let refuse = |problem: String| Err(AdminError::Request(problem));
        let (mut paging, mut seen) = (Self { limit, ..Self::default() }, Vec::new());
        for (key, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
        {
            let (key, value) = (key.into_owned(), value.into_owned());
            if !known.contains(&key.as_str()) {
                let known = known.join(", ");
                return refuse(format!("unknown parameter {key:?}; there are {known}"));
            }
            if seen.contains(&key) {
                return refuse(format!("{key} is repeated; send it once"));
            }
            if value.len() > LONGEST || value.chars().any(char::is_control) {
                return refuse(format!(
                    "{key} must have at most {LONGEST} bytes and no control characters"
                ));
            }
            match key.as_str() {
                "limit" => match value.parse() {
                    Ok(limit) if (1..=MOST).contains(&limit) => paging.limit = limit,
                    _ => return refuse(format!("limit must be a number from 1 to {MOST}")),
                },
                "after" => paging.after = value,
                "problems" => match value.as_str() {
                    "true" => paging.problems = true,
                    "false" => {}
                    _ => return refuse("problems must be true or false".to_owned()),
                },
                _ => paging.filter = value,
            }
            seen.push(key);
        }
        Ok(paging)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Paging, AdminError> {
        let uri = format!("/admin/organisations{query}").parse().unwrap();
        Paging::read(&uri, &["limit", "after", "filter", "problems"])
    }

    #[test]
    fn a_page_is_bounded_and_a_mistake_is_refused() {
        let all = Paging { limit: LIMIT, ..Paging::default() };
        assert_eq!(read(""), Ok(all));
        let some =
            Paging { limit: 5, after: "org a".to_owned(), filter: "%".to_owned(), problems: true };
        assert_eq!(read("?limit=5&after=org+a&filter=%25&problems=true"), Ok(some));
        let long = format!("?filter={}", "x".repeat(LONGEST + 1));
        for wrong in [
            "?limit=0",
            "?limit=1001",
            "?limit=-1",
            "?limit=ten",
            "?filtre=a",
            "?filter=a&filter=b",
            "?filter=%00",
            "?problems=yes",
            &long,
        ] {
            assert!(matches!(read(wrong), Err(AdminError::Request(_))), "{wrong}");
        }
    }
}
