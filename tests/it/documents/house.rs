//! House rules of CONTRIBUTING.md that neither the compiler nor clippy holds.

use std::path::PathBuf;

use super::{files_of, root};

/// Production code: file and text, without inline test modules.
fn sources() -> Vec<(PathBuf, String)> {
    let files = files_of(&["src"], &["rs"]).into_iter();
    let read = files.map(|file| {
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
        (file.strip_prefix(root()).unwrap().to_owned(), code)
    });
    let read: Vec<_> = read.collect();
    assert!(read.len() > 100, "{} files", read.len());
    read
}

/// Whether a file is a module or one of its parts: `src/store.rs`, `src/store/feed.rs`.
fn is_of(file: &std::path::Path, module: &str) -> bool {
    file == std::path::Path::new(&format!("src/{module}.rs"))
        || file.starts_with(format!("src/{module}"))
}

#[test]
fn sql_stands_only_in_store() {
    for (file, code) in sources() {
        let is_free = is_of(&file, "store") || !code.contains("sqlx::");
        assert!(is_free, "{} uses sqlx; SQL belongs into store", file.display());
    }
}

// The reconciler and everything that stages share know nothing of requests, so that neither can be
// reached past the stages.
#[test]
fn what_lies_below_imports_no_stage() {
    let below = ["rules", "directory", "store", "mimir", "tenancy", "clock"];
    let stages =
        ["listener", "pipeline", "edge", "route", "authn", "authz", "limits", "forward", "admin"];
    for (file, code) in sources() {
        if !below.iter().any(|module| is_of(&file, module)) {
            continue;
        }
        for stage in stages {
            let import = format!("crate::{stage}");
            let imports = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            let found = imports.filter(|line| line.contains(&import)).count();
            assert_eq!(found, 0, "{} imports {import}", file.display());
        }
        // A group of imports would hide from this test.
        assert!(!code.contains("use crate::{"), "{}: one import a line", file.display());
    }
}

// Two writers of X-Scope-OrgID are two chances of the wrong one: Mimir takes the first silently.
#[test]
fn only_mimir_writes_the_tenant_header() {
    for (file, code) in sources() {
        // `explain-token` tries a request that is never sent.
        if is_of(&file, "mimir") || is_of(&file, "command") {
            continue;
        }
        for write in ["insert(TENANT_HEADER", "append(TENANT_HEADER", "from_static(\"x-scope-orgid"]
        {
            assert!(!code.contains(write), "{}: {write}", file.display());
        }
    }
}
