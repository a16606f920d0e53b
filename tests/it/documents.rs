//! Every code block of the documentation and every sample is parsed by a program that reads its
//! format, and every link has a target.

use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Authority, Postgres, Purpose};
use mimir_tenant_proxy::config::{Config, Environment};
use tempfile::TempDir;

use crate::support::identity::command_with;

mod backup;
mod hook;
mod links;
mod named_tests;
mod words;

pub(crate) use links::anchors;

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn files_below(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

fn files_of(directories: &[&str], ends: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for directory in directories {
        files_below(&root().join(directory), &mut found);
    }
    let ends_so = |file: &PathBuf| {
        file.extension().is_some_and(|end| ends.iter().any(|wanted| *wanted == end))
    };
    found.retain(ends_so);
    found.sort();
    found
}

pub(crate) fn documents() -> Vec<PathBuf> {
    let mut found = files_of(&["docs", "config"], &["md"]);
    let at_the_top = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"];
    found.extend(at_the_top.iter().map(|name| root().join(name)));
    found
}

/// A code block: the document, the line of its fence, its language and its text.
pub(crate) struct Piece {
    place: String,
    language: String,
    text: String,
}

fn pieces_of(document: &Path) -> Vec<Piece> {
    let text = std::fs::read_to_string(document).unwrap();
    let mut pieces = Vec::new();
    let mut open: Option<(Piece, usize)> = None;
    for (line, number) in text.lines().zip(1..) {
        let bare = line.trim_start();
        let indent = line.len() - bare.len();
        match (&mut open, bare.strip_prefix("```")) {
            (None, Some(language)) => {
                let place = format!("{}:{number}", document.display());
                let language = language.trim().to_owned();
                open = Some((Piece { place, language, text: String::new() }, indent));
            }
            (Some(_), Some(_)) => pieces.extend(open.take().map(|(piece, _)| piece)),
            (Some((piece, indent)), None) => {
                piece.text += line.get(*indent..).unwrap_or_default();
                piece.text += "\n";
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{}: a fence is not closed", document.display());
    pieces
}

fn pieces_in(language: &str) -> Vec<Piece> {
    let all = documents().into_iter().flat_map(|document| pieces_of(&document));
    all.filter(|piece| piece.language == language).collect()
}

fn is_yaml(text: &str) -> Result<(), String> {
    serde_saphyr::from_multiple::<serde_json::Value>(text).map(drop).map_err(|e| e.to_string())
}

// A language without a reader here may be wrong.
#[test]
fn every_language_of_the_documentation_has_a_reader() {
    let read = ["yaml", "toml", "json", "sql", "js", "promql"];
    // The devices page has tests of its own. There is no reader for Alloy's language. A block
    // without a language is shell or output.
    let elsewhere = ["c", "sh", "alloy", ""];
    for document in documents() {
        for piece in pieces_of(&document) {
            let language = piece.language.as_str();
            let is_devices = document.ends_with("docs/operations/devices.md");
            let is_known = read.contains(&language)
                || language.is_empty()
                || (elsewhere.contains(&language) && is_devices);
            assert!(is_known, "{}: nobody reads '{language}'", piece.place);
        }
    }
}

#[test]
fn every_yaml_and_json_of_the_documentation_can_be_read() {
    let (yaml, json) = (pieces_in("yaml"), pieces_in("json"));
    for piece in &yaml {
        is_yaml(&piece.text).unwrap_or_else(|error| panic!("{}: {error}", piece.place));
    }
    for piece in &json {
        let read = serde_json::from_str::<serde_json::Value>(&piece.text);
        read.unwrap_or_else(|error| panic!("{}: {error}", piece.place));
    }
    assert!(yaml.len() >= 5, "{} pieces of YAML", yaml.len());
}

/// A placeholder for the reader's value.
fn filled(text: &str) -> String {
    let names = [
        ("<ref>", "abcdefghijklmnopqrst"),
        ("<password>", "p"),
        ("<region>", "eu-central-1"),
        ("…", "x"),
    ];
    names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
}

// Ours are parsed by our own code, completed to a whole configuration. One for another program says
// so in its first line: `# fly.toml`.
#[test]
fn every_toml_of_the_documentation_is_a_configuration() {
    let (mut ours, mut others) = (0, 0);
    let certificates = certificates();
    for piece in pieces_in("toml") {
        let text = filled(&piece.text);
        let table = text.parse::<toml::Table>();
        let table = table.unwrap_or_else(|error| panic!("{}: {error}", piece.place));
        if text.starts_with("# ") {
            others += 1;
            continue;
        }
        ours += 1;
        // The required keys that the block leaves out.
        let mut missing = Vec::new();
        for (section, key, value) in [
            ("auth", "issuer", "https://abcdefghijklmnopqrst.supabase.co/auth/v1"),
            ("upstream", "urls", "http://mimir.internal:8080"),
        ] {
            if table.get(section).and_then(|section| section.get(key)).is_none() {
                let name = format!("MTP__{}__{}", section.to_uppercase(), key.to_uppercase());
                missing.push((name, value.to_owned()));
            }
        }
        if let Some(database) = table.get("database").filter(|section| section.get("url").is_none())
        {
            assert!(database.is_table(), "{}", piece.place);
            missing
                .push(("MTP__DATABASE__URL".to_owned(), "postgres://u:p@localhost/d".to_owned()));
        }
        let read =
            Config::read(&with_files(&text, &certificates), &Environment::from_vars(missing));
        read.unwrap_or_else(|faults| panic!("{}: {faults}", piece.place));
    }
    assert!(ours >= 4 && others >= 2, "{ours} of ours, {others} of others");
}

/// Certificates with the file names that [`with_files`] puts in.
fn certificates() -> TempDir {
    let (directory, authority) = (TempDir::new().unwrap(), Authority::new("CA"));
    std::fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
    authority.sign(Purpose::Server, &["a.example"]).write(directory.path(), "own");
    directory
}

/// With files that exist in the place of those of certificates.
fn with_files(text: &str, certificates: &TempDir) -> String {
    let lines = text.lines().map(|line| {
        let key = line.split(" = ").next().unwrap_or_default();
        let file = match key {
            "ca_file" | "client_ca_file" => "ca.pem",
            "certificate_files" | "client_certificate_file" => "own.pem",
            "key_files" | "client_key_file" => "own.key",
            _ => return format!("{line}\n"),
        };
        let file = certificates.path().join(file).display().to_string();
        if key.ends_with('s') {
            format!("{key} = [{file:?}]\n")
        } else {
            format!("{key} = {file:?}\n")
        }
    });
    lines.collect()
}

#[test]
fn every_javascript_of_the_documentation_is_read_by_node() {
    let directory = tempfile::tempdir().unwrap();
    for piece in pieces_in("js") {
        let file = directory.path().join("piece.mjs");
        std::fs::write(&file, &piece.text).unwrap();
        let output = Command::new("node").arg("--check").arg(&file).output().unwrap();
        assert!(
            output.status.success(),
            "{}: {}",
            piece.place,
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn every_expression_of_the_documentation_is_read_by_promtool() {
    let directory = tempfile::tempdir().unwrap();
    for piece in pieces_in("promql") {
        let file = directory.path().join("rules.yml");
        let expression = serde_json::to_string(piece.text.trim()).unwrap();
        let rules = format!("groups: [{{name: g, rules: [{{record: r, expr: {expression}}}]}}]\n");
        std::fs::write(&file, rules).unwrap();
        let promtool = harness::part("promtool");
        let output = Command::new(promtool).args(["check", "rules"]).arg(&file).output().unwrap();
        assert!(
            output.status.success(),
            "{}: {}",
            piece.place,
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

// Samples and workflows; other tests show that they work.
#[test]
fn every_sample_file_can_be_read() {
    let mut files = files_of(&["config", ".github"], &["yaml", "yml", "toml", "json"]);
    files.push(root().join("fly.toml"));
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        let read = match file.extension().and_then(|end| end.to_str()) {
            Some("toml") => text.parse::<toml::Table>().map(drop).map_err(|e| e.to_string()),
            Some("json") => serde_json::from_str::<serde_json::Value>(&text)
                .map(drop)
                .map_err(|e| e.to_string()),
            _ => is_yaml(&text),
        };
        read.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
    assert!(files.len() >= 3, "{files:?}");
}

/// Supabase's own tables, as far as the documentation refers to them, and an operator's own tables.
/// Only their form is Supabase's.
const SUPABASE: &str = "
    create role anon nologin; create role authenticated nologin; create role supabase_auth_admin nologin;
    create schema auth;
    create table auth.users (id uuid primary key, email text, banned_until timestamptz);
    create table auth.sessions (id uuid primary key, user_id uuid, not_after timestamptz, oauth_client_id uuid);
    create function auth.uid() returns uuid language sql stable as
        $$ select (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid $$;
    grant usage on schema auth to authenticated;
    create schema supabase_functions;
    create function supabase_functions.http_request() returns trigger language plpgsql as
        $$ begin return null; end $$;
    create table public.organizations (id uuid primary key);
    create table public.organization_limits (organization_id uuid, name text, value text);
    create table public.organization_members (user_id uuid, organization_id uuid, role text);";

/// A cluster of its own, since roles are global to a cluster, with a database of Supabase's form
/// that is migrated.
pub(crate) async fn supabase() -> (Postgres, harness::Database) {
    let cluster = Postgres::start().await;
    let database = cluster.database("supabase").await;
    database.execute(SUPABASE).await;
    for schema in ["public", "mimir"] {
        let migrated = command_with(&database, &[("MTP__DATABASE__SCHEMA", schema)], &["migrate"]);
        assert!(migrated.status.success(), "{migrated:?}");
    }
    // From a later migration.
    database.execute("create table if not exists public.alert_rule (id uuid)").await;
    (cluster, database)
}

/// Runs all SQL of a document, in order.
pub(crate) async fn run_sql_of(document: &Path, database: &harness::Database) -> usize {
    let pieces = pieces_of(document).into_iter().filter(|piece| piece.language == "sql");
    let mut count = 0;
    for piece in pieces {
        let client = database.client().await;
        let done = client.batch_execute(&piece.text).await;
        assert!(done.is_ok(), "{}: {done:?}", piece.place);
        count += 1;
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sql_of_the_documentation_runs() {
    let mut count = 0;
    for document in documents() {
        if pieces_of(&document).iter().any(|piece| piece.language == "sql") {
            let (_cluster, database) = supabase().await;
            if !document.ends_with("docs/operations/supabase.md") {
                // It creates the first organisation, which the others refer to.
                database.execute("insert into public.organisation (id) values ('acme')").await;
            }
            count += run_sql_of(&document, &database).await;
        }
    }
    assert!(count >= 6, "{count} pieces of SQL");
}

// The tables of the page are the script's output.
#[test]
fn the_tables_of_costs_are_those_of_the_script() {
    let page = std::fs::read_to_string(root().join("docs/operations/cost.md")).unwrap();
    let (_, rest) = page.split_once("<!-- scripts/cost begins -->\n").unwrap();
    let (tables, _) = rest.split_once("<!-- scripts/cost ends -->").unwrap();
    let cost = |arguments: &[&str]| {
        Command::new(root().join("scripts/cost")).args(arguments).output().unwrap()
    };
    assert_eq!(tables, String::from_utf8(cost(&[]).stdout).unwrap(), "run scripts/cost");
    assert_eq!(cost(&["hbus=3"]).status.code(), Some(64));
    assert_eq!(cost(&["hubs=many"]).status.code(), Some(64));
    // 1,000 hubs of 300 series each 15 seconds, 1.7 bytes a sample, a year: 1,057.5 GB.
    let known = String::from_utf8(cost(&["r2_free_gb=0"]).stdout).unwrap();
    let storage = known.split("R2, per month").nth(1).unwrap().lines().nth(2).unwrap();
    assert_eq!(storage, "| storage | $15.86 |");
}

// A number without a test is soon wrong.
#[test]
fn documents_say_how_many_traps_there_are() {
    let traps = files_of(&["tests/traps"], &["yaml"]).len();
    for document in ["README.md", "docs/operations/check-config.md"] {
        let page = std::fs::read_to_string(root().join(document)).unwrap();
        assert!(page.contains(&format!("knows {traps} traps")), "{document}: there are {traps}");
    }
}

// Drawn by a script, so that a change is a line of text.
#[test]
fn diagrams_are_what_their_sources_say() {
    let sources = files_of(&["docs/pictures"], &["txt"]);
    for source in &sources {
        let output = Command::new(root().join("scripts/diagram")).arg(source).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let picture = source.with_extension("svg");
        let drawn = std::fs::read_to_string(&picture).unwrap();
        assert!(
            drawn == String::from_utf8(output.stdout).unwrap(),
            "scripts/diagram {} > {}",
            source.display(),
            picture.display()
        );
        assert!(drawn.contains("prefers-color-scheme: dark"), "{}", picture.display());
    }
    assert!(!sources.is_empty());
}

// `--write` puts measured tables between two markers; by hand they would soon be another machine's.
#[test]
fn measured_tables_say_when_and_where_they_were_measured() {
    for (document, tool) in [
        ("docs/performance.md", "loadtest/compare"),
        ("docs/operations/sizing.md", "loadtest/sizing"),
    ] {
        let page = std::fs::read_to_string(root().join(document)).unwrap();
        let (_, rest) = page.split_once(&format!("<!-- {tool} begins -->\n")).unwrap();
        let (block, _) = rest.split_once(&format!("<!-- {tool} ends -->")).unwrap();
        let caption = block.lines().next().unwrap();
        for part in ["mimir-tenant-proxy ", " at ", " cores), Linux "] {
            assert!(caption.contains(part), "{document}: run {tool} --write {document}: {caption}");
        }
        assert!(block.contains("|---"), "{document}: no table");
    }
    let picture = std::fs::read_to_string(root().join("docs/pictures/performance.svg")).unwrap();
    assert!(picture.contains("prefers-color-scheme: dark") && picture.contains("this proxy"));
}
