//! What clients did during one stop: a bar for each request, in a lane for each client, and marks
//! for what happened to the service.
//!
//! The promise: whoever counts a request notes it once. What is kept is bounded for each check, and
//! what is left out is counted: answers first, and those furthest before the signal before others.
//! Never judges: `outcome` does.

mod kept;
mod selection;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cause::Lost;
use crate::http1::{Exchange, Letter};
use crate::http2;
use crate::load::ledger::words;
use crate::outcome::{Evidence, Outcome, judge};
use crate::plan::{Kind, Request};
use crate::stop::Moments;
use kept::{Kept, Weight};
pub(crate) use selection::Selection;

/// What clients did during one stop, in milliseconds after the signal.
#[derive(Debug, Clone, Serialize)]
pub struct Timeline {
    /// The stop's number, from one.
    pub stop: usize,
    /// The checks that looked at it.
    pub checks: Vec<&'static str>,
    /// Those of them that failed in it.
    pub failed: Vec<&'static str>,
    /// What happened to the service, in order.
    pub marks: Vec<Mark>,
    /// What each client did, by check.
    pub lanes: Vec<Lane>,
    /// How many requests were noted and not kept.
    pub left_out: u64,
    /// When the last answer had arrived, kept or not, if that was after the signal.
    #[serde(skip)]
    pub last_answer: Option<Duration>,
}

/// A moment of the service.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mark {
    /// What it is: `signal`, `readiness`, `listener` or `exit`.
    pub name: &'static str,
    /// When, in milliseconds after the signal.
    pub at: f64,
    /// What happened, in words.
    pub how: String,
}

/// What one client did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lane {
    /// The check that it is a client of.
    pub check: &'static str,
    /// Its kind, where it is a client of a load.
    pub kind: Option<Kind>,
    /// Its number among the clients of its check, from one.
    pub number: usize,
    /// Its requests, by when they began; those of one burst, or of one HTTP/2 connection, overlap.
    pub bars: Vec<Bar>,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bar {
    /// When its client began, to connect if need be, in milliseconds after the signal.
    pub from: f64,
    /// When it was over.
    pub to: f64,
    /// What became of it.
    pub class: Class,
    /// The same more precisely, in words.
    pub how: String,
    /// The request line, such as `GET /fast`.
    pub request: String,
    /// Of a loss: how far the exchange had come, and what the operating system said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
}

/// What became of a request, without how: see [`Outcome`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// A whole answer came.
    Answered,
    /// The server turned it down, and its client can tell.
    Declined,
    /// No answer came that was owed.
    Lost,
    /// Our own side failed.
    LocalError,
}

/// When a request began and when it was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// When its client began, to connect if need be.
    pub from: Instant,
    /// When it was over.
    pub to: Instant,
}

/// Notes what the clients of one check do; clones share what is noted.
#[derive(Debug, Clone)]
pub struct Recorder {
    check: &'static str,
    moments: watch::Receiver<Moments>,
    noted: Arc<Mutex<Kept<Noted>>>,
    unready: Arc<OnceLock<Instant>>,
    last_answer: Arc<Mutex<Option<Instant>>>,
}

/// Names a client within its check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Client {
    /// Its kind, where it is a client of a load.
    pub(crate) kind: Option<Kind>,
    /// Its number, from one.
    pub(crate) number: usize,
}

/// What came of something that is no exchange of HTTP.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// Roughly.
    pub(crate) class: Class,
    /// More precisely, in words.
    pub(crate) how: String,
}

#[derive(Debug)]
struct Noted {
    client: Client,
    span: Span,
    request: String,
    class: Class,
    how: String,
    /// Of a loss, in words, and as its client saw it.
    evidence: Option<String>,
    lost: Option<Lost>,
}

impl Recorder {
    /// Notes when a probe that was told "not ready" began; the first counts.
    pub(crate) fn note_unready(&self, at: Instant) {
        self.unready.get_or_init(|| at);
    }

