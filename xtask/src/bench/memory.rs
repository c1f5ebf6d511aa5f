//! What an idle connection costs a server: resident memory, after one request, 10,000 connections.

use std::time::Duration;

use super::Bench;
use super::findings::{Bound, Claim, Figure, Findings, Row};
use super::idle::Idle;
use super::machine::resident;
use super::side::{BASELINE, OURS, Server, Side, against, interleave, show_progress};
use super::statistics::{estimate, median, ratios};

const AGAINST_HYPER: Bound = Bound::AtMost(1.1);

/// How long a server is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(1);

/// Opened and closed before the first reading, so that what every server needs once is not
/// counted as a connection's.
const WARM_UP: usize = 50;

/// Measures all sides.
pub(super) async fn run(bench: &Bench<'_>) -> anyhow::Result<Findings> {
    let sides = against("hyper", bench.against)?;
    let mut kib: Vec<Vec<f64>> = sides.iter().map(|_| Vec::new()).collect();
    for (round, index) in interleave(bench.rounds, sides.len()) {
        show_progress("memory", round, bench.rounds, &sides[index]);
        kib[index].push(measure_one(bench, &sides[index]).await?);
    }
    let row = |(side, own): (&Side, &Vec<f64>)| Row {
        server: side.label.clone(),
        figures: vec![
            Figure::plain("a connection", "KiB", median(own)),
            Figure::ratio("of the baseline's", estimate(&ratios(own, &kib[BASELINE]))),
        ],
    };
    Ok(Findings {
        subject: "memory",
        how: format!(
            "resident memory of an idle connection after one request, {} connections, {} rounds, medians",
            bench.connections, bench.rounds
        ),
        commands: bench.commands(&sides, bench.server_core()),
        rows: sides.iter().zip(&kib).map(row).collect(),
        claims: vec![Claim::ratio(
            "memory of an idle connection, sundown / hyper",
            estimate(&ratios(&kib[OURS], &kib[BASELINE])),
            AGAINST_HYPER,
        )],
    })
}

/// Returns a connection's KiB.
async fn measure_one(bench: &Bench<'_>, side: &Side) -> anyhow::Result<f64> {
    let Server {
        process, address, ..
    } = side.start(bench.workspace, bench.server_core()).await?;
    drop(Idle::open(address, WARM_UP).await?);
    tokio::time::sleep(SETTLE).await;
    let before = resident(process.id())?;
    let _idle = Idle::open(address, bench.connections).await?;
    tokio::time::sleep(SETTLE).await;
    let after = resident(process.id())?;
    Ok((after as f64 - before as f64) / 1024.0 / bench.connections as f64)
}
