//! What must be true of every answer of Mimir's ruler.

use bytes::Bytes;

use super::tenant_splitter::TenantSplitter;
use super::{Evaluation, GroupRefusal, RawListing, RulerLimits, StoredRule, read_refusal};
use crate::fuzzing::{broken, fields, pieces, texts};

/// Lengths of pieces, and a listing. A rule that is read is one that could have been written, and a listing
/// of all tenants is the same in any pieces.
pub fn listing(data: &[u8]) {
    let [lengths, body] = fields(data);
    let listing = RawListing::new(Bytes::copy_from_slice(body));
    if let Ok(listed) = listing.parse("alert_rule") {
        assert_eq!(listed.digest, listing.digest());
        assert!(listed.ours.len() + listed.others <= body.len());
        for rule in listed.ours.iter().flat_map(|group| &group.rules) {
            if let StoredRule::Alerting(rule) = rule {
                assert!(!rule.alert.is_empty());
            }
        }
    }
    let (whole, cut) = (split(&[body]), split(&pieces(body, lengths)));
    assert_eq!(whole, cut);
}

fn split(pieces: &[&[u8]]) -> Option<Vec<(String, Bytes)>> {
    let (mut splitter, mut tenants) = (TenantSplitter::default(), Vec::new());
    for piece in pieces {
        splitter.push(piece);
        while let Some(tenant) = splitter.next_tenant() {
            tenants.push(tenant);
        }
        assert!(splitter.waiting() <= pieces.iter().map(|piece| piece.len()).sum());
    }
    tenants.extend(splitter.finish().ok()?);
    let read = |(tenant, listing): (crate::tenancy::TenantId, RawListing)| {
        (tenant.as_str().to_owned(), listing.body().clone())
    };
    Some(tenants.into_iter().map(read).collect())
}

/// The index of a rule, the names of its group and its alert, and what is wrong: as Mimir puts it together,
/// the rule is found by its index, whatever the names and the fault look like. And any text at all.
pub fn refusal(data: &[u8]) {
    let [index, group, alert, fault] = texts(data);
    let _ = read_refusal(&String::from_utf8_lossy(data)).to_string();
    let index = index.len() * 7;
    let quote = |text: &str| format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""));
    let text = format!("1:2: group {}, rule {index}, {}: {fault}", quote(&group), quote(&alert));
    match read_refusal(&text) {
        GroupRefusal::Rule { index: read, alert: named, .. } => {
            assert_eq!((read, named), (index, alert));
        }
        other => broken(format!("{other:?}")),
    }
}

/// The answers of the rules API and of the limits.
pub fn ruler_answer(data: &[u8]) {
    let [date, body] = fields(data);
    let _ = RulerLimits::parse(body);
    let date = std::str::from_utf8(date).ok();
    if let Ok(evaluation) = Evaluation::parse(body, date, "alert_rule") {
        for rule in evaluation.groups.iter().flat_map(|group| &group.rules) {
            assert!(rule.last_evaluation.is_none_or(|at| at.unix_timestamp() > 0));
        }
    }
}
