//! The vocabulary: words that docs/glossary.md lists as not used do not occur in user
//! documentation.
//!
//! A phrase stands for the sense that is not used: "the survey", and not the English verb. Code,
//! which has names, and links are left out.

use std::path::{Path, PathBuf};

use super::{documents, root};

/// The rows of the glossary's last section, and the phrases by which each is recognised.
const UNUSED: &[(&str, &[&str])] = &[
    (
        "look, survey, term",
        &[
            "a look",
            "the look",
            "every look",
            "first look",
            "further looks",
            "whom to look at",
            "everything is looked at",
            "tenant is looked at",
            "survey",
            "surveys",
            "leader's term",
            "its term",
            "once a term",
            "each term",
        ],
    ),
    ("hint, news, heard of", &["hint", "hints", "news", "heard of"]),
    ("desk", &["desk"]),
    ("ledger", &["ledger"]),
    ("bury, burial", &["bury", "buries", "buried", "burial"]),
    ("journey", &["journey", "journeys"]),
    ("patience, choosiness", &["patience", "choosiness"]),
    (
        "standing, place",
        &[
            "the standing",
            "a standing",
            "take a place",
            "takes a place",
            "hold a place",
            "holds a place",
            "have a place",
            "has a place",
            "for a place",
            "all places",
            "places of",
            "places for",
            "free places",
            "gives a place",
        ],
    ),
    ("testimony, witness", &["testimony", "witness", "witnesses"]),
    (
        "word (of an administrator)",
        &[
            "administrator's word",
            "operator's word",
            "whose word",
            "word for their",
            "waits for a word",
        ],
    ),
    ("stranger", &["stranger", "strangers"]),
    ("anew, of late", &["anew", "of late"]),
];

const BREAK: &str = ".";

fn is_user_facing(document: &Path) -> bool {
    document.starts_with(root().join("docs")) || document == root().join("README.md")
}

/// The prose of a document: Markdown without code and link targets; the comments of TOML.
fn prose(document: &Path) -> String {
    let text = std::fs::read_to_string(document).unwrap();
    if document.extension().is_some_and(|end| end == "toml") {
        let comment =
            |line: &str| line.split_once('#').map_or("", |(_, said)| said).to_owned() + "\n";
        return text.lines().map(comment).collect();
    }
    let (text, _) = text.split_once("## Words that are not used").unwrap_or((&text, ""));
    let mut said = String::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            // `code` and ](target) become one word that is in no phrase.
            let words: String = line.split('`').step_by(2).collect::<Vec<_>>().join(BREAK);
            for (index, piece) in words.split("](").enumerate() {
                let rest =
                    if index == 0 { piece } else { piece.split_once(')').map_or("", |(_, r)| r) };
                said.push_str(rest);
            }
        }
        said.push('\n');
    }
    said
}

/// Its words in lower case, each with its line. The end of a sentence or a clause is a word, too.
fn words(text: &str) -> Vec<(String, usize)> {
    let mut words = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        if line.trim().is_empty() || line.trim_start().starts_with(['|', '#', '-']) {
            words.push((BREAK.to_owned(), number));
        }
        for piece in line.split_whitespace() {
            let kept = |c: char| c.is_alphanumeric() || ['\'', '’', '-'].contains(&c);
            let mut parts = piece.split(|c: char| !kept(c)).peekable();
            while let Some(part) = parts.next() {
                if !part.is_empty() {
                    words.push((part.to_lowercase().replace('’', "'"), number));
                }
                let is_last = parts.peek().is_none();
                if !is_last && piece.contains(['.', ',', ';', ':', '|', '(', ')', '"']) {
                    words.push((BREAK.to_owned(), number));
                }
            }
        }
    }
    words
}

/// The phrases of [`UNUSED`] in a text: line and phrase.
fn found(text: &str) -> Vec<(usize, &'static str)> {
    let words = words(text);
    let mut found = Vec::new();
    for phrase in UNUSED.iter().flat_map(|(_, phrases)| *phrases) {
        let wanted: Vec<&str> = phrase.split(' ').collect();
        for window in words.windows(wanted.len()) {
            if window.iter().map(|(word, _)| word.as_str()).eq(wanted.iter().copied()) {
                found.push((window[0].1, *phrase));
            }
        }
    }
    found
}

#[test]
fn plain_english_is_not_an_unused_word() {
    for text in [
        "look at it when it rises, and look for its line",
        "metrics are named in one place; it takes place at night",
        "names, numbers and terms; in terms of tenants",
        "he took a second. Look at everything else",
        "`a look` is code, and so is `survey`",
        "standing water, a good word, without a word",
    ] {
        assert_eq!(found(&prose_of(text)), [], "{text}");
    }
    for text in ["The survey ends.", "it waits for a\nplace", "a (first look) at it", "(anew)"] {
        assert_eq!(found(text).len(), 1, "{text}");
    }
}

fn prose_of(markdown: &str) -> String {
    let file = tempfile::Builder::new().suffix(".md").tempfile().unwrap();
    std::fs::write(file.path(), markdown).unwrap();
    prose(file.path())
}

#[test]
fn documents_use_the_words_of_the_glossary() {
    let mut read: Vec<PathBuf> = documents();
    read.retain(|document| is_user_facing(document));
    read.push(root().join("config/proxy.toml"));
    let mut wrong = Vec::new();
    for document in &read {
        for (line, phrase) in found(&prose(document)) {
            wrong.push(format!("{}:{line}: {phrase}", document.display()));
        }
    }
    let list = wrong.join("\n");
    assert!(wrong.is_empty(), "docs/glossary.md says what is used instead:\n{list}");
    assert!(read.len() > 20, "{} documents", read.len());
}

// Otherwise a new row of the glossary would not be checked.
#[test]
fn every_unused_word_of_the_glossary_is_checked() {
    let glossary = std::fs::read_to_string(root().join("docs/glossary.md")).unwrap();
    let (_, section) = glossary.split_once("## Words that are not used").unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let rows: Vec<&str> = rows.filter(|first| *first != "not used").collect();
    let known: Vec<&str> = UNUSED.iter().map(|(row, _)| *row).collect();
    assert_eq!(rows, known);
}
