//! Requests in flight at the signal.

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::under_load;
use crate::plan::Kind;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "http1/1",
    level: Level::Must,
    promise: "a request in flight at the signal is answered",
    method: "eight clients ask for what takes a while, again and again",
    criterion: "no request is lost, of at least 4 that were under way at the signal or came after it",
    source: "RFC 9110 §7.6.1; the framework guides to graceful shutdown",
    advice: "Finish what is in flight before the process exits: Go: wait for Server.Shutdown; Node: server.close() and its callback; axum: with_graceful_shutdown; uvicorn: --timeout-graceful-shutdown; gunicorn: graceful_timeout",
    needs: &[Need::Http1, Need::Slow],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

async fn play(stage: Stage) -> Finding {
    under_load(stage, Kind::Slow, 8, 4).await
}
