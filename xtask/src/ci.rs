//! `cargo xtask ci`: every check of the repository, in the order in which they fail fastest.
//!
//! Never hides a step: each is named with what it took, and the first that fails ends the run.

use std::time::{Duration, Instant};

use anyhow::Context;

use crate::workspace::Workspace;
use crate::{Verdict, browser, chain, dashboards, peers, postgres, shipped, tidy};

/// Run every check: format, lints, tests, features, documentation, tree, peers, Postgres and browser
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Leave `cargo test` out, for a caller that runs it itself
    #[arg(long, env = "XTASK_SKIP_TESTS")]
    skip_tests: bool,
}

/// One check, by the name that an operator would say.
struct Step {
    name: &'static str,
    check: Check,
}

enum Check {
    /// Runs cargo with these words, after setting these variables.
    Cargo(&'static [(&'static str, &'static str)], &'static str),
    /// Runs the chore of this name within this process.
    Chore(&'static str, fn(&Workspace) -> anyhow::Result<Verdict>),
}

use Check::{Cargo, Chore};

const TESTS: &str = "tests";

#[rustfmt::skip] // A table reads best with a row a line.
const STEPS: &[Step] = &[
    Step { name: "format", check: Cargo(&[], "fmt --all --check") },
    Step { name: "lints", check: Cargo(&[], "clippy --workspace --all-targets -- -D warnings") },
    Step { name: TESTS, check: Cargo(&[], "test --workspace") },
    Step { name: "no features", check: Cargo(&[], "check --package sundown --no-default-features") },
    Step { name: "all features", check: Cargo(&[], "check --package sundown --all-features") },
    Step { name: "documentation", check: Cargo(&[("RUSTDOCFLAGS", "-D warnings")], "doc --workspace --no-deps") },
    Step { name: "tidy", check: Chore("tidy", |workspace| tidy::run(workspace, &tidy::Arguments {})) },
    Step { name: "peers", check: Chore("peers", |workspace| peers::contract::run(workspace, &Default::default())) },
    Step { name: "postgres", check: Chore("postgres", |workspace| postgres::run(workspace, &postgres::Arguments {})) },
    Step { name: "browser", check: Chore("browser", |workspace| browser::run(workspace, &browser::Arguments {})) },
    // The measurements in a short form, so that they cannot rot; what they measure here judges little.
    Step { name: "stops", check: Cargo(&[], "xtask stops --stops 2 --held 2") },
    Step { name: "streams", check: Cargo(&[], "xtask streams --stops 2 --open 20 --calls 10 --against=") },
    Step { name: "restarts", check: Cargo(&[], "xtask restarts --restarts 3 --thinkers 20 --think 3s --kept 2") },
    Step { name: "guarded", check: Cargo(&[], "xtask guarded --servers gin-default,node-default,gunicorn,haproxy --stops 1 --restarts 2 --kills 1") },
    Step { name: "guarded, ordinary user", check: Cargo(&[], "xtask guarded --servers nginx --stops 1 --restarts 1 --kills 1 --ordinary-user") },
    Step { name: "guarded, as in a container", check: Cargo(&[], "xtask guarded --servers nginx-reuseport --stops 1 --restarts 1 --kills 1 --deny-descriptors") },
    Step { name: "patience", check: Cargo(&[], "xtask patience --servers node-default --restarts 2 --each 5 --held 10 --handshakes 5 --quiet 1") },
    Step { name: "orphans", check: Cargo(&[], "xtask orphans --kills 12") },
    Step { name: "lines", check: Cargo(&[], "xtask lines --stops 3") },
    Step { name: "spans", check: Cargo(&[], "xtask spans --stops 3") },
    Step { name: "chain", check: Chore("chain", |workspace| chain::run(workspace, &chain::Arguments {})) },
    Step { name: "shipped", check: Chore("shipped", |workspace| shipped::run(workspace, &shipped::Arguments {})) },
    Step { name: "dashboards", check: Chore("dashboards", |workspace| dashboards::run(workspace, &dashboards::Arguments {})) },
    Step { name: "secrets", check: Cargo(&[], "xtask secrets --lines 20000") },
    Step { name: "fuzz", check: Cargo(&[], "xtask fuzz --seconds 5") },
    Step { name: "misbehave", check: Cargo(&[], "xtask misbehave --each 20") },
    Step { name: "instants", check: Cargo(&[], "xtask instants --instants 5") },
    Step { name: "crashes", check: Cargo(&[], "xtask crashes --kills 4 --terms 4") },
    Step { name: "zoo", check: Cargo(&[], "xtask zoo sundown axum --runs 1 --only listener/2,http1/2,signal,stream/1 --into target/zoo") },
    Step { name: "zoo, guarded", check: Cargo(&[], "xtask zoo --guarded flask --runs 1 --only listener/2,signal/2,signal/7 --into target/zoo") },
    Step { name: "false alarms", check: Cargo(&[], "xtask false-alarms --runs 2") },
    Step { name: "bench", check: Cargo(&[], "xtask bench --short") },
];

/// Runs the steps one after the other, to the first that fails.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Verdict> {
    let started = Instant::now();
    let mut passed = Vec::new();
    for step in STEPS {
        if arguments.skip_tests && step.name == TESTS {
            continue;
        }
        let alone = step.check.alone();
        eprintln!("ci: {}: {alone}", step.name);
        let began = Instant::now();
        let verdict = step.check.run(workspace);
        let took = seconds(began.elapsed());
        match verdict {
            Ok(Verdict::Holds) => eprintln!("ci: {}: ok, {took}", step.name),
            Ok(Verdict::Broken) => {
                println!(
                    "ci: {} failed after {took}; run it alone: {alone}",
                    step.name
                );
                return Ok(Verdict::Broken);
            }
            Err(error) => return Err(error.context(format!("ci: {} ({alone})", step.name))),
        }
        passed.push(step.name);
    }
    println!(
        "ci: ok in {}: {}",
        seconds(started.elapsed()),
        passed.join(", ")
    );
    Ok(Verdict::Holds)
}

impl Check {
    fn run(&self, workspace: &Workspace) -> anyhow::Result<Verdict> {
        match self {
            Chore(_, chore) => chore(workspace),
            Cargo(variables, words) => {
                let mut cargo = workspace.cargo();
                cargo.args(words.split(' ')).envs(variables.iter().copied());
                let status = cargo.status().context("could not run cargo")?;
                Ok(if status.success() {
                    Verdict::Holds
                } else {
                    Verdict::Broken
                })
            }
        }
    }

    /// Returns the line that runs this check and nothing else.
    fn alone(&self) -> String {
        match self {
            Chore(name, _) => format!("cargo xtask {name}"),
            Cargo(variables, words) => {
                let set = |(name, value): &(&str, &str)| format!("{name}='{value}' ");
                variables
                    .iter()
                    .map(set)
                    .chain([format!("cargo {words}")])
                    .collect()
            }
        }
    }
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: &str) {
        let step = STEPS
            .iter()
            .find(|step| step.name == name)
            .expect("there is such a step");
        assert_eq!(step.check.alone(), expected);
    }

    #[test]
    fn a_failed_step_can_be_run_alone_by_the_line_it_prints() {
        check(
            "documentation",
            "RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps",
        );
        check("tests", "cargo test --workspace");
        check("peers", "cargo xtask peers");
    }
}
