//! What the exit status says.

use crate::cause;
use crate::check::{Check, Finding, Level, Need, Stop};
use crate::process::Ended;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "signal/2",
    level: Level::Should,
    promise: "the exit status says that the stop was meant",
    method: "the signal is sent under load",
    criterion: "exit code 0, 143 or one that --exit-code declares; death by the signal itself means that nobody handled it",
    source: "sysexits, systemd.service(5) SuccessExitStatus",
    advice: "Install a handler and return from main; uvicorn and Python raise the signal again, which kills: exit by code",
    needs: &[Need::Status],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

async fn play(mut stage: Stage) -> Finding {
    stage.signalled().await;
    let moments = stage.ended().await;
    let service = stage.service();
    match moments.ended {
        Some((_, Some(Ended::Code(code)))) if service.declared.accepts(code, service.signal) => {
            Finding::pass(1, Ended::Code(code).to_string())
        }
        Some((_, Some(ended))) => {
            Finding::fail(1, ended.to_string()).because(cause::of_status(&moments))
        }
        _ => Finding::inconclusive("its end was not seen"),
    }
}
