//! `[database]`

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::reader::{Raw, Section};
use super::shown::Shown;
use super::sql;
use super::values::{Secret, duration, number, text, unwritten};

/// Where memberships, device keys and revocations are stored, and how long they are cached.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// `postgres://user:password@host:port/database`.
    pub url: Secret,
    /// How the server is authenticated.
    pub tls: DatabaseTls,
    /// The schema of our tables, a plain identifier.
    pub schema: String,
    /// Queries that replace those on our tables.
    pub queries: QueriesConfig,
    /// Connections for lookups. `docs/operations/scaling.md` lists the others.
    pub max_connections: u32,
    /// The timeout for connecting.
    pub connect_timeout: Duration,
    /// The timeout of one query.
    pub query_timeout: Duration,
    /// How long a cached row is fresh. Where triggers notify us of changes, changes apply sooner;
    /// this is for tables without triggers.
    pub cache_ttl: Duration,
    /// How long the absence of a row is cached.
    pub absence_ttl: Duration,
    /// How long stale rows are used while the database is unavailable.
    pub stale_max_age: Duration,
    /// The number of cached users and devices.
    pub cache_entries: u64,
    /// How often the last use of device keys is written.
    pub last_used_interval: Duration,
    /// How long a session is considered alive after a check.
    pub session_ttl: Duration,
}

/// Which tables are read, besides memberships, device keys and revocations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TablesRead {
    /// `auth.sessions` (`auth.check_sessions`).
    pub sessions: bool,
    /// A table of every organisation: ours, where memberships are read from ours, or the one that
    /// `database.organisation_query` names.
    pub organisations: bool,
    /// Alert rules and their organisations (`rules.enabled`).
    pub rules: bool,
    /// Notification channels and routes (`channels.enabled`).
    pub channels: bool,
    /// Alert events, which are written (`alert_events.enabled`).
    pub events: bool,
    /// Limits of organisations (`limits.from_database`, or a query for them).
    pub limits: bool,
}

impl DatabaseConfig {
    /// Host and port, without user and password, for messages.
    pub fn place(&self) -> String {
        let text = std::str::from_utf8(self.url.expose()).unwrap_or_default();
        let Ok(url) = Url::parse(text) else { return "database.url".to_owned() };
        match (url.host_str(), url.port()) {
            (Some(host), port) if !host.is_empty() => format!("{host}:{}", port.unwrap_or(PORT)),
            _ => "this machine's socket".to_owned(),
        }
    }

    /// Whether another address leads to the same database in the same way, with any user and password.
    pub fn is_same_but_for_its_login(&self, other: &Self) -> bool {
        let without_login = |config: &Self| {
            let text = std::str::from_utf8(config.url.expose()).ok()?;
            let mut url = Url::parse(text).ok()?;
            if url.port() == Some(PORT) {
                let _ = url.set_port(None);
            }
            let user = url.query_pairs().find(|(key, _)| key == "user");
            let user =
                user.map_or_else(|| url.username().to_owned(), |(_, user)| user.into_owned());
            // A database without a name has the user's, and Supabase's pooler finds the project by what follows the
            // first dot (`postgres.<ref>`).
            let is_named =
                url.path().len() > 1 || url.query_pairs().any(|(key, _)| key == "dbname");
            let place = if is_named {
                user.split_once('.').map_or("", |(_, project)| project).to_owned()
            } else {
                user
            };
            // A URL without a host takes neither, and has none.
            let _ = (url.set_username(""), url.set_password(None));
            let parameters: Vec<(String, String)> = url
                .query_pairs()
                .filter(|(key, _)| !matches!(&**key, "user" | "password"))
                .map(|(key, value)| (key.into_owned(), value.into_owned()))
                .collect();
            url.set_query(None);
            Some((url, parameters, place))
        };
        let (this, that) = (without_login(self), without_login(other));
        this.is_some() && this == that
    }
}

/// How the database server is authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseTls {
    /// By a certificate for its name, from an authority in this file, or from a public one.
    VerifyFull(Option<PathBuf>),
    /// Not at all: on the same machine, or on a trusted network.
    Off,
}