    pub(crate) fn new(check: &'static str, moments: watch::Receiver<Moments>) -> Self {
        Self {
            check,
            moments,
            noted: Arc::default(),
            unready: Arc::default(),
            last_answer: Arc::default(),
        }
    }

    /// Notes a request that is over; the error is asked for only of a loss.
    pub(crate) fn note(
        &self,
        client: Client,
        span: Span,
        request: String,
        evidence: &Evidence,
        error: impl FnOnce() -> String,
    ) {
        let outcome = judge(evidence);
        if matches!(outcome, Outcome::Answered { .. }) {
            let mut last = self.last_answer();
            *last = last.max(Some(span.to));
        }
        let lost = match outcome {
            Outcome::Lost(loss) => Some(Lost {
                kind: client.kind,
                span,
                loss,
                evidence: *evidence,
            }),
            _ => None,
        };
        self.keep(Noted {
            client,
            span,
            request,
            class: Class::of(outcome),
            how: how(outcome),
            evidence: lost.map(|_| format!("{evidence}; {}", error())),
            lost,
        });
    }

    /// Notes each attempt of a client that is no exchange of HTTP: a connect, a WebSocket. It counts as no
    /// answer, nor as a request that was lost.
    pub(crate) fn note_attempt(
        &self,
        number: usize,
        span: Span,
        request: String,
        attempt: Attempt,
    ) {
        let Attempt { class, how } = attempt;
        self.keep(Noted {
            client: Client { kind: None, number },
            span,
            request,
            class,
            evidence: (class == Class::Lost).then(|| how.clone()),
            how,
            lost: None,
        });
    }

    /// Notes an HTTP/2 stream.
    pub(crate) fn note_stream(&self, number: usize, request: &Request, stream: &http2::Exchange) {
        let client = Client { kind: None, number };
        let line = format!("{} {}", request.method, request.path);
        self.note(client, stream.span(), line, &stream.evidence(), || {
            stream.error().unwrap_or_default().to_owned()
        });
    }

    fn keep(&self, noted: Noted) {
        let weight = weight(noted.span, noted.class, self.moments.borrow().signalled);
        self.noted().keep(weight, noted);
    }

    /// Lists what was lost, as far as it is kept.
    pub(crate) fn losses(&self) -> Vec<Lost> {
        self.noted().iter().filter_map(|noted| noted.lost).collect()
    }

    /// Notes each request of an exchange.
    pub(crate) fn note_exchange(&self, number: usize, letter: &Letter, exchange: &Exchange) {
        let client = Client { kind: None, number };
        for index in 0..letter.requests() {
            let seen = exchange.evidence(index);
            let span = exchange.span(index);
            self.note(client, span, letter.first_line(), &seen, || {
                words(exchange, &seen)
            });
        }
    }

    fn last_answer(&self) -> MutexGuard<'_, Option<Instant>> {
        self.last_answer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn noted(&self) -> MutexGuard<'_, Kept<Noted>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each client did, in milliseconds after `zero`.
    fn lanes(&self, zero: Instant) -> Vec<Lane> {
        let mut lanes: BTreeMap<Client, Vec<Bar>> = BTreeMap::new();
        for noted in self.noted().iter() {
            lanes
                .entry(noted.client)
                .or_default()
                .push(bar(noted, zero));
        }
        let lane = |(client, mut bars): (Client, Vec<Bar>)| {
            bars.sort_by(|one, other| one.from.total_cmp(&other.from));
            Lane {
                check: self.check,
                kind: client.kind,
                number: client.number,
                bars,
            }
        };
        lanes.into_iter().map(lane).collect()
    }
}

/// How much a request tells of the stop: an answer the less, the further it is from the signal.
fn weight(span: Span, class: Class, signalled: Option<Instant>) -> Weight {
    match signalled {
        _ if class != Class::Answered => Weight::Telling,
        None => Weight::Before,
        Some(signalled) if span.to < signalled => Weight::Before,
        Some(signalled) if span.from < signalled => Weight::Telling,
        Some(_) => Weight::After,
    }
}

