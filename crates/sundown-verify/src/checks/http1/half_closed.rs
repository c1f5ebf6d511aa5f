//! Clients that have closed their side.
//!
//! Told and not judged: a server that takes the end of input for the end of the client can cancel
//! work that nobody waits for, and many choose that.

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::over_signal;
use crate::http1::Letter;
use crate::plan::Request;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "http1/11",
    level: Level::Info,
    promise: "a client that has closed its own side is answered",
    method: "eight clients ask for what takes a while, send FIN before the signal, and read on",
    criterion: "each is answered",
    source: "RFC 9112 §9.6; TCP allows it, shell tools and old proxies do it",
    advice: "Take the end of input as the end of requests, not of the connection",
    needs: &[Need::Http1, Need::Plain, Need::Slow],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

const CLIENTS: usize = 8;

async fn play(mut stage: Stage) -> Finding {
    let slow = stage.service().offers.slow.clone().unwrap_or_default();
    let letter = Letter::new(&[Request::get(slow)], stage.address()).half_closed();
    over_signal(&mut stage, &letter, CLIENTS).await.0
}
