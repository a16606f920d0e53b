//! All faults of a file are reported in one run, with lines and suggestions.

use super::*;

fn read_file(text: &str) -> Result<Read, Fault> {
    read(text, Some(&OrganisationId::parse("acme").unwrap()))
}

fn names(text: &str) -> Vec<(String, Option<String>)> {
    let read = read_file(text).unwrap();
    assert!(read.faults.is_empty(), "{:?}", read.faults);
    assert!(read.rows.iter().all(|row| row.faults.is_empty()), "{:?}", read.rows);
    read.rows.into_iter().map(|found| (found.place, found.row.name)).collect()
}

/// Every fault, as `line: problem`.
fn faults(text: &str) -> Vec<String> {
    let shown = |fault: Fault| format!("{}: {}", fault.line, fault.problem);
    match read_file(text) {
        Err(fault) => vec![shown(fault)],
        Ok(read) => {
            let of_rules = read.rows.into_iter().flat_map(|row| row.faults);
            read.faults.into_iter().chain(of_rules).map(shown).collect()
        }
    }
}

#[test]
fn rows_and_groups_are_read() {
    let rows = "- name: A\n  expr: up == 0\n- name: B\n  expr: up == 1\n  labels: {a: b}\n";
    assert_eq!(names(rows)[1], ("rule 2".to_owned(), Some("B".to_owned())));
    let groups = "groups:\n- name: g\n  interval: 30s\n  rules:\n  - {alert: A, expr: up}\n";
    assert_eq!(names(groups)[0].1.as_deref(), Some("A"));
    assert_eq!(names("[{\"name\": \"A\", \"expr\": \"up\"}]").len(), 1);
    assert_eq!(names("---\n- {name: A, expr: up}\n...\n").len(), 1);
    let read = read_file(groups).unwrap();
    let row = &read.rows[0];
    assert_eq!(row.row.evaluation_interval.as_deref(), Some("30s"));
    assert_eq!(
        (row.line, row.line_of("evaluation_interval"), row.line_of("labels")),
        (Some(5), 3, 5)
    );
}

// Seen: one recording rule or one unsupported key hid all faults after it.
#[test]
fn every_fault_is_told_in_one_run() {
    let text = "\
nmae: x
groups:
- name: g
  query_offset: 1m
  source_tenants: [a]
  rules:
  - record: a:b
    expr: up
  - alert: A
    expr: up
    for_duration: 5m
    lables: {a: b}
- nmae: h
  rules:
  - 7
  - alert: [x]
    expr: up
- name: i
- name: j
  rules: {}
- name: k
  rules: []
- 5
";
    let told = faults(text);
    for (line, part) in [
        (1, "nmae: unknown key; the file has groups"),
        (4, "group \"g\": query_offset: an offset has no column"),
        (5, "group \"g\": source_tenants: a rule reads only its own organisation"),
        (7, "record: recording rules are not supported"),
        (11, "for_duration: unknown key; did you mean for?"),
        (12, "lables: unknown key; did you mean labels?"),
        (13, "group \"h\": nmae: unknown key; did you mean name?"),
        (15, "must be a mapping with a name and expr"),
        (16, "alert: must be a string, not a list or a mapping"),
        (18, "group \"i\": has no rules"),
        (20, "group \"j\": rules must be a list"),
        (22, "group \"k\": has no rules"),
        (23, "a group must be a mapping"),
    ] {
        let is_told =
            |told: &&String| told.starts_with(&format!("{line}: ")) && told.contains(part);
        assert_eq!(told.iter().filter(is_told).count(), 1, "{line}: {part}: {told:#?}");
    }
    assert_eq!(told.len(), 13, "{told:#?}");
}

#[test]
fn rows_and_groups_are_told_the_other_ones_words() {
    let row = "- {alert: A, expr: up, for: 5m, interval: 1m, group: g, exrp: x, id: 7}";
    let told = faults(row).join("\n");
    for meant in [
        "alert: unknown key; did you mean name?",
        "for: unknown key; did you mean for_duration?",
        "interval: unknown key; did you mean evaluation_interval?",
        "group: unknown key; did you mean rule_group?",
        "exrp: unknown key; did you mean expr?",
        "id: \"7\" is not a UUID",
    ] {
        assert!(told.contains(meant), "{meant}: {told}");
    }
    assert!(faults("- {record: a, expr: up}")[0].contains("recording rules are not supported"));
    assert!(faults("- {name: a, zzz: 1}")[0].contains("zzz: unknown key; a rule has name, expr"));
}

