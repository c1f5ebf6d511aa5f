//! The project's own chores: `cargo xtask --help` lists them.
//!
//! Exit codes: 0 the promise holds, 1 it is broken, 2 it could not be found out.

mod ask;
mod bench;
mod browser;
mod certificate;
mod chain;
mod ci;
mod collector;
mod crashes;
mod dashboards;
mod false_alarms;
mod folder;
mod fuzz;
mod guarded;
mod instants;
mod lines;
mod misbehave;
mod open_files;
mod orphans;
mod patience;
mod peer;
mod peers;
mod planted;
mod postgres;
mod progress;
mod restarts;
mod secrets;
mod shipped;
mod shop;
mod spans;
mod stops;
mod streams;
mod tidy;
mod workspace;
mod zoo;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Chores of the Sundown workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    Bench(bench::Arguments),
    Browser(browser::Arguments),
    Chain(chain::Arguments),
    Ci(ci::Arguments),
    Crashes(crashes::Arguments),
    Dashboards(dashboards::Arguments),
    FalseAlarms(false_alarms::Arguments),
    Fuzz(fuzz::Arguments),
    Instants(instants::Arguments),
    Lines(lines::Arguments),
    Misbehave(misbehave::Arguments),
    Patience(patience::Arguments),
    Orphans(orphans::Arguments),
    Peer(peer::Arguments),
    Peers(peers::contract::Arguments),
    Postgres(postgres::Arguments),
    Restarts(restarts::Arguments),
    Secrets(secrets::Arguments),
    Shipped(shipped::Arguments),
    Spans(spans::Arguments),
    Guarded(guarded::Arguments),
    Stops(stops::Arguments),
    Streams(streams::Arguments),
    Tidy(tidy::Arguments),
    Zoo(zoo::Arguments),
}

/// What a chore found out. That it could find nothing out is an error instead.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Holds,
    Broken,
}

fn main() -> ExitCode {
    match run(Arguments::parse().chore) {
        Ok(Verdict::Holds) => ExitCode::SUCCESS,
        Ok(Verdict::Broken) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(chore: Chore) -> anyhow::Result<Verdict> {
    let workspace = Workspace::find()?;
    match chore {
        Chore::Bench(arguments) => bench::run(&workspace, &arguments),
        Chore::Browser(arguments) => browser::run(&workspace, &arguments),
        Chore::Chain(arguments) => chain::run(&workspace, &arguments),
        Chore::Ci(arguments) => ci::run(&workspace, &arguments),
        Chore::Crashes(arguments) => crashes::run(&workspace, &arguments),
        Chore::Dashboards(arguments) => dashboards::run(&workspace, &arguments),
        Chore::FalseAlarms(arguments) => false_alarms::run(&workspace, &arguments),
        Chore::Fuzz(arguments) => fuzz::run(&workspace, &arguments),
        Chore::Instants(arguments) => instants::run(&workspace, &arguments),
        Chore::Lines(arguments) => lines::run(&workspace, &arguments),
        Chore::Misbehave(arguments) => misbehave::run(&workspace, &arguments),
        Chore::Patience(arguments) => patience::run(&workspace, &arguments),
        Chore::Orphans(arguments) => orphans::run(&workspace, &arguments),
        Chore::Peer(arguments) => peer::run(&workspace, &arguments),
        Chore::Peers(arguments) => peers::contract::run(&workspace, &arguments),
        Chore::Postgres(arguments) => postgres::run(&workspace, &arguments),
        Chore::Restarts(arguments) => restarts::run(&workspace, &arguments),
        Chore::Secrets(arguments) => secrets::run(&arguments),
        Chore::Shipped(arguments) => shipped::run(&workspace, &arguments),
        Chore::Spans(arguments) => spans::run(&workspace, &arguments),
        Chore::Guarded(arguments) => guarded::run(&workspace, &arguments),
        Chore::Stops(arguments) => stops::run(&workspace, &arguments),
        Chore::Streams(arguments) => streams::run(&workspace, &arguments),
        Chore::Tidy(arguments) => tidy::run(&workspace, &arguments),
        Chore::Zoo(arguments) => zoo::run(&workspace, &arguments),
    }
}
