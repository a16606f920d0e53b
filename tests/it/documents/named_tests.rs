//! Tests that documents name as evidence exist.

use super::{files_of, root};

/// Names of functions in backquotes. Names of metrics, keys and columns do not have four parts.
fn named(text: &str) -> Vec<&str> {
    let is_name = |word: &&str| {
        word.split('_').count() >= 4
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            && !word.starts_with("mimir_tenant_proxy_")
    };
    text.split('`').skip(1).step_by(2).filter(is_name).collect()
}

#[test]
fn every_test_that_a_document_names_exists() {
    let code: Vec<String> = files_of(&["src", "tests"], &["rs"])
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    let mut count = 0;
    for document in [
        "README.md",
        "CONTRIBUTING.md",
        "docs/verification.md",
        "docs/architecture.md",
        "docs/security.md",
    ] {
        let text = std::fs::read_to_string(root().join(document)).unwrap();
        for name in named(&text) {
            let function = format!("fn {name}(");
            assert!(code.iter().any(|code| code.contains(&function)), "{document}: {name}");
            count += 1;
        }
    }
    assert!(count > 40, "{count} names");
}

/// The rows of all tables of a section, without their heads.
fn rows<'a>(text: &'a str, section: &str) -> Vec<&'a str> {
    let start = text.find(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("no {section}"));
    let section = &text[start + 1..];
    let section = section.find("\n## ").map_or(section, |end| &section[..end]);
    let mut rows = Vec::new();
    let mut lines = section.lines().peekable();
    while let Some(line) = lines.next() {
        let is_head = lines.peek().is_some_and(|next| next.starts_with("|--"));
        if line.starts_with("| ") && !is_head {
            rows.push(line);
        }
    }
    rows
}

// docs/security.md: each line of its threat model and of its attacks ends with a test, and each test of
// tests/it/attacks is in it.
#[test]
fn every_line_of_the_threat_model_has_a_test() {
    let text = std::fs::read_to_string(root().join("docs/security.md")).unwrap();
    for (section, least) in
        [("Who is trusted with what", 10), ("What is a vulnerability", 5), ("Attacks", 50)]
    {
        let rows = rows(&text, section);
        assert!(rows.len() > least, "{section}: {} rows", rows.len());
        for row in rows {
            let tests = row.trim_end_matches('|').rsplit(" | ").next().unwrap();
            assert!(!named(tests).is_empty(), "no test: {row}");
        }
    }
    let listed = named(&text);
    for file in files_of(&["tests/it/attacks"], &["rs"]) {
        let code = std::fs::read_to_string(&file).unwrap();
        for test in code.split("#[tokio::test").skip(1) {
            let name = test.split("async fn ").nth(1).unwrap().split('(').next().unwrap();
            let is_check = name == "a_proxy_that_passes_bytes_through_is_found";
            assert!(is_check || listed.contains(&name), "{}: {name} is not listed", file.display());
        }
    }
}
