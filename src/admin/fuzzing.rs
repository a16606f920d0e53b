//! What must be true of what `/admin` reads.

use http::Uri;

use super::body::read_object;
use super::paging::Paging;
use super::webhook::organisations_in;
use crate::fuzzing::fields;

/// A query string and a body. A page is bounded, a filter is what was sent, and a webhook names only
/// organisations that can be.
pub fn admin_request(data: &[u8]) {
    let [query, body] = fields(data);
    let target = [b"/admin/organisations?", query].concat();
    if let Ok(uri) = Uri::try_from(target)
        && let Ok(paging) = Paging::read(&uri, &["limit", "after", "filter", "problems"])
    {
        assert!((1..=1000).contains(&paging.limit));
        for text in [&paging.after, &paging.filter] {
            assert!(text.len() <= 200 && !text.chars().any(char::is_control));
        }
    }
    match read_object(body) {
        Ok(object) => {
            let organisations = organisations_in(&object);
            assert!(organisations.len() <= 2);
            let text = String::from_utf8_lossy(body).to_ascii_lowercase();
            let is_named =
                |id: &str| text.contains(&id.to_ascii_lowercase()) || text.contains('\\');
            assert!(organisations.iter().all(|id| is_named(id.as_str())));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
