//! What is written when everything runs: a screen for people, a file for programs.

use std::path::Path;

use serde_json::{Value, json};

use crate::stack::{LOGINS, ORGANISATIONS, PASSWORD, Stack};

fn name_of(organisation: &str) -> &'static str {
    ORGANISATIONS.iter().find(|(id, _)| *id == organisation).map_or("", |(_, name)| *name)
}

fn console(stack: &Stack) -> String {
    format!("{}/admin/console", stack.proxy.url())
}

/// Writes the file in one step, so that nobody reads half of it.
pub(crate) fn write_state(file: &Path, stack: &Stack) {
    let new = file.with_extension("new");
    std::fs::write(&new, format!("{:#}\n", state(stack))).expect("the state file");
    std::fs::rename(&new, file).expect("the state file");
}

fn state(stack: &Stack) -> Value {
    let user = |login: &crate::stack::Login| {
        let (organisation, role) = login.memberships[0];
        let all = login.memberships.iter();
        let all: Vec<_> =
            all.map(|(id, role)| json!({ "organisation": id, "role": role })).collect();
        json!({
            "email": login.email, "password": PASSWORD, "organisation": organisation, "role": role,
            "memberships": all,
        })
    };
    let organisation = |(id, name): &(&str, &str)| json!({ "id": id, "name": name });
    json!({
        "proxy": stack.proxy.url(),
        "private": stack.proxy.internal_url(),
        "dashboard": stack.site.as_ref().map(harness::Site::url),
        "console": console(stack),
        "supabase": { "url": stack.supabase.url(), "anon_key": stack.supabase.anon_key() },
        "postgres": stack.database.url(),
        "mimir": stack.mimir.url(),
        "organisations": ORGANISATIONS.iter().map(organisation).collect::<Vec<_>>(),
        "users": LOGINS.iter().map(user).collect::<Vec<_>>(),
        "operator_token": stack.operator_token,
        "device_key": stack.device_key,
        "webhook_receiver": stack.inbox.url(),
    })
}

/// Addresses, logins, and three things to try.
pub(crate) fn print(stack: &Stack) {
    let dashboard = stack.site.as_ref().map_or_else(
        || "not built: needs Node; scripts/demo builds it from examples/dashboard".to_owned(),
        harness::Site::url,
    );
    println!("\n  Dashboard   {dashboard}");
    println!("  Console     {}", console(stack));
    println!("  Proxy       {}", stack.proxy.url());
    println!("\n  Logins, all with the password {PASSWORD}");
    for login in &LOGINS {
        let roles: Vec<String> = login
            .memberships
            .iter()
            .map(|(id, role)| format!("{role} of {}", name_of(id)))
            .collect();
        println!("    {:<26} {}", login.email, roles.join(", "));
    }
    println!("  Operator's token for the console\n    {}", stack.operator_token);
    println!("\n  Try");
    println!(
        "    1. Sign in to the dashboard as edith@aldermoor.example and correct the rule TooHumid."
    );
    println!(
        "    2. Write a sample of your own; the dashboard's rule editor then completes workbench_value:"
    );
    println!(
        "       curl {}/api/v1/push/influx/write -H 'Authorization: Bearer {}' \\",
        stack.proxy.url(),
        stack.device_key
    );
    println!("         --data-binary 'workbench value=42'");
    println!("    3. See what was notified: curl {}", stack.inbox.url());
    println!(
        "\n  More: psql {}   metrics {}/metrics",
        stack.database.url(),
        stack.proxy.internal_url()
    );
    println!("  Sign-in is by a stand-in for Supabase. Ctrl-C ends everything.");
}