// A mistyped key is one fault: what it means is read, so that nothing is said to be missing.
#[test]
fn what_a_mistyped_key_means_is_read() {
    let read = read_file("- {alert: A, exrp: up, for: 5m, lables: {a: b}}").unwrap();
    let row = &read.rows[0].row;
    assert_eq!((row.name.as_deref(), row.expr.as_deref()), (Some("A"), Some("up")));
    assert_eq!((row.for_duration.as_deref(), row.labels.is_some()), (Some("5m"), true));
    assert_eq!(read.rows[0].faults.len(), 4, "{:?}", read.rows[0].faults);
}

// The table takes no row without one.
#[test]
fn a_row_names_its_organisation() {
    let faults_of = |text: &str| {
        let row = read(text, None).unwrap().rows.remove(0);
        (row.row.organisation, row.faults)
    };
    let (organisation, faults) = faults_of("- {name: A, expr: up, organisation_id: acme}");
    assert_eq!((organisation.as_str(), faults.len()), ("acme", 0));
    let (_, faults) = faults_of("- {name: A, expr: up}");
    assert!(faults[0].problem.contains("has no organisation_id"), "{faults:?}");
    let (_, faults) = faults_of("- {name: A, expr: up, organisation_id: a/b}");
    assert!(faults[0].problem.starts_with("organisation_id: "), "{faults:?}");
    let (_, faults) = faults_of("- {name: A, expr: up, organisation: acme}");
    assert_eq!(faults.len(), 1, "{faults:?}");
    let (_, faults) = faults_of("groups: [{name: g, rules: [{alert: A, expr: up}]}]");
    assert_eq!(faults, []);
}

#[test]
fn what_holds_no_rules_does_not_pass() {
    for (text, part) in [
        ("groups: []\n", "1: groups is empty"),
        ("groups:\n", "1: groups is empty"),
        ("groups: {}\n", "1: groups must be a list"),
        ("[]", "1: the list is empty"),
        ("", "0: is empty"),
        ("# a comment\n", "0: is empty"),
        ("---\n---\n", "0: is empty"),
        ("a: b", "1: must be a list of rules"),
        ("rules: []", "rules belong into groups"),
        ("word", "1: must be a list of rules"),
        ("groups: []\nnmae: x\n", "2: nmae: unknown key"),
    ] {
        let told = faults(text);
        assert!(told.iter().any(|told| told.contains(part)), "{text}: {told:?}");
    }
}

#[test]
fn further_documents_are_told_and_the_first_is_checked() {
    let told = faults("- {name: a, exrp: up}\n---\n- {name: b, expr: up}\n");
    assert!(
        told.iter().any(|told| told.starts_with("3: starts another YAML document")),
        "{told:?}"
    );
    assert!(told.iter().any(|told| told.contains("did you mean expr?")), "{told:?}");
}

#[test]
fn a_prometheus_rule_is_told_what_to_do_and_is_checked() {
    let told = faults(
        "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata: {name: x}\nspec:\n  groups:\n  - name: g\n    rules:\n    - {alert: A, expr: up, fro: 5m}\n",
    );
    assert!(told[0].contains("PrometheusRule") && told[0].contains("yq .spec FILE"), "{told:?}");
    assert!(told[1].starts_with("8: fro: unknown key; did you mean for?"), "{told:?}");
    assert_eq!(told.len(), 2, "{told:?}");
}

// With a text for authors and a line, and not with the library's text for programmers.
#[test]
fn what_is_no_yaml_is_told_with_its_line() {
    for (text, line) in [("- name: a\n  expr: [\n", 3), ("- a\n b\n  - c: d: e\n", 3)] {
        let fault = read_file(text).unwrap_err();
        assert!(fault.problem.starts_with("is not valid YAML: "), "{fault:?}");
        assert!(fault.line > 0 && fault.line <= line, "{text}: {fault:?}");
    }
}

// Seen: "duplicate mapping key: name, set DuplicateKeyPolicy in Options if acceptable", and nothing of
// what else was wrong.
#[test]
fn a_key_that_stands_twice_is_told_with_both_lines_and_hides_nothing() {
    let text = "groups:\n- name: g\n  rules:\n  - alert: A\n    expr: up\n    expr: down\n  - alrt: B\n    expr: up\n";
    let read = read_file(text).unwrap();
    let of_file: Vec<_> =
        read.faults.iter().map(|fault| (fault.line, fault.problem.as_str())).collect();
    assert_eq!(of_file, [(6, "expr is repeated, first on line 5; write it once")]);
    assert_eq!(read.rows.len(), 2);
    assert!(read.rows[1].faults.iter().any(|fault| fault.line == 7), "{read:?}");
}
