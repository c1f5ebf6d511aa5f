//! Children that outlive their parent.

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "proc/1",
    level: Level::Must,
    promise: "no child outlives the process",
    method: "after the end the kernel is asked for all processes that the service had started, directly or not, whatever group or session they went to",
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
        left => Finding::fail(1, how_many(left.len()))
            .with_evidence(left.iter().map(ToString::to_string)),
    }
}

fn how_many(left: usize) -> String {
    match left {
        1 => "1 process was left".to_owned(),
        many => format!("{many} processes were left"),
    }
}
