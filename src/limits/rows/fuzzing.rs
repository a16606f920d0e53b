//! What must be true of every row of a limit.

use super::Read;
use crate::config::LimitValue;
use crate::fuzzing::fields;
use crate::store::LimitRow;
use crate::tenancy::OrganisationId;

/// What separates the columns of a row.
const COLUMN: char = '\x1d';

/// The rows that were read before, and those that are read now, a line each. A limit is that of a valid row, or the
/// one before; of two rows the stricter one holds, in any order; and every other row is a fault.
pub fn limit_rows(data: &[u8]) {
    let [before, now] = fields(data).map(rows);
    let before = Read::of(&before, &Read::default());
    let read = Read::of(&now, &before);
    let mut valid = 0;
    for row in &now {
        let parsed = OrganisationId::parse(&row.organisation)
            .ok()
            .zip(LimitValue::parse(&row.name, &row.value).ok());
        let Some((organisation, value)) = parsed else { continue };
        valid += 1;
        let held = read.limit(&organisation, value.name());
        assert!(held.is_some(), "{row:?}");
        assert_eq!(held.map(|held| held.stricter(value)), held, "{row:?}: {held:?}");
    }
    for (organisation, own) in &read.limits {
        for (name, value) in own {
            let is_of = |row: &LimitRow| {
                OrganisationId::parse(&row.organisation).as_ref() == Ok(organisation)
                    && LimitValue::parse(&row.name, &row.value) == Ok(*value)
            };
            assert_eq!(*name, value.name());
            let is_last = before.limit(organisation, name) == Some(*value);
            assert!(is_last || now.iter().any(is_of), "{organisation:?} {value:?} of nothing");
        }
    }
    assert!(read.faulty >= now.len() - valid && read.faults.len() <= read.faulty);
    for fault in &read.faults {
        assert!(!fault.problem.is_empty() && !fault.problem.contains('\n'), "{fault:?}");
    }
}

fn rows(bytes: &[u8]) -> Vec<LimitRow> {
    let row = |line: &str| {
        let mut columns = line.splitn(3, COLUMN).map(str::to_owned);
        let mut column = || columns.next().unwrap_or_default();
        LimitRow { organisation: column(), name: column(), value: column() }
    };
    String::from_utf8_lossy(bytes).lines().map(row).collect()
}
