//! Whether `sundown verify`'s own client is a bottleneck: how many requests a second it gets out of
//! a server, beside wrk.
//!
//! It looks at the socket before and after each write and judges each answer; wrk counts. Both have
//! a core to themselves, the server has the other. Ours is an example of the crate, built as wrk is:
//! for speed.

use std::process::Command;

use anyhow::{Context, ensure};

use super::Bench;
use super::findings::{Bound, Claim, Figure, Findings, Row};
use super::side::{BASELINE, CONTROL, OURS, Server, Side, interleave};
use super::statistics::{estimate, estimate_over, median, ratios};
use super::throughput::CONNECTIONS;
use crate::progress;

/// Of the control's median ratio.
const RATE: Bound = Bound::AtLeast(0.8);

const LABELS: [&str; 3] = ["wrk", "wrk again (A/A)", "sundown verify"];

const PATH: &str = "/fast";

pub(super) async fn run(bench: &Bench<'_>) -> anyhow::Result<Option<Findings>> {
    if Command::new("wrk").arg("--version").output().is_err() {
        eprintln!("skipped: the client is compared with wrk: install Debian's package wrk");
        return Ok(None);
    }
    build(bench)?;
    let server = Side::axum()?;
    let seconds = bench.length.as_secs().max(1);
    let mut rates: [Vec<f64>; 3] = Default::default();
    for (round, index) in interleave(bench.pairs, LABELS.len()) {
        progress::line(&format!(
            "client: round {} of {}: {}",
            round + 1,
            bench.pairs,
            LABELS[index]
        ));
        let Server {
            process, address, ..
        } = server.start(bench.workspace, bench.server_core()).await?;
        let target = address.to_string();
        let words = match index {
            OURS => our_words(bench, &target, seconds),
            _ => wrk_words(bench, &target, seconds),
        };
        let rate = measured(&words)?;
        drop(process);
        rates[index].push(rate);
    }
    Ok(Some(findings(bench, &server, seconds, &rates)))
}

fn build(bench: &Bench<'_>) -> anyhow::Result<()> {
    let mut cargo = bench.workspace.cargo();
    cargo.args([
        "build",
        "--quiet",
        "--release",
        "--package",
        "sundown-verify",
    ]);
    cargo.args(["--example", "closed_loop"]);
    ensure!(cargo.status()?.success(), "the client could not be built");
    Ok(())
}

fn findings(bench: &Bench<'_>, server: &Side, seconds: u64, rates: &[Vec<f64>; 3]) -> Findings {
    let row = |index: usize| Row {
        server: LABELS[index].to_owned(),
        figures: vec![
            Figure::plain("rate", "/s", median(&rates[index])),
            Figure::ratio(
                "of the baseline's",
                estimate(&ratios(&rates[index], &rates[BASELINE])),
            ),
        ],
    };
    Findings {
        subject: "client",
        how: format!(
            "GET {PATH} over {CONNECTIONS} kept-alive connections, closed loop, {} rounds of {seconds} s, medians and 95 % intervals",
            bench.pairs
        ),
        commands: vec![
            server.command(bench.workspace, bench.server_core()),
            wrk_words(bench, "ADDRESS", seconds).join(" "),
            our_words(bench, "ADDRESS", seconds).join(" "),
        ],
        rows: [BASELINE, CONTROL, OURS].map(row).into(),
        claims: vec![Claim::ratio(
            "rate, sundown verify / wrk, of the A/A control",
            estimate_over(
                &ratios(&rates[OURS], &rates[BASELINE]),
                &ratios(&rates[CONTROL], &rates[BASELINE]),
            ),
            RATE,
        )],
    }
}

fn wrk_words(bench: &Bench<'_>, target: &str, seconds: u64) -> Vec<String> {
    let target = format!("http://{target}{PATH}");
    let (connections, length) = (format!("-c{CONNECTIONS}"), format!("-d{seconds}s"));
    on_core(bench, &["wrk", "-t1", &connections, &length, &target])
}

fn our_words(bench: &Bench<'_>, target: &str, seconds: u64) -> Vec<String> {
    let program = bench.workspace.target.join("release/examples/closed_loop");
    let (connections, seconds) = (CONNECTIONS.to_string(), seconds.to_string());
    let program = bench.workspace.relative(&program).display().to_string();
    on_core(bench, &[&program, target, PATH, &connections, &seconds])
}

fn on_core(bench: &Bench<'_>, command: &[&str]) -> Vec<String> {
    let core = bench.machine.client_core.to_string();
    let words = ["taskset", "-c", &core].into_iter();
    words
        .chain(command.iter().copied())
        .map(str::to_owned)
        .collect()
}

/// Runs a client to its end; returns the rate that it tells.
fn measured(words: &[String]) -> anyhow::Result<f64> {
    let said = Command::new(&words[0]).args(&words[1..]).output()?;
    ensure!(
        said.status.success(),
        "{} failed: {}",
        words.join(" "),
        said.status
    );
    let said = String::from_utf8_lossy(&said.stdout);
    rate(&said).with_context(|| format!("no rate in what it told: {said}"))
}

/// The line `Requests/sec:  12345.67`.
fn rate(said: &str) -> Option<f64> {
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix("Requests/sec:"));
    line?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::rate;

    #[test]
    fn wrk_tells_its_rate_in_a_line_of_its_own() {
        let said = "  Latency  1.2ms\nRequests/sec:  54321.50\nTransfer/sec:      6.21MB\n";
        assert_eq!(rate(said), Some(54321.5));
        assert_eq!(rate("unable to connect"), None);
    }
}
