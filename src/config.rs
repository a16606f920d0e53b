//! Configuration: TOML and environment are parsed into validated types, one section per file.
//!
//! All faults are collected before any is reported, so that one run of `check-config` shows every
//! one: its key, what is wrong and what would be right. Nothing outside this module sees a raw
//! value, and no stage gets more than its own section.

mod alert_events;
mod auth;
mod channels;
mod console;
mod cors;
mod database;
mod environment;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod limits;
mod lines;
mod listen;
mod log;
mod network;
mod reader;
mod reload;
mod rules;
mod shared_secrets;
mod shown;
mod shutdown;
mod sql;
mod tenancy;
mod tls;
mod traces;
mod upstream;
mod values;

use std::path::{Path, PathBuf};

pub use alert_events::AlertEventsConfig;
pub use auth::{
    AssuranceLevel, AuthConfig, KeySetConfig, OauthClients, OrganisationForm, ServiceRole,
    TokenPolicy,
};
pub use channels::{ChannelsConfig, DashboardUrl, EmailRelay};
pub use console::{ConsoleConfig, ConsoleSignIn};
pub use cors::{CorsConfig, OriginPattern};
pub use database::{DatabaseConfig, DatabaseTls, QueriesConfig, TablesRead};
pub use environment::Environment;
pub use limits::{
    LimitKeys, LimitValue, LimitsBySurface, LimitsConfig, MemoryLimit, OrganisationLimits,
    OrganisationsConfig, OwnLimits, SurfaceLimits,
};
pub use listen::ListenConfig;
pub use log::{LogConfig, LogFormat};
pub use network::Network;
pub use reload::{Change, Effect, ReloadConfig, effect_of};
pub use rules::{GuardConfig, RulesConfig};
pub use shown::Setting;
pub use shutdown::ShutdownConfig;
pub use tenancy::{MembershipPolicy, TenancyConfig};
pub use tls::{ServedCertificate, TlsConfig};
pub use traces::{CollectorConfig, TracesConfig};
pub use upstream::{
    ConsulConfig, HealthConfig, RetryConfig, Upstream, UpstreamConfig, UpstreamTls,
};
pub use values::{Secret, parse_duration};

use reader::Document;

/// The whole configuration, valid by construction.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[listen]` and `[tls]`: sockets, connection limits, certificates.
    pub listen: ListenConfig,
    /// `[auth]`: which tokens are accepted.
    pub auth: AuthConfig,
    /// `[database]`: memberships, device keys, revocations; `None` if tokens alone decide.
    pub database: Option<DatabaseConfig>,
    /// `[tenancy]` and `[roles]`: the tenant of an organisation, and the scopes of a role.
    pub tenancy: TenancyConfig,
    /// `[cors]`: which web pages may read the responses.
    pub cors: CorsConfig,
    /// `[upstream]`: where Mimir is.
    pub upstream: UpstreamConfig,
    /// `[rules]`: from rows in Postgres to Mimir's ruler.
    pub rules: RulesConfig,
    /// `[channels]`: from rows in Postgres to Mimir's Alertmanager.
    pub channels: ChannelsConfig,
    /// `[alert_events]`: firing alerts and silent devices as rows.
    pub alert_events: AlertEventsConfig,
    /// `[limits]`: the size of a request, and the limits of an organisation.
    pub limits: LimitsConfig,
    /// `[shutdown]`: how the process ends.
    pub shutdown: ShutdownConfig,
    /// `[log]`: what is logged, and the format.
    pub log: LogConfig,
    /// `[traces]`: which requests are traced, and where the traces go.
    pub traces: TracesConfig,
    /// `[console]`: the page at `/admin/console`.
    pub console: ConsoleConfig,
    /// `[reload]`: how changes of the configuration are noticed.
    pub reload: ReloadConfig,
    /// Every key with its value, as operators may see it: no secret is in it.
    pub settings: Vec<Setting>,
    /// What is valid but probably a mistake, such as an issuer in an unusual form.
    pub warnings: Vec<Fault>,
}

/// A fault in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{key}: {problem}", in_line(*.line))]
pub struct Fault {
    /// The key, such as `auth.issuer`, or the environment variable that set it.
    pub key: String,
    /// The line of the file with the key, or of the section that lacks it; `None` if it is not from
    /// the file.
    pub line: Option<usize>,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// All faults of the configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.0))]
pub struct Faults(pub Vec<Fault>);

impl Config {
    /// Reads a file (if any), overridden by the environment.
    pub fn load(file: Option<&Path>, environment: &Environment) -> Result<Self, Faults> {
        Self::read(&read_file(file)?, environment)
    }

    /// Reads TOML text, overridden by the environment.
    pub fn read(text: &str, environment: &Environment) -> Result<Self, Faults> {
        let mut document = Document::parse(text, environment);
        let (database, has_database) = document.section("database", database::read);
        let roles = document.section("roles", tenancy::read_roles);
        let upstream = document.section("upstream", upstream::read);
        let rules = document
            .section("rules", |section| rules::read(section, Some(&upstream), has_database));
        let mut config = Self {
            alert_events: document
                .section("alert_events", |section| alert_events::read(section, rules.enabled)),
            listen: ListenConfig {
                tls: document.section("tls", tls::read),
                ..document.section("listen", listen::read)
            },
            auth: document.section("auth", |section| auth::read(section, has_database)),
            database,
            tenancy: TenancyConfig {
                roles,
                ..document.section("tenancy", |section| tenancy::read(section, has_database))
            },
            cors: document.section("cors", cors::read),
            channels: document.section("channels", |section| channels::read(section, &rules)),
            rules,
            upstream,
            limits: document.section("limits", |section| limits::read(section, has_database)),
            shutdown: document.section("shutdown", shutdown::read),
            log: document.section("log", log::read),
            traces: document.section("traces", traces::read),
            console: document.section("console", console::read),
            reload: document.section("reload", reload::read),
            settings: Vec::new(),
            warnings: Vec::new(),
        };
        config.rules.expressions = config.limits.expressions;
        config.console.complete(&config.auth.tokens.issuer);
        config.settings = document.settings();
        config.warnings = document.finish()?;
        Ok(config)
    }

