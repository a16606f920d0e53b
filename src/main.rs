//! Command line -> configuration -> one of the commands -> exit code.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use mimir_tenant_proxy::app;
use mimir_tenant_proxy::command::{
    self, ChannelsCommand, CheckConfig, Completions, DeviceKeyCommand, ExplainToken, Man, Migrate,
    RulesCommand, Said,
};
use mimir_tenant_proxy::config::{
    Config, DatabaseConfig, Environment, ListenConfig, RulesCommandConfig,
};
use mimir_tenant_proxy::{heap, version};

mod examples;

/// Streaming, multi-tenant, authenticating reverse proxy in front of Grafana Mimir.
#[derive(Parser)]
#[command(version = version::TEXT.as_str(), about, after_help = examples::FIRST_STEPS)]
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
    #[command(after_help = examples::SERVE)]
    Serve,
    /// Report every fault of the configuration, of Mimir's too if it is named, and exit.
    #[command(after_help = examples::CHECK_CONFIG)]
    CheckConfig(CheckConfig),
    /// Bring the database's tables up to date.
    #[command(after_help = examples::MIGRATE)]
    Migrate(Migrate),
    /// Make, list and revoke keys of devices.
    #[command(subcommand, after_help = examples::DEVICE_KEY)]
    DeviceKey(DeviceKeyCommand),
    /// Check alert rules, show what a sync would change, and sync them.
    #[command(subcommand, after_help = examples::RULES)]
    Rules(RulesCommand),
    /// Show what a sync of notification channels would change, sync them, and test one.
    #[command(subcommand, after_help = examples::CHANNELS)]
    Channels(ChannelsCommand),
    /// Say step by step why a token or device key would pass or not.
    #[command(after_help = examples::EXPLAIN_TOKEN)]
    ExplainToken(ExplainToken),
    /// Ask the running proxy's private port whether it is ready.
    #[command(after_help = examples::HEALTHCHECK)]
    Healthcheck,
    /// Print the completions of a shell.
    #[command(hide = true)]
    Completions(Completions),
    /// Print the manual page, or write one for each command.
    #[command(hide = true)]
    Man(Man),
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
            Ok(config) => return serve(config, file, &environment),
            Err(faults) => Err(faults),
        },
        Command::CheckConfig(args) => return check_config(file, &environment, &args),
        Command::ExplainToken(args) => config().map(|config| command::explain_token(&config, args)),
        Command::Rules(what) => {
            RulesCommandConfig::load(file, &environment).map(|config| command::rules(&config, what))
        }
        Command::Channels(what) => RulesCommandConfig::load(file, &environment)
            .map(|config| command::channels(&config, what)),
        Command::Healthcheck => {
            ListenConfig::load(file, &environment).map(|config| command::healthcheck(&config))
        }
        Command::Completions(args) => Ok(command::completions(Cli::command(), &args)),
        Command::Man(args) => Ok(command::man(Cli::command(), &args)),
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

fn serve(config: Config, file: Option<&Path>, environment: &Environment) -> ExitCode {
    heap::keep_freed_memory();
    match app::serve(config, file, environment) {
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// The command and all below it.
    fn all(command: &clap::Command) -> Vec<clap::Command> {
        let below = command.get_subcommands().flat_map(all);
        std::iter::once(command.clone()).chain(below).collect()
    }

    /// The command lines of an example, without what a shell does with them.
    fn lines(text: &str) -> impl Iterator<Item = Vec<String>> {
        let lines =
            text.lines().map(str::trim).filter(|line| line.starts_with("mimir-tenant-proxy "));
        lines.map(|line| {
            let line = line.split(" < ").next().unwrap_or_default();
            let line = line.split(" > ").next().unwrap_or_default();
            // In quotes is one word.
            let mut words = Vec::new();
            for (index, piece) in line.split('"').enumerate() {
                if index % 2 == 1 {
                    words.push(piece.to_owned());
                } else {
                    words.extend(piece.split_whitespace().map(str::to_owned));
                }
            }
            words
        })
    }

    // An example that does not work teaches nothing.
    #[test]
    fn every_example_of_the_help_is_a_command_line() {
        let mut count = 0;
        for command in all(&Cli::command()) {
            let Some(text) = command.get_after_help() else { continue };
            for line in lines(&text.to_string()) {
                let read = Cli::try_parse_from(&line);
                assert!(
                    read.is_ok(),
                    "{line:?}: {}",
                    read.err().map_or(String::new(), |e| e.to_string())
                );
                count += 1;
            }
        }
        assert!(count >= 20, "{count}");
    }

    #[test]
    fn every_command_has_an_example() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let own = format!("mimir-tenant-proxy {}", command.get_name());
            assert!(text.contains(&own), "{}", command.get_name());
        }
    }

    // Each word moves to a command that has its own words. It moved to names that were nowhere else.
    #[test]
    fn every_command_that_bash_finds_has_completions() {
        let Ok(Cli { command: Command::Completions(args), .. }) =
            Cli::try_parse_from(["x", "completions", "bash"])
        else {
            panic!()
        };
        let script = command::completions(Cli::command(), &args).unwrap().answer;
        let found = script.split("cmd=\"").skip(1).filter_map(|rest| rest.split('"').next());
        let found: std::collections::BTreeSet<_> = found.filter(|name| !name.is_empty()).collect();
        assert!(found.len() > 20, "{found:?}");
        for name in found {
            assert!(script.contains(&format!("\n        {name})\n")), "{name}");
        }
    }

    #[test]
    fn every_shell_has_completions_and_every_command_a_page() {
        for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
            let Ok(Cli { command: Command::Completions(args), .. }) =
                Cli::try_parse_from(["x", "completions", shell])
            else {
                panic!("{shell}")
            };
            let said = command::completions(Cli::command(), &args).unwrap();
            assert!(said.answer.contains("explain-token"), "{shell}");
        }
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("new");
        let directory_name = directory.to_str().unwrap();
        let Ok(Cli { command: Command::Man(args), .. }) =
            Cli::try_parse_from(["x", "man", directory_name])
        else {
            panic!()
        };
        command::man(Cli::command(), &args).unwrap();
        for name in ["mimir-tenant-proxy", "mimir-tenant-proxy-device-key-create"] {
            let page = std::fs::read_to_string(directory.join(format!("{name}.1"))).unwrap();
            assert!(page.contains(".SH SYNOPSIS"), "{name}");
        }
    }
}
