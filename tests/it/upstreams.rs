//! Instances: choice, failures, deadlines.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use harness::{
    ChaosProxy, Client, Issuer, Mimir, ORG_A, Proxy, ProxyOptions, RawUpstream, Received, Upstream,
    samples, wait_until,
};
use http::Response;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::responses::{full, ok};

const QUERY: &str = "/prometheus/api/v1/query?query=up";

fn client(issuer: &Issuer, proxy: &Proxy) -> Client {
    proxy.client().bearer(&issuer.user_of(ORG_A))
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_to_all_instances() {
    let issuer = Issuer::start().await;
    let upstreams =
        [Upstream::start(ok).await, Upstream::start(ok).await, Upstream::start(ok).await];
    let options = ProxyOptions::new(&issuer.url(), &upstreams[0].url()).set("listen.workers", "1");
    let proxy = options.upstream(&upstreams[1].url()).upstream(&upstreams[2].url()).start().await;
    let client = client(&issuer, &proxy);
    for _ in 0..90 {
        assert_eq!(client.get(QUERY).await.status, 200);
    }
    for upstream in &upstreams {
        let share = upstream.heads().len();
        assert!((10..60).contains(&share), "{share} of 90");
        assert_eq!(
            upstream.heads()[0].headers["host"],
            upstream.url().replace("http://", "").as_str()
        );
    }
    assert!(
        proxy.metric("mimir_tenant_proxy_upstream_connects_total{outcome=\"succeeded\"}").await
            <= 3.0,
        "connections are kept"
    );
}

/// An address without a listener.
fn dead_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

// Nothing was sent to an unreachable instance: the next one is tried.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_instance_is_skipped() {
    let (issuer, alive) = (Issuer::start().await, Upstream::start(ok).await);
    let proxy = ProxyOptions::new(&issuer.url(), &dead_url()).upstream(&alive.url()).start().await;
    let client = client(&issuer, &proxy);
    for _ in 0..10 {
        let answer = client.post("/api/v1/push", vec![1; 100_000]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(alive.heads().len(), 10);
}

// 503 with Retry-After, which every sender retries.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_mimir_is_a_503() {
    let issuer = Issuer::start().await;
    for url in [dead_url(), "http://no-such-host.invalid:8080".to_owned()] {
        let proxy = ProxyOptions::new(&issuer.url(), &url).start().await;
        for target in [QUERY, "/api/v1/user_stats"] {
            let answer = client(&issuer, &proxy).get(target).await;
            assert_eq!(answer.status, 503, "{answer:?}");
            assert!(
                answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0),
                "{answer:?}"
            );
            assert!(
                !answer.text.contains("127.0.0.1") && !answer.text.contains("invalid"),
                "{answer:?}"
            );
        }
        assert_eq!(
            proxy.client().get(QUERY).await.status,
            401,
            "an outage of Mimir lets nobody in"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mimir_that_does_not_answer_is_a_504() {
    let issuer = Issuer::start().await;
    let upstream = RawUpstream::start(|mut socket| async move {
        while socket.read(&mut [0; 65536]).await.is_ok_and(|length| length > 0) {}
    })
    .await;
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url())
        .set("upstream.response_timeout", "\"400ms\"")
        .start()
        .await;
    let began = Instant::now();
    let client = client(&issuer, &proxy);
    for answer in [client.get(QUERY).await, client.post("/api/v1/push", vec![1; 100_000]).await] {
        assert_eq!(answer.status, 504, "{answer:?}");
        assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(5));
}

// A connection that breaks, or that is not HTTP, before the head of a response.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_is_a_503() {
    let issuer = Issuer::start().await;
    for answer in [
        "",
        "HTTP/1.1 2",
        "SSH-2.0-OpenSSH\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    ] {
        let upstream = RawUpstream::start(move |mut socket| async move {
            let _ = socket.read(&mut [0; 8192]).await;
            let _ = socket.write_all(answer.as_bytes()).await;
        })
        .await;
        let proxy = ProxyOptions::new(&issuer.url(), &upstream.url()).start().await;
        let answer = client(&issuer, &proxy).get(QUERY).await;
        assert_eq!(answer.status, 503, "{answer:?}");
    }
}

// Mimir closes kept connections at any time; a request that finds one closed is sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_was_closed_costs_nothing() {
    let issuer = Issuer::start().await;
    let upstream = RawUpstream::start(|mut socket| async move {
        let _ = socket.read(&mut [0; 8192]).await;
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        tokio::time::sleep(Duration::from_millis(30)).await; // kept, then closed
    })
    .await;
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url()).start().await;
    let client = client(&issuer, &proxy);
    for round in 0..20 {
        let answer = client.post("/api/v1/push", "body").await;
        assert_eq!(answer.status, 200, "{round}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
}

// Retry-After and everything else in Mimir's response is forwarded.
#[tokio::test(flavor = "multi_thread")]
async fn answers_pass_unchanged() {
    let issuer = Issuer::start().await;
    let upstream = Upstream::start(|_: Received| async {
        Response::builder()
            .status(429)
            .header("retry-after", "13")
            .header("content-type", "text/plain")
            .header("x-prometheus-remote-write-samples-written", "5")
            .header("connection", "x-hop")
            .header("x-hop", "gone")
            .body(full("rate limited"))
            .unwrap()
    })
    .await;
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url()).start().await;
    let answer = client(&issuer, &proxy).post("/api/v1/push", "x").await;
    assert_eq!(
        (answer.status.as_u16(), answer.text.as_str(), answer.header("retry-after")),
        (429, "rate limited", "13")
    );
    assert_eq!(answer.header("x-prometheus-remote-write-samples-written"), "5");
    assert_eq!(answer.header("x-hop"), "");
}