/// The operator's own queries; those on our tables if there are none.
#[derive(Clone, Debug, Default)]
pub struct QueriesConfig {
    /// With `$1 uuid[]`: `user_id uuid`, `organisation_id`, `role text`, and optionally `is_default
    /// bool`.
    pub membership: Option<String>,
    /// With `$1 bytea[]`: `key_hash`, `id uuid`, `organisation_id`, `name`, `scopes text[]`,
    /// `expires_at`, `grace_seconds`, `revoked_at`.
    pub device_key: Option<String>,
    pub revocation: Option<String>,
    /// With `$1 uuid[]`: `id uuid` of the sessions that exist.
    pub session: Option<String>,
    /// Without a parameter: `organisation_id` of every organisation.
    pub organisation: Option<String>,
    /// With `$1 text[]`, organisations: their rules, with the columns of `alert_rule`.
    pub alert_rule: Option<String>,
    /// Of `$1 text[]`, organisations: their channels, a column for each of `notification_channel`,
    /// `secrets` with the secrets themselves.
    pub notification_channel: Option<String>,
    /// Of `$1 text[]`, organisations: their routes, a column for each of `notification_route`.
    pub notification_route: Option<String>,
    /// Without a parameter: `organisation_id`, `name` and `value` of every limit of an organisation.
    pub organisation_limit: Option<String>,
}

/// Where Postgres listens if no port is named.
const PORT: u16 = 5432;

/// Supabase's transaction pooler. Others are recognised by their behaviour.
const TRANSACTION_POOLER_PORT: u16 = 6543;

/// Reads it, and whether there is a database: also if its address is wrong.
pub(super) fn read(section: &mut Section<'_>) -> (Option<DatabaseConfig>, bool) {
    let says_anything = section.says_anything();
    let url = section.secret("url");
    if url.is_empty() && says_anything && !section.is_faulty("url") {
        let problem = "is empty: set it, or remove the section [database] to run without a database \
                       (a lost password must not leave the decision to claims alone)";
        section.fault("url", problem.to_owned());
    }
    let address = if url.is_empty() { None } else { read_url(section, &url) };
    let second = Duration::from_secs(1);
    let (minute, day) = (60 * second, 86_400 * second);
    let tenth = second / 10;
    let config = DatabaseConfig {
        url: url.clone(),
        tls: read_tls(section, address.as_ref()),
        schema: section.get("schema", "public".to_owned(), identifier),
        queries: QueriesConfig {
            membership: query(section, "membership_query", Some("uuid[]")),
            device_key: query(section, "device_key_query", Some("bytea[]")),
            revocation: query(section, "revocation_query", None),
            session: query(section, "session_query", Some("uuid[]")),
            organisation: query(section, "organisation_query", None),
            alert_rule: query(section, "alert_rule_query", Some("text[]")),
            notification_channel: query(section, "notification_channel_query", Some("text[]")),
            notification_route: query(section, "notification_route_query", Some("text[]")),
            organisation_limit: query(section, "organisation_limit_query", None),
        },
        max_connections: section.get("max_connections", 4, |raw| {
            number(raw, 1, 1000).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
        }),
        connect_timeout: section
            .get("connect_timeout", 5 * second, |raw| duration(raw, tenth, minute)),
        query_timeout: section.get("query_timeout", 2 * second, |raw| duration(raw, tenth, minute)),
        cache_ttl: section.get("cache_ttl", 5 * minute, |raw| duration(raw, second, day)),
        absence_ttl: section
            .get("absence_ttl", 5 * second, |raw| duration(raw, tenth, 10 * minute)),
        stale_max_age: section
            .get("stale_max_age", day, |raw| duration(raw, Duration::ZERO, 30 * day)),
        cache_entries: section.get("cache_entries", 200_000, |raw| number(raw, 100, 100_000_000))
            as u64,
        last_used_interval: section
            .get("last_used_interval", 30 * second, |raw| duration(raw, second, day)),
        session_ttl: section.get("session_ttl", 15 * second, |raw| duration(raw, tenth, day)),
    };
    let is_wanted = !url.is_empty() || section.is_faulty("url");
    ((!url.is_empty()).then_some(config), is_wanted)
}

/// Whether the server's certificate is checked.
struct Verified(bool);

impl Shown for Verified {
    fn shown(&self) -> String {
        (if self.0 { "verify-full" } else { "off" }).to_owned()
    }
}

/// A statement of the operator's. A literal in it may be anything, so it is not shown.
#[derive(Default)]
struct Statement(String);

impl Shown for Statement {
    fn shown(&self) -> String {
        match self.0.chars().count() {
            0 => String::new(),
            count => format!("a query of {count} characters; not shown"),
        }
    }
}

