//! A listener that is open and that nobody accepts from.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::visit;
use crate::outcome::{Loss, Outcome};
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "listener/3",
    level: Level::Must,
    promise: "nobody is let in who is not served",
    method: "after the signal a client connects and asks every 20 ms, until nobody listens",
    criterion: "no connection that was let in 200 ms or more before the listener closed stays without an answer",
    source: "listen(2): the kernel goes on accepting for a listener that its process has left",
    advice: "Close the listener, or go on accepting: never leave it open without an acceptor; gunicorn keeps it open in the arbiter while its workers stop",
    needs: &[Need::Http1],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

const STEP: Duration = Duration::from_millis(20);

/// A connection that comes later than this before the close may be a race, and `listener/1` counts
/// it.
const ZOMBIE: Duration = Duration::from_millis(200);

/// Bounds what is open at a time.
const MOST: usize = 100;

async fn play(mut stage: Stage) -> Finding {
    stage.signalled().await;
    let mut visitors = tokio::task::JoinSet::new();
    while stage.moments().closed.is_none() && visitors.len() < MOST {
        visitors.spawn(visit(
            &stage,
            &stage.service().offers.fast,
            visitors.len() + 1,
        ));
        sleep(STEP).await;
    }
    let closed = stage.closed().await;
    let open = stage.moments().after_signal(Some(closed));
    let visits = visitors.join_all().await;
    let (let_in, zombies) = count(&visits, closed);
    if zombies > 0 {
        let seen = format!("{zombies} of {let_in} that were let in after the signal got nothing");
        let nobody = open.filter(|_| zombies == let_in);
        let cause = nobody.map(|open| {
            let open = open.as_millis();
            format!("the listener was open for {open} ms after the signal, and nobody served it")
        });
        return Finding::fail(let_in, seen).because(cause);
    }
    Finding::pass(
        visits.len() as u64,
        format!("{let_in} were let in after the signal"),
    )
}

/// Counts who was let in, and who of them early and for nothing.
fn count(visits: &[Option<(Instant, Outcome)>], closed: Instant) -> (u64, u64) {
    let let_in = visits.iter().flatten();
    let zombies = let_in.clone().filter(|(since, outcome)| {
        let nothing = match outcome {
            Outcome::Lost(loss) => !matches!(loss, Loss::ServerError | Loss::Truncated),
            _ => false,
        };
        nothing && *since + ZOMBIE <= closed
    });
    (let_in.count() as u64, zombies.count() as u64)
}
