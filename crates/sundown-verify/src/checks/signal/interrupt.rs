//! Whether SIGINT stops it as SIGTERM does.

use crate::cause;
use crate::check::{Check, Finding, Level, Need, Stop};
use crate::process::Ended;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "signal/3",
    level: Level::Should,
    promise: "SIGINT stops the process as SIGTERM does",
    method: "SIGINT is sent to an idle service",
    criterion: "the process exits within its grace, by code 0, 130 or one that --exit-code declares",
    source: "signal(7); Ctrl-C in a terminal, docker run -it",
    advice: "Handle both signals by one path",
    needs: &[Need::Process, Need::Status],
    stop: Stop::Own,
    play: |stage| Box::pin(play(stage)),
};

async fn play(mut stage: Stage) -> Finding {
    stage.send(libc::SIGINT);
    let moments = stage.ended().await;
    let declared = &stage.service().declared;
    match moments.ended {
        _ if moments.killed => {
            let cause = cause::of_stay(&moments, stage.service().grace);
            Finding::fail(1, "SIGINT did not end it").because(cause)
        }
        Some((_, Some(Ended::Code(code)))) if declared.accepts(code, libc::SIGINT) => {
            Finding::pass(1, Ended::Code(code).to_string())
        }
        Some((_, Some(ended))) => {
            Finding::fail(1, ended.to_string()).because(cause::of_status(&moments))
        }
        _ => Finding::inconclusive("its end was not seen"),
    }
}
