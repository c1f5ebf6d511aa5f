//! Whether the signal ends the process.

use crate::check::{Check, Finding, Level, Stop};
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "signal/1",
    level: Level::Must,
    promise: "the process exits within its grace after the signal",
    method: "the signal is sent under load",
    criterion: "the process is gone within --grace",
    source: "signal(7); kubelet, systemd and docker kill what stays",
    advice: "Handle the signal and stop what keeps the process alive: open streams, timers, non-daemon threads; as PID 1 a process without a handler ignores SIGTERM",
    needs: &[],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

async fn play(mut stage: Stage) -> Finding {
    stage.signalled().await;
    let moments = stage.ended().await;
    Finding::of_end(&moments, stage.service().grace)
}
