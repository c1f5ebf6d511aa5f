//! A listener that is open and that nobody accepts from.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::check::{Check, Finding, Level, Stop};
use crate::http1::{Connection, Exchange, Letter};
use crate::outcome::{Outcome, judge};
use crate::plan::Request;
use crate::stop::Stage;
use crate::tcp::Window;

pub(super) const CHECK: Check = Check {
    id: "listener/3",
    level: Level::Must,
    promise: "nobody is let in who is not served",
    method: "after the signal a client connects and asks every 20 ms, until nobody listens",
    criterion: "no connection that was let in 200 ms or more before the listener closed stays without an answer",
    source: "listen(2): the kernel goes on accepting for a listener that its process has left",
    advice: "Close the listener, or go on accepting: never leave it open without an acceptor; gunicorn keeps it open in the arbiter while its workers stop",
    needs: &[],
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
        visitors.spawn(visit(&stage, visitors.len() + 1));
        sleep(STEP).await;
    }
    let closed = stage.closed().await;
    let visits = visitors.join_all().await;
    let (let_in, zombies) = count(&visits, closed);
    if zombies > 0 {
        let seen = format!("{zombies} of {let_in} that were let in after the signal got nothing");
        return Finding::fail(let_in, seen);
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
        matches!(outcome, Outcome::Lost(_)) && *since + ZOMBIE <= closed
    });
    (let_in.count() as u64, zombies.count() as u64)
}

/// Connects and asks; `None` when nobody let it in.
fn visit(stage: &Stage, number: usize) -> impl Future<Output = Option<(Instant, Outcome)>> + use<> {
    let letter = Letter::new(
        &[Request::get(&stage.service().offers.fast)],
        stage.address(),
    );
    let (target, limit) = (stage.address(), stage.service().grace);
    let recorder = stage.recorder().clone();
    async move {
        let since = Instant::now();
        let opened = Connection::open(target, Window::Usual, limit).await;
        let exchange: Exchange = opened.ok()?.exchange(&letter, limit).await;
        recorder.note_exchange(number, &letter, &exchange);
        Some((since, judge(&exchange.evidence(0))))
    }
}
