//! The client of Mimir's ruler, with one that fails.

use std::time::Duration;

use harness::{ChaosProxy, Mimir, RawUpstream, Received, Upstream, free_port};
use http::Response;
use http_body_util::BodyExt as _;
use mimir_tenant_proxy::mimir::ruler::{Deleted, RulerClient, RulerError};
use mimir_tenant_proxy::mimir::{ExchangeError, MimirConfig, Retriable as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::ruler_client::{NAMESPACE, client_of, fresh_tenant, group, rule};
use crate::support::responses::full;

/// An upstream with the same response to everything.
async fn always(status: u16, retry_after: Option<&'static str>, body: &'static str) -> Upstream {
    Upstream::start(move |request: Received| async move {
        if let Some(body) = request.body {
            let _ = body.collect().await;
        }
        let mut answer = Response::builder().status(status);
        if let Some(seconds) = retry_after {
            answer = answer.header("retry-after", seconds);
        }
        answer.body(full(body)).unwrap()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_instance_is_tried_when_one_is_unreachable() {
    let mimir = Mimir::shared().await;
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let tenant = fresh_tenant();
    let client = client_of(&[&nobody, &mimir.url()], NAMESPACE);
    client.set_group(&tenant, &group("g", vec![rule("A", "up")])).await.unwrap();
    assert_eq!(client.list(&tenant).await.unwrap().ours.len(), 1);
    // All instances are unreachable.
    let gone = client_of(&[&nobody, &nobody], NAMESPACE).list(&tenant).await.unwrap_err();
    assert!(
        matches!(&gone, RulerError::Exchange(ExchangeError::Unreachable(_))) && gone.is_transient(),
        "{gone:?}"
    );
    // An address may be a secret of the operator's, and the log does not need it.
    assert!(!gone.to_string().contains("http://"), "{gone}");
}

// A write that may have reached one instance is not silently sent to another.
#[tokio::test(flavor = "multi_thread")]
async fn no_other_failure_tries_the_next_instance() {
    let (busy, other) = (always(503, None, "not yet").await, always(202, None, "{}").await);
    let tenant = fresh_tenant();
    let client = client_of(&[&busy.url(), &other.url()], NAMESPACE);
    let answer = client.set_group(&tenant, &group("g", vec![rule("A", "up")])).await;
    assert!(
        matches!(answer, Err(RulerError::Exchange(ExchangeError::Busy { status: 503, .. }))),
        "{answer:?}"
    );
    // It accepts the request and closes the connection.
    let rude = RawUpstream::start(async |mut socket| {
        let _ = socket.read(&mut [0; 4096]).await;
    })
    .await;
    let client = client_of(&[&rude.url(), &other.url()], NAMESPACE);
    let answer = client.set_group(&tenant, &group("g", vec![rule("A", "up")])).await;
    assert!(
        matches!(answer, Err(RulerError::Exchange(ExchangeError::Unreachable(_)))),
        "{answer:?}"
    );
    assert_eq!(other.heads().len(), 0);
}

// Otherwise rules wait for as long as one of several instances hangs or fails. Of many calls that fail together only
// one moves on: with two instances an even number would end at the first again.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_failure_the_next_call_goes_to_another_instance() {
    let tenant = fresh_tenant();
    let hanging = RawUpstream::start(async |mut socket| {
        let _ = socket.read(&mut [0; 4096]).await;
        std::future::pending::<()>().await;
    })
    .await;
    let stopping = RawUpstream::start(async |mut socket| {
        let _ = socket.read(&mut [0; 4096]).await;
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\na:\n").await;
        std::future::pending::<()>().await;
    })
    .await;
    let rude = RawUpstream::start(async |mut socket| {
        let _ = socket.read(&mut [0; 4096]).await;
    })
    .await;
    let busy = always(503, None, "not yet").await;
    let good = always(200, None, "{}\n").await;
    for (case, bad) in [
        ("never answers", hanging.url()),
        ("never ends", stopping.url()),
        ("breaks off", rude.url()),
        ("503", busy.url()),
    ] {
        let config = MimirConfig {
            urls: [bad, good.url()].map(|url| url.parse().unwrap()).to_vec(),
            request_timeout: Duration::from_millis(300),
            connect_timeout: Duration::from_millis(300),
            tls: None,
        };
        let client = RulerClient::new(&config, NAMESPACE).unwrap();
        let together = futures_util::future::join_all((0..4).map(|_| client.list(&tenant))).await;
        assert!(together.iter().all(Result::is_err), "{case}: {together:?}");
        for _ in 0..5 {
            let next = client.list(&tenant).await;
            assert!(next.is_ok(), "{case}: {next:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mimir_that_does_not_answer_is_a_timeout_and_heals() {
    let mimir = Mimir::shared().await;
    let chaos = ChaosProxy::start(([127, 0, 0, 1], mimir.port()).into()).await;
    let config = MimirConfig {
        urls: vec![chaos.url().parse().unwrap()],
        request_timeout: Duration::from_millis(300),
        connect_timeout: Duration::from_millis(300),
        tls: None,
    };
    let client = RulerClient::new(&config, NAMESPACE).unwrap();
    let tenant = fresh_tenant();
    chaos.stall();
    let late = client.list(&tenant).await.unwrap_err();
    let timeout = ExchangeError::Timeout(Duration::from_millis(300));
    assert!(late == RulerError::Exchange(timeout) && late.is_transient());
    chaos.cut();
    let cut = client.list(&tenant).await.unwrap_err();
    assert!(matches!(cut, RulerError::Exchange(ExchangeError::Unreachable(_))), "{cut:?}");
    chaos.calm();
    assert_eq!(client.list(&tenant).await.unwrap().others, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_read_from_busy_responses() {
    let tenant = fresh_tenant();
    for (status, header, wait) in [
        (429, Some("7"), Some(Duration::from_secs(7))),
        (500, None, None),
        (503, Some("soon"), None),
        (504, Some("0"), Some(Duration::ZERO)),
    ] {
        let upstream =
            always(status, header, "{\"status\":\"error\",\"error\":\"too much\"}").await;
        let client = client_of(&[&upstream.url()], NAMESPACE);
        let message = "too much".to_owned();
        let expected =
            RulerError::Exchange(ExchangeError::Busy { status, retry_after: wait, message });
        assert!(expected.is_transient() && expected.retry_after() == wait);
        assert_eq!(client.list(&tenant).await, Err(expected.clone()));
        let set = client.set_group(&tenant, &group("g", vec![rule("A", "up")])).await;
        assert_eq!(set, Err(expected.clone()));
        assert_eq!(client.delete_group(&tenant, "g").await, Err(expected.clone()));
        assert_eq!(client.format_query(&tenant, "up").await, Err(expected.clone()));
        assert_eq!(client.limits(&tenant).await, Err(expected.clone()));
        assert_eq!(client.list_all(|_, _| {}).await, Err(expected));
    }
}

// A deletion begins with a listing: nothing else may look like "no rules".
#[tokio::test(flavor = "multi_thread")]
async fn only_mimirs_own_text_means_that_there_are_no_rules() {
    let tenant = fresh_tenant();
    let list = async |status, body| {
        let upstream = always(status, None, body).await;
        client_of(&[&upstream.url()], NAMESPACE).list(&tenant).await
    };
    // Mimir 2 answered this.
    assert_eq!(list(404, "no rule groups found\n").await.unwrap().ours, []);
    for (status, body) in [
        (404, "404 page not found\n"),
        (404, ""),
        (204, ""),
        (202, "{}\n"),
        (301, ""),
        (200, ""),
        (200, "null\n"),
        (200, "<html>\n</html>\n"),
        (200, "our rules:\n    - name: a\n      rules:\n        - alert: A\n          ex"),
        (400, "failed to list rule group for user\n"),
    ] {
        let read = list(status, body).await;
        assert!(read.is_err(), "{status} {body:?}: {read:?}");
    }
    // Half of a response, truncated at the end of a line.
    let half = RawUpstream::start(async |mut socket| {
        let _ = socket.read(&mut [0; 4096]).await;
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{}\n").await;
    })
    .await;
    let read = client_of(&[&half.url()], NAMESPACE).list(&tenant).await;
    assert!(matches!(read, Err(RulerError::Exchange(ExchangeError::Unreachable(_)))), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_mimirs_own_text_means_that_a_group_was_absent() {
    let tenant = fresh_tenant();
    for (body, expected) in [
        ("group does not exist\n", Ok(Deleted::WasAbsent)),
        ("group namespace does not exist\n", Ok(Deleted::WasAbsent)),
        (
            "404 page not found\n",
            Err(RulerError::Exchange(ExchangeError::Unexpected {
                status: 404,
                message: "404 page not found".to_owned(),
            })),
        ),
    ] {
        let upstream = always(404, None, body).await;
        let client = client_of(&[&upstream.url()], NAMESPACE);
        assert_eq!(client.delete_group(&tenant, "g").await, expected);
        assert_eq!(client.delete_namespace(&tenant).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_response_is_not_read_to_its_end() {
    let endless = RawUpstream::start(async |mut socket| {
        let _ = socket.read(&mut [0; 4096]).await;
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\n\r\na:\n").await;
        let piece = b"  # more\n".repeat(8192);
        while socket.write_all(&piece).await.is_ok() {}
    })
    .await;
    let (client, tenant) = (client_of(&[&endless.url()], NAMESPACE), fresh_tenant());
    for read in [client.list(&tenant).await.map(drop), client.list_all(|_, _| {}).await] {
        let Err(RulerError::Exchange(ExchangeError::Unreadable(why))) = read else {
            panic!("{read:?}")
        };
        assert!(why.contains("longer than 33554432 bytes"), "{why}");
    }
}

// Only the tenant header decides whose rules these are.
#[tokio::test(flavor = "multi_thread")]
async fn each_request_names_one_tenant() {
    let upstream = always(404, None, "").await;
    let (client, tenant) = (client_of(&[&upstream.url()], NAMESPACE), fresh_tenant());
    let _ = client.list(&tenant).await;
    let _ = client.set_group(&tenant, &group("a/b", vec![rule("A", "up")])).await;
    let _ = client.delete_group(&tenant, "a/b").await;
    let _ = client.delete_namespace(&tenant).await;
    let _ = client.format_query(&tenant, "up").await;
    let _ = client.limits(&tenant).await;
    let heads = upstream.heads();
    let asked: Vec<String> =
        heads.iter().map(|head| format!("{} {}", head.method, head.target)).collect();
    assert_eq!(
        asked,
        [
            "GET /prometheus/config/v1/rules",
            "POST /prometheus/config/v1/rules/our%20rules",
            "DELETE /prometheus/config/v1/rules/our%20rules/a%2Fb",
            "DELETE /prometheus/config/v1/rules/our%20rules",
            "POST /prometheus/api/v1/format_query",
            "GET /api/v1/user_limits",
        ]
    );
    for head in heads {
        let tenants: Vec<_> = head.headers.get_all("x-scope-orgid").iter().collect();
        assert_eq!(tenants, [tenant.as_str()]);
    }
}
