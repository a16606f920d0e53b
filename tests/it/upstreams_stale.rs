//! Kept connections that the other side has closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::{ORG_A, ORG_B, RawUpstream, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::failover::{before, read_request};
use crate::support::single::{PUSH, QUERY};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const FORM: &str = "/prometheus/api/v1/query";

/// How a server ends a kept connection on which a request has just arrived.
#[derive(Clone, Copy, Debug)]
enum End {
    /// It closes.
    Close,
    /// It resets, without having read the request.
    Reset,
    /// It closes its sending side and continues to read.
    HalfClose,
}

/// Answers the first request of each connection and ends the connection when a second one arrives.
/// Counts the requests that it has answered.
async fn forgetful(end: End) -> (RawUpstream, Arc<AtomicUsize>) {
    let answered = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&answered);
    let upstream = RawUpstream::start(move |mut socket| {
        let counter = Arc::clone(&counter);
        async move {
            if read_request(&mut socket).await.is_none() {
                return;
            }
            counter.fetch_add(1, Ordering::SeqCst);
            let _ = socket.write_all(OK).await;
            match end {
                End::Close => {
                    let _ = read_request(&mut socket).await;
                }
                End::Reset => {
                    // Unread bytes at the end make the kernel send a reset.
                    let _ = socket.readable().await;
                }
                End::HalfClose => {
                    let _ = read_request(&mut socket).await;
                    let _ = socket.shutdown().await;
                    let _ = socket.read(&mut [0; 64]).await;
                }
            }
        }
    })
    .await;
    (upstream, answered)
}

// The hard case of keep-alive: the request was written, and no byte of a response arrives. There is
// one instance, so only a new connection to it can help.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_closes_on_a_request_costs_nothing() {
    for end in [End::Close, End::Reset, End::HalfClose] {
        let (upstream, answered) = forgetful(end).await;
        let fixture = before(&[upstream.url()], &[]).await;
        let client = fixture.client();
        for round in 0..10 {
            let read = client.get(QUERY).await;
            assert_eq!(read.status, 200, "{end:?} {round}: {read:?}");
            let form = client.post_form(FORM, "query=up").await;
            assert_eq!(form.status, 200, "{end:?} {round}: {form:?}");
            let push = client.post(PUSH, vec![b'x'; 100_000]).await;
            assert_eq!(push.status, 200, "{end:?} {round}: {push:?}");
        }
        let stale = fixture.retries("stale").await;
        println!("{end:?}: {stale} renewed");
        assert!(stale >= 10.0, "{end:?}: {stale}");
        assert_eq!(answered.load(Ordering::SeqCst), 30, "{end:?}: each is done once");
        assert!(!fixture.ejected().await, "a closed connection is nobody's fault");
    }
}

// A request that cannot be sent again uses a recently used connection, or a new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_repeatable_takes_no_old_connection() {
    for target in [PUSH, "/api/v1/push/influx/write"] {
        let (upstream, _) = forgetful(End::Close).await;
        let fixture = before(&[upstream.url()], &[]).await;
        assert_eq!(fixture.client().get(QUERY).await.status, 200);
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let large = fixture.client().post(target, vec![b'x'; 400_000]).await;
        assert_eq!(large.status, 200, "{large:?}");
        assert_eq!(fixture.retries("stale").await, 0.0);
    }
}

/// Answers each request, and then sends an unsolicited response. Counts its connections and how
/// often it has sent one.
async fn talkative(
    extra: &'static [u8],
    pause: Option<Duration>,
) -> (RawUpstream, [Arc<AtomicUsize>; 2]) {
    let counts: [Arc<AtomicUsize>; 2] = Default::default();
    let [connections, said] = counts.clone();
    let upstream = RawUpstream::start(move |mut socket| {
        connections.fetch_add(1, Ordering::SeqCst);
        let said = Arc::clone(&said);
        async move {
            while read_request(&mut socket).await.is_some() {
                let answer = if pause.is_none() { [OK, extra].concat() } else { OK.to_vec() };
                let _ = socket.write_all(&answer).await;
                if let Some(pause) = pause {
                    tokio::time::sleep(pause).await;
                    let _ = socket.write_all(extra).await;
                }
                said.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    (upstream, counts)
}

// A second response to one request, or a late one, went to the next user of that connection, who
// may be of another organisation.
#[tokio::test(flavor = "multi_thread")]
async fn an_unsolicited_response_answers_no_request() {
    const FOREIGN: &[u8] = b"HTTP/1.1 203 Foreign\r\nContent-Length: 7\r\n\r\nforeign";
    let late = Some(Duration::from_millis(30));
    for (extra, pause) in [(FOREIGN, None), (FOREIGN, late), (b"\r\n", late), (b"x", None)] {
        let (upstream, [connections, said]) = talkative(extra, pause).await;
        let front = before(&[upstream.url()], &[]).await;
        let users =
            [ORG_A, ORG_B].map(|org| front.proxy.client().bearer(&front.issuer.user_of(org)));
        for round in 0..12 {
            let client = &users[round % 2];
            let answer = if round % 3 == 0 {
                client.post(PUSH, vec![b'x'; 20_000]).await
            } else {
                client.get(QUERY).await
            };
            let got = (answer.status.as_u16(), answer.text.as_str());
            assert_eq!(got, (200, "ok"), "{pause:?} {round}: {answer:?}");
            // What is sent after the next request was written could be its response.
            wait_until("it was said", Duration::from_secs(10), async || {
                said.load(Ordering::SeqCst) == round + 1
            })
            .await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Such a connection is not reused.
        assert_eq!(connections.load(Ordering::SeqCst), 12, "{pause:?}");
    }
}
