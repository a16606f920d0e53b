use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::config::Secret;

#[test]
fn the_address_asks_for_passing_instances_and_waits_for_a_change() {
    let config = ConsulConfig {
        url: Url::parse("https://consul.example.com:8501/prefix/").unwrap(),
        service: "mimir/1".to_owned(),
        tag: Some("http".to_owned()),
        token: Secret::default(),
        tls: None,
    };
    let catalogue = Catalogue::new(config).unwrap();
    let base = "https://consul.example.com:8501/prefix/v1/health/service/mimir%2F1?passing=true&stale=&tag=http";
    assert_eq!(catalogue.address(None).as_str(), base);
    let after = Some((7, WAIT));
    assert_eq!(catalogue.address(after).as_str(), format!("{base}&index=7&wait=60s"));
}

#[test]
fn an_entry_has_the_address_of_its_service_or_else_of_its_node() {
    let text = r#"[{"Node":{"Address":"10.0.0.1","ID":"x"},"Service":{"Address":"","Port":8080,"Tags":[]},"Checks":[]}]"#;
    let entries: Vec<Entry> = serde_json::from_str(text).unwrap();
    let names: Vec<Name> = entries.into_iter().map(Entry::name).collect();
    assert_eq!(names, [("10.0.0.1".to_owned(), 8080)]);
}

fn at(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], port))
}

/// Names with the port 8080; those without addresses could not be resolved.
fn listing(names: &[(&str, &[u8])]) -> Listing {
    let found = |addresses: &[u8]| {
        let addresses: Vec<_> = addresses.iter().map(|host| at(*host, 8080)).collect();
        if addresses.is_empty() { Err("try again".to_owned()) } else { Ok(addresses) }
    };
    let names = names.iter().map(|(name, hosts)| (((*name).to_owned(), 8080), found(hosts)));
    Listing { names: names.collect(), index: None }
}

fn update(names: &mut Names, found: Listing) -> Vec<SocketAddr> {
    names.update(found, Instant::now()).into_iter().map(|(address, _)| address).collect()
}

// Without this, a name server that fails for a moment takes healthy instances out for a minute.
#[test]
fn a_name_that_is_not_resolved_keeps_its_addresses() {
    let names = &mut Names::default();
    let update = |names: &mut Names, found: &[(&str, &[u8])]| -> Vec<u8> {
        let all = update(names, listing(found));
        (0..9).filter(|host| all.contains(&at(*host, 8080))).collect()
    };
    assert_eq!(update(names, &[("a", &[1]), ("b", &[2, 3]), ("c", &[4])]), [1, 2, 3, 4]);
    // The others change meanwhile.
    assert_eq!(update(names, &[("a", &[5]), ("b", &[]), ("d", &[6])]), [2, 3, 5, 6]);
    assert_eq!(update(names, &[("a", &[]), ("b", &[]), ("d", &[])]), [2, 3, 5, 6]);
    // An empty list is a failed one: it changes nothing.
    assert_eq!(update(names, &[]), [0_u8; 0]);
    assert_eq!(update(names, &[("a", &[]), ("b", &[7])]), [5, 7]);
    // What is no longer in the catalogue is forgotten.
    assert_eq!(update(names, &[("b", &[7])]), [7]);
    assert_eq!(update(names, &[("a", &[]), ("b", &[7])]), [7]);
}

#[test]
fn a_name_that_never_resolves_holds_up_no_other() {
    let names = &mut Names::default();
    for host in 1..9 {
        let found = listing(&[("stale", &[]), ("good", &[host])]);
        assert!(!found.is_whole());
        assert_eq!((update(names, found), names.has_kept()), (vec![at(host, 8080)], false));
    }
}

// Another service may have the address by now, and must not get what is meant for Mimir.
#[test]
fn a_name_that_stays_unresolved_loses_its_addresses() {
    let (mut names, began) = (Names::default(), Instant::now());
    let found = listing(&[("a", &[1]), ("b", &[2])]);
    assert_eq!(names.update(found, began).len(), 2);
    for (later, count) in [(KEPT_FOR / 2, 2), (KEPT_FOR, 1), (KEPT_FOR * 2, 1)] {
        let found = listing(&[("a", &[1]), ("b", &[])]);
        assert_eq!(names.update(found, began + later).len(), count, "{later:?}");
        assert_eq!(names.has_kept(), count == 2);
    }
}

// A host name with a NUL cannot be asked for, so no name server is needed.
#[tokio::test]
async fn a_name_that_fails_does_not_take_the_others_with_it() {
    let names = ["nowhere\0", "127.0.0.1", "::1"].map(|host| (host.to_owned(), 8080));
    let found = look_up(names.into()).await;
    let resolved: Vec<_> = found.values().filter_map(|found| found.as_ref().ok()).collect();
    assert_eq!((found.len(), resolved.len()), (3, 2));
}

/// A Consul that gives one answer to all.
pub(in crate::forward) async fn one_answer(headers: &str, entries: &str) -> ConsulConfig {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let answer = format!(
        "HTTP/1.1 200 OK\r\n{headers}connection: close\r\ncontent-length: {}\r\n\r\n{entries}",
        entries.len()
    );
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.read(&mut [0; 4096]).await;
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    ConsulConfig {
        url,
        service: "mimir".to_owned(),
        tag: None,
        token: Secret::default(),
        tls: None,
    }
}

const TWO: &str = r#"[
    {"Node":{"Address":"127.0.0.1"},"Service":{"Address":"","Port":8080}},
    {"Node":{"Address":"127.0.0.1"},"Service":{"Address":"nowhere\u0000","Port":8080}}
]"#;

// With a token that may not read all nodes, the instances on the others are missing, silently.
#[tokio::test]
async fn a_list_from_which_the_token_hides_instances_is_used_and_known() {
    let partial = one_answer("X-Consul-Results-Filtered-By-ACLs: true\r\n", TWO).await;
    assert_eq!(read_catalogue(partial).await.unwrap().len(), 1);
    for (value, hides) in [("true", true), ("True", true), ("false", false)] {
        let name = http::HeaderName::from_static("x-consul-results-filtered-by-acls");
        let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
        assert_eq!(is_filtered(&headers), hides, "{value}");
    }
    assert!(!is_filtered(&HeaderMap::new()));
}
