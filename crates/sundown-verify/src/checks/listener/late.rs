//! Connects after the listener was closed.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::check::{Check, Finding, Level, Stop};
use crate::outcome::End;
use crate::stop::Stage;
use crate::tcp::{Window, connect, end_of_connect};

pub(super) const CHECK: Check = Check {
    id: "listener/4",
    level: Level::Should,
    promise: "who comes too late is refused at once",
    method: "200 ms after nobody listens any more, eight clients connect",
    criterion: "each is refused within 100 ms, and none is reset or left waiting",
    source: "tcp(7): a client that is refused at once can go elsewhere at once",
    advice: "Close the listener rather than filter its port; let the load balancer know first",
    needs: &[],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

const LATE: Duration = Duration::from_millis(200);
const AT_ONCE: Duration = Duration::from_millis(100);
const CLIENTS: u64 = 8;

async fn play(mut stage: Stage) -> Finding {
    stage.signalled().await;
    stage.closed().await;
    if stage.moments().stayed {
        return Finding::inconclusive("it did not end");
    }
    sleep(LATE).await;
    let mut other = Vec::new();
    for _ in 0..CLIENTS {
        match timeout(AT_ONCE, connect(stage.address(), Window::Usual)).await {
            Ok(Err(error)) if end_of_connect(&error) == End::Refused => {}
            Ok(Err(error)) => other.push(error.to_string()),
            Ok(Ok(_)) => other.push("let in".to_owned()),
            Err(_) => other.push(format!("no answer within {AT_ONCE:?}")),
        }
    }
    match other.len() {
        0 => Finding::pass(CLIENTS, "each was refused at once"),
        some => Finding::fail(
            CLIENTS,
            format!("{some} of {CLIENTS} were not refused at once"),
        )
        .with_evidence(other),
    }
}
