//! What a package installs beside the program: completions for shells, and manual pages. Both are
//! written from the command line itself.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use super::{Outcome, Said};

/// Which shell.
#[derive(Args)]
pub struct Completions {
    /// The shell.
    shell: Shell,
}

/// Where to.
#[derive(Args)]
pub struct Man {
    /// A folder, made if need be: one page for each command. The program's own page on standard output by
    /// default.
    #[arg(value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

/// The completions of a shell.
pub fn completions(mut command: Command, args: &Completions) -> Outcome {
    let name = command.get_name().to_owned();
    let mut written = Vec::new();
    clap_complete::generate(args.shell, &mut command, &name, &mut written);
    if args.shell == Shell::Bash {
        // clap_complete 4.6 names a program with a hyphen in two ways, and completes no subcommand.
        let written_one = name.replace('-', "__subcmd__");
        let text =
            String::from_utf8_lossy(&written).replace(&written_one, &name.replace('-', "__"));
        written = text.into_bytes();
    }
    Ok(said(written))
}

/// The manual page, or all of them.
pub fn man(command: Command, args: &Man) -> Outcome {
    if let Some(directory) = &args.directory {
        let done = std::fs::create_dir_all(directory)
            .and_then(|()| clap_mangen::generate_to(command, directory));
        done.map_err(|error| format!("{}: {error}", directory.display()))?;
        return Ok(said(Vec::new()));
    }
    let mut written = Vec::new();
    let done = clap_mangen::Man::new(command).render(&mut written);
    done.map_err(|error| error.to_string())?;
    Ok(said(written))
}

/// The last line's end is added when it is printed.
fn said(written: Vec<u8>) -> Said {
    Said::from(String::from_utf8_lossy(&written).trim_end().to_owned())
}
