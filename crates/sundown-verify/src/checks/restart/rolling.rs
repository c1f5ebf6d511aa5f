//! A restart by the service's own means.

use tokio::time::{sleep, timeout};

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::{AFTERWARDS, STEP, WARM_UP, plan};
use crate::load::Load;
use crate::outcome::Declined;
use crate::plan::Kind;
use crate::process::{Ended, Spawn};
use crate::service::{PORT, fill};
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "restart/1",
    level: Level::Must,
    promise: "a restart loses no request and refuses no connection",
    method: "eight clients with kept connections and eight with new ones go on while the command that restarts it runs, and half a second longer",
    criterion: "the command succeeds, no request is lost, and no connect is refused",
    source: "nginx, Control; systemd.socket(5); einhorn: a rolling restart is one that nobody notices",
    advice: "Start the new process first and hand it the listening socket; stop the old one when the new one is ready",
    needs: &[Need::Http1, Need::Restart, Need::Process],
    stop: Stop::Own,
    play: |stage| Box::pin(play(stage)),
};

const CLIENTS: usize = 8;

async fn play(mut stage: Stage) -> Finding {
    let finding = under_load(&stage).await;
    stage.send(stage.service().signal);
    stage.ended().await;
    finding
}

async fn under_load(stage: &Stage) -> Finding {
    let plan = plan(stage)
        .with(Kind::KeepAlive, CLIENTS)
        .with(Kind::NewConnection, CLIENTS);
    let load = Load::start(plan);
    let warm = async {
        while load.tally().total.answered < 4 * CLIENTS as u64 {
            sleep(STEP).await;
        }
    };
    if timeout(WARM_UP, warm).await.is_err() {
        return Finding::inconclusive("it hardly answered before the restart");
    }
    let before = load.tally().total;
    if let Err(failed) = restart(stage).await {
        return Finding::fail(1, failed);
    }
    sleep(AFTERWARDS).await;
    let tally = load.finish().await;
    let during = tally.total.since(&before);
    let refused = during.declined_as(Declined::Refused);
    match Finding::of_losses(&tally, &during, 2 * CLIENTS as u64, stage.lag()) {
        finding if refused == 0 => finding,
        finding => Finding::fail(
            finding.exposed + refused,
            format!("{refused} clients were refused; {}", finding.seen),
        )
        .with_evidence(finding.evidence),
    }
}

/// Runs the command to its end.
async fn restart(stage: &Stage) -> Result<(), String> {
    let service = stage.service();
    let pid = stage.pid().to_string();
    let port = stage.address().port().to_string();
    let command = service.offers.restart.iter().flatten();
    let mut words = command.map(|word| fill(&fill(word, PORT, &port), "{pid}", &pid));
    let program = words.next().ok_or("no command was given")?;
    let started = Spawn::new(program).args(words).own_group().start();
    let mut process = started.map_err(|error| error.to_string())?;
    let limit = service.grace + service.start_limit;
    match process.wait_exit(limit).await {
        Ok(exit) if exit.ended == Ended::Code(0) => Ok(()),
        Ok(exit) => Err(format!("the command failed with {}", exit.ended)),
        Err(error) => Err(error.to_string()),
    }
}
