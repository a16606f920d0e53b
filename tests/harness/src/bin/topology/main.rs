//! `scripts/topology`: the whole system on loopback, on real parts and the very files of `config/`.

mod alerts;
mod blocks;
mod caches;
mod loss;
mod rings;
mod rules;
mod senders;
mod system;

use harness::showcase::once;
use tokio::time::Instant;

use system::System;

#[tokio::main]
async fn main() {
    let once = once();
    let began = Instant::now();
    let mut system = System::start().await;
    if !once {
        system.describe();
        let _ = tokio::signal::ctrl_c().await;
        return;
    }
    rings::are_apart(&system).await;
    senders::are_read_back(&system).await;
    rules::are_evaluated_once(&system).await;
    alerts::reach_people(&system).await;
    blocks::outlive_every_disk(&mut system).await;
    caches::are_hit(&system).await;
    loss::none_when_one_is_killed(&mut system).await;
    println!("\nall of it holds, shown in {:.0?}", began.elapsed());
}

/// Prints what has been shown.
fn fact(text: impl AsRef<str>) {
    println!("  {}", text.as_ref());
}

/// Prints what is shown next.
fn chapter(text: &str) {
    println!("\n{text}");
}

/// Tells on standard error what takes its time.
fn say(text: &str) {
    eprintln!("topology: {text}");
}
