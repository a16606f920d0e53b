//! `scripts/demo`: the proxy with everything around it; [`USAGE`] has the options.

mod hubs;
mod progress;
mod screen;
mod stack;
mod walk;

use std::path::PathBuf;
use std::time::Duration;

use harness::ProxyOptions;
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "\
  demo                             runs until Ctrl-C and says where to look
  demo --once                      shows the main job step by step, and ends
  demo --state FILE                writes addresses and logins to FILE when it is ready, and runs until its
                                   standard input is closed
  demo --token-lifetime SECONDS    access tokens that expire soon (3600)
  demo --dashboard FOLDER          the built dashboard (examples/dashboard/dist)";

struct Options {
    once: bool,
    state: Option<PathBuf>,
    lifetime: Duration,
    dashboard: PathBuf,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        once: false,
        state: None,
        lifetime: Duration::from_secs(3600),
        dashboard: "examples/dashboard/dist".into(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--once" => options.once = true,
            "--state" => options.state = Some(value()?.into()),
            "--dashboard" => options.dashboard = value()?.into(),
            "--token-lifetime" => {
                let seconds = value()?.parse().map_err(|_| "--token-lifetime takes seconds")?;
                options.lifetime = Duration::from_secs(seconds);
            }
            "--help" | "-h" => {
                println!("{USAGE}");
                std::process::exit(0);
            }
            other => {
                return Err(format!("unknown option {other}; there are\n{USAGE}"));
            }
        }
    }
    Ok(options)
}

/// Rules, channels and alert events, as soon as they can be shown.
fn with_alerts(options: ProxyOptions, ruler_secret: &str) -> ProxyOptions {
    options
        .set("rules.enabled", "true")
        .set("rules.health_interval", "\"1s\"")
        .set("channels.enabled", "true")
        // The receiver of notifications is on loopback here.
        .set("channels.allow_private_targets", "true")
        .set("channels.min_group_interval", "\"1s\"")
        .set("alert_events.enabled", "true")
        .set("alert_events.secret", &format!("{ruler_secret:?}"))
}

#[tokio::main]
async fn main() {
    let options = options().unwrap_or_else(|error| {
        eprintln!("{error}");
        std::process::exit(64);
    });
    if options.once {
        return walk::once().await;
    }
    let stack = tokio::select! {
        stack = stack::Stack::start(options.lifetime, &options.dashboard) => stack,
        () = end(options.state.is_some()) => return,
    };
    if let Some(file) = &options.state {
        screen::write_state(file, &stack);
    }
    screen::print(&stack);
    end(options.state.is_some()).await;
    if let Some(file) = &options.state {
        let _ = std::fs::remove_file(file);
    }
}

/// Waits for a signal; or for the end of the standard input, which comes when the program that started us
/// ends, however it ends.
async fn end(watches_input: bool) {
    let (sender, closed) = tokio::sync::oneshot::channel();
    if watches_input {
        // A thread of its own: the runtime would wait for a blocking task.
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            let _ = sender.send(());
        });
    } else {
        std::mem::forget(sender);
    }
    let mut terminate = signal(SignalKind::terminate()).expect("signals");
    tokio::select! {
        _ = closed => {}
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
