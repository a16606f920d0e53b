//! What must be true of every reading of Mimir's configuration.

use std::collections::BTreeMap;

use super::{Assumptions, MimirVersion, Variables, examine};

/// A configuration: findings are the same every time, say something, and name lines that it has.
pub fn profile(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // YAML ends a line at a carriage return, too (YAML 1.2.2, 5.4).
    let lines = text.split(['\n', '\r']).count() as u64 + 1;
    let known = Variables::Known(BTreeMap::from([("HOME".to_owned(), "a\nb: [".to_owned())]));
    for (variables, mimir) in
        [(Variables::Unknown, MimirVersion(3, 0)), (known, MimirVersion(2, 17))]
    {
        let assumptions = Assumptions { mimir, instances: Some(3), ours: None };
        let findings = examine(text, &variables, assumptions);
        for finding in &findings {
            assert!(!finding.check.is_empty() && !finding.wrong.is_empty(), "{finding:?}");
            assert!(finding.line <= lines, "{finding:?} of {lines} lines");
        }
        let again = examine(text, &variables, assumptions);
        assert_eq!(format!("{findings:?}"), format!("{again:?}"));
    }
}
