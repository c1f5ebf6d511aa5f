//! Heads that arrive in two halves.

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::under_load;
use crate::plan::Kind;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "http1/6",
    level: Level::Must,
    promise: "a request whose head is split over the signal is answered",
    method: "sixteen clients send half a head, wait 10 to 200 ms, and send the rest",
    criterion: "no request is lost, of at least 4 that were under way at the signal or came after it",
    source: "RFC 9112 §9.5: an idle close is for idle connections",
    advice: "Count a connection as busy from the first byte of a head, not from its last; Go: StateNew is given five seconds; Node: connections without a request are closed at once",
    needs: &[Need::Http1],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

async fn play(stage: Stage) -> Finding {
    under_load(stage, Kind::HalfHead, 16, 4).await
}
