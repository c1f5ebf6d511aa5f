//! A stream that never ends.

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::streams;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "budget/2",
    level: Level::Should,
    promise: "a stream that never ends does not outlast the grace",
    method: "one client reads a body that never ends, over the signal and to the end",
    criterion: "the process is gone within the grace, by itself",
    source: "hyperium/hyper#2787, golang/go#17721; what stays is killed, and releases nothing",
    advice: "Let streams hear of the stop and end by themselves, and give the stop a deadline for those that do not",
    needs: &[Need::Http1, Need::Stream],
    stop: Stop::Streams,
    play: |stage| Box::pin(play(stage)),
};

async fn play(mut stage: Stage) -> Finding {
    let stream = stage.service().offers.stream.clone().unwrap_or_default();
    match streams(&mut stage, &stream, 1).await {
        Ok(_) => Finding::of_end(&stage.moments(), stage.service().grace),
        Err(finding) => finding,
    }
}
