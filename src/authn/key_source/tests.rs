use jsonwebtoken::Algorithm;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::clock::suspend;

const COOL_DOWN: Duration = Duration::from_millis(50);

fn config(url: &str) -> KeySetConfig {
    KeySetConfig {
        url: url.parse().unwrap(),
        refresh_interval: Duration::from_secs(300),
        max_age: Duration::from_secs(3600),
        cool_down: COOL_DOWN,
        fetch_timeout: Duration::from_secs(30),
    }
}

fn idle() -> KeySource {
    KeySource::new(Some(config("http://127.0.0.1:1")), Arc::new(Metrics::register()))
}

/// A set of these keys. The key is that of RFC 7517, A.1.
fn set_of(ids: &[&str]) -> String {
    let key = |id: &&str| {
        serde_json::json!({
            "kty": "EC", "crv": "P-256", "kid": id, "alg": "ES256",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
        })
    };
    serde_json::json!({ "keys": ids.iter().map(key).collect::<Vec<_>>() }).to_string()
}

/// The same as an answer, with more header lines.
fn answer(lines: &str, ids: &[&str]) -> String {
    let set = set_of(ids);
    let length = set.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n{lines}\r\n{set}")
}

/// The keys of an issuer that gives one answer after the other; none: it hangs. Nothing is fetched yet.
async fn source_of(answers: Vec<Option<String>>) -> Arc<KeySource> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut hanging = Vec::new();
        for answer in answers {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.read(&mut [0; 4096]).await;
            match answer {
                Some(answer) => socket.write_all(answer.as_bytes()).await.unwrap(),
                None => hanging.push(socket),
            }
        }
        // A further request hangs as well.
        std::future::pending::<()>().await;
    });
    Arc::new(KeySource::new(Some(config(&url)), Arc::new(Metrics::register())))
}

/// The same, and the first answer has come.
async fn fetched_from(answers: Vec<Option<String>>) -> Arc<KeySource> {
    let source = source_of(answers).await;
    let running = Arc::clone(&source);
    tokio::spawn(async move {
        let client = http_client::internal().build().unwrap();
        running.run(client, CancellationToken::new()).await;
    });
    while source.state().keys == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    source
}

async fn refusal(source: &KeySource, id: &str) -> Option<Refusal> {
    source.find(id, Named::Known(Algorithm::ES256)).await.err()
}

const TEN_MINUTES_OLD: &str = "Age: 600\r\n";

// Supabase's edge serves an old set for some minutes after a rotation. A sender drops its samples on a 401.
#[tokio::test]
async fn a_key_that_an_old_copy_lacks_is_no_fault_of_its_token() {
    let old = answer(TEN_MINUTES_OLD, &["a"]);
    let source = fetched_from([old.clone(), old, answer("", &["a", "b"])].map(Some).into()).await;
    let refused = refusal(&source, "b").await;
    assert!(matches!(refused, Some(Refusal::KeyPending { .. })), "{refused:?}");
    sleep(2 * COOL_DOWN).await;
    assert_eq!(refusal(&source, "b").await, None);
}

#[tokio::test]
async fn a_key_that_a_new_copy_lacks_is_absent() {
    let old = answer(TEN_MINUTES_OLD, &["a"]);
    let source =
        fetched_from([old.clone(), old, answer("Age: 0\r\n", &["a"])].map(Some).into()).await;
    let refused = refusal(&source, "made-up").await;
    assert!(matches!(refused, Some(Refusal::KeyPending { .. })), "{refused:?}");
    sleep(2 * COOL_DOWN).await;
    let absent = Some(Refusal::Token(TokenFault::UnknownKey));
    assert_eq!(refusal(&source, "made-up").await, absent);
    // A fourth fetch would hang.
    sleep(2 * COOL_DOWN).await;
    assert_eq!(refusal(&source, "made-up").await, absent);
}

/// One more attempt, at a time of the test's choice.
async fn fetch_again(source: &KeySource) -> bool {
    let client = http_client::internal().build().unwrap();
    source.attempt(source.config.as_ref().unwrap(), &client, Cause::Schedule).await
}

const ABSENT: Option<Refusal> = Some(Refusal::Token(TokenFault::UnknownKey));

