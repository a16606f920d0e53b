//! What single decisions on a request's way cost: `cargo bench`. The whole way, side by side with
//! others, is `loadtest/compare`.

#![expect(clippy::expect_used, reason = "a benchmark that cannot start should say why")]

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use harness::{Issuer, ORG_A};
use http::{HeaderMap, Method};
use mimir_tenant_proxy::authn::{Authenticator, KeySource, Tables};
use mimir_tenant_proxy::authz::Authorizer;
use mimir_tenant_proxy::clock::Clock;
use mimir_tenant_proxy::config::{Config, Environment};
use mimir_tenant_proxy::route::find_path;
use mimir_tenant_proxy::telemetry::{MetricNames, Metrics};
use mimir_tenant_proxy::tenancy::Scope;
use tokio_util::sync::CancellationToken;

fn bearer(token: &str) -> HeaderMap {
    [(http::header::AUTHORIZATION, format!("Bearer {token}").parse().expect("a header"))]
        .into_iter()
        .collect()
}

fn decisions(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("runtime");
    let issuer = runtime.block_on(Issuer::start());
    let text = format!(
        "auth.issuer = {:?}\nupstream.urls = [\"http://127.0.0.1:1\"]\nauth.token_cache_bytes = \"1MiB\"\n",
        issuer.url()
    );
    let config = Config::read(&text, &Environment::default()).expect("config");
    let metrics = Arc::new(Metrics::register(&MetricNames::default()));
    let keys = Arc::new(KeySource::new(config.auth.key_set.clone(), Arc::clone(&metrics)));
    let (tables, clock) = (Tables::default(), Clock::system());
    let authenticator = Authenticator::new(&config.auth, Arc::clone(&keys), tables, clock, metrics);
    let authorizer = Authorizer::new(config.tenancy, None);
    let client = IpAddr::from([127, 0, 0, 1]);
    runtime.spawn(async move { keys.run(reqwest::Client::new(), CancellationToken::new()).await });

    criterion.bench_function("route: the last of the table", |bench| {
        bench.iter(|| {
            find_path(black_box(&Method::POST), black_box("/api/v1/push/influx/write"), None)
                .is_ok()
        });
    });
    let known = bearer(&issuer.user_of(ORG_A));
    let caller = runtime.block_on(authenticator.authenticate(&known, client)).expect("a principal");
    criterion.bench_function("authn: a token in the cache", |bench| {
        bench.iter(|| {
            runtime.block_on(authenticator.authenticate(black_box(&known), client)).is_ok()
        });
    });
    // Far more tokens than the smallest cache holds, in turn.
    let tokens: Vec<HeaderMap> = (0..20_000).map(|_| bearer(&issuer.user_of(ORG_A))).collect();
    let mut fresh = tokens.iter().cycle();
    criterion.bench_function("authn: an ES256 token that has to be verified", |bench| {
        bench.iter(|| {
            runtime
                .block_on(authenticator.authenticate(fresh.next().expect("endless"), client))
                .is_ok()
        });
    });
    let route = find_path(&Method::GET, "/prometheus/api/v1/query", None).expect("a route");
    criterion.bench_function("authz: a grant", |bench| {
        bench.iter(|| {
            let grant = authorizer.authorize(
                black_box(&caller.principal),
                route,
                Scope::MetricsRead,
                black_box(&known),
            );
            runtime.block_on(grant).is_ok()
        });
    });
}

criterion_group!(benches, decisions);
criterion_main!(benches);
