//! The checks: a folder a section, a file a check.
//!
//! Each file says what it promises, what it does, when it passes and where that comes from; the
//! help, the report and the documentation print these words.

mod budget;
mod data;
mod http1;
mod http2;
mod listener;
mod proc;
mod ready;
mod repeat;
mod restart;
mod signal;
mod stream;
mod tls;

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::channel::Endpoint;
use crate::check::{Check, Finding};
use crate::disposition::Disposition;
use crate::held::Held;
use crate::http1::{Connection, Exchange, Letter, Unmade};
use crate::listeners;
use crate::load::Load;
use crate::load::ledger::words;
use crate::outcome::{Evidence, Outcome, Persistence, judge};
use crate::plan::{Kind, Plan, Request};
use crate::service::Declared;
use crate::stop::{Nearness, Stage};
use crate::tally::{Counts, Example, Tally};
use crate::tcp::Window;

/// Lists every check, in the order in which they are told.
pub fn all() -> impl Iterator<Item = &'static Check> {
    [
        signal::CHECKS,
        listener::CHECKS,
        http1::CHECKS,
        http2::CHECKS,
        stream::CHECKS,
        tls::CHECKS,
        ready::CHECKS,
        proc::CHECKS,
        budget::CHECKS,
        data::CHECKS,
        restart::CHECKS,
        repeat::CHECKS,
    ]
    .into_iter()
    .flatten()
}

