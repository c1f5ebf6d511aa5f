//! Server-sent events at the end of a stop.

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::{ends_behind_event, streams};
use crate::http1::Exchange;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "stream/2",
    level: Level::Should,
    promise: "server-sent events end behind a whole event",
    method: "four clients read events that never end, over the signal and to the end",
    criterion: "what came last is an empty line, which ends an event",
    source: "WHATWG HTML, Server-sent events, §9.2.6: an event that is not ended by an empty line is discarded",
    advice: "Hear of the stop between two events, and end the stream there; clients reconnect by themselves",
    needs: &[Need::Http1, Need::Sse],
    stop: Stop::Streams,
    play: |stage| Box::pin(play(stage)),
};

const CLIENTS: usize = 4;

async fn play(mut stage: Stage) -> Finding {
    let sse = stage.service().offers.sse.clone().unwrap_or_default();
    let exchanges = match streams(&mut stage, &sse, CLIENTS).await {
        Ok(exchanges) => exchanges,
        Err(finding) => return finding,
    };
    let last = exchanges.iter().map(Exchange::last_bytes);
    let last: Vec<&[u8]> = last.filter(|last| !last.is_empty()).collect();
    let count = last.len() as u64;
    match last.iter().filter(|last| !ends_behind_event(last)).count() {
        _ if last.is_empty() => Finding::inconclusive("no event was seen"),
        0 => Finding::pass(count, format!("all {count} ended behind an event")),
        within => Finding::fail(count, format!("{within} of {count} ended within an event")),
    }
}
