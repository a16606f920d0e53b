//! What must be true of what Mimir's Alertmanager says.

use super::counters::{Asked, Found, PageReader};
use super::{Counters, MASK, Redactor};
use crate::fuzzing::{fields, pieces, texts};

/// Lengths of pieces, and a page of metrics: the same counters in any pieces, and none of another tenant.
pub fn alertmanager_page(data: &[u8]) {
    let [lengths, page] = fields(data);
    let read = |pieces: &[&[u8]]| {
        let asked = Asked { tenant: "acme".to_owned(), integration: "webhook".to_owned() };
        let mut found = Found::from([(asked, Counters::default())]);
        let mut reader = PageReader::default();
        for piece in pieces {
            reader.push(piece, &mut found);
        }
        found.into_values().next().unwrap_or_default()
    };
    // `NaN` is not equal to itself.
    let (whole, cut) = (read(&[page]), read(&pieces(page, lengths)));
    assert_eq!(format!("{whole:?}"), format!("{cut:?}"));
    let has = page.windows(11).any(|part| part == b"user=\"acme\"");
    assert!(has || format!("{whole:?}") == format!("{:?}", Counters::default()));
}

/// Two secrets and a text: no secret of some length is left in what is shown.
pub fn redactor(data: &[u8]) {
    let [one, other, text] = texts(data);
    let shown = Redactor::new([one.as_str(), other.as_str()]).redact(&text);
    // What a mask and what stands beside it make together is no secret.
    let shown = shown.replace(MASK, "\0");
    for secret in [one, other].iter().filter(|secret| secret.chars().count() >= 4) {
        let is_ours = MASK.contains(secret.as_str())
            || "(not shown: it repeats a part of a secret)".contains(secret.as_str());
        // Of an address the host is shown.
        let is_address = url::Url::parse(secret).is_ok_and(|url| url.has_host());
        assert!(
            is_ours || is_address || !shown.contains(secret.as_str()),
            "{secret:?} in {shown:?}"
        );
    }
    assert!(!format!("{:?}", Redactor::new(["topsecret"])).contains("topsecret"));
}