/// A query of the operator's with one parameter of a type, or none.
fn query(section: &mut Section<'_>, key: &'static str, parameter: Option<&str>) -> Option<String> {
    let Statement(query) = section.get(key, Statement::default(), |raw| text(raw).map(Statement));
    if query.trim().is_empty() {
        return None;
    }
    if let Err(problem) = sql::check(&query, parameter) {
        section.fault(key, problem);
    }
    Some(query)
}

/// Parses the address only to check it. Messages never repeat it: it contains a password.
fn read_url(section: &mut Section<'_>, secret: &Secret) -> Option<Url> {
    let wanted = "must be an address such as postgres://user:password@host:5432/database";
    let encoded = "special characters of a password are written %40 for @, %2F for /, %3A for :, \
                   %3F for ?, %23 for #, %25 for %";
    let text = std::str::from_utf8(secret.expose()).unwrap_or_default();
    if let Some((problem, in_a_password)) = unwritten(text) {
        section.fault("url", format!("{wanted}: it {problem}{in_a_password}"));
        return None;
    }
    if let Some(problem) = unescaped(text) {
        section.fault("url", format!("{wanted}: {problem}; {encoded}"));
        return None;
    }
    let parsed = Url::parse(text).map_err(|error| error.to_string());
    let url = match parsed {
        Ok(url) if matches!(url.scheme(), "postgres" | "postgresql") => url,
        Ok(_) => {
            section.fault("url", format!("{wanted}: it begins otherwise"));
            return None;
        }
        Err(problem) => {
            section.fault("url", format!("{wanted}: {problem}; {encoded}"));
            return None;
        }
    };
    let database = url.path().trim_start_matches('/');
    if database.contains('/') {
        section.fault("url", format!("{wanted}: more than one / after the host; {encoded}"));
    }
    if url.port() == Some(TRANSACTION_POOLER_PORT) {
        let problem = "is a transaction pooler by its port, which delivers no notifications (LISTEN) \
                       and keeps no session; use the direct connection or the session pooler, both on \
                       port 5432";
        section.fault("url", problem.to_owned());
    }
    if url
        .query_pairs()
        .any(|(key, value)| matches!(&*key, "host" | "hostaddr") && !value.starts_with('/'))
    {
        let problem = "must name its host before the path, not as a parameter";
        section.fault("url", problem.to_owned());
    }
    if url.query_pairs().any(|(key, _)| key.starts_with("ssl")) {
        let problem = "must not set TLS; use database.tls and database.ca_file";
        section.fault("url", problem.to_owned());
    }
    for (parameter, _) in url.query_pairs() {
        let is_known = PARAMETERS.contains(&&*parameter) || parameter.starts_with("ssl");
        if !is_known && !parameter.starts_with("options[") {
            // The driver ignores unknown parameters.
            section
                .warn("url", format!("has a parameter that has no effect: {}", known(&parameter)));
        }
    }
    let has_user = !url.username().is_empty() || url.query_pairs().any(|(key, _)| key == "user");
    if !has_user && !is_here(url.host_str().unwrap_or_default()) {
        let problem = "names no user: the name of this process' own user is taken";
        section.warn("url", problem.to_owned());
    }
    Some(url)
}

/// The parameters of an address that the driver (sqlx) reads, besides those of TLS.
const PARAMETERS: [&str; 9] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "statement-cache-capacity",
    "user",
];

/// A parameter's name, if it is a plain word; anything else may be the rest of a password.
fn known(parameter: &str) -> &str {
    let is_word = parameter.len() <= 40
        && parameter.bytes().all(|byte| byte.is_ascii_lowercase() || b"_-".contains(&byte));
    if is_word { parameter } else { "(not a plain name)" }
}

/// Traces of a password that is not percent-encoded. A parser ends user and password at the first
/// `/`, `?` or `#`, whatever follows: `postgres://u:2024#x@host/d` has the host `u` and the port
/// 2024.
fn unescaped(text: &str) -> Option<&'static str> {
    let (_, rest) = text.split_once("://")?;
    if rest.contains('#') {
        return Some("it holds a '#', which ends an address");
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, behind) = rest.split_at(end);
    if behind.contains('@') {
        return Some("it holds an '@' behind the host, so what it calls the host is none");
    }
    let (credentials, _) = authority.rsplit_once('@')?;
    if credentials.contains('@') {
        return Some("it holds an '@' in the password");
    }
    if credentials.matches(':').count() > 1 {
        return Some("it holds a ':' in the password");
    }
    None
}

