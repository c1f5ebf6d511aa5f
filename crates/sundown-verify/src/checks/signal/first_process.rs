//! The signal to a process that is the first of its PID namespace.

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::service::StartError;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "signal/7",
    level: Level::Should,
    promise: "the signal ends the process also as PID 1",
    method: "the service is started as the first process of a PID namespace, as in a container, and gets the signal once it answers",
    criterion: "the process is gone within the grace",
    source: "pid_namespaces(7): to PID 1 the kernel delivers only signals that have a handler",
    advice: "Install a handler for SIGTERM, or start the container with an init (docker run --init)",
    needs: &[Need::Command],
    stop: Stop::Own,
    play: |stage| Box::pin(play(stage)),
};

async fn play(mut stage: Stage) -> Finding {
    let finding = as_first_process(&stage).await;
    stage.send(stage.service().signal);
    stage.ended().await;
    finding.unwrap_or_else(|error| Finding::inconclusive(error.to_string()))
}

async fn as_first_process(stage: &Stage) -> Result<Finding, StartError> {
    let service = stage.service();
    let mut first = service.start_as_first_process().await?;
    first.signal(service.signal)?;
    let exit = first.running.process.wait_exit(service.grace).await;
    Ok(match exit {
        Ok(exit) => Finding::pass(1, exit.ended.to_string()),
        Err(_) => Finding::fail(1, format!("still there after {:?}", service.grace)),
    })
}
