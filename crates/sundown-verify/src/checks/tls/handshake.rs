//! A TLS handshake over the signal.

use std::time::Duration;

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::over_signal_by;
use crate::http1::{Connection, Letter};
use crate::plan::Request;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "tls/2",
    level: Level::Must,
    promise: "a TLS handshake that is under way at the signal is finished, and its request answered",
    method: "sixteen clients send half a ClientHello just before the signal, and the rest 200 ms later",
    criterion: "no request is lost, of at least 8",
    source: "RFC 9293 §3.10.4: who was let in is connected; RFC 8446 §4.1: it is the server's turn",
    advice: "Count a connection as busy from accept on, not from its first request",
    needs: &[Need::Http1, Need::Tls],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

const CLIENTS: usize = 16;
const PAUSE: Duration = Duration::from_millis(200);

async fn play(mut stage: Stage) -> Finding {
    let letter = Letter::new(
        &[Request::get(&stage.service().offers.fast)],
        stage.address(),
    );
    over_signal_by(&mut stage, &letter, CLIENTS, |target, limit| {
        Connection::halting(target, PAUSE, limit)
    })
    .await
    .0
}
