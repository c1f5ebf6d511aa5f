//! A request that never ends.

use tokio::time::{sleep, timeout};

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::AFTERWARDS;
use crate::http1::{Connection, Letter};
use crate::plan::{Plan, Request};
use crate::stop::Stage;
use crate::tcp::Window;

pub(super) const CHECK: Check = Check {
    id: "budget/1",
    level: Level::Should,
    promise: "a request that never ends does not outlast the grace",
    method: "one request that is never answered is in flight at the signal",
    criterion: "the process is gone within the grace, by itself",
    source: "hyperium/hyper#2787, tokio-rs/axum#2673; what stays is killed, and releases nothing",
    advice: "Give the stop a deadline below your supervisor's, and cut off what is left then: Shutdown with a context in Go, a timeout around axum's serve, server.closeAllConnections() in Node",
    needs: &[Need::Http1, Need::Endless],
    stop: Stop::Own,
    play: |stage| Box::pin(play(stage)),
};

async fn play(mut stage: Stage) -> Finding {
    let offers = &stage.service().offers;
    let endless = Request::get(offers.endless.as_ref().unwrap_or(&offers.fast));
    let letter = Letter::new(&[endless], stage.address());
    let opened = Connection::open(stage.endpoint(), Window::Usual, Plan::HANG_LIMIT).await;
    let Ok(mut connection) = opened else {
        return Finding::inconclusive("no connection could be opened");
    };
    // Longer than the stop: its client never leaves first.
    let patience = stage.service().grace * 2;
    let recorder = stage.recorder().clone();
    let mut answer = tokio::spawn(async move {
        let exchange = connection.exchange(&letter, patience).await;
        recorder.note_exchange(1, &letter, &exchange);
    });
    tokio::select! {
        _ = &mut answer => return Finding::inconclusive("the request that never ends has ended"),
        () = sleep(AFTERWARDS) => {}
    }
    stage.send(stage.service().signal);
    let moments = stage.ended().await;
    // With the process ends its connection, and this, too.
    if timeout(AFTERWARDS, &mut answer).await.is_err() {
        answer.abort();
    }
    Finding::of_end(&moments, stage.service().grace)
}
