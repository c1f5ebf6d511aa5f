//! What a second signal does.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::end_with;
use crate::http1::{Connection, Letter};
use crate::outcome::{Outcome, judge};
use crate::plan::{Plan, Request};
use crate::service::SecondSignal;
use crate::stop::{LAG_LIMIT, Stage};
use crate::tcp::Window;

pub(super) const TERMINATED: Check = Check {
    id: "signal/4",
    level: Level::Info,
    promise: "a second SIGTERM is told what it does",
    method: "SIGTERM is sent twice, 20 ms apart, to an idle service",
    criterion: "none: it is told and not judged, unless --second-signal declares what it does",
    source: "docker stop and impatient operators send more than one",
    advice: "Say in your documentation what a second signal does: hurry, or nothing",
    needs: &[Need::Process, Need::Status],
    stop: Stop::Own,
    play: |stage| Box::pin(tell(stage, libc::SIGTERM)),
};

pub(super) const INTERRUPTED: Check = Check {
    id: "signal/5",
    level: Level::Info,
    promise: "a SIGINT after a SIGTERM is told what it does",
    method: "SIGTERM and 20 ms later SIGINT are sent to an idle service",
    criterion: "none: it is told and not judged, unless --second-signal declares what it does",
    source: "a Ctrl-C after a supervisor's SIGTERM; actix stops at once at SIGINT",
    advice: "Say in your documentation whether SIGINT hurries a stop that is under way",
    needs: &[Need::Process, Need::Status],
    stop: Stop::Own,
    play: |stage| Box::pin(tell(stage, libc::SIGINT)),
};

/// In place of the first, where it is declared what a second signal does.
pub(super) const TERMINATED_AS_DECLARED: Check = Check {
    level: Level::Should,
    promise: "a second SIGTERM does what is declared",
    method: "SIGTERM is sent twice, 20 ms apart, with a request in flight",
    criterion: AS_DECLARED,
    needs: IN_FLIGHT,
    play: |stage| Box::pin(judge_second(stage, libc::SIGTERM)),
    ..TERMINATED
};

/// In place of the second.
pub(super) const INTERRUPTED_AS_DECLARED: Check = Check {
    level: Level::Should,
    promise: "a SIGINT after a SIGTERM does what is declared",
    method: "SIGTERM and 20 ms later SIGINT are sent with a request in flight",
    criterion: AS_DECLARED,
    needs: IN_FLIGHT,
    play: |stage| Box::pin(judge_second(stage, libc::SIGINT)),
    ..INTERRUPTED
};

const AS_DECLARED: &str =
    "nothing: the request is answered; hurries: the process is gone 2 s after the second signal";

const IN_FLIGHT: &[Need] = &[Need::Http1, Need::Process, Need::Status, Need::Slow];

/// How long the process may take from the second signal on if that hurries.
const SOON: Duration = Duration::from_secs(2);

/// How long a request is under way before the first signal.
const UNDER_WAY: Duration = Duration::from_millis(100);

/// How long after the first signal the second comes.
const BETWEEN: Duration = Duration::from_millis(20);

async fn tell(mut stage: Stage, second: i32) -> Finding {
    send_both(&mut stage, second).await;
    let moments = stage.ended().await;
    match moments.ended {
        _ if moments.killed => Finding::pass(1, "two of them did not end it"),
        Some((at, Some(ended))) => {
            let took = moments.after_signal(Some(at)).unwrap_or_default();
            Finding::pass(1, format!("{ended} after {} ms", took.as_millis()))
        }
        _ => Finding::inconclusive("its end was not seen"),
    }
}

async fn send_both(stage: &mut Stage, second: i32) {
    stage.send(libc::SIGTERM);
    tokio::select! {
        () = sleep(BETWEEN) => stage.send(second),
        _ = stage.ended() => {}
    }
}

async fn judge_second(mut stage: Stage, second: i32) -> Finding {
    let offers = &stage.service().offers;
    let hurries = stage.service().declared.second_signal == Some(SecondSignal::Hurries);
    let path = match (hurries, &offers.endless) {
        (true, Some(endless)) => endless.clone(),
        (true, None) => {
            let finding =
                Finding::inconclusive("needs --endless PATH: what does not end by itself");
            return end_with(stage, finding).await;
        }
        (false, _) => offers.slow.clone().unwrap_or_default(),
    };
    let under_way = ask(&stage, &path);
    sleep(UNDER_WAY).await;
    send_both(&mut stage, second).await;
    let both = Instant::now();
    let moments = stage.ended().await;
    let asked = under_way.await.ok().flatten();
    // Only what was in flight at both is evidence.
    let outcome = asked.and_then(|(outcome, at)| (at > both).then_some(outcome));
    let took = moments.after_signal(moments.ended.map(|(at, _)| at));
    match (hurries, took, outcome) {
        _ if moments.killed => Finding::fail(1, "two of them did not end it"),
        (true, Some(took), _) if took <= BETWEEN + SOON => {
            Finding::pass(1, format!("gone after {} ms", took.as_millis()))
        }
        (true, Some(_), _) if stage.lag() > LAG_LIMIT => {
            Finding::inconclusive("this machine was late itself")
        }
        (true, Some(took), _) => Finding::fail(1, format!("gone after {} ms", took.as_millis())),
        (false, _, Some(Outcome::Answered { .. })) => Finding::pass(1, "the request was answered"),
        (false, _, Some(Outcome::Lost(loss))) => Finding::fail(1, format!("the request: {loss}")),
        _ => Finding::inconclusive("no request was under way, or its end was not seen"),
    }
}

/// Asks, and notes what becomes of it.
fn ask(stage: &Stage, path: &str) -> JoinHandle<Option<(Outcome, Instant)>> {
    let letter = Letter::new(&[Request::get(path)], stage.address());
    let (target, recorder) = (stage.endpoint(), stage.recorder().clone());
    tokio::spawn(async move {
        let opened = Connection::open(target, Window::Usual, Plan::HANG_LIMIT).await;
        let exchange = opened.ok()?.exchange(&letter, Plan::HANG_LIMIT).await;
        recorder.note_exchange(1, &letter, &exchange);
        Some((judge(&exchange.evidence(0)), exchange.span(0).to))
    })
}
