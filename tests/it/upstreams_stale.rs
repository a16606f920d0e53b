use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::RawUpstream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::front::{before, read_request};
use crate::scene::{PUSH, QUERY};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const FORM: &str = "/prometheus/api/v1/query";

/// How a server ends a kept connection on which a request has just arrived.
#[derive(Clone, Copy, Debug)]
enum End {
    /// It closes.
    Close,
    /// It resets, without having read the request.
    Reset,
    /// It closes its side and goes on reading.
    HalfClose,
}

/// Answers the first request of each connection and ends the connection when a second one comes.
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
                    // Unread bytes at the end make the kernel reset the connection.
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

// The hard case of keep-alive: the request was written, and not a byte of an answer comes. There
// is one instance, so nothing but a new connection to it can help.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_closes_on_a_request_costs_nothing() {
    for end in [End::Close, End::Reset, End::HalfClose] {
        let (upstream, answered) = forgetful(end).await;
        let scene = before(&[upstream.url()], &[]).await;
        let client = scene.client();
        for round in 0..10 {
            let read = client.get(QUERY).await;
            assert_eq!(read.status, 200, "{end:?} {round}: {read:?}");
            let form = client.post_form(FORM, "query=up").await;
            assert_eq!(form.status, 200, "{end:?} {round}: {form:?}");
            let push = client.post(PUSH, vec![b'x'; 100_000]).await;
            assert_eq!(push.status, 200, "{end:?} {round}: {push:?}");
        }
        let stale = scene.retries("stale").await;
        println!("{end:?}: {stale} renewed");
        assert!(stale >= 10.0, "{end:?}: {stale}");
        assert_eq!(answered.load(Ordering::SeqCst), 30, "{end:?}: each is done once");
        assert!(!scene.ejected().await, "a closed connection is nobody's fault");
    }
}

// What cannot be sent again goes by a connection that was used a moment ago, or by a new one.
#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_repeated_takes_no_old_connection() {
    for target in [PUSH, "/api/v1/push/influx/write"] {
        let (upstream, _) = forgetful(End::Close).await;
        let scene = before(&[upstream.url()], &[]).await;
        assert_eq!(scene.client().get(QUERY).await.status, 200);
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let large = scene.client().post(target, vec![b'x'; 400_000]).await;
        assert_eq!(large.status, 200, "{large:?}");
        assert_eq!(scene.retries("stale").await, 0.0);
    }
}
