//! What a second SIGTERM does.

use std::time::Duration;

use crate::check::{Check, Finding, Level, Stop};
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "signal/4",
    level: Level::Info,
    promise: "a second SIGTERM is told what it does",
    method: "SIGTERM is sent twice, 20 ms apart, to an idle service",
    criterion: "none: it is told and not judged",
    source: "docker stop and impatient operators send more than one",
    advice: "Say in your documentation what a second signal does: hurry, or nothing",
    needs: &[],
    stop: Stop::Own,
    play: |stage| Box::pin(play(stage)),
};

async fn play(mut stage: Stage) -> Finding {
    stage.send(libc::SIGTERM);
    let pause = tokio::time::sleep(Duration::from_millis(20));
    tokio::select! {
        () = pause => stage.send(libc::SIGTERM),
        _ = stage.ended() => {}
    }
    let moments = stage.ended().await;
    match moments.ended {
        _ if moments.killed => Finding::pass(1, "two of them did not end it"),
        Some((at, ended)) => {
            let took = moments.after_signal(Some(at)).unwrap_or_default();
            Finding::pass(1, format!("{ended:?} after {} ms", took.as_millis()))
        }
        None => Finding::inconclusive("its end was not seen"),
    }
}
