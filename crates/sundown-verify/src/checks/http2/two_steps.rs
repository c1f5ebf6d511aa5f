//! Whether GOAWAY comes in two steps.

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::http2::{Session, Standing};
use crate::plan::{Plan, Request};
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "http2/2",
    level: Level::Should,
    promise: "an HTTP/2 client is warned before its streams are declined",
    method: "eight connections are answered once and stay open",
    criterion: "each gets a GOAWAY that declines nothing (last stream 2^31-1) before the one that counts",
    source: "RFC 9113 §6.8: a server that is to close gracefully should send both",
    advice: "Send GOAWAY with the highest stream, a PING, and the real GOAWAY once it is answered; hyper does by itself, Go does not warn",
    needs: &[Need::Http2],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

const SESSIONS: usize = 8;

async fn play(mut stage: Stage) -> Finding {
    let request = Request::get(&stage.service().offers.fast);
    let mut sessions = Vec::new();
    for number in 1..=SESSIONS {
        if let Ok(session) = Session::open(stage.endpoint(), Plan::HANG_LIMIT).await {
            let exchange = session.exchange(&request, Plan::HANG_LIMIT).await;
            stage.recorder().note_stream(number, &request, &exchange);
            sessions.push(session);
        }
    }
    sessions.retain(|session| session.standing() == Standing::Open);
    let kept = sessions.len();
    if kept == 0 {
        return Finding::inconclusive("it keeps no HTTP/2 connection");
    }
    stage.signalled().await;
    stage.ended().await;
    let unwarned = sessions.iter().filter(|session| !session.was_warned());
    match unwarned.count() {
        0 => Finding::pass(kept as u64, format!("all {kept} were warned")),
        without => Finding::fail(kept as u64, format!("{without} of {kept} were not warned")),
    }
}
