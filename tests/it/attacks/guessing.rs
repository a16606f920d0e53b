//! What can be learned by asking and by measuring how long the answer takes.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use harness::{Upstream, fresh_organisation};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{EVERY_LINE, QUERY};
use crate::support::identity::identity_fixture;
use crate::support::responses::ok;

/// Answers of each kind.
const SAMPLES: usize = 600;

/// How well the times of two kinds can be told apart: the chance that one of the second kind takes longer than
/// one of the first (the area under the curve of Mann and Whitney's test). 0.5 says nothing. Without a
/// difference its standard deviation is 0.017 for 600 of each, so the bound is seven of them; and a difference
/// that reaches it is a third of the spread of the times on loopback.
const INDISTINGUISHABLE: std::ops::Range<f64> = 0.38..0.62;

fn separation(one: &[Duration], other: &[Duration]) -> f64 {
    // In halves: a tie counts for one of them.
    let mut later = 0_u32;
    for first in one {
        for second in other {
            later += match second.cmp(first) {
                Ordering::Greater => 2,
                Ordering::Equal => 1,
                Ordering::Less => 0,
            };
        }
    }
    f64::from(later) / (2.0 * f64::from(u32::try_from(one.len() * other.len()).unwrap()))
}

/// A connection on which requests are timed.
struct Stopwatch(TcpStream);

impl Stopwatch {
    async fn connect(url: &str) -> Self {
        let socket = TcpStream::connect(url.replace("http://", "")).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self(socket)
    }

    /// The time until the answer's head has come, and the answer without what differs from one to the next.
    async fn ask(&mut self, request: &str) -> (Duration, String) {
        let began = Instant::now();
        self.0.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 16 << 10];
        let mut length = self.0.read(&mut answer).await.unwrap();
        let took = began.elapsed();
        // The body may come later than the head.
        while !is_whole(&answer[..length]) {
            let more = self.0.read(&mut answer[length..]).await.unwrap();
            assert!(more > 0, "the connection was ended");
            length += more;
        }
        let text = String::from_utf8_lossy(&answer[..length]).into_owned();
        let lines = text
            .lines()
            .filter(|line| !line.starts_with("x-request-id") && !line.starts_with("date"));
        let told = lines.collect::<Vec<_>>().join("\n");
        // The identifier is in the body, too.
        let id = text.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap_or("-");
        (took, told.replace(id, "ID"))
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = |line: &str| line.strip_prefix("content-length: ")?.parse::<usize>().ok();
    head.lines().find_map(length).is_some_and(|length| body.len() >= length)
}

#[test]
fn a_difference_in_time_would_be_seen() {
    let times =
        |base: u64| (0..600).map(|n| Duration::from_micros(base + n * 7 % 300)).collect::<Vec<_>>();
    assert!(INDISTINGUISHABLE.contains(&separation(&times(100), &times(100))));
    assert!(INDISTINGUISHABLE.contains(&separation(&times(100), &times(110))));
    assert!(!INDISTINGUISHABLE.contains(&separation(&times(100), &times(200))));
}

/// Asks two kinds of requests in turns, in an order that changes, and compares answers and times.
async fn assert_alike(
    url: &str,
    about: &str,
    one: impl Fn(usize) -> String,
    other: impl Fn(usize) -> String,
) {
    let mut watch = Stopwatch::connect(url).await;
    for round in 0..20 {
        watch.ask(&one(round)).await;
        watch.ask(&other(round)).await;
    }
    // A busy machine may be busy with one kind only; three times in a row it is not.
    let mut separations = Vec::new();
    for attempt in 0..3 {
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..SAMPLES {
            let mut turn = [0, 1];
            if fastrand::bool() {
                turn.reverse();
            }
            let mut told = [String::new(), String::new()];
            for kind in turn {
                let number = attempt * SAMPLES + round;
                let request = if kind == 0 { one(number) } else { other(number) };
                let (took, answer) = watch.ask(&request).await;
                times[kind].push(took);
                told[kind] = answer;
            }
            assert_eq!(told[0], told[1], "{about}");
        }
        let separation = separation(&times[0], &times[1]);
        println!("{about}: {separation:.3}");
        if INDISTINGUISHABLE.contains(&separation) {
            return;
        }
        separations.push(separation);
    }
    panic!("{about}: told apart by time, {separations:?}");
}

// Nobody finds out which organisations exist, neither by the answer nor by how long it takes.
#[tokio::test(flavor = "multi_thread")]
async fn guessing_an_organisation_tells_nothing_by_answer_or_time() {
    let upstream = Upstream::start(ok).await;
    let identity = identity_fixture(&upstream.url(), &[EVERY_LINE]).await;
    let (own, others) = (identity.organisation().await, identity.organisation().await);
    let person = identity.member(&own, "editor").await;
    let request = |organisation: &str| {
        format!(
            "GET {QUERY} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nX-Scope-OrgID: {organisation}\r\n\r\n",
            person.token
        )
    };
    let url = identity.proxy.url();
    let existing = |_| request(&others);
    assert_alike(&url, "an organisation that is there", existing, |_| {
        request(&fresh_organisation())
    })
    .await;
    assert_alike(&url, "one name again and again", existing, |_| {
        request("00000000-0000-4000-8000-000000000000")
    })
    .await;
    assert!(upstream.heads().is_empty());
}

// A secret is compared in constant time, and a right beginning tells nothing.
#[tokio::test(flavor = "multi_thread")]
async fn guessing_a_webhooks_secret_tells_nothing_by_answer_or_time() {
    const SECRET: &str = "the-secret-of-the-webhooks-of-these-tests";
    let upstream = Upstream::start(ok).await;
    let quoted = format!("{SECRET:?}");
    let settings = [EVERY_LINE, ("rules.webhook_secret", quoted.as_str())];
    let identity = identity_fixture(&upstream.url(), &settings).await;
    let request = |secret: &str| {
        format!(
            "POST /admin/webhooks/alert-rule HTTP/1.1\r\nHost: x\r\nX-Webhook-Secret: {secret}\r\nContent-Length: 0\r\n\r\n"
        )
    };
    let begun = format!("{}!", &SECRET[..SECRET.len() - 1]);
    let wrong = "!".repeat(SECRET.len());
    assert_alike(
        &identity.proxy.url(),
        "a secret's beginning",
        |_| request(&begun),
        |_| request(&wrong),
    )
    .await;
}
