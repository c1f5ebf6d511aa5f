//! Whether answers after the signal say close.

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::keep;
use crate::http1::Letter;
use crate::outcome::{Outcome, Persistence, judge};
use crate::plan::Request;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "http1/14",
    level: Level::Should,
    promise: "an answer after the signal tells its client to leave",
    method: "sixteen kept connections ask once more, 50 ms after the signal was delivered",
    criterion: "each that is answered is told Connection: close",
    source: "RFC 9112 §9.6",
    advice: "Set Connection: close on every answer once the signal has come; axum, Go and hyper do for requests in flight only",
    needs: &[Need::Http1],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

const CLIENTS: usize = 16;

async fn play(mut stage: Stage) -> Finding {
    let letter = Letter::new(
        &[Request::get(&stage.service().offers.fast)],
        stage.address(),
    );
    let kept = keep(&stage, &letter, CLIENTS).await;
    if kept.is_empty() {
        return Finding::inconclusive("it keeps no connection");
    }
    stage.heard().await;
    let (mut answered, mut kept_alive) = (0, 0);
    for (index, mut connection) in kept.into_iter().enumerate() {
        let exchange = connection.exchange(&letter, stage.service().grace).await;
        stage
            .recorder()
            .note_exchange(index + 1, &letter, &exchange);
        if let Outcome::Answered { .. } = judge(&exchange.evidence(0)) {
            answered += 1;
            let told = exchange.persistence() == Persistence::Close;
            kept_alive += u64::from(!told);
        }
    }
    match (answered, kept_alive) {
        (0, _) => Finding::inconclusive("no kept connection was answered after the signal"),
        (_, 0) => Finding::pass(answered, format!("all {answered} were told")),
        _ => Finding::fail(
            answered,
            format!("{kept_alive} of {answered} were not told"),
        ),
    }
}