// A real Mimir behind a network that breaks: every response meanwhile is a 5xx with Retry-After,
// and afterwards everything works without help.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_network_is_never_a_4xx_and_heals() {
    let mimir = Mimir::shared().await;
    let issuer = Issuer::start().await;
    let network = ChaosProxy::start(([127, 0, 0, 1], mimir.port()).into()).await;
    let options = ProxyOptions::new(&issuer.url(), &network.url());
    let proxy = options.set("upstream.response_timeout", "\"1s\"").start().await;
    let client = client(&issuer, &proxy);
    let sender = client
        .clone()
        .header("content-type", "application/x-protobuf")
        .header("content-encoding", "snappy");
    let write = async || {
        sender.post("/api/v1/push", samples::remote_write("through_storms", &[], 1.0)).await
    };
    assert_eq!(write().await.status, 200);
    for storm in [ChaosProxy::cut, ChaosProxy::stall] {
        storm(&network);
        for _ in 0..3 {
            let (written, read) = (write().await, client.get(QUERY).await);
            for answer in [written, read] {
                assert!(answer.status.is_server_error(), "{answer:?}");
                assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
            }
        }
        network.calm();
        wait_until("it heals", Duration::from_secs(5), async || write().await.status == 200).await;
    }
}

// W3C trace context and the request's ID reach Mimir; credentials do not.
#[tokio::test(flavor = "multi_thread")]
async fn trace_context_passes_and_credentials_do_not() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url())
        .set("upstream.pass_headers", "[\"X-Grafana-User\"]")
        .start()
        .await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let client = client(&issuer, &proxy);
    let client = client
        .header("traceparent", trace)
        .header("tracestate", "a=b")
        .header("x-request-id", "my-request.1");
    let client = client
        .header("apikey", "secret")
        .header("cookie", "secret")
        .header("x-grafana-user", "ada")
        .header("x-other", "1");
    let answer = client.get(QUERY).await;
    assert_eq!(answer.header("x-request-id"), "my-request.1");
    let headers = &upstream.heads()[0].headers;
    assert_eq!(
        (&headers["traceparent"], &headers["tracestate"]),
        (&trace.parse().unwrap(), &"a=b".parse().unwrap())
    );
    assert_eq!(
        (&headers["x-request-id"], &headers["x-grafana-user"]),
        (&"my-request.1".parse().unwrap(), &"ada".parse().unwrap())
    );
    for absent in ["authorization", "apikey", "cookie", "x-other"] {
        assert!(!headers.contains_key(absent), "{absent}");
    }
}
