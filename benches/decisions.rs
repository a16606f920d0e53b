//! What the stages on a request's way cost, in their order, and what a sync of rules decides: `cargo
//! bench --bench decisions`. `requests` has the whole way, and `loadtest/compare` has it beside others.

#![expect(clippy::expect_used, reason = "a benchmark that cannot start should say why")]

use std::hint::black_box;
use std::io::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use harness::{Issuer, ORG_A};
use http::{HeaderMap, Method, Request};
use mimir_tenant_proxy::authn::{Authenticator, KeySource, Tables};
use mimir_tenant_proxy::authz::Authorizer;
use mimir_tenant_proxy::clock::Clock;
use mimir_tenant_proxy::config::{Config, Environment};
use mimir_tenant_proxy::edge::RequestId;
use mimir_tenant_proxy::limits::Limits;
use mimir_tenant_proxy::mimir::otlp::{OtlpLimits, OtlpScanner};
use mimir_tenant_proxy::mimir::ruler::RulerLimits;
use mimir_tenant_proxy::mimir::ruler::{RuleGroup, StoredGroup, StoredRule};
use mimir_tenant_proxy::record::{Outlets, Record, RequestOutcome};
use mimir_tenant_proxy::refusals::Refusals;
use mimir_tenant_proxy::route::find_path;
use mimir_tenant_proxy::rules::plan::desired::{DesiredGroup, desired};
use mimir_tenant_proxy::rules::plan::diff::{diff, steps};
use mimir_tenant_proxy::rules::spec::alert_rule::{Parsed, RuleDefaults, parse};
use mimir_tenant_proxy::store::{AlertRuleRow, Excess};
use mimir_tenant_proxy::telemetry::Metrics;
use mimir_tenant_proxy::tenancy::{OrganisationId, Scope};
use mimir_tenant_proxy::trace::Span;
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
    let metrics = Arc::new(Metrics::register());
    let keys = Arc::new(KeySource::new(config.auth.key_set.clone(), Arc::clone(&metrics)));
    let (tables, clock) = (Tables::default(), Clock::system());
    let authenticator = Authenticator::new(
        &config.auth,
        Arc::clone(&keys),
        tables,
        clock.clone(),
        Arc::clone(&metrics),
    );
    let limits = Limits::new(
        config.limits.organisations.clone(),
        config.limits.memory,
        || usize::from(u16::MAX),
        Arc::clone(&metrics),
    );
    // Without the line in the log, whose sink is standard output.
    let refusals = Arc::new(Refusals::default());
    let outlets = Arc::new(Outlets { log: None, metrics, refusals, clock });
    let authorizer = Authorizer::new(config.tenancy, config.auth.admin_required_aal, None);
    let client = IpAddr::from([127, 0, 0, 1]);
    runtime.spawn(async move { keys.run(reqwest::Client::new(), CancellationToken::new()).await });

    let headers = HeaderMap::new();
    criterion.bench_function("edge: an identifier for a request", |bench| {
        bench.iter(|| RequestId::of(black_box(&headers)));
    });
    criterion.bench_function("route: the last of the table", |bench| {
        bench.iter(|| {
            find_path(black_box(&Method::POST), black_box("/api/v1/push/influx/write"), None)
                .is_ok()
        });
    });
    let known = bearer(&issuer.user_of(ORG_A));
    let caller =
        runtime.block_on(authenticator.authenticate(&known, None, client)).expect("a principal");
    criterion.bench_function("authn: a token in the cache", |bench| {
        bench.iter(|| {
            runtime.block_on(authenticator.authenticate(black_box(&known), None, client)).is_ok()
        });
    });
    // Far more tokens than the smallest cache holds, in turn.
    let tokens: Vec<HeaderMap> = (0..20_000).map(|_| bearer(&issuer.user_of(ORG_A))).collect();
    let mut fresh = tokens.iter().cycle();
    criterion.bench_function("authn: an ES256 token that has to be verified", |bench| {
        bench.iter(|| {
            runtime
                .block_on(authenticator.authenticate(fresh.next().expect("endless"), None, client))
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
    let grant = authorizer.authorize(&caller.principal, route, Scope::MetricsRead, &known);
    let grant = runtime.block_on(grant).expect("a grant");
    criterion.bench_function("limits: a permit, and its end", |bench| {
        bench.iter(|| runtime.block_on(limits.admit(black_box(grant.clone()), None)).is_ok());
    });
    let request = Request::get("/prometheus/api/v1/query?query=up").body(()).expect("a request");
    let id = RequestId::of(&headers);
    criterion.bench_function("record: what a request was, in the metrics", |bench| {
        bench.iter(|| {
            let outlets = Arc::clone(&outlets);
            let mut record = Record::begin(&request, id.clone(), client, outlets, Span::none());
            record.set_route(route);
            record.set_principal(&caller.principal);
            record.set_grant(&grant);
            record.set_status(200);
            record.set_outcome(RequestOutcome::Forwarded);
        });
    });
}

/// A thousand rows as an organisation writes them, in groups of fifty.
fn rows() -> Vec<AlertRuleRow> {
    let text = |text: String| Some(text);
    let organisation = OrganisationId::parse(ORG_A).expect("an organisation");
    let row = |number: u32| AlertRuleRow {
        id: uuid::Uuid::from_u128(number.into()),
        organisation: organisation.clone(),
        name: text(format!("HighUsage{number}")),
        expr: text(format!("sum by (instance) (rate(usage_total{{job=\"j{number}\"}}[5m])) > 0.9")),
        for_duration: text("5m".to_owned()),
        keep_firing_for: None,
        rule_group: text(format!("group {}", number % 20)),
        evaluation_interval: text("1m".to_owned()),
        labels: text(r#"{"severity": "page", "team": "platform"}"#.to_owned()),
        annotations: text(r#"{"summary": "{{ $labels.instance }} is at {{ $value }}"}"#.to_owned()),
        enabled: text("true".to_owned()),
        created_at_micros: Some(number.into()),
        excess: Excess::None,
    };
    (0..1_000).map(row).collect()
}

fn rules(criterion: &mut Criterion) {
    let defaults = RuleDefaults::default();
    let limits = RulerLimits { rules_per_group: Some(20), groups: Some(70) };
    let rows = rows();
    let group = |rows: &[AlertRuleRow]| {
        let read = |row| match parse(row, &defaults) {
            Ok(Parsed::Enabled(rule)) => Some(rule),
            _ => None,
        };
        desired(rows.iter().filter_map(read).collect(), &limits, 0).groups
    };
    let stored = |group: &DesiredGroup| {
        let RuleGroup { name, interval, rules } = group.to_group();
        let rules = rules.into_iter().map(StoredRule::Alerting).collect();
        StoredGroup { name, interval: Some(interval), rules, says_more: false }
    };
    let observed: Vec<StoredGroup> = group(&rows).iter().map(stored).collect();
    criterion.bench_function("rules: 1,000 rows, nothing to do", |bench| {
        bench.iter(|| {
            diff(&group(black_box(&rows)), black_box(&observed), &|_, _| false).is_empty()
        });
    });
    criterion.bench_function("rules: 1,000 rows, the oldest is gone", |bench| {
        bench.iter(|| {
            let groups = group(black_box(&rows[1..]));
            let diff = diff(&groups, black_box(&observed), &|_, _| false);
            steps(&diff, &groups, 70, Some(70)).len()
        });
    });
}

/// A field of protobuf with a length.
fn field(number: u8, contents: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    prost::encoding::encode_varint(contents.len() as u64, &mut field);
    field.extend_from_slice(contents);
    field
}

/// An export of 2,000 gauges with eight attributes each, as a collector sends it: 448 kB, and 27 kB of gzip.
fn export() -> Vec<u8> {
    let attribute = |number: usize, value: &str| {
        let value = field(2, &field(1, value.as_bytes()));
        field(7, &[field(1, format!("attribute_{number}").as_bytes()), value].concat())
    };
    let metric = |at: u32| {
        let attributes = (0..8).flat_map(|number| attribute(number, &format!("value {}", at % 40)));
        let time = [&[3 << 3 | 1][..], &(1_800_000_000_u64 + u64::from(at)).to_le_bytes()].concat();
        let number = [&[4 << 3 | 1][..], &(f64::from(at) * 0.37).to_le_bytes()].concat();
        let point = [attributes.collect(), time, number].concat();
        field(2, &[field(1, b"hub_temperature_celsius"), field(5, &field(1, &point))].concat())
    };
    let metrics: Vec<u8> = (0..2_000).flat_map(metric).collect();
    field(1, &field(2, &metrics))
}

fn exports(criterion: &mut Criterion) {
    let plain = export();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&plain).expect("gzip");
    let zipped = encoder.finish().expect("gzip");
    let limits = OtlpLimits { bytes: 16 << 20, unchecked: Vec::new() };
    for (name, encoding, body) in [("plain", "", &plain), ("gzip", "gzip", &zipped)] {
        let headers: HeaderMap = [
            (http::header::CONTENT_TYPE, "application/x-protobuf"),
            (http::header::CONTENT_ENCODING, encoding),
        ]
        .into_iter()
        .map(|(name, value)| (name, http::HeaderValue::from_static(value)))
        .collect();
        criterion.bench_function(&format!("mimir: an export of 2,000 points, {name}"), |bencher| {
            bencher.iter(|| {
                let scanner = OtlpScanner::for_body(&headers, &limits).expect("its headers");
                let mut scanner = scanner.expect("one that reads");
                for piece in body.chunks(16 << 10) {
                    scanner.push(black_box(piece)).expect("an export");
                }
                scanner.end().expect("its end");
            });
        });
    }
}

criterion_group!(benches, decisions, exports, rules);
criterion_main!(benches);
