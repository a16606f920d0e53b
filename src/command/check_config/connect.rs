//! `check-config --connect`: asks every external system once, with the functions that `serve` uses.
//! It writes nothing.

use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::report::{Outcome, Report};
use crate::authn::{FetchError, fetch_key_set, key_set_client};
use crate::causes::causes;
use crate::config::{Config, Upstream, UpstreamConfig};
use crate::forward;
use crate::http_client::{self, read_start};
use crate::limits::{Limits, RowFault};
use crate::mimir::alertmanager::AlertmanagerClient;
use crate::mimir::ruler::RulerClient;
use crate::mimir::{MimirConfig, Retriable as _};
use crate::otlp::{self, SendError};
use crate::store::{LimitRow, RolesInUse, Store, StoreError};
use crate::tenancy::{Role, TenantHeader, TenantId};

/// A tenant that does not exist. Reading from it creates nothing.
const TENANT: &str = "mimir-tenant-proxy-check";

/// The longest answer of Mimir that is read.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Connects to everything that the configuration names.
pub(super) async fn connect(config: &Config) -> Report {
    let mut report = Report::default();
    key_set(config, &mut report).await;
    database(config, &mut report).await;
    upstreams(config, &mut report).await;
    rulers(config, &mut report).await;
    alertmanagers(config, &mut report).await;
    collector(config, &mut report).await;
    report
}

async fn key_set(config: &Config, report: &mut Report) {
    let Some(key_set) = &config.auth.key_set else {
        return report
            .add("key set", Outcome::Good("none: tokens by the shared secret only".to_owned()));
    };
    let fetched = match key_set_client() {
        Ok(client) => fetch_key_set(key_set, &client).await,
        Err(error) => Err(FetchError::Away(causes(&error))),
    };
    let keys = match fetched {
        Ok(keys) => keys,
        Err(error) => {
            let problem = format!("{}: {error}", key_set.url);
            let outcome = match error {
                FetchError::Away(_) => Outcome::Away(problem),
                FetchError::Unfit(_) => {
                    Outcome::Unfit(format!("{problem}; is auth.issuer (or auth.jwks_url) right?"))
                }
            };
            return report.add("key set", outcome);
        }
    };
    let left_out = keys.left_out().join("; ");
    let has_secret = !config.auth.hs256_secrets.is_empty();
    let outcome = match (keys.len(), left_out.is_empty()) {
        (0, true) if has_secret => {
            Outcome::Good(format!("{}: no keys; tokens by the shared secret", key_set.url))
        }
        (0, _) => Outcome::Unfit(format!(
            "{}: no usable key, so every token would be refused{}",
            key_set.url,
            if left_out.is_empty() { String::new() } else { format!("; left out: {left_out}") }
        )),
        (count, true) => Outcome::Good(format!("{}: {count} usable keys", key_set.url)),
        (count, false) => {
            Outcome::Odd(format!("{}: {count} usable keys; left out: {left_out}", key_set.url))
        }
    };
    report.add("key set", outcome);
}

/// Nothing is said of traces that are off.
async fn collector(config: &Config, report: &mut Report) {
    let Some(collector) = &config.traces.collector else { return };
    let url = &collector.url;
    report.add(
        "traces",
        match otlp::probe(collector).await {
            Ok(()) => Outcome::Good(format!("{url}: takes traces")),
            Err(SendError::Away(problem)) => Outcome::Away(format!("{url}: {problem}")),
            Err(SendError::Refused(problem)) => Outcome::Unfit(format!(
                "{url}: {problem}; is traces.endpoint right, and does it take OTLP over HTTP?"
            )),
        },
    );
}

