//! Whether `sundown verify`'s own client is a bottleneck: how many requests a second it gets out of
//! a server, beside wrk.
//!
//! It looks at the socket before and after each write and judges each answer; wrk counts. Both have
//! a core to themselves, the server has the other.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sundown_verify::http1::{Connection, Letter};
use sundown_verify::outcome::judge;
use sundown_verify::tcp::Window;
use sundown_verify::{Kind, Plan, Request, Tally};
use tokio::task::LocalSet;

use super::findings::{Bound, Claim, Figure, Findings, Row};
use super::side::{BASELINE, CONTROL, OURS, Server, Side, interleave};
use super::statistics::{estimate, estimate_over, median, ratios};
use super::throughput::CONNECTIONS;
use super::{Bench, on_core};
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
        let Server { process, address } =
            server.start(bench.workspace, bench.server_core()).await?;
        let core = bench.machine.client_core;
        let rate = match index {
            OURS => on_core(core, move || ask(address, Duration::from_secs(seconds))).await?,
            _ => wrk(core, address, seconds)?,
        };
        drop(process);
        rates[index].push(rate);
    }
    Ok(Some(findings(bench, &server, seconds, &rates)))
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
            wrk_words(bench.machine.client_core, "ADDRESS", seconds).join(" "),
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

fn wrk_words(core: usize, address: &str, seconds: u64) -> Vec<String> {
    let (core, connections) = (core.to_string(), format!("-c{CONNECTIONS}"));
    let (length, target) = (format!("-d{seconds}s"), format!("http://{address}{PATH}"));
    let words = [
        "taskset",
        "-c",
        &core,
        "wrk",
        "-t1",
        &connections,
        &length,
        &target,
    ];
    words.map(str::to_owned).into()
}

fn wrk(core: usize, address: SocketAddr, seconds: u64) -> anyhow::Result<f64> {
    let words = wrk_words(core, &address.to_string(), seconds);
    let said = Command::new(&words[0]).args(&words[1..]).output()?;
    ensure!(said.status.success(), "wrk failed: {}", said.status);
    let said = String::from_utf8_lossy(&said.stdout);
    rate(&said).with_context(|| format!("wrk told no rate: {said}"))
}

/// The line `Requests/sec:  12345.67`.
fn rate(said: &str) -> Option<f64> {
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix("Requests/sec:"));
    line?.trim().parse().ok()
}

/// Keeps a request under way on every connection for this long; returns the rate of answers.
fn ask(address: SocketAddr, length: Duration) -> anyhow::Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let clients = LocalSet::new();
    let (begin, end) = (Instant::now(), Instant::now() + length);
    let asking: Vec<_> = (0..CONNECTIONS)
        .map(|_| clients.spawn_local(ask_until(end, address)))
        .collect();
    runtime.block_on(clients.run_until(async {
        let mut all = Tally::default();
        for client in asking {
            all.merge(client.await?);
        }
        let took = begin.elapsed().as_secs_f64();
        ensure!(
            all.total.lost == 0,
            "requests were lost: {:?}",
            all.examples
        );
        Ok(all.total.answered as f64 / took)
    }))
}

async fn ask_until(end: Instant, address: SocketAddr) -> Tally {
    let letter = Letter::new(&[Request::get(PATH)], address);
    let mut tally = Tally::default();
    let opened = Connection::open(address, Window::Usual, Plan::HANG_LIMIT).await;
    let Ok(mut connection) = opened else {
        return tally;
    };
    while Instant::now() < end {
        let exchange = connection.exchange(&letter, Plan::HANG_LIMIT).await;
        tally.count(Kind::KeepAlive, judge(&exchange.evidence(0)));
    }
    tally
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
