//! The signal during the start.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::end_with;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "signal/6",
    level: Level::Should,
    promise: "the signal ends the process also while it starts",
    method: "the service is started twenty times and gets the signal at 0 to 190 % of the time that it took to listen",
    criterion: "each process is gone within the grace",
    source: "signal(7): until a handler stands, the default ends a process; one that blocks signals or starts its loop late hears nothing",
    advice: "Install handlers first, and look at their flag before the loop begins",
    needs: &[Need::Command],
    stop: Stop::Own,
    play: |stage| Box::pin(play(stage)),
};

const INSTANTS: u32 = 20;

async fn play(stage: Stage) -> Finding {
    let finding = at_instants(&stage).await;
    end_with(stage, finding).await
}

async fn at_instants(stage: &Stage) -> Finding {
    let service = stage.service();
    let Ok(start_up) = start_up(stage).await else {
        return Finding::inconclusive("it could not be started again");
    };
    let mut stayed = Vec::new();
    let mut tried = 0;
    // Three are proof, and each costs a grace.
    while tried < INSTANTS && stayed.len() < 3 {
        let Ok(mut running) = service.launch() else {
            return Finding::inconclusive("it could not be started again");
        };
        let after = start_up * tried * 2 / INSTANTS;
        tried += 1;
        sleep(after).await;
        // It may have ended by itself, which is no fault of its stop.
        let _ = running.process.signal_to(service.signal_to, service.signal);
        if running.process.wait_exit(service.grace).await.is_err() {
            stayed.push(format!(
                "the signal came {} ms after the start",
                after.as_millis()
            ));
        }
    }
    match stayed.len() {
        0 => Finding::pass(INSTANTS.into(), "it ended each time"),
        some => Finding::fail(
            INSTANTS.into(),
            format!("it stayed {some} times of {INSTANTS}"),
        )
        .with_evidence(stayed),
    }
}

/// How long the service takes to listen.
async fn start_up(stage: &Stage) -> Result<Duration, crate::service::StartError> {
    let service = stage.service();
    let mut running = service.launch()?;
    let since = Instant::now();
    let address = running.address;
    running
        .process
        .wait_listening(address, service.start_limit)
        .await?;
    Ok(since.elapsed())
}
