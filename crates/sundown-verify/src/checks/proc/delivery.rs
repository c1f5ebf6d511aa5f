//! The end of the process before its answers have arrived.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::http1::{Connection, Exchange, Letter};
use crate::outcome::{End, Evidence, Outcome, judge};
use crate::plan::{Plan, Request};
use crate::stop::Stage;
use crate::tcp::Window;

pub(super) const CHECK: Check = Check {
    id: "proc/3",
    level: Level::Should,
    promise: "what was answered is delivered, whatever the process does next",
    method: "eight clients ask for megabytes before the signal, send the beginning of another request after it, and read only when the process has ended or half a second has passed",
    criterion: "each answer is whole",
    source: "RFC 9112 §9.6: who closes with bytes unread resets the connection, and takes back what was on its way",
    advice: "Close in two steps: FIN, then read until the client's; and let the process wait for it",
    needs: &[Need::Http1, Need::Big],
    stop: Stop::Own,
    play: |stage| Box::pin(play(stage)),
};

const CLIENTS: usize = 8;

/// How long the answers have to begin.
const BEGUN: Duration = Duration::from_millis(200);

/// How long nothing is read.
const UNREAD: Duration = Duration::from_millis(500);

async fn play(mut stage: Stage) -> Finding {
    let big = stage.service().offers.big.clone().unwrap_or_default();
    let letter = Letter::new(&[Request::get(big)], stage.address());
    let mut waiting = Vec::new();
    for _ in 0..CLIENTS {
        let opened = Connection::open(stage.endpoint(), Window::Small, Plan::HANG_LIMIT).await;
        let Ok(mut connection) = opened else { continue };
        let mut exchange = Exchange::new(&mut connection, &letter);
        connection.write(&letter, &mut exchange).await;
        waiting.push((connection, exchange));
    }
    sleep(BEGUN).await;
    stage.send(stage.service().signal);
    sleep(BEGUN).await;
    for (connection, _) in &mut waiting {
        // Whoever is closed already has answered, or never will.
        let _ = connection.write_raw(b"GET / HTTP/1.1\r\n").await;
    }
    let _ = timeout(UNREAD, stage.ended()).await;
    let deadline = Instant::now() + stage.service().grace;
    let mut reading = tokio::task::JoinSet::new();
    for (index, (mut connection, mut exchange)) in waiting.into_iter().enumerate() {
        let (letter, recorder) = (letter.clone(), stage.recorder().clone());
        reading.spawn(async move {
            connection.read(&letter, &mut exchange, deadline).await;
            recorder.note_exchange(index + 1, &letter, &exchange);
            exchange.evidence(0)
        });
    }
    let read = reading.join_all().await;
    stage.ended().await;
    let count = read.len() as u64;
    let whole = |evidence: &Evidence| matches!(judge(evidence), Outcome::Answered { .. });
    let cut: Vec<Evidence> = read.into_iter().filter(|one| !whole(one)).collect();
    match cut.len() {
        _ if count < CLIENTS as u64 / 2 => {
            Finding::inconclusive(format!("only {count} connections could be opened"))
        }
        0 => Finding::pass(count, format!("all {count} arrived whole")),
        some => Finding::fail(count, format!("{some} of {count} did not arrive whole"))
            .because(cause(&cut)),
    }
}

/// Why these did not arrive whole, where all ended in one way.
fn cause(cut: &[Evidence]) -> Option<String> {
    let all = |end: End| cut.iter().all(|evidence| evidence.end == end);
    let cause = match () {
        () if all(End::Reset) => {
            "the connections were reset: who closes with bytes unread takes back what was on its way"
        }
        () if all(End::Eof) => "the connections were closed before all was written",
        () => return None,
    };
    Some(cause.to_owned())
}
