//! Children that outlive their parent.

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "proc/1",
    level: Level::Must,
    promise: "no child outlives the process",
    method: "what is left of the process group is looked at after the end",
    criterion: "nothing is left",
    source: "credentials(7); an orphan keeps ports, files and memory",
    advice: "Pass the signal on and wait for children: exec in shell wrappers, tini or docker --init as PID 1",
    needs: &[Need::Orphans],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

async fn play(mut stage: Stage) -> Finding {
    stage.signalled().await;
    let moments = stage.ended().await;
    match moments.orphans.as_slice() {
        [] => Finding::pass(1, "nothing was left"),
        left => Finding::fail(1, format!("{} processes were left", left.len()))
            .with_evidence(left.iter().map(|pid| format!("process {pid}"))),
    }
}
