//! What a line in a log for each request costs: throughput's load on a server that logs none, one that filters them
//! out, and two that write them, by sundown-telemetry and by tracing-subscriber's JSON with tracing-appender.

use super::Bench;
use super::findings::{Bound, Claim, Findings};
use super::side::{self, BASELINE, CONTROL, OURS};
use super::statistics::{estimate, estimate_over, ratios};
use super::throughput::{Measured, how, measure, rows};
use crate::folder::Folder;

/// Of the control's median ratio.
const LOGGED: Bound = Bound::AtLeast(0.85);
const FILTERED: Bound = Bound::AtLeast(0.98);

/// Of the other's CPU time a line.
const LINE: Bound = Bound::AtMost(0.6);

/// The modes of the peer `logs` behind the baseline and its double, as [`side::logs`] lists them.
const MODES: [&str; 3] = ["sundown", "filtered", "tracing-subscriber"];
const FILTERING: usize = OURS + 1;
const OTHER: usize = OURS + 2;

/// Measures all of them.
pub(super) async fn run(bench: &Bench<'_>) -> anyhow::Result<Findings> {
    let folder = Folder::new("bench-logs")?;
    let sides = side::logs(folder.path(), MODES);
    sides[BASELINE].build(bench.workspace)?;
    let measured = measure(bench, "logs", &sides).await?;
    let throughput = |what: &str, side: usize, bound| {
        let (base, control) = (&measured[BASELINE].rate, &measured[CONTROL].rate);
        let ours = ratios(&measured[side].rate, base);
        Claim::ratio(what, estimate_over(&ours, &ratios(control, base)), bound)
    };
    let claims = vec![
        throughput(
            "throughput, each request logged / none, of the A/A control",
            OURS,
            LOGGED,
        ),
        throughput(
            "throughput, lines filtered out / none, of the A/A control",
            FILTERING,
            FILTERED,
        ),
        Claim::ratio(
            "CPU time a line, sundown-telemetry / tracing-subscriber and tracing-appender",
            estimate(&ratios(&a_line(&measured, OURS), &a_line(&measured, OTHER))),
            LINE,
        ),
    ];
    Ok(Findings {
        subject: "logs",
        how: how(bench, "kept-alive connections"),
        commands: bench.commands(&sides, bench.server_core()),
        rows: rows(&sides, &measured),
        claims,
    })
}

/// What a line costs more than none, a value a round.
fn a_line(measured: &[Measured], side: usize) -> Vec<f64> {
    let (own, none) = (&measured[side].cpu, measured);
    own.iter()
        .enumerate()
        .map(|(round, own)| {
            own - f64::midpoint(none[BASELINE].cpu[round], none[CONTROL].cpu[round])
        })
        .collect()
}
