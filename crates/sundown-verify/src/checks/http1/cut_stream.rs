//! How a stream that was cut looks.

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::{ends_behind_event, streams};
use crate::http1::Exchange;
use crate::outcome::Seen;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "http1/13",
    level: Level::Should,
    promise: "a stream that was cut can be told from one that is whole",
    method: "four clients read a body that never ends, over the signal and to the end",
    criterion: "none of the bodies ends as a whole one does, but for server-sent events behind an event",
    source: "RFC 9112 §8: a chunked body is complete with its last chunk, one without framing with the end of the connection",
    advice: "Reset the connection, or close it without the last chunk, where a body is cut; never answer with a body that only the connection's end delimits",
    needs: &[Need::Http1, Need::Stream],
    stop: Stop::Streams,
    play: |stage| Box::pin(play(stage)),
};

const CLIENTS: usize = 4;

async fn play(mut stage: Stage) -> Finding {
    let stream = stage.service().offers.stream.clone().unwrap_or_default();
    let exchanges = match streams(&mut stage, &stream, CLIENTS).await {
        Ok(exchanges) => exchanges,
        Err(finding) => return finding,
    };
    let (mut begun, mut whole, mut in_order) = (0, 0, 0);
    for exchange in &exchanges {
        match exchange.evidence(0).seen {
            Seen::Nothing => {}
            Seen::Part => begun += 1,
            Seen::Whole { .. } => {
                begun += 1;
                // Nothing of it is missing: its client comes back for what is next.
                let in_its_place =
                    is_event_stream(exchange) && ends_behind_event(exchange.last_bytes());
                *(if in_its_place {
                    &mut in_order
                } else {
                    &mut whole
                }) += 1;
            }
        }
    }
    match (begun, whole, in_order) {
        (0, ..) => Finding::inconclusive("no body had begun"),
        (_, 0, 0) => Finding::pass(begun, format!("all {begun} look cut")),
        (_, 0, some) => Finding::pass(begun, format!("{some} of {begun} ended behind an event")),
        _ => Finding::fail(begun, format!("{whole} of {begun} look whole")),
    }
}

fn is_event_stream(exchange: &Exchange) -> bool {
    let answer = exchange.responses().first();
    answer.is_some_and(|answer| answer.content_type.starts_with("text/event-stream"))
}
