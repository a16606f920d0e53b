//! From whom a connection comes, if a balancer in front says it.

use std::time::Duration;

use harness::{Upstream, raw_exchange, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::responses::ok;
use crate::support::single::{ProxyFixture, QUERY, proxy_fixture};

const PATH: &str = "/prometheus/api/v1/query";
const FROM_HERE: (&str, &str) = ("listen.proxy_protocol_from", "[\"127.0.0.0/8\"]");

fn version_2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, addresses].concat()
}

async fn exchange(fixture: &ProxyFixture, header: &[u8], more: &str) -> String {
    let get = fixture.head(&format!("GET {QUERY}"), &format!("Connection: close\r\n{more}"));
    raw_exchange(&fixture.proxy.url(), &[header, get.as_bytes()].concat()).await
}

/// The address that the log has of the last request.
async fn logged(fixture: &ProxyFixture, count: usize) -> String {
    wait_until("it is logged", Duration::from_secs(5), async || {
        fixture.proxy.access_log(PATH).len() == count
    })
    .await;
    fixture.proxy.access_log(PATH)[count - 1]["client.ip"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_says_whose_connection_it_is() {
    let upstream = Upstream::start(ok).await;
    let fixture = proxy_fixture(&upstream.url(), &[FROM_HERE]).await;
    let four = [203, 0, 113, 7, 10, 0, 0, 1, 0, 1, 0, 2];
    let with_more = [&four[..], &[3, 0, 4, 1, 2, 3, 4]].concat();
    let six = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[7], &[0; 20]].concat();
    let cases: [(&[u8], &str); 7] = [
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 56324 443\r\n", "203.0.113.7"),
        (b"PROXY TCP6 2001:db8::7 fdaa::1 1 2\r\n", "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (&version_2(0x21, 0x11, &four), "203.0.113.7"),
        (&version_2(0x21, 0x11, &with_more), "203.0.113.7"),
        (&version_2(0x21, 0x21, &six), "2001:db8::7"),
        (&version_2(0x20, 0x00, &[]), "127.0.0.1"),
    ];
    for (number, (header, client)) in cases.into_iter().enumerate() {
        let answer = exchange(&fixture, header, "").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{number}: {answer}");
        assert_eq!(logged(&fixture, number + 1).await, client, "{number}");
    }
    // One byte at a time, and the request in the same piece as the last one.
    let mut socket = TcpStream::connect(fixture.proxy.url().replace("http://", "")).await.unwrap();
    socket.set_nodelay(true).unwrap();
    for byte in version_2(0x21, 0x11, &[198, 51, 100, 9, 10, 0, 0, 1, 0, 1, 0, 2]) {
        socket.write_all(&[byte]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let get = fixture.head(&format!("GET {QUERY}"), "Connection: close\r\n");
    socket.write_all(get.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(logged(&fixture, 8).await, "198.51.100.9");
    // HTTP/2 begins behind it, too.
    let preface = [
        &b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ]
    .concat();
    let answer = raw_exchange(&fixture.proxy.url(), &preface).await;
    assert!(answer.contains("\0\0"), "{answer:?}");
}

// Without its header, a connection from there may be anybody's: its client would have the balancer's
// address, or one that it chose itself.
#[tokio::test(flavor = "multi_thread")]
async fn from_a_balancer_nothing_else_is_taken() {
    let upstream = Upstream::start(ok).await;
    let settings = [FROM_HERE, ("listen.header_timeout", "\"1s\"")];
    let fixture = proxy_fixture(&upstream.url(), &settings).await;
    let far = version_2(0x21, 0x11, &[0; 4000]);
    let headers: [&[u8]; 6] = [
        b"",
        b"PROXY TCP4 203.0.113.7 10.0.0.1 1\r\n",
        b"proxy TCP4 203.0.113.7 10.0.0.1 1 2\r\n",
        b"\r\nPROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\n",
        &version_2(0x22, 0x11, &[0; 12]),
        &far,
    ];
    for header in headers {
        let answer = exchange(&fixture, header, "").await;
        assert_eq!(answer, "", "{:?}", String::from_utf8_lossy(header));
    }
    let ended =
        fixture.proxy.metric("mimir_tenant_proxy_connections_ended_total{reason=\"proxy_header\"}");
    assert!(ended.await >= 6.0);
    // A second header, by a client behind the balancer, is a wrong request.
    let twice = b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\nPROXY TCP4 10.9.9.9 10.0.0.1 1 2\r\n";
    assert!(exchange(&fixture, twice, "").await.starts_with("HTTP/1.1 400 "));
    // One that never ends has the time of a head.
    let mut socket = TcpStream::connect(fixture.proxy.url().replace("http://", "")).await.unwrap();
    socket.write_all(b"PROXY TCP4 203.0.113.7").await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(5), socket.read(&mut [0; 8])).await;
    assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");
    assert!(fixture.proxy.access_log(PATH).is_empty());
}

// The default, and every address that is not named.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_chooses_an_address() {
    let upstream = Upstream::start(ok).await;
    for network in ["[]", "[\"10.0.0.0/8\", \"::1\"]"] {
        let settings = [
            ("listen.proxy_protocol_from", network),
            ("listen.client_ip_header", "\"x-client\""),
            ("listen.client_ip_header_from", "[\"10.0.0.0/8\"]"),
        ];
        let fixture = proxy_fixture(&upstream.url(), &settings).await;
        for header in [
            b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\n".to_vec(),
            version_2(0x21, 0x11, &[203, 0, 113, 7, 10, 0, 0, 1, 0, 1, 0, 2]),
        ] {
            let answer = exchange(&fixture, &header, "").await;
            assert!(!answer.contains(" 200 "), "{network}: {answer}");
        }
        let answer = exchange(&fixture, b"", "X-Client: 203.0.113.7\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(logged(&fixture, 1).await, "127.0.0.1");
    }
    let settings = [
        ("listen.client_ip_header", "\"x-client\""),
        ("listen.client_ip_header_from", "[\"127.0.0.1\"]"),
    ];
    let fixture = proxy_fixture(&upstream.url(), &settings).await;
    exchange(&fixture, b"", "X-Client: 203.0.113.7\r\n").await;
    assert_eq!(logged(&fixture, 1).await, "203.0.113.7");
}
