//! What a client does instead of a handshake, or within one.

use std::io::Write as _;

use harness::hello;

use super::*;

// A handshake has the time of a head, and counts among connections all the while.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stalls_in_the_handshake_is_cut_off() {
    let upstream = Upstream::start(ok).await;
    let fixture = fixture(&upstream.url(), &[("listen.header_timeout", "\"1s\"")]).await;
    let hello = hello(&fixture.authority.client(None, &[]));
    let mut sockets = Vec::new();
    for length in [1, 5, 40, hello.len() - 1, hello.len()] {
        let mut socket = TcpStream::connect(fixture.address()).await.unwrap();
        socket.write_all(&hello[..length]).await.unwrap();
        sockets.push(socket);
    }
    let connections = fixture.inner.proxy.metric("mimir_tenant_proxy_connections").await;
    assert!(connections >= 5.0, "{connections}");
    let began = Instant::now();
    for mut socket in sockets {
        let mut said = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut said)).await;
        assert!(end.is_ok(), "it goes on");
    }
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(fixture.handshakes("timeout").await, 5.0);
    // One byte after the other is slow, not wrong, and does not get more time.
    let mut socket = TcpStream::connect(fixture.address()).await.unwrap();
    let began = Instant::now();
    for byte in hello.iter().cycle() {
        if socket.write_all(&[*byte]).await.is_err() || began.elapsed() > Duration::from_secs(4) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(fixture.ended("handshake").await, 6.0);
}

// One hello, sent again and again, costs its sender nothing, and a worker a key and a signature each time. Who
// comes from elsewhere does not wait for all of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_handshakes_waits_for_itself() {
    let upstream = Upstream::start(ok).await;
    let settings = [("listen.workers", "1"), ("listen.header_timeout", "\"60s\"")];
    let fixture = fixture(&upstream.url(), &settings).await;
    let hello = hello(&fixture.authority.client(None, &[]));
    let (last, most) = hello.split_last().unwrap();
    let flood: Vec<std::net::TcpStream> = (0..1000)
        .map(|_| {
            let mut socket = std::net::TcpStream::connect(fixture.address()).unwrap();
            socket.write_all(most).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        })
        .collect();
    let answered = || flood.iter().filter(|socket| socket.peek(&mut [0]).is_ok()).count();
    wait_until("all are there", Duration::from_secs(20), async || {
        fixture.inner.proxy.metric("mimir_tenant_proxy_connections").await >= 1000.0
    })
    .await;
    for mut socket in &flood {
        socket.write_all(&[*last]).unwrap();
    }
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let socket = socket.connect(fixture.address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(fixture.authority.client(None, &[]));
    let mut stream = connector.connect(name, socket).await.unwrap();
    stream.write_all(fixture.get().as_bytes()).await.unwrap();
    assert_eq!(answer(&mut stream).await, 200);
    let before = answered();
    assert!(before < 500, "{before} of the flood were answered first");
    wait_until("the flood is answered as well", Duration::from_secs(50), async || {
        answered() == 1000
    })
    .await;
}

// A sender with the wrong address keeps its data: it is not told 4xx. Nothing of its request is served.
#[tokio::test(flavor = "multi_thread")]
async fn http_without_tls_is_told_so_and_not_served() {
    let upstream = Upstream::start(ok).await;
    let fixture = fixture(&upstream.url(), &[]).await;
    let answer = fixture.inner.client().get(QUERY).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.text.contains("https://") && answer.header("retry-after") == "60", "{answer:?}");
    let answer = fixture.inner.client().post(PUSH, vec![b'x'; 8 << 10]).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    // HTTP/2 without TLS, and what is nothing at all.
    for bytes in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..],
        &[0; 100],
        b"\x80\x2e\x01",
        b"\r\n\r\n",
    ] {
        let mut socket = TcpStream::connect(fixture.address()).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        let mut said = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut said)).await;
        assert!(end.is_ok(), "it goes on after {bytes:?}");
        assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 503 "), "{said:?}");
    }
    assert_eq!(fixture.handshakes("not_tls").await, 6.0);
    assert!(upstream.heads().is_empty() && fixture.inner.proxy.access_log(PATH).is_empty());
}

