//! Takes the files of the proxy as they stand, with loom's atomics and locks in place of others and without
//! their own tests. A file that has changed in a way that this does not find no longer builds.

use std::path::Path;

/// Below `src`, and what is replaced in it.
const FILES: &[(&str, &[(&str, &str)])] = &[
    ("request_body/upload_buffer.rs", &[("std::sync::atomic", "loom::sync::atomic")]),
    ("per_second.rs", &[("std::sync::atomic", "loom::sync::atomic"), ("pub(crate)", "pub")]),
    ("route/priority.rs", &[]),
    ("limits/rate.rs", &[("std::sync::atomic", "loom::sync::atomic")]),
    (
        "limits/shares.rs",
        &[
            ("std::sync::atomic", "loom::sync::atomic"),
            ("use parking_lot::", "use crate::lock::"),
            // Loom takes SeqCst for AcqRel: a read may be older than it can be. One that writes what it
            // reads is not, and is what SeqCst makes of the others.
            (".load(SeqCst)", ".fetch_add(0, SeqCst)"),
        ],
    ),
];

fn main() {
    let out = std::env::var_os("OUT_DIR").unwrap();
    for (name, replaced) in FILES {
        let path = Path::new("../../src").join(name);
        println!("cargo::rerun-if-changed={}", path.display());
        let text = std::fs::read_to_string(&path).unwrap();
        let mut text = text[..text.find("#[cfg(test)]").unwrap_or(text.len())].to_owned();
        for (before, after) in *replaced {
            assert!(text.contains(before), "{name} has no {before}");
            text = text.replace(before, after);
        }
        // Inner comments may not stand in an included file.
        let text: String = text
            .lines()
            .filter(|line| !line.starts_with("//!"))
            .fold(String::new(), |all, line| all + line + "\n");
        std::fs::write(Path::new(&out).join(name.replace('/', "_")), text).unwrap();
    }
}
