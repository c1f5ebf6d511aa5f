//! What a second signal does.

use std::time::Duration;

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::stop::Stage;

pub(super) const TERMINATED: Check = Check {
    id: "signal/4",
    level: Level::Info,
    promise: "a second SIGTERM is told what it does",
    method: "SIGTERM is sent twice, 20 ms apart, to an idle service",
    criterion: "none: it is told and not judged",
    source: "docker stop and impatient operators send more than one",
    advice: "Say in your documentation what a second signal does: hurry, or nothing",
    needs: &[Need::Process, Need::Status],
    stop: Stop::Own,
    play: |stage| Box::pin(play(stage, libc::SIGTERM)),
};

pub(super) const INTERRUPTED: Check = Check {
    id: "signal/5",
    level: Level::Info,
    promise: "a SIGINT after a SIGTERM is told what it does",
    method: "SIGTERM and 20 ms later SIGINT are sent to an idle service",
    criterion: "none: it is told and not judged",
    source: "a Ctrl-C after a supervisor's SIGTERM; actix stops at once at SIGINT",
    advice: "Say in your documentation whether SIGINT hurries a stop that is under way",
    needs: &[Need::Process, Need::Status],
    stop: Stop::Own,
    play: |stage| Box::pin(play(stage, libc::SIGINT)),
};

async fn play(mut stage: Stage, second: i32) -> Finding {
    stage.send(libc::SIGTERM);
    let pause = tokio::time::sleep(Duration::from_millis(20));
    tokio::select! {
        () = pause => stage.send(second),
        _ = stage.ended() => {}
    }
    let moments = stage.ended().await;
    match moments.ended {
        _ if moments.killed => Finding::pass(1, "two of them did not end it"),
        Some((at, Some(ended))) => {
            let took = moments.after_signal(Some(at)).unwrap_or_default();
            Finding::pass(1, format!("{ended} after {} ms", took.as_millis()))
        }
        _ => Finding::inconclusive("its end was not seen"),
    }
}
