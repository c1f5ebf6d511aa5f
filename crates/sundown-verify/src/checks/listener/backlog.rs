//! The accept queue under natural load.

use crate::check::{Check, Finding, Level, Stop};
use crate::checks::under_load;
use crate::plan::Kind;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "listener/1",
    level: Level::Must,
    promise: "what the kernel has accepted for the listener is served",
    method: "sixty-four clients make a connection for every request",
    criterion: "no request is lost, of at least 8 that were under way at the signal or came after it",
    source: "listen(2), tcp(7): closing a listener resets what waits in its queue",
    advice: "Accept until the queue is empty before you close the listener; keep the load balancer from sending new connections first (preStop sleep, readiness)",
    needs: &[],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

async fn play(stage: Stage) -> Finding {
    under_load(stage, Kind::NewConnection, 64, 8).await
}
