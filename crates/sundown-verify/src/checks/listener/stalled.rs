//! The accept queue of a stalled server.

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::held;
use crate::held::Held;
use crate::plan::Plan;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "listener/2",
    level: Level::Must,
    promise: "what waits in the accept queue of a stalled server is served",
    method: "the server is frozen (SIGSTOP), 64 connections queue with a request each, SIGTERM follows, then SIGCONT",
    criterion: "no request is lost",
    source: "listen(2), tcp(7); a stall is a garbage collection, a full CPU, a slow disk",
    advice: "Accept until the queue is empty before you close the listener; what is in it was promised to its clients by the handshake",
    needs: &[Need::Http1, Need::Process],
    stop: Stop::Own,
    play: |stage| Box::pin(play(stage)),
};

/// How many connections; well below common backlogs.
const CONNECTIONS: usize = 64;

async fn play(stage: Stage) -> Finding {
    let plan = |plan: Plan| Held {
        plan,
        pid: stage.pid(),
        reused: 0,
        http1: CONNECTIONS,
        http2: 0,
        stop: stage.service().signal,
        stop_to: stage.service().signal_to,
    };
    held(&stage, plan, CONNECTIONS as u64 / 2).await
}
