//! Uploads under way at the signal.

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::under_load;
use crate::plan::Kind;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "http1/4",
    level: Level::Must,
    promise: "an upload under way at the signal is taken to its end",
    method: "eight clients send 64 KiB in eight parts over half a second",
    criterion: "no request is lost, of at least 4 that were under way at the signal or came after it",
    source: "RFC 9112 §6.2",
    advice: "Do not close connections whose request is still arriving; Node: closeIdleConnections() alone is not enough, wait for close; gunicorn: sync workers need graceful_timeout above the upload",
    needs: &[Need::Http1, Need::Upload],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

async fn play(stage: Stage) -> Finding {
    under_load(stage, Kind::SlowUpload, 8, 4).await
}
