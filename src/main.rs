//! Command line -> configuration -> one of the commands -> exit code.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mimir_tenant_proxy::app;
use mimir_tenant_proxy::command::{
    self, ChannelsCommand, CheckConfig, DeviceKeyCommand, ExplainToken, Migrate, RulesCommand, Said,
};
use mimir_tenant_proxy::config::{Config, DatabaseConfig, Environment, RulesCommandConfig};
use mimir_tenant_proxy::version;

/// Streaming, multi-tenant, authenticating reverse proxy in front of Grafana Mimir.
#[derive(Parser)]
#[command(version = version::TEXT.as_str(), about)]
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
    /// Report every fault of the configuration, of Mimir's too if it is named, and exit.
    CheckConfig(CheckConfig),
    /// Bring the database's tables up to date.
    Migrate(Migrate),
    /// Make, list and revoke keys of devices.
    #[command(subcommand)]
    DeviceKey(DeviceKeyCommand),
    /// Check alert rules, show what a sync would change, and sync them.
    #[command(subcommand)]
    Rules(RulesCommand),
    /// Show what a sync of notification channels would change, sync them, and test one.
    #[command(subcommand)]
    Channels(ChannelsCommand),
    /// Say step by step why a token or device key would pass or not.
    ExplainToken(ExplainToken),
    /// Ask the running proxy's private port whether it is ready.
    Healthcheck,
}

/// `EX_USAGE` of sysexits.h: the configuration is at fault.
const EXIT_CONFIG: u8 = 64;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (file, environment) = (cli.config.as_deref(), Environment::of_process());
    // What only works on the database needs no more than that of the configuration.
    let database = || DatabaseConfig::load(file, &environment);
    let config = || Config::load(file, &environment);
    let outcome = match cli.command {
        Command::Migrate(args) => database().map(|database| command::migrate(&database, &args)),
        Command::DeviceKey(what) => database().map(|database| command::device_key(&database, what)),
        Command::Serve => match config() {
            Ok(config) => return serve(&config),
            Err(faults) => Err(faults),
        },
        Command::CheckConfig(args) => return check_config(file, &environment, &args),
        Command::ExplainToken(args) => config().map(|config| command::explain_token(&config, args)),
        Command::Rules(what) => {
            RulesCommandConfig::load(file, &environment).map(|config| command::rules(&config, what))
        }
        Command::Channels(what) => RulesCommandConfig::load(file, &environment)
            .map(|config| command::channels(&config, what)),
        Command::Healthcheck => config().map(|config| command::healthcheck(&config)),
    };
    match outcome {
        Ok(Ok(said)) => {
            let exit_code = answer(&said);
            if let Some(note) = said.note {
                complain(&note);
            }
            exit_code
        }
        Ok(Err(problem)) => {
            complain(&problem);
            ExitCode::FAILURE
        }
        Err(faults) => {
            complain(&faults.to_string());
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

fn check_config(file: Option<&Path>, environment: &Environment, args: &CheckConfig) -> ExitCode {
    let said = command::check_config(file, environment, args);
    if let Some(note) = &said.note {
        complain(note);
    }
    answer(&said)
}

fn serve(config: &Config) -> ExitCode {
    match app::serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            // What the configuration says does not fit what is there.
            let is_config = error.kind() == ErrorKind::InvalidInput;
            if is_config { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

/// Prints a command's answer; what the command ends with. A reader that has seen enough (`| head -1`) is
/// no failure.
fn answer(said: &Said) -> ExitCode {
    if said.answer.is_empty() {
        return ExitCode::from(said.exit_code);
    }
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{}", said.answer).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            complain(&format!("standard output cannot be written: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::from(said.exit_code),
    }
}

fn complain(text: &str) {
    // Where this cannot be written there is no other place for it.
    let _ = writeln!(std::io::stderr(), "{text}");
}
