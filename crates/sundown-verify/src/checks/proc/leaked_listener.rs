//! A listener that outlives its process.

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "proc/2",
    level: Level::Must,
    promise: "the port is free after the end",
    method: "the kernel is asked who listens after the process has ended",
    criterion: "nobody does",
    source: "fork(2): a child inherits the listener",
    advice: "Mark the listener close-on-exec, and end children first",
    needs: &[Need::Process],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

async fn play(mut stage: Stage) -> Finding {
    stage.signalled().await;
    let moments = stage.ended().await;
    if moments.stayed {
        return Finding::inconclusive("it did not end");
    }
    if moments.leaked {
        return Finding::fail(1, "somebody listens still");
    }
    Finding::pass(1, "the port is free")
}
