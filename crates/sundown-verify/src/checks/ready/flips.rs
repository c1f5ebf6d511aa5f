//! When readiness turns.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::visit;
use crate::outcome::Outcome;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "ready/1",
    level: Level::Should,
    promise: "readiness turns before the listener closes",
    method: "from the signal on a probe connects every 10 ms and asks, until nobody listens",
    criterion: "a probe is told \"not ready\" (a status of 400 or above) while the listener is open",
    source: "Kubernetes, Pod termination: endpoints are removed while the pod stops, and not before",
    advice: "Turn readiness at the signal, and go on serving for as long as the load balancer needs to notice: a lame duck, or a preStop hook that sleeps",
    needs: &[Need::Ready],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

const STEP: Duration = Duration::from_millis(10);

/// Bounds the probes.
const MOST: usize = 500;

async fn play(mut stage: Stage) -> Finding {
    let ready = stage.service().offers.ready.clone().unwrap_or_default();
    match visit(&stage, &ready).await {
        Some((_, Outcome::Answered { status: ..400 })) => {}
        _ => return Finding::inconclusive("it does not say that it is ready before the signal"),
    }
    let signalled = stage.signalled().await;
    let mut probes = 0;
    while stage.moments().closed.is_none() && probes < MOST {
        let probe = visit(&stage, &ready).await;
        let now = Instant::now();
        if let Some((_, outcome)) = probe {
            probes += 1;
            if says_no(outcome) && stage.moments().closed.is_none() {
                let after = now.saturating_duration_since(signalled).as_millis();
                let closed = stage.closed().await;
                let before = closed.saturating_duration_since(now).as_millis();
                let seen = format!(
                    "not ready {after} ms after the signal, {before} ms before nobody listened"
                );
                return Finding::pass(probes as u64, seen);
            }
        }
        sleep(STEP).await;
    }
    match probes {
        0 => Finding::fail(1, "no probe got an answer between the signal and the close"),
        _ => Finding::fail(
            probes as u64,
            format!("ready to the last of {probes} probes"),
        ),
    }
}

/// A 503 that says close counts as declined, and says no as clearly.
fn says_no(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Answered { status: 400.. }
            | Outcome::Declined(crate::outcome::Declined::Unavailable)
            | Outcome::Lost(crate::outcome::Loss::ServerError)
    )
}
