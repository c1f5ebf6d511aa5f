//! HTTP/2 streams at the signal.

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::under_load;
use crate::plan::Kind;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "http2/1",
    level: Level::Must,
    promise: "HTTP/2 streams up to the last that GOAWAY names finish",
    method: "four clients keep up to four streams open, each for what takes a while",
    criterion: "no request is lost, of at least 8 that were under way at the signal",
    source: "RFC 9113 §6.8",
    advice: "Send GOAWAY before you close, with the last stream you have taken, and finish those",
    needs: &[Need::Http2, Need::Slow],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

async fn play(stage: Stage) -> Finding {
    under_load(stage, Kind::Http2, 4, 8).await
}