// Two edges of one CDN have copies of different ages. A 401 that becomes a 503 is repeated for ever.
#[tokio::test]
async fn what_was_proved_absent_stays_absent() {
    let new = answer("Age: 0\r\n", &["a"]);
    let answers = [new.clone(), new, answer(TEN_MINUTES_OLD, &["a"]), "nothing".to_owned()];
    let source = fetched_from(answers.map(Some).into()).await;
    assert_eq!(refusal(&source, "made-up").await, ABSENT);
    assert!(fetch_again(&source).await);
    assert_eq!(refusal(&source, "made-up").await, ABSENT, "an older copy");
    assert!(!fetch_again(&source).await);
    assert_eq!(refusal(&source, "made-up").await, ABSENT, "none");
    let mut config = source.config.clone().unwrap();
    config.max_age *= 2;
    let reloaded = KeySource::after(&source, Some(config));
    assert_eq!(refusal(&reloaded, "made-up").await, ABSENT, "a reload");
}

// An edge with an older copy takes no new key away, and brings no removed one back.
#[tokio::test]
async fn an_older_copy_is_not_adopted() {
    let old = answer(TEN_MINUTES_OLD, &["a"]);
    let answers = [answer("", &["a"]), answer("", &["b"]), old.clone(), old, answer("", &["b"])];
    let source = fetched_from(answers.map(Some).into()).await;
    assert_eq!(refusal(&source, "b").await, None);
    assert!(fetch_again(&source).await);
    assert_eq!(refusal(&source, "b").await, None);
    let removed = refusal(&source, "a").await;
    assert!(matches!(removed, Some(Refusal::KeyPending { .. })), "{removed:?}");
}

/// Lets time pass. It goes on by itself afterwards: there is a network.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

const MINUTE: Duration = Duration::from_secs(60);
const TWO_HOURS_OLD: &str = "Age: 7200\r\n";

// The issuer has withdrawn a key and is away; a cache has the set of before. However long that lasts, the withdrawn
// key does not come back, and the current one stays.
#[tokio::test]
async fn an_older_copy_is_not_adopted_later_either() {
    let old = answer(TWO_HOURS_OLD, &["a"]);
    let later = answer("Age: 1500\r\n", &["a", "b", "c"]);
    let source = source_of([answer("", &["b"]), old.clone(), old, later].map(Some).into()).await;
    assert!(fetch_again(&source).await);
    for minutes in [10, 25] {
        pass(MINUTE * minutes).await;
        assert!(fetch_again(&source).await);
        assert_eq!(refusal(&source, "b").await, None);
        assert_eq!(source.report().keys.len(), 1);
    }
    // One from after what is known is adopted, whatever its age.
    assert!(fetch_again(&source).await);
    assert_eq!(source.report().keys.len(), 3);
}

// A cache that has a set with keys does not say that the issuer has none.
#[tokio::test]
async fn an_older_copy_does_not_confirm_that_a_set_is_empty() {
    let old = answer(TWO_HOURS_OLD, &["a"]);
    let answers = [answer("", &["a"]), answer("", &[]), old, answer("", &[])];
    let source = source_of(answers.map(Some).into()).await;
    let config = source.config.as_ref().unwrap();
    for _ in 0..2 {
        assert!(fetch_again(&source).await);
    }
    let seen = Instant::now();
    pass(MINUTE * 30).await;
    assert!(fetch_again(&source).await);
    assert_eq!(source.absence(config, "b", seen), KeySource::unavailable(config));
    assert!(fetch_again(&source).await);
    assert_eq!(Some(source.absence(config, "b", seen)), ABSENT);
}

const TOO_LARGE: &str = "99999999999999999999";

#[tokio::test]
async fn a_made_up_key_is_absent_in_the_end_whatever_a_cache_says() {
    for age in [TWO_HOURS_OLD.to_owned(), format!("Age: {TOO_LARGE}\r\n")] {
        let answers = [answer("", &["a"]), answer(&age, &["a"]), answer(&age, &["a"])];
        let source = source_of(answers.map(Some).into()).await;
        assert!(fetch_again(&source).await);
        let seen = Instant::now();
        for (after, is_absent) in [(19, false), (2, true)] {
            pass(MINUTE * after).await;
            assert!(fetch_again(&source).await);
            assert_eq!(source.state.load().proves_absent(seen), is_absent, "{after}");
        }
    }
    // Until then, and for a while after, it is remembered when it was first seen.
    assert_eq!(UNKNOWN_FOR, 3 * OLDEST_COPY);
}

// One such copy is all that there is.
#[tokio::test]
async fn an_age_without_bounds_breaks_nothing() {
    for value in [TOO_LARGE, "18446744073709551615", "9223372036854775807", "2147483648"] {
        let old = answer(&format!("Age: {value}\r\n"), &["a"]);
        let source = source_of([old.clone(), old, answer("", &["a"])].map(Some).into()).await;
        for _ in 0..2 {
            assert!(fetch_again(&source).await);
            assert_eq!((source.state().keys, source.is_trusted()), (1, true), "{value}");
        }
        assert!(fetch_again(&source).await);
        assert_eq!(refusal(&source, "a").await, None);
    }
}

