//! Whether answers to what was in flight say close.

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::over_signal;
use crate::http1::Letter;
use crate::outcome::{Outcome, Persistence, judge};
use crate::plan::Request;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "http1/3",
    level: Level::Should,
    promise: "the answer to a request in flight at the signal tells its client to leave",
    method: "eight clients ask for what takes a while before the signal, and are answered after it",
    criterion: "each is told Connection: close, but for answers within 50 ms of the signal's delivery",
    source: "RFC 9112 §9.6",
    advice: "Look at the stop flag when the answer is written, not when the request comes",
    needs: &[Need::Http1, Need::Slow],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

const CLIENTS: usize = 8;

async fn play(mut stage: Stage) -> Finding {
    let slow = stage.service().offers.slow.clone().unwrap_or_default();
    let letter = Letter::new(&[Request::get(slow)], stage.address());
    let (_, exchanges) = over_signal(&mut stage, &letter, CLIENTS).await;
    let heard = stage.heard().await;
    let answered = exchanges
        .iter()
        .filter(|exchange| matches!(judge(&exchange.evidence(0)), Outcome::Answered { .. }));
    let (kept, told): (Vec<_>, Vec<_>) =
        answered.partition(|exchange| exchange.persistence() == Persistence::KeepAlive);
    // Until it could know of the signal, silence says nothing.
    let kept = kept
        .into_iter()
        .filter(|exchange| exchange.span(0).to >= heard)
        .count();
    match ((told.len() + kept) as u64, kept) {
        (0, _) => Finding::inconclusive("no request in flight was answered late enough"),
        (answered, 0) => Finding::pass(answered, format!("all {answered} were told")),
        (answered, kept) => Finding::fail(answered, format!("{kept} of {answered} were not told")),
    }
}
