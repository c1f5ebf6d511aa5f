//! The keep-alive reuse race, made certain.

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::held;
use crate::held::Held;
use crate::plan::Plan;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "http1/2",
    level: Level::Must,
    promise: "a request on a kept connection that reaches the server together with the signal is answered",
    method: "64 connections are answered once; the server is frozen (SIGSTOP), each gets a request, SIGTERM follows, then SIGCONT",
    criterion: "no request is lost",
    source: "RFC 9112 §9.5; golang/go#23829, golang/go#65802",
    advice: "Idle is what the kernel says, not what the framework says: read the socket once more before you close it, and half-close and read on rather than close",
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
        reused: CONNECTIONS,
        http1: 0,
        http2: 0,
        stop: stage.service().signal,
        stop_to: stage.service().signal_to,
    };
    held(&stage, plan, CONNECTIONS as u64 / 2).await
}
