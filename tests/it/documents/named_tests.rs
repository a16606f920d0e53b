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
    for document in ["README.md", "CONTRIBUTING.md", "docs/verification.md", "docs/architecture.md"]
    {
        let text = std::fs::read_to_string(root().join(document)).unwrap();
        for name in named(&text) {
            let function = format!("fn {name}(");
            assert!(code.iter().any(|code| code.contains(&function)), "{document}: {name}");
            count += 1;
        }
    }
    assert!(count > 40, "{count} names");
}
