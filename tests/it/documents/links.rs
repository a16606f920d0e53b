//! Links within the repository: the file exists, and so does the heading.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::documents;

/// A document without its code blocks, in which brackets mean something else.
fn prose(document: &Path) -> String {
    let text = std::fs::read_to_string(document).unwrap();
    let blocks: String = text.split("```").step_by(2).collect();
    blocks.split('`').step_by(2).collect()
}

/// The anchor of a heading: letters, digits, dashes, as GitHub generates it.
fn anchor(heading: &str) -> String {
    let lower = heading.trim().to_lowercase();
    let kept = lower.chars().filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-' || *c == '_');
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

pub(crate) fn anchors(document: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(document).unwrap();
    let outside: String = text.split("```").step_by(2).collect();
    let headings = outside.lines().filter(|line| line.starts_with('#'));
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    headings
        .map(|line| {
            let name = anchor(line.trim_start_matches('#'));
            let times = seen.entry(name.clone()).or_default();
            *times += 1;
            if *times == 1 { name } else { format!("{name}-{}", *times - 1) }
        })
        .collect()
}

#[test]
fn every_link_has_a_target() {
    let mut followed = 0;
    for document in documents() {
        let text = prose(&document);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        for (target, _) in targets {
            if target.starts_with("http") || target.starts_with("mailto:") {
                continue;
            }
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let to: PathBuf = if path.is_empty() {
                document.clone()
            } else {
                document.parent().unwrap().join(path)
            };
            assert!(to.exists(), "{}: {target} is not there", document.display());
            if !heading.is_empty() {
                let there = anchors(&to);
                let from = document.display();
                assert!(there.iter().any(|name| name == heading), "{from}: {target}: {there:?}");
            }
            followed += 1;
        }
    }
    assert!(followed >= 25, "{followed} links");
}

// Every page is reachable from the first one.
#[test]
fn every_page_of_operations_is_in_its_index() {
    let index = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations/README.md");
    let text = std::fs::read_to_string(&index).unwrap();
    for entry in std::fs::read_dir(index.parent().unwrap()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_listed = name == "README.md" || text.contains(&format!("({name})"));
        assert!(is_listed, "{name} is not in the index");
    }
}
