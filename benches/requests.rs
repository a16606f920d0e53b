//! What a whole request takes, over loopback through the program as it is built for benches, on one
//! connection: `cargo bench --bench requests`. The time of the upstream and of two round trips is in it, so what
//! says something is the difference to "directly", and to the same bench of another build.

#![expect(clippy::expect_used, reason = "a benchmark that cannot start should say why")]

use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use harness::load::{Connection, address, request};
use harness::{Issuer, ORG_A, ProxyOptions, Upstream};

const QUERY: &str = "/prometheus/api/v1/query?query=up";

fn requests(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime");
    let issuer = runtime.block_on(Issuer::start());
    let upstream = runtime.block_on(Upstream::plain());
    let proxy = runtime.block_on(
        ProxyOptions::new(&issuer.url(), &upstream.url())
            .binary(Path::new(env!("CARGO_BIN_EXE_mimir-tenant-proxy")))
            .start(),
    );
    let caller = format!("Bearer {}", issuer.user_of(ORG_A));
    let loads = [
        ("a read of 1 KiB", request("GET", QUERY, &caller, b"")),
        ("a push of 50 KiB", request("POST", "/api/v1/push", &caller, &vec![b'x'; 50 << 10])),
    ];
    for (name, request) in &loads {
        for (way, url) in [("directly", upstream.url()), ("through the proxy", proxy.url())] {
            let mut connection = Connection::open(address(&url)).expect("a connection");
            criterion.bench_function(&format!("{name}, {way}"), |bench| {
                bench.iter(|| connection.exchange(request).expect("an answer"));
            });
        }
    }
}

criterion_group!(benches, requests);
criterion_main!(benches);
