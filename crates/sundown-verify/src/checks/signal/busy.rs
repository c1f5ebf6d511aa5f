//! The signal while there is much to do.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::http1::{Connection, Letter};
use crate::plan::{Plan, Request};
use crate::stop::Stage;
use crate::tcp::Window;

pub(super) const CHECK: Check = Check {
    id: "signal/8",
    level: Level::Must,
    promise: "the signal is heard while every worker is busy",
    method: "64 slow requests are in flight when the signal comes",
    criterion: "the process is gone within the grace",
    source: "a handler that waits for a free worker, or for a loop that is blocked, hears nothing",
    advice: "Hear signals on a thread or a process that serves no request",
    needs: &[Need::Http1, Need::Slow],
    stop: Stop::Own,
    play: |stage| Box::pin(play(stage)),
};

/// More than the usual number of workers.
const REQUESTS: usize = 64;

/// How long the requests have to be written and taken up.
const TAKEN_UP: Duration = Duration::from_millis(100);

async fn play(mut stage: Stage) -> Finding {
    let offers = &stage.service().offers;
    let slow = Request::get(offers.slow.as_ref().unwrap_or(&offers.fast));
    let letter = Letter::new(&[slow], stage.address());
    let mut busy = JoinSet::new();
    for number in 1..=REQUESTS {
        let opened = Connection::open(stage.endpoint(), Window::Usual, Plan::HANG_LIMIT).await;
        let Ok(mut connection) = opened else { continue };
        let (letter, recorder) = (letter.clone(), stage.recorder().clone());
        busy.spawn(async move {
            let exchange = connection.exchange(&letter, Plan::HANG_LIMIT).await;
            recorder.note_exchange(number, &letter, &exchange);
        });
    }
    let opened = busy.len();
    if opened < REQUESTS / 2 {
        return Finding::inconclusive(format!("only {opened} connections could be opened"));
    }
    sleep(TAKEN_UP).await;
    stage.send(stage.service().signal);
    let moments = stage.ended().await;
    Finding::of_end(&moments, stage.service().grace)
}
