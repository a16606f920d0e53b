//! What must be true of every file of rules.

use super::file::read;

/// A file: faults name lines that it has.
pub fn rule_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // YAML ends a line with a carriage return alone, too.
    let lines = text.split(['\n', '\r']).count() as u64;
    match read(text, None) {
        Ok(read) => {
            let of_rows = read.rows.iter().flat_map(|row| &row.faults);
            for fault in read.faults.iter().chain(of_rows) {
                assert!(fault.line <= lines && !fault.problem.is_empty(), "{fault:?}");
            }
        }
        Err(fault) => assert!(fault.line <= lines && !fault.problem.is_empty(), "{fault:?}"),
    }
}
