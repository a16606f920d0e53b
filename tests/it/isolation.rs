//! Organisations never mix.

use std::time::Duration;

use harness::{Client, Issuer, Mimir, ProxyOptions, fresh_organisation, samples, wait_until};

// The purpose of this product. Many organisations write and read concurrently over a few shared
// connections (HTTP/1.1 with keep-alive, and one HTTP/2 connection), to one Mimir over pooled
// connections; each sees its own value and never another's.
#[tokio::test(flavor = "multi_thread")]
async fn organisations_never_mix_on_shared_connections() {
    const ORGANISATIONS: usize = 12;
    const ROUNDS: usize = 40;
    let mimir = Mimir::shared().await;
    let issuer = Issuer::start().await;
    let proxy = ProxyOptions::new(&issuer.url(), &mimir.url()).start().await;
    let connections = [Client::new(&proxy.url()), Client::h2c(&proxy.url())];
    let tokens: Vec<(String, String)> = (0..ORGANISATIONS)
        .map(|_| fresh_organisation())
        .map(|organisation| (issuer.user_of(&organisation), organisation))
        .collect();
    let writes = tokens.iter().enumerate().map(|(number, (token, organisation))| {
        let client = connections[number % 2].clone().bearer(token);
        async move {
            let sender = client.clone().header("content-type", "application/x-protobuf");
            let sender = sender.header("content-encoding", "snappy");
            let value = f64::from(u32::try_from(number).unwrap());
            let body = samples::remote_write("owned", &[("owner", organisation)], value);
            assert_eq!(sender.post("/api/v1/push", body).await.status, 200);
            wait_until("the sample is there", Duration::from_secs(30), async || {
                let answer = client.get("/prometheus/api/v1/query?query=owned").await;
                answer.text.contains(organisation.as_str())
            })
            .await;
        }
    });
    futures_util::future::join_all(writes).await;
    let requests = (0..ROUNDS).flat_map(|round| {
        let connections = &connections;
        tokens.iter().enumerate().map(move |(number, (token, organisation))| async move {
            let client = connections[(round + number) % 2].clone().bearer(token);
            let answer = client.get("/prometheus/api/v1/query?query=owned").await;
            let result = answer.json()["data"]["result"].clone();
            assert_eq!(result.as_array().unwrap().len(), 1, "{answer:?}");
            assert_eq!(result[0]["metric"]["owner"], organisation.as_str());
            assert_eq!(result[0]["value"][1], number.to_string());
        })
    });
    use futures_util::StreamExt as _;
    let done = futures_util::stream::iter(requests).buffer_unordered(32).count().await;
    assert_eq!(done, ORGANISATIONS * ROUNDS);
}
