//! What a liveness probe is told during a stop.

use std::time::Duration;

use tokio::time::sleep;

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::keep;
use crate::http1::Letter;
use crate::outcome::{Declined, Loss, Outcome, judge};
use crate::plan::Request;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "ready/2",
    level: Level::Should,
    promise: "a service that stops says that it is alive",
    method: "sixteen kept connections ask one after the other, every 20 ms after the signal",
    criterion: "each that is answered is told that the service is alive (a status below 400)",
    source: "Kubernetes, liveness probes: whoever fails them is killed",
    advice: "Turn readiness alone; liveness says whether the process hangs, and a stop is no hang",
    needs: &[Need::Http1, Need::Live],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

const CLIENTS: usize = 16;
const STEP: Duration = Duration::from_millis(20);

async fn play(mut stage: Stage) -> Finding {
    let live = stage.service().offers.live.clone().unwrap_or_default();
    let letter = Letter::new(&[Request::get(live)], stage.address());
    let kept = keep(&stage, &letter, CLIENTS).await;
    stage.signalled().await;
    let (mut answered, mut denied) = (0, 0);
    for (index, mut connection) in kept.into_iter().enumerate() {
        sleep(STEP).await;
        let exchange = connection.exchange(&letter, stage.service().grace).await;
        stage
            .recorder()
            .note_exchange(index + 1, &letter, &exchange);
        match judge(&exchange.evidence(0)) {
            Outcome::Answered { status: ..400 } => answered += 1,
            Outcome::Answered { .. }
            | Outcome::Declined(Declined::Unavailable)
            | Outcome::Lost(Loss::ServerError) => {
                answered += 1;
                denied += 1;
            }
            _ => {}
        }
    }
    match (answered, denied) {
        (0, _) => Finding::inconclusive("no kept connection was answered after the signal"),
        (_, 0) => Finding::pass(answered, format!("all {answered} were told")),
        _ => Finding::fail(
            answered,
            format!("{denied} of {answered} were told otherwise"),
        ),
    }
}