fn bar(noted: &Noted, zero: Instant) -> Bar {
    Bar {
        from: millis(noted.span.from, zero),
        to: millis(noted.span.to, zero),
        class: noted.class,
        how: noted.how.clone(),
        request: noted.request.clone(),
        evidence: noted.evidence.clone(),
    }
}

impl Class {
    fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Answered { .. } => Self::Answered,
            Outcome::Declined(_) => Self::Declined,
            Outcome::Lost(_) => Self::Lost,
            Outcome::LocalError => Self::LocalError,
        }
    }
}

fn how(outcome: Outcome) -> String {
    match outcome {
        Outcome::Answered { status } => status.to_string(),
        Outcome::Declined(declined) => declined.to_string(),
        Outcome::Lost(loss) => loss.to_string(),
        Outcome::LocalError => "our own side could not connect".to_owned(),
    }
}

/// Milliseconds from one instant to another, negative before it, to the microsecond.
fn millis(at: Instant, zero: Instant) -> f64 {
    let exact = |length: Duration| length.as_micros() as f64 / 1000.0;
    match at.checked_duration_since(zero) {
        Some(after) => exact(after),
        None => -exact(zero.duration_since(at)),
    }
}

impl Timeline {
    /// Puts together what was noted, once the stop is over.
    pub(crate) fn of(moments: &Moments, recorders: &[Recorder]) -> Self {
        let ended = moments.ended.map(|(at, _)| at);
        let zero = moments.signalled.or(ended).unwrap_or_else(Instant::now);
        Self {
            stop: 0,
            checks: recorders.iter().map(|one| one.check).collect(),
            failed: Vec::new(),
            marks: marks(moments, zero, recorders),
            lanes: recorders.iter().flat_map(|one| one.lanes(zero)).collect(),
            left_out: recorders.iter().map(|one| one.noted().left_out()).sum(),
            last_answer: recorders
                .iter()
                .filter_map(|one| (*one.last_answer())?.checked_duration_since(zero))
                .max(),
        }
    }
}