fn read_tls(section: &mut Section<'_>, address: Option<&Url>) -> DatabaseTls {
    let ca_file = section.get("ca_file", None, |raw| {
        let path = text(raw)?;
        if path.is_empty() {
            return Ok(None);
        }
        let path = PathBuf::from(path);
        std::fs::metadata(&path).map_err(|error| format!("cannot be read: {error}"))?;
        Ok(Some(path))
    });
    let is_here = address.is_some_and(|url| is_here(url.host_str().unwrap_or_default()));
    let by_default = !is_here || ca_file.is_some();
    let Verified(verify) =
        section.get("tls", Verified(by_default), |raw| match text(raw)?.as_str() {
            "verify-full" => Ok(Verified(true)),
            "off" => Ok(Verified(false)),
            _ => Err("must be \"verify-full\", or \"off\" on a network that you trust".to_owned()),
        });
    if !verify && ca_file.is_some() {
        section.fault("ca_file", "has no effect with database.tls = \"off\"".to_owned());
    }
    if verify { DatabaseTls::VerifyFull(ca_file) } else { DatabaseTls::Off }
}

/// Whether a host is this machine: empty, the directory of a socket, or a loopback address.
fn is_here(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let is_socket = host.is_empty() || host.starts_with("%2F") || host.starts_with("%2f");
    is_socket || host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// A plain SQL identifier, because it becomes part of queries.
fn identifier(raw: Raw) -> Result<String, String> {
    let name = text(raw)?;
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.len() <= 63
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if plain {
        Ok(name)
    } else {
        Err("must be a plain name of a-z, 0-9 and _, such as \"public\"".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment};

    #[test]
    fn an_unencoded_password_is_detected() {
        for wrong in ["2024#x", "a/b", "a?b", "a@b", "a:b", "12/b", "#", "a@b/c"] {
            assert!(unescaped(&format!("postgres://u:{wrong}@h:5432/d")).is_some(), "{wrong}");
        }
        for right in [
            "postgres://u:2024%23x%40%2F%3F@h:5432/d",
            "postgres://h/d",
            "postgres:///d?host=/run/postgresql",
            "postgres://u@h/d?application_name=x",
            "postgresql://postgres.ref:p!$&'()*+,;=@[fdaa::3]:5432/postgres",
        ] {
            assert_eq!(unescaped(right), None, "{right}");
        }
    }

    fn read(url: &str) -> DatabaseConfig {
        let text = format!(
            "[auth]\nissuer = \"https://a.supabase.co/auth/v1\"\n[upstream]\nurls = [\"http://m\"]\n\
             [database]\nurl = {url:?}"
        );
        Config::read(&text, &Environment::default()).unwrap().database.unwrap()
    }

    #[test]
    fn a_login_is_a_user_and_a_password_wherever_they_stand() {
        let first = read("postgres://u:p@h:5432/d?options=-c%20x%3D1");
        for same in [
            "postgres://v:q%40@h:5432/d?options=-c%20x%3D1",
            "postgres://h:5432/d?user=v&options=-c%20x%3D1&password=q",
        ] {
            assert!(first.is_same_but_for_its_login(&read(same)), "{same}");
        }
        for other in [
            "postgres://u:p@i:5432/d?options=-c%20x%3D1",
            "postgres://u:p@h:5433/d?options=-c%20x%3D1",
            "postgres://u:p@h:5432/e?options=-c%20x%3D1",
            "postgres://u:p@h:5432/d?options=-c%20x%3D2",
            "postgres://u:p@h:5432/d",
            "postgres://u:p@h:5432/d?options=-c%20x%3D1&dbname=e",
        ] {
            assert!(!first.is_same_but_for_its_login(&read(other)), "{other}");
        }
        let socket = |user: &str, folder: &str| {
            read(&format!("postgres:///d?host=/run/{folder}&user={user}"))
        };
        let user = |user: &str, path: &str| read(&format!("postgres://{user}:p@h{path}"));
        assert!(user("a.ref", "/d").is_same_but_for_its_login(&user("b.ref", "/d")));
        assert!(!user("a.ref", "/d").is_same_but_for_its_login(&user("a.other", "/d")));
        assert!(!user("a.ref", "/d").is_same_but_for_its_login(&user("a", "/d")));
        assert!(user("a", "").is_same_but_for_its_login(&read("postgres://a:q@h:5432")));
        assert!(!user("a", "").is_same_but_for_its_login(&user("b", "")));
        assert!(socket("u", "a").is_same_but_for_its_login(&socket("v", "a")));
        assert!(!socket("u", "a").is_same_but_for_its_login(&socket("u", "b")));
    }
}
