//! Connections that were opened early.

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::under_load;
use crate::plan::Kind;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "http1/7",
    level: Level::Must,
    promise: "a connection that was opened early is not reset when its first request comes late",
    method: "thirty-two clients connect, stay silent for up to 400 ms, and ask once",
    criterion: "no request is lost, of at least 8 that were under way at the signal or came after it",
    source: "RFC 9112 §9.5; browsers and pools open connections ahead of need",
    advice: "Accept before you close: what the kernel has let in is yours; close a silent connection by FIN and never while bytes are unread",
    needs: &[Need::Http1],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

async fn play(stage: Stage) -> Finding {
    under_load(stage, Kind::Silent, 32, 8).await
}
