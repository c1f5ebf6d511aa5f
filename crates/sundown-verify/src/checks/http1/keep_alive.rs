//! Kept connections under natural load.

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::under_load;
use crate::plan::Kind;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "http1/15",
    level: Level::Must,
    promise: "no request on a kept connection is lost under natural load",
    method: "thirty-two clients keep their connection and think 0 to 50 ms",
    criterion: "no request is lost, of at least 16 that were under way at the signal or came after it",
    source: "RFC 9112 §9.5",
    advice: "Say Connection: close on every answer after the signal, keep idle connections open for a moment longer (lame duck, then linger), and look at the socket before closing it",
    needs: &[Need::Http1],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

async fn play(stage: Stage) -> Finding {
    under_load(stage, Kind::KeepAlive, 32, 16).await
}