#[test]
fn an_age_that_cannot_be_read_says_nothing() {
    let age = |values: &[&str]| {
        let lines = values.iter().map(|value| (header::AGE, value.parse().unwrap()));
        age_of(&lines.collect()).as_secs()
    };
    assert_eq!(age(&[]), 0);
    for value in ["", "x", "-1", "+1", "1.5", "1 2", ", 5", "0"] {
        assert_eq!(age(&[value]), 0, "{value:?}");
    }
    assert_eq!(age(&["600"]), 600);
    assert_eq!((age(&["7, 600"]), age(&["7", "600"])), (7, 7));
    assert_eq!((age(&["1200"]), age(&["1201"])), (1200, 1201));
    let largest = LARGEST_AGE.as_secs();
    assert_eq!((age(&["2147483649"]), age(&[TOO_LARGE])), (largest, largest));
}

// `Instant` stands still while the machine is suspended: keys of before were used for `jwks_max_age` more.
#[tokio::test]
async fn a_set_of_before_a_suspension_is_as_old_as_it_is() {
    let answers = [answer("", &["a"]), answer("", &["b"])];
    let source = fetched_from(answers.map(Some).into()).await;
    suspend(MINUTE * 59);
    assert_eq!(refusal(&source, "a").await, None);
    suspend(MINUTE * 2);
    let unavailable = KeySource::unavailable(source.config.as_ref().unwrap());
    assert_eq!(refusal(&source, "a").await, Some(unavailable));
    assert!(!source.is_trusted());
    // It is fetched without being asked for.
    while source.report().keys.iter().all(|(id, _)| id != "b") {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(refusal(&source, "b").await, None);
}

// A key that was absent before, and has been in use since the machine was suspended: its token got a 401.
#[tokio::test]
async fn what_was_absent_before_a_suspension_is_looked_for_again() {
    let answers = [answer("", &["a"]), answer("", &["a"]), answer("", &["a", "b"])];
    let source = fetched_from(answers.map(Some).into()).await;
    assert_eq!(refusal(&source, "b").await, ABSENT);
    assert_eq!(refusal(&source, "b").await, ABSENT);
    suspend(MINUTE * 2);
    assert_eq!(refusal(&source, "b").await, None);
}

// One forgotten device with an old token.
#[tokio::test]
async fn an_absent_key_is_looked_for_again_after_a_minute() {
    let (source, now) = (idle(), Instant::now());
    let one_key = set_of(&["a"]);
    let ago = |time| now.checked_sub(time).unwrap();
    for (began, is_wanted) in [(now, false), (ago(ABSENT_FOR), true)] {
        source.state.store(Arc::new(State {
            keys: Arc::new(KeySet::parse(one_key.as_bytes()).unwrap()),
            last_attempt: Some(Attempt { began, succeeded: true }),
            newest: Some(began),
            proved: Some(began),
            cooling_until: Some(now + ABSENT_FOR),
            ..State::default()
        }));
        let config = source.config.as_ref().unwrap();
        source.request_fetch(config, ago(2 * ABSENT_FOR)).await;
        assert_eq!(source.is_wanted(), is_wanted);
    }
}

// While a fetch hangs, unknown keys would take the places of callers who wait for the database.
#[tokio::test]
async fn only_so_many_requests_wait_for_a_fetch() {
    const MORE: usize = 50;
    let source = fetched_from(vec![Some(answer("", &["a"])), None]).await;
    let find = |number| {
        let source = Arc::clone(&source);
        tokio::spawn(async move { refusal(&source, &format!("made-up-{number}")).await })
    };
    let (mut waiting, mut refused) = ((0..MOST_WAITING + MORE).map(find).collect(), Vec::new());
    while refused.len() < MORE {
        sleep(Duration::from_millis(5)).await;
        let all: Vec<JoinHandle<_>> = waiting;
        let (done, others): (Vec<_>, _) = all.into_iter().partition(JoinHandle::is_finished);
        refused.extend(done);
        waiting = others;
    }
    for refused in refused {
        let refused = refused.await.unwrap();
        assert!(matches!(refused, Some(Refusal::KeyPending { .. })), "{refused:?}");
    }
    assert_eq!(waiting.len(), MOST_WAITING);
    assert_eq!(refusal(&source, "a").await, None);
    // A client that goes away gives its place back.
    waiting.iter().for_each(JoinHandle::abort);
    sleep(Duration::from_millis(5)).await;
    assert_eq!(source.waiting.available_permits(), MOST_WAITING);
}
