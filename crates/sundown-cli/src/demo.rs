//! `sundown demo`: a shop under load is stopped twice, plainly and with Sundown, and what was lost
//! is counted.
//!
//! The client writes its own bytes and never retries. Both sides get the same load, the same
//! signal and the same audit of their databases afterwards.

mod outcome;
mod side;
mod witness;

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use crate::Verdict;
use outcome::Outcome;
use side::{Side, Workshop};

/// Stop a shop under load, plainly and with Sundown, and count what is lost
///
/// Takes some twenty seconds and needs nothing but this file. An order service and an inventory
/// service are started twice under a mixed load (kept connections, new connections, requests that
/// arrive in two pieces, slow requests, uploads), and stopped by SIGTERM in the middle of it.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Print JSON instead of a table
    #[arg(long, env = "SUNDOWN_DEMO_JSON")]
    json: bool,

    /// How long each shop is under load before it is stopped
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 6.0,
        env = "SUNDOWN_DEMO_LOAD"
    )]
    load: f64,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    let load = Duration::try_from_secs_f64(arguments.load)
        .ok()
        .filter(|load| (0.5..=60.0).contains(&load.as_secs_f64()))
        .with_context(|| format!("--load {}: give 0.5 to 60 seconds", arguments.load))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tokio::select! {
            verdict = contest(arguments, load) => verdict,
            // What was started is ended by dropping the contest.
            stopped = told_to_stop() => stopped,
        }
    })
}

async fn told_to_stop() -> anyhow::Result<Verdict> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    bail!("interrupted; what the demo had started was ended");
}

async fn contest(arguments: &Arguments, load: Duration) -> anyhow::Result<Verdict> {
    let workshop = Workshop::new()?;
    let plain = play(&workshop, Side::Plain, load).await?;
    let sundown = play(&workshop, Side::Sundown, load).await?;
    if arguments.json {
        println!("{}", outcome::json(&plain, &sundown)?);
    } else {
        print!("{}", outcome::page(&plain, &sundown));
    }
    Ok(judge(&sundown))
}

/// A run that saw nothing in flight when the signal came proves nothing.
fn judge(sundown: &Outcome) -> Verdict {
    if !sundown.keeps_the_promise() {
        Verdict::Broken
    } else if sundown.in_flight_at_signal == 0 {
        Verdict::Inconclusive
    } else {
        Verdict::Kept
    }
}

async fn play(workshop: &Workshop, side: Side, load: Duration) -> anyhow::Result<Outcome> {
    let progress = bar(load);
    progress.set_prefix(side.label());
    let outcome = side::play(workshop, side, load, &progress).await;
    progress.finish_and_clear();
    outcome.with_context(|| format!("the {} shop", side.label()))
}

fn bar(load: Duration) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix:>8} {bar:24} {msg}")
        .expect("the template is a constant that a test renders");
    ProgressBar::new(load.as_millis() as u64).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_progress_line_can_be_made() {
        assert!(ProgressStyle::with_template("{prefix:>8} {bar:24} {msg}").is_ok());
    }
}
