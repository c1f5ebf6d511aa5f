//! Big answers to slow readers.

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::under_load;
use crate::plan::Kind;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "http1/5",
    level: Level::Must,
    promise: "a big answer that is being read slowly is not truncated",
    method: "four clients read what is big in thirty pauses of 35 ms, through a small window",
    criterion: "no request is lost, of at least 2 that were under way at the signal or came after it",
    source: "RFC 9112 §6.3",
    advice: "Do not exit while bytes wait in the socket's buffer; shut the write side and wait for the client's FIN; nginx: worker_shutdown_timeout above the transfer",
    needs: &[Need::Http1, Need::Big],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

async fn play(stage: Stage) -> Finding {
    under_load(stage, Kind::SlowReader, 4, 2).await
}
