//! How long `sundown verify` takes: all that it asks of a server over HTTP/1, once, on a server that
//! stops as it should.
//!
//! The server is the example `planted` without a fault, built for speed. Its start-ups are told apart:
//! how long a service takes to start is its own affair. What some checks start beside counts as theirs.

use std::time::Duration;

use anyhow::Context;
use sundown_verify::suite::Told;
use sundown_verify::{Service, Suite, Verdict as Found, checks};
use tokio::time::Instant;

use super::Bench;
use super::findings::{Bound, Claim, Figure, Findings, Row};
use super::statistics::median;
use crate::folder::Folder;
use crate::{planted, progress};

const WITHOUT_START_UPS_S: Bound = Bound::Below(60.0);

/// How often a start is measured.
const STARTS: usize = 5;

/// What one run took, and what it found.
struct Run {
    took: Duration,
    stops: usize,
    played: usize,
    passed: usize,
    start_up: Duration,
}

pub(super) async fn run(bench: &Bench<'_>) -> anyhow::Result<Findings> {
    planted::build(bench.workspace)?;
    let folder = Folder::new("suite")?;
    let mut service = planted::service(bench.workspace, &folder.path().join("entries"), false);
    (service.offers.http2, service.offers.grpc) = (false, None);
    let command = "target/release/examples/planted {port} none STORE".to_owned();
    // On as many threads as the command has.
    let played = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(play(service))
    });
    let run = played.await.context("the suite panicked")??;
    Ok(findings(&run, command))
}

async fn play(service: Service) -> anyhow::Result<Run> {
    let start_up = start_up(&service).await?;
    let suite = Suite::new(service, checks::all().collect(), 1);
    let mut stops = 0;
    let since = Instant::now();
    let judged = suite.run(|told| {
        if let Told::Stop { number, checks } = told {
            stops = number;
            progress::line(&format!("suite: stop {number}: {}", checks[0].id));
        }
    });
    let judged = judged.await?;
    let took = since.elapsed();
    let of = |verdict: Found| {
        let verdicts = judged.judgements.iter().map(|one| one.verdict);
        verdicts.filter(|one| *one == verdict).count()
    };
    Ok(Run {
        took,
        stops,
        played: judged.judgements.len() - of(Found::Skipped),
        passed: of(Found::Pass),
        start_up,
    })
}

/// How long the server takes until it answers, median.
async fn start_up(service: &Service) -> anyhow::Result<Duration> {
    let mut took = Vec::new();
    for _ in 0..STARTS {
        let since = Instant::now();
        drop(service.start().await?);
        took.push(since.elapsed().as_secs_f64());
    }
    Ok(Duration::from_secs_f64(median(&took)))
}

fn findings(run: &Run, command: String) -> Findings {
    let start_ups = run.start_up * u32::try_from(run.stops).expect("they are tens");
    let without = run.took.saturating_sub(start_ups).as_secs_f64();
    let figures = vec![
        Figure::plain("checks", "", run.played as f64),
        Figure::plain("passed", "", run.passed as f64),
        Figure::plain("in all", "s", run.took.as_secs_f64()),
        Figure::plain("start-ups", "", run.stops as f64),
        Figure::plain("each", "ms", run.start_up.as_secs_f64() * 1000.0),
        Figure::plain("without them", "s", without),
    ];
    Findings {
        subject: "suite",
        how: "each check that can be asked over HTTP/1, once".to_owned(),
        commands: vec![command],
        rows: vec![Row {
            server: "planted".to_owned(),
            figures,
        }],
        claims: vec![Claim::plain(
            "a run of all checks over HTTP/1, without start-ups",
            without,
            "s",
            WITHOUT_START_UPS_S,
        )],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_ups_do_not_count() {
        let run = Run {
            took: Duration::from_secs(70),
            stops: 20,
            played: 30,
            passed: 30,
            start_up: Duration::from_millis(600),
        };
        let found = findings(&run, String::new());
        assert_eq!(found.claims[0].measured, 58.0);
        assert!(found.claims[0].holds);
        let slow = Run {
            start_up: Duration::from_millis(400),
            ..run
        };
        assert!(!findings(&slow, String::new()).claims[0].holds);
    }
}
