//! Command line -> configuration -> one of the commands -> exit code.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use mimir_tenant_proxy::app;
use mimir_tenant_proxy::authn::{KeySet, explain};
use mimir_tenant_proxy::clock::Clock;
use mimir_tenant_proxy::config::{Config, Environment};

/// Streaming, multi-tenant, authenticating reverse proxy in front of Grafana Mimir.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    /// The configuration file (TOML); any key may also come as `MTP__SECTION__KEY`.
    #[arg(long, global = true, env = "MTP_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT.
    Serve,
    /// Report every fault of the configuration and exit.
    CheckConfig,
    /// Say step by step why a token would pass or not.
    ExplainToken(ExplainToken),
    /// Ask the running proxy's private port whether it is ready.
    Healthcheck,
}

#[derive(Args)]
struct ExplainToken {
    /// The token; read from standard input if it is left out, which keeps it out of `ps`.
    token: Option<String>,
    /// A file with the issuer's key set (JWKS); then nothing is fetched.
    #[arg(long, value_name = "FILE")]
    key_set: Option<PathBuf>,
}

/// `EX_USAGE` of sysexits.h: the configuration is at fault.
const EXIT_CONFIG: u8 = 64;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match Config::load(cli.config.as_deref(), &Environment::of_process()) {
        Ok(config) => config,
        Err(faults) => {
            complain(&faults.to_string());
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let outcome = match cli.command {
        Command::Serve => app::serve(&config).map_err(|error| error.to_string()),
        Command::CheckConfig => {
            say("the configuration is valid");
            Ok(())
        }
        Command::ExplainToken(args) => explain_token(&config, args),
        Command::Healthcheck => healthcheck(&config),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            complain(&problem);
            ExitCode::FAILURE
        }
    }
}

fn explain_token(config: &Config, args: ExplainToken) -> Result<(), String> {
    let token = match args.token {
        Some(token) => token,
        None => read_standard_input()?,
    };
    let keys = match args.key_set {
        Some(file) => read_key_set(&file),
        None => match &config.auth.key_set {
            Some(key_set) => on_a_runtime(app::fetch_key_set(key_set))?
                .map_err(|error| format!("the key set could not be fetched: {error}")),
            None => Err("no key set is configured (auth.jwks_url is empty)".to_owned()),
        },
    };
    let now = Clock::system().unix_seconds();
    let keys = keys.as_ref().map_err(String::as_str);
    let explanation = explain(&token, &config.auth, &config.tenancy, keys, now);
    say(&explanation.to_string());
    if explanation.passes() { Ok(()) } else { Err("the token would be refused".to_owned()) }
}

fn read_standard_input() -> Result<String, String> {
    let mut token = String::new();
    let read = std::io::stdin().read_to_string(&mut token);
    read.map(|_| token).map_err(|error| format!("standard input cannot be read: {error}"))
}

fn read_key_set(file: &Path) -> Result<KeySet, String> {
    let document = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    KeySet::parse(&document).map_err(|error| format!("{}: {error}", file.display()))
}

fn healthcheck(config: &Config) -> Result<(), String> {
    let mut address = config.listen.internal_address;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let answer = on_a_runtime(async move {
        let client =
            reqwest::Client::builder().timeout(Duration::from_secs(3)).no_proxy().build()?;
        let answer = client.get(format!("http://{address}/ready")).send().await?;
        let status = answer.status();
        Ok::<_, reqwest::Error>((status, answer.text().await?))
    })?;
    match answer {
        Ok((status, facts)) if status.is_success() => {
            say(facts.trim_end());
            Ok(())
        }
        Ok((_, facts)) => Err(facts.trim_end().to_owned()),
        Err(error) => Err(format!("{address} does not answer: {error}")),
    }
}

fn on_a_runtime<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|error| error.to_string())?.block_on(work))
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn say(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "the complaint of a command")]
fn complain(text: &str) {
    eprintln!("{text}");
}
