//! Pipelined requests.

use crate::check::{Check, Finding, Level, Stop};
use crate::checks::under_load;
use crate::plan::Kind;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "http1/8",
    level: Level::Must,
    promise: "pipelined requests are answered, or can be told to be unprocessed",
    method: "eight clients write two to four requests at once",
    criterion: "no request is lost, of at least 8 that were under way at the signal or came after it",
    source: "RFC 9112 §9.3.2, §9.6",
    advice: "Answer what has been read, say Connection: close on the last answer, and only then close",
    needs: &[],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

async fn play(stage: Stage) -> Finding {
    under_load(stage, Kind::Pipelined, 8, 8).await
}