fn marks(moments: &Moments, zero: Instant, recorders: &[Recorder]) -> Vec<Mark> {
    let mark = |name, at, how: &str| Mark {
        name,
        at: millis(at, zero),
        how: how.to_owned(),
    };
    let signal = moments.signalled.map(|at| mark("signal", at, "signal"));
    let unready = recorders.iter().find_map(|one| one.unready.get().copied());
    let unready = unready.map(|at| mark("readiness", at, "not ready"));
    let closed = moments
        .closed
        .map(|at| mark("listener", at, "listener closed"));
    let exit = moments.ended.map(|(at, ended)| match moments.killed {
        true => mark("exit", at, "killed, its grace was over"),
        false => mark(
            "exit",
            at,
            &ended.map_or_else(String::new, |ended| ended.to_string()),
        ),
    });
    let mut marks: Vec<Mark> = [signal, unready, closed, exit]
        .into_iter()
        .flatten()
        .collect();
    marks.sort_by(|one, other| one.at.total_cmp(&other.at));
    marks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Disclaimed, End, Loss, Persistence, Protocol, Reuse, Seen, Sent, Taken};
    use crate::process::Ended;
    use crate::tcp::TcpState::{CloseWait, Established};

    const LOST: Evidence = Evidence {
        protocol: Protocol::Http1,
        reuse: Reuse::Reused,
        before: Some(Established),
        after: Some(Established),
        finally: Some(CloseWait),
        sent: Sent::All,
        taken: Taken::Some,
        seen: Seen::Nothing,
        disclaimed: Disclaimed::No,
        end: End::Eof,
    };
    const ANSWERED: Evidence = Evidence {
        seen: Seen::Whole {
            status: 200,
            persistence: Persistence::KeepAlive,
        },
        end: End::Answer,
        ..LOST
    };

    fn after(zero: Instant, millis: i64) -> Instant {
        let length = Duration::from_millis(millis.unsigned_abs());
        if millis < 0 {
            zero - length
        } else {
            zero + length
        }
    }

    fn zero() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn span(zero: Instant, from: i64, to: i64) -> Span {
        Span {
            from: after(zero, from),
            to: after(zero, to),
        }
    }

    #[test]
    fn times_are_milliseconds_after_the_signal_and_negative_before_it() {
        let zero = zero();
        let micros = |micros| zero + Duration::from_micros(micros);
        let table = [
            (zero, 0.0),
            (after(zero, 12), 12.0),
            (after(zero, -12), -12.0),
            (micros(1), 0.001),
            (micros(1_234_567), 1234.567),
            (zero + Duration::from_nanos(999), 0.0),
        ];
        for (at, expected) in table {
            assert_eq!(millis(at, zero), expected, "{at:?}");
        }
    }

    #[test]
    fn losses_and_what_is_in_flight_at_the_signal_tell_most() {
        let zero = zero();
        let table = [
            ((-20, -10), Class::Answered, Weight::Before),
            ((-20, -10), Class::Lost, Weight::Telling),
            ((-20, 0), Class::Answered, Weight::Telling),
            ((-20, 10), Class::Answered, Weight::Telling),
            ((0, 10), Class::Answered, Weight::After),
            ((0, 10), Class::Lost, Weight::Telling),
            ((0, 10), Class::Declined, Weight::Telling),
            ((0, 10), Class::LocalError, Weight::Telling),
        ];
        for ((from, to), class, expected) in table {
            let span = span(zero, from, to);
            let weight = weight(span, class, Some(zero));
            assert_eq!(weight, expected, "{from} to {to}, {class:?}");
        }
        let early = weight(span(zero, -20, -10), Class::Answered, None);
        assert_eq!(early, Weight::Before, "before there is a signal");
    }

    #[test]
    fn a_stop_becomes_lanes_by_client_and_marks_in_order() {
        let zero = zero();
        let (sender, moments) = watch::channel(Moments::default());
        let recorder = Recorder::new("http1/1", moments);
        let note = |number, from, to, evidence| {
            let kind = Some(Kind::Slow);
            let client = Client { kind, number };
            let request = "GET /".to_owned();
            recorder.note(client, span(zero, from, to), request, evidence, || {
                "words".to_owned()
            });
        };
        note(2, -5, 5, &ANSWERED);
        note(1, 10, 20, &LOST);
        note(1, -9, -1, &ANSWERED);
        sender.send_modify(|moments| {
            moments.signalled = Some(zero);
            moments.closed = Some(after(zero, 30));
            moments.ended = Some((after(zero, 40), Some(Ended::Code(0))));
        });

        recorder.note_unready(after(zero, 5));
        let attempt = Attempt {
            class: Class::Lost,
            how: "ended within a frame".to_owned(),
        };
        recorder.note_attempt(3, span(zero, -3, 35), "GET /ws".to_owned(), attempt);
        let losses = recorder.losses();
        assert_eq!((losses.len(), losses[0].loss), (1, Loss::Eof));
        let timeline = Timeline::of(&sender.borrow(), &[recorder]);
        let lanes: Vec<_> = timeline
            .lanes
            .iter()
            .map(|lane| (lane.number, lane.bars.len()))
            .collect();
        // What has no kind comes first.
        assert_eq!(lanes, [(3, 1), (1, 2), (2, 1)]);
        assert_eq!(timeline.last_answer, Some(Duration::from_millis(5)));
        let attempt = &timeline.lanes[0].bars[0];
        assert_eq!(attempt.evidence.as_deref(), Some("ended within a frame"));
        let first = &timeline.lanes[1].bars;
        assert_eq!(
            (first[0].from, first[0].evidence.as_deref()),
            (-9.0, None),
            "{first:?}"
        );
        assert_eq!(first[1].class, Class::Lost);
        assert!(first[1].evidence.as_deref().unwrap().ends_with("; words"));
        let marks: Vec<_> = timeline
            .marks
            .iter()
            .map(|one| (one.name, one.at))
            .collect();
        let expected = [
            ("signal", 0.0),
            ("readiness", 5.0),
            ("listener", 30.0),
            ("exit", 40.0),
        ];
        assert_eq!(marks, expected);
    }
}
