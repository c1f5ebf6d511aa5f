//! The command `sundown`.

mod control;
mod demo;
mod run;
mod signals;
mod toml_file;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Stop, restart and replace network services without losing a request.
#[derive(Debug, Parser)]
#[command(name = "sundown", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXIT_CODES: &str = "\
Exit codes, but for run, which has its own:
  0  the promise was kept
  1  the promise was broken
  2  it could not be found out: bad arguments, or something could not be started
  3  too little was seen to tell";

#[derive(Debug, Subcommand)]
enum Verb {
    Demo(demo::Arguments),
    Verify(Box<verify::Arguments>),
    Run(Box<run::Arguments>),
    /// Tell how a guarded service is, and what holds up the end of a generation
    Status(control::Whom),
    Restart(control::Restart),
    /// Stop a guarded service, as SIGTERM does
    Stop(control::Whom),
    /// The process between a guard and what it guards.
    #[command(name = run::KEEPER, hide = true, disable_help_flag = true)]
    Keeper(run::Keeper),
    /// One service of the shop: the demo starts it from this same file.
    #[command(name = "__shop", hide = true, disable_help_flag = true)]
    Shop {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// What a verb found out; that it could not is an error instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Kept,
    Broken,
    Inconclusive,
}

fn main() -> ExitCode {
    let verdict = match Cli::parse().verb {
        Verb::Shop { arguments } => {
            return shop::run(std::iter::once(OsString::from("shop")).chain(arguments));
        }
        Verb::Run(arguments) => return run::run(*arguments),
        Verb::Status(whom) => return whom.ask(sundown_guard::Verb::Status),
        Verb::Restart(restart) => return restart.run(),
        Verb::Stop(whom) => return whom.ask(sundown_guard::Verb::Stop),
        Verb::Keeper(keeper) => return keeper.run(),
        Verb::Demo(arguments) => demo::run(&arguments),
        Verb::Verify(arguments) => verify::run(&arguments),
    };
    match verdict {
        Ok(Verdict::Kept) => ExitCode::SUCCESS,
        Ok(Verdict::Broken) => ExitCode::from(1),
        Ok(Verdict::Inconclusive) => ExitCode::from(3),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
