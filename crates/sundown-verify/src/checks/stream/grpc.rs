//! gRPC calls over the stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, TE};
use tokio::task::JoinSet;

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::http2::{Exchange, Session};
use crate::outcome::{Outcome, judge};
use crate::plan::{Plan, Request};
use crate::stop::Stage;
use crate::timeline::Recorder;

pub(super) const CHECK: Check = Check {
    id: "stream/3",
    level: Level::Should,
    promise: "a gRPC call ends with a status",
    method: "four clients call the method with an empty message, and again when a call ends before the signal",
    criterion: "each call that is under way at the signal ends with OK or UNAVAILABLE in its trailers",
    source: "gRPC over HTTP/2, Responses: Status must be sent in trailers even if the status is OK",
    advice: "Say GOAWAY, let calls finish, and end those that do not with UNAVAILABLE before the connection is closed",
    needs: &[Need::Grpc],
    stop: Stop::Streams,
    play: |stage| Box::pin(play(stage)),
};

const CLIENTS: usize = 4;

async fn play(mut stage: Stage) -> Finding {
    let method = stage.service().offers.grpc.clone().unwrap_or_default();
    let signal = Arc::new(Signal::default());
    let mut calling = JoinSet::new();
    for number in 1..=CLIENTS {
        let opened = Session::open(stage.endpoint(), Plan::HANG_LIMIT).await;
        let session = match opened {
            Ok(session) => session,
            Err(unmade) => return Finding::inconclusive(unmade.error.to_string()),
        };
        let caller = Caller {
            session,
            method: method.clone(),
            // Longer than the stop: it never leaves first.
            limit: stage.service().grace * 3,
            number,
            recorder: stage.recorder().clone(),
        };
        calling.spawn(caller.call_over(signal.clone()));
    }
    stage.signalled().await;
    signal.sent.store(true, Ordering::Release);
    stage.delivered().await;
    signal.delivered.store(true, Ordering::Release);
    stage.ended().await;
    let ends: Result<Vec<_>, String> = calling.join_all().await.into_iter().collect();
    match ends {
        Ok(ends) => verdict(ends.into_iter().flatten().collect()),
        Err(what) => Finding::inconclusive(what),
    }
}

/// What is known of the signal; somebody else's is delivered some time after we ask for it.
#[derive(Default)]
struct Signal {
    sent: AtomicBool,
    delivered: AtomicBool,
}

struct Caller {
    session: Session,
    method: String,
    limit: Duration,
    number: usize,
    recorder: Recorder,
}

/// How a call ended: with a status, or in words without one.
type Ended = Result<u16, String>;

const OK: u16 = 0;
const UNAVAILABLE: u16 = 14;

impl Caller {
    /// Calls until a call ends after the signal, and returns how; `None` when the server declined it.
    async fn call_over(self, signal: Arc<Signal>) -> Result<Option<Ended>, String> {
        loop {
            let ended = self.call().await;
            if signal.delivered.load(Ordering::Acquire) {
                return Ok(ended);
            }
            match ended {
                // An answer as any before the signal proves nothing yet.
                Some(Ok(OK)) => {}
                _ if signal.sent.load(Ordering::Acquire) => return Ok(ended),
                Some(Ok(status)) => {
                    return Err(format!(
                        "before the signal a call ended with status {status}"
                    ));
                }
                Some(Err(what)) => return Err(format!("before the signal a call ended {what}")),
                None => return Err("a call was declined before the signal".to_owned()),
            }
        }
    }

    async fn call(&self) -> Option<Ended> {
        let request = request(&self.method);
        let exchange = self.session.exchange(&request, self.limit).await;
        self.recorder.note_stream(self.number, &request, &exchange);
        let error = exchange.error().unwrap_or_default();
        match judge(&exchange.evidence()) {
            Outcome::Answered { status } => Some(
                status_of(&exchange)
                    .ok_or_else(|| format!("without a status of gRPC, and with HTTP's {status}")),
            ),
            Outcome::Lost(loss) => Some(Err(format!("{loss}: {error}"))),
            Outcome::Declined(_) | Outcome::LocalError => None,
        }
    }
}

fn status_of(exchange: &Exchange) -> Option<u16> {
    exchange.field("grpc-status")?.parse().ok()
}

/// A call with one message, which is empty and not compressed.
fn request(method: &str) -> Request {
    Request::post(method, Bytes::from_static(&[0; 5]))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header(TE, HeaderValue::from_static("trailers"))
}

fn verdict(ends: Vec<Ended>) -> Finding {
    let count = ends.len() as u64;
    let wrong: Vec<String> = ends
        .into_iter()
        .filter_map(|ended| match ended {
            Ok(OK | UNAVAILABLE) => None,
            Ok(status) => Some(format!("ended with status {status}")),
            Err(what) => Some(format!("ended {what}")),
        })
        .collect();
    match wrong.len() {
        _ if count == 0 => Finding::inconclusive("no call was under way at the signal"),
        0 => Finding::pass(count, format!("all {count} ended with a status")),
        some => {
            let seen = format!("{some} of {count} did not end with OK or UNAVAILABLE");
            Finding::fail(count, seen).with_evidence(wrong)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;

    #[test]
    fn a_call_passes_by_its_status_alone() {
        let table = [
            (vec![Ok(OK), Ok(UNAVAILABLE)], Verdict::Pass),
            (vec![Ok(OK), Ok(13)], Verdict::Fail),
            (vec![Err("cut".to_owned())], Verdict::Fail),
            (vec![], Verdict::Inconclusive),
        ];
        for (ends, expected) in table {
            assert_eq!(verdict(ends.clone()).verdict, expected, "{ends:?}");
        }
    }
}
