//! When readiness turns.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::visit;
use crate::outcome::{Declined, Loss, Outcome};
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "ready/1",
    level: Level::Should,
    promise: "readiness turns before the listener closes",
    method: "from the signal on a probe connects every 10 ms and asks, until nobody listens",
    criterion: "a probe is told \"not ready\" (a status of 400 or above) while the listener is open",
    source: "Kubernetes, Pod termination: endpoints are removed while the pod stops, and not before",
    advice: "Turn readiness at the signal, and go on serving for as long as the load balancer needs to notice: a lame duck, or a preStop hook that sleeps",
    needs: &[Need::Http1, Need::Ready, Need::Moment],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

const STEP: Duration = Duration::from_millis(10);

/// The kernel delivers a signal when the process next runs: until then nobody can know of it.
const HEARD: Duration = Duration::from_millis(50);

/// Bounds the probes.
const MOST: usize = 500;

async fn play(mut stage: Stage) -> Finding {
    let ready = stage.service().offers.ready.clone().unwrap_or_default();
    match visit(&stage, &ready, 0).await {
        Some((_, Outcome::Answered { status: ..400 })) => {}
        _ => return Finding::inconclusive("it does not say that it is ready before the signal"),
    }
    let signalled = stage.signalled().await;
    let mut probes = JoinSet::new();
    while stage.moments().closed.is_none() && probes.len() < MOST {
        probes.spawn(visit(&stage, &ready, probes.len() + 1));
        sleep(STEP).await;
    }
    let closed = stage.closed().await;
    let probes = probes.join_all().await;
    if let Some(at) = first_no(closed, &probes) {
        stage.recorder().note_unready(at);
    }
    judge(signalled, closed, &probes)
}

/// When the first probe began that was told no while somebody listened.
fn first_no(closed: Instant, probes: &[Option<(Instant, Outcome)>]) -> Option<Instant> {
    let told = probes.iter().flatten();
    let no = told.filter(|(began, outcome)| says_no(*outcome) && *began < closed);
    no.map(|(began, _)| *began).min()
}

/// Judges by when the listener closed, and by when each probe that was let in began and what it was
/// told.
fn judge(signalled: Instant, closed: Instant, probes: &[Option<(Instant, Outcome)>]) -> Finding {
    let let_in = || probes.iter().flatten();
    let millis =
        |later: Instant, earlier: Instant| later.saturating_duration_since(earlier).as_millis();
    if let Some(first) = first_no(closed, probes) {
        let seen = format!(
            "not ready {} ms after the signal, {} ms before nobody listened",
            millis(first, signalled),
            millis(closed, first)
        );
        return Finding::pass(let_in().count() as u64, seen);
    }
    if closed < signalled + HEARD {
        let after = millis(closed, signalled);
        return Finding::fail(1, format!("nobody listened {after} ms after the signal"));
    }
    let told = let_in().filter(|(began, outcome)| {
        *began >= signalled + HEARD && matches!(outcome, Outcome::Answered { .. })
    });
    match told.count() {
        0 => Finding::inconclusive("no probe was answered between the signal and the close"),
        told => Finding::fail(told as u64, format!("ready to the last of {told} probes")),
    }
}

/// A 503 that says close counts as declined, and says no as clearly.
fn says_no(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Answered { status: 400.. }
            | Outcome::Declined(Declined::Unavailable)
            | Outcome::Lost(Loss::ServerError)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;

    #[test]
    fn a_probe_counts_when_it_was_let_in_and_could_know() {
        let signalled = Instant::now();
        let at = |millis| signalled + Duration::from_millis(millis);
        const YES: Outcome = Outcome::Answered { status: 200 };
        const NO: Outcome = Outcome::Declined(Declined::Unavailable);
        const LOST: Outcome = Outcome::Lost(Loss::Eof);
        type Probes = &'static [(u64, Outcome)];
        let table: [(&str, u64, Probes, Verdict); 7] = [
            ("flips", 200, &[(0, YES), (60, NO)], Verdict::Pass),
            ("flips at once", 200, &[(10, NO)], Verdict::Pass),
            ("stays ready", 200, &[(10, YES), (60, YES)], Verdict::Fail),
            ("no window", 20, &[(10, YES)], Verdict::Fail),
            (
                "too early to know",
                200,
                &[(10, YES)],
                Verdict::Inconclusive,
            ),
            (
                "nobody is served",
                200,
                &[(60, LOST)],
                Verdict::Inconclusive,
            ),
            ("nobody is let in", 200, &[], Verdict::Inconclusive),
        ];
        for (what, closed, probes, expected) in table {
            let probes: Vec<_> = probes
                .iter()
                .map(|(began, outcome)| Some((at(*began), *outcome)))
                .collect();
            assert_eq!(
                judge(signalled, at(closed), &probes).verdict,
                expected,
                "{what}"
            );
        }
    }
}
