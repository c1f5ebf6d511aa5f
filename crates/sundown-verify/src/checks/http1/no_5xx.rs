//! Server errors during the drain.

use crate::cause;
use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::during_stop;
use crate::outcome::Loss;
use crate::plan::Kind;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "http1/12",
    level: Level::Must,
    promise: "nobody gets a server error because of the stop",
    method: "sixteen clients keep their connection and think 0 to 50 ms",
    criterion: "no answer after the signal is a 5xx, but for a 503 that says Connection: close",
    source: "RFC 9110 §15.6.4",
    advice: "Release databases and pools after the last request, not at the signal",
    needs: &[Need::Http1],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

const CLIENTS: usize = 16;

async fn play(mut stage: Stage) -> Finding {
    let during = match during_stop(&mut stage, Kind::KeepAlive, CLIENTS).await {
        Ok((_, during)) => during,
        Err(finding) => return finding,
    };
    let exposed = during.answered + during.lost_as(Loss::ServerError);
    match during.lost_as(Loss::ServerError) {
        0 if exposed == 0 => Finding::inconclusive("nobody was answered after the signal"),
        0 => Finding::pass(exposed, format!("0 of {exposed} answers")),
        errors => {
            let mut failed = stage.recorder().losses();
            failed.retain(|lost| lost.loss == Loss::ServerError);
            let cause = cause::of_losses(&failed, &stage.moments(), stage.lag());
            Finding::fail(exposed, format!("{errors} of {exposed} answers")).because(cause)
        }
    }
}