// Whatever a client sends instead, it costs one count, no line of the log, and nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn broken_handshakes_are_counted_and_write_no_lines() {
    let upstream = Upstream::start(ok).await;
    let fixture = fixture(&upstream.url(), &[]).await;
    let log = || fixture.inner.proxy.process.log();
    wait_until("it serves", Duration::from_secs(5), async || log().contains("Key set changed"))
        .await;
    let before = log().lines().count();
    let hello = hello(&fixture.authority.client(None, &[]));
    for number in 0..200_usize {
        let mut socket = TcpStream::connect(fixture.address()).await.unwrap();
        let mut bytes = hello.clone();
        match number % 4 {
            // A record of nonsense, one that is too long, a bit that was turned, and a client that leaves.
            0 => bytes[5..40].fill(0xff),
            1 => bytes[3..5].fill(0xff),
            2 => {
                let place = 9 + number % (bytes.len() - 9);
                bytes[place] ^= 1 << (number % 8);
            }
            _ => bytes.truncate(number % bytes.len()),
        }
        let _ = socket.write_all(&bytes).await;
        if number % 2 == 0 {
            let _ = socket.shutdown().await;
            let _ =
                tokio::time::timeout(Duration::from_secs(1), socket.read_to_end(&mut Vec::new()))
                    .await;
        }
    }
    wait_until("all have ended", Duration::from_secs(15), async || {
        fixture.inner.proxy.metric("mimir_tenant_proxy_connections").await < 1.0
    })
    .await;
    assert!(fixture.handshakes("invalid").await >= 50.0);
    assert_eq!(log().lines().count(), before, "{}", log());
    let mut stream = fixture.raw().await;
    stream.write_all(fixture.get().as_bytes()).await.unwrap();
    assert_eq!(answer(&mut stream).await, 200);
}

// Only what both sides offer is spoken.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_agreed_upon_that_is_not_offered() {
    let upstream = Upstream::start(ok).await;
    let fixture = fixture(&upstream.url(), &[("tls.min_version", "\"1.3\"")]).await;
    let refused =
        fixture.connect(&fixture.authority.client(None, &["acme-tls/1"]), "localhost").await;
    assert!(refused.is_err());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let old = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    assert!(fixture.connect(&Arc::new(old), "localhost").await.is_err());
    assert_eq!(fixture.handshakes("no_agreement").await, 2.0);
}

// The deadline of a client that does not read holds beneath the session, by both protocols.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_cut_off() {
    let upstream = Upstream::start(|_| async { Response::new(full("x".repeat(64 * MIB))) }).await;
    let settings = [("listen.write_timeout", "\"1s\"")];
    let fixture = fixture(&upstream.url(), &settings).await;
    let mut stream = fixture.raw().await;
    stream.write_all(fixture.get().as_bytes()).await.unwrap();
    wait_until("it is cut off", Duration::from_secs(10), async || {
        fixture.ended("write_timeout").await == 1.0
    })
    .await;
    let mut said = Vec::new();
    assert!(stream.read_to_end(&mut said).await.is_err(), "it looks whole");
    assert!(said.len() < 64 * MIB);
}

// A balancer's header comes before the handshake, and only from a balancer.
#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_protocol_comes_before_the_handshake() {
    let upstream = Upstream::start(ok).await;
    let from_here = [("listen.proxy_protocol_from", "[\"127.0.0.0/8\"]")];
    for (settings, header, is_served) in [
        (&from_here[..], "PROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\n", true),
        (&from_here[..], "", false),
        (&[][..], "PROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\n", false),
    ] {
        let fixture = fixture(&upstream.url(), settings).await;
        let mut socket = TcpStream::connect(fixture.address()).await.unwrap();
        socket.write_all(header.as_bytes()).await.unwrap();
        let connector = TlsConnector::from(fixture.authority.client(None, &[]));
        let name = ServerName::try_from("localhost").unwrap();
        let Ok(mut stream) = connector.connect(name, socket).await else {
            assert!(!is_served);
            continue;
        };
        stream.write_all(fixture.get().as_bytes()).await.unwrap();
        assert_eq!(answer(&mut stream).await, 200);
        wait_until("it is logged", Duration::from_secs(5), async || {
            fixture.inner.proxy.access_log(PATH).len() == 1
        })
        .await;
        assert_eq!(fixture.inner.proxy.access_log(PATH)[0]["client.ip"], "203.0.113.7");
        assert!(is_served);
    }
}
