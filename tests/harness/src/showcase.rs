//! What the demo and the topology share: their option, and two organisations with a member each.

use std::process::Command;

use crate::database::Database;
use crate::proxy::Proxy;
use crate::{ORG_A, ORG_B};

/// An editor of [`ORG_A`].
pub const ALICE: &str = "a11ce000-0000-4000-8000-000000000000";
/// A viewer of [`ORG_B`].
pub const BOB: &str = "b0b00000-0000-4000-8000-000000000000";

/// Whether the program was started with `--once`. Any other argument ends it.
pub fn once() -> bool {
    match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--once") => true,
        Some(other) => {
            eprintln!("unknown option {other}; there is --once");
            std::process::exit(64);
        }
    }
}

/// Runs a command of the proxy and returns its output.
pub fn command(database: &Database, arguments: &[&str]) -> String {
    let output = Command::new(Proxy::binary())
        .args(arguments)
        .env("MTP__DATABASE__URL", database.url())
        .output()
        .expect("the proxy's binary");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Creates the tables, both organisations and their members.
pub async fn two_organisations(database: &Database) {
    command(database, &["migrate"]);
    database
        .execute(&format!(
            "insert into organisation (id, name) values ('{ORG_A}', 'A'), ('{ORG_B}', 'B');
             insert into membership (user_id, organisation_id, role)
             values ('{ALICE}', '{ORG_A}', 'editor'), ('{BOB}', '{ORG_B}', 'viewer')"
        ))
        .await;
}
