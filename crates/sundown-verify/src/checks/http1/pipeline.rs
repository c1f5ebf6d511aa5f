//! Pipelined requests.

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::over_signal;
use crate::http1::Letter;
use crate::plan::Request;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "http1/8",
    level: Level::Must,
    promise: "pipelined requests are answered, or can be told to be unprocessed",
    method: "eight clients write three requests at once before the signal, the first of which takes a while",
    criterion: "each is answered, or stands behind an answer that said Connection: close",
    source: "RFC 9112 §9.3.2, §9.6",
    advice: "Answer what has been read, say Connection: close on the last answer, and only then close",
    needs: &[Need::Http1, Need::Slow],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

const CLIENTS: usize = 8;

async fn play(mut stage: Stage) -> Finding {
    let offers = &stage.service().offers;
    let slow = Request::get(offers.slow.clone().unwrap_or_default());
    let fast = Request::get(&offers.fast);
    let letter = Letter::new(&[slow, fast.clone(), fast], stage.address());
    over_signal(&mut stage, &letter, CLIENTS).await.0
}
