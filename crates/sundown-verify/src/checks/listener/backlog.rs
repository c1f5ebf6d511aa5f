//! The accept queue under natural load.

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::under_load;
use crate::plan::Kind;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "listener/1",
    level: Level::Must,
    promise: "what the kernel has accepted for the listener is served",
    method: "sixty-four clients, or eight over TLS, make a connection for every request",
    criterion: "no request is lost, of at least 8 that were under way at the signal or came after it",
    source: "listen(2), tcp(7): closing a listener resets what waits in its queue",
    advice: "Accept until the queue is empty before you close the listener; keep the load balancer from sending new connections first (preStop sleep, readiness)",
    needs: &[Need::Http1],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

async fn play(stage: Stage) -> Finding {
    // A handshake is dear: more would make the service late for everything else.
    let clients = if stage.service().offers.tls { 8 } else { 64 };
    under_load(stage, Kind::NewConnection, clients, 8).await
}
