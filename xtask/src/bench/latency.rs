//! How long an answer takes when the server is half busy.
//!
//! Open loop at a fixed half of the baseline's saturation, the same rate for every side: a server
//! that stalls is asked on regardless, and what then waits counts from when it should have been
//! sent (no coordinated omission).

use hdrhistogram::Histogram;

use super::client::Client;
use super::findings::{Bound, Claim, Figure, Findings, Row};
use super::side::{BASELINE, CONTROL, OURS, Server, Side, against, interleave, show_progress};
use super::statistics::{Estimate, estimate, median, ratios};
use super::throughput::{CONNECTIONS, warm_up};
use super::{Bench, on_core};

/// What is allowed whatever the control's noise.
const P99: f64 = 1.05;

/// One side's measurements in microseconds, a value a round.
#[derive(Default)]
struct Measured {
    p50: Vec<f64>,
    p99: Vec<f64>,
    p999: Vec<f64>,
}

/// Measures all sides at half of `saturation`, requests a second.
pub(super) async fn run(bench: &Bench<'_>, saturation: f64) -> anyhow::Result<Findings> {
    let sides = against("axum", bench.against)?;
    let rate = saturation / 2.0;
    let measured = measure(bench, &sides, rate).await?;
    Ok(Findings {
        subject: "latency",
        how: format!(
            "GET /fast at {rate:.0} a second (half of axum's saturation) over {CONNECTIONS} kept-alive connections, open loop, {} rounds of {:?}, medians and 95 % intervals",
            bench.pairs, bench.length
        ),
        commands: bench.commands(&sides, bench.server_core()),
        rows: rows(&sides, &measured),
        claims: vec![claim(&measured)],
    })
}

async fn measure(bench: &Bench<'_>, sides: &[Side], rate: f64) -> anyhow::Result<Vec<Measured>> {
    let mut measured: Vec<Measured> = sides.iter().map(|_| Measured::default()).collect();
    for (round, index) in interleave(bench.pairs, sides.len()) {
        show_progress("latency", round, bench.pairs, &sides[index]);
        let latencies = measure_one(bench, &sides[index], rate).await?;
        let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
        measured[index].p50.push(at(0.5));
        measured[index].p99.push(at(0.99));
        measured[index].p999.push(at(0.999));
    }
    Ok(measured)
}

async fn measure_one(bench: &Bench<'_>, side: &Side, rate: f64) -> anyhow::Result<Histogram<u64>> {
    let place = bench.server_core();
    let Server {
        process: _alive,
        address,
        ..
    } = side.start(bench.workspace, place).await?;
    let length = bench.length;
    on_core(bench.machine.client_core, move || {
        let mut client = Client::connect(address, CONNECTIONS, None)?;
        client.pace(rate, warm_up(length))?;
        client.pace(rate, length)
    })
    .await
}

fn rows(sides: &[Side], measured: &[Measured]) -> Vec<Row> {
    let baseline = &measured[BASELINE];
    let row = |(side, own): (&Side, &Measured)| Row {
        server: side.label.clone(),
        figures: vec![
            Figure::plain("p50", "µs", median(&own.p50)),
            Figure::plain("p99", "µs", median(&own.p99)),
            Figure::ratio(
                "of the baseline's",
                estimate(&ratios(&own.p99, &baseline.p99)),
            ),
            Figure::plain("p99.9", "µs", median(&own.p999)),
        ],
    };
    sides.iter().zip(measured).map(row).collect()
}

fn claim(measured: &[Measured]) -> Claim {
    let against_baseline = |side: usize| -> Estimate {
        estimate(&ratios(&measured[side].p99, &measured[BASELINE].p99))
    };
    let noise = against_baseline(CONTROL);
    Claim::ratio(
        format!(
            "p99, sundown / axum, within the A/A interval [{:.3}, {:.3}] or {P99}",
            noise.low, noise.high
        ),
        against_baseline(OURS),
        Bound::AtMost(P99.max(noise.high)),
    )
}
