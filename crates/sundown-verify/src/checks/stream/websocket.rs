//! A WebSocket over the stop.

use tokio::time::{Instant, sleep, timeout};

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::{AFTERWARDS, end_with};
use crate::plan::Plan;
use crate::stop::Stage;
use crate::timeline::{Attempt, Class, Span};
use crate::websocket::{End, WebSocket};

pub(super) const CHECK: Check = Check {
    id: "stream/1",
    level: Level::Should,
    promise: "a WebSocket is told that the server goes away",
    method: "four WebSockets are open at the signal; each client answers a close",
    criterion: "each gets a close frame with 1001 (going away) or 1012 (service restart), between frames",
    source: "RFC 6455 §7.4.1; golang/go#22209: Shutdown forgets hijacked connections, and clients see 1006",
    advice: "Keep a list of what was upgraded, and send each a close frame at the signal",
    needs: &[Need::Http1, Need::Ws],
    stop: Stop::Own,
    play: |stage| Box::pin(play(stage)),
};

const CLIENTS: usize = 4;

async fn play(mut stage: Stage) -> Finding {
    let path = stage.service().offers.ws.clone().unwrap_or_default();
    let mut open = tokio::task::JoinSet::new();
    for number in 1..=CLIENTS {
        let from = Instant::now();
        let opened = WebSocket::open(stage.endpoint(), &path, Plan::HANG_LIMIT).await;
        let websocket = match opened {
            Ok(websocket) => websocket,
            Err(what) => return end_with(stage, Finding::inconclusive(what)).await,
        };
        let (recorder, request) = (stage.recorder().clone(), format!("GET {path}, WebSocket"));
        open.spawn(async move {
            let end = websocket.read_to_end().await;
            let to = Instant::now();
            recorder.note_attempt(number, Span { from, to }, request, attempt(end));
            end
        });
    }
    // The upgrade has to reach its handler.
    if timeout(AFTERWARDS, open.join_next()).await.is_ok() {
        let finding = Finding::inconclusive("a WebSocket ended before the signal");
        return end_with(stage, finding).await;
    }
    stage.send(stage.service().signal);
    stage.ended().await;
    sleep(AFTERWARDS).await;
    let mut ends = Vec::new();
    while let Some(Ok(end)) = open.try_join_next() {
        ends.push(end);
    }
    judge(&ends)
}

/// Whoever is told anything was not cut off, whatever the code.
fn attempt(end: End) -> Attempt {
    let class = match end {
        End::Close(_) => Class::Answered,
        End::Silent | End::WithinFrame => Class::Lost,
    };
    let how = end.to_string();
    Attempt { class, how }
}

fn judge(ends: &[End]) -> Finding {
    let count = ends.len() as u64;
    let untold = ends
        .iter()
        .filter(|end| !matches!(end, End::Close(1001 | 1012)));
    let untold: Vec<String> = untold.map(ToString::to_string).collect();
    match untold.len() {
        _ if ends.is_empty() => Finding::inconclusive("no WebSocket came to an end"),
        0 => Finding::pass(count, format!("all {count} were told")),
        some => {
            Finding::fail(count, format!("{some} of {count} were not told")).with_evidence(untold)
        }
    }
}