    /// What tells this configuration from others, without its secrets: 16 hexadecimal digits.
    pub fn digest(&self) -> String {
        shown::digest_of(&self.settings)
    }

    /// The tables to be read, which follow from several sections.
    pub fn tables_read(&self) -> TablesRead {
        let queries = self.database.as_ref().map(|database| &database.queries);
        let organisations = queries.is_some_and(|queries| {
            let is_ours = self.tenancy.membership.reads_table() && queries.membership.is_none();
            is_ours || queries.organisation.is_some()
        });
        TablesRead {
            sessions: self.auth.check_sessions,
            organisations,
            rules: self.rules.enabled,
            channels: self.channels.enabled,
            events: self.alert_events.enabled,
            limits: self.limits.from_database
                || queries.is_some_and(|queries| queries.organisation_limit.is_some()),
        }
    }
}

impl DatabaseConfig {
    /// Reads only `[database]`, for commands that need no more.
    pub fn load(file: Option<&Path>, environment: &Environment) -> Result<Self, Faults> {
        let text = read_file(file)?;
        let mut document = Document::parse(&text, environment);
        let (database, _) = document.section("database", database::read);
        document.finish_section()?;
        let missing = || Fault {
            key: "database.url".to_owned(),
            line: None,
            problem: "is missing: postgres://user:password@host:5432/database".to_owned(),
        };
        database.ok_or_else(|| Faults(vec![missing()]))
    }
}

impl ListenConfig {
    /// Reads only `[listen]`, for `healthcheck`: a running proxy goes on with what it has while the rest of the file
    /// is faulty, and must not be stopped for it.
    pub fn load(file: Option<&Path>, environment: &Environment) -> Result<Self, Faults> {
        let text = read_file(file)?;
        let mut document = Document::parse(&text, environment);
        let listen = document.section("listen", listen::read);
        document.finish_section()?;
        Ok(listen)
    }
}

/// The sections that the commands on alert rules need.
#[derive(Clone, Debug)]
pub struct RulesCommandConfig {
    /// `[database]`; `None` without an address.
    pub database: Option<DatabaseConfig>,
    /// `[tenancy]`.
    pub tenancy: TenancyConfig,
    /// `[rules]`, enabled; without addresses if there is no `[upstream]`.
    pub rules: RulesConfig,
    /// `[channels]`.
    pub channels: ChannelsConfig,
}

impl RulesCommandConfig {
    pub fn load(file: Option<&Path>, environment: &Environment) -> Result<Self, Faults> {
        let text = read_file(file)?;
        let mut document = Document::parse(&text, environment);
        let (database, has_database) = document.section("database", database::read);
        let roles = document.section("roles", tenancy::read_roles);
        let tenancy = document.section("tenancy", |section| tenancy::read(section, has_database));
        let upstream = document.section_if_any("upstream", upstream::read);
        let mut rules =
            document.section("rules", |section| rules::read(section, upstream.as_ref(), true));
        rules.enabled = true;
        let limits = document.section("limits", |section| limits::read(section, has_database));
        rules.expressions = limits.expressions;
        let channels = document.section("channels", |section| channels::read(section, &rules));
        document.finish_section()?;
        Ok(Self { database, tenancy: TenancyConfig { roles, ..tenancy }, rules, channels })
    }
}

/// The files of a configuration: its own, those of secrets, and those that keys name, whose names end in
/// `_file` or `_files`. Also of a configuration that is faulty: the fault may be in one of them.
pub fn named_files(file: Option<&Path>, environment: &Environment) -> Vec<PathBuf> {
    let text = read_file(file).unwrap_or_default();
    let (table, _) = toml::de::DeTable::parse_recoverable(&text);
    let mut files: Vec<PathBuf> = file.map(Path::to_owned).into_iter().collect();
    for section in table.get_ref().values() {
        let Some(section) = section.get_ref().as_table() else { continue };
        let named = section.iter().filter(|(key, _)| is_of_files(key.get_ref()));
        for (_, value) in named {
            let texts = value.get_ref().as_array().map_or_else(
                || vec![value.get_ref()],
                |items| items.iter().map(toml::Spanned::get_ref).collect(),
            );
            files.extend(texts.into_iter().filter_map(|text| Some(text.as_str()?.into())));
        }
    }
    files.extend(environment.files());
    files
}

fn is_of_files(key: &str) -> bool {
    key.ends_with("_file") || key.ends_with("_files")
}

fn read_file(file: Option<&Path>) -> Result<String, Faults> {
    let Some(path) = file else { return Ok(String::new()) };
    std::fs::read_to_string(path).map_err(|error| {
        let key = path.display().to_string();
        Faults(vec![Fault { key, line: None, problem: format!("cannot be read: {error}") }])
    })
}

fn lines(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn in_line(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!("line {line}: "))
}

#[cfg(test)]
mod tests;
