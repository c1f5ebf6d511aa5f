//! The same stop, again and again.

use std::collections::BTreeSet;

use tokio::time::Instant;

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::end_with;
use crate::service::StartError;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "repeat/1",
    level: Level::Should,
    promise: "a stop ends the same way each time",
    method: "the service is started five times and gets the signal once it answers",
    criterion: "each process is gone within the grace, all with the same exit status",
    source: "supervisors restart, count and alarm by the exit status",
    advice: "A status that changes from stop to stop is a race: between handlers, hooks or children at the end of main",
    needs: &[Need::Command],
    stop: Stop::Own,
    play: |stage| Box::pin(play(stage)),
};

const STOPS: u64 = 5;

async fn play(stage: Stage) -> Finding {
    let finding = again_and_again(&stage).await;
    let finding = finding.unwrap_or_else(|error| Finding::inconclusive(error.to_string()));
    end_with(stage, finding).await
}

async fn again_and_again(stage: &Stage) -> Result<Finding, StartError> {
    let service = stage.service();
    let (mut ends, mut took) = (BTreeSet::new(), Vec::new());
    for _ in 0..STOPS {
        let mut running = service.start().await?;
        let since = Instant::now();
        running
            .process
            .signal_to(service.signal_to, service.signal)?;
        match running.process.wait_exit(service.grace).await {
            Ok(exit) => ends.insert(exit.ended.to_string()),
            Err(_) => ends.insert(format!("still there after {:?}", service.grace)),
        };
        took.push(since.elapsed().as_millis());
    }
    let ends: Vec<String> = ends.into_iter().collect();
    let (least, most) = (took.iter().min(), took.iter().max());
    let took = format!("{} to {} ms", least.unwrap_or(&0), most.unwrap_or(&0));
    Ok(match ends.as_slice() {
        [end] if !end.starts_with("still") => Finding::pass(STOPS, format!("{end}, {took}")),
        _ => Finding::fail(STOPS, format!("{} in {took}", ends.join(" or "))),
    })
}
