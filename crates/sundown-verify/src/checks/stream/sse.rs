//! Server-sent events at the end of a stop.

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::streams;
use crate::http1::Exchange;
use crate::outcome::Seen;
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
    let last: Vec<Vec<u8>> = exchanges.iter().filter_map(last_bytes).collect();
    let count = last.len() as u64;
    match last.iter().filter(|last| !is_boundary(last)).count() {
        _ if last.is_empty() => Finding::inconclusive("no event was seen"),
        0 => Finding::pass(count, format!("all {count} ended behind an event")),
        within => Finding::fail(count, format!("{within} of {count} ended within an event")),
    }
}

/// The last bytes of the events, where there were any.
fn last_bytes(exchange: &Exchange) -> Option<Vec<u8>> {
    let last = match exchange.evidence(0).seen {
        Seen::Whole { .. } => &exchange.responses()[0].body,
        _ => exchange.last_bytes(),
    };
    (!last.is_empty()).then(|| last.to_vec())
}

fn is_boundary(last: &[u8]) -> bool {
    [&b"\n\n"[..], b"\r\n\r\n", b"\r\r"]
        .iter()
        .any(|end| last.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::is_boundary;

    #[test]
    fn an_event_ends_with_an_empty_line() {
        for whole in ["a\n\n", "\r\n\r\n", "a\r\r"] {
            assert!(is_boundary(whole.as_bytes()), "{whole:?}");
        }
        for cut in ["data", "a\n", "a\r\n", "", "\n\nd"] {
            assert!(!is_boundary(cut.as_bytes()), "{cut:?}");
        }
    }
}
