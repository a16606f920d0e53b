//! `scripts/chaos`: faults on real parts, under a load whose every request and sample is accounted for.

mod kill;
mod observation;
mod system;
mod traffic;

use tokio::time::Instant;

use crate::system::System;
use crate::traffic::Rates;

const USAGE: &str = "chaos kill [PUSHES_PER_SECOND]";

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let what = arguments.first().map_or("", String::as_str);
    let pushes: f64 = match arguments.get(1).map(|rate| rate.parse()) {
        None => 100.0,
        Some(Ok(rate)) => rate,
        Some(Err(_)) => usage(),
    };
    let (began, rates) = (Instant::now(), Rates { pushes, reads: 20.0 });
    println!(
        "{}, {pushes} pushes and {} reads a second.\n",
        harness::report::circumstances(),
        rates.reads
    );
    match what {
        "kill" => {
            let mut system = System::start(1).await;
            kill::each_in_turn(&mut system, rates).await;
        }
        _ => usage(),
    }
    println!("\nall of it holds, shown in {:.0?}", began.elapsed());
}

fn usage() -> ! {
    eprintln!("usage: {USAGE}");
    std::process::exit(64);
}

/// Tells on standard error what takes its time.
fn say(text: &str) {
    eprintln!("chaos: {text}");
}