/// Returns a check as it is for a service of which something is declared.
pub(crate) fn as_declared(check: &'static Check, declared: &Declared) -> &'static Check {
    signal::as_declared(check, declared)
}

/// How long a load runs before the signal, at the most: until it has been answered.
const WARM_UP: Duration = Duration::from_secs(5);

/// How often a load is looked at while it warms up.
const STEP: Duration = Duration::from_millis(10);

/// The kinds that are looked at for what is in flight at the signal.
const IN_FLIGHT: [Kind; 5] = [
    Kind::Http2,
    Kind::Slow,
    Kind::SlowUpload,
    Kind::SlowReader,
    Kind::HalfHead,
];

/// How long clients go on after the end: a connect that nobody refuses tells them that it is over.
const AFTERWARDS: Duration = Duration::from_millis(500);

/// Plays one kind of client before, at and after the signal, and judges what was under way at the
/// signal or came after it.
async fn under_load(mut stage: Stage, kind: Kind, clients: usize, least: u64) -> Finding {
    match during_stop(&mut stage, kind, clients).await {
        Ok((tally, during)) => Finding::of_losses(&tally, &during, least, stage.lag()),
        Err(finding) => finding,
    }
}

/// Plays one kind of client before, at and after the signal; returns what it counted in all, and
/// what of it ended after the signal.
async fn during_stop(
    stage: &mut Stage,
    kind: Kind,
    clients: usize,
) -> Result<(Tally, Counts), Finding> {
    let mut load = Load::start(plan(stage).with(kind, clients));
    let warm = async {
        while load.tally().total.answered < clients as u64 {
            sleep(STEP).await;
        }
    };
    if timeout(WARM_UP, warm).await.is_err() {
        let answered = load.tally().total.answered;
        return Err(Finding::inconclusive(format!(
            "before the signal only {answered} requests were answered in {WARM_UP:?}"
        )));
    }
    stage.near(Nearness::Announced).await;
    if kind != Kind::NewConnection {
        // What becomes of connections that come at the signal is the listener's.
        load.settle();
    }
    let in_flight = IN_FLIGHT.contains(&kind);
    let exact = stage.service().target.is_signalled_by_us();
    if in_flight && exact {
        // And what becomes of requests on idle connections is looked at where it is meant.
        stage.near(Nearness::Imminent).await;
        load.wind_up();
    }
    stage.signalled().await;
    let before = load.tally().total;
    let mut early = 0;
    if in_flight && !exact {
        // Somebody else sends the signal, some time later: what is answered until then proves nothing.
        stage.delivered().await;
        load.wind_up();
        early = load.tally().total.since(&before).answered;
    }
    stage.ended().await;
    let _ = timeout(AFTERWARDS, load.ended()).await;
    let tally = load.finish().await;
    let mut during = tally.total.since(&before);
    during.answered -= early;
    Ok((tally, during))
}

/// Sends one letter from each of some clients a moment before the signal, and judges the answers.
async fn over_signal(
    stage: &mut Stage,
    letter: &Letter,
    clients: usize,
) -> (Finding, Vec<Exchange>) {
    // What becomes of a handshake is what becomes of its request.
    let open = |target, limit| Connection::dial(target, Window::Usual, limit);
    over_signal_by(stage, letter, clients, open).await
}

/// The same over connections that are made in another way.
async fn over_signal_by<F>(
    stage: &mut Stage,
    letter: &Letter,
    clients: usize,
    open: impl Fn(Endpoint, Duration) -> F,
) -> (Finding, Vec<Exchange>)
where
    F: Future<Output = Result<Connection, Unmade>> + Send + 'static,
{
    let (target, limit) = (stage.endpoint(), stage.service().grace);
    stage.near(Nearness::Announced).await;
    let mut under_way = JoinSet::new();
    for number in 1..=clients {
        let (letter, opening) = (letter.clone(), open(target, limit));
        let recorder = stage.recorder().clone();
        under_way.spawn(async move {
            let exchange = opening.await.ok()?.exchange(&letter, limit).await;
            recorder.note_exchange(number, &letter, &exchange);
            Some((exchange, Instant::now()))
        });
    }
    stage.signalled().await;
    let delivered = stage.delivered().await;
    let ended = under_way.join_all().await.into_iter().flatten();
    let exchanges: Vec<Exchange> = ended
        // What was answered before proves nothing.
        .filter(|(exchange, at)| *at >= delivered || !all_answered(letter, exchange))
        .map(|(exchange, _)| exchange)
        .collect();
    let mut tally = Tally::default();
    for exchange in &exchanges {
        for index in 0..letter.requests() {
            count(&mut tally, letter, exchange, &exchange.evidence(index));
        }
    }
    let finding = Finding::of_losses(&tally, &tally.total, clients as u64 / 2, stage.lag());
    (finding, exchanges)
}

/// Reads streams that are there at the signal and never end, and returns how each ended once the
/// process has.
async fn streams(stage: &mut Stage, path: &str, clients: usize) -> Result<Vec<Exchange>, Finding> {
    let letter = Letter::new(&[Request::get(path)], stage.address());
    // Longer than the stop: its clients never leave first.
    let (target, limit) = (stage.endpoint(), stage.service().grace * 3);
    let mut reading = JoinSet::new();
    for number in 1..=clients {
        let opened = Connection::open(target, Window::Usual, limit).await;
        let Ok(mut connection) = opened else { continue };
        let (letter, recorder) = (letter.clone(), stage.recorder().clone());
        reading.spawn(async move {
            let exchange = connection.exchange(&letter, limit).await;
            recorder.note_exchange(number, &letter, &exchange);
            exchange
        });
    }
    if timeout(AFTERWARDS, reading.join_next())
        .await
        .is_ok_and(|ended| ended.is_some())
    {
        return Err(Finding::inconclusive("a stream ended before the signal"));
    }
    stage.signalled().await;
    stage.ended().await;
    Ok(reading.join_all().await)
}

/// Whether these last bytes of server-sent events end an event, which takes an empty line.
fn ends_behind_event(last: &[u8]) -> bool {
    let mut ends = [&b"\n\n"[..], b"\r\n\r\n", b"\r\r"].into_iter();
    ends.any(|end| last.ends_with(end))
}

/// Stops the service of a check that has its own stop, and has its finding before that.
async fn end_with(mut stage: Stage, finding: Finding) -> Finding {
    stage.send(stage.service().signal);
    stage.ended().await;
    finding
}

/// Opens connections that are answered once, and returns those that the server keeps.
async fn keep(stage: &Stage, letter: &Letter, clients: usize) -> Vec<Connection> {
    let mut kept = Vec::new();
    for _ in 0..clients {
        let opened = Connection::open(stage.endpoint(), Window::Usual, Plan::HANG_LIMIT).await;
        let Ok(mut connection) = opened else { continue };
        let exchange = connection.exchange(letter, Plan::HANG_LIMIT).await;
        if exchange.persistence() == Persistence::KeepAlive {
            kept.push(connection);
        }
    }
    kept
}

/// Connects and asks; `None` when nobody let it in, else since when and what came of it.
fn visit(
    stage: &Stage,
    path: &str,
    number: usize,
) -> impl Future<Output = Option<(Instant, Outcome)>> + use<> {
    let letter = Letter::new(&[Request::get(path)], stage.address());
    let (target, limit) = (stage.endpoint(), stage.service().grace);
    let recorder = stage.recorder().clone();
    async move {
        let since = Instant::now();
        // Let in is who is connected, whether hands were shaken or not.
        let opened = Connection::dial(target, Window::Usual, limit).await;
        let exchange = opened.ok()?.exchange(&letter, limit).await;
        recorder.note_exchange(number, &letter, &exchange);
        Some((since, judge(&exchange.evidence(0))))
    }
}

fn all_answered(letter: &Letter, exchange: &Exchange) -> bool {
    let mut outcomes = (0..letter.requests()).map(|index| judge(&exchange.evidence(index)));
    outcomes.all(|outcome| matches!(outcome, Outcome::Answered { .. }))
}

fn count(tally: &mut Tally, letter: &Letter, exchange: &Exchange, evidence: &Evidence) {
    let outcome = judge(evidence);
    tally.count(Kind::NewConnection, outcome);
    if let Outcome::Lost(loss) = outcome {
        tally.describe(|| Example {
            kind: Kind::NewConnection,
            loss,
            request: letter.first_line(),
            tag: 0,
            phase: evidence.to_string(),
            error: words(exchange, evidence),
        });
    }
}

/// Freezes the service with requests before it, and judges what becomes of them.
async fn held(stage: &Stage, held: impl FnOnce(Plan) -> Held, least: u64) -> Finding {
    let mut queued = 0;
    let disposition = Disposition::of(stage.pid(), stage.service().signal);
    let sent = || {
        // Evidence only: another network namespace's table is not ours to see.
        queued = listeners::queued(stage.address().port()).unwrap_or(0);
        stage.sent(disposition);
    };
    let tally = match held(plan(stage)).run_noting(sent).await {
        Ok(tally) => tally,
        Err(error) => return Finding::inconclusive(error.to_string()),
    };
    let mut finding = Finding::of_losses(&tally, &tally.total, least, stage.lag());
    if queued > 0 {
        let seen = &finding.seen;
        finding.seen = format!("{seen}; {queued} were in the accept queue at the signal");
    }
    finding
}

/// What every load of a check has in common.
fn plan(stage: &Stage) -> Plan {
    let service = stage.service();
    Plan {
        requests: service.offers.requests(),
        hang_limit: service.grace,
        recorder: Some(stage.recorder().clone()),
        ..Plan::against(stage.endpoint())
    }
}

#[cfg(test)]
mod tests {
    use super::ends_behind_event;

    #[test]
    fn an_event_ends_with_an_empty_line() {
        for whole in ["a\n\n", "\r\n\r\n", "a\r\r"] {
            assert!(ends_behind_event(whole.as_bytes()), "{whole:?}");
        }
        for cut in ["data", "a\n", "a\r\n", "", "\n\nd"] {
            assert!(!ends_behind_event(cut.as_bytes()), "{cut:?}");
        }
    }
}
