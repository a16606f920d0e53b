//! `scripts/demo`: the main job, end to end on real parts.

use std::time::Duration;

use harness::{
    Answer, Client, Issuer, Mimir, NodeExporter, ORG_A, ORG_B, Prometheus, ProxyOptions,
    RemoteWrite, wait_until,
};

const QUERY: &str = "/prometheus/api/v1/query?query=node_load1";

#[tokio::main]
async fn main() {
    let once = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--once") => true,
        Some(other) => {
            eprintln!("unknown option {other}; there is --once");
            std::process::exit(64);
        }
    };
    say(
        "starting Mimir, an issuer of Supabase-shaped tokens, the proxy, a node exporter, Prometheus",
    );
    let mimir = Mimir::start().await;
    let issuer = Issuer::start().await;
    let proxy = ProxyOptions::new(&issuer.url(), &mimir.url()).start().await;
    let (token_a, token_b) = (issuer.user_of(ORG_A), issuer.user_of(ORG_B));
    let exporter = NodeExporter::start().await;
    let sender = Prometheus::start(RemoteWrite::V1, &exporter, &proxy.url(), &token_a).await;

    say("Prometheus remote-writes to the proxy with organisation A's token");
    let a = proxy.client().bearer(&token_a);
    wait_until("A's series arrive", Duration::from_secs(60), async || {
        !series(&a.get(QUERY).await).is_empty()
    })
    .await;

    let answer_a = show("A asks", &a, "its own token").await;
    let answer_b = show("B asks", &proxy.client().bearer(&token_b), "its own token").await;
    let posing = proxy.client().bearer(&token_b).header("x-scope-orgid", ORG_A);
    let answer_posing = show("B asks for A", &posing, "its own token and X-Scope-OrgID: A").await;
    let answer_bad =
        show("A stranger asks", &proxy.client().bearer("not.a.token"), "a bad token").await;

    assert_eq!(series(&answer_a).len(), 1, "A sees what it wrote");
    assert_eq!((answer_b.status.as_u16(), series(&answer_b).len()), (200, 0), "B sees nothing");
    assert_eq!(answer_posing.status, 403, "B is no member of A");
    assert_eq!(answer_bad.status, 401, "a bad token is refused");
    println!("\nA reads what it wrote; B and the stranger see nothing of it.");
    if once {
        return;
    }
    println!("\nStill running until Ctrl-C. Try:\n");
    println!("  TOKEN={token_a}");
    println!("  curl -H \"Authorization: Bearer $TOKEN\" '{}{QUERY}'", proxy.url());
    println!("  curl {}/metrics", proxy.internal_url());
    println!("\nPrometheus: {}   Mimir itself: {}", sender.url(), mimir.url());
    let _ = tokio::signal::ctrl_c().await;
}

fn say(text: &str) {
    eprintln!("demo: {text}");
}

async fn show(who: &str, client: &Client, with: &str) -> Answer {
    let answer = client.get(QUERY).await;
    println!(
        "\n{who}, with {with}:\n  GET {QUERY}\n  {} {}",
        answer.status,
        answer.text.trim_end()
    );
    answer
}

fn series(answer: &Answer) -> Vec<serde_json::Value> {
    let json: serde_json::Value = serde_json::from_str(&answer.text).unwrap_or_default();
    json["data"]["result"].as_array().cloned().unwrap_or_default()
}
