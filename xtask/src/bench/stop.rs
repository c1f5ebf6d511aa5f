//! How long a server takes from SIGTERM to its end: with nothing to do, and with 10,000 idle
//! connections whose clients close when it does.

use std::time::Duration;

use sundown_verify::process::{Ended, Exit};

use super::findings::{Bound, Claim, Figure, Findings, Row};
use super::idle::Idle;
use super::side::{PATIENCE, Place, Server, Side, beside, interleave, show_progress};
use super::statistics::{median, most};
use super::{Bench, on_core};

const IDLE_MS: Bound = Bound::Below(10.0);

/// Sundown's default linger, and what closing ten thousand connections may add to it.
const CONNECTED_MS: Bound = Bound::AtMost(500.0 + 250.0);

const EXIT_CODES: Bound = Bound::AtMost(0.0);

/// How long a server has to see that its only client is gone.
const SETTLE: Duration = Duration::from_millis(50);

/// Sundown comes first; the bounds are absolute, so that no baseline is needed.
const OURS: usize = 0;

/// One side's milliseconds from SIGTERM to exit, a value a round.
#[derive(Default)]
struct Measured {
    idle: Vec<f64>,
    connected: Vec<f64>,
    not_zero: u32,
}

/// Measures all sides.
pub(super) async fn run(bench: &Bench<'_>) -> anyhow::Result<Findings> {
    let mut sides = beside(vec![Side::ours()?], bench.against)?;
    sides.retain(Side::stops_gracefully);
    let measured = measure(bench, &sides).await?;
    Ok(Findings {
        subject: "stop",
        how: format!(
            "SIGTERM to exit: idle, {} times; and with {} idle connections whose clients close on FIN, {} times",
            bench.pairs, bench.connections, bench.rounds
        ),
        commands: bench.commands(&sides, Place::Anywhere),
        rows: sides.iter().zip(&measured).map(row).collect(),
        claims: claims(bench, &measured[OURS]),
    })
}

async fn measure(bench: &Bench<'_>, sides: &[Side]) -> anyhow::Result<Vec<Measured>> {
    let mut measured: Vec<Measured> = sides.iter().map(|_| Measured::default()).collect();
    for (round, index) in interleave(bench.pairs, sides.len()) {
        show_progress("stop, idle", round, bench.pairs, &sides[index]);
        let exit = stop_idle(bench, &sides[index]).await?;
        let own = &mut measured[index];
        own.idle.push(milliseconds(exit));
        own.not_zero += u32::from(exit.ended != Ended::Code(0));
    }
    for (round, index) in interleave(bench.rounds, sides.len()) {
        show_progress("stop, connected", round, bench.rounds, &sides[index]);
        let exit = stop_connected(bench, &sides[index]).await?;
        let own = &mut measured[index];
        own.connected.push(milliseconds(exit));
        own.not_zero += u32::from(exit.ended != Ended::Code(0));
    }
    Ok(measured)
}

async fn stop_idle(bench: &Bench<'_>, side: &Side) -> anyhow::Result<Exit> {
    let Server {
        mut process,
        address,
        ..
    } = side.start(bench.workspace, Place::Anywhere).await?;
    drop(Idle::open(address, 1).await?);
    tokio::time::sleep(SETTLE).await;
    process.signal(libc::SIGTERM)?;
    Ok(process.wait_exit(PATIENCE).await?)
}

async fn stop_connected(bench: &Bench<'_>, side: &Side) -> anyhow::Result<Exit> {
    let Server {
        mut process,
        address,
        ..
    } = side.start(bench.workspace, Place::Anywhere).await?;
    let idle = Idle::open(address, bench.connections).await?;
    let closing = on_core(bench.machine.client_core, || idle.close_on_fin());
    let stopping = async {
        process.signal(libc::SIGTERM)?;
        Ok(process.wait_exit(PATIENCE).await?)
    };
    let ((), exit) = tokio::try_join!(closing, stopping)?;
    Ok(exit)
}

fn milliseconds(exit: Exit) -> f64 {
    1000.0 * exit.after.as_secs_f64()
}

fn row((side, own): (&Side, &Measured)) -> Row {
    Row {
        server: side.label.clone(),
        figures: vec![
            Figure::plain("idle, median", "ms", median(&own.idle)),
            Figure::plain("idle, most", "ms", most(&own.idle)),
            Figure::plain("connected, median", "ms", median(&own.connected)),
            Figure::plain("connected, most", "ms", most(&own.connected)),
            Figure::plain("exit codes not 0", "", own.not_zero.into()),
        ],
    }
}

fn claims(bench: &Bench<'_>, ours: &Measured) -> Vec<Claim> {
    let connected = format!(
        "stop with {} idle connections, the slowest",
        bench.connections
    );
    vec![
        Claim::plain("idle stop, the slowest", most(&ours.idle), "ms", IDLE_MS),
        Claim::plain(connected, most(&ours.connected), "ms", CONNECTED_MS),
        Claim::plain(
            "exit codes that are not 0",
            ours.not_zero.into(),
            "",
            EXIT_CODES,
        ),
    ]
}
