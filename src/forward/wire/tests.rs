use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use http_body::Body as _;
use proptest::prelude::*;
use tokio::io::ReadBuf;

use super::fuzzing::{Read, both, disagreement, instance};
use super::*;
use crate::net::TcpStream;
use crate::request_body::BodyLimits;

fn both_cut(method: &Method, answer: &[u8], cuts: &[usize]) -> (Option<Read>, Option<Read>) {
    let mut pieces = vec![answer.to_vec()];
    for cut in cuts {
        let last = pieces.last_mut().unwrap();
        let rest = last.split_off(cut % (last.len() + 1));
        pieces.push(rest);
    }
    both(method, &pieces)
}

/// Lines that say where a body ends, or seem to.
fn framing() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (0usize..40).prop_map(|length| format!("Content-Length: {length}\r\n")),
        4 => Just("Transfer-Encoding: chunked\r\n".to_owned()),
        1 => proptest::sample::select(vec![
            "Content-Length: 5\r\nContent-Length: 5\r\n", "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 5\r\n", "Content-Length: +5\r\n", "Content-Length: 0x5\r\n",
            "Content-Length: -1\r\n", "Content-Length:\r\n", "Content-Length: 5 \r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Transfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding: CHUNKED\r\n",
            "Transfer-Encoding: identity\r\n", "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding:\x0bchunked\r\n", "Transfer-Encoding : chunked\r\n", "",
        ]).prop_map(str::to_owned),
    ]
}

fn body() -> impl Strategy<Value = String> {
    let sizes = prop_oneof![
        6 => (1usize..30).prop_map(|size| (format!("{size:x}"), size)),
        1 => proptest::sample::select(vec!["05", "5;a=b", "5 ", " 5", "+5", "0x5", "", "5;\rx", "5\n"])
            .prop_map(|size| (size.to_owned(), 5)),
    ];
    let chunk = sizes.prop_map(|(size, length)| format!("{size}\r\n{}\r\n", "x".repeat(length)));
    let chunks = proptest::collection::vec(chunk, 0..4).prop_map(|chunks| chunks.concat());
    let end = proptest::sample::select(vec![
        "0\r\n\r\n",
        "0\r\nX-Sum: 7\r\n\r\n",
        "0\r\nX-Sum: 7\r\nx-other:\r\n\r\n",
        "00\r\n\r\n",
        "0\r\n",
        "",
        "0\r\n\r",
        "0\r\nX Sum: 7\r\n\r\n",
        "0\n\n",
    ]);
    prop_oneof![
        (0usize..60).prop_map(|length| "y".repeat(length)),
        (chunks, end).prop_map(|(chunks, end)| chunks + end),
    ]
}

