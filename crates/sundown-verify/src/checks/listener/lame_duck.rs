//! Who connects in the lame-duck window.

use std::io;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::http1::{Connection, Letter};
use crate::outcome::{Outcome, Persistence, judge};
use crate::plan::Request;
use crate::stop::Stage;
use crate::tcp::Window;

pub(super) const CHECK: Check = Check {
    id: "listener/5",
    level: Level::Should,
    promise: "who connects in the lame-duck window is served, and told to leave",
    method: "from 50 ms after the signal was delivered a client connects and asks every 10 ms, for three quarters of the window",
    criterion: "each is let in, answered, and told Connection: close",
    source: "Kubernetes, Pod termination: traffic comes until every node has heard of it",
    advice: "Keep accepting for as long as it takes until load balancers have noticed, and close each connection after its answer",
    needs: &[Need::Http1, Need::LameDuck, Need::Moment],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

const STEP: Duration = Duration::from_millis(10);

/// How many visits show something.
const LEAST: u64 = 4;

async fn play(mut stage: Stage) -> Finding {
    let letter = Letter::new(
        &[Request::get(&stage.service().offers.fast)],
        stage.address(),
    );
    let window = stage.service().offers.lame_duck;
    let signalled = stage.signalled().await;
    stage.heard().await;
    let mut visits = JoinSet::new();
    while Instant::now() < signalled + window * 3 / 4 {
        let after = signalled.elapsed().as_millis();
        let visit = visit(&stage, letter.clone(), visits.len() + 1, signalled + window);
        visits.spawn(async move {
            let seen = visit.await?;
            Some(seen.map_err(|fault| format!("{after} ms after the signal: {fault}")))
        });
        sleep(STEP).await;
    }
    let visits: Vec<_> = visits.join_all().await.into_iter().flatten().collect();
    let count = visits.len() as u64;
    let faults: Vec<String> = visits.into_iter().filter_map(Result::err).collect();
    match faults.len() {
        0 if count < LEAST => Finding::inconclusive(format!(
            "only {count} visits fitted in, {LEAST} are needed: the window is too short"
        )),
        0 => Finding::pass(count, format!("all {count} were served and told")),
        some => Finding::fail(count, format!("{some} of {count} were not")).with_evidence(faults),
    }
}

/// Says nothing of a visit that was so late, by our own doing, that the window may have ended before
/// the first byte.
fn visit(
    stage: &Stage,
    letter: Letter,
    number: usize,
    window_ends: Instant,
) -> impl Future<Output = Option<Result<(), String>>> + use<> {
    let (target, limit) = (stage.endpoint(), stage.service().grace);
    let recorder = stage.recorder().clone();
    async move {
        // A handshake that nobody takes part in is for the exchange to find.
        let opened = Connection::dial(target, Window::Usual, limit).await;
        let late = Instant::now() >= window_ends;
        let mut connection = match opened {
            Ok(_) if late => return None,
            Ok(connection) => connection,
            Err(unmade) if late && unmade.error.kind() != io::ErrorKind::TimedOut => return None,
            Err(unmade) => return Some(Err(format!("not let in: {}", unmade.error))),
        };
        let exchange = connection.exchange(&letter, limit).await;
        recorder.note_exchange(number, &letter, &exchange);
        Some(match (judge(&exchange.evidence(0)), exchange.responses()) {
            (Outcome::Answered { .. }, [answer, ..])
                if answer.persistence == Persistence::Close =>
            {
                Ok(())
            }
            (Outcome::Answered { .. }, _) => Err("not told to leave".to_owned()),
            _ => Err("not answered".to_owned()),
        })
    }
}