async fn database(config: &Config, report: &mut Report) {
    let Some(database) = &config.database else {
        return report.add("database", Outcome::Good("none: claims alone decide".to_owned()));
    };
    let place = database.place();
    let failed = |error: StoreError| match error {
        // The error names the address.
        StoreError::Unreachable(problem) => Outcome::Away(problem),
        StoreError::Unavailable(problem) => Outcome::Away(format!("{place}: {problem}")),
        other => Outcome::Unfit(format!("{place}: {other}")),
    };
    let checked = match Store::new(database, config.tables_read()) {
        // Rights first: all that are missing are told at once.
        Ok(store) => match store.check_notifications().await {
            Ok(()) => match store.check_privileges().await {
                Ok(()) => store.check().await.map(|()| store),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    let store = match checked {
        Ok(store) => store,
        Err(error) => return report.add("database", failed(error)),
    };
    let fits = format!("{place}: connected, notifications arrive, tables, rights and queries fit");
    report.add("database", Outcome::Good(fits));
    if let Some(remedy) = store.unseen_bans() {
        let odd = format!("a banned user keeps access until the token ends; {remedy}");
        report.add("sessions", Outcome::Odd(odd));
    }
    if let Some(remedy) = store.unseen_clients() {
        let odd = format!("which OAuth client a session is of is not seen; {remedy}");
        report.add("sessions", Outcome::Odd(odd));
    }
    if config.tables_read().limits {
        let limits = match store.organisation_limits().await {
            Err(error) => failed(error),
            Ok(rows) => limit_rows(&rows),
        };
        report.add("limits", limits);
    }
    if !config.tenancy.membership.reads_table() {
        return;
    }
    match store.roles_in_use().await {
        Err(error) => report.add("roles", failed(error)),
        Ok(RolesInUse::Unknown) => report.add(
            "roles",
            Outcome::Good(
                "not compared: database.membership_query cannot be asked for all users".to_owned(),
            ),
        ),
        Ok(RolesInUse::Counted(roles)) => add_roles(config, &roles, report),
    }
}

/// Rows of limits, as the proxy would read them.
fn limit_rows(rows: &[LimitRow]) -> Outcome {
    /// So many are told one by one.
    const TOLD: usize = 10;
    let faults = Limits::faults_of(rows);
    if faults.is_empty() {
        return Outcome::Good(format!("{} limits of organisations in the database", rows.len()));
    }
    let more = faults.len().saturating_sub(TOLD);
    let mut told: Vec<String> = faults
        .into_iter()
        .take(TOLD)
        .map(|RowFault { organisation, name, problem }| {
            format!("{name:?} of {organisation:?} {problem}")
        })
        .collect();
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    Outcome::Unfit(format!("rows of organisation_limit that are no limits: {}", told.join("; ")))
}

fn add_roles(config: &Config, roles: &[(Role, i64)], report: &mut Report) {
    let unknown: Vec<String> = roles
        .iter()
        .filter(|(role, _)| !config.tenancy.roles.has(role))
        .map(|(role, count)| format!("{:?} ({count} memberships)", role.as_str()))
        .collect();
    if unknown.is_empty() {
        let all = format!("{} in use, all in [roles]", roles.len());
        return report.add("roles", Outcome::Good(all));
    }
    let problem =
        format!("in use and not in [roles], so they may do nothing: {}", unknown.join(", "));
    report.add("roles", Outcome::Unfit(problem));
}

/// An instance of Mimir, and the source of its address.
struct Found {
    from: String,
    address: SocketAddr,
    authority: HeaderValue,
}

async fn upstreams(config: &Config, report: &mut Report) {
    let upstream = &config.upstream;
    let mut found = Vec::new();
    for upstream in &upstream.upstreams {
        match resolve(upstream).await {
            Ok(instances) => found.extend(instances),
            Err(problem) => report.add("mimir", Outcome::Away(problem)),
        }
    }
    if let Some(consul) = &upstream.consul {
        match forward::read_catalogue(consul.clone()).await {
            Ok(instances) if instances.is_empty() => report.add(
                "consul",
                Outcome::Away(format!(
                    "{}: no instance of {:?} passes its checks",
                    consul.url, consul.service
                )),
            ),
            Ok(instances) => {
                let count = format!(
                    "{}: {} instances of {:?}",
                    consul.url,
                    instances.len(),
                    consul.service
                );
                report.add("consul", Outcome::Good(count));
                found.extend(instances.into_iter().map(|(address, authority)| Found {
                    from: format!("consul {}", consul.service),
                    address,
                    authority,
                }));
            }
            Err(problem) => {
                report.add("consul", Outcome::Away(format!("{}: {problem}", consul.url)));
            }
        }
    }
    for instance in found {
        let about = format!("{} ({})", instance.address, instance.from);
        let outcome = match ask(upstream, &instance).await {
            Ok(facts) => Outcome::Good(format!("{about}: {facts}")),
            Err(Fault::Away(problem)) => Outcome::Away(format!("{about}: {problem}")),
            Err(Fault::Unfit(problem)) => Outcome::Unfit(format!("{about}: {problem}")),
        };
        report.add("mimir", outcome);
    }
}

/// The time for an answer, in addition to the configured timeouts.
const ANSWER: Duration = Duration::from_secs(5);

async fn resolve(upstream: &Upstream) -> Result<Vec<Found>, String> {
    let from = upstream.authority.to_str().unwrap_or_default().to_owned();
    let looked_up = tokio::net::lookup_host((upstream.host.as_str(), upstream.port)).await;
    let mut addresses: Vec<SocketAddr> =
        looked_up.map_err(|error| format!("{from}: the name is not found: {error}"))?.collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(format!("{from}: the name has no address"));
    }
    let authority = &upstream.authority;
    let found = |address| Found { from: from.clone(), address, authority: authority.clone() };
    Ok(addresses.into_iter().map(found).collect())
}

enum Fault {
    Away(String),
    Unfit(String),
}

/// Whether an instance is ready, isolates tenants and accepts the tenant header, and its version.
async fn ask(config: &UpstreamConfig, instance: &Found) -> Result<String, Fault> {
    let authority = instance.authority.to_str().unwrap_or_default();
    let client = http_client::internal()
        .connect_timeout(config.connect_timeout)
        .timeout(config.connect_timeout + config.health.ready_timeout + ANSWER);
    // By its name, which is to be verified, at the address that was found.
    let (client, base) = match &config.tls {
        None => (client, format!("http://{}", instance.address)),
        Some(tls) => {
            let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
            let client = client.tls_backend_preconfigured((**tls.client()).clone());
            (client.resolve(host, instance.address), format!("https://{authority}"))
        }
    };
    let client = client.build().map_err(|error| Fault::Away(causes(&error)))?;
    let get = async |path: &str, tenants: Option<&TenantHeader>| {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, instance.authority.clone());
        if let Some(tenants) = tenants {
            crate::mimir::set_tenant(&mut headers, tenants);
        }
        let url = format!("{base}{path}");
        let unreachable = |error: reqwest::Error| Fault::Away(causes(&error.without_url()));
        let mut answer = client.get(url).headers(headers).send().await.map_err(unreachable)?;
        let status = answer.status();
        let body = read_start(&mut answer, MAX_ANSWER_BYTES).await.map_err(unreachable)?;
        Ok::<_, Fault>((status, String::from_utf8_lossy(&body).into_owned()))
    };
    // Without probes the running proxy does not ask either: a balancer's /ready is not Mimir's.
    if config.health.probes() {
        let (status, text) = get("/ready", None).await?;
        if !status.is_success() {
            return Err(Fault::Away(format!("/ready answers {status}: {}", first_line(&text))));
        }
    }
    let tenant = TenantId::parse(TENANT).map_err(|error| Fault::Unfit(error.to_string()))?;
    let labels = "/prometheus/api/v1/labels";
    let (status, text) = get(labels, None).await?;
    match status {
        StatusCode::UNAUTHORIZED => {}
        StatusCode::NOT_FOUND => {
            let problem = format!("{labels} is not found: is it Mimir, with its default paths?");
            return Err(Fault::Unfit(problem));
        }
        status if status.is_success() => {
            let problem = "answers without X-Scope-OrgID, so it does not keep tenants apart: set \
                           multitenancy_enabled: true";
            return Err(Fault::Unfit(problem.to_owned()));
        }
        status => {
            let problem = format!("{labels} answers {status}: {}", first_line(&text));
            return Err(Fault::Away(problem));
        }
    }
    let (status, text) = get(labels, Some(&TenantHeader::from(tenant))).await?;
    if !status.is_success() {
        let problem = format!("with X-Scope-OrgID it answers {status}: {}", first_line(&text));
        let is_final = status.is_client_error();
        return Err(if is_final { Fault::Unfit(problem) } else { Fault::Away(problem) });
    }
    let (_, text) = get("/prometheus/api/v1/status/buildinfo", None).await?;
    Ok(format!("ready, keeps tenants apart, {}", build(&text)))
}

/// What `buildinfo` says, in a few words.
fn build(text: &str) -> String {
    let info: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let part = |name: &str| {
        let data = info.as_ref()?.get("data")?;
        data.get(name)?.as_str().filter(|part| !part.is_empty()).map(str::to_owned)
    };
    let application = part("application").unwrap_or_else(|| "Mimir".to_owned());
    match part("version") {
        Some(version) => format!("{application} {version}"),
        None => format!("{application} of an unknown version"),
    }
}

fn first_line(text: &str) -> String {
    const LONGEST: usize = 200;
    let line = text.trim().lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

async fn rulers(config: &Config, report: &mut Report) {
    let rules = &config.rules;
    if !rules.enabled {
        return;
    }
    for url in &rules.urls {
        let one = MimirConfig { urls: vec![url.clone()], ..rules.mimir() };
        let client = RulerClient::new(&one, &rules.namespace);
        let tenant = TenantId::parse(TENANT).map_err(|error| error.to_string());
        let outcome = match client.and_then(|client| Ok((client, tenant?))) {
            Err(problem) => Outcome::Unfit(format!("{url}: {problem}")),
            Ok((client, tenant)) => match client.list(&tenant).await {
                Ok(_) => Outcome::Good(format!("{url}: its configuration interface answers")),
                Err(error) if error.is_transient() => Outcome::Away(format!("{url}: {error}")),
                Err(error) => Outcome::Unfit(format!("{url}: {error}")),
            },
        };
        report.add("ruler", outcome);
    }
}

/// Channels need Mimir's Alertmanager, with its API for configurations.
async fn alertmanagers(config: &Config, report: &mut Report) {
    if !config.channels.enabled {
        return;
    }
    let rules = &config.rules;
    for url in &config.channels.urls {
        let one = MimirConfig { urls: vec![url.clone()], ..rules.mimir() };
        let client = AlertmanagerClient::new(&one);
        let tenant = TenantId::parse(TENANT).map_err(|error| error.to_string());
        let outcome = match client.and_then(|client| Ok((client, tenant?))) {
            Err(problem) => Outcome::Unfit(format!("{url}: {problem}")),
            Ok((client, tenant)) => match client.configuration(&tenant).await {
                Ok(_) => Outcome::Good(format!("{url}: its configuration interface answers")),
                Err(error) if error.is_transient() => Outcome::Away(format!("{url}: {error}")),
                Err(error) => Outcome::Unfit(format!("{url}: {error}")),
            },
        };
        report.add("channels", outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_told_in_a_few_words() {
        let text =
            r#"{"status":"success","data":{"application":"Grafana Mimir","version":"3.1.0"}}"#;
        assert_eq!(build(text), "Grafana Mimir 3.1.0");
        assert_eq!(build("<html>"), "Mimir of an unknown version");
    }

    #[test]
    fn of_an_answer_one_line_is_shown() {
        assert_eq!(first_line("\n a\u{1b}[1m\nb"), "a[1m");
        assert_eq!(first_line(&"x".repeat(999)).len(), 200);
    }
}