fn answer() -> impl Strategy<Value = Vec<u8>> {
    let start = proptest::sample::select(vec![
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200 ",
        "HTTP/1.1 404 Not Found",
        "HTTP/1.1 204 No Content",
        "HTTP/1.1 304 Not Modified",
        "HTTP/1.1 503 Slow",
        "HTTP/1.0 200 OK",
        "HTTP/1.1 101 Switch",
        "HTTP/1.1 099 Low",
        "HTTP/1.1 999 High",
        "HTTP/2.0 200 OK",
        "HTTP/1.1 20 OK",
        "ICY 200 OK",
        "HTTP/1.1 200",
        "HTTP/1.1  200 OK",
    ]);
    let interim = proptest::sample::select(vec![
        "",
        "",
        "",
        "",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
    ]);
    let other = proptest::sample::select(vec![
        "",
        "",
        "X-A: 1\r\nx-a: 2\r\n",
        "Connection: close\r\n",
        "X-Empty:\r\n",
        "X-Fold: a\r\n b\r\n",
        "X Y: 1\r\n",
        "X-Nul: a\0b\r\n",
        "X-Obs: \u{e9}\r\n",
        "Date: now\n",
        ": none\r\n",
    ]);
    let noise = proptest::option::weighted(0.2, (any::<usize>(), any::<u8>()));
    (interim, start, framing(), other, body(), noise).prop_map(
        |(interim, start, framing, other, body, noise)| {
            let mut bytes = format!("{interim}{start}\r\n{other}{framing}\r\n{body}").into_bytes();
            if let Some((at, byte)) = noise {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// hyper's client is the yardstick: what is accepted here, hyper accepts, and reads the same.
    #[test]
    fn whatever_is_accepted_is_read_as_hyper_reads_it(
        answer in answer(),
        cuts in proptest::collection::vec(any::<usize>(), 0..4),
        is_head in proptest::bool::weighted(0.1),
    ) {
        let method = if is_head { Method::HEAD } else { Method::GET };
        let (ours, hyper) = both_cut(&method, &answer, &cuts);
        let wrong = disagreement(ours.as_ref(), hyper.as_ref());
        let shown = String::from_utf8_lossy(&answer);
        prop_assert!(wrong.is_none(), "{wrong:?}: {shown:?}: {ours:?} {hyper:?}");
    }

    /// Nothing that a server of Go's sends is refused.
    #[test]
    fn an_answer_as_mimir_writes_it_is_read_whole(
        pieces in proptest::collection::vec("[a-z]{1,50}", 0..5),
        is_chunked: bool,
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
        status in 200u16..600,
    ) {
        let body = pieces.concat();
        let is_chunked = is_chunked && ![204, 304].contains(&status);
        let (framing, sent) = if is_chunked {
            let chunk = |piece: &String| format!("{:x}\r\n{piece}\r\n", piece.len());
            let chunks: String = pieces.iter().map(chunk).collect();
            ("Transfer-Encoding: chunked".to_owned(), format!("{chunks}0\r\n\r\n"))
        } else {
            (format!("Content-Length: {}", body.len()), body.clone())
        };
        let body = if [204, 304].contains(&status) { String::new() } else { body };
        let sent = if body.is_empty() && !is_chunked { String::new() } else { sent };
        let answer = format!(
            "HTTP/1.1 {status} Any Text\r\nContent-Type: application/json\r\nVary: Origin\r\n\
             Date: Thu, 26 Nov 2026 10:00:00 GMT\r\n{framing}\r\n\r\n{sent}"
        );
        let (ours, hyper) = both_cut(&Method::GET, answer.as_bytes(), &cuts);
        let ours = ours.expect("an answer");
        prop_assert!(ours.is_whole);
        prop_assert_eq!(&ours.body, body.as_bytes());
        prop_assert_eq!(Some(ours), hyper);
    }
}

// An answer whose end could be seen in two ways.
#[test]
fn an_ambiguous_answer_is_none() {
    for framing in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: +5\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let mut input = format!("HTTP/1.1 200 OK\r\n{framing}\r\n").as_str().into();
        assert!(take_head(&mut input, &Method::GET, &mut 0, &mut Vec::new()).is_err(), "{framing}");
    }
}

// Seen: with a line feed of its own behind a trailer, hyper's client refuses what ours took.
#[test]
fn every_line_of_a_chunked_body_ends_with_both_characters() {
    let read = |body: &str| {
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let (ours, hyper) = both_cut(&Method::GET, answer.as_bytes(), &[]);
        assert_eq!(disagreement(ours.as_ref(), hyper.as_ref()), None, "{body:?}");
        ours.is_some_and(|read| read.is_whole)
    };
    assert!(read("2;a=b\r\nok\r\n0\r\nX-Sum: 7\r\nx-other:\r\n\r\n"));
    for body in [
        "2\nok\r\n0\r\n\r\n",
        "2;a\nok\r\n0\r\n\r\n",
        "2\r\nok\n0\r\n\r\n",
        "2\r\nok\r\n0\n\r\n",
        "2\r\nok\r\n0\r\n\n",
        "2\r\nok\r\n0\r\nX-Sum: 7 \nx-other:\r\n\r\n",
        "2\r\nok\r\n0\r\nX-Sum: 7\r\nx-other:\n\r\n",
        "2\r\nok\r\n0\r\nX-Sum: 7\n\n",
        "2\r\nok\r\n0\r\nX-Sum: 7\r\n\n",
        "2\r\nok\r\n0\r\nX-Sum: 7\r\rx\r\n\r\n",
    ] {
        assert!(!read(body), "{body:?}");
    }
}

// RFC 9110, 15.2: any number may come; Go's client takes five. One that never ends would hold the worker.
#[test]
fn interim_answers_are_skipped_up_to_a_bound() {
    let read = |interim: usize, cuts: &[usize]| {
        let answer = "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n".repeat(interim)
            + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        both_cut(&Method::GET, answer.as_bytes(), cuts).0
    };
    for cuts in [&[][..], &[100], &[3, 40, 90]] {
        assert!(read(5, cuts).is_some_and(|read| read.is_whole));
        assert!(read(6, cuts).is_none());
    }
}

// RFC 9110, 2.5: the client gets our version. It took an HTTP/1.0 answer's for one to close its connection after.
#[test]
fn an_answers_version_stays_with_its_instance() {
    let mut input = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok".into();
    let head = take_head(&mut input, &Method::GET, &mut 0, &mut Vec::new()).unwrap().unwrap();
    assert_eq!((head.response.version(), head.keeps), (http::Version::HTTP_11, false));
}

async fn answered(answer: &[u8]) -> bool {
    let mut wire = Wire::new(instance(vec![answer.to_vec()]), &Arc::default());
    let write = |out: &mut Vec<u8>| out.extend_from_slice(b"GET / HTTP/1.1\r\n");
    wire.begin(&Method::GET, write, RequestBody::empty(), Vec::new);
    poll_fn(|cx| wire.poll_answer(cx)).await.unwrap();
    while let Some(frame) = poll_fn(|cx| wire.poll_body(cx)).await {
        frame.unwrap();
    }
    wire.is_reusable()
}

#[tokio::test]
async fn a_connection_is_kept_only_if_its_answer_has_ended_for_certain() {
    assert!(answered(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await);
    assert!(answered(b"HTTP/1.1 204 No Content\r\n\r\n").await);
    assert!(
        answered(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
            .await
    );
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!",
        "HTTP/1.1 200 OK\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nConnection: Keep-Alive, Close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ] {
        assert!(!answered(answer.as_bytes()).await, "{answer}");
    }
}

/// A socket whose writes fail, at once or after the first was to wait.
struct Failing {
    waits: bool,
}

impl AsyncRead for Failing {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}

impl AsyncWrite for Failing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        _: &[u8],
    ) -> Poll<io::Result<usize>> {
        if std::mem::take(&mut self.waits) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn limits() -> BodyLimits {
    let minute = Duration::from_secs(60);
    BodyLimits { bytes: 1500, idle: minute, total: minute }
}

/// What can be sent again after a first write that failed: none, or so many bytes.
fn unsent(body: &'static [u8], is_tls: bool) -> Option<u64> {
    let mut wire = Wire::new(Failing { waits: false }, &Arc::default()).over_tls(is_tls);
    let write = |out: &mut Vec<u8>| out.extend_from_slice(b"POST / HTTP/1.1\r\n");
    let body = match body {
        b"" => RequestBody::empty(),
        body => RequestBody::replaced(Bytes::from_static(body), limits()),
    };
    wire.begin(&Method::POST, write, body, Vec::new);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(wire.poll_answer(&mut cx), Poll::Ready(Err(_))));
    wire.take_unsent().and_then(|body| body.size_hint().exact())
}

// A body of one piece was taken before the first write. When that failed, the request went to another instance without
// its body: Mimir refuses an empty push, and takes an empty OTLP request for a good one.
#[test]
fn a_request_whose_body_was_taken_is_not_sent_again_without_it() {
    assert_eq!(unsent(b"samples", false), None);
    assert_eq!(unsent(b"", false), Some(0));
    // What TLS has sent of its records when it fails is not known.
    assert_eq!((unsent(b"samples", true), unsent(b"", true)), (None, None));
}

#[tokio::test]
async fn a_body_that_was_taken_before_its_write_could_begin_is_no_unsent_one() {
    let mut wire = Wire::new(Failing { waits: true }, &Arc::default());
    let write = |out: &mut Vec<u8>| out.extend_from_slice(b"POST / HTTP/1.1\r\n");
    let body = RequestBody::replaced(Bytes::from_static(b"samples"), limits());
    wire.begin(&Method::POST, write, body, Vec::new);
    assert!(poll_fn(|cx| wire.poll_answer(cx)).await.is_err());
    assert!(wire.take_unsent().is_none());
}

// RFC 9112, 9.2 (security considerations: response smuggling): an unsolicited response belongs to no
// request. The runtime has not been told of these bytes: nothing is awaited before the question.
#[tokio::test]
async fn a_connection_with_an_unsolicited_answer_takes_no_request() {
    use std::io::Write as _;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut instance, _) = listener.accept().unwrap();
    let mut wire = Wire::new(Socket::Plain(socket), &Arc::default());
    assert_eq!(wire.is_quiet(), Quiet::Yes);
    instance.write_all(b"x").unwrap();
    assert_eq!(wire.is_quiet(), Quiet::Unsolicited);
    let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (instance, _) = listener.accept().unwrap();
    drop(instance);
    assert_eq!(Wire::new(Socket::Plain(socket), &Arc::default()).is_quiet(), Quiet::Closed);
}

/// A body whose owners can be counted.
struct Counted(Arc<Vec<u8>>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

// hyper reads into the same memory again when nobody has the piece before. A connection without a request had its last
// one, so each push took new memory, and what rested kept it.
#[tokio::test]
async fn a_piece_that_was_sent_is_let_go_of() {
    let bytes = Arc::new(b"samples\r\n\r\n".to_vec());
    let mut wire =
        Wire::new(instance(vec![b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()]), &Arc::default());
    let write = |out: &mut Vec<u8>| out.extend_from_slice(b"POST / HTTP/1.1\r\n");
    let body = Bytes::from_owner(Counted(Arc::clone(&bytes)));
    wire.begin(&Method::POST, write, RequestBody::replaced(body, limits()), Vec::new);
    poll_fn(|cx| wire.poll_answer(cx)).await.unwrap();
    assert!(wire.is_reusable());
    assert_eq!(Arc::strong_count(&bytes), 1);
}
