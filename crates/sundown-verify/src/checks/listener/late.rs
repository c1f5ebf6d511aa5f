//! Connects after the listener was closed.

use std::io;
use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout};

use crate::check::{Check, Finding, Level, Stop};
use crate::outcome::End;
use crate::stop::Stage;
use crate::tcp::{Window, connect, end_of_connect};
use crate::timeline::{Attempt, Class, Span};

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
const CLIENTS: usize = 8;

async fn play(mut stage: Stage) -> Finding {
    stage.signalled().await;
    stage.closed().await;
    if stage.moments().stayed {
        return Finding::inconclusive("it did not end");
    }
    sleep(LATE).await;
    let mut other = Vec::new();
    for number in 1..=CLIENTS {
        let from = Instant::now();
        let connected = timeout(AT_ONCE, connect(stage.address(), Window::Usual)).await;
        let to = Instant::now();
        let attempt = attempt(connected.map(|made| made.map(drop)));
        if attempt.class != Class::Declined {
            other.push(attempt.how.clone());
        }
        let request = "connect".to_owned();
        stage
            .recorder()
            .note_attempt(number, Span { from, to }, request, attempt);
    }
    let count = CLIENTS as u64;
    match other.len() {
        0 => Finding::pass(count, "each was refused at once"),
        some => Finding::fail(
            count,
            format!("{some} of {CLIENTS} were not refused at once"),
        )
        .with_evidence(other),
    }
}

/// What came of a connect.
fn attempt(connected: Result<io::Result<()>, Elapsed>) -> Attempt {
    let (class, how) = match connected {
        Ok(Ok(())) => (Class::Answered, "let in".to_owned()),
        Ok(Err(error)) => match end_of_connect(&error) {
            End::Refused => (Class::Declined, "refused".to_owned()),
            End::Local => (Class::LocalError, error.to_string()),
            _ => (Class::Lost, error.to_string()),
        },
        Err(_) => (Class::Lost, format!("no answer within {AT_ONCE:?}")),
    };
    Attempt { class, how }
}
