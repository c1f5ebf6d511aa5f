//! The signal to a process that is the first of its PID namespace.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::end_with;
use crate::disposition::Disposition;
use crate::service::{FirstProcess, Service, StartError};
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "signal/7",
    level: Level::Should,
    promise: "the signal ends the process also as PID 1",
    method: "the service is started as the first process of a PID namespace, as in a container, and gets the signal once it answers; then again twenty times, at 0 to 190 % of the time that took, where it has a handler by then",
    criterion: "each process is gone within the grace",
    source: "pid_namespaces(7): to PID 1 the kernel delivers only signals that have a handler",
    advice: "Install a handler for SIGTERM, or start the container with an init (docker run --init)",
    needs: &[Need::Command],
    stop: Stop::Own,
    play: |stage| Box::pin(play(stage)),
};

const INSTANTS: u32 = 20;

async fn play(stage: Stage) -> Finding {
    let finding = as_first_process(&stage).await;
    let finding = finding.unwrap_or_else(|error| Finding::inconclusive(error.to_string()));
    end_with(stage, finding).await
}

async fn as_first_process(stage: &Stage) -> Result<Finding, StartError> {
    let service = stage.service();
    let since = Instant::now();
    let mut first = service.start_as_first_process().await?;
    let start_up = since.elapsed();
    first.signal(service.signal)?;
    let exit = first.running.process.wait_exit(service.grace).await;
    let Ok(exit) = exit else {
        let seen = format!("still there after {:?}", service.grace);
        let cause = match first.disposition(service.signal) {
            Some(Disposition::Default | Disposition::Ignored) => {
                Some("it has no handler, and to PID 1 the kernel delivers nothing without")
            }
            // Blocked signals are queued, for signalfd(2).
            _ => None,
        };
        return Ok(Finding::fail(1, seen).because(cause.map(str::to_owned)));
    };
    let (mut heard, mut stayed) = (0, Vec::new());
    for instant in 0..INSTANTS {
        let after = start_up * instant * 2 / INSTANTS;
        match at_instant(service, &first, after).await? {
            Heard::TooEarly => {}
            Heard::Ended => heard += 1,
            Heard::Stayed => stayed.push(format!(
                "the signal came {} ms after the start",
                after.as_millis()
            )),
        }
        // Three are proof, and each costs a grace.
        if stayed.len() == 3 {
            break;
        }
    }
    let count = 1 + heard + stayed.len() as u64;
    Ok(match stayed.len() {
        0 => Finding::pass(count, format!("{} each time", exit.ended)),
        some => {
            Finding::fail(count, format!("it stayed {some} times of {count}")).with_evidence(stayed)
        }
    })
}

enum Heard {
    /// No handler stood, and to PID 1 the kernel delivers nothing else.
    TooEarly,
    Ended,
    Stayed,
}

async fn at_instant(
    service: &Service,
    like: &FirstProcess,
    after: Duration,
) -> Result<Heard, StartError> {
    let mut first = service.launch_as(like).await?;
    sleep(after).await;
    // Blocked may mean that a thread is just being started, or a program.
    if first.disposition(service.signal) != Some(Disposition::Caught) {
        return Ok(Heard::TooEarly);
    }
    first.signal(service.signal)?;
    Ok(match first.running.process.wait_exit(service.grace).await {
        Ok(_) => Heard::Ended,
        Err(_) => Heard::Stayed,
    })
}
